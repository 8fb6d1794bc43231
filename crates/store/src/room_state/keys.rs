//! Event type and state key as one integer.

use std::sync::Arc;

use ruma::events::StateEventType;
use rusqlite::{OptionalExtension, params};

use crate::{
    KeyNid, Snapshot, StoreError, Txn,
    shared::{Learned, StateKeyName},
    txn::Table,
};

/// The class of `m.room.member`, which has it to itself.
pub(super) const MEMBERS: u8 = 0;

/// Classes are the first step of a path in the trie, so there are as many as a node has children.
pub(super) const CLASS_BITS: u32 = 4;

/// Which of 16 classes a type belongs to. Written into every trie: must never change.
pub(super) fn class(kind: &StateEventType) -> u8 {
    if *kind == StateEventType::RoomMember {
        return MEMBERS;
    }
    // 32-bit FNV-1a: any spreading function will do.
    let hash = kind
        .to_string()
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    // The remainder is below 15, so the sum is at most 15.
    (hash % 15) as u8 + 1
}

/// The class that a key carries in its lowest bits.
pub(super) fn class_of(key: KeyNid) -> u8 {
    (key.0 & 15) as u8
}

/// The key of a pair that some state has had.
pub(super) fn find(
    snap: &Snapshot<'_>,
    kind: &StateEventType,
    state_key: &str,
) -> Result<Option<KeyNid>, StoreError> {
    lookup(snap, &Arc::new((kind.clone(), state_key.to_owned())))
}

/// The key of a pair, given out when it is new.
pub(super) fn intern(
    txn: &mut Txn<'_>,
    kind: &StateEventType,
    state_key: &str,
) -> Result<KeyNid, StoreError> {
    let name = Arc::new((kind.clone(), state_key.to_owned()));
    if let Some(key) = lookup(txn, &name)? {
        return Ok(key);
    }
    let row = txn.next_nid(Table::StateKeys);
    let mut insert = txn
        .conn()
        .prepare_cached("INSERT INTO state_keys (nid, kind, state_key) VALUES (?1, ?2, ?3)")?;
    insert.execute(params![row, kind.to_string(), state_key])?;
    let key = with_class(row, kind);
    txn.learn(Learned::Key(name, key));
    Ok(key)
}

/// The pair a key stands for.
pub(super) fn name(snap: &Snapshot<'_>, key: KeyNid) -> Result<StateKeyName, StoreError> {
    if let Some(name) = snap.shared.keys.get(&key) {
        return Ok(name);
    }
    let mut select =
        snap.conn().prepare_cached("SELECT kind, state_key FROM state_keys WHERE nid = ?1")?;
    let (kind, state_key): (String, String) = select
        .query_row([key.0 >> CLASS_BITS], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?
        .ok_or_else(|| StoreError::Damaged(format!("state key {} is not there", key.0)))?;
    let name = Arc::new((StateEventType::from(kind), state_key));
    snap.shared.keys.insert(key, Arc::clone(&name), 1);
    Ok(name)
}

fn lookup(snap: &Snapshot<'_>, name: &StateKeyName) -> Result<Option<KeyNid>, StoreError> {
    if let Some(key) = snap.shared.key_nids.get(name) {
        return Ok(Some(key));
    }
    let (kind, state_key) = &**name;
    let mut select = snap
        .conn()
        .prepare_cached("SELECT nid FROM state_keys WHERE kind = ?1 AND state_key = ?2")?;
    let row =
        select.query_row(params![kind.to_string(), state_key], |row| row.get(0)).optional()?;
    let key = row.map(|row| with_class(row, kind));
    if let Some(key) = key {
        snap.learn(Learned::Key(Arc::clone(name), key));
    }
    Ok(key)
}

fn with_class(row: i64, kind: &StateEventType) -> KeyNid {
    KeyNid((row << CLASS_BITS) | i64::from(class(kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_what_existing_databases_were_built_with() {
        let classes = ["m.room.member", "m.room.create", "m.room.power_levels", "m.room.topic"]
            .map(|kind| class(&StateEventType::from(kind)));
        assert_eq!(classes, [0, 4, 9, 12]);
    }
}
