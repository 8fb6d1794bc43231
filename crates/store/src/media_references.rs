//! Which rooms' events name which media: what decides who may have them.

use messagehub_protocol::wire::media;
use ruma::ServerName;
use rusqlite::params;
use serde_json::Value;

use crate::{RoomNid, Snapshot, StoreError, Txn, names};

/// Addresses taken of one event: more than any client puts into one.
const MAX_REFERENCES: usize = 16;

/// How an address begins.
const MXC: &str = "mxc://";

/// An address in an event's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The address.
    pub mxc: String,
    /// The SHA-256 that the event names for it, in unpadded base64 as it stands there.
    pub sha256: Option<String>,
}

/// Notes the media that an event names.
///
/// # Errors
/// Fails when the database does.
pub(crate) fn note(
    txn: &mut Txn<'_>,
    room: RoomNid,
    (sender, content): (&ServerName, &str),
) -> Result<(), StoreError> {
    // Most events name none, and are not read for it.
    if !content.contains(MXC) {
        return Ok(());
    }
    let found = references(content);
    if found.is_empty() {
        return Ok(());
    }
    let server = names::intern_server(txn, sender)?;
    for reference in found {
        let sha256 = reference.sha256.as_deref().and_then(media::read_sha256);
        txn.conn()
            .prepare_cached(
                "INSERT INTO media_references (mxc, room, server, sha256) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET sha256 = coalesce(sha256, excluded.sha256)",
            )?
            .execute(params![
                media::address_key(&reference.mxc),
                room,
                server,
                sha256.as_ref().map(<[u8; 32]>::as_slice)
            ])?;
    }
    Ok(())
}

/// The rooms whose events name an address, by whomever, or by whomever but the users of one server.
///
/// # Errors
/// Fails when the database does.
pub fn list_rooms(
    snap: &Snapshot<'_>,
    mxc: &str,
    besides: Option<&ServerName>,
) -> Result<Vec<RoomNid>, StoreError> {
    let besides = match besides {
        Some(server) => names::find_server(snap, server)?,
        None => None,
    };
    let rooms = snap
        .conn()
        .prepare_cached(
            "SELECT DISTINCT room FROM media_references WHERE mxc = ?1 AND server IS NOT ?2",
        )?
        .query_map((media::address_key(mxc), besides), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(rooms)
}

/// The hashes that events name for an address.
///
/// # Errors
/// Fails when the database does.
pub fn list_hashes(snap: &Snapshot<'_>, mxc: &str) -> Result<Vec<[u8; 32]>, StoreError> {
    let hashes = snap
        .conn()
        .prepare_cached(
            "SELECT DISTINCT sha256 FROM media_references
             WHERE mxc = ?1 AND sha256 IS NOT NULL",
        )?
        .query_map([media::address_key(mxc)], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(hashes)
}

/// Every `mxc://` address in some JSON, each once; where it stands as `url` beside `hashes`, with
/// the SHA-256 from there.
fn references(content: &str) -> Vec<Reference> {
    let mut found = Vec::new();
    if let Ok(value) = serde_json::from_str::<Value>(content) {
        collect(&value, None, &mut found);
    }
    found
}

fn collect(value: &Value, sha256: Option<&str>, found: &mut Vec<Reference>) {
    match value {
        Value::String(text) if text.starts_with(MXC) => {
            let sha256 = sha256.map(str::to_owned);
            if let Some(known) = found.iter_mut().find(|reference| reference.mxc == *text) {
                known.sha256 = known.sha256.take().or(sha256);
            } else if found.len() < MAX_REFERENCES {
                found.push(Reference { mxc: text.clone(), sha256 });
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, None, found)),
        Value::Object(fields) => {
            let named = fields.get("hashes").and_then(|hashes| hashes.get("sha256"));
            for (key, item) in fields {
                let sha256 = named.and_then(Value::as_str).filter(|_| key == "url");
                collect(item, sha256, found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_wherever_they_stand() {
        let content = r#"{"url":"mxc://a/1","info":{"thumbnail_url":"mxc://a/2"},
            "file":{"url":"mxc://a/3","hashes":{"sha256":"abc"}},"list":["mxc://a/1","text"],
            "body":"see mxc://a/4"}"#;
        let mut found: Vec<_> = references(content)
            .into_iter()
            .map(|reference| (reference.mxc, reference.sha256))
            .collect();
        found.sort();
        let plain = |mxc: &str| (mxc.to_owned(), None);
        assert_eq!(
            found,
            [
                plain("mxc://a/1"),
                plain("mxc://a/2"),
                ("mxc://a/3".to_owned(), Some("abc".to_owned()))
            ]
        );
    }

    #[test]
    fn one_event_names_a_bounded_number() {
        let many: Vec<String> = (0..100).map(|n| format!("mxc://a/{n}")).collect();
        let content = serde_json::to_string(&serde_json::json!({ "list": many })).unwrap();
        assert_eq!(references(&content).len(), MAX_REFERENCES);
        assert!(references("no json mxc://a/1").is_empty());
    }
}
