//! What the transport counts. The node gives the registry; everything here is a shared atomic.

use libp2p::gossipsub::MessageAcceptance;
use messagehub_homeserver::peers::Reachability;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// The counters and gauges of the transport; clones share their values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    /// Established connections.
    pub(crate) connections: Gauge,
    /// Connected peers that speak for a verified server.
    pub(crate) verified_peers: Gauge,
    /// Streams of the request protocol.
    pub(crate) streams: StreamMetrics,
    /// Frames that came by gossip, by what became of them.
    pub(crate) frames: Family<FrameLabels, Counter>,
    /// Frames that we published, by how that went.
    pub(crate) published: Family<PublishLabels, Counter>,
    /// Requests that we sent, by how they ended.
    pub(crate) requests: Family<RequestLabels, Counter>,
    /// Requests that peers sent us and that reached the router.
    pub(crate) served: Counter,
    /// What peers asked for and did not get, by reason.
    pub(crate) refused: Family<RefusedLabels, Counter>,
    /// Reports to the homeserver that were dropped because its queue was full.
    pub(crate) reports_dropped: Counter,
    /// How others reach us: 1 at what it is, 0 elsewhere.
    pub(crate) reachability: Family<ReachabilityLabels, Gauge>,
    /// What happened at relays, ours and those of others.
    pub(crate) relays: Family<RelayLabels, Counter>,
    /// Attempts at a direct connection in place of a relayed one, by how they ended.
    pub(crate) upgrades: Family<UpgradeLabels, Counter>,
    /// Peers in our table of the public DHT.
    pub(crate) dht_peers: Gauge,
    /// Signed records of addresses that were believed.
    pub(crate) records: Counter,
    /// Signed records that are none.
    pub(crate) records_refused: Counter,
}

/// The counters of the stream behaviour.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamMetrics {
    /// Streams that a peer opened and we took.
    pub(crate) inbound: Counter,
    /// Streams that we opened.
    pub(crate) outbound: Counter,
    /// Opens that failed.
    pub(crate) failed: Counter,
    /// Inbound streams that were reset because a queue or a limit was full.
    pub(crate) overflowed: Counter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct FrameLabels {
    outcome: FrameOutcome,
}

/// What became of a frame that came by gossip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum FrameOutcome {
    Accept,
    Ignore,
    Reject,
    Oversized,
    Overflow,
    Late,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PublishLabels {
    outcome: PublishOutcome,
}

/// How the publication of a frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum PublishOutcome {
    Sent,
    NoSubscriber,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    outcome: RequestOutcome,
}

/// How a request of ours ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum RequestOutcome {
    Answered,
    Unreachable,
    TimedOut,
    TooLarge,
    Refused,
    GivenUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReachabilityLabels {
    kind: ReachabilityKind,
}

/// How others reach us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum ReachabilityKind {
    Unknown,
    Public,
    Mapped,
    Relayed,
    Unreachable,
}

impl ReachabilityKind {
    const ALL: [Self; 5] =
        [Self::Unknown, Self::Public, Self::Mapped, Self::Relayed, Self::Unreachable];
}

