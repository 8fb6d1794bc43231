//! Filling gaps: events wait for ancestors that we lack, and any member may have them.
//!
//! A loop, never recursion: ask, take in, look again what still waits. Where a member says that
//! between what we have and what waits there is nothing, the rest is history from before we came:
//! then the event that waits is judged by the state before it, as that member tells it.

mod ahead;
mod anchor;
mod since;

pub(crate) use anchor::told;

use std::collections::{BTreeMap, BTreeSet};

use messagehub_store::{
    Room, Snapshot, StoreError, events, extremities, memberships,
    pending::{self, Pending},
};
use ruma::{OwnedEventId, OwnedServerName, OwnedUserId, RoomId, ServerName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use anchor::Untold;

use crate::{
    Homeserver,
    federation::{self, Call, FederationError, route},
    ingest::{self, IngestError, Outcome as EventOutcome, Parcel, verify},
    outliers::StateError,
    peers::{Counters, REQUEST_TIMEOUT},
    view::ViewError,
};

/// Requests for one room in one go, of 100 events each: 25,600 events, months of a busy room. The
/// next sign of life goes on from there.
const MAX_ROUNDS: usize = 256;

/// Events asked for at once: what a server of ours gives.
const BATCH: usize = 100;

/// Missing events that are looked at: an event that waits has at most 20 predecessors, and 256 wait
/// in one room.
const MAX_MISSING: usize = 20 * 256;

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

/// How an attempt to fill the gaps of a room ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Whether anything still waits.
    pub filled: Filled,
    /// Events that it brought.
    pub taken: usize,
}

/// A part of what a room lacks.
struct Gap {
    room: Room,
    /// Events that waiting ones name, and that do not wait themselves.
    missing: Vec<OwnedEventId>,
    /// Waiting events that name them: for each the oldest first.
    waiting: Vec<Waiting>,
    /// Our forward extremities.
    earliest: Vec<OwnedEventId>,
}

/// An event that waits.
#[derive(Clone)]
struct Waiting {
    event: Pending,
    claim: Claim,
}

/// What an event says of itself, which decides only what is tried first and who is asked.
#[derive(Clone, Deserialize)]
struct Claim {
    depth: u64,
    sender: OwnedUserId,
}

/// What one attempt to fill the gaps of a room has come to so far.
#[derive(Default)]
struct Attempt {
    /// Events taken.
    taken: usize,
    /// Missing events that nobody gave. They are set aside, so that one who names events which do
    /// not exist keeps back nothing but their own.
    in_vain: BTreeSet<OwnedEventId>,
    /// Members who say that between what we have and what waits there is nothing.
    sure: Vec<OwnedServerName>,
    /// States that were asked for in vain.
    untold: Untold,
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
) -> Result<Outcome, StoreError> {
    let mut attempt = Attempt::default();
    for _ in 0..MAX_ROUNDS {
        let Some(gap) = find(hs, room_id, &attempt.in_vain).await? else {
            if attempt.in_vain.is_empty() {
                return Ok(Outcome { filled: Filled::Closed, taken: attempt.taken });
            }
            // What comes later goes before its turn only where nobody tells the state at what is
            // first: to whoever was put out meanwhile, what happened on branches without them is
            // not told.
            match anchor::later(hs, room_id, &mut attempt).await? {
                true => attempt.taken += 1,
                false => break,
            }
            continue;
        };
        let servers = candidates(hs, &gap, first).await?;
        match improve(hs, &gap, &servers, &mut attempt).await? {
            Some(news) => {
                attempt.taken += news;
                // There is more where a full batch came from.
                if news >= BATCH {
                    attempt.taken += ahead::fetch(hs, room_id, &servers).await?;
                }
            }
            None => attempt.in_vain.extend(gap.missing),
        }
    }
    Ok(Outcome { filled: Filled::Open, taken: attempt.taken })
}

/// Whom to ask: where the waiting events came from, which may be a server whose join is among
/// them, and the members.
async fn candidates(
    hs: &Homeserver,
    gap: &Gap,
    first: Option<&OwnedServerName>,
) -> Result<Vec<OwnedServerName>, StoreError> {
    let origins = gap.waiting.iter().map(|waiting| waiting.event.origin.clone());
    let members = route::members(hs, &gap.room.room_id, first).await?;
    let origin = gap.waiting.first().map(|waiting| &waiting.event.origin);
    Ok(route::ordered(hs, origins.chain(members).collect(), first.or(origin)))
}

