//! Our keys: one for each room, and for a while those it replaced. Pure: the time, what was seen
//! of the room, and the new key are arguments.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use messagehub_protocol::{
    limits::FRESHNESS_MS,
    wire::sealed::{RoomKey, RoomKeyId},
};
use messagehub_store::{StateNid, StreamPos};
use ruma::{OwnedEventId, OwnedRoomId, RoomId};

use super::audience::{Look, Members};

/// Rooms for which we have a key: the 5,000 a node is built for, and room for some it has just
/// joined. Beyond it the one unused for longest goes; its next frame has a new key.
const MAX_ROOMS: usize = 6_000;

/// Replaced keys of one room. Frames under an older one are repaired by comparing heads.
const MAX_OLD: usize = 8;

/// How long a key is used, in milliseconds: 7 days, as long as `server_keys` are valid. Whoever got
/// hold of one reads no more than a week.
const LIFETIME_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// Our keys.
#[derive(Default)]
pub(super) struct OwnKeys(BTreeMap<OwnedRoomId, Own>);

struct Own {
    key: Arc<RoomKey>,
    made_ms: u64,
    used_ms: u64,
    /// The state of the room for whose members the key was last found right, and as of when.
    state: StateNid,
    pos: StreamPos,
    /// The newest first, each with the time at which the last frame under it ceases to be fresh.
    old: VecDeque<(Arc<RoomKey>, u64)>,
}

/// The key that a look at the room is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Basis {
    key_id: RoomKeyId,
    /// The state for whose members it was right.
    pub(super) state: StateNid,
    /// Whether it is to be replaced whoever is in the room.
    pub(super) is_old: bool,
}

impl OwnKeys {
    /// What a look at a room has to begin with; `None` while there is no key.
    pub(super) fn basis(&self, room_id: &RoomId, now_ms: u64) -> Option<Basis> {
        self.0.get(room_id).map(|own| own.basis(now_ms))
    }

    /// The key, where it was found right for the members of a state: what the next look would find
    /// need not be known.
    pub(super) fn for_members_of(
        &mut self,
        room_id: &RoomId,
        state: StateNid,
        now_ms: u64,
    ) -> Option<Arc<RoomKey>> {
        let own = self.0.get_mut(room_id)?;
        if own.state != state || own.is_old(now_ms) {
            return None;
        }
        own.used_ms = now_ms;
        Some(Arc::clone(&own.key))
    }

    /// The key for what was seen of a room: the one we have, or the one that `make` makes of the
    /// events it must come after. `None` when the look is stale: then another one is needed.
    pub(super) fn fit(
        &mut self,
        room_id: &RoomId,
        look: Look,
        now_ms: u64,
        make: impl FnOnce(Vec<OwnedEventId>) -> RoomKey,
    ) -> Option<Arc<RoomKey>> {
        if let Some(own) = self.0.get_mut(room_id) {
            if look.pos < own.pos {
                // It was found right, or made, for who is there later.
                return Some(Arc::clone(&own.key));
            }
            if look.basis != Some(own.basis(now_ms)) {
                return None;
            }
            if look.members == Members::Remain && !own.is_old(now_ms) {
                (own.state, own.pos, own.used_ms) = (look.state, look.pos, now_ms);
                return Some(Arc::clone(&own.key));
            }
        } else if look.basis.is_some() {
            return None;
        }
        let key = Arc::new(make(look.after));
        self.replace(room_id, (Arc::clone(&key), look.state, look.pos), now_ms);
        Some(key)
    }

    fn replace(
        &mut self,
        room_id: &RoomId,
        (key, state, pos): (Arc<RoomKey>, StateNid, StreamPos),
        now_ms: u64,
    ) {
        let mut old = VecDeque::new();
        if let Some(before) = self.0.remove(room_id) {
            old = before.old;
            old.push_front((before.key, now_ms.saturating_add(2 * FRESHNESS_MS)));
            old.truncate(MAX_OLD);
        } else if self.0.len() >= MAX_ROOMS {
            let unused = self.0.iter().min_by_key(|(_, own)| own.used_ms);
            if let Some(room_id) = unused.map(|(room_id, _)| room_id.clone()) {
                self.0.remove(&room_id);
            }
        }
        let own = Own { key, made_ms: now_ms, used_ms: now_ms, state, pos, old };
        self.0.insert(room_id.to_owned(), own);
    }

    /// A key of ours, the replaced ones included.
    pub(super) fn find(&self, room_id: &RoomId, key_id: RoomKeyId) -> Option<Arc<RoomKey>> {
        let own = self.0.get(room_id)?;
        let mut keys = std::iter::once(&own.key).chain(own.old.iter().map(|(key, _)| key));
        keys.find(|key| key.id() == key_id).cloned()
    }

