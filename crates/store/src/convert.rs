//! Column values that are not SQLite's own types.

use ruma::{MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedUserId, UInt};
use rusqlite::{Row, types::Type};
use serde_json::value::RawValue;

/// A point in time as an integer column. Every value fits: a `UInt` has 53 bits.
pub(crate) fn millis(ts: MilliSecondsSinceUnixEpoch) -> i64 {
    i64::from(ts.get())
}

/// Reads what [`millis`] wrote; a value out of range reads as the epoch.
pub(crate) fn read_millis(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<MilliSecondsSinceUnixEpoch> {
    let value: i64 = row.get(column)?;
    Ok(MilliSecondsSinceUnixEpoch(UInt::try_from(value).unwrap_or_default()))
}

/// Reads a user id; one that does not parse is a damaged database.
pub(crate) fn user_id(row: &Row<'_>, column: usize) -> rusqlite::Result<OwnedUserId> {
    let text: String = row.get(column)?;
    OwnedUserId::try_from(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    })
}

/// Reads a room id; one that does not parse is a damaged database.
pub(crate) fn room_id(row: &Row<'_>, column: usize) -> rusqlite::Result<OwnedRoomId> {
    let text: String = row.get(column)?;
    OwnedRoomId::try_from(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    })
}

/// Reads JSON that was checked before it was stored; else the database is damaged.
pub(crate) fn json(row: &Row<'_>, column: usize) -> rusqlite::Result<Box<RawValue>> {
    parse_json(row.get(column)?, column)
}

/// As [`json`], where there may be none.
pub(crate) fn optional_json(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<Option<Box<RawValue>>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| parse_json(text, column)).transpose()
}

fn parse_json(text: String, column: usize) -> rusqlite::Result<Box<RawValue>> {
    RawValue::from_string(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    })
}
