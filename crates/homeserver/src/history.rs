//! History from before this server came into a room, newest first (D13).
//!
//! A batch is placed whole or not at all: the state before its oldest events is asked for, and
//! the rest follows by the ordinary rules. So every event of the past was judged like a new one,
//! except that the current state has no say.

use std::collections::{BTreeSet, HashMap};

use messagehub_protocol::{
    pdu::SignedPdu,
    receive::{self, Judged, Standing},
    server_keys::KeyRing,
};
use messagehub_store::{
    Room, Snapshot, StateNid, StoreError, Txn, backward_extremities,
    events::{self, Placement},
    room_state,
};
use ruma::{
    OwnedEventId, OwnedServerName, RoomId, ServerName, UInt,
    api::federation::backfill::get_backfill, events::StateEventType,
};

use crate::{
    Homeserver,
    append::{self, Appended},
    federation::{self, route},
    gap,
    ingest::{self, Admitted, IngestError, verify},
    outliers::StateError,
    peers::{Counters, REQUEST_TIMEOUT},
    view::{self, ViewError},
};

/// Events asked for at once: what a server of ours gives.
const BATCH: u32 = 100;

/// Events of one answer that are looked at, whatever it holds.
const MAX_BATCH: usize = 100;

/// Missing events named in one request: an event has at most 20 predecessors.
const MAX_FROM: usize = 20;

/// Events of one batch whose predecessors are not in it, and for which the state is therefore
/// asked for. A graph is rarely wider; what is left out is asked for again.
const MAX_EDGES: usize = 20;

/// How far a request for older events came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Older events are here now.
    More,
    /// The history here reaches back to the beginning.
    Complete,
    /// No member that can be reached has what is missing.
    Stuck,
}

/// Fetches one batch of the events before those that are here, from any member.
///
/// # Errors
/// Fails when the database does. A network that does not answer is [`Progress::Stuck`].
pub async fn more(hs: &Homeserver, room_id: &RoomId) -> Result<Progress, StoreError> {
    let Some((missing, room)) = wanted(hs, room_id).await? else { return Ok(Progress::Stuck) };
    if missing.is_empty() {
        return Ok(Progress::Complete);
    }
    let members = route::members(hs, room_id, None).await?;
    let former = route::former(hs, room_id).await?;
    let mut tellers = members.clone();
    tellers.retain(|server| hs.peers.is_connected(server));
    for server in members.into_iter().chain(former) {
        match batch(hs, (&server, &tellers), &room, &missing).await {
            Ok(0) => {}
            Ok(placed) => {
                Counters::add(&hs.peers.counters().events_repaired, placed);
                return Ok(Progress::More);
            }
            Err(error) => tracing::debug!(%server, %room_id, %error, "no history"),
        }
    }
    // Gossip or another job may have brought what was asked for.
    match wanted(hs, room_id).await? {
        Some((now, _)) if now.is_empty() => Ok(Progress::Complete),
        Some((now, _)) if now != missing => Ok(Progress::More),
        _ => Ok(Progress::Stuck),
    }
}

/// What is to be asked for first, of a room that we are in.
async fn wanted(
    hs: &Homeserver,
    room_id: &RoomId,
) -> Result<Option<(Vec<OwnedEventId>, Room)>, StoreError> {
    let (us, room_id) = (hs.server_name().to_owned(), room_id.to_owned());
    hs.store
        .read(move |snap| match verify::room_of_ours(snap, &room_id, &us) {
            Ok(room) => Ok(Some((first_gaps(snap, &room)?, room))),
            Err(IngestError::View(ViewError::Store(error))) => Err(error),
            Err(_) => Ok(None),
        })
        .await
}

/// What is missing before the newest events that have gaps before them.
fn first_gaps(snap: &Snapshot<'_>, room: &Room) -> Result<Vec<OwnedEventId>, StoreError> {
    let mut gaps = Vec::new();
    for gap in backward_extremities::list(snap, room.nid)? {
        gaps.push((std::cmp::Reverse(events::pdu(snap, gap.named_by)?.depth()), gap.missing));
    }
    gaps.sort();
    gaps.dedup_by(|one, other| one.1 == other.1);
    Ok(gaps.into_iter().take(MAX_FROM).map(|(_, missing)| missing).collect())
}

/// Asks one server, and places what it gives. Gives the number of events placed.
async fn batch(
    hs: &Homeserver,
    (server, tellers): (&OwnedServerName, &[OwnedServerName]),
    room: &Room,
    missing: &[OwnedEventId],
) -> Result<usize, StateError> {
    let request =
        get_backfill::v1::Request::new(room.room_id.clone(), missing.to_vec(), UInt::from(BATCH));
    let mut pdus = federation::ask(hs, server, request, REQUEST_TIMEOUT).await?.pdus;
    pdus.truncate(MAX_BATCH);
    let (for_check, wanted) = (room.clone(), missing.to_vec());
    let (events, edges) = hs
        .store
        .read(move |snap| {
            let brought = KeyRing::new();
            let checked = verify::events(snap, &for_check, (pdus, &brought))?;
            let events = verify::topological(reached(checked.signed, wanted));
            let edges = edges(snap, &events)?;
            Ok::<_, IngestError>((events, edges))
        })
        .await?;
    let mut states = HashMap::new();
    for event_id in edges.into_iter().take(MAX_EDGES) {
        // What waited for the past goes on from it: one member alone does not say what it was.
        let others = tellers.iter().filter(|other| *other != server).cloned();
        let tellers: Vec<_> = std::iter::once(server.clone()).chain(others).collect();
        let Some((_, state)) = gap::told(hs, room, (&event_id, &tellers)).await? else {
            return Err(StateError::Unusable("members tell it differently".to_owned()));
        };
        states.insert(event_id, state);
    }
    let (us, room_id) = (hs.server_name().to_owned(), room.room_id.clone());
    let (placed, admitted) = hs
        .store
        .write(move |txn| {
            let mut room = verify::room_of_ours(txn, &room_id, &us)?;
            let placed = place(txn, &us, &mut room, (events, &states))?;
            let mut admitted = Admitted::default();
            for event in &placed {
                admitted.topics.extend(event.topic);
                let released = ingest::release(txn, &us, &mut room, event.pdu.event_id())?;
                admitted.outcomes.extend(released.outcomes);
                admitted.topics.extend(released.topics);
            }
            Ok::<_, IngestError>((placed.len(), admitted))
        })
        .await?;
    ingest::settle(hs, room, admitted);
    Ok(placed)
}

