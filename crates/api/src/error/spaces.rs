//! Errors of looking for rooms and sorting them: the public list, spaces, summaries, tags.

use http::StatusCode;
use messagehub_homeserver::{
    rooms::{hierarchy::HierarchyError, public::PublicError, summary::SummaryError},
    tags::TagError,
};

use crate::ApiError;

impl From<PublicError> for ApiError {
    fn from(error: PublicError) -> Self {
        let text = error.to_string();
        match error {
            PublicError::UnknownRoom => Self::not_found(text),
            PublicError::Forbidden => Self::forbidden(text),
            PublicError::InvalidToken => Self::invalid_param(text),
            PublicError::Unreachable(_) => Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", text),
            PublicError::Room(error) => Self::internal(&error),
            PublicError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<HierarchyError> for ApiError {
    fn from(error: HierarchyError) -> Self {
        let text = error.to_string();
        match error {
            HierarchyError::Forbidden => Self::forbidden(text),
            HierarchyError::InvalidToken => Self::invalid_param(text),
            HierarchyError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<SummaryError> for ApiError {
    fn from(error: SummaryError) -> Self {
        match error {
            SummaryError::NotFound => Self::not_found(error.to_string()),
            SummaryError::Alias(error) => error.into(),
            SummaryError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<TagError> for ApiError {
    fn from(error: TagError) -> Self {
        let text = error.to_string();
        match error {
            TagError::TooLong => Self::invalid_param(text),
            TagError::NotAnObject => Self::bad_json(text),
            TagError::TooMany => {
                Self::new(StatusCode::BAD_REQUEST, "M_RESOURCE_LIMIT_EXCEEDED", text)
            }
            TagError::Store(error) => Self::internal(&error),
        }
    }
}
