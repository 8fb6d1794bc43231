//! What the transport counts. The node gives the registry; everything here is a shared atomic.

use libp2p::gossipsub::MessageAcceptance;
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
        metrics
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
