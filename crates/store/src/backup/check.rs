//! What must be true of every database of ours.

use std::path::Path;

use messagehub_protocol::{
    pdu::{RawPdu, redacted},
    rules::rules_of,
};
use ruma::room_version_rules::RoomVersionRules;
use rusqlite::Connection;
use serde_json::value::RawValue;

use super::open_existing;
use crate::{
    Mode, OpenError, Room, Snapshot, StoreError, StreamPos, extremities, migrations, room_state,
    rooms, shared::Shared,
};

/// Problems reported at most: one is reason enough to go to a backup.
const MAX_PROBLEMS: usize = 100;

/// What a look at a database found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, in words; empty when all is well. The first 100.
    pub problems: Vec<String>,
    /// Rooms.
    pub rooms: u64,
    /// Events, outliers included.
    pub events: u64,
    /// The last position given out.
    pub position: i64,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    fn add(&mut self, problem: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem.into());
        }
    }
}

/// Counts that must be zero, and what another number means.
const MUST_BE_ZERO: &[(&str, &str)] = &[
    (
        "SELECT count(*) FROM events WHERE NOT EXISTS (SELECT 1 FROM rooms WHERE rooms.nid = room)",
        "events without their room",
    ),
    (
        "SELECT count(*) FROM events WHERE (state_before > 0 AND NOT EXISTS
             (SELECT 1 FROM state_nodes n WHERE n.nid = state_before >> 5))
         OR (state_after > 0 AND NOT EXISTS
             (SELECT 1 FROM state_nodes n WHERE n.nid = state_after >> 5))",
        "events whose room state is lost",
    ),
    (
        "SELECT count(*) FROM current_states WHERE root > 0 AND NOT EXISTS
             (SELECT 1 FROM state_nodes n WHERE n.nid = root >> 5)",
        "former room states that are lost",
    ),
    (
        "SELECT count(*) FROM events, positions WHERE pos = 0 OR pos < first OR pos > max(last,
             coalesce((SELECT pos FROM events ORDER BY nid DESC LIMIT 1), 0))",
        "events at a position never given out",
    ),
    (
        "SELECT count(*) FROM (SELECT pos FROM events WHERE pos IS NOT NULL
             GROUP BY pos HAVING count(*) > 1)",
        "positions given out twice",
    ),
    (
        "SELECT count(*) FROM events WHERE standing = 0 AND state_before IS NULL AND pos IS NULL",
        "accepted events without a place",
    ),
    (
        "SELECT count(*) FROM memberships WHERE event IS NOT NULL
             AND NOT EXISTS (SELECT 1 FROM events WHERE nid = event)",
        "memberships whose event is lost",
    ),
    (
        "SELECT count(*) FROM forward_extremities x WHERE x.event <> 0 AND NOT EXISTS
             (SELECT 1 FROM events e WHERE e.nid = x.event AND e.room = x.room)",
        "forward extremities that are lost or in another room",
    ),
    (
        "SELECT count(*) FROM pending_missing WHERE NOT EXISTS
             (SELECT 1 FROM pending_events WHERE nid = pending)",
        "gaps that no pending event has",
    ),
];

/// Looks at everything in the database of a data directory, and changes nothing.
///
/// # Errors
/// Fails when the file cannot be read at all; damage inside it is in the report.
pub fn check(dir: &Path) -> Result<Report, OpenError> {
    let conn = open_existing(dir)?;
    let mut report = Report::default();
    if let Err(error) = integrity(&conn, &mut report) {
        report.add(error.to_string());
    }
    let path = dir.join(crate::DATABASE_FILE);
    if migrations::check(&conn, &path)? < migrations::NEWEST {
        report.add("the schema is of an older version: start the node once, then check again");
        return Ok(report);
    }
    let shared = Shared::new(StreamPos::ZERO, Mode::Threaded);
    if let Err(error) = invariants(&Snapshot::committed(&conn, &shared), &mut report) {
        report.add(error.to_string());
    }
    Ok(report)
}

fn integrity(conn: &Connection, report: &mut Report) -> Result<(), rusqlite::Error> {
    let mut pragma = conn.prepare("PRAGMA integrity_check")?;
    let mut rows = pragma.query([])?;
    while let Some(row) = rows.next()? {
        let line: String = row.get(0)?;
        if line != "ok" {
            report.add(line);
        }
    }
    Ok(())
}

fn invariants(snap: &Snapshot<'_>, report: &mut Report) -> Result<(), StoreError> {
    report.position = snap.position()?.0;
    let count = |sql: &str| snap.conn().query_row(sql, [], |row| row.get::<_, i64>(0));
    report.events = count("SELECT count(*) FROM events")?.unsigned_abs();
    for (sql, meaning) in MUST_BE_ZERO {
        match count(sql) {
            Ok(0) => {}
            Ok(found) => report.add(format!("{found} {meaning}")),
            Err(error) => report.add(format!("cannot look for {meaning}: {error}")),
        }
    }
    for room in rooms::list(snap)? {
        report.rooms += 1;
        if let Err(error) = check_room(snap, &room, report) {
            report.add(format!("room {}: {error}", room.room_id));
        }
    }
    check_bytes(snap, report)
}

fn check_room(snap: &Snapshot<'_>, room: &Room, report: &mut Report) -> Result<(), StoreError> {
    let state = room_state::all(snap, room.state)?;
    if !state.is_empty() && extremities::list(snap, room.nid)?.is_empty() {
        report.add(format!("room {} has a state and no forward extremity", room.room_id));
    }
    if room.state != rooms::state_at(snap, room.nid, StreamPos(i64::MAX))? {
        report.add(format!("room {}: its current state is not the last one noted", room.room_id));
    }
    let mut exists = snap
        .conn()
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM events WHERE nid = ?1 AND room = ?2)")?;
    for (kind, state_key, event) in state {
        if !exists.query_row((event, room.nid), |row| row.get::<_, bool>(0))? {
            report.add(format!("room {}: the event of {kind} {state_key:?} is lost", room.room_id));
        }
    }
    Ok(())
}

/// Whether every event's bytes still are what was hashed.
fn check_bytes(snap: &Snapshot<'_>, report: &mut Report) -> Result<(), StoreError> {
    let mut select = snap.conn().prepare(
        "SELECT event_id, version, json FROM events
         JOIN (SELECT nid AS room_nid, version FROM rooms) ON room_nid = room",
    )?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (event_id, version, json): (String, String, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        let rules = version.try_into().ok().and_then(|version| rules_of(&version));
        match rules.and_then(|rules| is_as_hashed(&event_id, json, rules)) {
            Some(true) => {}
            Some(false) => report.add(format!("event {event_id}: its bytes have changed")),
            None => report.add(format!("event {event_id}: cannot be read")),
        }
    }
    Ok(())
}

/// The id covers everything but the content, and the content hash covers that; an event
/// that was stored redacted has lost what the hash was of, and nothing else.
fn is_as_hashed(event_id: &str, json: String, rules: &'static RoomVersionRules) -> Option<bool> {
    let raw = RawValue::from_string(json).ok()?;
    let event = RawPdu::new(raw).well_formed(rules).ok()?;
    if event.pdu().event_id() != event_id {
        return Some(false);
    }
    if event.content_hash_matches() {
        return Some(true);
    }
    Some(redacted(event.pdu(), rules, None).ok()?.json() == event.pdu().json())
}
