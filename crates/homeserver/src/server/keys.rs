//! Our own `server_keys`, and those of others that we keep: anybody may have them, since anybody
//! can verify them (D2).

use messagehub_store::{StoreError, server_keys};
use ruma::OwnedServerName;
use serde_json::value::RawValue;

use crate::Homeserver;

/// Our own.
///
/// Spec: Server-Server API, "Publishing Keys".
pub fn own(hs: &Homeserver) -> Box<RawValue> {
    hs.identity.server_keys().json().to_owned()
}

/// Those of another server, as far as we know them.
///
/// # Errors
/// Fails when the database does.
///
/// Spec: Server-Server API, "Querying Keys Through Another Server".
pub async fn of(
    hs: &Homeserver,
    server: OwnedServerName,
) -> Result<Option<Box<RawValue>>, StoreError> {
    if server == hs.server_name() {
        return Ok(Some(own(hs)));
    }
    let found = hs.store.read(move |snap| server_keys::find(snap, &server)).await?;
    Ok(found.map(|keys| keys.json().to_owned()))
}
