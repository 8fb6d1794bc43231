//! Taking signatures on keys: of a user on their own devices and master key, and on the master
//! keys of others.
//!
//! Spec: Client-Server API, "POST /keys/signatures/upload".

use std::collections::BTreeMap;

use messagehub_protocol::{canonical, signed_json};
use messagehub_store::{
    Snapshot, StoreError, Txn,
    cross_signing::{self as rows, NewSignature, Usage},
    device_keys,
};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedUserId, ServerName, UserId};
use serde_json::value::RawValue;

use super::{
    MAX_KEY_BYTES,
    device_lists::{self, Change},
};
use crate::Homeserver;

/// Signatures that one user may leave here: one for each person and device they ever vouched for.
const MAX_SIGNATURES: u64 = 10_000;

/// Signed objects: user → device id or public key → object.
pub type Signed = BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>>;

/// Why one signature was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such key, or the object is not what it is.
    #[error("there is no such key")]
    UnknownKey,
    /// The signature is not by a key that may sign this one.
    #[error("the signature is missing or wrong")]
    InvalidSignature,
    /// The user has left too many.
    #[error("there are too many signatures")]
    TooMany,
}

/// What was not taken.
pub type Failures = BTreeMap<OwnedUserId, BTreeMap<String, Refused>>;

/// Takes signatures that a local user made, and tells which were not taken.
///
/// # Errors
/// The store failed.
pub async fn upload(
    hs: &Homeserver,
    signer: &UserId,
    signed: Signed,
) -> Result<Failures, StoreError> {
    let (us, now, signer) = (hs.server_name().to_owned(), hs.clock.now(), signer.to_owned());
    let failures = hs
        .store
        .write(move |txn| {
            let mut failures = Failures::new();
            for (user_id, objects) in signed {
                for (name, object) in objects {
                    let target = (&*user_id, &*name, &*object);
                    if let Err(refused) = take(txn, (&us, &signer), target, now)? {
                        failures.entry(user_id.clone()).or_default().insert(name, refused);
                    }
                }
            }
            Ok::<_, StoreError>(failures)
        })
        .await?;
    hs.peers.wake();
    Ok(failures)
}

/// What a key is to its owner.
enum Target {
    Device(Box<RawValue>),
    Master(Box<RawValue>),
}

fn take(
    txn: &mut Txn<'_>,
    (us, signer): (&ServerName, &UserId),
    (user_id, name, object): (&UserId, &str, &RawValue),
    now: MilliSecondsSinceUnixEpoch,
) -> Result<Result<(), Refused>, StoreError> {
    let Some(target) = find(txn, user_id, name)? else { return Ok(Err(Refused::UnknownKey)) };
    let (Target::Device(known) | Target::Master(known)) = &target;
    let form = signed_json::signed_form(object.get()).ok();
    if object.get().len() > MAX_KEY_BYTES
        || form.is_none()
        || form != signed_json::signed_form(known.get()).ok()
    {
        return Ok(Err(Refused::UnknownKey));
    }
    let form = form.unwrap_or_default();
    let made = signatures_by(signer, object);
    let mut new = false;
    let mut taken = false;
    for (key_id, signature) in &made {
        let Some(public_key) = key_for(txn, signer, user_id, (&target, key_id))? else { continue };
        if !signed_json::verifies(&form, signature, &public_key) {
            return Ok(Err(Refused::InvalidSignature));
        }
        if rows::count_signatures(txn, signer)? >= MAX_SIGNATURES {
            return Ok(Err(Refused::TooMany));
        }
        let signature =
            NewSignature { target: (user_id, name), signer: (signer, key_id), signature };
        new |= rows::sign(txn, signature)?;
        taken = true;
    }
    if !taken {
        return Ok(Err(Refused::InvalidSignature));
    }
    if new && signer == user_id {
        match target {
            Target::Device(_) => {
                device_lists::changed(txn, us, (user_id, Change::Updated(name.into())), now)?;
            }
            Target::Master(_) => device_lists::signing_keys_changed(txn, us, user_id, now)?,
        }
    }
    Ok(Ok(()))
}

/// The key that a name stands for.
fn find(snap: &Snapshot<'_>, user_id: &UserId, name: &str) -> Result<Option<Target>, StoreError> {
    if let Some(keys) = device_keys::find(snap, user_id, name.into())? {
        return Ok(Some(Target::Device(keys)));
    }
    let master = rows::find(snap, user_id, Usage::Master)?;
    Ok(master.filter(|key| key.public_key == name).map(|key| Target::Master(key.json)))
}

/// The public part of a key of the signer, if it is one that signs such targets: their self-signing
/// key the own devices, a device the own master key, their user-signing key the master keys of
/// others.
fn key_for(
    snap: &Snapshot<'_>,
    signer: &UserId,
    owner: &UserId,
    (target, key_id): (&Target, &str),
) -> Result<Option<String>, StoreError> {
    let Some(name) = key_id.strip_prefix("ed25519:") else { return Ok(None) };
    let cross_signing = |usage| {
        let key = rows::find(snap, signer, usage)?;
        Ok(key.map(|key| key.public_key).filter(|public_key| public_key == name))
    };
    match target {
        Target::Device(_) if signer == owner => cross_signing(Usage::SelfSigning),
        Target::Device(_) => Ok(None),
        Target::Master(_) if signer == owner => {
            let keys = device_keys::find(snap, signer, name.into())?;
            Ok(keys.and_then(|keys| device_public_key(&keys, key_id)))
        }
        Target::Master(_) => cross_signing(Usage::UserSigning),
    }
}

fn device_public_key(keys: &RawValue, key_id: &str) -> Option<String> {
    let object = canonical::parse_object(keys.get().as_bytes()).ok()?;
    object.get("keys")?.as_object()?.get(key_id)?.as_str().map(str::to_owned)
}

/// The signatures that one user made on an object: key id → signature.
fn signatures_by(signer: &UserId, object: &RawValue) -> BTreeMap<String, String> {
    let Ok(object) = canonical::parse_object(object.get().as_bytes()) else {
        return BTreeMap::new();
    };
    let by_key = object
        .get("signatures")
        .and_then(|signatures| signatures.as_object()?.get(signer.as_str())?.as_object());
    let pairs = by_key.into_iter().flatten();
    pairs
        .filter_map(|(key_id, signature)| Some((key_id.clone(), signature.as_str()?.to_owned())))
        .collect()
}