/// One round: the number of events it brought, or `None` where there is no more to be had. That is
/// not the same as 0: others may have brought something meanwhile.
async fn improve(
    hs: &Homeserver,
    gap: &Gap,
    servers: &[OwnedServerName],
    attempt: &mut Attempt,
) -> Result<Option<usize>, StoreError> {
    let members = members(hs, &gap.room).await?;
    let (mut sure, mut parked) = (Vec::new(), 0);
    for server in servers {
        match ours(ask(hs, gap, server).await)? {
            Some(Answer::News { taken, placed }) => {
                Counters::add(&hs.peers.counters().events_repaired, taken);
                if placed > 0 {
                    return Ok(Some(parked + taken));
                }
                // More that waits is no help by itself; whoever makes it up has no end of it.
                parked += taken;
            }
            // Who is in the room is for the room to say, and not for who would like to be: a
            // stranger's word is no state.
            Some(Answer::NothingBetween) if members.contains(server) => sure.push(server.clone()),
            Some(Answer::NothingBetween) => {}
            Some(Answer::NoUse) | None => {}
        }
    }
    if parked > 0 {
        return Ok(Some(parked));
    }
    // Gossip or another job may have brought the same events meanwhile. A told state is the last
    // resort: it would put what waits before what is still to come.
    if has_moved(hs, gap, &attempt.in_vain).await? {
        return Ok(Some(0));
    }
    let sides = (&*sure, &*members);
    let anchored = anchor::each(hs, (&gap.room, &gap.waiting), sides, &mut attempt.untold).await?;
    attempt.sure.extend(sure);
    Ok((anchored > 0).then_some(anchored))
}

/// The servers in the room, as far as we know.
async fn members(hs: &Homeserver, room: &Room) -> Result<Vec<OwnedServerName>, StoreError> {
    let room = room.nid;
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
async fn has_moved(
    hs: &Homeserver,
    gap: &Gap,
    in_vain: &BTreeSet<OwnedEventId>,
) -> Result<bool, StoreError> {
    let now = find(hs, &gap.room.room_id, in_vain).await?;
    Ok(now.is_none_or(|now| now.missing != gap.missing || now.earliest != gap.earliest))
}

async fn find(
    hs: &Homeserver,
    room_id: &RoomId,
    in_vain: &BTreeSet<OwnedEventId>,
) -> Result<Option<Gap>, StoreError> {
    let us = hs.server_name().to_owned();
    let (room_id, in_vain) = (room_id.to_owned(), in_vain.clone());
    hs.store
        .read(move |snap| {
            let room = match verify::room_of_ours(snap, &room_id, &us) {
                Ok(room) => room,
                Err(IngestError::View(ViewError::Store(error))) => return Err(error),
                Err(_) => return Ok(None),
            };
            read_gap(snap, room, &in_vain)
        })
        .await
}

fn read_gap(
    snap: &Snapshot<'_>,
    room: Room,
    in_vain: &BTreeSet<OwnedEventId>,
) -> Result<Option<Gap>, StoreError> {
    let mut missing = pending::list_missing(snap, &room.room_id, MAX_MISSING)?;
    missing.retain(|event_id| !in_vain.contains(event_id));
    missing.truncate(MAX_IDS);
    if missing.is_empty() {
        return Ok(None);
    }
    let mut waiting = interleaved(waiting(snap, &room.room_id)?, &missing);
    waiting.truncate(MAX_IDS);
    let earliest = heads(snap, &room)?;
    Ok(Some(Gap { room, missing, waiting, earliest }))
}

/// The waiting events of a room, the oldest first.
fn waiting(snap: &Snapshot<'_>, room_id: &RoomId) -> Result<Vec<Waiting>, StoreError> {
    let mut waiting: Vec<Waiting> = pending::list(snap, room_id)?
        .into_iter()
        .filter_map(|event| {
            let claim = serde_json::from_str(&event.json).ok()?;
            Some(Waiting { event, claim })
        })
        .collect();
    waiting.sort_by_key(|waiting| waiting.claim.depth);
    Ok(waiting)
}

/// Those that name missing events: for each of these one, then a second for each, so that none is
/// passed over because many wait for another.
fn interleaved(waiting: Vec<Waiting>, missing: &[OwnedEventId]) -> Vec<Waiting> {
    let mut for_each: BTreeMap<&OwnedEventId, usize> = BTreeMap::new();
    let mut ranked: Vec<(usize, Waiting)> = Vec::new();
    for waiting in waiting {
        let named = missing.iter().filter(|id| waiting.event.json.contains(id.as_str()));
        let rank = named
            .map(|id| {
                let count = for_each.entry(id).or_default();
                *count += 1;
                *count
            })
            .min();
        ranked.extend(rank.map(|rank| (rank, waiting)));
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, waiting)| waiting).collect()
}

