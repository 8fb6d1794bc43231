//! One row of `events`.

use messagehub_protocol::receive::{Judged, Standing};
use rusqlite::{
    OptionalExtension, ToSql, params,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};

use super::{Placement, StoredEvent, pdu, remember};
use crate::{
    EventNid, Room, RoomNid, Snapshot, StateNid, StoreError, StreamPos, Txn, media_references,
    shared::Learned,
};

/// A row as it is read, in the order in which every `SELECT` names its columns.
pub(super) struct Row {
    nid: EventNid,
    room: RoomNid,
    standing: Column,
    pos: Option<StreamPos>,
    state_before: Option<StateNid>,
    state_after: Option<StateNid>,
    redacted_by: Option<EventNid>,
}

impl Row {
    pub(super) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            nid: row.get(0)?,
            room: row.get(1)?,
            standing: row.get(2)?,
            pos: row.get(3)?,
            state_before: row.get(4)?,
            state_after: row.get(5)?,
            redacted_by: row.get(6)?,
        })
    }

    pub(super) fn with_pdu(self, snap: &Snapshot<'_>) -> Result<StoredEvent, StoreError> {
        let pdu = pdu(snap, self.nid)?;
        let Self { nid, room, standing, pos, state_before, state_after, redacted_by } = self;
        let standing = standing.0;
        Ok(StoredEvent { nid, room, pdu, standing, pos, state_before, state_after, redacted_by })
    }
}

/// Writes an event, or gives an unplaced one its place. Mostly it is new, so that is tried first:
/// one statement for both, with `RETURNING`, costs a temporary table.
pub(super) fn place(
    txn: &mut Txn<'_>,
    room: &Room,
    judged: &Judged,
    (pos, placement): (Option<StreamPos>, Option<Placement>),
) -> Result<EventNid, StoreError> {
    let pdu = judged.pdu();
    let new = txn.next_event_nid();
    let mut insert = txn.conn().prepare_cached(
        "INSERT INTO events (nid, event_id, room, depth, standing, pos, state_before, state_after, json)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (event_id) DO NOTHING",
    )?;
    let depth = i64::try_from(pdu.depth()).unwrap_or(i64::MAX);
    let inserted = insert.execute(params![
        new,
        pdu.event_id().as_str(),
        room.nid,
        depth,
        Column(judged.standing()),
        pos,
        placement.map(|placement| placement.state_before),
        placement.map(|placement| placement.state_after),
        pdu.json(),
    ])?;
    let nid = if inserted == 0 {
        place_known(txn, judged, (pos, placement))?
    } else {
        txn.note_newest(pos);
        new
    };
    if let Some(pos) = pos {
        txn.learn(Learned::Event(room.nid, pos));
    }
    if judged.standing() != Standing::Rejected {
        media_references::note(txn, room.nid, (pdu.sender().server_name(), pdu.content().get()))?;
    }
    if nid == new {
        remember(txn, nid, pdu);
    }
    Ok(nid)
}

/// Gives an event its place that is there without one.
fn place_known(
    txn: &Txn<'_>,
    judged: &Judged,
    (pos, placement): (Option<StreamPos>, Option<Placement>),
) -> Result<EventNid, StoreError> {
    let event_id = judged.pdu().event_id();
    let mut update = txn.conn().prepare_cached(
        "UPDATE events SET standing = ?2, pos = ?3, state_before = ?4, state_after = ?5
         WHERE event_id = ?1 AND pos IS NULL AND state_before IS NULL
         RETURNING nid",
    )?;
    let values = params![
        event_id.as_str(),
        Column(judged.standing()),
        pos,
        placement.map(|placement| placement.state_before),
        placement.map(|placement| placement.state_after),
    ];
    update
        .query_row(values, |row| row.get(0))
        .optional()?
        .ok_or_else(|| StoreError::Misuse(format!("{event_id} is placed already")))
}

/// Reads a column that holds a [`Standing`].
pub(super) fn standing(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Standing> {
    row.get::<_, Column>(column).map(|Column(standing)| standing)
}

/// `Standing` as a column.
struct Column(Standing);

impl ToSql for Column {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let value: i64 = match self.0 {
            Standing::Accepted => 0,
            Standing::SoftFailed => 1,
            Standing::Rejected => 2,
            Standing::Outlier => 3,
        };
        Ok(value.into())
    }
}

impl FromSql for Column {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_i64()? {
            0 => Ok(Self(Standing::Accepted)),
            1 => Ok(Self(Standing::SoftFailed)),
            2 => Ok(Self(Standing::Rejected)),
            3 => Ok(Self(Standing::Outlier)),
            other => Err(FromSqlError::OutOfRange(other)),
        }
    }
}
