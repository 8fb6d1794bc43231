//! A key object as somebody may see it: with the signatures that they may see.

use messagehub_store::{
    Snapshot, StoreError,
    cross_signing::{self, Signature},
};
use ruma::{UserId, serde::Raw};
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};

/// Adds what was uploaded since to a key object: the signatures of its owner, those of the viewer,
/// and, for users of this server, the name of the device.
///
/// Spec: Client-Server API, "POST /keys/query", `master_keys`.
///
/// # Errors
/// Fails when the database does.
pub(super) fn shown<T>(
    snap: &Snapshot<'_>,
    (owner, name, json): (&UserId, &str, &RawValue),
    viewer: Option<&UserId>,
    display_name: Option<&str>,
) -> Result<Raw<T>, StoreError> {
    let mut signatures = cross_signing::list_signatures(snap, (owner, name), owner)?;
    if let Some(viewer) = viewer.filter(|viewer| *viewer != owner) {
        signatures.extend(cross_signing::list_signatures(snap, (owner, name), viewer)?);
    }
    if signatures.is_empty() && display_name.is_none() {
        return Ok(Raw::from_json(json.to_owned()));
    }
    let damaged = |error: serde_json::Error| StoreError::Damaged(error.to_string());
    let mut object: Map<String, Value> = serde_json::from_str(json.get()).map_err(damaged)?;
    for signature in signatures {
        add(&mut object, signature);
    }
    if let Some(display_name) = display_name
        && let Value::Object(unsigned) = object_in(&mut object, "unsigned")
    {
        unsigned.insert("device_display_name".to_owned(), display_name.into());
    }
    Ok(Raw::from_json(to_raw_value(&object).map_err(damaged)?))
}

fn add(object: &mut Map<String, Value>, signature: Signature) {
    if let Value::Object(by_user) = object_in(object, "signatures")
        && let Value::Object(by_key) = object_in(by_user, signature.signer.as_str())
    {
        by_key.insert(signature.signer_key, signature.signature.into());
    }
}

fn object_in<'o>(object: &'o mut Map<String, Value>, field: &str) -> &'o mut Value {
    let value = object.entry(field.to_owned()).or_insert_with(|| Value::Object(Map::new()));
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value
}
