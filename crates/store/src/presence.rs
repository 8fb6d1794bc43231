//! Who is there: of local users as this node sees it, of others as their servers say.
//!
//! The rows are what clients and other servers were told. What changes with every request, when
//! somebody was last seen, is in memory only: [`Activity`].

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedDeviceId, OwnedServerName, OwnedUserId, ServerName, UserId,
};
use rusqlite::{OptionalExtension, Row, params};

use crate::{Snapshot, StoreError, StreamPos, Txn, convert};

/// How much somebody is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// No client of theirs is connected.
    Offline,
    /// Connected, and doing something else.
    Unavailable,
    /// There.
    Online,
}

/// What is known of somebody's presence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Who.
    pub user_id: OwnedUserId,
    /// How much they are there.
    pub state: State,
    /// What they say about it.
    pub status_msg: Option<String>,
    /// When they last did something.
    pub last_active_ts: MilliSecondsSinceUnixEpoch,
    /// Whether they are doing something right now, so that the time above is not kept up.
    pub currently_active: bool,
}

/// Writes somebody's presence, and the position at which it shows.
///
/// # Errors
/// Fails when the database does.
pub fn set(txn: &mut Txn<'_>, presence: &Presence) -> Result<StreamPos, StoreError> {
    let pos = txn.next_pos();
    txn.conn()
        .prepare_cached(
            "INSERT INTO presence
                 (user_id, state, status_msg, last_active_ts, currently_active, pos)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO UPDATE SET state = excluded.state, status_msg = excluded.status_msg,
                 last_active_ts = excluded.last_active_ts,
                 currently_active = excluded.currently_active, pos = excluded.pos",
        )?
        .execute(params![
            presence.user_id.as_str(),
            code(presence.state),
            presence.status_msg,
            convert::millis(presence.last_active_ts),
            presence.currently_active,
            pos.0
        ])?;
    Ok(pos)
}

/// Forgets somebody's presence.
///
/// # Errors
/// Fails when the database does.
pub fn remove(txn: &mut Txn<'_>, user_id: &UserId) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached("DELETE FROM presence WHERE user_id = ?1")?
        .execute([user_id.as_str()])?;
    Ok(())
}

/// What is known of somebody's presence; `None` when nothing ever was.
///
/// # Errors
/// Fails when the database does.
pub fn find(snap: &Snapshot<'_>, user_id: &UserId) -> Result<Option<Presence>, StoreError> {
    let found = snap
        .conn()
        .prepare_cached(
            "SELECT user_id, state, status_msg, last_active_ts, currently_active
             FROM presence WHERE user_id = ?1",
        )?
        .query_row([user_id.as_str()], read)
        .optional()?;
    Ok(found)
}

/// What changed after one position and not after another, the oldest first.
///
/// # Errors
/// Fails when the database does.
pub fn list_between(
    snap: &Snapshot<'_>,
    after: StreamPos,
    until: StreamPos,
) -> Result<Vec<Presence>, StoreError> {
    let found = snap
        .conn()
        .prepare_cached(
            "SELECT user_id, state, status_msg, last_active_ts, currently_active
             FROM presence WHERE pos > ?1 AND pos <= ?2 ORDER BY pos",
        )?
        .query_map([after.0, until.0], read)?
        .collect::<Result<_, _>>()?;
    Ok(found)
}

/// Everybody who is there at all. There are few: a row is kept only of those whom somebody told of.
///
/// # Errors
/// Fails when the database does.
pub fn list_present(snap: &Snapshot<'_>) -> Result<Vec<Presence>, StoreError> {
    let found = snap
        .conn()
        .prepare_cached(
            "SELECT user_id, state, status_msg, last_active_ts, currently_active
             FROM presence WHERE state <> 0 ORDER BY user_id",
        )?
        .query_map([], read)?
        .collect::<Result<_, _>>()?;
    Ok(found)
}

fn code(state: State) -> i64 {
    match state {
        State::Offline => 0,
        State::Unavailable => 1,
        State::Online => 2,
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Presence> {
    Ok(Presence {
        user_id: convert::user_id(row, 0)?,
        state: match row.get(1)? {
            2 => State::Online,
            1 => State::Unavailable,
            _ => State::Offline,
        },
        status_msg: row.get(2)?,
        last_active_ts: convert::read_millis(row, 3)?,
        currently_active: row.get(4)?,
    })
}

/// When the local users were last seen, and what other servers were told of them. Nothing of it
/// survives a restart.
#[derive(Default)]
pub struct Activity(Mutex<Inner>);

struct Inner {
    users: BTreeMap<OwnedUserId, Seen>,
    told: BTreeMap<OwnedServerName, StreamPos>,
    newest: StreamPos,
}

impl Default for Inner {
    fn default() -> Self {
        Self { users: BTreeMap::new(), told: BTreeMap::new(), newest: StreamPos::ZERO }
    }
}

/// When a local user was last seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// When they last did something, in milliseconds since the Unix epoch.
    pub active_ms: u64,
    /// Their devices that sync: what each says of itself, and when it last did.
    pub devices: BTreeMap<OwnedDeviceId, (State, u64)>,
    /// Whether the row may be behind what is here.
    pub is_news: bool,
}

impl Activity {
    /// Looks at, or changes, what is known of one user.
    pub fn of<T>(&self, user_id: &UserId, look: impl FnOnce(&mut Seen) -> T) -> T {
        let mut inner = self.lock();
        if let Some(seen) = inner.users.get_mut(user_id) {
            return look(seen);
        }
        look(inner.users.entry(user_id.to_owned()).or_default())
    }

    /// The users whose rows may be behind; from now on they are not.
    pub fn take_news(&self) -> Vec<OwnedUserId> {
        let mut inner = self.lock();
        let news = inner
            .users
            .iter_mut()
            .filter_map(|(user_id, seen)| std::mem::take(&mut seen.is_news).then_some(user_id));
        news.cloned().collect()
    }

    /// Notes that the presence of a local user changed at a position.
    pub fn note_change(&self, pos: StreamPos) {
        let mut inner = self.lock();
        inner.newest = inner.newest.max(pos);
    }

    /// Whether there is anything that a server was not told.
    pub fn is_untold(&self, server: &ServerName) -> bool {
        let inner = self.lock();
        inner.told.get(server).copied().unwrap_or(StreamPos::ZERO) < inner.newest
    }

    /// Up to which position a server was told; zero for nothing.
    pub fn told(&self, server: &ServerName) -> StreamPos {
        self.lock().told.get(server).copied().unwrap_or(StreamPos::ZERO)
    }

    /// Notes that a server was told everything up to a position.
    pub fn note_told(&self, server: &ServerName, pos: StreamPos) {
        self.lock().told.insert(server.to_owned(), pos);
    }

    /// Forgets what a server was told: it is gone, and will want to hear all of it again.
    pub fn forget_told(&self, server: &ServerName) {
        self.lock().told.remove(server);
    }

    /// Forgets a user.
    pub fn forget(&self, user_id: &UserId) {
        self.lock().users.remove(user_id);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each entry stands for itself; there is nothing a panic elsewhere could break.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Activity").finish_non_exhaustive()
    }
}
