//! Who is there. Of local users it follows from their clients: who syncs is there, who does nothing
//! for a while is away, who does not sync any more is gone. Other servers are told what changed
//! while they are connected, and everything when they connect; whoever is not connected is gone.
//!
//! Spec: Client-Server API, "Presence"; Server-Server API, "Presence".

use std::time::Duration;

use messagehub_store::{
    Snapshot, StoreError, StreamPos, Txn,
    presence::{self as rows, Presence, Seen, State},
    sharing,
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName, UInt, UserId,
    api::federation::transactions::edu::{Edu, PresenceContent, PresenceUpdate},
    presence::PresenceState,
};
use serde_json::value::to_raw_value;

use crate::{Homeserver, clock::timestamp, outbox, sessions::Session};

/// Who did nothing for so long is away.
///
/// Spec: Client-Server API, "Idle timeout".
const IDLE_AFTER_MS: u64 = 5 * 60 * 1000;

/// Who did something within this time is doing something right now.
const ACTIVE_FOR_MS: u64 = 60 * 1000;

/// Whose clients did not sync for so long is gone. A sync waits for up to 55 seconds.
const GONE_AFTER_MS: u64 = 90 * 1000;

/// Longest status message, in bytes: a line.
const MAX_STATUS_BYTES: usize = 1024;

/// Users in one EDU; more are for the next.
const MAX_UPDATES: usize = 100;

/// Characters of the id under which a server is told.
const TXN_ID_LENGTH: usize = 16;

/// Why somebody's presence was not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum PresenceError {
    /// Only the user may change it.
    #[error("the presence is another user's")]
    NotYours,
    /// They share no room.
    #[error("the users share no room")]
    NotVisible,
    /// The status message is too long, or there is no such state.
    #[error(
        "a status message has at most {MAX_STATUS_BYTES} bytes; a state is online, unavailable or offline"
    )]
    Invalid,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Somebody's presence at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// How much they are there.
    pub presence: PresenceState,
    /// What they say about it.
    pub status_msg: Option<String>,
    /// How long ago they did something; `None` when they never did.
    pub last_active_ago: Option<Duration>,
    /// Whether they are doing something right now.
    pub currently_active: bool,
}

/// What changes a local user's presence.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cause {
    /// A device began to sync, or says something else of itself.
    Synced,
    /// The user says so.
    Set(State, Option<String>),
    /// The user did something.
    Active,
    /// Time passed.
    Passed,
}

/// Sets the presence of a local user.
///
/// # Errors
/// See [`PresenceError`].
pub async fn set(
    hs: &Homeserver,
    session: &Session,
    user_id: &UserId,
    (presence, status_msg): (PresenceState, Option<String>),
) -> Result<(), PresenceError> {
    if session.user_id != user_id {
        return Err(PresenceError::NotYours);
    }
    let state = state_of(&presence).ok_or(PresenceError::Invalid)?;
    if status_msg.as_ref().is_some_and(|text| text.len() > MAX_STATUS_BYTES) {
        return Err(PresenceError::Invalid);
    }
    let now = hs.clock.now_ms();
    hs.store.activity().of(user_id, |seen| {
        seen.devices.insert(session.device_id.clone(), (state, now));
        if state == State::Online {
            seen.active_ms = now;
        }
    });
    let status_msg = status_msg.filter(|text| !text.is_empty());
    Ok(update(hs, user_id, Cause::Set(state, status_msg)).await?)
}

/// The presence of a user whom the caller shares a room with.
///
/// # Errors
/// See [`PresenceError`].
pub async fn get(
    hs: &Homeserver,
    caller: &UserId,
    user_id: &UserId,
) -> Result<Status, PresenceError> {
    let (viewer, wanted) = (caller.to_owned(), user_id.to_owned());
    let found = hs
        .store
        .read(move |snap| {
            if viewer != wanted && !sharing::do_users(snap, &viewer, &wanted)? {
                return Err(PresenceError::NotVisible);
            }
            Ok(rows::find(snap, &wanted)?)
        })
        .await?;
    let now = hs.clock.now();
    let Some(mut found) = found else { return Ok(status(None, now)) };
    if hs.identity.is_local(user_id) {
        let active_ms = hs.store.activity().of(user_id, |seen| seen.active_ms);
        found.last_active_ts = found.last_active_ts.max(timestamp(active_ms));
    }
    Ok(status(Some(&found), now))
}

/// Notes that a client syncs, and what it says of its user. Costs a look in memory where nothing
/// changed.
///
/// # Errors
/// The store failed.
pub(crate) async fn syncing(
    hs: &Homeserver,
    session: &Session,
    wanted: &PresenceState,
) -> Result<(), StoreError> {
    let (now, state) = (hs.clock.now_ms(), state_of(wanted).unwrap_or(State::Online));
    let is_news = hs.store.activity().of(&session.user_id, |seen| {
        seen.devices.retain(|_, (_, at)| is_recent(*at, now));
        let before = seen.devices.insert(session.device_id.clone(), (state, now));
        before.map(|(before, _)| before).unwrap_or(State::Offline) != state
    });
    if is_news { update(hs, &session.user_id, Cause::Synced).await } else { Ok(()) }
}