/// The events that are wanted or come before these. What else a server gives is not the past of
/// what we have, and as history it would pass by the current state, which has no say there.
fn reached(events: Vec<SignedPdu>, wanted: Vec<OwnedEventId>) -> Vec<SignedPdu> {
    let mut given: HashMap<OwnedEventId, SignedPdu> =
        events.into_iter().map(|event| (event.pdu().event_id().to_owned(), event)).collect();
    let (mut reached, mut next) = (Vec::new(), wanted);
    while let Some(id) = next.pop() {
        if let Some(event) = given.remove(&id) {
            next.extend(event.pdu().prev_events().iter().cloned());
            reached.push(event);
        }
    }
    reached
}

/// The events with a predecessor that is neither among them nor placed here.
fn edges(snap: &Snapshot<'_>, events: &[SignedPdu]) -> Result<Vec<OwnedEventId>, StoreError> {
    let among: BTreeSet<_> = events.iter().map(|event| event.pdu().event_id()).collect();
    let mut edges = Vec::new();
    for event in events {
        for prev in event.pdu().prev_events() {
            if !among.contains(&**prev) && !verify::is_placed(snap, prev)? {
                edges.push(event.pdu().event_id().to_owned());
                break;
            }
        }
    }
    Ok(edges)
}

/// Judges events, oldest first, and places them, newest first. `states` has the states before the
/// first of them. An event for which something is missing is left out; it is asked for again. Gives
/// those that were placed, the oldest first.
pub(crate) fn place(
    txn: &mut Txn<'_>,
    us: &ServerName,
    room: &mut Room,
    (events, states): (Vec<SignedPdu>, &HashMap<OwnedEventId, StateNid>),
) -> Result<Vec<Appended>, IngestError> {
    let mut after: HashMap<OwnedEventId, StateNid> = HashMap::new();
    let mut placements = Vec::with_capacity(events.len());
    for event in events {
        let event_id = event.pdu().event_id().to_owned();
        if verify::is_placed(txn, &event_id)? {
            continue;
        }
        let state_before = match states.get(&event_id) {
            Some(state) => *state,
            None => match state_after_all(txn, room, event.pdu().prev_events(), &after)? {
                Some(state) => state,
                None => continue,
            },
        };
        let Some((judged, placement)) = judge(txn, room, event, state_before)? else { continue };
        after.insert(event_id, placement.state_after);
        placements.push((judged, placement));
    }
    // Positions of the past descend, so the newest is placed first.
    let mut placed = Vec::with_capacity(placements.len());
    for (judged, placement) in placements.iter().rev() {
        placed.push(append::history(txn, us, room, (judged, *placement))?);
    }
    placed.reverse();
    Ok(placed)
}

/// Judges one event of the past by the state before it, and finds the state after it.
fn judge(
    txn: &mut Txn<'_>,
    room: &Room,
    event: SignedPdu,
    state_before: StateNid,
) -> Result<Option<(Judged, Placement)>, IngestError> {
    let mut view = match view::at(txn, room, state_before, event.pdu()) {
        Ok(view) => view,
        Err(ViewError::Missing(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    view.current_state = None;
    let judged = receive::check(event, &view);
    // State names events by their integers; a place is given to it afterwards.
    let nid = events::insert_outlier(txn, room, &judged)?;
    let pdu = judged.pdu();
    let state_after = match (judged.standing(), pdu.state_key()) {
        (Standing::Accepted, Some(state_key)) => {
            let kind = StateEventType::from(pdu.kind().to_string());
            room_state::set(txn, state_before, &kind, state_key, nid)?
        }
        _ => state_before,
    };
    Ok(Some((judged, Placement { state_before, state_after })))
}

fn state_after_all(
    txn: &mut Txn<'_>,
    room: &Room,
    prev_events: &[OwnedEventId],
    after: &HashMap<OwnedEventId, StateNid>,
) -> Result<Option<StateNid>, IngestError> {
    let mut roots = Vec::with_capacity(prev_events.len());
    for prev in prev_events {
        let root = match after.get(prev) {
            Some(root) => Some(*root),
            None => events::find(txn, prev)?.and_then(|event| event.state_after),
        };
        match root {
            Some(root) => roots.push(root),
            None => return Ok(None),
        }
    }
    Ok(Some(view::merge(txn, room, roots)?))
}

#[cfg(test)]
mod tests;
