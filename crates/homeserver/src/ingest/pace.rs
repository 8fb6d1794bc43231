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

#[cfg(test)]
mod tests {
    use messagehub_protocol::wire::sealed::ROOM_KEY_BYTES;
    use ruma::room_id;
    use zeroize::Zeroizing;

    use super::*;

    fn author(number: u32) -> OwnedServerName {
        OwnedServerName::try_from(format!("s{number}.example.org")).unwrap()
    }

    fn may(paces: &FramePaces, room_id: &RoomId, number: u32) -> bool {
        let secret = Zeroizing::new([1; ROOM_KEY_BYTES]);
        paces.has(room_id, &RoomKey::new(author(number), room_id, secret, Vec::new()), 0)
    }

    #[test]
    fn an_author_pays_for_itself_in_all_rooms() {
        let mut paces = FramePaces::default();
        let (here, there) = (room_id!("!here:a"), room_id!("!there:a"));
        let taken = (0..3_000).filter(|_| paces.take(there, &author(1), 0)).count();
        assert_eq!(taken, 2_000);
        assert!(!may(&paces, here, 1) && may(&paces, here, 2));
        // So many came in that room that nobody else is heard there for a moment.
        assert!(!may(&paces, there, 2));
        assert!(paces.take(there, &author(2), 1_000) && paces.take(here, &author(1), 1_000));
    }

    #[test]
    fn a_room_is_full_whoever_speaks() {
        let mut paces = FramePaces::default();
        let here = room_id!("!here:a");
        let taken = (0..3_000).filter(|number| paces.take(here, &author(*number), 0)).count();
        assert_eq!(taken, 2_000);
        assert!(!may(&paces, here, 5_000) && may(&paces, room_id!("!there:a"), 5_000));
    }

    #[test]
    fn a_neighbour_is_counted_by_itself() {
        let mut paces = FramePaces::default();
        let taken = (0..5_000).filter(|_| paces.take_of_neighbour("one", 0)).count();
        assert_eq!(taken, 4_000);
        assert!(paces.take_of_neighbour("other", 0) && paces.take_of_neighbour("one", 1));
    }
}
