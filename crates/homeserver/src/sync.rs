//! `GET /sync`: what changed for a client since it last asked, and waiting until something does.
//!
//! An answer is read from one snapshot and holds everything up to that snapshot's position,
//! which is the next token. Whoever waits has subscribed to positions before reading, so no
//! change is missed; a wake-up carries no data, and what is new is read again.
//!
//! Spec: Client-Server API, "Syncing".

use std::{sync::Arc, time::Duration};

use messagehub_store::{Snapshot, StoreError, StreamPos, to_device, typing};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedDeviceId, OwnedUserId,
    api::client::{
        filter::FilterDefinition,
        sync::sync_events::v3::{Filter, Request, Response},
    },
};
use tokio::time::Instant;

use crate::{
    Homeserver,
    client_event::{Format, Reader, RoomIdField},
    filters::{self, FilterError},
    ignored, presence,
    sessions::Session,
};

use self::{devices::Met, filter::Members, token::SyncToken};

pub(crate) mod devices;
pub(crate) mod ephemeral;
pub(crate) mod filter;
mod incremental;
mod initial;
mod people;
mod room;
mod state;
mod timeline;
pub(crate) mod token;

#[cfg(test)]
mod tests;

/// The longest that a request is kept waiting: less than the minute after which proxies give up.
const MAX_TIMEOUT: Duration = Duration::from_secs(55);

/// Why a sync got no answer.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// `since` is no token of this server.
    #[error("the since token is invalid")]
    InvalidToken,
    /// The filter that is named does not exist.
    #[error("there is no such filter")]
    UnknownFilter,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Answers a sync, at once where there is something to say, else when there is or when the
/// client's timeout runs out. Dropping the future gives the request up.
///
/// # Errors
/// See [`SyncError`].
pub async fn sync(
    hs: &Homeserver,
    session: &Session,
    request: Request,
) -> Result<Response, SyncError> {
    let deadline = Instant::now() + request.timeout.unwrap_or_default().min(MAX_TIMEOUT);
    let since = match request.since.as_deref().filter(|since| !since.is_empty()) {
        None => None,
        Some(since) => Some(token::parse_sync(since).ok_or(SyncError::InvalidToken)?),
    };
    presence::syncing(hs, session, &request.set_presence).await?;
    let wanted = Arc::new(Wanted::new(hs, session, &request).await?);
    // Before the first read: what is committed after it wakes us.
    let mut positions = hs.store.subscribe();
    let mut checked = since.map(|since| since.pos);
    let mut woken = false;
    loop {
        positions.borrow_and_update();
        let now = hs.clock.now();
        let look = Look { since, checked, now };
        let reader = wanted.clone();
        let read = move |snap: &Snapshot<'_>| collect(snap, &reader, look);
        let found = match woken {
            true => hs.store.peek(read).await?,
            false => hs.store.read(read).await?,
        };
        checked = checked.map(|_| found.until);
        if let Some(has) = found.has_messages_until {
            let device = (wanted.user_id.clone(), wanted.device_id.clone());
            hs.store
                .write(move |txn| to_device::remove_until(txn, (&device.0, &device.1), has))
                .await?;
        }
        if found.is_news || Instant::now() >= deadline {
            // Whoever waited for a minute was there all the time.
            presence::syncing(hs, session, &request.set_presence).await?;
            return Ok(found.response);
        }
        if found.typing_ends.is_some_and(|end| end <= now) {
            hs.store.write(move |txn| typing::expire(txn, now)).await?;
            continue;
        }
        let wake = found.typing_ends.map_or(deadline, |end| deadline.min(wake_at(now, end)));
        tokio::select! {
            moved = positions.changed() => match moved {
                Ok(()) => woken = true,
                Err(_) => return Ok(found.response),
            },
            () = tokio::time::sleep_until(wake) => woken = false,
        }
    }
}