    /// Forgets replaced keys under which no frame is fresh any more.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        for own in self.0.values_mut() {
            own.old.retain(|(_, until_ms)| now_ms < *until_ms);
        }
    }

    pub(super) fn forget(&mut self, room_id: &RoomId) {
        self.0.remove(room_id);
    }
}

impl Own {
    fn is_old(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.made_ms) >= LIFETIME_MS
    }

    fn basis(&self, now_ms: u64) -> Basis {
        Basis { key_id: self.key.id(), state: self.state, is_old: self.is_old(now_ms) }
    }
}

#[cfg(test)]
mod tests {
    use messagehub_protocol::wire::sealed::ROOM_KEY_BYTES;
    use ruma::{room_id, server_name};
    use zeroize::Zeroizing;

    use super::*;

    fn room() -> &'static RoomId {
        room_id!("!room:example.org")
    }

    fn key(seed: u8) -> RoomKey {
        let secret = Zeroizing::new([seed; ROOM_KEY_BYTES]);
        RoomKey::new(server_name!("example.org").to_owned(), room(), secret, Vec::new())
    }

    fn look(basis: Option<Basis>, at: i64, members: Members) -> Look {
        Look { basis, state: StateNid(at), pos: StreamPos(at), members, after: Vec::new() }
    }

    /// The key after a look as of a position, were it to be made anew as the key of `seed`.
    fn seen(own: &mut OwnKeys, (at, members): (i64, Members), now_ms: u64, seed: u8) -> RoomKeyId {
        let basis = own.basis(room(), now_ms);
        own.fit(room(), look(basis, at, members), now_ms, |_| key(seed)).unwrap().id()
    }

    #[test]
    fn a_key_lasts_until_somebody_leaves_or_it_is_old() {
        use Members::{Changed, Remain};
        let mut own = OwnKeys::default();
        assert_eq!(seen(&mut own, (1, Changed), 0, 1), key(1).id());
        assert_eq!(seen(&mut own, (2, Remain), 0, 2), key(1).id());
        assert_eq!(seen(&mut own, (3, Changed), 1_000, 3), key(3).id());
        assert_eq!(seen(&mut own, (3, Remain), LIFETIME_MS + 999, 4), key(3).id());
        assert_eq!(seen(&mut own, (3, Remain), LIFETIME_MS + 1_000, 5), key(5).id());
    }

    #[test]
    fn an_earlier_look_never_brings_an_earlier_key_back() {
        let mut own = OwnKeys::default();
        seen(&mut own, (1, Members::Changed), 0, 1);
        let early = own.basis(room(), 0);
        seen(&mut own, (5, Members::Changed), 0, 2);
        let fitted = |own: &mut OwnKeys, at, members| {
            own.fit(room(), look(early, at, members), 0, |_| key(9)).map(|key| key.id())
        };
        assert_eq!(fitted(&mut own, 4, Members::Remain), Some(key(2).id()), "seen before");
        assert_eq!(fitted(&mut own, 6, Members::Remain), None, "seen since, of the earlier key");
        assert_eq!(fitted(&mut own, 6, Members::Changed), None);
        own.forget(room());
        assert_eq!(fitted(&mut own, 6, Members::Remain), None, "forgotten meanwhile");
    }

    #[test]
    fn replaced_keys_open_while_their_frames_are_fresh() {
        let mut own = OwnKeys::default();
        seen(&mut own, (1, Members::Changed), 0, 1);
        seen(&mut own, (2, Members::Changed), 1_000, 2);
        own.sweep(1_000 + 2 * FRESHNESS_MS - 1);
        assert!(own.find(room(), key(1).id()).is_some());
        own.sweep(1_000 + 2 * FRESHNESS_MS);
        assert!(own.find(room(), key(1).id()).is_none());
        assert!(own.find(room(), key(2).id()).is_some());
        for n in 3..30 {
            seen(&mut own, (i64::from(n), Members::Changed), 2_000, n);
        }
        assert_eq!(own.0[room()].old.len(), MAX_OLD);
    }

    #[test]
    fn the_number_of_rooms_is_bounded() {
        let mut own = OwnKeys::default();
        for n in 0..MAX_ROOMS + 3 {
            let room_id = OwnedRoomId::try_from(format!("!{n}:example.org")).unwrap();
            let now_ms = u64::try_from(n).unwrap();
            own.fit(&room_id, look(None, 1, Members::Changed), now_ms, |_| key(1)).unwrap();
        }
        assert_eq!(own.0.len(), MAX_ROOMS);
        assert!(own.basis(room_id!("!2:example.org"), 0).is_none());
        assert!(own.basis(room_id!("!3:example.org"), 0).is_some());
    }
}
