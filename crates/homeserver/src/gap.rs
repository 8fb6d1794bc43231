//! Filling gaps: events wait for ancestors that we lack, and any member may have them.
//!
//! A loop, never recursion: ask, take in, look again what still waits. What no ordinary request
//! closes is closed by the state at the missing event, so that a room never stays stuck on a part
//! of its past.

use messagehub_store::{Room, Snapshot, StoreError, Txn, events, extremities, pending};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use messagehub_protocol::{pdu::SignedPdu, server_keys::KeyRing};

use crate::{
    Homeserver,
    federation::{self, Call, FederationError, route},
    history,
    ingest::{self, Admitted, IngestError, Parcel, verify},
    outliers::{self, StateError},
    peers::{Counters, REQUEST_TIMEOUT},
    view::ViewError,
};

/// Requests for one room in one go, of 100 events each: 25,600 events, months of a busy room. What
/// is further back is left to the state at the gap.
const MAX_ROUNDS: usize = 256;

/// Events asked for at once: what a server of ours gives.
const BATCH: usize = 100;

/// Ids named in one request: an event has at most 20 predecessors, a room told 20 heads.
const MAX_IDS: usize = 20;

/// Whether anything still waits in the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// Nothing does.
    Closed,
    /// What is missing could not be had from anyone who can be reached now.
    Open,
}

/// What a room lacks.
struct Gap {
    room: Room,
    /// Events that waiting ones name, and that do not wait themselves.
    missing: Vec<OwnedEventId>,
    /// The waiting events that name them.
    latest: Vec<OwnedEventId>,
    /// Our forward extremities.
    earliest: Vec<OwnedEventId>,
    /// Where the waiting events came from.
    origins: Vec<OwnedServerName>,
}

/// Asks members of a room for what its waiting events lack, until nothing waits or nobody helps.
/// `first` is asked before all others.
///
/// # Errors
/// Fails when the database does. A network that does not answer is [`Filled::Open`].
pub async fn fill(
    hs: &Homeserver,
    room_id: &RoomId,
    first: Option<&OwnedServerName>,
) -> Result<Filled, StoreError> {
    for _ in 0..MAX_ROUNDS {
        let Some(gap) = find(hs, room_id.to_owned()).await? else { return Ok(Filled::Closed) };
        let first = first.or(gap.origins.first());
        let servers = route::members(hs, room_id, first).await?;
        if !improve(hs, &gap, &servers).await? {
            return Ok(Filled::Open);
        }
    }
    Ok(Filled::Open)
}

/// One round: whether it brought anything.
async fn improve(
    hs: &Homeserver,
    gap: &Gap,
    servers: &[OwnedServerName],
) -> Result<bool, StoreError> {
    for server in servers {
        match ask(hs, gap, server).await {
            Ok(0) => {}
            Ok(taken) => {
                Counters::add(&hs.peers.counters().events_repaired, taken);
                return Ok(true);
            }
            Err(StateError::Ingest(IngestError::View(ViewError::Store(error)))) => {
                return Err(error);
            }
            Err(error) => tracing::debug!(%server, %error, "a gap could not be filled"),
        }
    }
    for server in servers {
        match anchor(hs, gap, server).await {
            Ok(false) => {}
            Ok(true) => return Ok(true),
            Err(StateError::Ingest(IngestError::View(ViewError::Store(error)))) => {
                return Err(error);
            }
            Err(error) => tracing::debug!(%server, %error, "a gap could not be bridged"),
        }
    }
    Ok(false)
}

async fn find(hs: &Homeserver, room_id: OwnedRoomId) -> Result<Option<Gap>, StoreError> {
    let us = hs.server_name().to_owned();
    hs.store
        .read(move |snap| {
            let room = match verify::room_of_ours(snap, &room_id, &us) {
                Ok(room) => room,
                Err(IngestError::View(ViewError::Store(error))) => return Err(error),
                Err(_) => return Ok(None),
            };
            read_gap(snap, room)
        })
        .await
}

fn read_gap(snap: &Snapshot<'_>, room: Room) -> Result<Option<Gap>, StoreError> {
    let missing = pending::list_missing(snap, &room.room_id, MAX_IDS)?;
    if missing.is_empty() {
        return Ok(None);
    }
    let waiting = pending::list(snap, &room.room_id)?;
    let names = |json: &str| missing.iter().any(|id| json.contains(id.as_str()));
    let naming: Vec<_> = waiting.into_iter().filter(|event| names(&event.json)).collect();
    let origins = naming.iter().map(|event| event.origin.clone()).collect();
    let latest = naming.into_iter().take(MAX_IDS).map(|event| event.event_id).collect();
    let earliest = heads(snap, &room)?;
    Ok(Some(Gap { room, missing, latest, earliest, origins }))
}

