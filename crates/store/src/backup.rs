//! A copy of the database while it is in use, and a thorough look at one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, backup::Backup};

use crate::{DATABASE_FILE, OpenError, migrations, store::open_reader};

mod check;

pub use check::{Report, check};

/// Copies the database of a data directory into a new file, as of one moment; the node
/// may be running. Media are ordinary files beside it and are not part of it.
///
/// # Errors
/// Fails when `target` exists, or when the database cannot be read or the copy not written.
pub fn backup(dir: &Path, target: &Path) -> Result<(), OpenError> {
    if target.exists() {
        return Err(OpenError::Exists { path: target.to_owned() });
    }
    let source = open_existing(dir)?;
    let partial = with_suffix(target, ".partial");
    let io = |source| OpenError::Io { path: partial.clone(), source };
    // What an interrupted backup left is worth nothing.
    if partial.exists() {
        fs::remove_file(&partial).map_err(io)?;
    }
    copy(&source, &partial)?;
    fs::rename(&partial, target).map_err(|source| OpenError::Io { path: target.to_owned(), source })
}

fn copy(source: &Connection, target: &Path) -> Result<(), OpenError> {
    let mut copy = Connection::open(target)?;
    // All pages in one step: one read snapshot, which no write can restart.
    Backup::new(source, &mut copy)?.step(-1)?;
    // One file, without a log beside it.
    copy.pragma_update(None, "journal_mode", "DELETE")?;
    copy.close().map_err(|(_, error)| error)?;
    fs::File::open(target)
        .and_then(|file| file.sync_all())
        .map_err(|source| OpenError::Io { path: target.to_owned(), source })
}

/// Opens the database of a data directory to read it; it must be there and be ours.
fn open_existing(dir: &Path) -> Result<Connection, OpenError> {
    let path = dir.join(DATABASE_FILE);
    if !path.exists() {
        return Err(OpenError::Missing { path });
    }
    let conn = open_reader(&path).map_err(|error| match error {
        OpenError::Sqlite(error) => migrations::as_open_error(error, &path),
        other => other,
    })?;
    migrations::check(&conn, &path)?;
    Ok(conn)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
