//! The keys of other servers, as members of their rooms told them. Pure: the time is an argument.

use std::{collections::BTreeMap, sync::Arc};

use messagehub_protocol::{
    limits::FRESHNESS_MS,
    wire::sealed::{RoomKey, RoomKeyId},
};
use ruma::{OwnedRoomId, RoomId, ServerName};

/// Keys in all: ten of each of the 5,000 rooms that a node is built for, about 16 MB.
const MAX_KEYS: usize = 50_000;

/// Keys of one room: more servers than speak in a room within a week, so that one room cannot push
/// out the keys of all others.
const MAX_KEYS_OF_ROOM: usize = 5_000;

/// Keys of one server for one room: more than it should need while its frames are fresh, so that
/// nobody fills the table by changing theirs.
const MAX_KEYS_OF_OWNER: usize = 4;

/// How long a key that nothing was heard under is kept, in milliseconds: 7 days, after which its
/// owner has another one.
const KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// Keys of other servers.
#[derive(Default)]
pub(super) struct HeldKeys {
    rooms: BTreeMap<OwnedRoomId, BTreeMap<RoomKeyId, Held>>,
    count: usize,
}

struct Held {
    key: Arc<RoomKey>,
    used_ms: u64,
}

impl HeldKeys {
    /// A key, which counts as used now.
    pub(super) fn find(
        &mut self,
        room_id: &RoomId,
        key_id: RoomKeyId,
        now_ms: u64,
    ) -> Option<Arc<RoomKey>> {
        let held = self.rooms.get_mut(room_id)?.get_mut(&key_id)?;
        held.used_ms = held.used_ms.max(now_ms);
        Some(Arc::clone(&held.key))
    }

    /// Keeps a key; where there are too many, those unused for longest go.
    pub(super) fn insert(&mut self, room_id: &RoomId, key: RoomKey, now_ms: u64) {
        let keys = self.rooms.entry(room_id.to_owned()).or_default();
        let before = keys.len();
        let owner = key.owner().to_owned();
        keys.insert(key.id(), Held { key: Arc::new(key), used_ms: now_ms });
        if of_owner(keys, &owner).count() > MAX_KEYS_OF_OWNER {
            remove_oldest(keys, |held| held.key.owner() == owner);
        }
        if keys.len() > MAX_KEYS_OF_ROOM {
            remove_oldest(keys, |_| true);
        }
        self.count = self.count + keys.len() - before;
        if self.count > MAX_KEYS {
            self.make_room();
        }
    }

    /// Drops the tenth that was unused for longest, so that this is rare.
    fn make_room(&mut self) {
        let all = self.rooms.values().flat_map(BTreeMap::values);
        let mut times: Vec<u64> = all.map(|held| held.used_ms).collect();
        let at = times.len() / 10;
        let (_, limit, _) = times.select_nth_unstable(at);
        let limit = *limit;
        self.retain(|_, held| held.used_ms > limit);
    }

    /// Forgets what no fresh frame can be sealed with: of each server all but the key it used last,
    /// and that one too when it has not been heard of for long.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        self.retain(|newest, held| {
            let kept_ms = if newest { KEPT_MS } else { 2 * FRESHNESS_MS };
            now_ms.saturating_sub(held.used_ms) < kept_ms
        });
    }

    pub(super) fn forget(&mut self, room_id: &RoomId) {
        let forgotten = self.rooms.remove(room_id).map_or(0, |keys| keys.len());
        self.count -= forgotten;
    }

    /// Keeps what `keep` says; it learns whether a key is the one that its owner used last.
    fn retain(&mut self, keep: impl Fn(bool, &Held) -> bool) {
        for keys in self.rooms.values_mut() {
            let mut newest: BTreeMap<&ServerName, (u64, RoomKeyId)> = BTreeMap::new();
            for (id, held) in keys.iter() {
                let used = newest.entry(held.key.owner()).or_insert((held.used_ms, *id));
                *used = (*used).max((held.used_ms, *id));
            }
            let newest: Vec<RoomKeyId> = newest.into_values().map(|(_, id)| id).collect();
            keys.retain(|id, held| keep(newest.contains(id), held));
        }
        self.rooms.retain(|_, keys| !keys.is_empty());
        self.count = self.rooms.values().map(BTreeMap::len).sum();
    }
}

