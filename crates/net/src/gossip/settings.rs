//! Every setting of gossipsub that is not its default, with its reason.

use std::time::Duration;

use libp2p::gossipsub::{
    AllowAllSubscriptionFilter, Behaviour, Config, ConfigBuilder, IdentityTransform,
    MaxCountSubscriptionFilter, Message, MessageAuthenticity, MessageId, PeerScoreParams,
    PeerScoreThresholds, ValidationMode,
};
use messagehub_protocol::{limits::MAX_SEALED_FRAME_BYTES, wire::frame};

use super::prompt::Prompt;

/// Topics of one peer: the 5,000 rooms that a node is built for, and room for those it joins while
/// connected. A peer with more would be invisible, without an error on either side.
pub(crate) const MAX_TOPICS: usize = 6_000;

/// The largest RPC. A whole subscription list travels as one RPC, at 34 bytes for each topic of 26
/// characters, and so does a frame with its envelope: twice the frame covers both.
const MAX_RPC_BYTES: usize = 2 * MAX_SEALED_FRAME_BYTES;

/// The part of an RPC that is not messages: the subscription list of [`MAX_TOPICS`] topics again.
const MAX_CONTROL_BYTES: usize = MAX_RPC_BYTES;

/// How long a frame waits for its verdict and can be asked for. The homeserver judges in
/// milliseconds; a burst on a busy phone may take seconds.
pub(crate) const KEPT: Duration = Duration::from_secs(10);

/// The behaviour with our filter.
pub(crate) type Gossip =
    Prompt<Behaviour<IdentityTransform, MaxCountSubscriptionFilter<AllowAllSubscriptionFilter>>>;

/// Makes the behaviour with all our settings.
///
/// # Errors
/// gossipsub's text about settings that contradict each other.
pub(crate) fn behaviour() -> Result<Gossip, String> {
    // Anonymous: a frame is signed by its server's verify key already, which is what receivers
    // check. gossipsub's own signature would prove a PeerId that nobody asks about, cost a second
    // verification per hop, and tell strangers who wrote. The forwarder stays accountable: it is
    // the authenticated neighbour.
    let privacy = MessageAuthenticity::Anonymous;
    let filter = MaxCountSubscriptionFilter {
        filter: AllowAllSubscriptionFilter {},
        max_subscribed_topics: MAX_TOPICS,
        max_subscriptions_per_request: MAX_TOPICS,
    };
    let config = config().map_err(|error| error.to_string())?;
    let mut gossip = Behaviour::new_with_subscription_filter(privacy, config, filter)?;
    gossip.with_peer_score(scores(), thresholds())?;
    Ok(Prompt(gossip))
}

fn config() -> Result<Config, libp2p::gossipsub::ConfigBuilderError> {
    ConfigBuilder::default()
        // Nothing is forwarded before the homeserver accepted it.
        .validate_messages()
        // Strict: a message with an author, number or signature is not one of ours.
        .validation_mode(ValidationMode::Anonymous)
        .message_id_fn(message_id)
        .max_transmit_size(MAX_RPC_BYTES)
        .max_control_message_size(MAX_CONTROL_BYTES)
        // The author sends to all subscribed neighbours at once: rooms are small, one hop is the
        // lowest latency, and a mesh that a hostile neighbour sits in cannot hold a frame back.
        .flood_publish(true)
        // Verdicts come within KEPT; a heartbeat is a second.
        .history_length(KEPT.as_secs() as usize)
        // Frames announced to neighbours outside the mesh: the last three seconds, as by default.
        .history_gossip(3)
        // Longer than a frame is fresh on any path by gossip; the store knows duplicates anyway.
        .duplicate_cache_time(Duration::from_secs(120))
        // A node that restarts is grafted again at once and not after five seconds.
        .heartbeat_initial_delay(Duration::from_millis(500))
        // A queue of the largest RPCs must stay below 128 MiB for one slow neighbour.
        .connection_handler_queue_len(256)
        // A neighbour that is behind by more is better served by the heads exchange.
        .publish_queue_duration(Duration::from_secs(5))
        .forward_queue_duration(Duration::from_secs(2))
        .build()
}

/// The hash of topic and frame: one event that two nodes publish in one frame is one message.
fn message_id(message: &Message) -> MessageId {
    MessageId::from(frame::message_id(message.topic.as_str(), &message.data).to_vec())
}

/// Scores by what is provable only: frames rejected by the homeserver, which [`super::Faults`]
/// counts. All that depends on load, timing or on who shares an address with whom weighs nothing,
/// since an honest phone behind a bad link looks the same as an attacker there. No topic has
/// parameters, which would make each look at a peer cost as much as it has topics.
fn scores() -> PeerScoreParams {
    PeerScoreParams {
        app_specific_weight: 1.0,
        ip_colocation_factor_weight: 0.0,
        behaviour_penalty_weight: 0.0,
        slow_peer_weight: 0.0,
        ..PeerScoreParams::default()
    }
}

/// What a score does: after three bad frames at once a peer gets no announcements (-90), after five
/// no frames of ours (-250), after ten it is not listened to (-1,000).
fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: -80.0,
        publish_threshold: -200.0,
        graylist_threshold: -850.0,
        ..PeerScoreThresholds::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::gossipsub::TopicHash;

    fn message(topic: &str, data: &[u8]) -> Message {
        let topic = TopicHash::from_raw(topic);
        Message { source: None, data: data.to_vec(), sequence_number: None, topic }
    }

    #[test]
    fn settings_do_not_contradict_each_other() {
        behaviour().unwrap();
    }

    #[test]
    fn a_frame_is_named_by_topic_and_bytes() {
        let id = message_id(&message("a", b"frame"));
        assert_eq!(id, message_id(&message("a", b"frame")));
        assert_ne!(id, message_id(&message("b", b"frame")));
        assert_ne!(id, message_id(&message("a", b"fram")));
    }
}
