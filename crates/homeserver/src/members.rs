//! Who is, was or might be in a room.
//!
//! Spec: Client-Server API, "Getting events for a room", `/members`.

use messagehub_store::{StreamPos, events, room_state, rooms};
use ruma::{
    api::client::membership::get_member_events::v3::{Request, Response},
    events::{StateEventType, room::member::MembershipState},
    serde::Raw,
};

use crate::{
    Homeserver,
    client_event::{Format, Reader, RoomIdField},
    messages::{MessagesError, parse},
    sessions::Session,
    visibility::{self, Presence, membership_in},
};

/// The member events of a room, as it is or as it was at a token.
///
/// # Errors
/// See [`MessagesError`].
pub async fn list(
    hs: &Homeserver,
    session: &Session,
    request: Request,
) -> Result<Response, MessagesError> {
    let session = session.clone();
    let now = hs.clock.now();
    let at = parse(request.at.as_deref())?;
    hs.store
        .read(move |snap| {
            let room = rooms::find(snap, &request.room_id)?.ok_or(MessagesError::Forbidden)?;
            let readable = visibility::readable_state(snap, &room, &session.user_id)?
                .ok_or(MessagesError::Forbidden)?;
            let is_joined =
                visibility::presence(snap, room.nid, &session.user_id)? == Presence::Joined;
            let root = match at {
                Some(at) if is_joined && at > StreamPos::ZERO => {
                    rooms::state_at(snap, room.nid, at)?
                }
                _ => readable,
            };
            let wanted = |membership: &MembershipState| {
                request.membership.as_ref().is_none_or(|only| only == membership)
                    && request.not_membership.as_ref().is_none_or(|not| not != membership)
            };
            let reader = Reader { user_id: &session.user_id, device_id: &session.device_id };
            let format = Format { reader, now, room_id: RoomIdField::Present };
            let mut chunk = Vec::new();
            for (_, nid) in room_state::all_of_type(snap, root, &StateEventType::RoomMember)? {
                let event = events::get(snap, nid)?;
                if membership_in(&event.pdu).is_some_and(|membership| wanted(&membership)) {
                    chunk.push(Raw::from_json(format.event(snap, &event)?));
                }
            }
            Ok(Response::new(chunk))
        })
        .await
}