impl Waiting {
    fn names_any(&self, missing: &[OwnedEventId]) -> bool {
        missing.iter().any(|id| self.event.json.contains(id.as_str()))
    }

    /// The server that made it.
    fn maker(&self) -> &ServerName {
        self.claim.sender.server_name()
    }
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
    #[serde(rename = "net.messagehub.order", skip_serializing_if = "Option::is_none")]
    order: Option<&'static str>,
}

/// How [`MissingEvents`] asks for the oldest first.
pub const OLDEST_FIRST: &str = "oldest_first";

/// What a server has between what we have and what waits.
enum Answer {
    /// Events that we had not.
    News {
        /// How many.
        taken: usize,
        /// Of these, those that found their place.
        placed: usize,
    },
    /// Nothing that is not here or does not wait here already: if it has what waits, then the rest
    /// is before what we have.
    NothingBetween,
    /// Events that are no good.
    NoUse,
}

/// Asks one server for the events between ours and those that wait.
async fn ask(hs: &Homeserver, gap: &Gap, server: &OwnedServerName) -> Result<Answer, StateError> {
    match ask_in_order(hs, gap, (server, Some(OLDEST_FIRST))).await? {
        // It does not know our heads, such as what we said while nobody heard it, and so begins
        // before them: what is nearest to the events that wait may still be new.
        (Answer::NothingBetween, BATCH..) => Ok(ask_in_order(hs, gap, (server, None)).await?.0),
        (answer, _) => Ok(answer),
    }
}

/// As [`ask`], for one batch in one order. Gives the number of events told, too.
async fn ask_in_order(
    hs: &Homeserver,
    gap: &Gap,
    (server, order): (&OwnedServerName, Option<&'static str>),
) -> Result<(Answer, usize), StateError> {
    let found = told_between(hs, (gap, &gap.earliest), (server, order)).await?;
    if found.is_empty() {
        return Ok((Answer::NothingBetween, 0));
    }
    let told = found.len();
    let pdus = since::we_came(hs, &gap.room, found).await?;
    let has_past = pdus.len() < told;
    let parcel = Parcel { room_id: gap.room.room_id.clone(), from: server.clone(), pdus };
    let outcomes = ingest::events(hs, parcel).await?;
    let is_here =
        |outcome: &EventOutcome| matches!(outcome, EventOutcome::Known | EventOutcome::StillParked);
    let parked = outcomes.values().filter(|outcome| **outcome == EventOutcome::Parked).count();
    let answer = match outcomes.values().filter(|outcome| outcome.is_news()).count() {
        // It takes us to have all that is before our heads; of a room that we joined we have not.
        0 if has_past || outcomes.values().any(is_here) => Answer::NothingBetween,
        0 => Answer::NoUse,
        taken => Answer::News { taken, placed: taken - parked },
    };
    Ok((answer, told))
}

/// At most one batch of what a server has between some events and those that wait.
async fn told_between(
    hs: &Homeserver,
    (gap, earliest_events): (&Gap, &[OwnedEventId]),
    (server, order): (&OwnedServerName, Option<&'static str>),
) -> Result<Vec<Box<RawValue>>, FederationError> {
    #[derive(Deserialize)]
    struct Found {
        #[serde(default)]
        events: Vec<Box<RawValue>>,
    }
    let latest: Vec<_> = gap.waiting.iter().map(|waiting| &waiting.event.event_id).collect();
    let body = MissingEvents { earliest_events, latest_events: &latest, limit: BATCH, order };
    let body = serde_json::to_vec(&body)
        .map_err(|error| FederationError::BadRequest(error.to_string()))?;
    let uri = format!(
        "/_matrix/federation/v1/get_missing_events/{}",
        federation::path_segment(gap.room.room_id.as_str())
    );
    let call = Call { method: http::Method::POST, uri, body };
    let mut found: Found = federation::ask_json(hs, server, call, REQUEST_TIMEOUT).await?;
    found.events.truncate(BATCH);
    Ok(found.events)
}