/// Notes that a local user did something. In memory only; the run loop writes what follows from it.
pub(crate) fn note_active(hs: &Homeserver, user_id: &UserId) {
    let now = hs.clock.now_ms();
    let is_news = hs.store.activity().of(user_id, |seen| {
        let was_active = now.saturating_sub(seen.active_ms) < ACTIVE_FOR_MS;
        seen.active_ms = now;
        // Who does not sync, such as a program, is not there.
        let is_there = seen
            .devices
            .values()
            .any(|(state, at)| *state != State::Offline && is_recent(*at, now));
        seen.is_news |= is_there && !was_active;
        seen.is_news
    });
    if is_news {
        hs.peers.wake();
    }
}

/// Writes what was noted in memory.
///
/// # Errors
/// The store failed.
pub(crate) async fn settle(hs: &Homeserver) -> Result<(), StoreError> {
    for user_id in hs.store.activity().take_news() {
        update(hs, &user_id, Cause::Active).await?;
    }
    Ok(())
}

/// What the time that passed changes: who is away, and who is gone.
///
/// # Errors
/// The store failed.
pub(crate) async fn pass(hs: &Homeserver) -> Result<(), StoreError> {
    let mut gone = Vec::new();
    for presence in hs.store.read(rows::list_present).await? {
        if hs.identity.is_local(&presence.user_id) {
            update(hs, &presence.user_id, Cause::Passed).await?;
        } else if !hs.peers.is_connected(presence.user_id.server_name()) {
            gone.push(presence);
        }
    }
    if gone.is_empty() {
        return Ok(());
    }
    hs.store
        .write(move |txn| {
            for presence in gone {
                let presence =
                    Presence { state: State::Offline, currently_active: false, ..presence };
                rows::set(txn, &presence)?;
            }
            Ok(())
        })
        .await
}

/// Whether a connected server was not told everything.
pub(crate) fn is_untold(hs: &Homeserver, server: &ServerName) -> bool {
    hs.store.activity().is_untold(server)
}

/// Notes that a server is gone.
pub(crate) fn note_gone(hs: &Homeserver, server: &ServerName) {
    hs.store.activity().forget_told(server);
}

/// Tells a server what changed since it was last told: of the local users with whom it shares a
/// room. Where nothing did, nothing is sent.
///
/// # Errors
/// The store failed.
pub(crate) async fn tell(hs: &Homeserver, server: &OwnedServerName) -> Result<(), StoreError> {
    let told = hs.store.activity().told(server);
    let (us, them, now) = (hs.server_name().to_owned(), server.clone(), hs.clock.now());
    let (news, until) = hs.store.read(move |snap| news_for(snap, (&us, &them), told, now)).await?;
    for updates in news.chunks(MAX_UPDATES) {
        let edu = Edu::Presence(PresenceContent::new(updates.to_vec()));
        let edu = to_raw_value(&edu).map_err(|error| StoreError::Damaged(error.to_string()))?;
        let txn_id = hs.rng.alphanumeric(TXN_ID_LENGTH);
        if let Err(error) = outbox::push(hs, server, &txn_id, (Vec::new(), vec![edu])).await {
            // It is told when it connects again, or when something else changes.
            tracing::debug!(%server, %error, "a server was not told who is there");
            return Ok(());
        }
    }
    hs.store.activity().note_told(server, until);
    Ok(())
}

