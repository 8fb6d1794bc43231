//! The homeserver's own numbers, as Prometheus reads them. Those of the transport are entered by
//! `net` itself.

use std::sync::atomic::{AtomicU64, Ordering};

use messagehub_homeserver::{Homeserver, peers::Counters};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{
        counter::ConstCounter,
        gauge::{ConstGauge, Gauge},
    },
    registry::Registry,
};

/// Enters the numbers of a homeserver.
pub(crate) fn register(registry: &mut Registry, hs: &Homeserver) {
    registry.register_collector(Box::new(HomeserverMetrics { hs: hs.clone() }));
}

#[derive(Debug)]
struct HomeserverMetrics {
    hs: Homeserver,
}

/// Name, help, and where the number stands.
type Entry = (&'static str, &'static str, fn(&Counters) -> &AtomicU64);

const COUNTERS: &[Entry] = &[
    ("frames_accepted", "Frames of other servers that were accepted", |c| &c.frames_accepted),
    ("frames_ignored", "Frames that were of no use, by nobody's fault", |c| &c.frames_ignored),
    ("frames_rejected", "Frames that any honest peer could see to be bad", |c| &c.frames_rejected),
    ("frames_limited", "Frames not looked at, because too many came", |c| &c.frames_limited),
    ("room_keys_made", "Room keys of ours that were made", |c| &c.room_keys_made),
    ("room_keys_asked", "Times a member was asked for a room key", |c| &c.room_keys_asked),
    ("room_keys_given", "Room keys given to members", |c| &c.room_keys_given),
    ("frames_dropped", "Frames of ours that did not fit the queue", |c| &c.frames_dropped),
    ("requests_refused", "Requests of other servers that were refused", |c| &c.requests_refused),
    ("events_repaired", "Events fetched because gossip did not bring them", |c| &c.events_repaired),
    ("heads_exchanges", "Comparisons of heads with other servers", |c| &c.heads_exchanges),
    ("outbox_deliveries", "Deliveries from the outbox", |c| &c.outbox_deliveries),
    ("edus_ignored", "EDUs that could not be read, or of an unknown type", |c| &c.edus_ignored),
    ("outbox_refusals", "Deliveries that were refused for good", |c| &c.outbox_refusals),
    ("relayed_requests", "Requests of ours that others carried", |c| &c.relayed_requests),
    ("relays_carried", "Requests of others that were carried", |c| &c.relays_carried),
    ("relays_refused", "Requests of others that were not carried", |c| &c.relays_refused),
    ("relays_taken", "Requests that came through others", |c| &c.relays_taken),
];

impl Collector for HomeserverMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counters = self.hs.peers.counters();
        for (name, help, read) in COUNTERS {
            let counter = ConstCounter::new(read(counters).load(Ordering::Relaxed));
            let name = format!("messagehub_{name}");
            let metric = encoder.encode_descriptor(&name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        let kind = <Gauge as prometheus_client::metrics::TypedMetric>::TYPE;
        let waiting = counters.outbox_waiting.load(Ordering::Relaxed);
        let waiting = ConstGauge::new(i64::try_from(waiting).unwrap_or(i64::MAX));
        let help = "Entries that wait in the outbox";
        let metric = encoder.encode_descriptor("messagehub_outbox_waiting", help, None, kind)?;
        waiting.encode(metric)?;
        let position = ConstGauge::new(self.hs.store.position().0);
        let help = "The last position of the store";
        let metric = encoder.encode_descriptor("messagehub_position", help, None, kind)?;
        position.encode(metric)
    }
}

#[cfg(test)]
mod tests {
    use super::COUNTERS;

    #[test]
    fn names_are_different() {
        let mut names: Vec<_> = COUNTERS.iter().map(|(name, ..)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COUNTERS.len());
    }
}
