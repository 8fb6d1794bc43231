//! Paging through a room's timeline, and the surroundings of an event.
//!
//! Spec: Client-Server API, "Syncing" (`/messages`) and "Event Context".

use std::{sync::Arc, time::Duration};

use messagehub_store::{
    Room, Snapshot, StateNid, StoreError, StoredEvent, StreamPos, backward_extremities,
    events::{self, Direction},
    room_state, rooms,
};
use ruma::{
    MilliSecondsSinceUnixEpoch, RoomId, UserId,
    api::{
        Direction as Asked,
        client::{
            context::get_context,
            filter::RoomEventFilter,
            message::get_message_events::v3::{Request, Response},
        },
    },
    events::StateEventType,
    serde::Raw,
};

use crate::{
    Homeserver,
    client_event::{Format, Reader, RoomIdField},
    history,
    sessions::Session,
    sync::{
        filter::{self, MAX_TIMELINE_LIMIT, Members},
        token,
    },
    timeline::{self, Part, Run},
    visibility::{self, Presence, Viewer},
};

/// Before and after everything.
const ALL: (StreamPos, StreamPos) = (StreamPos(i64::MIN), StreamPos(i64::MAX));

/// How long a page waits for other servers' history. A person is waiting for the page; what comes
/// later is on the next one.
const HISTORY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a timeline could not be read.
#[derive(Debug, thiserror::Error)]
pub enum MessagesError {
    /// The user may not look into the room, or there is no such room.
    #[error("the user may not see this room")]
    Forbidden,
    /// There is no such event that the user may see.
    #[error("there is no such event")]
    UnknownEvent,
    /// A token is none of this server.
    #[error("the token is invalid")]
    InvalidToken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A page of a room's timeline. Where it reaches the end of the history that is here, more is
/// asked for from the room's other servers.
///
/// # Errors
/// See [`MessagesError`].
pub async fn page(
    hs: &Homeserver,
    session: &Session,
    request: Request,
) -> Result<Response, MessagesError> {
    let now = hs.clock.now();
    let window = window(&request)?;
    let room_id = request.room_id.clone();
    let asked = Arc::new((session.clone(), request, window));
    let read = |asked: Arc<(Session, Request, Window)>| {
        hs.store.read(move |snap| {
            let (session, request, window) = &*asked;
            page_of(snap, (session, now), request, *window)
        })
    };
    let (response, completeness) = read(asked.clone()).await?;
    if completeness == Completeness::Whole {
        return Ok(response);
    }
    // Whether that helped or not, the page is what is here by then.
    if let Ok(progress) = tokio::time::timeout(HISTORY_TIMEOUT, history::more(hs, &room_id)).await {
        progress?;
    }
    Ok(read(asked).await?.0)
}

/// The part of the timeline that a request is about.
#[derive(Debug, Clone, Copy)]
struct Window {
    from: Option<StreamPos>,
    to: Option<StreamPos>,
}

fn window(request: &Request) -> Result<Window, MessagesError> {
    Ok(Window { from: parse(request.from.as_deref())?, to: parse(request.to.as_deref())? })
}

/// Whether a page holds all it could.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Completeness {
    /// It is full, or ends where the room begins or the client wants.
    Whole,
    /// Other servers have older events that belong on it.
    HistoryMissing,
}

fn page_of(
    snap: &Snapshot<'_>,
    (session, now): (&Session, MilliSecondsSinceUnixEpoch),
    request: &Request,
    Window { from, to }: Window,
) -> Result<(Response, Completeness), MessagesError> {
    let room = readable_room(snap, &request.room_id, &session.user_id)?;
    let (direction, from, (after, until)) = match request.dir {
        Asked::Backward => {
            let from = from.map_or_else(|| snap.position(), Ok)?;
            (Direction::Backward, from, (to.unwrap_or(ALL.0), from))
        }
        Asked::Forward => {
            let from = from.unwrap_or(ALL.0);
            (Direction::Forward, from, (from, to.unwrap_or(ALL.1)))
        }
    };
    let limit = limit(request.limit, &request.filter);
    let part = Part { room: room.nid, after, until, direction, limit };
    let run = read(snap, part, &session.user_id, &request.filter)?;
    let reaches_end = !run.has_more && direction == Direction::Backward && to.is_none();
    let is_joined = visibility::presence(snap, room.nid, &session.user_id)? == Presence::Joined;
    let completeness = match reaches_end && is_joined {
        true if !backward_extremities::list(snap, room.nid)?.is_empty() => {
            Completeness::HistoryMissing
        }
        _ => Completeness::Whole,
    };
    let goes_on = run.has_more || completeness == Completeness::HistoryMissing;
    let writer = Writer::new(snap, session, now);
    let mut response = Response::new();
    response.start = token::timeline_token(from);
    response.end = goes_on.then(|| token::timeline_token(run.reached));
    response.state = writer.members(&room, &run.events, &request.filter)?;
    response.chunk = writer.events(&run.events)?;
    Ok((response, completeness))
}

