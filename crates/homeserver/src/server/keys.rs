//! Our own `server_keys`, and those of others that we keep: anybody may have them, since anybody
//! can verify them (D2).

use std::collections::BTreeMap;

use messagehub_protocol::{build::Signer, keys::VerifyKey, server_keys::ServerKeys};
use messagehub_store::{StoreError, server_keys};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName,
    api::federation::discovery::get_server_keys::v2 as ask_keys,
};
use serde_json::value::RawValue;

use crate::{
    Homeserver,
    federation::{self, ASK_TIMEOUT, keys},
};

/// Servers that one request may ask about; each costs a signature of ours.
const MAX_QUERIED: usize = 100;

/// Servers that are asked for newer keys for the sake of one request, which anybody may make.
const MAX_ASKED: usize = 3;

/// Our own.
///
/// Spec: Server-Server API, "Publishing Keys".
pub fn own(hs: &Homeserver) -> Box<RawValue> {
    hs.identity.server_keys().json().to_owned()
}

/// Signs with another key from now on. What says so is kept, and goes with whatever is said next:
/// within a minute every member that is connected has heard of it.
///
/// The seed of the key must be where the next start finds it, and that of the old one gone.
///
/// # Errors
/// Fails when the database does; the new key signs all the same, and the next start says so again.
pub async fn rotate(hs: &Homeserver, verify_key: VerifyKey) -> Result<(), StoreError> {
    let own = hs.identity.rotate(verify_key, hs.clock.now());
    tracing::info!(key_id = %hs.identity.verify_key().key_id(), "another key signs from now on");
    hs.store.write(move |txn| server_keys::put_if_newer(txn, &own)).await.map(drop)
}

/// Those of other servers, as far as we know them, with our signature beside theirs. Where ours
/// are not valid for as long as is wanted, a server that is connected is asked for newer ones.
///
/// # Errors
/// Fails when the database does.
///
/// Spec: Server-Server API, "Querying Keys Through Another Server".
pub async fn notarised(
    hs: &Homeserver,
    wanted: BTreeMap<OwnedServerName, Option<MilliSecondsSinceUnixEpoch>>,
) -> Result<Vec<Box<RawValue>>, StoreError> {
    let mut found = Vec::new();
    let mut asked = 0;
    for (server, until) in wanted.into_iter().take(MAX_QUERIED) {
        if server == hs.server_name() {
            found.push(own(hs));
            continue;
        }
        let until = until.unwrap_or_else(|| hs.clock.now());
        let mut keys = known(hs, &server).await?;
        let is_good = keys.as_ref().is_some_and(|keys| keys.valid_until_ts() >= until);
        if !is_good && asked < MAX_ASKED && hs.peers.is_connected(&server) {
            asked += 1;
            keys = ask(hs, &server).await?.or(keys);
        }
        let signer = Signer { server: hs.server_name(), key: hs.identity.verify_key() };
        match keys.map(|keys| keys.countersigned(signer)).transpose() {
            Ok(signed) => found.extend(signed),
            Err(error) => tracing::warn!(%server, %error, "known keys cannot be signed"),
        }
    }
    Ok(found)
}

async fn known(hs: &Homeserver, server: &ServerName) -> Result<Option<ServerKeys>, StoreError> {
    let server = server.to_owned();
    hs.store.read(move |snap| server_keys::find(snap, &server)).await
}

/// Asks a server for its keys, keeps them if they are newer, and gives what is known then.
async fn ask(hs: &Homeserver, server: &ServerName) -> Result<Option<ServerKeys>, StoreError> {
    match federation::ask(hs, server, ask_keys::Request::new(), ASK_TIMEOUT).await {
        Ok(answer) => {
            keys::learn(hs, &[answer.server_key.into_json()]).await?;
            known(hs, server).await
        }
        Err(error) => {
            tracing::debug!(%server, %error, "a server does not give its keys");
            Ok(None)
        }
    }
}
