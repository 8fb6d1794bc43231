//! One state out of the states of several branches, at the cost of what they differ in.
//!
//! State resolution is a function of whole states. What all branches agree about matters to it in
//! three ways only: as the state that conflicting events are checked against, as what is left as
//! it is, and by its auth chains, which do not count as a difference. So the keys of the first
//! kind are gathered, the second are never touched, and of the third just enough witnesses that no
//! event counts as an auth difference which would not in the whole.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use messagehub_protocol::{
    auth::{self, StateMap},
    pdu::Pdu,
    resolve,
};
use messagehub_store::{EventNid, Room, Snapshot, StateNid, StoreError, Txn, events, room_state};
use ruma::{EventId, OwnedEventId, events::StateEventType, room_version_rules::RoomVersionRules};

use super::ViewError;

#[cfg(test)]
mod tests;

type Key = (StateEventType, String);
/// What each branch has for the keys in which branches differ.
type Conflicts = BTreeMap<Key, Vec<Option<EventNid>>>;

/// The state of a room after branches with these states come together; an empty state for none.
///
/// # Errors
///
/// `Missing` when an auth chain is not here in full, `Resolve` when a state is malformed.
pub(crate) fn merge(
    txn: &mut Txn<'_>,
    room: &Room,
    mut roots: Vec<StateNid>,
) -> Result<StateNid, ViewError> {
    roots.sort_unstable();
    roots.dedup();
    let [base, ..] = roots[..] else { return Ok(room_state::EMPTY) };
    if roots.len() == 1 {
        return Ok(base);
    }
    let conflicts = conflicts(txn, &roots)?;
    if conflicts.is_empty() {
        return Ok(base);
    }
    let rules = super::rules(room)?;
    let mut known = Known::default();
    let branches = branches(txn, &conflicts, roots.len(), &mut known)?;
    let agreed = agreed(txn, base, &conflicts, (&branches, rules), &mut known)?;
    let states: Vec<StateMap<OwnedEventId>> = branches
        .into_iter()
        .map(|branch| branch.into_iter().chain(agreed.clone()).collect())
        .collect();
    let resolved = resolve::resolve(rules, &states, &known.events)?;
    let changes = changes(txn, base, (&conflicts, &agreed), resolved, &known)?;
    let changes = changes.iter().map(|((kind, key), event)| (kind, key.as_str(), *event));
    Ok(room_state::apply(txn, base, changes)?)
}

fn conflicts(snap: &Snapshot<'_>, roots: &[StateNid]) -> Result<Conflicts, StoreError> {
    let [base, others @ ..] = roots else { return Ok(Conflicts::new()) };
    let mut conflicts = Conflicts::new();
    for (index, root) in (1..).zip(others) {
        for change in room_state::diff(snap, *base, *root)? {
            let values = conflicts
                .entry((change.kind, change.state_key))
                .or_insert_with(|| vec![change.before; roots.len()]);
            values[index] = change.after;
        }
    }
    Ok(conflicts)
}

/// Each branch's conflicting state, with its auth chains in `known`.
fn branches(
    snap: &Snapshot<'_>,
    conflicts: &Conflicts,
    count: usize,
    known: &mut Known,
) -> Result<Vec<StateMap<OwnedEventId>>, ViewError> {
    let mut branches = vec![StateMap::new(); count];
    for (key, values) in conflicts {
        for (branch, nid) in branches.iter_mut().zip(values) {
            if let Some(nid) = nid {
                branch.insert(key.clone(), known.add(snap, *nid)?);
            }
        }
    }
    Ok(branches)
}

/// The part of what all branches agree about that the result can depend on.
fn agreed(
    snap: &Snapshot<'_>,
    base: StateNid,
    conflicts: &Conflicts,
    (branches, rules): (&[StateMap<OwnedEventId>], &RoomVersionRules),
    known: &mut Known,
) -> Result<StateMap<OwnedEventId>, ViewError> {
    // What judges any event that can take part: all of them are in the chains of the conflicting.
    let needed: BTreeSet<Key> = known
        .events
        .values()
        .flat_map(|event| auth::needed_state_of(event, rules).unwrap_or_default())
        .filter(|key| !conflicts.contains_key(key))
        .collect();
    let mut agreed = StateMap::new();
    for (kind, state_key) in needed {
        if let Some(nid) = room_state::get(snap, base, &kind, &state_key)? {
            agreed.insert((kind, state_key), known.add(snap, nid)?);
        }
    }
    let chains: Vec<HashSet<&EventId>> =
        branches.iter().map(|branch| known.chain(branch.values())).collect();
    let in_agreed = known.chain(agreed.values());
    let difference: HashSet<OwnedEventId> = chains
        .iter()
        .flatten()
        .filter(|id| !in_agreed.contains(*id) && !chains.iter().all(|chain| chain.contains(*id)))
        .map(|id| (*id).to_owned())
        .collect();
    // What a branch itself has in conflict differs, whatever rests on it.
    let in_conflict: HashSet<&OwnedEventId> =
        branches.iter().flat_map(|branch| branch.values()).collect();
    let difference: HashSet<OwnedEventId> =
        difference.into_iter().filter(|id| !in_conflict.contains(id)).collect();
    if !difference.is_empty() {
        add_witnesses(snap, base, (conflicts, difference), &mut agreed, known)?;
    }
    Ok(agreed)
}