fn news_for(
    snap: &Snapshot<'_>,
    (us, them): (&ServerName, &ServerName),
    told: StreamPos,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<(Vec<PresenceUpdate>, StreamPos), StoreError> {
    let until = snap.position()?;
    let changed = match told {
        StreamPos::ZERO => rows::list_present(snap)?,
        told => rows::list_between(snap, told, until)?,
    };
    let mut news = Vec::new();
    for presence in changed.iter().filter(|presence| presence.user_id.server_name() == us) {
        if sharing::does_user_with_server(snap, (&presence.user_id, them), None)? {
            news.push(update_of(presence, now));
        }
    }
    Ok((news, until))
}

/// Takes what another server says of its users.
///
/// # Errors
/// Fails when the database does.
pub(crate) fn ingest(
    txn: &mut Txn<'_>,
    (us, origin): (&ServerName, &ServerName),
    content: &PresenceContent,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<(), StoreError> {
    for update in content.push.iter().take(MAX_UPDATES) {
        let user_id = &update.user_id;
        let Some(state) = state_of(&update.presence) else { continue };
        if user_id.server_name() != origin
            || !sharing::does_user_with_server(txn, (user_id, us), None)?
        {
            continue;
        }
        let ago = u64::from(update.last_active_ago);
        let presence = Presence {
            user_id: user_id.clone(),
            state,
            status_msg: update.status_msg.clone().filter(|text| text.len() <= MAX_STATUS_BYTES),
            last_active_ts: timestamp(u64::from(now.get()).saturating_sub(ago)),
            currently_active: update.currently_active && state == State::Online,
        };
        let known = rows::find(txn, user_id)?;
        if known.as_ref().is_none_or(|known| differs(known, &presence)) {
            rows::set(txn, &presence)?;
        }
    }
    Ok(())
}

/// A user's presence as clients and servers are told it, at a moment.
pub(crate) fn status(presence: Option<&Presence>, now: MilliSecondsSinceUnixEpoch) -> Status {
    let Some(presence) = presence else {
        return Status {
            presence: PresenceState::Offline,
            status_msg: None,
            last_active_ago: None,
            currently_active: false,
        };
    };
    let active_ms = u64::from(presence.last_active_ts.get());
    let ago = Duration::from_millis(u64::from(now.get()).saturating_sub(active_ms));
    Status {
        presence: match presence.state {
            State::Online => PresenceState::Online,
            State::Unavailable => PresenceState::Unavailable,
            State::Offline => PresenceState::Offline,
        },
        status_msg: presence.status_msg.clone(),
        last_active_ago: (active_ms > 0).then_some(ago),
        currently_active: presence.currently_active,
    }
}

fn update_of(presence: &Presence, now: MilliSecondsSinceUnixEpoch) -> PresenceUpdate {
    let status = status(Some(presence), now);
    let ago = status.last_active_ago.unwrap_or_default().as_millis();
    let ago = UInt::try_from(ago).unwrap_or(UInt::MAX);
    let mut update = PresenceUpdate::new(presence.user_id.clone(), status.presence, ago);
    update.status_msg = status.status_msg;
    update.currently_active = status.currently_active;
    update
}

/// Brings the row of a local user up to what is known in memory, and tells everybody if that
/// changed anything.
async fn update(hs: &Homeserver, user_id: &UserId, cause: Cause) -> Result<(), StoreError> {
    let seen = hs.store.activity().of(user_id, |seen| seen.clone());
    let (now, user_id) = (hs.clock.now_ms(), user_id.to_owned());
    let changed = hs
        .store
        .write(move |txn| {
            let known = rows::find(txn, &user_id)?;
            let before = known.clone().unwrap_or(Presence {
                user_id,
                state: State::Offline,
                status_msg: None,
                last_active_ts: timestamp(0),
                currently_active: false,
            });
            let after = after(&before, &seen, cause, now);
            if known.is_some_and(|known| !differs(&known, &after)) {
                return Ok(None);
            }
            Ok::<_, StoreError>(Some(rows::set(txn, &after)?))
        })
        .await?;
    if let Some(pos) = changed {
        hs.store.activity().note_change(pos);
        hs.peers.wake();
    }
    Ok(())
}

/// Pure: the presence that follows from a cause.
fn after(before: &Presence, seen: &Seen, cause: Cause, now: u64) -> Presence {
    let devices = seen.devices.values().filter(|(_, at)| is_recent(*at, now));
    let by_devices = devices.map(|(state, _)| *state).max().unwrap_or(State::Offline);
    let active_ms = seen.active_ms.max(before.last_active_ts.get().into());
    let idle_ms = now.saturating_sub(active_ms);
    let mut after = before.clone();
    let (state, active_ms) = match cause {
        Cause::Set(state, status_msg) => {
            after.status_msg = status_msg;
            (state, active_ms)
        }
        Cause::Synced if by_devices == State::Online && before.state != State::Online => {
            (State::Online, now)
        }
        Cause::Synced => (by_devices, active_ms),
        Cause::Active => (State::Online, active_ms),
        Cause::Passed if by_devices == State::Offline => (State::Offline, active_ms),
        Cause::Passed if before.state == State::Online && idle_ms >= IDLE_AFTER_MS => {
            (State::Unavailable, active_ms)
        }
        Cause::Passed => (before.state, active_ms),
    };
    after.state = state;
    after.last_active_ts = timestamp(active_ms);
    after.currently_active =
        state == State::Online && now.saturating_sub(active_ms) < ACTIVE_FOR_MS;
    after
}

/// Whether anybody has to be told.
fn differs(one: &Presence, other: &Presence) -> bool {
    (one.state, &one.status_msg, one.currently_active)
        != (other.state, &other.status_msg, other.currently_active)
}

fn is_recent(at: u64, now: u64) -> bool {
    now.saturating_sub(at) < GONE_AFTER_MS
}

fn state_of(presence: &PresenceState) -> Option<State> {
    match presence {
        PresenceState::Online => Some(State::Online),
        PresenceState::Unavailable => Some(State::Unavailable),
        PresenceState::Offline => Some(State::Offline),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