impl From<&Reachability> for ReachabilityKind {
    fn from(reachability: &Reachability) -> Self {
        match reachability {
            Reachability::Unknown => Self::Unknown,
            Reachability::Public { .. } => Self::Public,
            Reachability::Mapped { .. } => Self::Mapped,
            Reachability::Private { relays } if relays.is_empty() => Self::Unreachable,
            Reachability::Private { .. } => Self::Relayed,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RelayLabels {
    event: RelayEvent,
}

/// What happened at a relay: at ours, or about our place at another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum RelayEvent {
    ReservationAccepted,
    ReservationDenied,
    CircuitAccepted,
    CircuitDenied,
    CircuitClosed,
    PlaceKept,
    PlaceLost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct UpgradeLabels {
    outcome: UpgradeOutcome,
}

/// How an attempt at a direct connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum UpgradeOutcome {
    Direct,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RefusedLabels {
    reason: Refusal,
}

/// Why a peer did not get what it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Refusal {
    Connection,
    BodyTooLarge,
    Busy,
    Slow,
    Idle,
    Keys,
    PeerId,
}

impl Metrics {
    /// Makes the counters and enters them in `registry` under `libp2p_`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let all = registry.sub_registry_with_prefix("libp2p");
        let Self { connections, verified_peers, streams, frames, published, .. } = metrics.clone();
        all.register("connections", "Established connections", connections);
        all.register("verified_peers", "Peers that speak for a verified server", verified_peers);
        all.register("streams_inbound", "Streams taken from peers", streams.inbound);
        all.register("streams_outbound", "Streams opened", streams.outbound);
        all.register("streams_failed", "Streams that could not be opened", streams.failed);
        all.register("streams_overflowed", "Inbound streams reset at a limit", streams.overflowed);
        all.register("frames", "Gossip frames received, by outcome", frames);
        all.register("published", "Gossip frames published, by outcome", published);
        let Self { requests, served, refused, reports_dropped, .. } = metrics.clone();
        all.register("requests", "Requests sent to servers, by outcome", requests);
        all.register("served", "Requests of peers that reached the router", served);
        all.register("refused", "What peers were refused, by reason", refused);
        all.register("reports_dropped", "Reports lost to a full queue", reports_dropped);
        metrics.register_paths(all);
        metrics
    }

    fn register_paths(&self, all: &mut Registry) {
        let Self { reachability, relays, upgrades, dht_peers, .. } = self.clone();
        all.register("reachability", "How others reach this node: 1 at what it is", reachability);
        all.register("relay", "What happened at relays, by event", relays);
        all.register("upgrades", "Tries to replace relayed connections, by outcome", upgrades);
        all.register("public_dht_peers", "Peers in the table of the public DHT", dht_peers);
        let Self { records, records_refused, .. } = self.clone();
        all.register("records", "Signed records of addresses believed", records);
        all.register(
            "records_refused",
            "Signed records of addresses that are none",
            records_refused,
        );
        self.reachability(&Reachability::Unknown);
    }

    pub(crate) fn reachability(&self, reachability: &Reachability) {
        let now = ReachabilityKind::from(reachability);
        for kind in ReachabilityKind::ALL {
            let gauge = self.reachability.get_or_create(&ReachabilityLabels { kind });
            gauge.set(i64::from(kind == now));
        }
    }

    pub(crate) fn relay(&self, event: RelayEvent) {
        self.relays.get_or_create(&RelayLabels { event }).inc();
    }

    pub(crate) fn upgrade(&self, is_done: bool) {
        let outcome = if is_done { UpgradeOutcome::Direct } else { UpgradeOutcome::Failed };
        self.upgrades.get_or_create(&UpgradeLabels { outcome }).inc();
    }

    pub(crate) fn frame(&self, outcome: FrameOutcome) {
        self.frames.get_or_create(&FrameLabels { outcome }).inc();
    }

    pub(crate) fn publish(&self, outcome: PublishOutcome) {
        self.published.get_or_create(&PublishLabels { outcome }).inc();
    }

    pub(crate) fn request(&self, outcome: RequestOutcome) {
        self.requests.get_or_create(&RequestLabels { outcome }).inc();
    }

    #[cfg(test)]
    pub(crate) fn refused(&self, reason: Refusal) -> u64 {
        self.refused.get_or_create(&RefusedLabels { reason }).get()
    }

    pub(crate) fn refuse(&self, reason: Refusal) {
        self.refused.get_or_create(&RefusedLabels { reason }).inc();
    }
}

impl From<&MessageAcceptance> for FrameOutcome {
    fn from(acceptance: &MessageAcceptance) -> Self {
        match acceptance {
            MessageAcceptance::Accept => Self::Accept,
            MessageAcceptance::Ignore => Self::Ignore,
            MessageAcceptance::Reject => Self::Reject,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_appear_in_the_registry() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.frame(FrameOutcome::Reject);
        metrics.refuse(Refusal::Slow);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("libp2p_frames_total{outcome=\"Reject\"} 1"), "{text}");
        assert!(text.contains("libp2p_refused_total{reason=\"Slow\"} 1"), "{text}");
    }
}
