//! Frames of rooms, in both directions.

use bytes::Bytes;
use libp2p::{
    PeerId,
    gossipsub::{Event, Message, MessageAcceptance, MessageId, PublishError},
};
use messagehub_homeserver::peers::Inbound;
use messagehub_protocol::limits::MAX_SEALED_FRAME_BYTES;
use ruma::{OwnedRoomId, RoomId};
use tokio::{sync::oneshot, time::Instant};
use tracing::{debug, warn};

use super::EventLoop;
use crate::{
    gossip::{MAX_TOPICS, Topics, Verdict},
    metrics::{FrameOutcome, PublishOutcome},
};

impl EventLoop {
    pub(super) fn publish(&mut self, room_id: &RoomId, frame: Bytes) {
        if frame.len() > MAX_SEALED_FRAME_BYTES {
            warn!(%room_id, bytes = frame.len(), "a frame is too large to publish");
            self.metrics.publish(PublishOutcome::Failed);
            return;
        }
        let published = self.swarm.behaviour_mut().gossip.publish(Topics::of(room_id), frame);
        match published {
            Ok(_) => self.metrics.publish(PublishOutcome::Sent),
            // Nobody else is here: whoever comes asks for the heads.
            Err(PublishError::NoPeersSubscribedToTopic) => {
                self.metrics.publish(PublishOutcome::NoSubscriber);
            }
            Err(error) => {
                debug!(%room_id, %error, "a frame was not published");
                self.metrics.publish(PublishOutcome::Failed);
            }
        }
    }

    pub(super) fn subscribe(&mut self, room_id: OwnedRoomId) {
        let topic = Topics::of(&room_id);
        if self.topics.len() >= MAX_TOPICS && self.topics.room(&topic.hash()).is_none() {
            warn!(%room_id, "too many rooms: this one gets no gossip, only the heads exchange");
            return;
        }
        match self.swarm.behaviour_mut().gossip.subscribe(&topic) {
            Ok(_) => self.topics.insert(room_id),
            Err(error) => warn!(%room_id, %error, "cannot subscribe to a room"),
        }
    }

    pub(super) fn unsubscribe(&mut self, room_id: &RoomId) {
        self.swarm.behaviour_mut().gossip.unsubscribe(&Topics::of(room_id));
        self.topics.remove(room_id);
    }

    pub(super) fn on_gossip(&mut self, event: Event) {
        match event {
            Event::Message { propagation_source, message_id, message } => {
                self.on_frame(propagation_source, message_id, message);
            }
            Event::Subscribed { peer_id, topic } => {
                if let Some(peer) = self.book.peer_mut(&peer_id) {
                    peer.told_topic();
                }
                let Some(room_id) = self.topics.room(&topic).cloned() else { return };
                let Some(peer) = self.book.peer(&peer_id) else { return };
                // Of a peer that was not announced yet the homeserver will hear, and compare all
                // rooms then.
                if !peer.announced {
                    return;
                }
                let server = peer.standing.server().cloned();
                let peer_id = peer_id.to_string();
                self.reports.hint(Inbound::Subscribed { peer_id, server, room_id });
            }
            Event::SlowPeer { peer_id, failed_messages } => {
                debug!(peer = %peer_id, ?failed_messages, "a peer is too slow for gossip");
            }
            Event::Unsubscribed { .. } | Event::GossipsubNotSupported { .. } => {}
        }
    }

    /// Hands a frame to the homeserver and remembers that its verdict is due.
    fn on_frame(&mut self, source: PeerId, id: MessageId, message: Message) {
        if message.data.len() > MAX_SEALED_FRAME_BYTES {
            self.metrics.frame(FrameOutcome::Oversized);
            self.judge(&id, &source, MessageAcceptance::Reject);
            return;
        }
        // gossipsub delivers topics of ours only; this one we just left.
        let Some(room_id) = self.topics.room(&message.topic).cloned() else {
            self.judge(&id, &source, MessageAcceptance::Ignore);
            return;
        };
        let (reply, verdict) = oneshot::channel();
        let frame = Bytes::from(message.data);
        let report = Inbound::Frame { source: source.to_string(), room_id, frame, reply };
        if self.verdicts.has_room() && self.reports.frame(report) {
            self.verdicts.wait(id, source, verdict);
        } else {
            self.metrics.frame(FrameOutcome::Overflow);
            self.judge(&id, &source, MessageAcceptance::Ignore);
        }
    }

    pub(super) fn on_verdict(&mut self, verdict: Verdict) {
        let outcome = FrameOutcome::from(&verdict.acceptance);
        let is_known = self.judge(&verdict.message, &verdict.source, verdict.acceptance);
        self.metrics.frame(if is_known { outcome } else { FrameOutcome::Late });
    }

    /// Lets faults fade.
    pub(super) fn forgive(&mut self, now: Instant) {
        for (peer, score) in self.faults.fade(now) {
            self.swarm.behaviour_mut().gossip.set_application_score(&peer, score);
        }
    }

    fn judge(&mut self, id: &MessageId, source: &PeerId, acceptance: MessageAcceptance) -> bool {
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        if acceptance == MessageAcceptance::Reject {
            gossip.set_application_score(source, self.faults.count(*source));
        }
        gossip.report_message_validation_result(id, source, acceptance)
    }
}
