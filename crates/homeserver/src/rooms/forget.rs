//! Forgetting a room that one has left.
//!
//! Spec: Client-Server API, "POST /rooms/{roomId}/forget".

use messagehub_store::{StoreError, memberships, rooms};
use ruma::{OwnedRoomId, UserId, events::room::member::MembershipState};

use crate::Homeserver;

/// Why a room is not forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// The user never had to do with such a room, or has forgotten it.
    #[error("the user does not know this room")]
    Unknown,
    /// The user is in the room, or invited to it.
    #[error("the user has not left this room")]
    StillThere,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Takes a room that a user has left off their list for good; they can join it again.
///
/// # Errors
///
/// See [`ForgetError`].
pub async fn forget(
    hs: &Homeserver,
    user_id: &UserId,
    room_id: OwnedRoomId,
) -> Result<(), ForgetError> {
    let user_id = user_id.to_owned();
    hs.store
        .write(move |txn| {
            let room = rooms::find(txn, &room_id)?.ok_or(ForgetError::Unknown)?;
            let member = memberships::find(txn, room.nid, &user_id)?.ok_or(ForgetError::Unknown)?;
            match member.membership {
                MembershipState::Leave | MembershipState::Ban => {
                    Ok(memberships::remove(txn, room.nid, &user_id)?)
                }
                _ => Err(ForgetError::StillThere),
            }
        })
        .await
}
