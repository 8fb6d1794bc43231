//! The event of a room nearest to a time.
//!
//! Spec: Client-Server API, "GET /rooms/{roomId}/timestamp_to_event".

use std::cmp::Reverse;

use messagehub_store::{
    Snapshot, StoreError, backward_extremities, event_times,
    events::{self, Direction, StoredEvent},
    rooms,
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, UserId,
    api::Direction as AskedDirection,
    api::federation::event::get_event_by_timestamp::v1 as ask_time,
};

use super::read::ReadError;
use crate::{
    Homeserver,
    federation::{self, ASK_TIMEOUT, FederationError, route},
    history::{self, Progress},
    visibility::{Presence, Viewer},
};

/// The nearest events that are looked at, and those after them in a second go: past so many that the
/// user may not see, the answer is that there is none. Each go reads the whole timeline.
const NEAREST: usize = 50;
const FARTHER: usize = 950;

/// Members asked where our own history has a gap: a person waits.
const MAX_ASKED: usize = 3;

/// Batches of 100 events of history fetched to get to an event that others told of.
const MAX_BATCHES: usize = 10;

/// An event, and when it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The event.
    pub event_id: OwnedEventId,
    /// When it was sent, as its sender says.
    pub time: MilliSecondsSinceUnixEpoch,
}

impl Found {
    pub(crate) fn of(event: &StoredEvent) -> Self {
        let event_id = event.pdu.event_id().to_owned();
        Self { event_id, time: event.pdu.origin_server_ts() }
    }
}

/// The event nearest to a time, in a direction, that a user may see. Where the history of this
/// server has a gap there, other members are asked, and history is fetched up to what they tell.
///
/// # Errors
/// The user may not see the room, or there is no such event.
pub async fn nearest(
    hs: &Homeserver,
    user_id: &UserId,
    room_id: OwnedRoomId,
    (time, direction): (MilliSecondsSinceUnixEpoch, AskedDirection),
) -> Result<Found, ReadError> {
    let wanted = (time, of(direction));
    let local = look(hs, user_id, &room_id, wanted).await?;
    if local.has_gap
        && let Some(told) = ask(hs, &room_id, (time, direction)).await?
        && local.found.as_ref().is_none_or(|found| is_nearer(&told, found, wanted.1))
    {
        fetch(hs, &room_id, &told).await?;
        let again = look(hs, user_id, &room_id, wanted).await?;
        return again.found.ok_or(ReadError::NotFound);
    }
    local.found.ok_or(ReadError::NotFound)
}

/// A direction in the store's words.
pub(crate) fn of(direction: AskedDirection) -> Direction {
    match direction {
        AskedDirection::Forward => Direction::Forward,
        AskedDirection::Backward => Direction::Backward,
    }
}

/// The nearest of a room's events of which `wanted` says that it is one.
///
/// # Errors
/// The store's, and those of `wanted`.
pub(crate) fn search(
    snap: &Snapshot<'_>,
    room: messagehub_store::RoomNid,
    from: (MilliSecondsSinceUnixEpoch, Direction),
    mut wanted: impl FnMut(&StoredEvent) -> Result<bool, StoreError>,
) -> Result<Option<StoredEvent>, StoreError> {
    for (skip, limit) in [(0, NEAREST), (NEAREST, FARTHER)] {
        let nids = event_times::nearest(snap, room, from, (skip, limit))?;
        let is_last = nids.len() < limit;
        for nid in nids {
            let event = events::get(snap, nid)?;
            if wanted(&event)? {
                return Ok(Some(event));
            }
        }
        if is_last {
            break;
        }
    }
    Ok(None)
}

/// What this server itself has.
struct Local {
    found: Option<Found>,
    /// Whether something nearer may be missing here.
    has_gap: bool,
}

async fn look(
    hs: &Homeserver,
    user_id: &UserId,
    room_id: &OwnedRoomId,
    from: (MilliSecondsSinceUnixEpoch, Direction),
) -> Result<Local, ReadError> {
    let (user_id, room_id) = (user_id.to_owned(), room_id.clone());
    hs.store
        .read(move |snap| {
            let room = rooms::find(snap, &room_id)?.ok_or(ReadError::NotInRoom)?;
            let mut viewer = Viewer::new(snap, room.nid, &user_id)?;
            let is_member = viewer.presence() == Presence::Joined;
            let event = search(snap, room.nid, from, |event| viewer.can_see(event))?;
            if event.is_none() && viewer.presence() == Presence::Never {
                return Err(ReadError::NotInRoom);
            }
            let gaps = backward_extremities::list(snap, room.nid)?;
            let has_gap = match &event {
                None => !gaps.is_empty(),
                Some(event) => gaps.iter().any(|gap| gap.named_by == event.nid),
            };
            let found = event.as_ref().map(Found::of);
            Ok(Local { found, has_gap: has_gap && is_member })
        })
        .await
}

/// The nearest event that some members tell of.
async fn ask(
    hs: &Homeserver,
    room_id: &OwnedRoomId,
    (time, direction): (MilliSecondsSinceUnixEpoch, AskedDirection),
) -> Result<Option<Found>, StoreError> {
    let mut best: Option<Found> = None;
    let members = route::members(hs, room_id, None).await?;
    for server in members.into_iter().take(MAX_ASKED) {
        let request = ask_time::Request::new(room_id.clone(), time, direction);
        let told = match federation::ask(hs, &server, request, ASK_TIMEOUT).await {
            Ok(answer) => Found { event_id: answer.event_id, time: answer.origin_server_ts },
            Err(FederationError::Store(error)) => return Err(error),
            Err(error) => {
                tracing::debug!(%server, %room_id, %error, "no event by its time");
                continue;
            }
        };
        let is_on_side = match direction {
            AskedDirection::Forward => told.time >= time,
            AskedDirection::Backward => told.time <= time,
        };
        if is_on_side && best.as_ref().is_none_or(|best| is_nearer(&told, best, of(direction))) {
            best = Some(told);
        }
    }
    Ok(best)
}

fn is_nearer(one: &Found, other: &Found, direction: Direction) -> bool {
    match direction {
        Direction::Forward => one.time < other.time,
        Direction::Backward => Reverse(one.time) < Reverse(other.time),
    }
}

/// Fetches history until an event is here, or no more comes.
async fn fetch(hs: &Homeserver, room_id: &OwnedRoomId, told: &Found) -> Result<(), StoreError> {
    let mut before = gaps(hs, room_id).await?;
    for _ in 0..MAX_BATCHES {
        let event_id = told.event_id.clone();
        let event = hs.store.read(move |snap| events::find(snap, &event_id)).await?;
        if event.is_some_and(|event| event.pos.is_some()) {
            break;
        }
        let progress = history::more(hs, room_id).await?;
        let after = gaps(hs, room_id).await?;
        // Nothing new came by this request; but somebody else may fetch the same just now.
        if progress != Progress::More && after == before {
            break;
        }
        before = after;
    }
    Ok(())
}

/// What is missing of the history of a room.
async fn gaps(hs: &Homeserver, room_id: &OwnedRoomId) -> Result<Vec<OwnedEventId>, StoreError> {
    let room_id = room_id.clone();
    hs.store
        .read(move |snap| {
            let Some(room) = rooms::find(snap, &room_id)? else { return Ok(Vec::new()) };
            let gaps = backward_extremities::list(snap, room.nid)?;
            Ok(gaps.into_iter().map(|gap| gap.missing).collect())
        })
        .await
}
