//! Vouching for the `server_keys` of another server.
//!
//! Spec: Server-Server API, "Querying Keys Through Another Server".

use ruma::CanonicalJsonObject;
use serde_json::value::RawValue;

use super::{ServerKeys, ServerKeysError, raw};
use crate::{
    build::Signer,
    canonical::{parse_object, to_canonical},
    pdu::sign,
};

/// The object with one signature more, over the same bytes as the others.
pub(super) fn countersigned(
    keys: &ServerKeys,
    notary: Signer<'_>,
) -> Result<Box<RawValue>, ServerKeysError> {
    let mut object: CanonicalJsonObject = parse_object(keys.json().get().as_bytes())?;
    let signatures = object.remove("signatures").ok_or(ServerKeysError::Field("signatures"))?;
    let signature = notary.key.sign(to_canonical(&object).as_bytes());
    object.insert("signatures".to_owned(), signatures);
    sign::insert(&mut object, notary, &signature)
        .map_err(|_| ServerKeysError::Field("signatures"))?;
    Ok(raw(&object))
}
