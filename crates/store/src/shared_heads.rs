//! The rooms that two servers share, with what a comparison of heads looks at: in one query,
//! since there may be thousands.

use ruma::ServerName;

use crate::{EventNid, RoomNid, Snapshot, StateNid, StoreError, extremities, names};

/// A room in which both servers have a joined user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedRoom {
    /// The room.
    pub room: RoomNid,
    /// Its current state.
    pub state: StateNid,
    /// Its forward extremities, the oldest first.
    pub heads: Vec<EventNid>,
}

/// All rooms that two servers share, by their integers.
///
/// # Errors
/// Fails when the database does.
pub fn list(
    snap: &Snapshot<'_>,
    one: &ServerName,
    other: &ServerName,
) -> Result<Vec<SharedRoom>, StoreError> {
    let (Some(one), Some(other)) =
        (names::find_server(snap, one)?, names::find_server(snap, other)?)
    else {
        return Ok(Vec::new());
    };
    let mut select = snap.conn().prepare_cached(
        // As in `extremities`: where no row tells them, it is the newest event of the timeline.
        "SELECT s.room, r.state, CASE WHEN e.room IS NOT NULL THEN e.event ELSE
             (SELECT nid FROM events t WHERE t.room = s.room AND pos > 0 ORDER BY pos DESC LIMIT 1)
         END FROM
             (SELECT DISTINCT room FROM memberships m WHERE server = ?1 AND membership = 4
              AND EXISTS (SELECT 1 FROM memberships o
                          WHERE o.room = m.room AND o.membership = 4 AND o.server = ?2)) s
         JOIN rooms r ON r.nid = s.room
         LEFT JOIN forward_extremities e ON e.room = s.room
         ORDER BY s.room, e.event",
    )?;
    let mut rows = select.query((other, one))?;
    let mut shared: Vec<SharedRoom> = Vec::new();
    while let Some(row) = rows.next()? {
        let (room, state, head): (RoomNid, StateNid, Option<EventNid>) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        let head = head.filter(|head| *head != extremities::NONE);
        match shared.last_mut().filter(|last| last.room == room) {
            Some(last) => last.heads.extend(head),
            None => shared.push(SharedRoom { room, state, heads: head.into_iter().collect() }),
        }
    }
    Ok(shared)
}

/// Whether some servers, all of them, have joined users in one and the same room.
///
/// # Errors
/// Fails when the database does.
pub fn is_any_with_all(
    snap: &Snapshot<'_>,
    [one, other, third]: [&ServerName; 3],
) -> Result<bool, StoreError> {
    let (Some(one), Some(other), Some(third)) = (
        names::find_server(snap, one)?,
        names::find_server(snap, other)?,
        names::find_server(snap, third)?,
    ) else {
        return Ok(false);
    };
    let mut select = snap.conn().prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM memberships m WHERE server = ?1 AND membership = 4
         AND EXISTS (SELECT 1 FROM memberships o
                     WHERE o.room = m.room AND o.membership = 4 AND o.server = ?2)
         AND EXISTS (SELECT 1 FROM memberships t
                     WHERE t.room = m.room AND t.membership = 4 AND t.server = ?3))",
    )?;
    Ok(select.query_row((other, third, one), |row| row.get(0))?)
}
