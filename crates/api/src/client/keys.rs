//! The keys of devices, and those with which users vouch for them.
//!
//! Spec: Client-Server API, "Key management" and "Cross-signing".

use axum::Router;
use messagehub_homeserver::{
    Homeserver,
    encryption::{
        claim, cross_signing, device_lists, query, signatures,
        upload::{self, Upload},
    },
    sessions::Session,
};
use ruma::{
    OneTimeKeyAlgorithm, UInt,
    api::client::keys::{
        claim_keys, get_key_changes, get_keys, upload_keys, upload_signatures, upload_signing_keys,
    },
};

use super::proof;
use crate::{ApiError, endpoint::RumaRoutes, error::users::failures};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new()
        .ruma(upload)
        .ruma(query)
        .ruma(claim)
        .ruma(changes)
        .ruma(upload_signing)
        .ruma(upload_signed)
}

/// `POST /_matrix/client/v3/keys/upload`
async fn upload(
    hs: Homeserver,
    caller: Session,
    req: upload_keys::v3::Request,
) -> Result<upload_keys::v3::Response, ApiError> {
    let upload = Upload {
        device_keys: req.device_keys,
        one_time_keys: req.one_time_keys,
        fallback_keys: req.fallback_keys,
    };
    let counts = upload::upload(&hs, &caller, upload).await?.into_iter().map(|(name, count)| {
        (OneTimeKeyAlgorithm::from(name), UInt::try_from(count).unwrap_or(UInt::MAX))
    });
    Ok(upload_keys::v3::Response::new(counts.collect()))
}

/// `POST /_matrix/client/v3/keys/query`
async fn query(
    hs: Homeserver,
    caller: Session,
    req: get_keys::v3::Request,
) -> Result<get_keys::v3::Response, ApiError> {
    let keys = query::query(&hs, &caller.user_id, req.device_keys, req.timeout).await?;
    let mut response = get_keys::v3::Response::new();
    response.failures = failures(keys.unreachable);
    response.device_keys = keys.device_keys;
    response.master_keys = keys.master_keys;
    response.self_signing_keys = keys.self_signing_keys;
    response.user_signing_keys = keys.user_signing_keys;
    Ok(response)
}

/// `POST /_matrix/client/v3/keys/claim`
async fn claim(
    hs: Homeserver,
    _: Session,
    req: claim_keys::v3::Request,
) -> Result<claim_keys::v3::Response, ApiError> {
    let answer = claim::claim(&hs, req.one_time_keys, req.timeout).await?;
    let mut response = claim_keys::v3::Response::new(answer.keys);
    response.failures = failures(answer.unreachable);
    Ok(response)
}

/// `GET /_matrix/client/v3/keys/changes`
async fn changes(
    hs: Homeserver,
    caller: Session,
    req: get_key_changes::v3::Request,
) -> Result<get_key_changes::v3::Response, ApiError> {
    let lists = device_lists::changes(&hs, &caller.user_id, (&req.from, &req.to)).await?;
    Ok(get_key_changes::v3::Response::new(lists.changed, lists.left))
}

/// `POST /_matrix/client/v3/keys/device_signing/upload`
async fn upload_signing(
    hs: Homeserver,
    caller: Session,
    req: upload_signing_keys::v3::Request,
) -> Result<upload_signing_keys::v3::Response, ApiError> {
    let upload = cross_signing::Upload {
        master: req.master_key,
        self_signing: req.self_signing_key,
        user_signing: req.user_signing_key,
    };
    cross_signing::upload(&hs, &caller, upload, proof::from_auth(req.auth)).await?;
    Ok(upload_signing_keys::v3::Response::new())
}

/// `POST /_matrix/client/v3/keys/signatures/upload`
async fn upload_signed(
    hs: Homeserver,
    caller: Session,
    req: upload_signatures::v3::Request,
) -> Result<upload_signatures::v3::Response, ApiError> {
    let signed = req.signed_keys.into_iter().map(|(user_id, keys)| {
        let objects = keys.iter().map(|(name, json)| (name.to_owned(), json.to_owned()));
        (user_id, objects.collect())
    });
    let refused = signatures::upload(&hs, &caller.user_id, signed.collect()).await?;
    let mut response = upload_signatures::v3::Response::new();
    response.failures = crate::error::users::refused_signatures(refused)?;
    Ok(response)
}
