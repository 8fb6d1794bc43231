//! Which event of a room was sent at about a time, as its sender says.

use ruma::MilliSecondsSinceUnixEpoch;
use rusqlite::params;

use crate::{EventNid, RoomNid, Snapshot, StoreError, convert::millis, events::Direction};

/// At most `limit` events of a room's timeline that are not before a time (`Forward`) or not after
/// it (`Backward`), the nearest first; the first `skip` of them are left out.
///
/// # Errors
/// Fails when the database does.
pub fn nearest(
    snap: &Snapshot<'_>,
    room: RoomNid,
    (time, direction): (MilliSecondsSinceUnixEpoch, Direction),
    (skip, limit): (usize, usize),
) -> Result<Vec<EventNid>, StoreError> {
    // No index: it would cost each event a page, and this question is rare. The timeline of one
    // room is read on a reader, some 7 µs an event: 0.7 s where there are 100,000. A search by
    // halves would be quick, but positions are in order of times only where all clocks are right,
    // and one member whose clock is wrong would hide the events of others.
    let sql = match direction {
        Direction::Forward => {
            "SELECT nid FROM events WHERE room = ?1 AND pos IS NOT NULL
             AND json_extract(json, '$.origin_server_ts') >= ?2
             ORDER BY json_extract(json, '$.origin_server_ts'), pos LIMIT ?3 OFFSET ?4"
        }
        Direction::Backward => {
            "SELECT nid FROM events WHERE room = ?1 AND pos IS NOT NULL
             AND json_extract(json, '$.origin_server_ts') <= ?2
             ORDER BY json_extract(json, '$.origin_server_ts') DESC, pos DESC LIMIT ?3 OFFSET ?4"
        }
    };
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let mut select = snap.conn().prepare_cached(sql)?;
    let rows = select
        .query_map(params![room, millis(time), number(limit), number(skip)], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
