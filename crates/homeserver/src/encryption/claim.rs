//! Handing out keys for one use: each once, here and for other servers.
//!
//! Spec: Client-Server API, "POST /keys/claim"; Server-Server API, "POST /user/keys/claim".

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, stream};
use messagehub_store::{StoreError, Txn, one_time_keys, sharing};
use ruma::{
    OneTimeKeyAlgorithm, OwnedDeviceId, OwnedOneTimeKeyId, OwnedServerName, OwnedUserId,
    api::federation::keys::claim_keys, encryption::OneTimeKey, serde::Raw,
};

use super::{MAX_KEY_BYTES, MAX_SERVERS_AT_ONCE, timeout};
use crate::{Homeserver, federation};

/// For each user and device, the algorithm of the key that is wanted.
pub type Claims = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, OneTimeKeyAlgorithm>>;

/// For each user and device, the key.
pub type Claimed =
    BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>>>;

/// Keys claimed in one request: more devices than any room's members have at once.
const MAX_CLAIMS: usize = 10_000;

/// Keys, and the servers that gave none because they cannot be reached.
#[derive(Debug, Default)]
pub struct Answer {
    /// The keys. What is not there is missing.
    pub keys: Claimed,
    /// Servers that did not answer.
    pub unreachable: Vec<OwnedServerName>,
}

/// Claims keys for a local user, here and from other servers.
///
/// # Errors
/// The store failed.
pub async fn claim(
    hs: &Homeserver,
    claims: Claims,
    wait: Option<Duration>,
) -> Result<Answer, StoreError> {
    let mut by_server: BTreeMap<OwnedServerName, Claims> = BTreeMap::new();
    for (user_id, devices) in claims {
        let server = user_id.server_name().to_owned();
        by_server.entry(server).or_default().insert(user_id, devices);
    }
    let mut answer = Answer::default();
    if let Some(ours) = by_server.remove(hs.server_name()) {
        answer.keys = hs.store.write(move |txn| take(txn, ours)).await?;
    }
    let wait = timeout(wait);
    let asked = stream::iter(by_server).map(|(server, claims)| async move {
        let request = claim_keys::v1::Request::new(claims.clone());
        let answer = federation::ask(hs, &server, request, wait).await;
        (server, claims, answer)
    });
    let answers: Vec<_> = asked.buffer_unordered(MAX_SERVERS_AT_ONCE).collect().await;
    for (server, claims, told) in answers {
        match told {
            Ok(told) => answer.keys.extend(asked_for(&claims, told.one_time_keys)),
            Err(error) => {
                tracing::debug!(%server, %error, "keys could not be claimed");
                answer.unreachable.push(server);
            }
        }
    }
    answer.unreachable.sort();
    Ok(answer)
}

/// Hands out keys of local users to another server: of those who have to do with it, since whoever
/// claims all keys of somebody else weakens what strangers begin with them.
///
/// # Errors
/// The store failed.
pub async fn for_server(
    hs: &Homeserver,
    origin: OwnedServerName,
    mut claims: Claims,
) -> Result<Claimed, StoreError> {
    claims.retain(|user_id, _| hs.identity.is_local(user_id));
    hs.store
        .write(move |txn| {
            let mut allowed = Claims::new();
            for (user_id, devices) in claims {
                if sharing::is_user_known_to(txn, &user_id, &origin)? {
                    allowed.insert(user_id, devices);
                }
            }
            take(txn, allowed)
        })
        .await
}

fn take(txn: &mut Txn<'_>, claims: Claims) -> Result<Claimed, StoreError> {
    let mut claimed = Claimed::new();
    let wanted = claims.into_iter().flat_map(|(user_id, devices)| {
        devices.into_iter().map(move |(device, algorithm)| (user_id.clone(), device, algorithm))
    });
    for (user_id, device_id, algorithm) in wanted.take(MAX_CLAIMS) {
        let found = one_time_keys::claim(txn, (&user_id, &device_id), algorithm.as_str())?;
        let Some(key) = found else { continue };
        let id = OwnedOneTimeKeyId::try_from(format!("{}:{}", key.algorithm, key.key_id))
            .map_err(|error| StoreError::Damaged(error.to_string()))?;
        let of_device = BTreeMap::from([(id, Raw::from_json(key.key))]);
        claimed.entry(user_id).or_default().insert(device_id, of_device);
    }
    Ok(claimed)
}

/// What was asked for, of what another server says.
fn asked_for(claims: &Claims, told: Claimed) -> Claimed {
    let mut kept = Claimed::new();
    for (user_id, devices) in told {
        let Some(wanted) = claims.get(&user_id) else { continue };
        let devices = devices.into_iter().filter_map(|(device_id, keys)| {
            let algorithm = wanted.get(&device_id)?;
            let key = keys.into_iter().find(|(id, key)| {
                id.algorithm() == *algorithm && key.json().get().len() <= MAX_KEY_BYTES
            })?;
            Some((device_id, BTreeMap::from([key])))
        });
        kept.insert(user_id, devices.collect());
    }
    kept
}
