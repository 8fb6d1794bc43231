//! The schema, as numbered steps. A step that was released is never edited.

use rusqlite::{Connection, ErrorCode};
use std::path::Path;

use crate::OpenError;

/// `MsHb`: tells our files from those of other programs (`PRAGMA application_id`).
const APPLICATION_ID: i64 = 0x4d73_4862;

/// Step n brings `user_version` from n - 1 to n.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001_core.sql"),
    include_str!("../migrations/0002_accounts.sql"),
    include_str!("../migrations/0003_federation.sql"),
    include_str!("../migrations/0004_sync.sql"),
    include_str!("../migrations/0005_aliases.sql"),
    include_str!("../migrations/0006_joins.sql"),
    include_str!("../migrations/0007_heads.sql"),
    include_str!("../migrations/0008_ghost_joins.sql"),
    include_str!("../migrations/0009_rooms.sql"),
    include_str!("../migrations/0010_outbox.sql"),
    include_str!("../migrations/0011_users.sql"),
    include_str!("../migrations/0012_media.sql"),
    include_str!("../migrations/0013_fewer_pages.sql"),
    include_str!("../migrations/0014_early_invites.sql"),
];

/// The newest schema this program knows.
pub(crate) const NEWEST: i64 = MIGRATIONS.len() as i64;

/// Refuses files that are not ours, are damaged, or are newer than this program.
/// Returns the file's schema; 0 is an empty file. Changes nothing.
pub(crate) fn check(conn: &Connection, path: &Path) -> Result<i64, OpenError> {
    let damaged = |error| as_open_error(error, path);
    let found: i64 =
        conn.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(damaged)?;
    let application: i64 =
        conn.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(damaged)?;
    let objects: i64 = conn
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(damaged)?;
    if found == 0 && application == 0 && objects == 0 {
        return Ok(0);
    }
    if application != APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    if found > NEWEST {
        return Err(OpenError::Newer { found, known: NEWEST });
    }
    Ok(found)
}

/// Brings the file to the newest schema, each step in a transaction of its own.
pub(crate) fn run(conn: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let found = check(conn, path)?;
    for (step, sql) in (1i64..).zip(MIGRATIONS).filter(|(step, _)| *step > found) {
        let txn = conn.transaction()?;
        txn.execute_batch(sql)?;
        txn.pragma_update(None, "application_id", APPLICATION_ID)?;
        txn.pragma_update(None, "user_version", step)?;
        txn.commit()?;
    }
    Ok(())
}

/// Tells damage from every other failure.
pub(crate) fn as_open_error(error: rusqlite::Error, path: &Path) -> OpenError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            OpenError::Damaged { path: path.to_owned(), reason: error.to_string() }
        }
        _ => OpenError::Sqlite(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of an older schema.
    fn of_schema(path: &Path, version: usize) -> Connection {
        let conn = Connection::open(path).unwrap();
        for sql in &MIGRATIONS[..version] {
            conn.execute_batch(sql).unwrap();
        }
        conn.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        conn.pragma_update(None, "user_version", version as i64).unwrap();
        conn
    }

    #[test]
    fn extremities_keep_the_rows_that_say_more_than_the_timeline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let mut conn = of_schema(&path, 6);
        // Room 1 ends in its newest event, room 2 in an older one, room 3 in two, room 4 in none;
        // room 5 is only known of.
        conn.execute_batch(
            "INSERT INTO events (nid, event_id, room, depth, standing, pos, json)
             SELECT value, '$' || value, (value + 1) / 2, 1, 0, value, '{}'
             FROM json_each('[1, 2, 3, 4, 5, 6, 7, 8]');
             INSERT INTO events (nid, event_id, room, depth, standing, json)
             VALUES (9, '$9', 5, 1, 3, '{}');
             INSERT INTO forward_extremities VALUES (1, 2), (2, 3), (3, 5), (3, 6);",
        )
        .unwrap();
        run(&mut conn, &path).unwrap();
        let mut select =
            conn.prepare("SELECT room, event FROM forward_extremities ORDER BY 1, 2").unwrap();
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let rows: Vec<(i64, i64)> = rows.map(Result::unwrap).collect();
        assert_eq!(rows, [(2, 3), (3, 5), (3, 6), (4, 0)]);
    }
}
