//! Typing notices: who is writing right now, here and on other servers.
//!
//! Spec: Client-Server API, "Typing Notifications".

use std::time::Duration;

use messagehub_store::{StoreError, Txn, memberships, rooms, typing};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedUserId, ServerName, UInt, UserId,
    api::federation::transactions::edu::{Edu, TypingContent},
};
use serde_json::value::to_raw_value;

use crate::{Homeserver, federation::announce, server::access};

/// The longest that one notice counts; clients repeat theirs every few seconds.
const MAX_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a notice counts that says no time: clients commonly say as much.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a notice of another server counts. It says no time, and repeats while it holds.
const REMOTE_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a notice was not taken.
#[derive(Debug, thiserror::Error)]
pub enum TypingError {
    /// Nobody types for somebody else.
    #[error("typing notices are for the user's own hands")]
    OtherUser,
    /// The user is not in the room.
    #[error("the user is not in the room")]
    NotJoined,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a user does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Typing {
    /// Types, and goes on for so long unless something else is said.
    For(Duration),
    /// Has stopped.
    Stopped,
}

/// Takes the notice of a local user for a room and a user, who must be the same one, and tells
/// the room's other servers.
///
/// # Errors
/// See [`TypingError`].
pub async fn set(
    hs: &Homeserver,
    user_id: &UserId,
    (room_id, whose): (OwnedRoomId, OwnedUserId),
    notice: Typing,
) -> Result<(), TypingError> {
    if whose != user_id {
        return Err(TypingError::OtherUser);
    }
    let now = hs.clock.now();
    let user = user_id.to_owned();
    let us = hs.identity.server_name().to_owned();
    let id = room_id.clone();
    let others_care = hs
        .store
        .write(move |txn| {
            let room = rooms::find(txn, &id)?.ok_or(TypingError::NotJoined)?;
            if !memberships::is_joined(txn, room.nid, &user)? {
                return Err(TypingError::NotJoined);
            }
            let changed = match notice {
                Typing::For(timeout) => {
                    typing::start(txn, room.nid, &user, after(now, timeout.min(MAX_TIMEOUT)))?;
                    true
                }
                Typing::Stopped => typing::stop(txn, room.nid, &user)?.is_some(),
            };
            let others = memberships::servers_in(txn, room.nid)?;
            Ok(changed && others.iter().any(|server| *server != us))
        })
        .await?;
    if others_care {
        let content =
            TypingContent::new(room_id.clone(), user_id.to_owned(), notice != Typing::Stopped);
        if let Ok(edu) = to_raw_value(&Edu::Typing(content)) {
            announce::announce_edu(hs, &room_id, edu).await;
        }
    }
    Ok(())
}

/// Takes the notice that another server sends for one of its users.
///
/// # Errors
/// The store failed.
pub fn ingest(
    txn: &mut Txn<'_>,
    origin: &ServerName,
    content: &TypingContent,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<(), StoreError> {
    if content.user_id.server_name() != origin {
        return Ok(());
    }
    let Some(room) = rooms::find(txn, &content.room_id)? else {
        return Ok(());
    };
    if !memberships::is_joined(txn, room.nid, &content.user_id)?
        || !access::is_admitted(txn, &room, origin)?
    {
        return Ok(());
    }
    if content.typing {
        typing::start(txn, room.nid, &content.user_id, after(now, REMOTE_TIMEOUT))?;
    } else {
        typing::stop(txn, room.nid, &content.user_id)?;
    }
    Ok(())
}

fn after(now: MilliSecondsSinceUnixEpoch, timeout: Duration) -> MilliSecondsSinceUnixEpoch {
    let timeout = UInt::try_from(timeout.as_millis()).unwrap_or(UInt::MAX);
    MilliSecondsSinceUnixEpoch(now.get().saturating_add(timeout))
}
