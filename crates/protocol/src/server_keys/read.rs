//! Verifying `server_keys` that came from anywhere.

use std::{collections::BTreeMap, sync::Arc};

use data_encoding::BASE64_NOPAD;
use ruma::{CanonicalJsonObject, CanonicalJsonValue, ServerName};

use super::{
    IDENTITY_KEY_ID, Inner, MAX_OLD_VERIFY_KEYS, MAX_PEER_IDS, MAX_SERVER_KEYS_BYTES,
    MAX_VERIFY_KEYS, OldKey, SERVER_KEYS_VALIDITY_MS, ServerKeys, ServerKeysError, raw,
};
use crate::{
    canonical::{parse_object, to_canonical},
    identity::public_key_of,
    keys::{PublicKey, SIGNATURE_BYTES},
};

/// How the text form of the PeerId of an Ed25519 key begins: base58 of a fixed prefix.
const PEER_ID_PREFIX: &str = "12D3KooW";

/// Characters of such a PeerId.
const PEER_ID_LEN: usize = 52;

/// Cheap checks first: size, form, name and times; then the signatures.
pub(super) fn verify(
    json: &str,
    expected: Option<&ServerName>,
) -> Result<ServerKeys, ServerKeysError> {
    if json.len() > MAX_SERVER_KEYS_BYTES {
        return Err(ServerKeysError::TooLarge);
    }
    let mut object = parse_object(json.as_bytes())?;
    let json = raw(&object);
    // The spec's signing algorithm would leave it out, so that anyone could change it.
    if object.contains_key("unsigned") {
        return Err(ServerKeysError::Field("unsigned"));
    }
    let server_name = server_name(&object)?;
    if expected.is_some_and(|expected| expected != server_name) {
        return Err(ServerKeysError::AnotherServer);
    }
    let identity = public_key_of(server_name)?;
    let server_name = server_name.to_owned();
    let (issued_ts, valid_until_ts) = times(&object)?;
    let verify_keys = verify_keys(&object)?;
    let old_verify_keys = old_verify_keys(&object)?;
    if old_verify_keys.keys().any(|id| verify_keys.contains_key(id)) {
        return Err(ServerKeysError::KeyId);
    }
    let peer_ids = peer_ids(&object)?;
    let signatures = object.remove("signatures").ok_or(ServerKeysError::Field("signatures"))?;
    let signatures = signatures_of(&server_name, &signatures)?;
    check_signatures(to_canonical(&object).as_bytes(), &identity, &verify_keys, signatures)?;
    Ok(ServerKeys(Arc::new(Inner {
        json,
        server_name,
        issued_ts,
        valid_until_ts,
        verify_keys,
        old_verify_keys,
        peer_ids,
    })))
}

fn server_name(object: &CanonicalJsonObject) -> Result<&ServerName, ServerKeysError> {
    let malformed = ServerKeysError::Field("server_name");
    let Some(name) = object.get("server_name").and_then(CanonicalJsonValue::as_str) else {
        return Err(malformed);
    };
    <&ServerName>::try_from(name).map_err(|_| malformed)
}

fn times(object: &CanonicalJsonObject) -> Result<(u64, u64), ServerKeysError> {
    let issued = time(object, "issued_ts")?;
    let valid_until = time(object, "valid_until_ts")?;
    let validity = valid_until.checked_sub(issued).ok_or(ServerKeysError::Times)?;
    if validity > SERVER_KEYS_VALIDITY_MS {
        return Err(ServerKeysError::Times);
    }
    Ok((issued, valid_until))
}

fn time(object: &CanonicalJsonObject, field: &'static str) -> Result<u64, ServerKeysError> {
    object
        .get(field)
        .and_then(CanonicalJsonValue::as_integer)
        .and_then(|integer| u64::try_from(i64::from(integer)).ok())
        .ok_or(ServerKeysError::Field(field))
}

fn verify_keys(
    object: &CanonicalJsonObject,
) -> Result<BTreeMap<String, PublicKey>, ServerKeysError> {
    let keys = map(object, "verify_keys", MAX_VERIFY_KEYS)?;
    if keys.is_empty() {
        return Err(ServerKeysError::Field("verify_keys"));
    }
    keys.iter().map(|(id, entry)| Ok((id.clone(), key(id, entry, "verify_keys")?))).collect()
}

