//! Taking the keys of a device.
//!
//! Spec: Client-Server API, "Uploading keys".

use std::collections::BTreeMap;

use messagehub_store::{
    StoreError, Txn, cross_signing, device_keys,
    one_time_keys::{self, Added, Key, MAX_ONE_TIME_KEYS},
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedOneTimeKeyId, ServerName, encryption, encryption::OneTimeKey,
    serde::Raw,
};

use super::{
    MAX_KEY_BYTES,
    device_lists::{self, Change},
};
use crate::{Homeserver, sessions::Session};

/// Algorithms for which a device may have a fallback key: there is one today.
const MAX_FALLBACK_KEYS: usize = 8;

/// What a device uploads.
#[derive(Debug, Default)]
pub struct Upload {
    /// Its identity keys.
    pub device_keys: Option<Raw<encryption::DeviceKeys>>,
    /// Keys for one use.
    pub one_time_keys: BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>,
    /// Keys for when there are none of these left.
    pub fallback_keys: BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>,
}

/// Why keys were not taken.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The identity keys name another user or device than the one that uploads them.
    #[error("the keys are of another user or device")]
    NotYours,
    /// A key is not what the specification says, or too large.
    #[error("a key is malformed or too large: {0}")]
    Malformed(String),
    /// There is another key of that id.
    #[error("there is another one-time key with the id {0}")]
    Conflict(String),
    /// More keys than a device can need.
    #[error("a device has at most {MAX_ONE_TIME_KEYS} one-time keys")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How many one-time keys of each algorithm wait to be handed out.
pub type Counts = BTreeMap<String, u64>;

/// Takes the keys of a device, all or none, and tells how many one-time keys it has.
///
/// # Errors
/// See [`UploadError`].
pub async fn upload(
    hs: &Homeserver,
    session: &Session,
    upload: Upload,
) -> Result<Counts, UploadError> {
    let device_keys = upload.device_keys.map(|keys| checked(session, keys)).transpose()?;
    let one_time_keys = keys(upload.one_time_keys)?;
    let fallback_keys = keys(upload.fallback_keys)?;
    if fallback_keys.len() > MAX_FALLBACK_KEYS {
        return Err(UploadError::TooMany);
    }
    let (us, now, session) = (hs.server_name().to_owned(), hs.clock.now(), session.clone());
    let (counts, changed) = hs
        .store
        .write(move |txn| {
            let device = (&*session.user_id, &*session.device_id);
            let changed = match device_keys {
                Some(keys) => set_device_keys(txn, &us, &session, (&keys, now))?,
                None => false,
            };
            for key in &one_time_keys {
                if one_time_keys::insert(txn, device, key)? == Added::Conflict {
                    return Err(UploadError::Conflict(key.key_id.clone()));
                }
            }
            for key in &fallback_keys {
                one_time_keys::set_fallback(txn, device, key)?;
            }
            let counts = one_time_keys::count(txn, device)?;
            if counts.values().sum::<u64>() > MAX_ONE_TIME_KEYS {
                return Err(UploadError::TooMany);
            }
            Ok((counts, changed))
        })
        .await?;
    if changed {
        hs.peers.wake();
    }
    Ok(counts)
}

/// Gives whether the keys are new: a client may repeat an upload whose answer it did not get.
fn set_device_keys(
    txn: &mut Txn<'_>,
    us: &ServerName,
    session: &Session,
    (keys, now): (&Raw<encryption::DeviceKeys>, MilliSecondsSinceUnixEpoch),
) -> Result<bool, StoreError> {
    let Session { user_id, device_id } = session;
    let known = device_keys::find(txn, user_id, device_id)?;
    if known.is_some_and(|known| known.get() == keys.json().get()) {
        return Ok(false);
    }
    // They were made on the keys that are replaced.
    cross_signing::remove_signatures(txn, (user_id, device_id.as_str()))?;
    device_keys::set(txn, user_id, device_id, Some(keys.json()))?;
    device_lists::changed(txn, us, (user_id, Change::Updated(device_id)), now)?;
    Ok(true)
}

fn checked(
    session: &Session,
    keys: Raw<encryption::DeviceKeys>,
) -> Result<Raw<encryption::DeviceKeys>, UploadError> {
    let malformed = |error: serde_json::Error| UploadError::Malformed(error.to_string());
    if keys.json().get().len() > MAX_KEY_BYTES {
        return Err(UploadError::Malformed("too large".to_owned()));
    }
    let read = keys.deserialize().map_err(malformed)?;
    if read.user_id != session.user_id || read.device_id != session.device_id {
        return Err(UploadError::NotYours);
    }
    Ok(keys)
}

fn keys(keys: BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>) -> Result<Vec<Key>, UploadError> {
    let key = |(id, key): (OwnedOneTimeKeyId, Raw<OneTimeKey>)| {
        let malformed = |error: serde_json::Error| UploadError::Malformed(error.to_string());
        if id.as_str().len() + key.json().get().len() > MAX_KEY_BYTES {
            return Err(UploadError::Malformed("too large".to_owned()));
        }
        key.deserialize().map_err(malformed)?;
        Ok(Key {
            algorithm: id.algorithm().to_string(),
            key_id: id.key_name().to_string(),
            key: key.into_json(),
        })
    };
    keys.into_iter().map(key).collect()
}
