//! Which rooms have something new for clients: the question that every sync begins with.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rusqlite::params;

use crate::{RoomNid, Snapshot, StoreError, StreamPos};

/// Events whose rooms are remembered, 16 bytes each: more than come while a client asks again.
const MAX_RECENT: usize = 4_096;

/// The rooms with an event, a receipt or a change in who types after `after` and not after
/// `until`; `None` where that is not remembered, and each room is to be asked about with
/// [`in_room`]. Costs as much as there were positions in between.
///
/// # Errors
/// Fails when the database does.
pub fn list_rooms(
    snap: &Snapshot<'_>,
    after: StreamPos,
    until: StreamPos,
) -> Result<Option<BTreeSet<RoomNid>>, StoreError> {
    let Some(mut rooms) = snap.shared.recent.list(after, until) else { return Ok(None) };
    for sql in [
        "SELECT room_nid FROM receipts WHERE pos > ?1 AND pos <= ?2",
        "SELECT room_nid FROM typing_rooms WHERE pos > ?1 AND pos <= ?2",
    ] {
        let mut select = snap.conn().prepare_cached(sql)?;
        let mut rows = select.query(params![after.0, until.0])?;
        while let Some(row) = rows.next()? {
            rooms.insert(RoomNid(row.get(0)?));
        }
    }
    Ok(Some(rooms))
}

/// Whether one room has anything of what [`list_rooms`] looks for. Costs the same however many
/// positions lie in between.
///
/// # Errors
/// Fails when the database does.
pub fn in_room(
    snap: &Snapshot<'_>,
    room: RoomNid,
    after: StreamPos,
    until: StreamPos,
) -> Result<bool, StoreError> {
    let found = snap
        .conn()
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM events WHERE room = ?1 AND pos > ?2 AND pos <= ?3)
                 OR EXISTS (SELECT 1 FROM receipts WHERE room_nid = ?1 AND pos > ?2 AND pos <= ?3)
                 OR EXISTS (SELECT 1 FROM typing_rooms
                            WHERE room_nid = ?1 AND pos > ?2 AND pos <= ?3)",
        )?
        .query_row(params![room.0, after.0, until.0], |row| row.get(0))?;
    Ok(found)
}

/// Where the latest events of all rooms went. An index would say it too, and cost each event a page.
#[derive(Debug)]
pub(crate) struct RecentChanges {
    log: Mutex<Log>,
}

#[derive(Debug)]
struct Log {
    /// Of everything after this position the room is here.
    after: StreamPos,
    /// … and up to this one. A snapshot may show more, just committed.
    until: StreamPos,
    /// The oldest first.
    events: VecDeque<(StreamPos, RoomNid)>,
}

impl RecentChanges {
    /// As the store is opened: nothing is remembered.
    pub(crate) fn after(position: StreamPos) -> Self {
        let log = Log { after: position, until: position, events: VecDeque::new() };
        Self { log: Mutex::new(log) }
    }

    /// Notes a committed event. History that was fetched later is not news.
    pub(crate) fn note(&self, room: RoomNid, pos: StreamPos) {
        if pos <= StreamPos::ZERO {
            return;
        }
        let mut log = self.lock();
        if log.events.len() == MAX_RECENT
            && let Some((oldest, _)) = log.events.pop_front()
        {
            log.after = oldest;
        }
        log.events.push_back((pos, room));
    }

    /// Everything up to a position is noted.
    pub(crate) fn complete(&self, until: StreamPos) {
        self.lock().until = until;
    }

    fn list(&self, after: StreamPos, until: StreamPos) -> Option<BTreeSet<RoomNid>> {
        let log = self.lock();
        if after < log.after || until > log.until {
            return None;
        }
        let newest_first = log.events.iter().rev();
        let range =
            newest_first.skip_while(|(pos, _)| *pos > until).take_while(|(pos, _)| *pos > after);
        Some(range.map(|(_, room)| *room).collect())
    }

    /// A panic elsewhere leaves the log as it was, or with an event less, and then without `until`.
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_remembered_is_not_told() {
        let recent = RecentChanges::after(StreamPos(10));
        for n in 11..=14 {
            recent.note(RoomNid(n % 2), StreamPos(n));
        }
        let list =
            |after, until| recent.list(StreamPos(after), StreamPos(until)).map(Vec::from_iter);
        assert_eq!(list(10, 14), None, "a commit is under way");
        recent.complete(StreamPos(14));
        assert_eq!(list(10, 14), Some(vec![RoomNid(0), RoomNid(1)]));
        assert_eq!(list(12, 13), Some(vec![RoomNid(1)]));
        assert_eq!(list(14, 14), Some(vec![]));
        assert_eq!(list(9, 14), None, "older than the log");
        assert_eq!(list(10, 15), None, "newer than the log");
    }

    #[test]
    fn the_log_is_bounded() {
        let recent = RecentChanges::after(StreamPos(0));
        let last = MAX_RECENT as i64 + 5;
        for n in 1..=last {
            recent.note(RoomNid(1), StreamPos(n));
        }
        recent.complete(StreamPos(last));
        assert_eq!(recent.list(StreamPos(4), StreamPos(last)), None);
        assert!(recent.list(StreamPos(5), StreamPos(last)).is_some());
        recent.note(RoomNid(1), StreamPos(-3));
        assert!(recent.list(StreamPos(5), StreamPos(last)).is_some());
    }
}
