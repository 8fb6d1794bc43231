//! Errors of making rooms, coming and going, sending and looking.

use http::StatusCode;
use messagehub_homeserver::{
    remote_join::RemoteJoinError,
    rooms::{
        aliases::AliasError, create::CreateError, forget::ForgetError, leave::LeaveError,
        moderate::ModerateError, read::ReadError, upgrade::UpgradeError, ways::EntryError,
    },
    send::SendError,
};

use crate::ApiError;

impl From<SendError> for ApiError {
    fn from(error: SendError) -> Self {
        let text = error.to_string();
        match error {
            SendError::NotInRoom
            | SendError::Forbidden(_)
            | SendError::NotKept
            | SendError::MayNotRedact => Self::forbidden(text),
            SendError::UnknownEvent => Self::not_found(text),
            SendError::TooLarge => Self::too_large(text),
            SendError::BadContent(_) => Self::bad_json(text),
            SendError::InvalidAlias(_) => Self::invalid_param(text),
            SendError::BadAlias(_) => Self::new(StatusCode::BAD_REQUEST, "M_BAD_ALIAS", text),
            SendError::InviteBlocked(_) => {
                Self::new(StatusCode::FORBIDDEN, "M_INVITE_BLOCKED", text)
            }
            // Spec: Server-Server API, "Validating Policy Server signatures": in its own words.
            SendError::NotRecommended { status, errcode, .. } => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
                Self::new(status, &errcode, text)
            }
            SendError::NoRecommendation(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", text)
            }
            SendError::Limited(limited) => limited.into(),
            SendError::OutboxFull(_) => Self::outbox_full(text),
            SendError::Room(error) => Self::internal(&error),
            SendError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<CreateError> for ApiError {
    fn from(error: CreateError) -> Self {
        let text = error.to_string();
        let bad_request = |errcode| Self::new(StatusCode::BAD_REQUEST, errcode, text.clone());
        match error {
            CreateError::UnsupportedVersion(_) => bad_request("M_UNSUPPORTED_ROOM_VERSION"),
            CreateError::BadContent(_) => bad_request("M_BAD_JSON"),
            CreateError::InvalidState(_) => bad_request("M_INVALID_ROOM_STATE"),
            CreateError::InvalidAlias(_) => bad_request("M_INVALID_PARAM"),
            CreateError::AliasTaken(_) => bad_request("M_ROOM_IN_USE"),
            CreateError::TooLarge => Self::too_large(text),
            CreateError::Limited(limited) => limited.into(),
            CreateError::OutboxFull(_) => Self::outbox_full(text),
            CreateError::InviteBlocked(_) => {
                Self::new(StatusCode::FORBIDDEN, "M_INVITE_BLOCKED", text)
            }
            CreateError::Room(error) => Self::internal(&error),
            CreateError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<ModerateError> for ApiError {
    fn from(error: ModerateError) -> Self {
        match error {
            ModerateError::NotThere(_) => Self::forbidden(error.to_string()),
            ModerateError::Send(error) => error.into(),
        }
    }
}

impl From<EntryError> for ApiError {
    fn from(error: EntryError) -> Self {
        match error {
            EntryError::NoWay => Self::not_found(error.to_string()),
            EntryError::Alias(error) => error.into(),
            EntryError::Limited(limited) => limited.into(),
            EntryError::Send(error) => error.into(),
            EntryError::Remote(error) => error.into(),
        }
    }
}

impl From<RemoteJoinError> for ApiError {
    fn from(error: RemoteJoinError) -> Self {
        let text = error.to_string();
        let bad_request = |errcode| Self::new(StatusCode::BAD_REQUEST, errcode, text.clone());
        match error {
            RemoteJoinError::Forbidden { .. } => Self::forbidden(text),
            RemoteJoinError::Limited { retry_after_ms } => {
                let limited = Self::new(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", text);
                match retry_after_ms {
                    Some(pause) => limited.with("retry_after_ms", pause),
                    None => limited,
                }
            }
            RemoteJoinError::UnknownRoom => Self::not_found(text),
            RemoteJoinError::UnableToAuthorise => bad_request("M_UNABLE_TO_AUTHORISE_JOIN"),
            RemoteJoinError::UnableToGrant => bad_request("M_UNABLE_TO_GRANT_JOIN"),
            RemoteJoinError::UnsupportedVersion => bad_request("M_INCOMPATIBLE_ROOM_VERSION"),
            // The specification has no code for this; a client is to try again.
            RemoteJoinError::Unreachable | RemoteJoinError::Unusable(_) => {
                Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", text)
            }
            RemoteJoinError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<LeaveError> for ApiError {
    fn from(error: LeaveError) -> Self {
        match error {
            LeaveError::NotInRoom => Self::not_found(error.to_string()),
            LeaveError::Send(error) => error.into(),
        }
    }
}

impl From<UpgradeError> for ApiError {
    fn from(error: UpgradeError) -> Self {
        match error {
            UpgradeError::Forbidden => Self::forbidden(error.to_string()),
            UpgradeError::Create(error) => error.into(),
            UpgradeError::Send(error) => error.into(),
        }
    }
}

impl From<ForgetError> for ApiError {
    fn from(error: ForgetError) -> Self {
        match error {
            // The specification names 400 without an `errcode` of its own.
            ForgetError::Unknown | ForgetError::StillThere => {
                Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", error.to_string())
            }
            ForgetError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotInRoom => Self::forbidden(error.to_string()),
            ReadError::NotFound => Self::not_found(error.to_string()),
            ReadError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<AliasError> for ApiError {
    fn from(error: AliasError) -> Self {
        let text = error.to_string();
        match error {
            AliasError::Invalid(_) => Self::invalid_param(text),
            AliasError::Taken(_) => Self::new(StatusCode::CONFLICT, "M_UNKNOWN", text),
            AliasError::Unknown(_) => Self::not_found(text),
            AliasError::Forbidden => Self::forbidden(text),
            AliasError::Unreachable(_) => Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", text),
            AliasError::TooMany => {
                Self::new(StatusCode::BAD_REQUEST, "M_RESOURCE_LIMIT_EXCEEDED", text)
            }
            AliasError::Store(error) => Self::internal(&error),
        }
    }
}

impl ApiError {
    /// 503: another server has not taken what already waits for it.
    fn outbox_full(error: String) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", error)
    }
}
