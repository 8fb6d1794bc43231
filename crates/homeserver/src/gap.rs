//! Filling gaps: events wait for ancestors that we lack, and any member may have them.
//!
//! A loop, never recursion: ask, take in, look again what still waits. Where a member says that
//! between what we have and what waits there is nothing, the rest is history from before we came:
//! then the event that waits is judged by the state before it, as that member tells it.

use messagehub_store::{
    Room, Snapshot, StoreError, events, extremities, memberships,
    pending::{self, Pending},
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    Homeserver,
    federation::{self, Call, FederationError, route},
    ingest::{self, IngestError, Outcome, Parcel, verify},
    outliers::{self, StateError},
    peers::{Counters, REQUEST_TIMEOUT},
    view::ViewError,
};

/// Requests for one room in one go, of 100 events each: 25,600 events, months of a busy room. The
/// next sign of life goes on from there.
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
    /// The waiting events that name them, the oldest first.
    waiting: Vec<Pending>,
    /// Waiting events that name only others that wait, the oldest first.
    later: Vec<Pending>,
    /// Our forward extremities.
    earliest: Vec<OwnedEventId>,
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
        let servers = candidates(hs, &gap, first).await?;
        if !improve(hs, &gap, &servers).await? {
            return Ok(Filled::Open);
        }
    }
    Ok(Filled::Open)
}

/// Whom to ask: where the waiting events came from, which may be a server whose join is among
/// them, and the members.
async fn candidates(
    hs: &Homeserver,
    gap: &Gap,
    first: Option<&OwnedServerName>,
) -> Result<Vec<OwnedServerName>, StoreError> {
    let origins = gap.waiting.iter().map(|event| event.origin.clone());
    let members = route::members(hs, &gap.room.room_id, first).await?;
    let origin = gap.waiting.first().map(|event| &event.origin);
    Ok(route::ordered(hs, origins.chain(members).collect(), first.or(origin)))
}

/// One round: whether it brought anything.
async fn improve(
    hs: &Homeserver,
    gap: &Gap,
    servers: &[OwnedServerName],
) -> Result<bool, StoreError> {
    let members = members(hs, gap).await?;
    let mut sure = Vec::new();
    for server in servers {
        match ours(ask(hs, gap, server).await)? {
            Some(Answer::News(taken)) => {
                Counters::add(&hs.peers.counters().events_repaired, taken);
                return Ok(true);
            }
            // Who is in the room is for the room to say, and not for who would like to be: a
            // stranger's word is no state.
            Some(Answer::NothingBetween) if members.contains(server) => sure.push(server),
            Some(Answer::NothingBetween) => {}
            Some(Answer::NoUse) | None => {}
        }
    }
    // Gossip or another job may have brought the same events meanwhile. A told state is the last
    // resort: it would put what waits before what is still to come.
    if has_moved(hs, gap).await? {
        return Ok(true);
    }
    // What comes later goes before its turn only where nobody tells the state at what is first:
    // to whoever was put out meanwhile, what happened on branches without them is not told.
    for waiting in [&gap.waiting, &gap.later] {
        for server in &sure {
            if ours(anchor(hs, (gap, waiting), server).await)? == Some(true) {
                Counters::add(&hs.peers.counters().events_repaired, 1);
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The servers in the room, as far as we know.
async fn members(hs: &Homeserver, gap: &Gap) -> Result<Vec<OwnedServerName>, StoreError> {
    let room = gap.room.nid;
    hs.store.read(move |snap| memberships::servers_in(snap, room)).await
}

/// Failures of our own store go on; those of others are everyday.
fn ours<T>(outcome: Result<T, StateError>) -> Result<Option<T>, StoreError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(StateError::Ingest(IngestError::View(ViewError::Store(error)))) => Err(error),
        Err(error) => {
            tracing::debug!(%error, "a gap could not be filled");
            Ok(None)
        }
    }
}

/// Whether the room is no longer as it was when `gap` was read.
async fn has_moved(hs: &Homeserver, gap: &Gap) -> Result<bool, StoreError> {
    let now = find(hs, gap.room.room_id.clone()).await?;
    Ok(now.is_none_or(|now| now.missing != gap.missing || now.earliest != gap.earliest))
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
    let names = |json: &str| missing.iter().any(|id| json.contains(id.as_str()));
    let mut all = pending::list(snap, &room.room_id)?;
    all.sort_by_cached_key(|event| depth(&event.json));
    let (mut waiting, mut later): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|event| names(&event.json));
    waiting.truncate(MAX_IDS);
    later.truncate(MAX_IDS);
    let earliest = heads(snap, &room)?;
    Ok(Some(Gap { room, missing, waiting, later, earliest }))
}

/// The depth that an event claims; it decides only what is tried first.
fn depth(json: &str) -> u64 {
    #[derive(Deserialize)]
    struct Claim {
        depth: u64,
    }
    serde_json::from_str::<Claim>(json).map_or(u64::MAX, |claim| claim.depth)
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
    latest_events: &'a [&'a OwnedEventId],
    limit: usize,
    #[serde(rename = "net.messagehub.order")]
    order: &'static str,
}

