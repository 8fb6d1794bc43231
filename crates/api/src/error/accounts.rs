//! Accounts, sessions, profiles, push rules and media.

use http::StatusCode;
use messagehub_homeserver::{
    account_data::AccountDataError,
    accounts::{CreateError, SetPasswordError},
    filters::FilterError,
    media::MediaError,
    passwords::PasswordError,
    profiles::ProfileError,
    push_rules::PushRuleError,
    rate::Limited,
    register::RegisterError,
    sessions::{DeviceError, LoginError},
    sso::SsoError,
    uia::UiaError,
};

use super::ApiError;
use crate::client::proof;

impl ApiError {
    /// 400: a log-in of a kind that is not among the flows.
    pub(crate) fn unknown_login_type() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", "Unknown login type.")
    }

    /// 403: guest accounts do not exist here.
    pub(crate) fn guests_refused() -> Self {
        Self::new(StatusCode::FORBIDDEN, "M_GUEST_ACCESS_FORBIDDEN", "There are no guests here.")
    }

    /// 400: a query parameter that must be there.
    pub(crate) fn missing_param(error: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_MISSING_PARAM", error)
    }

    /// 429, for a resource that is in use and free again soon.
    fn busy(error: impl ToString) -> Self {
        const RETRY_AFTER_MS: u64 = 1000;
        Self::new(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", error.to_string())
            .with("retry_after_ms", RETRY_AFTER_MS)
    }
}

impl From<Limited> for ApiError {
    fn from(error: Limited) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", "Too many requests.")
            .with("retry_after_ms", error.retry_after_ms)
    }
}

impl From<PasswordError> for ApiError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Unusable => {
                Self::new(StatusCode::BAD_REQUEST, "M_WEAK_PASSWORD", error.to_string())
            }
            PasswordError::Busy => Self::busy(error),
            PasswordError::Hashing(_) => Self::internal(&error),
        }
    }
}

