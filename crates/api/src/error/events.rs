//! Errors of syncing, paging, receipts and typing.

use messagehub_homeserver::{
    messages::MessagesError, receipts::ReceiptError, sync::SyncError, typing::TypingError,
};

use crate::ApiError;

impl From<SyncError> for ApiError {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::InvalidToken => Self::invalid_param("The since token is invalid."),
            SyncError::UnknownFilter => Self::invalid_param("There is no such filter."),
            SyncError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<MessagesError> for ApiError {
    fn from(error: MessagesError) -> Self {
        match error {
            MessagesError::Forbidden => Self::forbidden("You may not see this room."),
            MessagesError::UnknownEvent => Self::not_found("There is no such event."),
            MessagesError::InvalidToken => Self::invalid_param("The token is invalid."),
            MessagesError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<ReceiptError> for ApiError {
    fn from(error: ReceiptError) -> Self {
        match error {
            ReceiptError::NotJoined => Self::forbidden("You are not in this room."),
            ReceiptError::UnknownEvent => Self::not_found("There is no such event in the room."),
            ReceiptError::InvalidThread => Self::invalid_param("The thread is invalid."),
            ReceiptError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<TypingError> for ApiError {
    fn from(error: TypingError) -> Self {
        match error {
            TypingError::OtherUser => Self::forbidden("You can only type for yourself."),
            TypingError::NotJoined => Self::forbidden("You are not in this room."),
            TypingError::Store(error) => Self::internal(&error),
        }
    }
}
