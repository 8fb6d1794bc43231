//! Why a room could not be joined, or knocked on, through others.

use messagehub_store::StoreError;

use crate::{federation::FederationError, ingest::IngestError, view::ViewError};

/// Why a room could not be joined through others.
#[derive(Debug, thiserror::Error)]
pub enum RemoteJoinError {
    /// None of the servers can be reached now, or is able to answer.
    #[error("none of the servers in the room can be reached now")]
    Unreachable,
    /// A server in the room does not let the user in.
    #[error("the room does not let the user in: {message}")]
    Forbidden {
        /// Its words.
        message: String,
    },
    /// A server in the room was asked too often.
    #[error("the servers in the room were asked too often")]
    Limited {
        /// Milliseconds to wait, where it told.
        retry_after_ms: Option<u64>,
    },
    /// No server that was asked knows the room.
    #[error("no server that was asked knows the room")]
    UnknownRoom,
    /// The room is restricted, and no server that was asked is in the rooms that let somebody in.
    #[error("no server that was asked can tell whether the room lets the user in")]
    UnableToAuthorise,
    /// The room is restricted, and no server that was asked has a user who may let others in.
    #[error("no server that was asked can let the user in")]
    UnableToGrant,
    /// The room has a version that this server does not take part in.
    #[error("the room's version is not supported")]
    UnsupportedVersion,
    /// What a server told of the room does not hold together.
    #[error("what was told of the room is not usable: {0}")]
    Unusable(String),
    /// Our own database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RemoteJoinError {
    /// What two servers said, in one word: what tells more to whoever wanted in. A refusal says more
    /// than silence, and one that holds for the whole room more than what a server says of itself.
    #[must_use]
    pub(crate) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Limited { retry_after_ms: one }, Self::Limited { retry_after_ms: other }) => {
                // The first that can be asked again is enough.
                let both = one.zip(other).map(|(one, other)| one.min(other));
                Self::Limited { retry_after_ms: both.or(one).or(other) }
            }
            (one, other) if one.weight() > other.weight() => one,
            (_, other) => other,
        }
    }

    fn weight(&self) -> u8 {
        match self {
            Self::Unreachable => 0,
            Self::UnknownRoom => 1,
            Self::Unusable(_) => 2,
            Self::UnableToAuthorise => 3,
            Self::UnableToGrant => 4,
            // Of this one it is known that it may let the user in.
            Self::Limited { .. } => 5,
            Self::UnsupportedVersion => 6,
            Self::Forbidden { .. } => 7,
            Self::Store(_) => 8,
        }
    }

    /// Whether a server said that it does not let the user in, or has no such room: it does not
    /// believe that they are there.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Forbidden { .. }
            | Self::UnknownRoom
            | Self::UnableToAuthorise
            | Self::UnableToGrant
            | Self::Limited { .. } => true,
            Self::Unreachable | Self::UnsupportedVersion | Self::Unusable(_) | Self::Store(_) => {
                false
            }
        }
    }

    /// Whether the same server may say something else soon.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable | Self::Limited { .. } | Self::Store(_))
    }
}

impl From<FederationError> for RemoteJoinError {
    fn from(error: FederationError) -> Self {
        let is_transient = error.is_transient();
        match error {
            FederationError::Transport(_) => Self::Unreachable,
            FederationError::Refused { status, errcode, message, retry_after_ms } => {
                match (errcode.as_str(), status) {
                    ("M_LIMIT_EXCEEDED", _) | (_, 429) => Self::Limited { retry_after_ms },
                    ("M_NOT_FOUND", _) => Self::UnknownRoom,
                    ("M_INCOMPATIBLE_ROOM_VERSION", _) => Self::UnsupportedVersion,
                    ("M_UNABLE_TO_AUTHORISE_JOIN", _) => Self::UnableToAuthorise,
                    ("M_UNABLE_TO_GRANT_JOIN", _) => Self::UnableToGrant,
                    ("M_FORBIDDEN", _) | (_, 403) => Self::Forbidden { message },
                    _ if is_transient => Self::Unreachable,
                    (errcode, _) => Self::Unusable(format!("{status} {errcode}: {message}")),
                }
            }
            FederationError::BadAnswer(text) | FederationError::BadRequest(text) => {
                Self::Unusable(text)
            }
            FederationError::Store(error) => Self::Store(error),
        }
    }
}

impl From<IngestError> for RemoteJoinError {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::View(ViewError::Store(error)) => Self::Store(error),
            error => Self::Unusable(error.to_string()),
        }
    }
}

impl From<ViewError> for RemoteJoinError {
    fn from(error: ViewError) -> Self {
        IngestError::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, errcode: &str) -> RemoteJoinError {
        let (errcode, message) = (errcode.to_owned(), "no".to_owned());
        FederationError::Refused { status, errcode, message, retry_after_ms: Some(7) }.into()
    }

    #[test]
    fn what_a_server_says_keeps_its_meaning() {
        for (status, errcode, expected) in [
            (429, "M_LIMIT_EXCEEDED", "Limited { retry_after_ms: Some(7) }"),
            (429, "", "Limited { retry_after_ms: Some(7) }"),
            (403, "M_FORBIDDEN", "Forbidden { message: \"no\" }"),
            (403, "", "Forbidden { message: \"no\" }"),
            (404, "M_NOT_FOUND", "UnknownRoom"),
            (400, "M_INCOMPATIBLE_ROOM_VERSION", "UnsupportedVersion"),
            (400, "M_UNABLE_TO_AUTHORISE_JOIN", "UnableToAuthorise"),
            (400, "M_UNABLE_TO_GRANT_JOIN", "UnableToGrant"),
            (401, "M_UNAUTHORIZED", "Unreachable"),
            (500, "M_UNKNOWN", "Unreachable"),
            (502, "", "Unreachable"),
            (400, "M_BAD_JSON", "Unusable(\"400 M_BAD_JSON: no\")"),
            (404, "M_UNRECOGNIZED", "Unusable(\"404 M_UNRECOGNIZED: no\")"),
        ] {
            let error = refused(status, errcode);
            assert_eq!(format!("{error:?}"), expected, "{status} {errcode}");
        }
    }

    #[test]
    fn of_several_answers_the_most_telling_counts() {
        let limited = |retry_after_ms| RemoteJoinError::Limited { retry_after_ms };
        let said = |answers: Vec<RemoteJoinError>| {
            let all = answers.into_iter().fold(RemoteJoinError::Unreachable, RemoteJoinError::or);
            format!("{all:?}")
        };
        assert_eq!(said(vec![]), "Unreachable");
        let both = vec![limited(Some(9)), limited(None), limited(Some(5))];
        assert_eq!(said(both), "Limited { retry_after_ms: Some(5) }");
        let unknown = vec![limited(None), RemoteJoinError::UnknownRoom];
        assert_eq!(said(unknown), "Limited { retry_after_ms: None }");
        let granting = vec![refused(400, "M_UNABLE_TO_GRANT_JOIN"), RemoteJoinError::Unreachable];
        assert_eq!(said(granting), "UnableToGrant");
        let forbidden = vec![refused(403, "M_FORBIDDEN"), limited(Some(5))];
        assert_eq!(said(forbidden), "Forbidden { message: \"no\" }");
    }
}