impl From<CreateError> for ApiError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::InvalidName => {
                Self::new(StatusCode::BAD_REQUEST, "M_INVALID_USERNAME", error.to_string())
            }
            CreateError::Taken => {
                Self::new(StatusCode::BAD_REQUEST, "M_USER_IN_USE", error.to_string())
            }
            CreateError::Password(error) => error.into(),
            CreateError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<SetPasswordError> for ApiError {
    fn from(error: SetPasswordError) -> Self {
        match error {
            SetPasswordError::UnknownUser => Self::not_found(error.to_string()),
            SetPasswordError::Password(error) => error.into(),
            SetPasswordError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<RegisterError> for ApiError {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::Closed => Self::forbidden(error.to_string()),
            RegisterError::Challenge(challenge) => proof::demand(&challenge),
            RegisterError::PasswordMissing => {
                Self::new(StatusCode::BAD_REQUEST, "M_MISSING_PARAM", error.to_string())
            }
            RegisterError::Limited(error) => error.into(),
            RegisterError::Create(error) => error.into(),
            RegisterError::Login(error) => error.into(),
            RegisterError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<LoginError> for ApiError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::WrongCredentials => Self::forbidden(error.to_string()),
            LoginError::InvalidDevice => Self::invalid_param(error.to_string()),
            LoginError::TooManyDevices => {
                Self::new(StatusCode::FORBIDDEN, "M_RESOURCE_LIMIT_EXCEEDED", error.to_string())
            }
            LoginError::Limited(error) => error.into(),
            LoginError::Busy => Self::busy(error),
            LoginError::Hashing(_) => Self::internal(&error),
            LoginError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<DeviceError> for ApiError {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::Unknown => Self::not_found(error.to_string()),
            DeviceError::NameTooLong => Self::invalid_param(error.to_string()),
            DeviceError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<UiaError> for ApiError {
    fn from(error: UiaError) -> Self {
        match error {
            UiaError::Challenge(challenge) => proof::demand(&challenge),
            UiaError::Limited(error) => error.into(),
            UiaError::Busy => Self::busy(error),
            UiaError::Hashing(_) => Self::internal(&error),
            UiaError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<SsoError> for ApiError {
    fn from(error: SsoError) -> Self {
        match error {
            SsoError::NotHere(_) => Self::forbidden(error.to_string()),
            SsoError::BadRedirect => Self::invalid_param(error.to_string()),
            SsoError::Expired => Self::forbidden(error.to_string()),
            SsoError::Limited(error) => error.into(),
            SsoError::Busy => Self::busy(error),
            SsoError::Hashing(_) => Self::internal(&error),
            SsoError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<ProfileError> for ApiError {
    fn from(error: ProfileError) -> Self {
        match error {
            ProfileError::Unknown | ProfileError::Unreachable | ProfileError::UnknownField => {
                Self::not_found(error.to_string())
            }
            ProfileError::NotYours => Self::forbidden(error.to_string()),
            ProfileError::Invalid | ProfileError::InvalidFieldName => {
                Self::invalid_param(error.to_string())
            }
            ProfileError::ValueMissing => {
                Self::new(StatusCode::BAD_REQUEST, "M_MISSING_PARAM", error.to_string())
            }
            ProfileError::FieldNameTooLong => {
                Self::new(StatusCode::BAD_REQUEST, "M_KEY_TOO_LARGE", error.to_string())
            }
            ProfileError::TooLarge => {
                Self::new(StatusCode::BAD_REQUEST, "M_PROFILE_TOO_LARGE", error.to_string())
            }
            ProfileError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<AccountDataError> for ApiError {
    fn from(error: AccountDataError) -> Self {
        match error {
            AccountDataError::Unknown => Self::not_found(error.to_string()),
            AccountDataError::Managed => {
                Self::new(StatusCode::METHOD_NOT_ALLOWED, "M_BAD_JSON", error.to_string())
            }
            AccountDataError::NotAnObject => Self::bad_json(error.to_string()),
            AccountDataError::TooMuch => {
                Self::new(StatusCode::FORBIDDEN, "M_RESOURCE_LIMIT_EXCEEDED", error.to_string())
            }
            AccountDataError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<FilterError> for ApiError {
    fn from(error: FilterError) -> Self {
        match error {
            FilterError::Unknown => Self::not_found(error.to_string()),
            FilterError::TooLarge => Self::too_large(error.to_string()),
            FilterError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<PushRuleError> for ApiError {
    fn from(error: PushRuleError) -> Self {
        match error {
            PushRuleError::Unknown | PushRuleError::UnknownNeighbor => {
                Self::not_found(error.to_string())
            }
            PushRuleError::Invalid(_) | PushRuleError::Default => {
                Self::invalid_param(error.to_string())
            }
            PushRuleError::TooMany => {
                Self::new(StatusCode::FORBIDDEN, "M_RESOURCE_LIMIT_EXCEEDED", error.to_string())
            }
            PushRuleError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<MediaError> for ApiError {
    fn from(error: MediaError) -> Self {
        match error {
            MediaError::Unknown => Self::not_found(error.to_string()),
            MediaError::NotYetUploaded => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "M_NOT_YET_UPLOADED", error.to_string())
            }
            MediaError::TooLarge => Self::too_large(error.to_string()),
            MediaError::AlreadyUploaded => {
                Self::new(StatusCode::CONFLICT, "M_CANNOT_OVERWRITE_MEDIA", error.to_string())
            }
            MediaError::NotYours => Self::forbidden(error.to_string()),
            MediaError::Unreachable => {
                Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", error.to_string())
            }
            MediaError::NoThumbnail => {
                Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", error.to_string())
            }
            MediaError::TooManyReserved | MediaError::Busy => Self::busy(error),
            MediaError::Io(error) => Self::internal(&error),
            MediaError::Store(error) => Self::internal(&error),
        }
    }
}