/// An event with what is around it, and the state there.
///
/// # Errors
/// See [`MessagesError`].
pub async fn context(
    hs: &Homeserver,
    session: &Session,
    request: get_context::v3::Request,
) -> Result<get_context::v3::Response, MessagesError> {
    let session = session.clone();
    let now = hs.clock.now();
    hs.store
        .read(move |snap| {
            let user_id = &session.user_id;
            let room = readable_room(snap, &request.room_id, user_id)?;
            let event = events::find(snap, &request.event_id)?
                .filter(|event| event.room == room.nid)
                .ok_or(MessagesError::UnknownEvent)?;
            let (Some(pos), true) =
                (event.pos, Viewer::new(snap, room.nid, user_id)?.can_see(&event)?)
            else {
                return Err(MessagesError::UnknownEvent);
            };
            let limit = limit(request.limit, &request.filter);
            let before = Part {
                room: room.nid,
                after: ALL.0,
                until: StreamPos(pos.0.saturating_sub(1)),
                direction: Direction::Backward,
                limit: limit / 2,
            };
            let after = Part {
                after: pos,
                until: ALL.1,
                direction: Direction::Forward,
                limit: limit - limit / 2,
                ..before
            };
            let before = read(snap, before, user_id, &request.filter)?;
            let after = read(snap, after, user_id, &request.filter)?;
            let writer = Writer::new(snap, &session, now);
            let mut response = get_context::v3::Response::new();
            response.start = Some(token::timeline_token(before.reached));
            response.end = Some(token::timeline_token(after.reached));
            let last = after.events.last().unwrap_or(&event);
            let root = last.state_after.or(event.state_after).unwrap_or(room.state);
            let shown: Vec<&StoredEvent> =
                before.events.iter().chain([&event]).chain(&after.events).collect();
            response.state = writer.state(root, &shown, &request.filter)?;
            response.events_before = writer.events(&before.events)?;
            response.events_after = writer.events(&after.events)?;
            response.event = writer.events(&[event])?.pop();
            Ok(response)
        })
        .await
}

/// The room, if the user may look into it at all.
pub(crate) fn readable_room(
    snap: &Snapshot<'_>,
    room_id: &RoomId,
    user_id: &UserId,
) -> Result<Room, MessagesError> {
    let room = rooms::find(snap, room_id)?.ok_or(MessagesError::Forbidden)?;
    visibility::readable_state(snap, &room, user_id)?.ok_or(MessagesError::Forbidden)?;
    Ok(room)
}

/// Reads a token that the client may have left out.
pub(crate) fn parse(token: Option<&str>) -> Result<Option<StreamPos>, MessagesError> {
    match token.filter(|token| !token.is_empty()) {
        None => Ok(None),
        Some(token) => token::parse(token).map(Some).ok_or(MessagesError::InvalidToken),
    }
}

/// How many events to give: the smaller of what request and filter say, within our bounds.
fn limit(asked: ruma::UInt, wanted: &RoomEventFilter) -> usize {
    let asked = wanted.limit.map_or(asked, |limit| limit.min(asked));
    usize::try_from(u64::from(asked)).unwrap_or(usize::MAX).min(MAX_TIMELINE_LIMIT)
}

fn read(
    snap: &Snapshot<'_>,
    part: Part,
    user_id: &UserId,
    wanted: &RoomEventFilter,
) -> Result<Run, StoreError> {
    let mut viewer = Viewer::new(snap, part.room, user_id)?;
    let passes_all = filter::lets_all_pass(wanted);
    timeline::read(snap, part, &mut viewer, |event| {
        passes_all || filter::passes(wanted, &event.pdu)
    })
}

/// Writes events for one reader.
struct Writer<'a> {
    snap: &'a Snapshot<'a>,
    format: Format<'a>,
}

impl<'a> Writer<'a> {
    fn new(snap: &'a Snapshot<'a>, session: &'a Session, now: MilliSecondsSinceUnixEpoch) -> Self {
        let reader = Reader { user_id: &session.user_id, device_id: &session.device_id };
        Self { snap, format: Format { reader, now, room_id: RoomIdField::Present } }
    }

    fn events<T>(&self, events: &[StoredEvent]) -> Result<Vec<Raw<T>>, StoreError> {
        events
            .iter()
            .map(|event| Ok(Raw::from_json(self.format.event(self.snap, event)?)))
            .collect()
    }

    /// The member events of the senders, for a client that loads members lazily.
    fn members<T>(
        &self,
        room: &Room,
        shown: &[StoredEvent],
        wanted: &RoomEventFilter,
    ) -> Result<Vec<Raw<T>>, StoreError> {
        if Members::wanted(wanted) == Members::All {
            return Ok(Vec::new());
        }
        let root = shown.first().and_then(|event| event.state_after).unwrap_or(room.state);
        let shown: Vec<&StoredEvent> = shown.iter().collect();
        self.events(&self.senders(root, &shown)?)
    }

    /// A whole state, for a client that loads members lazily with those of the senders only.
    fn state<T>(
        &self,
        root: StateNid,
        shown: &[&StoredEvent],
        wanted: &RoomEventFilter,
    ) -> Result<Vec<Raw<T>>, StoreError> {
        let mut state = match Members::wanted(wanted) {
            Members::All => load(self.snap, room_state::all(self.snap, root)?)?,
            Members::Lazy | Members::LazyRedundant => {
                let mut state = load(self.snap, room_state::all_but_members(self.snap, root)?)?;
                state.extend(self.senders(root, shown)?);
                state
            }
        };
        state.retain(|event| filter::passes(wanted, &event.pdu));
        self.events(&state)
    }

    fn senders(
        &self,
        root: StateNid,
        shown: &[&StoredEvent],
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let mut senders: Vec<&UserId> = shown.iter().map(|event| event.pdu.sender()).collect();
        senders.sort_unstable();
        senders.dedup();
        let mut members = Vec::new();
        for user_id in senders {
            let kind = StateEventType::RoomMember;
            if let Some(nid) = room_state::get(self.snap, root, &kind, user_id.as_str())? {
                members.push(events::get(self.snap, nid)?);
            }
        }
        Ok(members)
    }
}

fn load(
    snap: &Snapshot<'_>,
    entries: Vec<(StateEventType, String, messagehub_store::EventNid)>,
) -> Result<Vec<StoredEvent>, StoreError> {
    events::load_many(snap, entries.into_iter().map(|(_, _, nid)| nid))
}
