//! Which topic is which room of ours.

use std::collections::HashMap;

use libp2p::gossipsub::{IdentTopic, TopicHash};
use messagehub_protocol::wire::frame;
use ruma::{OwnedRoomId, RoomId};

/// The rooms that we subscribe to, by topic.
#[derive(Debug, Default)]
pub(crate) struct Topics(HashMap<TopicHash, OwnedRoomId>);

impl Topics {
    /// The topic of a room.
    pub(crate) fn of(room_id: &RoomId) -> IdentTopic {
        IdentTopic::new(frame::topic(room_id))
    }

    /// Remembers a room. The number of rooms is bounded by whoever subscribes.
    pub(crate) fn insert(&mut self, room_id: OwnedRoomId) {
        self.0.insert(Self::of(&room_id).hash(), room_id);
    }

    /// Forgets a room.
    pub(crate) fn remove(&mut self, room_id: &RoomId) {
        self.0.remove(&Self::of(room_id).hash());
    }

    /// The room behind a topic, if it is ours.
    pub(crate) fn room(&self, topic: &TopicHash) -> Option<&OwnedRoomId> {
        self.0.get(topic)
    }

    /// How many rooms are ours.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
