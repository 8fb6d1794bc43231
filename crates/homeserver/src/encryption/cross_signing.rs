//! The keys with which users vouch for their own devices and for each other.
//!
//! Spec: Client-Server API, "Cross-signing".

use messagehub_protocol::{canonical, signed_json};
use messagehub_store::{
    Snapshot, StoreError, Txn,
    cross_signing::{self as rows, CrossSigningKey},
    devices,
};
use ruma::{
    UserId,
    encryption::{self, KeyUsage},
    serde::Raw,
};

use super::{MAX_KEY_BYTES, device_lists, merge};
use crate::{
    Homeserver,
    sessions::Session,
    uia::{self, Proof, UiaError},
};

pub(crate) use messagehub_store::cross_signing::Usage;

/// The keys that a user uploads, each of which may be absent.
#[derive(Debug, Default)]
pub struct Upload {
    /// Signs the two others.
    pub master: Option<Raw<encryption::CrossSigningKey>>,
    /// Signs the user's devices.
    pub self_signing: Option<Raw<encryption::CrossSigningKey>>,
    /// Signs the master keys of others.
    pub user_signing: Option<Raw<encryption::CrossSigningKey>>,
}

/// Why keys were not taken.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The user has to prove once more who they are.
    #[error(transparent)]
    Uia(#[from] UiaError),
    /// A key is not what the specification says, or of another user.
    #[error("a key is malformed: {0}")]
    Malformed(String),
    /// There is no master key to check the others with.
    #[error("there is no master key")]
    NoMaster,
    /// The master key did not sign it.
    #[error("the master key did not sign the key")]
    InvalidSignature,
    /// A device of the user has the same name as the key.
    #[error("a device has the id of the key")]
    InUse,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Takes the cross-signing keys of a local user. The first ones need no proof, and the same ones
/// again neither; to replace keys does.
///
/// Spec: Client-Server API, "POST /keys/device_signing/upload".
///
/// # Errors
/// See [`UploadError`].
pub async fn upload(
    hs: &Homeserver,
    session: &Session,
    upload: Upload,
    proof: Option<Proof>,
) -> Result<(), UploadError> {
    let mut keys = Vec::new();
    for (usage, key) in [
        (Usage::Master, upload.master),
        (Usage::SelfSigning, upload.self_signing),
        (Usage::UserSigning, upload.user_signing),
    ] {
        if let Some(key) = key {
            keys.push((usage, checked(&session.user_id, usage, &key)?));
        }
    }
    let (user_id, wanted) = (session.user_id.clone(), keys.clone());
    let replaces = hs.store.read(move |snap| judge(snap, &user_id, &wanted)).await?;
    if replaces == Replaces::Keys {
        uia::confirm(hs, session, proof).await?;
    }
    let (us, now, user_id) = (hs.server_name().to_owned(), hs.clock.now(), session.user_id.clone());
    let changed = hs
        .store
        .write(move |txn| {
            // Somebody may have uploaded others meanwhile, which nothing was proved for.
            if judge(txn, &user_id, &keys)? == Replaces::Keys && replaces == Replaces::Nothing {
                return Ok(None);
            }
            let changed = set_all(txn, &user_id, &keys)?;
            if changed {
                device_lists::signing_keys_changed(txn, &us, &user_id, now)?;
            }
            Ok::<_, UploadError>(Some(changed))
        })
        .await?;
    match changed {
        Some(true) => hs.peers.wake(),
        Some(false) => {}
        None => uia::confirm(hs, session, None).await?,
    }
    Ok(())
}

/// Whether an upload replaces anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replaces {
    /// There was no master key, or all of it is there.
    Nothing,
    /// It does.
    Keys,
}

/// Checks keys against each other and against what is there.
fn judge(
    snap: &Snapshot<'_>,
    user_id: &UserId,
    keys: &[(Usage, CrossSigningKey)],
) -> Result<Replaces, UploadError> {
    let master = rows::find(snap, user_id, Usage::Master)?;
    let mut all_there = true;
    for (usage, key) in keys {
        let known = rows::find(snap, user_id, *usage)?;
        all_there &= known.is_some_and(|known| known.public_key == key.public_key);
        if devices::find(snap, user_id, (&*key.public_key).into())?.is_some() {
            return Err(UploadError::InUse);
        }
    }
    let new_master = keys.iter().find(|(usage, _)| *usage == Usage::Master).map(|(_, key)| key);
    let signer = new_master.or(master.as_ref()).ok_or(UploadError::NoMaster)?;
    for (_, key) in keys.iter().filter(|(usage, _)| *usage != Usage::Master) {
        if !has_signed(user_id, &signer.public_key, key.json.get()) {
            return Err(UploadError::InvalidSignature);
        }
    }
    Ok(if master.is_none() || all_there { Replaces::Nothing } else { Replaces::Keys })
}

