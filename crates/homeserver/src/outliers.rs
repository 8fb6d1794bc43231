//! Events that are known by what they rest on and not by their place: the state and the auth
//! chain that another server tells us.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use messagehub_protocol::{
    pdu::{Pdu, SignedPdu},
    receive::{self, Standing},
    server_keys::KeyRing,
};
use messagehub_store::{
    EventNid, Room, Snapshot, StateNid, StoreError, Txn, edges, events, room_state,
};
use ruma::{
    EventId, OwnedEventId, OwnedServerName, RoomId,
    api::federation::event::{get_event, get_room_state, get_room_state_ids},
    events::StateEventType,
    room_version_rules::RoomVersionRules,
};
use serde_json::value::RawValue;

use crate::{
    Homeserver,
    federation::{self, ASK_TIMEOUT, FederationError},
    ingest::{IngestError, Outcome, verify},
    peers::REQUEST_TIMEOUT,
    view,
};

/// Above this many missing events the whole state is asked for instead of each event.
const MAX_SINGLE_REQUESTS: usize = 20;

/// The most events that another server's state may have, auth chain included: a room of 100,000
/// members. What is larger would not fit one answer.
pub(crate) const MAX_STATE_EVENTS: usize = 250_000;

/// Why the state at an event could not be had from another server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// The other server did not give it.
    #[error(transparent)]
    Federation(#[from] FederationError),
    /// What it gave does not hold together.
    #[error("the state of another server is not usable: {0}")]
    Unusable(String),
    /// Our own part failed.
    #[error(transparent)]
    Ingest(#[from] IngestError),
}

impl From<StoreError> for StateError {
    fn from(error: StoreError) -> Self {
        Self::Ingest(error.into())
    }
}

/// Events with good signatures, and whether that was all.
pub(crate) struct CheckedState {
    pub(crate) signed: Vec<SignedPdu>,
    /// The ids of those that we had no key to check.
    pub(crate) unjudged: Vec<OwnedEventId>,
}

/// Checks what another server gave as state or auth chain, as far as bytes and keys go. Whatever
/// does not pass is left out: what rests on it fails then.
pub(crate) fn checked(
    snap: &Snapshot<'_>,
    (room_id, rules): (&RoomId, &'static RoomVersionRules),
    pdus: Vec<Box<RawValue>>,
) -> Result<CheckedState, StoreError> {
    let mut seen = BTreeSet::new();
    let (mut signed, mut unjudged) = (Vec::new(), Vec::new());
    for json in pdus.into_iter().take(MAX_STATE_EVENTS) {
        let Ok(well_formed) = verify::well_formed(json, room_id, rules) else { continue };
        let event_id = well_formed.pdu().event_id().to_owned();
        if !seen.insert(event_id.clone()) {
            continue;
        }
        match verify::signed(snap, well_formed, &KeyRing::new())? {
            Ok(event) => signed.push(event),
            Err(Outcome::Unjudged(_)) => unjudged.push(event_id),
            Err(outcome) => tracing::debug!(%event_id, ?outcome, "an event of a state is left out"),
        }
    }
    Ok(CheckedState { signed, unjudged })
}

/// What is stored of some events, after [`insert_all`].
pub(crate) type Stored = HashMap<OwnedEventId, (EventNid, Standing)>;

/// Judges events by what they rest on and stores them, each after what it rests on. Gives those
/// that are stored now, before or by this; one whose auth chain has a hole is not.
pub(crate) fn insert_all(
    txn: &mut Txn<'_>,
    room: &Room,
    events: Vec<SignedPdu>,
) -> Result<Stored, IngestError> {
    let rules = view::rules(room)?;
    let create = create_among(txn, room, &events)?;
    let mut stored = Stored::new();
    for signed in verify::topological(events) {
        let event_id = signed.pdu().event_id().to_owned();
        if let Some(known) = events::find(txn, &event_id)? {
            stored.insert(event_id, (known.nid, known.standing));
            continue;
        }
        let mut auth_events = Vec::new();
        for id in signed.pdu().auth_events() {
            auth_events.extend(events::find(txn, id)?.map(|event| (event.pdu, event.standing)));
        }
        // Judged without all that it rests on, a good event would be kept as a rejected one.
        if auth_events.len() < signed.pdu().auth_events().len() {
            continue;
        }
        if rules.authorization.room_create_event_id_as_room_id {
            auth_events.extend(create.clone().map(|create| (create, Standing::Accepted)));
        }
        let judged = receive::check_outlier(signed, &auth_events, rules);
        let nid = events::insert_outlier(txn, room, &judged)?;
        stored.insert(event_id, (nid, judged.standing()));
    }
    Ok(stored)
}

/// The create event, which later events rest on without naming it.
fn create_among(
    snap: &Snapshot<'_>,
    room: &Room,
    events: &[SignedPdu],
) -> Result<Option<Arc<Pdu>>, StoreError> {
    let is_create =
        |pdu: &Pdu| pdu.kind().to_string() == "m.room.create" && pdu.state_key() == Some("");
    if let Some(create) = events.iter().map(SignedPdu::pdu).find(|pdu| is_create(pdu)) {
        return Ok(Some(Arc::clone(create)));
    }
    view::state_event(snap, room.state, &StateEventType::RoomCreate, "")
}

/// The state that consists of some stored events. Rejected ones and those that are no state are
/// left out, and so are those of other rooms, whose state is not this room's; of two for one key
/// the later in the list counts.
pub(crate) fn state_of(
    txn: &mut Txn<'_>,
    room: &Room,
    ids: &[OwnedEventId],
) -> Result<StateNid, StoreError> {
    let mut entries = Vec::with_capacity(ids.len());
    for id in ids {
        let Some(event) = events::find(txn, id)? else { continue };
        if event.standing == Standing::Rejected || event.room != room.nid {
            continue;
        }
        if let Some(state_key) = event.pdu.state_key() {
            let kind = StateEventType::from(event.pdu.kind().to_string());
            entries.push((kind, state_key.to_owned(), event.nid));
        }
    }
    let changes = entries.iter().map(|(kind, key, nid)| (kind, key.as_str(), Some(*nid)));
    room_state::apply(txn, room_state::EMPTY, changes)
}

/// Asks `server` which events are the state before an event, and what they rest on.
///
/// # Errors
/// The server did not say, or it names too many.
pub(crate) async fn fetch_state_ids(
    hs: &Homeserver,
    server: &OwnedServerName,
    room: &Room,
    event_id: &EventId,
) -> Result<get_room_state_ids::v1::Response, StateError> {
    let ids = get_room_state_ids::v1::Request::new(event_id.to_owned(), room.room_id.clone());
    let ids = federation::ask(hs, server, ids, REQUEST_TIMEOUT).await?;
    if ids.pdu_ids.len() + ids.auth_chain_ids.len() > MAX_STATE_EVENTS {
        return Err(StateError::Unusable("it is too large".to_owned()));
    }
    Ok(ids)
}

/// Gives the state before an event of which `server` told the ids; what we lack of it is asked of the
/// same server and stored.
///
/// # Errors
/// The server did not give it, or an event of it could not be had.
pub(crate) async fn fetch_state(
    hs: &Homeserver,
    server: &OwnedServerName,
    room: &Room,
    (event_id, ids): (&EventId, get_room_state_ids::v1::Response),
) -> Result<StateNid, StateError> {
    let all: BTreeSet<OwnedEventId> =
        ids.pdu_ids.iter().chain(&ids.auth_chain_ids).cloned().collect();
    let missing = hs.store.read(move |snap| edges::missing_of(snap, &all)).await?;
    let single = match missing.len() > MAX_SINGLE_REQUESTS {
        true => None,
        false => fetch_each(hs, server, missing).await?,
    };
    let pdus = match single {
        Some(pdus) => pdus,
        None => {
            let whole = get_room_state::v1::Request::new(event_id.to_owned(), room.room_id.clone());
            let whole = federation::ask(hs, server, whole, REQUEST_TIMEOUT).await?;
            whole.pdus.into_iter().chain(whole.auth_chain).collect()
        }
    };
    keep_state(hs, room, (pdus, ids.pdu_ids)).await
}

/// Fetches events one by one; `None` where the server refuses one. To somebody who was put out of
/// the room it tells the state at an event of their time, and not each event of it by itself.
async fn fetch_each(
    hs: &Homeserver,
    server: &OwnedServerName,
    wanted: Vec<OwnedEventId>,
) -> Result<Option<Vec<Box<RawValue>>>, FederationError> {
    let mut pdus = Vec::with_capacity(wanted.len());
    for id in wanted {
        match fetch_event(hs, server, id).await {
            Ok(pdu) => pdus.push(pdu),
            Err(error) if error.is_refusal() => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(pdus))
}

async fn keep_state(
    hs: &Homeserver,
    room: &Room,
    (pdus, state_ids): (Vec<Box<RawValue>>, Vec<OwnedEventId>),
) -> Result<StateNid, StateError> {
    let (room_id, rules) = (room.room_id.clone(), view::rules(room).map_err(IngestError::from)?);
    let checked = hs.store.read(move |snap| checked(snap, (&room_id, rules), pdus)).await?;
    let room = room.clone();
    hs.store
        .write(move |txn| {
            insert_all(txn, &room, checked.signed)?;
            let missing = edges::missing_of(txn, &state_ids)?;
            if !missing.is_empty() {
                let text = format!("{} of its events are missing", missing.len());
                return Err(StateError::Unusable(text));
            }
            Ok(state_of(txn, &room, &state_ids)?)
        })
        .await
}

/// Asks `server` for one event.
///
/// # Errors
/// The server did not give it.
pub(crate) async fn fetch_event(
    hs: &Homeserver,
    server: &OwnedServerName,
    event_id: OwnedEventId,
) -> Result<Box<RawValue>, FederationError> {
    let request = get_event::v1::Request::new(event_id);
    Ok(federation::ask(hs, server, request, ASK_TIMEOUT).await?.pdu)
}

#[cfg(test)]
mod tests;
