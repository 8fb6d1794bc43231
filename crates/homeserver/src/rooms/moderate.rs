//! Kicking, banning, and lifting a ban.
//!
//! Spec: Client-Server API, "Leaving rooms", "Banning users in a room".

use std::sync::Arc;

use messagehub_store::{Room, Snapshot, StoreError};
use ruma::{
    OwnedRoomId, OwnedUserId, UserId,
    events::{StateEventType, room::member::MembershipState},
};

use super::membership::Member;
use crate::{
    Homeserver,
    emit::{News, SendError},
    policy::with_signatures,
    send::find_room,
    view,
    visibility::membership_in,
};

/// What to do with whom.
#[derive(Debug)]
pub struct Moderation {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Whom it is done to.
    pub user_id: OwnedUserId,
    /// What is done.
    pub action: Action,
    /// Why, for people.
    pub reason: Option<String>,
}

/// What is done to somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Out of the room, or their invite or knock withdrawn.
    Kick,
    /// Out of the room, and kept out.
    Ban,
    /// Kept out no longer.
    Unban,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum ModerateError {
    /// The user is not what they would have to be: in the room for a kick, banned for an unban.
    #[error("the user is not {0} in this room")]
    NotThere(&'static str),
    /// As for any other event.
    #[error(transparent)]
    Send(#[from] SendError),
}

impl From<StoreError> for ModerateError {
    fn from(error: StoreError) -> Self {
        Self::Send(error.into())
    }
}

/// Kicks, bans or unbans. Answers after that is durable.
///
/// # Errors
///
/// See [`ModerateError`].
pub async fn moderate(
    hs: &Homeserver,
    sender: &UserId,
    moderation: Moderation,
) -> Result<(), ModerateError> {
    let wanted = Arc::new((sender.to_owned(), moderation));
    let news = with_signatures(hs, |emitter| {
        let wanted = Arc::clone(&wanted);
        hs.store.write(move |txn| {
            let (sender, Moderation { room_id, user_id, action, reason }) = &*wanted;
            let mut room = find_room(txn, room_id)?;
            let is = membership(txn, &room, user_id)?;
            let becomes = outcome(*action, is)?;
            let member = Member::new(becomes).with_reason(reason.as_deref());
            let event = member.event(&room, sender, user_id)?;
            let appended = emitter.emit(txn, &mut room, event)?;
            let server = emitter.identity.server_name();
            Ok::<_, ModerateError>(News::of(txn, room, &[appended], server)?)
        })
    })
    .await?;
    news.publish(hs).await;
    Ok(())
}

/// A kick and an unban are the same event, so what the user is says which of them it would be.
fn outcome(action: Action, is: Option<MembershipState>) -> Result<MembershipState, ModerateError> {
    match (action, is) {
        (Action::Ban, _) => Ok(MembershipState::Ban),
        (Action::Unban, Some(MembershipState::Ban)) => Ok(MembershipState::Leave),
        (Action::Unban, _) => Err(ModerateError::NotThere("banned")),
        (
            Action::Kick,
            Some(MembershipState::Join | MembershipState::Invite | MembershipState::Knock),
        ) => Ok(MembershipState::Leave),
        (Action::Kick, _) => Err(ModerateError::NotThere("joined, invited or knocking")),
    }
}

/// What the current state says a user is.
pub(crate) fn membership(
    snap: &Snapshot<'_>,
    room: &Room,
    user_id: &UserId,
) -> Result<Option<MembershipState>, StoreError> {
    let member =
        view::state_event(snap, room.state, &StateEventType::RoomMember, user_id.as_str())?;
    Ok(member.and_then(|member| membership_in(&member)))
}
