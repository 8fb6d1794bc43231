//! Inviting, here and on other servers.
//!
//! The invite is an event of the room at once; a remote user's server gets it from the outbox as
//! soon as there is a way to it, so inviting somebody who is offline is no error (D12).
//!
//! Spec: Client-Server API, "POST /rooms/{roomId}/invite".

use std::sync::Arc;

use messagehub_protocol::build::NewEvent;
use messagehub_store::{Room, Snapshot, profiles};
use ruma::{OwnedRoomId, OwnedUserId, UserId, events::room::member::MembershipState};

use super::membership::{Member, Purpose};
use crate::{
    Homeserver, Identity,
    emit::{Emitted, News, SendError},
    policy::with_signatures,
    send::find_room,
};

/// Whom to invite where.
#[derive(Debug)]
pub struct Invite {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Who is invited.
    pub user_id: OwnedUserId,
    /// Why, for people.
    pub reason: Option<String>,
}

/// Invites somebody. Answers after that is durable.
///
/// # Errors
///
/// See [`SendError`].
pub async fn invite(hs: &Homeserver, sender: &UserId, invite: Invite) -> Result<(), SendError> {
    let wanted = Arc::new((sender.to_owned(), invite));
    let news = with_signatures(hs, |emitter| {
        let wanted = Arc::clone(&wanted);
        hs.store.write(move |txn| {
            let (sender, invite) = &*wanted;
            let mut room = find_room(txn, &invite.room_id)?;
            let member = invited(txn, &emitter.identity, &invite.user_id)?
                .with_reason(invite.reason.as_deref());
            let event = member.event(&room, sender, &invite.user_id)?;
            match emitter.emit_state(txn, &mut room, event)? {
                Emitted::New(appended) => {
                    let server = emitter.identity.server_name();
                    Ok::<_, SendError>(Some(News::of(txn, room, &[appended], server)?))
                }
                Emitted::Same(_) => Ok(None),
            }
        })
    })
    .await?;
    if let Some(news) = news {
        news.publish(hs).await;
    }
    Ok(())
}

/// The invite that comes with a new room.
pub(super) fn of_new_room(
    snap: &Snapshot<'_>,
    identity: &Identity,
    (room, sender, target): (&Room, &UserId, &UserId),
    purpose: Purpose,
) -> Result<NewEvent, SendError> {
    let member = invited(snap, identity, target)?;
    let member = match purpose {
        Purpose::Direct => member.with("is_direct", true),
        Purpose::Room => member,
    };
    member.event(room, sender, target)
}

/// An invite says how the invited is seen, where that is known here.
fn invited(
    snap: &Snapshot<'_>,
    identity: &Identity,
    user_id: &UserId,
) -> Result<Member, SendError> {
    let member = Member::new(MembershipState::Invite);
    if !identity.is_local(user_id) {
        return Ok(member);
    }
    Ok(member.with_profile(&profiles::get(snap, user_id)?))
}
