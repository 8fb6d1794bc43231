//! Room state: immutable maps from event type and state key to an event.
//!
//! A state is a trie, named by its root. A changed state is a new root that shares
//! all but one path with the old one; so a state event costs a few hundred bytes in
//! a room of any size, every event can name the state before it, and two states are
//! compared by walking only what they do not share.
//! See `docs/decisions/0001-room-state-as-a-persistent-trie.md`.

use ruma::events::StateEventType;

use crate::{EventNid, KeyNid, Snapshot, StateNid, StoreError, Txn};

use trie::Change;
pub(crate) use trie::Pack;

mod keys;
mod trie;

/// The state before a room's first event.
pub const EMPTY: StateNid = StateNid(0);

/// Event type and state key.
pub type StateKey = (StateEventType, String);

/// One key that two states do not agree about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// The event type.
    pub kind: StateEventType,
    /// The state key.
    pub state_key: String,
    /// What the first state has.
    pub before: Option<EventNid>,
    /// What the second state has.
    pub after: Option<EventNid>,
}

/// The event a state has for one key. O(log n).
///
/// # Errors
/// Fails when the database does.
pub fn get(
    snap: &Snapshot<'_>,
    root: StateNid,
    kind: &StateEventType,
    state_key: &str,
) -> Result<Option<EventNid>, StoreError> {
    match keys::find(snap, kind, state_key)? {
        Some(key) => trie::get(snap, root, key),
        None => Ok(None),
    }
}

/// The state with one key set. O(log n); `root` itself when nothing changes.
///
/// # Errors
/// Fails when the database does.
pub fn set(
    txn: &mut Txn<'_>,
    root: StateNid,
    kind: &StateEventType,
    state_key: &str,
    event: EventNid,
) -> Result<StateNid, StoreError> {
    let key = keys::intern(txn, kind, state_key)?;
    trie::apply(txn, root, vec![Change::new(key, Some(event))])
}

/// The state with many keys set, or removed where there is no event. Of two changes
/// of one key the later counts.
///
/// # Errors
/// Fails when the database does.
pub fn apply<'c>(
    txn: &mut Txn<'_>,
    root: StateNid,
    changes: impl IntoIterator<Item = (&'c StateEventType, &'c str, Option<EventNid>)>,
) -> Result<StateNid, StoreError> {
    let changes: Result<Vec<_>, StoreError> = changes
        .into_iter()
        .map(|(kind, state_key, event)| Ok(Change::new(keys::intern(txn, kind, state_key)?, event)))
        .collect();
    trie::apply(txn, root, changes?)
}

/// Everything in a state, in no particular but a constant order. O(n).
///
/// # Errors
/// Fails when the database does.
pub fn all(
    snap: &Snapshot<'_>,
    root: StateNid,
) -> Result<Vec<(StateEventType, String, EventNid)>, StoreError> {
    named(snap, trie::entries(snap, root, trie::Part::Whole)?)
}

/// Everything of one type. O(members) for `m.room.member`, else O(everything else).
///
/// # Errors
/// Fails when the database does.
pub fn all_of_type(
    snap: &Snapshot<'_>,
    root: StateNid,
    kind: &StateEventType,
) -> Result<Vec<(String, EventNid)>, StoreError> {
    let class = keys::class(kind);
    let entries = trie::entries(snap, root, trie::Part::Class(class))?;
    let mut found = named(snap, entries)?;
    found.retain(|(its_kind, ..)| its_kind == kind);
    Ok(found.into_iter().map(|(_, state_key, event)| (state_key, event)).collect())
}

/// Everything but `m.room.member`: what lazy loading begins with. Its cost does not
/// depend on the number of members.
///
/// # Errors
/// Fails when the database does.
pub fn all_but_members(
    snap: &Snapshot<'_>,
    root: StateNid,
) -> Result<Vec<(StateEventType, String, EventNid)>, StoreError> {
    named(snap, trie::entries(snap, root, trie::Part::AllBut(keys::MEMBERS))?)
}

/// How many keys a state has. O(n).
///
/// # Errors
/// Fails when the database does, or when a node of the state cannot be read.
pub fn len(snap: &Snapshot<'_>, root: StateNid) -> Result<usize, StoreError> {
    Ok(trie::entries(snap, root, trie::Part::Whole)?.len())
}

/// The keys two states do not agree about. What they share is not looked at.
///
/// # Errors
/// Fails when the database does.
pub fn diff(
    snap: &Snapshot<'_>,
    before: StateNid,
    after: StateNid,
) -> Result<Vec<StateChange>, StoreError> {
    trie::diff(snap, before, after)?
        .into_iter()
        .map(|(key, before, after)| {
            let name = keys::name(snap, key)?;
            let (kind, state_key) = (name.0.clone(), name.1.clone());
            Ok(StateChange { kind, state_key, before, after })
        })
        .collect()
}

fn named(
    snap: &Snapshot<'_>,
    entries: Vec<(KeyNid, EventNid)>,
) -> Result<Vec<(StateEventType, String, EventNid)>, StoreError> {
    entries
        .into_iter()
        .map(|(key, event)| {
            let name = keys::name(snap, key)?;
            Ok((name.0.clone(), name.1.clone(), event))
        })
        .collect()
}

#[cfg(test)]
mod tests;