/// How [`MissingEvents`] asks for the oldest first.
pub const OLDEST_FIRST: &str = "oldest_first";

/// What a server has between what we have and what waits.
enum Answer {
    /// So many events that we had not.
    News(usize),
    /// Nothing that does not wait here already: if it has what waits, then the rest is before what
    /// we have.
    NothingBetween,
    /// Events that we had, or that are no good.
    NoUse,
}

/// Asks one server for the events between ours and those that wait.
async fn ask(hs: &Homeserver, gap: &Gap, server: &OwnedServerName) -> Result<Answer, StateError> {
    #[derive(Deserialize)]
    struct Found {
        #[serde(default)]
        events: Vec<Box<RawValue>>,
    }
    let latest: Vec<&OwnedEventId> = gap.waiting.iter().map(|event| &event.event_id).collect();
    let body = MissingEvents {
        earliest_events: &gap.earliest,
        latest_events: &latest,
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
    let found: Found = federation::ask_json(hs, server, call, REQUEST_TIMEOUT).await?;
    if found.events.is_empty() {
        return Ok(Answer::NothingBetween);
    }
    let parcel = Parcel {
        room_id: gap.room.room_id.clone(),
        from: server.clone(),
        pdus: found.events.into_iter().take(BATCH).collect(),
    };
    let outcomes = ingest::events(hs, parcel).await?;
    Ok(match outcomes.values().filter(|outcome| outcome.is_news()).count() {
        // It takes us to have all that is before our heads; of a room that we joined we have not.
        0 if outcomes.values().any(|outcome| *outcome == Outcome::StillParked) => {
            Answer::NothingBetween
        }
        0 => Answer::NoUse,
        news => Answer::News(news),
    })
}

/// Judges the oldest of some waiting events that `server` knows by the state before it, as that server
/// tells it. Says whether there was one.
async fn anchor(
    hs: &Homeserver,
    (gap, waiting): (&Gap, &[Pending]),
    server: &OwnedServerName,
) -> Result<bool, StateError> {
    for waiting in waiting {
        let state = match outliers::fetch_state(hs, server, &gap.room, &waiting.event_id).await {
            Ok(state) => state,
            Err(StateError::Federation(FederationError::Refused { .. })) => continue,
            Err(error) => return Err(error),
        };
        let (us, from) = (hs.server_name().to_owned(), server.clone());
        let (room_id, waiting) = (gap.room.room_id.clone(), waiting.clone());
        let admitted = hs
            .store
            .write(move |txn| {
                let mut room = verify::room_of_ours(txn, &room_id, &us)?;
                let Some(signed) = ingest::unpark(txn, &room, waiting)? else { return Ok(None) };
                let admitted = ingest::admit_by_state(txn, &us, &mut room, (&from, signed), state)?;
                Ok::<_, IngestError>(admitted)
            })
            .await?;
        if let Some(admitted) = admitted {
            ingest::settle(hs, &gap.room, admitted);
            return Ok(true);
        }
    }
    Ok(false)
}
