//! Gather: from rows to the values that `protocol` decides by.
//!
//! Invariant: nothing here decides about an event, and whatever is not there is an error or a
//! [`ViewError::Missing`], never a smaller view.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use messagehub_protocol::{
    auth::{self, AuthState, AuthViolation},
    build::{NewEvent, Place},
    limits::MAX_PREV_EVENTS,
    pdu::Pdu,
    receive::RoomView,
    resolve::ResolveError,
    rules::rules_of,
};
use messagehub_store::{
    Room, Snapshot, StateNid, StoreError, Txn,
    events::{self, StoredEvent},
    extremities, room_state,
};
use ruma::{
    OwnedEventId, OwnedServerName, RoomVersionId, events::StateEventType,
    room_version_rules::RoomVersionRules,
};

use crate::policy;

mod merge;

pub(crate) use merge::merge;

/// Why an event cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// Events that it follows or rests on are not here, or are here without the state they stand
    /// in.
    #[error("{} events that it rests on are missing", .0.len())]
    Missing(Vec<OwnedEventId>),
    /// The room has a version this server does not take part in.
    #[error("room version {0} is not supported")]
    UnsupportedVersion(RoomVersionId),
    /// The state of two branches cannot be resolved.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A view for judging an event, and the state it stands in.
#[derive(Debug)]
pub struct Gathered {
    /// What judges the event.
    pub view: RoomView,
    /// The state before the event.
    pub state_before: StateNid,
}

/// Where a new event goes, and what judges it.
#[derive(Debug)]
pub struct Opening {
    /// Before and auth events.
    pub place: Place,
    /// What judges the event.
    pub view: RoomView,
    /// The state before the event.
    pub state_before: StateNid,
}

/// The rules of a room's version.
///
/// # Errors
///
/// `UnsupportedVersion`.
pub fn rules(room: &Room) -> Result<&'static RoomVersionRules, ViewError> {
    rules_of(&room.version).ok_or_else(|| ViewError::UnsupportedVersion(room.version.clone()))
}

/// Everything that judges an event of another server, which says itself where it stands.
///
/// Writes only state nodes, and those only where branches meet that were never merged here.
///
/// # Errors
///
/// `Missing` when the event has to wait; the rest is not its fault.
pub fn for_event(txn: &mut Txn<'_>, room: &Room, pdu: &Pdu) -> Result<Gathered, ViewError> {
    let previous = find_all(txn, pdu.prev_events())?;
    // Events of another room are not what it can follow: their state is not this room's.
    let foreign = previous.iter().filter(|event| event.room != room.nid);
    let foreign: Vec<_> = foreign.map(|event| event.pdu.event_id().to_owned()).collect();
    if !foreign.is_empty() {
        return Err(ViewError::Missing(foreign));
    }
    let state_before = state_after_all(txn, room, &previous)?;
    let view = at(txn, room, state_before, pdu)?;
    Ok(Gathered { view, state_before })
}

/// What judges an event that stands in a given state.
///
/// # Errors
///
/// `Missing` when auth events are not here.
pub fn at(
    snap: &Snapshot<'_>,
    room: &Room,
    state_before: StateNid,
    pdu: &Pdu,
) -> Result<RoomView, ViewError> {
    let rules = rules(room)?;
    // A malformed member event needs nothing: the rules refuse it whatever the state is.
    let keys = auth::needed_state_of(pdu, rules).unwrap_or_default();
    let auth_events = find_all(snap, pdu.auth_events())?
        .into_iter()
        .map(|event| (event.pdu, event.standing))
        .collect();
    let state_before_part = part(snap, state_before, &keys)?;
    let mut current_state = match room.state == state_before {
        true => state_before_part.clone(),
        false => part(snap, room.state, &keys)?,
    };
    policy::add_to(snap, room, &mut current_state)?;
    Ok(RoomView {
        rules,
        auth_events,
        state_before: state_before_part,
        current_state: Some(current_state),
    })
}

