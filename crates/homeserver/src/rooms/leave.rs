//! Leaving a room, and refusing an invite.
//!
//! Spec: Client-Server API, "POST /rooms/{roomId}/leave".

use std::sync::Arc;

use messagehub_store::{
    Room, StoreError, Txn, events, joins_under_way, knocks,
    memberships::{self, Membership, NewMembership},
    outbox, rooms,
};
use ruma::{OwnedRoomId, RoomId, UserId, events::room::member::MembershipState};
use serde_json::json;

use super::membership::Member;
use crate::{
    Homeserver,
    emit::{Emitter, News, SendError},
    policy::with_signatures,
};

/// Why somebody has not left.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    /// The user never had to do with such a room.
    #[error("the user is not in this room")]
    NotInRoom,
    /// As for any other event.
    #[error(transparent)]
    Send(#[from] SendError),
}

impl From<StoreError> for LeaveError {
    fn from(error: StoreError) -> Self {
        Self::Send(error.into())
    }
}

/// Leaves a room, or refuses the invite to one. Somebody who has left already has nothing to do.
///
/// Refusing an invite of a room that this server is not in counts here at once; the inviting
/// server learns of it from the outbox.
///
/// # Errors
///
/// See [`LeaveError`].
pub async fn leave(
    hs: &Homeserver,
    user_id: &UserId,
    room_id: OwnedRoomId,
    reason: Option<String>,
) -> Result<(), LeaveError> {
    let wanted = Arc::new((user_id.to_owned(), room_id, reason));
    let news = with_signatures(hs, |emitter| {
        let wanted = Arc::clone(&wanted);
        hs.store.write(move |txn| {
            let (user_id, room_id, reason) = &*wanted;
            // A join that is on its way is not to come to its end.
            let is_withdrawn = joins_under_way::withdraw(txn, room_id, user_id)?;
            let (room, member) = match find(txn, room_id, user_id) {
                Err(LeaveError::NotInRoom) if is_withdrawn => return Ok(None),
                found => found?,
            };
            if member.membership == MembershipState::Leave {
                return Ok(None);
            }
            if !memberships::is_server_in(txn, room.nid, emitter.identity.server_name())? {
                refuse_remote(txn, &emitter, &room, &member)?;
                return Ok(None);
            }
            local(txn, &emitter, room, (user_id, reason.as_deref())).map(Some)
        })
    })
    .await?;
    match news {
        Some(news) => news.publish(hs).await,
        None => hs.peers.wake(),
    }
    Ok(())
}

fn find(
    txn: &Txn<'_>,
    room_id: &RoomId,
    user_id: &UserId,
) -> Result<(Room, Membership), LeaveError> {
    let room = rooms::find(txn, room_id)?.ok_or(LeaveError::NotInRoom)?;
    let member = memberships::find(txn, room.nid, user_id)?.ok_or(LeaveError::NotInRoom)?;
    Ok((room, member))
}

fn local(
    txn: &mut Txn<'_>,
    emitter: &Emitter,
    mut room: Room,
    (user_id, reason): (&UserId, Option<&str>),
) -> Result<News, LeaveError> {
    let member = Member::new(MembershipState::Leave).with_reason(reason);
    let event = member.event(&room, user_id, user_id)?;
    let appended = emitter.emit(txn, &mut room, event)?;
    Ok(News::of(txn, room, &[appended], emitter.identity.server_name())?)
}

/// Refuses an invite, or takes a knock back, where only others can make the event.
fn refuse_remote(
    txn: &mut Txn<'_>,
    emitter: &Emitter,
    room: &Room,
    member: &Membership,
) -> Result<(), LeaveError> {
    if !matches!(member.membership, MembershipState::Invite | MembershipState::Knock) {
        return Err(LeaveError::NotInRoom);
    }
    let asked = match member.event {
        // The event of a knock is ours; the way back is the way it went.
        _ if member.membership == MembershipState::Knock => {
            knocks::server(txn, &room.room_id, &member.user_id)?
        }
        Some(nid) => Some(events::pdu(txn, nid)?.sender().server_name().to_owned()),
        None => None,
    };
    knocks::remove(txn, &room.room_id, &member.user_id)?;
    let pos = txn.next_pos();
    let gone =
        NewMembership { membership: &MembershipState::Leave, event: None, pos, stripped: None };
    memberships::set(txn, room.nid, &member.user_id, gone)?;
    let Some(asked) = asked else { return Ok(()) };
    let body = json!({ "room_id": room.room_id, "user_id": member.user_id, "via": [asked] });
    let body = body.to_string();
    let entry = outbox::NewEntry {
        destination: &asked,
        kind: outbox::Kind::Leave,
        slot: None,
        body: &body,
    };
    // That the outbox of that server is full is no reason to stay invited.
    outbox::insert(txn, entry, emitter.now)?;
    Ok(())
}