fn heads(snap: &Snapshot<'_>, room: &Room) -> Result<Vec<OwnedEventId>, StoreError> {
    let nids = extremities::list(snap, room.nid)?;
    nids.into_iter().rev().take(MAX_IDS).map(|nid| events::id(snap, nid)).collect()
}

/// The body of `/get_missing_events`, with a word of ours: a server that knows it gives the oldest
/// first, so that each can be judged when it comes.
#[derive(Serialize)]
struct MissingEvents<'a> {
    earliest_events: &'a [OwnedEventId],
    latest_events: &'a [OwnedEventId],
    limit: usize,
    #[serde(rename = "net.messagehub.order")]
    order: &'static str,
}

/// How [`MissingEvents`] asks for the oldest first.
pub const OLDEST_FIRST: &str = "oldest_first";

/// Asks one server for the events between ours and those that wait. Gives how many were news.
async fn ask(hs: &Homeserver, gap: &Gap, server: &OwnedServerName) -> Result<usize, StateError> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        events: Vec<Box<RawValue>>,
    }
    let body = MissingEvents {
        earliest_events: &gap.earliest,
        latest_events: &gap.latest,
        limit: BATCH,
        order: OLDEST_FIRST,
    };
    let body = serde_json::to_vec(&body)
        .map_err(|error| FederationError::BadRequest(error.to_string()))?;
    let uri = format!(
        "/_matrix/federation/v1/get_missing_events/{}",
        federation::path_segment(gap.room.room_id.as_str())
    );
    let call = Call { method: http::Method::POST, uri, body };
    let answer: Answer = federation::ask_json(hs, server, call, REQUEST_TIMEOUT).await?;
    let parcel = Parcel {
        room_id: gap.room.room_id.clone(),
        from: server.clone(),
        pdus: answer.events.into_iter().take(BATCH).collect(),
    };
    let outcomes = ingest::events(hs, parcel).await?;
    Ok(outcomes.values().filter(|outcome| outcome.is_news()).count())
}

/// Gives the first missing event that `server` has its place by the state before it, as that
/// server tells it. Says whether there was one.
async fn anchor(hs: &Homeserver, gap: &Gap, server: &OwnedServerName) -> Result<bool, StateError> {
    for event_id in &gap.missing {
        let json = match outliers::fetch_event(hs, server, event_id.clone()).await {
            Ok(json) => json,
            Err(FederationError::Refused { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let (room, wanted) = (gap.room.clone(), event_id.clone());
        let signed = hs.store.read(move |snap| one(snap, &room, &wanted, json)).await?;
        let Some(signed) = signed else { continue };
        let state = outliers::fetch_state(hs, server, &gap.room, event_id).await?;
        let (us, mut room) = (hs.server_name().to_owned(), gap.room.clone());
        let admitted = hs
            .store
            .write(move |txn| {
                let event_id = signed.pdu().event_id().to_owned();
                if !place(txn, &room, signed, state)? {
                    return Ok(None);
                }
                ingest::release(txn, &us, &mut room, &event_id).map(Some)
            })
            .await;
        let admitted: Option<Admitted> = admitted?;
        if let Some(admitted) = admitted {
            Counters::add(&hs.peers.counters().events_repaired, 1);
            ingest::settle(hs, &gap.room, admitted);
            return Ok(true);
        }
    }
    Ok(false)
}

/// The event that was asked for and no other, with good signatures.
fn one(
    snap: &Snapshot<'_>,
    room: &Room,
    wanted: &OwnedEventId,
    json: Box<RawValue>,
) -> Result<Option<SignedPdu>, IngestError> {
    let checked = verify::events(snap, room, (vec![json], &KeyRing::new()))?;
    Ok(checked.signed.into_iter().find(|event| event.pdu().event_id() == wanted))
}

/// Places an event by a state that was told: in the past where it is not deeper than what we
/// have, else as the newest, from which those that wait go on.
fn place(
    txn: &mut Txn<'_>,
    room: &Room,
    event: SignedPdu,
    state: messagehub_store::StateNid,
) -> Result<bool, IngestError> {
    if verify::is_placed(txn, event.pdu().event_id())? {
        return Ok(true);
    }
    let depth = event.pdu().depth();
    let Some((judged, placement)) = history::judge(txn, room, event, state)? else {
        return Ok(false);
    };
    let mut deepest = 0;
    for nid in extremities::list(txn, room.nid)? {
        deepest = deepest.max(events::pdu(txn, nid)?.depth());
    }
    if depth > deepest {
        events::append(txn, room, &judged, placement)?;
    } else {
        events::insert_history(txn, room, &judged, Some(placement))?;
    }
    Ok(true)
}
