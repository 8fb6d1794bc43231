//! How fast frames may come, looked at before they cost anything. What is too fast is no fault
//! that others could see, so it is ignored, and comparing heads brings what it held.

use messagehub_protocol::wire::sealed::RoomKey;
use ruma::{OwnedRoomId, OwnedServerName, RoomId};

use crate::buckets::{Buckets, Pace};

/// Frames that one neighbour forwards, of all authors and rooms: what a core takes in, and ten
/// times what one user may send.
const OF_NEIGHBOUR: Pace = Pace { per_second: 1_000.0, burst: 4_000.0 };

/// Frames of one room: a room can take no more than half of what we can.
const OF_ROOM: Pace = Pace { per_second: 500.0, burst: 2_000.0 };

/// Frames of one server in all rooms: five users at the limit for messages.
const OF_AUTHOR: Pace = Pace { per_second: 500.0, burst: 2_000.0 };

/// Of each kind at once: more than there are connections, rooms, or servers that speak within the
/// few seconds after which a bucket is full again.
const MAX_BUCKETS: usize = 6_000;

/// How fast frames come.
#[derive(Debug)]
pub(crate) struct FramePaces {
    neighbours: Buckets<String>,
    rooms: Buckets<OwnedRoomId>,
    authors: Buckets<OwnedServerName>,
}

impl FramePaces {
    /// Counts a frame that a neighbour brought; `false` when it brings too many.
    pub(crate) fn take_of_neighbour(&mut self, source: &str, now_ms: u64) -> bool {
        self.neighbours.take(&source.to_owned(), now_ms)
    }

    /// Whether a frame may be opened, by its room and its author, before they are charged for it.
    pub(crate) fn has(&self, room_id: &RoomId, key: &RoomKey, now_ms: u64) -> bool {
        self.rooms.has(&room_id.to_owned(), now_ms)
            && self.authors.has(&key.owner().to_owned(), now_ms)
    }

    /// Counts a frame of a room and an author, who has signed it: nobody is charged for what others
    /// made up.
    pub(crate) fn take(&mut self, room_id: &RoomId, author: &OwnedServerName, now_ms: u64) -> bool {
        let of_room = self.rooms.take(&room_id.to_owned(), now_ms);
        self.authors.take(author, now_ms) && of_room
    }
}

impl Default for FramePaces {
    fn default() -> Self {
        Self {
            neighbours: Buckets::new(OF_NEIGHBOUR, MAX_BUCKETS),
            rooms: Buckets::new(OF_ROOM, MAX_BUCKETS),
            authors: Buckets::new(OF_AUTHOR, MAX_BUCKETS),
        }
    }
}
