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
    resolve::{self, Branches, Key},
};
use messagehub_store::{EventNid, Room, Snapshot, StateNid, StoreError, Txn, events, room_state};
use ruma::{OwnedEventId, room_version_rules::RoomVersionRules};

use super::ViewError;

#[cfg(test)]
mod tests;

/// What each branch has for the keys in which branches differ.
type Conflicts = BTreeMap<Key, Vec<Option<EventNid>>>;
/// The same without the branches: each event once.
type Candidates = HashMap<Key, Vec<OwnedEventId>>;

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
    let (branches, conflicting) = branches(txn, &conflicts, roots.len(), &mut known)?;
    let (agreed, auth_difference) = agreed(txn, base, &conflicts, (&branches, rules), &mut known)?;
    let gathered = Branches { agreed: agreed.clone(), conflicting, auth_difference };
    let resolved = resolve::resolve_branches(rules, gathered, &known.events)?;
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

/// Each branch's events in conflict, with their auth chains in `known`, and the same by their keys.
fn branches(
    snap: &Snapshot<'_>,
    conflicts: &Conflicts,
    count: usize,
    known: &mut Known,
) -> Result<(Vec<Vec<Place>>, Candidates), ViewError> {
    let mut branches = vec![Vec::with_capacity(conflicts.len()); count];
    let mut conflicting = Candidates::with_capacity(conflicts.len());
    for (key, values) in conflicts {
        let mut places = BTreeSet::new();
        for (branch, nid) in branches.iter_mut().zip(values) {
            if let Some(nid) = nid {
                let place = known.add(snap, *nid)?;
                branch.push(place);
                places.insert(place);
            }
        }
        let ids = places.into_iter().map(|place| known.id(place)).collect();
        conflicting.insert(key.clone(), ids);
    }
    Ok((branches, conflicting))
}

/// The part of what all branches agree about that the result can depend on, and the auth
/// difference.
fn agreed(
    snap: &Snapshot<'_>,
    base: StateNid,
    conflicts: &Conflicts,
    (branches, rules): (&[Vec<Place>], &RoomVersionRules),
    known: &mut Known,
) -> Result<(StateMap<OwnedEventId>, HashSet<OwnedEventId>), ViewError> {
    // What judges any event that can take part: all of them are in the chains of the conflicting.
    let needed: HashSet<Key> = known
        .list
        .iter()
        .flat_map(|entry| auth::needed_state_of(&entry.pdu, rules).unwrap_or_default())
        .filter(|key| !conflicts.contains_key(key))
        .collect();
    // In an order, so that what fails first does so every time.
    let needed: BTreeSet<Key> = needed.into_iter().collect();
    let mut agreed = StateMap::new();
    let mut places = Vec::new();
    for (kind, state_key) in needed {
        if let Some(nid) = room_state::get(snap, base, &kind, &state_key)? {
            let place = known.add(snap, nid)?;
            agreed.insert((kind, state_key), known.id(place));
            places.push(place);
        }
    }
    let in_some = known.in_some_only(branches);
    let mut in_agreed = known.resting(&places);
    // What a branch itself has in conflict differs, whatever rests on it.
    let in_conflict: HashSet<Place> = branches.iter().flatten().copied().collect();
    let open = in_some.iter().filter(|place| !in_agreed[**place] && !in_conflict.contains(*place));
    let open: HashSet<Place> = open.copied().collect();
    if !open.is_empty() {
        add_witnesses(snap, base, (conflicts, open), (&mut agreed, &mut in_agreed), known)?;
    }
    let difference = in_some.into_iter().filter(|place| !in_agreed[*place]);
    Ok((agreed, difference.map(|place| known.id(place)).collect()))
}