fn of_owner<'a>(
    keys: &'a BTreeMap<RoomKeyId, Held>,
    owner: &'a ServerName,
) -> impl Iterator<Item = &'a Held> {
    keys.values().filter(move |held| held.key.owner() == owner)
}

fn remove_oldest(keys: &mut BTreeMap<RoomKeyId, Held>, of: impl Fn(&Held) -> bool) {
    let oldest = keys.iter().filter(|(_, held)| of(held)).min_by_key(|(_, held)| held.used_ms);
    if let Some(id) = oldest.map(|(id, _)| *id) {
        keys.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use messagehub_protocol::wire::sealed::ROOM_KEY_BYTES;
    use ruma::{OwnedServerName, room_id};
    use zeroize::Zeroizing;

    use super::*;

    fn room() -> &'static RoomId {
        room_id!("!room:example.org")
    }

    fn key(owner: u32, seed: u8) -> RoomKey {
        let owner = OwnedServerName::try_from(format!("s{owner}.example.org")).unwrap();
        RoomKey::new(owner, room(), Zeroizing::new([seed; ROOM_KEY_BYTES]), Vec::new())
    }

    fn holds(held: &HeldKeys, key: &RoomKey) -> bool {
        held.rooms.get(room()).is_some_and(|keys| keys.contains_key(&key.id()))
    }

    #[test]
    fn one_server_fills_no_more_than_its_part() {
        let mut held = HeldKeys::default();
        held.insert(room(), key(1, 0), 0);
        for seed in 0..10 {
            held.insert(room(), key(2, seed), u64::from(seed));
        }
        assert_eq!(held.count, 1 + MAX_KEYS_OF_OWNER);
        assert!(holds(&held, &key(1, 0)) && holds(&held, &key(2, 9)) && !holds(&held, &key(2, 5)));
    }

    #[test]
    fn old_keys_go_when_their_frames_are_stale() {
        let mut held = HeldKeys::default();
        held.insert(room(), key(1, 1), 0);
        held.insert(room(), key(1, 2), 1_000);
        held.insert(room(), key(2, 1), 0);
        held.sweep(2 * FRESHNESS_MS);
        assert!(!holds(&held, &key(1, 1)) && holds(&held, &key(1, 2)) && holds(&held, &key(2, 1)));
        assert!(held.find(room(), key(2, 1).id(), KEPT_MS).is_some(), "used again");
        held.sweep(KEPT_MS + 1_000);
        assert!(!holds(&held, &key(1, 2)) && holds(&held, &key(2, 1)));
        assert_eq!(held.count, 1);
        held.forget(room());
        assert_eq!((held.count, held.rooms.len()), (0, 0));
    }

    #[test]
    fn a_room_and_the_whole_are_bounded() {
        let mut held = HeldKeys::default();
        for owner in 0..5_003 {
            held.insert(room(), key(owner, 1), owner.into());
        }
        assert_eq!(held.count, MAX_KEYS_OF_ROOM);
        assert!(!holds(&held, &key(2, 1)) && holds(&held, &key(3, 1)));
        for n in 0..50_u32 {
            let room_id = OwnedRoomId::try_from(format!("!{n}:example.org")).unwrap();
            for owner in 0..1_000 {
                held.insert(&room_id, key(owner, 1), u64::from(n) * 10_000 + u64::from(owner));
            }
        }
        assert!(held.count <= MAX_KEYS && held.count > MAX_KEYS / 2, "{}", held.count);
        assert_eq!(held.count, held.rooms.values().map(BTreeMap::len).sum::<usize>());
    }
}