fn set_all(
    txn: &mut Txn<'_>,
    user_id: &UserId,
    keys: &[(Usage, CrossSigningKey)],
) -> Result<bool, StoreError> {
    let mut changed = false;
    for (usage, key) in keys {
        let known = rows::find(txn, user_id, *usage)?;
        match &known {
            Some(known) if known.json.get() == key.json.get() => continue,
            Some(known) if known.public_key != key.public_key => {
                rows::remove_signatures(txn, (user_id, &known.public_key))?;
            }
            _ => {}
        }
        rows::set(txn, user_id, *usage, key)?;
        changed = true;
    }
    Ok(changed)
}

/// Writes keys of a user of another server, as far as they are what the specification says.
///
/// # Errors
/// Fails when the database does.
pub(super) fn set_remote(
    txn: &mut Txn<'_>,
    user_id: &UserId,
    master: Option<&Raw<encryption::CrossSigningKey>>,
    self_signing: Option<&Raw<encryption::CrossSigningKey>>,
) -> Result<(), StoreError> {
    let given = [(Usage::Master, master), (Usage::SelfSigning, self_signing)];
    for (usage, key) in given {
        let Some(key) = key.and_then(|key| checked(user_id, usage, key).ok()) else { continue };
        let known = rows::find(txn, user_id, usage)?;
        if let Some(known) = known.filter(|known| known.public_key != key.public_key) {
            rows::remove_signatures(txn, (user_id, &known.public_key))?;
        }
        rows::set(txn, user_id, usage, &key)?;
    }
    Ok(())
}

/// A key of a user, with the signatures that the viewer may see.
///
/// # Errors
/// Fails when the database does.
pub(super) fn shown(
    snap: &Snapshot<'_>,
    user_id: &UserId,
    usage: Usage,
    viewer: Option<&UserId>,
) -> Result<Option<Raw<encryption::CrossSigningKey>>, StoreError> {
    let Some(key) = rows::find(snap, user_id, usage)? else { return Ok(None) };
    merge::shown(snap, (user_id, &key.public_key, &key.json), viewer, None).map(Some)
}

/// Whether a user's key, named by its public part, signed an object.
pub(super) fn has_signed(user_id: &UserId, public_key: &str, json: &str) -> bool {
    let Ok(object) = canonical::parse_object(json.as_bytes()) else { return false };
    let Ok(form) = signed_json::signed_form(json) else { return false };
    let key_id = format!("ed25519:{public_key}");
    signed_json::signature_of(&object, user_id.as_str(), &key_id)
        .is_some_and(|signature| signed_json::verifies(&form, signature, public_key))
}

/// A key object that is what the specification says: of this user, for this use, with one key that
/// is its own name.
pub(super) fn checked(
    user_id: &UserId,
    usage: Usage,
    key: &Raw<encryption::CrossSigningKey>,
) -> Result<CrossSigningKey, UploadError> {
    let malformed = |what: &str| UploadError::Malformed(what.to_owned());
    if key.json().get().len() > MAX_KEY_BYTES {
        return Err(malformed("too large"));
    }
    let read = key.deserialize().map_err(|error| UploadError::Malformed(error.to_string()))?;
    if read.user_id != user_id {
        return Err(malformed("it is of another user"));
    }
    let wanted = match usage {
        Usage::Master => KeyUsage::Master,
        Usage::SelfSigning => KeyUsage::SelfSigning,
        Usage::UserSigning => KeyUsage::UserSigning,
    };
    if !read.usage.contains(&wanted) {
        return Err(malformed("it is for another use"));
    }
    let mut keys = read.keys.into_iter();
    let (Some((id, public_key)), None) = (keys.next(), keys.next()) else {
        return Err(malformed("it has not exactly one key"));
    };
    if id.as_str() != format!("ed25519:{public_key}") {
        return Err(malformed("its key is not its name"));
    }
    Ok(CrossSigningKey { public_key, json: key.json().to_owned() })
}