/// Adds events that all branches have and whose auth chains contain events of `open`, until each of
/// these that has a witness has one. `in_agreed` says what `agreed` and its auth chains are.
fn add_witnesses(
    snap: &Snapshot<'_>,
    base: StateNid,
    (conflicts, mut open): (&Conflicts, HashSet<Place>),
    (agreed, in_agreed): (&mut StateMap<OwnedEventId>, &mut Vec<bool>),
    known: &mut Known,
) -> Result<(), ViewError> {
    let mut seen = in_agreed.clone();
    for (kind, state_key, nid) in room_state::all(snap, base)? {
        let key = (kind, state_key);
        if open.is_empty() {
            break;
        }
        if conflicts.contains_key(&key) || agreed.contains_key(&key) {
            continue;
        }
        let witness = known.add(snap, nid)?;
        seen.resize(known.list.len(), false);
        let new = known.walk(&[witness], &mut seen);
        let found = new.iter().filter(|place| open.remove(*place)).count();
        if found > 0 {
            agreed.insert(key, known.id(witness));
            in_agreed.resize(known.list.len(), false);
            known.walk(&[witness], in_agreed);
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
    let nid = |id: &OwnedEventId| known.nid(id).ok_or_else(|| ViewError::Missing(vec![id.clone()]));
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

/// Where an event is in [`Known::list`].
type Place = usize;

/// Events that were read, each with its whole auth chain.
#[derive(Default)]
struct Known {
    list: Vec<Entry>,
    places: HashMap<EventNid, Place>,
    /// The same by id.
    events: HashMap<OwnedEventId, Arc<Pdu>>,
    places_by_id: HashMap<OwnedEventId, Place>,
}

struct Entry {
    nid: EventNid,
    pdu: Arc<Pdu>,
    rests_on: Vec<Place>,
}

impl Known {
    /// Reads an event and its auth chain.
    fn add(&mut self, snap: &Snapshot<'_>, nid: EventNid) -> Result<Place, ViewError> {
        if let Some(place) = self.places.get(&nid) {
            return Ok(*place);
        }
        let first = self.insert(nid, events::pdu(snap, nid)?);
        let mut todo = vec![first];
        while let Some(place) = todo.pop() {
            let pdu = Arc::clone(&self.list[place].pdu);
            let mut rests_on = Vec::with_capacity(pdu.auth_events().len());
            for id in pdu.auth_events() {
                let below = match self.places_by_id.get(id) {
                    Some(below) => *below,
                    None => {
                        let nid = events::find_nid(snap, id)?;
                        let nid = nid.ok_or_else(|| ViewError::Missing(vec![id.clone()]))?;
                        let below = self.insert(nid, events::pdu(snap, nid)?);
                        todo.push(below);
                        below
                    }
                };
                rests_on.push(below);
            }
            self.list[place].rests_on = rests_on;
        }
        Ok(first)
    }

    fn insert(&mut self, nid: EventNid, pdu: Arc<Pdu>) -> Place {
        let place = self.list.len();
        self.places.insert(nid, place);
        self.places_by_id.insert(pdu.event_id().to_owned(), place);
        self.events.insert(pdu.event_id().to_owned(), Arc::clone(&pdu));
        self.list.push(Entry { nid, pdu, rests_on: Vec::new() });
        place
    }

    fn id(&self, place: Place) -> OwnedEventId {
        self.list[place].pdu.event_id().to_owned()
    }

    fn nid(&self, id: &OwnedEventId) -> Option<EventNid> {
        self.places_by_id.get(id).map(|place| self.list[*place].nid)
    }

    /// Goes from some events to everything they rest on, where `seen` does not say that it was
    /// there before. Gives what is new.
    fn walk(&self, start: &[Place], seen: &mut [bool]) -> Vec<Place> {
        let (mut new, mut todo) = (Vec::new(), start.to_vec());
        while let Some(place) = todo.pop() {
            if !std::mem::replace(&mut seen[place], true) {
                new.push(place);
                todo.extend(&self.list[place].rests_on);
            }
        }
        new
    }

    /// For each known event whether it is among some events or what these rest on.
    fn resting(&self, start: &[Place]) -> Vec<bool> {
        let mut seen = vec![false; self.list.len()];
        self.walk(start, &mut seen);
        seen
    }

    /// The events that some branches have or rest on, and not all.
    fn in_some_only(&self, branches: &[Vec<Place>]) -> Vec<Place> {
        let mut counts = vec![0; self.list.len()];
        for branch in branches {
            for place in self.walk(branch, &mut vec![false; self.list.len()]) {
                counts[place] += 1;
            }
        }
        let differ =
            counts.iter().enumerate().filter(|(_, count)| (1..branches.len()).contains(*count));
        differ.map(|(place, _)| place).collect()
    }
}