/// What a client asked for.
#[derive(Debug)]
struct Wanted {
    user_id: OwnedUserId,
    device_id: OwnedDeviceId,
    filter: FilterDefinition,
    members: Members,
    form: StateForm,
    full_state: bool,
}

/// Which state of a room an answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StateForm {
    /// `state`: what changed until the timeline begins.
    Before,
    /// `state_after`: what changed until the timeline ends.
    After,
}

impl Wanted {
    async fn new(hs: &Homeserver, session: &Session, request: &Request) -> Result<Self, SyncError> {
        let filter = match &request.filter {
            None => FilterDefinition::default(),
            Some(Filter::FilterDefinition(inline)) => inline.clone(),
            Some(Filter::FilterId(id)) => filters::get(hs, &session.user_id, id).await?,
            // A form of filter that this version of the specification does not have.
            Some(_) => return Err(SyncError::UnknownFilter),
        };
        Ok(Self {
            user_id: session.user_id.clone(),
            device_id: session.device_id.clone(),
            members: Members::wanted(&filter.room.state),
            filter,
            form: if request.use_state_after { StateForm::After } else { StateForm::Before },
            full_state: request.full_state,
        })
    }
}

impl From<FilterError> for SyncError {
    fn from(error: FilterError) -> Self {
        match error {
            FilterError::Unknown | FilterError::TooLarge => Self::UnknownFilter,
            FilterError::Store(error) => Self::Store(error),
        }
    }
}

/// One look at the database for one client.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// What the client has.
    since: Option<SyncToken>,
    /// Up to where an earlier look of the same request found nothing.
    checked: Option<StreamPos>,
    now: MilliSecondsSinceUnixEpoch,
}

/// What a look found.
struct Found {
    response: Response,
    is_news: bool,
    until: StreamPos,
    /// When the next typing user's time runs out; not looked up where there is news.
    typing_ends: Option<MilliSecondsSinceUnixEpoch>,
    /// Up to where the messages for the device are kept though the client has them.
    has_messages_until: Option<StreamPos>,
}

/// What the parts of an answer are made with.
struct Context<'a> {
    snap: &'a Snapshot<'a>,
    wanted: &'a Wanted,
    format: Format<'a>,
    until: StreamPos,
    ignored: ignored::Users,
}

fn collect(snap: &Snapshot<'_>, wanted: &Wanted, look: Look) -> Result<Found, StoreError> {
    let until = snap.position()?;
    let cx = Context {
        snap,
        wanted,
        format: Format {
            reader: Reader { user_id: &wanted.user_id, device_id: &wanted.device_id },
            now: look.now,
            room_id: RoomIdField::Absent,
        },
        until,
        ignored: ignored::Users::load(snap, &wanted.user_id)?,
    };
    // A token from the future is one from before the database was set back.
    let since = look.since.filter(|since| since.pos <= until);
    let (mut response, mut is_news) = match (since, look.checked) {
        (Some(since), Some(checked)) => incremental::answer(&cx, since.pos, checked)?,
        _ => (initial::answer(&cx)?, true),
    };
    let met = match since {
        Some(since) if since.pos < until => devices::met(snap, &wanted.user_id, since.pos)?,
        _ => Met::default(),
    };
    is_news |= devices::add(&cx, since, &met, &mut response)?;
    response.presence.events = people::events(&cx, since.map(|since| since.pos), &met)?;
    is_news |= !response.presence.is_empty();
    let device = (&*wanted.user_id, &*wanted.device_id);
    let has_messages_until = match since {
        Some(since) if to_device::is_any_until(snap, device, since.to_device)? => {
            Some(since.to_device)
        }
        _ => None,
    };
    let typing_ends = if is_news { None } else { typing::next_expiry(snap)? };
    Ok(Found { response, is_news, until, typing_ends, has_messages_until })
}

fn wake_at(now: MilliSecondsSinceUnixEpoch, end: MilliSecondsSinceUnixEpoch) -> Instant {
    let left = u64::from(end.get()).saturating_sub(now.get().into());
    Instant::now() + Duration::from_millis(left)
}
