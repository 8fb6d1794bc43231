//! Errors that other servers see.

use http::StatusCode;
use messagehub_homeserver::{
    ingest::IngestError,
    server::{
        access::AccessError, membership::MembershipError, origin::OriginError, policy::PolicyError,
        relay::RelayError, room_keys::RoomKeysRefused, transactions::TransactionError,
    },
    view::ViewError,
};

use crate::ApiError;

impl From<OriginError> for ApiError {
    fn from(error: OriginError) -> Self {
        let text = error.to_string();
        match error {
            // Spec: Server-Server API, "Request Authentication".
            OriginError::Unsigned
            | OriginError::Request(_)
            | OriginError::UnknownServer
            | OriginError::WrongPeer => Self::new(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED", text),
            OriginError::Limited(limited) => limited.into(),
            OriginError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<AccessError> for ApiError {
    fn from(error: AccessError) -> Self {
        let text = error.to_string();
        match error {
            AccessError::UnknownRoom | AccessError::UnknownEvent | AccessError::UnknownState => {
                Self::not_found(text)
            }
            AccessError::NotInRoom | AccessError::Excluded => Self::forbidden(text),
            AccessError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<MembershipError> for ApiError {
    fn from(error: MembershipError) -> Self {
        let text = error.to_string();
        let bad_request = |errcode| Self::new(StatusCode::BAD_REQUEST, errcode, text.clone());
        match error {
            MembershipError::Access(error) => error.into(),
            MembershipError::NotYourUser | MembershipError::Forbidden(_) => Self::forbidden(text),
            MembershipError::IncompatibleVersion(version) => {
                bad_request("M_INCOMPATIBLE_ROOM_VERSION").with("room_version", version.as_str())
            }
            MembershipError::UnsupportedVersion(_) => bad_request("M_UNSUPPORTED_ROOM_VERSION"),
            MembershipError::BadEvent(_) => bad_request("M_INVALID_PARAM"),
            MembershipError::UnableToAuthorise => bad_request("M_UNABLE_TO_AUTHORISE_JOIN"),
            MembershipError::UnableToGrant => bad_request("M_UNABLE_TO_GRANT_JOIN"),
            MembershipError::UnknownUser => Self::not_found(text),
            MembershipError::InviteBlocked => {
                Self::new(StatusCode::FORBIDDEN, "M_INVITE_BLOCKED", text)
            }
            MembershipError::TooManyInvites => Self::forbidden(text),
            MembershipError::Limited(limited) => limited.into(),
            MembershipError::Ingest(error) => error.into(),
        }
    }
}

impl From<PolicyError> for ApiError {
    fn from(error: PolicyError) -> Self {
        let text = error.to_string();
        let bad_request = |errcode| Self::new(StatusCode::BAD_REQUEST, errcode, text.clone());
        match error {
            PolicyError::NotOurs => Self::not_found(text),
            PolicyError::BadEvent(_) => bad_request("M_BAD_JSON"),
            PolicyError::Excluded => Self::forbidden(text),
            PolicyError::Refused(_) => bad_request("M_FORBIDDEN"),
            PolicyError::Limited(limited) => limited.into(),
            PolicyError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<IngestError> for ApiError {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::UnknownRoom => Self::not_found(error.to_string()),
            // The other server names events that we have never seen: it must ask elsewhere.
            IngestError::View(ViewError::Missing(_)) => {
                Self::new(StatusCode::BAD_REQUEST, "M_BAD_JSON", error.to_string())
            }
            IngestError::View(error) => Self::internal(&error),
        }
    }
}

impl From<RoomKeysRefused> for ApiError {
    fn from(error: RoomKeysRefused) -> Self {
        match error {
            RoomKeysRefused::Access(error) => error.into(),
            RoomKeysRefused::Limited(limited) => limited.into(),
        }
    }
}

impl From<RelayError> for ApiError {
    fn from(error: RelayError) -> Self {
        let text = error.to_string();
        match error {
            RelayError::NoSharedRoom => Self::forbidden(text),
            RelayError::NotConnected => Self::not_found(text),
            RelayError::Busy => Self::new(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", text),
            RelayError::Sealed(_) => Self::new(StatusCode::BAD_REQUEST, "M_BAD_JSON", text),
            RelayError::NoAnswer(_) => Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", text),
            RelayError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<TransactionError> for ApiError {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::TooLarge => Self::too_large(error.to_string()),
            TransactionError::JoinUnderWay => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", error.to_string())
            }
            TransactionError::Store(error) => Self::internal(&error),
        }
    }
}
