//! State resolution: one state out of the states of several branches.
//!
//! The algorithm is ruma's; here its inputs are gathered from complete maps, so that an event that
//! is not there is an error and never a different state.
//!
//! Spec: Room Versions, "State resolution" of versions 2 and 12.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::{
    EventId, OwnedEventId,
    events::StateEventType,
    room_version_rules::RoomVersionRules,
    state_res::{self, StateMap, utils::event_id_set::EventIdSet},
};

use crate::pdu::Pdu;

#[cfg(test)]
mod tests;

/// Why there is no resolved state.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// An event of a state or of an auth chain was not given.
    #[error("event {0} is needed to resolve the state and was not gathered")]
    MissingEvent(OwnedEventId),
    /// An event of the state cannot be read as what it is.
    #[error("an event of the state is malformed: {0}")]
    Malformed(String),
}

/// Type and state key of a state event.
pub type Key = (StateEventType, String);

/// What the branches of a room have, as far as the resolved state depends on it.
#[derive(Debug, Clone, Default)]
pub struct Branches {
    /// What all branches have alike.
    pub agreed: StateMap<OwnedEventId>,
    /// For each key in which branches differ, the events that branches have there, each once.
    pub conflicting: HashMap<Key, Vec<OwnedEventId>>,
    /// The events that are in the auth chains of some branches, and not of all.
    pub auth_difference: HashSet<OwnedEventId>,
}

impl Branches {
    /// Compares whole states.
    ///
    /// # Errors
    ///
    /// `MissingEvent` when an auth chain is not whole.
    pub fn of(
        states: &[StateMap<OwnedEventId>],
        events: &HashMap<OwnedEventId, Arc<Pdu>>,
    ) -> Result<Self, ResolveError> {
        let mut branches = Self::default();
        let mut having: HashMap<(&Key, &OwnedEventId), usize> = HashMap::new();
        for entry in states.iter().flatten() {
            *having.entry(entry).or_default() += 1;
        }
        for ((key, id), count) in having {
            if count == states.len() {
                branches.agreed.insert(key.clone(), id.clone());
            } else {
                branches.conflicting.entry(key.clone()).or_default().push(id.clone());
            }
        }
        let mut resting: HashMap<&OwnedEventId, usize> = HashMap::new();
        for state in states {
            for id in auth_chain(state.values(), events)? {
                *resting.entry(id).or_default() += 1;
            }
        }
        let some = resting.into_iter().filter(|(_, count)| *count < states.len());
        branches.auth_difference = some.map(|(id, _)| id.clone()).collect();
        Ok(branches)
    }
}

/// Resolves the states after several events of one room.
///
/// `events` must hold every event that the states name and its full auth chain; from version 12 on
/// also the create event, which no auth chain contains.
///
/// # Errors
///
/// `MissingEvent`, or `Malformed` for a power levels event that no rule should have let in.
pub fn resolve(
    rules: &RoomVersionRules,
    states: &[StateMap<OwnedEventId>],
    events: &HashMap<OwnedEventId, Arc<Pdu>>,
) -> Result<StateMap<OwnedEventId>, ResolveError> {
    let [first, others @ ..] = states else { return Ok(StateMap::new()) };
    if others.iter().all(|state| state == first) {
        return Ok(first.clone());
    }
    resolve_branches(rules, Branches::of(states, events)?, events)
}

/// As [`resolve`], by what matters of the states.
///
/// Of what all branches agree about that may be left out which is neither among the
/// [`needed_state`](crate::auth::needed_state) of an event that takes part, nor the only one whose
/// auth chain has an event that would count as an auth difference without it.
///
/// # Errors
///
/// As [`resolve`].
pub fn resolve_branches(
    rules: &RoomVersionRules,
    branches: Branches,
    events: &HashMap<OwnedEventId, Arc<Pdu>>,
) -> Result<StateMap<OwnedEventId>, ResolveError> {
    if branches.conflicting.is_empty() {
        return Ok(branches.agreed);
    }
    let version = rules.state_res.v2_rules().ok_or_else(|| {
        ResolveError::Malformed("the room version has no second state resolution".to_owned())
    })?;
    if rules.authorization.room_create_event_id_as_room_id {
        has_create_event(&branches, events)?;
    }
    let (states, chains) = told_apart(branches);
    state_res::resolve(
        &rules.authorization,
        version,
        &states,
        chains,
        |id| events.get(id).cloned(),
        |conflicted| subgraph(conflicted.values().flatten(), events).ok(),
    )
    .map_err(|error| match error {
        state_res::Error::NotFound(id) => ResolveError::MissingEvent(id),
        error => ResolveError::Malformed(error.to_string()),
    })
}

