//! Making and signing our own `server_keys`.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use data_encoding::BASE64_NOPAD;
use ruma::{CanonicalJsonObject, CanonicalJsonValue, UInt};

use super::{
    IDENTITY_KEY_ID, Inner, MAX_OLD_VERIFY_KEYS, MAX_PEER_IDS, OldKey, OldVerifyKey,
    SERVER_KEYS_VALIDITY_MS, ServerKeys, ServerKeysTerms, millis, raw,
};
use crate::{
    canonical::to_canonical,
    keys::{IdentityKey, PublicKey, VerifyKey},
};

pub(super) fn make(
    identity: &IdentityKey,
    verify: &VerifyKey,
    terms: ServerKeysTerms,
) -> ServerKeys {
    let issued_ts = millis(terms.issued_ts);
    let valid_until_ts = issued_ts.saturating_add(SERVER_KEYS_VALIDITY_MS);
    let old_verify_keys = old_keys(verify, terms.old_verify_keys);
    let mut peer_ids = terms.peer_ids;
    peer_ids.truncate(MAX_PEER_IDS);
    let name = identity.server_name().as_str();
    let key_id = verify.key_id().as_str();

    let verify_key = object([("key", base64(&verify.public_key()))]);
    let mut keys = object([
        ("server_name", name.into()),
        ("verify_keys", object([(key_id, verify_key.into())]).into()),
        ("old_verify_keys", old_keys_json(&old_verify_keys).into()),
        ("peer_ids", peer_ids.iter().map(|id| id.as_str().into()).collect::<Vec<_>>().into()),
        ("issued_ts", integer(issued_ts)),
        ("valid_until_ts", integer(valid_until_ts)),
    ]);
    let signed = to_canonical(&keys);
    let signatures = object([
        (IDENTITY_KEY_ID, base64(&identity.sign(signed.as_bytes()))),
        (key_id, base64(&verify.sign(signed.as_bytes()))),
    ]);
    keys.insert("signatures".to_owned(), object([(name, signatures.into())]).into());

    ServerKeys(Arc::new(Inner {
        json: raw(&keys),
        server_name: identity.server_name().to_owned(),
        issued_ts,
        valid_until_ts,
        verify_keys: BTreeMap::from([(key_id.to_owned(), verify.as_public_key().clone())]),
        old_verify_keys,
        peer_ids,
    }))
}

/// The latest old keys by id, without the one that signs now.
fn old_keys(current: &VerifyKey, mut old: Vec<OldVerifyKey>) -> BTreeMap<String, OldKey> {
    old.sort_by_key(|old| Reverse(old.expired_ts));
    old.into_iter()
        .filter(|old| old.public_key != current.public_key())
        .take(MAX_OLD_VERIFY_KEYS)
        .filter_map(|old| {
            let key = PublicKey::from_bytes(&old.public_key)?;
            let id = key.key_id().to_string();
            Some((id, OldKey { key, expired_ts: millis(old.expired_ts) }))
        })
        .collect()
}

fn old_keys_json(keys: &BTreeMap<String, OldKey>) -> CanonicalJsonObject {
    let entry = |old: &OldKey| {
        object([("key", base64(old.key.as_bytes())), ("expired_ts", integer(old.expired_ts))])
    };
    keys.iter().map(|(id, old)| (id.clone(), entry(old).into())).collect()
}

fn object<const N: usize>(fields: [(&str, CanonicalJsonValue); N]) -> CanonicalJsonObject {
    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn base64(bytes: &[u8]) -> CanonicalJsonValue {
    BASE64_NOPAD.encode(bytes).into()
}

fn integer(value: u64) -> CanonicalJsonValue {
    UInt::new_saturating(value).into()
}
