//! Errors of keys, messages to devices, presence and proofs of who somebody is.

use std::collections::BTreeMap;

use http::StatusCode;
use messagehub_homeserver::{
    encryption::{
        cross_signing::UploadError as SigningError,
        device_lists::ChangesError,
        signatures::{self, Refused},
        upload::UploadError,
    },
    openid::OpenIdError,
    presence::PresenceError,
    to_device::SendToDeviceError,
};
use ruma::{OwnedServerName, OwnedUserId, api::client::keys::upload_signatures::v3::Failure};
use serde_json::{Value, json};

use crate::ApiError;

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        let text = error.to_string();
        match error {
            UploadError::NotYours | UploadError::Conflict(_) => Self::invalid_param(text),
            UploadError::Malformed(_) => Self::bad_json(text),
            UploadError::TooMany => {
                Self::new(StatusCode::BAD_REQUEST, "M_RESOURCE_LIMIT_EXCEEDED", text)
            }
            UploadError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<SigningError> for ApiError {
    fn from(error: SigningError) -> Self {
        let text = error.to_string();
        match error {
            SigningError::Uia(error) => error.into(),
            SigningError::Malformed(_) => Self::invalid_param(text),
            SigningError::NoMaster => Self::new(StatusCode::BAD_REQUEST, "M_MISSING_PARAM", text),
            SigningError::InvalidSignature => {
                Self::new(StatusCode::BAD_REQUEST, INVALID_SIGNATURE, text)
            }
            SigningError::InUse => Self::forbidden(text),
            SigningError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<ChangesError> for ApiError {
    fn from(error: ChangesError) -> Self {
        match error {
            ChangesError::InvalidToken => Self::invalid_param(error.to_string()),
            ChangesError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<SendToDeviceError> for ApiError {
    fn from(error: SendToDeviceError) -> Self {
        match error {
            SendToDeviceError::TooLarge => Self::too_large(error.to_string()),
            SendToDeviceError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<PresenceError> for ApiError {
    fn from(error: PresenceError) -> Self {
        let text = error.to_string();
        match error {
            PresenceError::NotYours | PresenceError::NotVisible => Self::forbidden(text),
            PresenceError::Invalid => Self::invalid_param(text),
            PresenceError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<OpenIdError> for ApiError {
    fn from(error: OpenIdError) -> Self {
        let text = error.to_string();
        match error {
            OpenIdError::NotYours => Self::forbidden(text),
            OpenIdError::Unknown => Self::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", text),
            OpenIdError::Store(error) => Self::internal(&error),
        }
    }
}

const INVALID_SIGNATURE: &str = "M_INVALID_SIGNATURE";

/// The `failures` of a request to several servers: those that gave no answer.
///
/// Spec: Client-Server API, "POST /keys/query".
pub(crate) fn failures(unreachable: Vec<OwnedServerName>) -> BTreeMap<String, Value> {
    let failure = json!({
        "errcode": "M_UNKNOWN",
        "error": "The server cannot be reached.",
    });
    unreachable.into_iter().map(|server| (server.to_string(), failure.clone())).collect()
}

/// The `failures` of an upload of signatures.
///
/// # Errors
/// Never: the form of a failure is fixed.
pub(crate) fn refused_signatures(
    refused: signatures::Failures,
) -> Result<BTreeMap<OwnedUserId, BTreeMap<String, Failure>>, ApiError> {
    let mut failures = BTreeMap::new();
    for (user_id, keys) in refused {
        let of_user: &mut BTreeMap<_, _> = failures.entry(user_id).or_default();
        for (name, refused) in keys {
            let errcode = match refused {
                Refused::UnknownKey => "M_NOT_FOUND",
                Refused::InvalidSignature => INVALID_SIGNATURE,
                Refused::TooMany => "M_RESOURCE_LIMIT_EXCEEDED",
            };
            let failure = json!({ "errcode": errcode, "error": refused.to_string() });
            let failure = serde_json::from_value(failure).map_err(|e| ApiError::internal(&e))?;
            of_user.insert(name, failure);
        }
    }
    Ok(failures)
}