/// Adds events that all branches have and whose auth chains contain events of `difference`, until
/// each of these that has a witness has one.
fn add_witnesses(
    snap: &Snapshot<'_>,
    base: StateNid,
    (conflicts, mut difference): (&Conflicts, HashSet<OwnedEventId>),
    agreed: &mut StateMap<OwnedEventId>,
    known: &mut Known,
) -> Result<(), ViewError> {
    let mut seen: HashSet<OwnedEventId> =
        known.chain(agreed.values()).into_iter().map(ToOwned::to_owned).collect();
    for (kind, state_key, nid) in room_state::all(snap, base)? {
        let key = (kind, state_key);
        if difference.is_empty() {
            break;
        }
        if conflicts.contains_key(&key) || agreed.contains_key(&key) {
            continue;
        }
        let id = known.add(snap, nid)?;
        let mut found = false;
        let mut todo = vec![id.clone()];
        while let Some(next) = todo.pop() {
            if seen.contains(&next) {
                continue;
            }
            found |= difference.remove(&next);
            todo.extend(known.auth_events(&next).iter().cloned());
            seen.insert(next);
        }
        if found {
            agreed.insert(key, id);
        }
    }
    Ok(())
}

/// What the resolved state changes in the first branch's.
fn changes(
    snap: &Snapshot<'_>,
    base: StateNid,
    (conflicts, agreed): (&Conflicts, &StateMap<OwnedEventId>),
    mut resolved: StateMap<OwnedEventId>,
    known: &Known,
) -> Result<Vec<(Key, Option<EventNid>)>, ViewError> {
    let nid = |id: &OwnedEventId| {
        known.nids.get(id).copied().ok_or_else(|| ViewError::Missing(vec![id.clone()]))
    };
    let mut changes = Vec::new();
    for key in conflicts.keys() {
        let event = resolved.remove(key).as_ref().map(nid).transpose()?;
        changes.push((key.clone(), event));
    }
    // An event of the auth difference can take a key that no branch had; what the branches agree
    // about stays.
    for (key, id) in resolved {
        if !agreed.contains_key(&key) && room_state::get(snap, base, &key.0, &key.1)?.is_none() {
            changes.push((key, Some(nid(&id)?)));
        }
    }
    Ok(changes)
}

/// Events that were read, each with its whole auth chain.
#[derive(Default)]
struct Known {
    events: HashMap<OwnedEventId, Arc<Pdu>>,
    nids: HashMap<OwnedEventId, EventNid>,
}

impl Known {
    /// Reads an event and its auth chain.
    fn add(&mut self, snap: &Snapshot<'_>, nid: EventNid) -> Result<OwnedEventId, ViewError> {
        let event = events::get(snap, nid)?;
        let id = event.pdu.event_id().to_owned();
        let mut todo = vec![event];
        while let Some(event) = todo.pop() {
            let id = event.pdu.event_id().to_owned();
            if self.events.contains_key(&id) {
                continue;
            }
            for auth_id in event.pdu.auth_events() {
                if !self.events.contains_key(auth_id) {
                    let found = events::find(snap, auth_id)?;
                    todo.push(found.ok_or_else(|| ViewError::Missing(vec![auth_id.clone()]))?);
                }
            }
            self.nids.insert(id.clone(), event.nid);
            self.events.insert(id, event.pdu);
        }
        Ok(id)
    }

    fn auth_events(&self, id: &EventId) -> &[OwnedEventId] {
        self.events.get(id).map_or(&[], |event| event.auth_events())
    }

    /// The given events and everything they rest on.
    fn chain<'a>(&'a self, start: impl Iterator<Item = &'a OwnedEventId>) -> HashSet<&'a EventId> {
        let mut chain = HashSet::new();
        let mut todo: Vec<&EventId> = start.map(|id| &**id).collect();
        while let Some(id) = todo.pop() {
            if chain.insert(id) {
                todo.extend(self.auth_events(id).iter().map(|id| &**id));
            }
        }
        chain
    }
}