/// The fewest states and auth chains with these differences. Which branch has what does not matter
/// to the algorithm: it asks of an event only whether all have it.
fn told_apart(branches: Branches) -> (Vec<StateMap<OwnedEventId>>, Vec<EventIdSet<OwnedEventId>>) {
    let Branches { agreed, conflicting, auth_difference } = branches;
    let most = conflicting.values().map(Vec::len).max().unwrap_or_default();
    // Of one state alone everything would be agreed.
    let mut states = vec![agreed; most.max(2)];
    for (key, ids) in conflicting {
        for (state, id) in states.iter_mut().zip(ids) {
            state.insert(key.clone(), id);
        }
    }
    (states, vec![auth_difference.into_iter().collect(), EventIdSet::new()])
}

/// Without the create event every rule would fail, and no error tell.
fn has_create_event(
    branches: &Branches,
    events: &HashMap<OwnedEventId, Arc<Pdu>>,
) -> Result<(), ResolveError> {
    let Some(id) = branches.conflicting.values().flatten().next() else {
        return Ok(());
    };
    let create = EventId::parse(format!("${}", find(events, id)?.room_id().strip_sigil()))
        .map_err(|error| ResolveError::Malformed(error.to_string()))?;
    find(events, &create).map(drop)
}

/// The given events and everything they rest on.
///
/// The events themselves count: by the letter of the spec they would not, but then an event that
/// every branch has would differ between branches that do and do not build on it. Synapse counts
/// them too, and agreeing with the rooms that exist is what matters.
fn auth_chain<'a>(
    start: impl Iterator<Item = &'a OwnedEventId>,
    events: &'a HashMap<OwnedEventId, Arc<Pdu>>,
) -> Result<HashSet<&'a OwnedEventId>, ResolveError> {
    let mut chain = HashSet::new();
    let mut todo: Vec<&OwnedEventId> = start.collect();
    while let Some(id) = todo.pop() {
        if chain.insert(id) {
            todo.extend(find(events, id)?.auth_events());
        }
    }
    Ok(chain)
}

/// The events on all paths along `auth_events` from one conflicted event to another, both ends
/// included.
///
/// Spec: room version 12, "State resolution", conflicted state subgraph.
fn subgraph<'a>(
    conflicted: impl Iterator<Item = &'a OwnedEventId>,
    events: &'a HashMap<OwnedEventId, Arc<Pdu>>,
) -> Result<EventIdSet<OwnedEventId>, ResolveError> {
    let conflicted: HashSet<&EventId> = conflicted.map(|id| &**id).collect();
    // Downwards: what the conflicted events rest on, and who rests directly on each of these.
    let mut resting_on: HashMap<&EventId, Vec<&EventId>> = HashMap::new();
    let mut seen: HashSet<&EventId> = conflicted.clone();
    let mut todo: Vec<&EventId> = conflicted.iter().copied().collect();
    while let Some(id) = todo.pop() {
        for below in find(events, id)?.auth_events() {
            resting_on.entry(below).or_default().push(id);
            if seen.insert(below) {
                todo.push(below);
            }
        }
    }
    // Upwards again from each conflicted event, within what was seen: that is on a path.
    let mut on_path: HashSet<&EventId> = conflicted.clone();
    let mut todo: Vec<&EventId> = conflicted.into_iter().collect();
    while let Some(id) = todo.pop() {
        for above in resting_on.get(id).into_iter().flatten() {
            if on_path.insert(above) {
                todo.push(above);
            }
        }
    }
    Ok(on_path.into_iter().map(ToOwned::to_owned).collect())
}

fn find<'a>(
    events: &'a HashMap<OwnedEventId, Arc<Pdu>>,
    id: &EventId,
) -> Result<&'a Arc<Pdu>, ResolveError> {
    events.get(id).ok_or_else(|| ResolveError::MissingEvent(id.to_owned()))
}
