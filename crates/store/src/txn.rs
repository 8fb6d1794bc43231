//! What a closure gets: a [`Snapshot`] to read from, or a [`Txn`] to write with.

use std::{cell::RefCell, ops::Deref};

use rusqlite::Connection;

use crate::{
    StoreError,
    ids::{EventNid, StreamPos},
    shared::{Learned, Shared},
    unread::UnreadCache,
};

/// The last position given out: where the newest event carries it, no other row says so.
pub(crate) const LAST_POSITION: &str = "SELECT max(last,
     coalesce((SELECT pos FROM events ORDER BY nid DESC LIMIT 1), 0)) FROM positions";

/// The lowest position given out.
pub(crate) const FIRST_POSITION: &str = "SELECT first FROM positions";

/// The database as it was at one moment.
pub struct Snapshot<'a> {
    conn: &'a Connection,
    pub(crate) shared: &'a Shared,
    /// On the writer: names to publish when the group is committed.
    unpublished: Option<&'a RefCell<Vec<Learned>>>,
}

impl<'a> Snapshot<'a> {
    /// A view of committed rows only.
    pub(crate) fn committed(conn: &'a Connection, shared: &'a Shared) -> Self {
        Self { conn, shared, unpublished: None }
    }

    /// The connection, inside its transaction. Use `prepare_cached`; never begin or
    /// end a transaction on it.
    pub fn conn(&self) -> &'a Connection {
        self.conn
    }

    /// What is remembered about unread messages; not part of the snapshot.
    pub fn unread_cache(&self) -> &'a UnreadCache {
        &self.shared.unread
    }

    /// The last position whose effects this snapshot shows.
    ///
    /// # Errors
    /// Fails when the database does.
    pub fn position(&self) -> Result<StreamPos, StoreError> {
        let mut select = self.conn.prepare_cached(LAST_POSITION)?;
        Ok(select.query_row([], |row| row.get(0))?)
    }

    /// Remembers a name for all threads: at once when it is committed, else after the commit.
    pub(crate) fn learn(&self, learned: Learned) {
        match self.unpublished {
            Some(unpublished) => unpublished.borrow_mut().push(learned),
            None => self.shared.learn(learned),
        }
    }
}

/// A write in progress, on the writer thread. Rolled back when its closure fails.
pub struct Txn<'a> {
    snapshot: Snapshot<'a>,
    counters: &'a mut Counters,
}

impl<'a> Txn<'a> {
    pub(crate) fn new(
        conn: &'a Connection,
        shared: &'a Shared,
        unpublished: &'a RefCell<Vec<Learned>>,
        counters: &'a mut Counters,
    ) -> Self {
        Self { snapshot: Snapshot { conn, shared, unpublished: Some(unpublished) }, counters }
    }

    /// Gives out the next position. Every row a client can see carries one. Positions
    /// have no gaps: those of a closure that fails are given out again.
    pub fn next_pos(&mut self) -> StreamPos {
        self.counters.given.last += 1;
        StreamPos(self.counters.given.last)
    }

    /// Gives out the next position of the past: negative, and lower each time.
    pub fn next_history_pos(&mut self) -> StreamPos {
        self.counters.given.first -= 1;
        StreamPos(self.counters.given.first)
    }

    /// Says which position the newest event carries.
    pub(crate) fn note_newest(&mut self, pos: Option<StreamPos>) {
        self.counters.recorded.last = pos.map_or(0, |pos| pos.0.max(0));
    }

    /// The last position given out, in this transaction or before it.
    ///
    /// # Errors
    /// Never; it has the form of [`Snapshot::position`].
    pub fn position(&self) -> Result<StreamPos, StoreError> {
        Ok(StreamPos(self.counters.given.last))
    }

    pub(crate) fn next_event_nid(&mut self) -> EventNid {
        EventNid(self.counters.next(Table::Events))
    }

    pub(crate) fn next_nid(&mut self, table: Table) -> i64 {
        self.counters.next(table)
    }
}

impl<'a> Deref for Txn<'a> {
    type Target = Snapshot<'a>;

    fn deref(&self) -> &Snapshot<'a> {
        &self.snapshot
    }
}

/// The tables whose keys we number ourselves.
#[derive(Clone, Copy)]
pub(crate) enum Table {
    Events,
    Rooms,
    StateKeys,
    StateNodes,
    UserNames,
    ServerNames,
    PendingEvents,
}

impl Table {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Events, "events"),
        (Self::Rooms, "rooms"),
        (Self::StateKeys, "state_keys"),
        (Self::StateNodes, "state_nodes"),
        (Self::UserNames, "user_names"),
        (Self::ServerNames, "server_names"),
        (Self::PendingEvents, "pending_events"),
    ];
}

/// The last numbers given out. Row ids never go back, not even when a closure is
/// rolled back: a cache may then hold what nobody names any more, but never a
/// wrong value. Positions do go back, so that they have no gaps.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) given: Positions,
    /// What the rows tell so far, those of this transaction included.
    pub(crate) recorded: Positions,
    rows: [i64; Table::ALL.len()],
}

/// The newest position and the oldest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Positions {
    pub(crate) last: i64,
    pub(crate) first: i64,
}

impl Counters {
    pub(crate) fn load(conn: &Connection) -> rusqlite::Result<Self> {
        let given = Positions {
            last: conn.query_row(LAST_POSITION, [], |row| row.get(0))?,
            first: conn.query_row(FIRST_POSITION, [], |row| row.get(0))?,
        };
        let mut rows = [0; Table::ALL.len()];
        for (table, name) in Table::ALL {
            let newest = format!("SELECT coalesce(max(nid), 0) FROM {name}");
            rows[table as usize] = conn.query_row(&newest, [], |row| row.get(0))?;
        }
        Ok(Self { given, recorded: given, rows })
    }

    fn next(&mut self, table: Table) -> i64 {
        let row = &mut self.rows[table as usize];
        *row += 1;
        *row
    }
}