/// The place for a new event at the forward extremities of a room, and what judges it there.
///
/// # Errors
///
/// `Ok(Err(_))` when the event is a malformed member event; `Err` as [`for_event`].
pub fn for_sending(
    txn: &mut Txn<'_>,
    room: &Room,
    new: &NewEvent,
) -> Result<Result<Opening, AuthViolation>, ViewError> {
    let rules = rules(room)?;
    let types =
        auth::auth_types(&new.kind, &new.sender, new.state_key.as_deref(), &new.content, rules);
    let types = match types {
        Ok(types) => types,
        Err(violation) => return Ok(Err(violation)),
    };
    let previous = heads(txn, room)?;
    let state_before = state_after_all(txn, room, &previous)?;
    let mut keys = types.clone();
    let create = (StateEventType::RoomCreate, String::new());
    if !keys.contains(&create) {
        keys.push(create);
    }
    let mut state = AuthState::with_capacity(keys.len());
    let mut judging = Vec::with_capacity(keys.len());
    for key in &keys {
        let Some(nid) = room_state::get(txn, state_before, &key.0, &key.1)? else { continue };
        let pdu = events::pdu(txn, nid)?;
        if types.contains(key) {
            judging.push((Arc::clone(&pdu), events::standing(txn, nid)?));
        }
        state.insert(key.clone(), pdu);
    }
    let mut current_state = match room.state == state_before {
        true => state.clone(),
        false => part(txn, room.state, &keys)?,
    };
    policy::add_to(txn, room, &mut current_state)?;
    let place = Place {
        prev_events: previous.into_iter().map(|event| event.pdu).collect(),
        auth_events: auth::select(&types, &state),
    };
    let view = RoomView {
        rules,
        auth_events: judging,
        state_before: state,
        current_state: Some(current_state),
    };
    Ok(Ok(Opening { place, view, state_before }))
}

/// The keys of a state that judging looks at, where the state has them.
///
/// # Errors
///
/// The store's.
pub fn part(
    snap: &Snapshot<'_>,
    state: StateNid,
    keys: &[(StateEventType, String)],
) -> Result<AuthState, StoreError> {
    let mut part = AuthState::with_capacity(keys.len());
    for (kind, state_key) in keys {
        if let Some(event) = state_event(snap, state, kind, state_key)? {
            part.insert((kind.clone(), state_key.clone()), event);
        }
    }
    Ok(part)
}

/// One event of a state.
///
/// # Errors
///
/// The store's.
pub fn state_event(
    snap: &Snapshot<'_>,
    state: StateNid,
    kind: &StateEventType,
    state_key: &str,
) -> Result<Option<Arc<Pdu>>, StoreError> {
    match room_state::get(snap, state, kind, state_key)? {
        Some(nid) => Ok(Some(events::pdu(snap, nid)?)),
        None => Ok(None),
    }
}

/// The events that a new one follows. More heads than an event may name are joined by the events
/// that follow: one of each server first, so that who forks the room does not push out what others
/// say, and of these the deepest, since the others rest on older state.
fn heads(snap: &Snapshot<'_>, room: &Room) -> Result<Vec<StoredEvent>, StoreError> {
    let mut heads = extremities::list(snap, room.nid)?
        .into_iter()
        .map(|nid| events::get(snap, nid))
        .collect::<Result<Vec<_>, _>>()?;
    if heads.len() <= MAX_PREV_EVENTS {
        return Ok(heads);
    }
    heads.sort_by_key(|event| Reverse(event.pdu.depth()));
    let mut of_server: HashMap<OwnedServerName, usize> = HashMap::new();
    let mut ranked: Vec<(usize, StoredEvent)> = Vec::with_capacity(heads.len());
    for event in heads {
        let count = of_server.entry(event.pdu.sender().server_name().to_owned()).or_default();
        *count += 1;
        ranked.push((*count, event));
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    Ok(ranked.into_iter().map(|(_, event)| event).take(MAX_PREV_EVENTS).collect())
}

/// The state after all of these events: the state before whatever follows exactly them.
fn state_after_all(
    txn: &mut Txn<'_>,
    room: &Room,
    previous: &[StoredEvent],
) -> Result<StateNid, ViewError> {
    let mut roots = Vec::with_capacity(previous.len());
    let mut without_state = Vec::new();
    for event in previous {
        match event.state_after {
            Some(root) => roots.push(root),
            None => without_state.push(event.pdu.event_id().to_owned()),
        }
    }
    if !without_state.is_empty() {
        return Err(ViewError::Missing(without_state));
    }
    // At the heads of the room that is the current state, which is kept.
    if previous.len() > 1 {
        let mut nids: Vec<_> = previous.iter().map(|event| event.nid).collect();
        nids.sort_unstable();
        if nids == extremities::list(txn, room.nid)? {
            return Ok(room.state);
        }
    }
    merge(txn, room, roots)
}

fn find_all(snap: &Snapshot<'_>, ids: &[OwnedEventId]) -> Result<Vec<StoredEvent>, ViewError> {
    let mut found = Vec::with_capacity(ids.len());
    let mut missing = Vec::new();
    for id in ids {
        match events::find(snap, id)? {
            Some(event) => found.push(event),
            None => missing.push(id.clone()),
        }
    }
    if missing.is_empty() { Ok(found) } else { Err(ViewError::Missing(missing)) }
}