fn old_verify_keys(
    object: &CanonicalJsonObject,
) -> Result<BTreeMap<String, OldKey>, ServerKeysError> {
    const FIELD: &str = "old_verify_keys";
    let read = |(id, entry): (&String, &CanonicalJsonValue)| {
        let key = key(id, entry, FIELD)?;
        let fields = entry.as_object().ok_or(ServerKeysError::Field(FIELD))?;
        Ok((id.clone(), OldKey { key, expired_ts: time(fields, "expired_ts")? }))
    };
    map(object, FIELD, MAX_OLD_VERIFY_KEYS)?.iter().map(read).collect()
}

fn map<'a>(
    object: &'a CanonicalJsonObject,
    field: &'static str,
    most: usize,
) -> Result<&'a CanonicalJsonObject, ServerKeysError> {
    let map = object
        .get(field)
        .and_then(CanonicalJsonValue::as_object)
        .ok_or(ServerKeysError::Field(field))?;
    if map.len() > most {
        return Err(ServerKeysError::TooMany(field));
    }
    Ok(map)
}

fn key(
    id: &str,
    entry: &CanonicalJsonValue,
    field: &'static str,
) -> Result<PublicKey, ServerKeysError> {
    let key = entry
        .as_object()
        .and_then(|fields| base64(fields.get("key")?))
        .and_then(|bytes: [u8; 32]| PublicKey::from_bytes(&bytes))
        .ok_or(ServerKeysError::Field(field))?;
    if key.key_id() != id {
        return Err(ServerKeysError::KeyId);
    }
    Ok(key)
}

fn peer_ids(object: &CanonicalJsonObject) -> Result<Vec<String>, ServerKeysError> {
    const FIELD: &str = "peer_ids";
    let list = object
        .get(FIELD)
        .and_then(CanonicalJsonValue::as_array)
        .ok_or(ServerKeysError::Field(FIELD))?;
    if list.len() > MAX_PEER_IDS {
        return Err(ServerKeysError::TooMany(FIELD));
    }
    let read = |id: &CanonicalJsonValue| {
        let id = id.as_str().filter(|id| is_peer_id(id));
        id.map(str::to_owned).ok_or(ServerKeysError::Field(FIELD))
    };
    list.iter().map(read).collect()
}

/// Whether a string has the form of the PeerId of an Ed25519 key.
fn is_peer_id(id: &str) -> bool {
    let base58 = |c: u8| c.is_ascii_alphanumeric() && !matches!(c, b'0' | b'O' | b'I' | b'l');
    id.len() == PEER_ID_LEN && id.starts_with(PEER_ID_PREFIX) && id.bytes().all(base58)
}

/// The signatures of the server itself; any other would be unsigned ballast that anyone could add.
fn signatures_of<'a>(
    server_name: &ServerName,
    signatures: &'a CanonicalJsonValue,
) -> Result<&'a CanonicalJsonObject, ServerKeysError> {
    signatures
        .as_object()
        .filter(|by_server| by_server.len() == 1)
        .and_then(|by_server| by_server.get(server_name.as_str())?.as_object())
        .ok_or(ServerKeysError::Field("signatures"))
}

fn check_signatures(
    signed: &[u8],
    identity: &PublicKey,
    verify_keys: &BTreeMap<String, PublicKey>,
    signatures: &CanonicalJsonObject,
) -> Result<(), ServerKeysError> {
    if signatures.len() != verify_keys.len() + 1 {
        return Err(ServerKeysError::Signature);
    }
    let verify_keys = verify_keys.iter().map(|(id, key)| (id.as_str(), key));
    for (id, key) in std::iter::once((IDENTITY_KEY_ID, identity)).chain(verify_keys) {
        let signature: Option<[u8; SIGNATURE_BYTES]> = signatures.get(id).and_then(base64);
        if !signature.is_some_and(|signature| key.verifies(signed, &signature)) {
            return Err(ServerKeysError::Signature);
        }
    }
    Ok(())
}

/// Unpadded base64 of exactly `N` bytes, in its one spelling.
fn base64<const N: usize>(value: &CanonicalJsonValue) -> Option<[u8; N]> {
    BASE64_NOPAD.decode(value.as_str()?.as_bytes()).ok()?.try_into().ok()
}
