//! Invites to an address that is no Matrix id, once somebody has shown that it is theirs.
//!
//! Whether that was shown is for the rules of the room to say: the `signed` object must be signed
//! by a key that the `m.room.third_party_invite` event with its token names.
//!
//! Spec: Server-Server API, "Third-party invites".

use std::sync::Arc;

use messagehub_protocol::build::NewEvent;
use messagehub_store::{Room, Snapshot, memberships, rooms, users};
use ruma::{
    OwnedRoomId, OwnedServerName, OwnedUserId, UserId,
    api::federation::thirdparty::exchange_invite::v1 as exchange_invite,
    events::{StateEventType, TimelineEventType, room::member::RoomMemberEventContent},
    serde::Raw,
};
use serde::Deserialize;
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use super::{access::resident_room, membership::MembershipError};
use crate::{
    Homeserver,
    emit::{News, SendError},
    federation::{self, ASK_TIMEOUT, FederationError},
    policy::with_signatures,
    rate::{Limited, RateKey},
    view,
};

/// Invites of one message: an address was rarely invited more often before its owner came.
const MAX_INVITES: usize = 20;

/// An invite that somebody wants to be made for a user, in the words of the operation.
#[derive(Debug)]
pub struct Exchange {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The type of the event that is wanted.
    pub kind: StateEventType,
    /// Who invited the address.
    pub sender: OwnedUserId,
    /// Whose address it is.
    pub invited: OwnedUserId,
    /// The content of the event, with the proof.
    pub content: Box<RawValue>,
}

/// The proof that an address is somebody's.
#[derive(Deserialize)]
struct Proof {
    third_party_invite: ThirdPartyInvite,
}

#[derive(Deserialize)]
struct ThirdPartyInvite {
    signed: Value,
}

/// Makes the invite, if the room's rules take the proof. The invited user's server, which asks,
/// gets it like any other invite.
///
/// # Errors
/// Why not.
pub async fn exchange(
    hs: &Homeserver,
    origin: OwnedServerName,
    wanted: Exchange,
) -> Result<(), MembershipError> {
    if wanted.kind != StateEventType::RoomMember {
        return Err(MembershipError::BadEvent("the event is no membership".to_owned()));
    }
    if wanted.invited.server_name() != origin {
        return Err(MembershipError::NotYourUser);
    }
    if !hs.identity.is_local(&wanted.sender) {
        return Err(MembershipError::Forbidden("the inviter is of another server".to_owned()));
    }
    let proof: Proof = serde_json::from_str(wanted.content.get())
        .map_err(|error| MembershipError::BadEvent(error.to_string()))?;
    let wanted = Arc::new((origin, wanted, proof.third_party_invite.signed));
    let news = with_signatures(hs, |emitter| {
        let wanted = Arc::clone(&wanted);
        hs.store.write(move |txn| {
            let (origin, wanted, signed) = &*wanted;
            let us = emitter.identity.server_name();
            let mut room = resident_room(txn, &wanted.room_id, us, origin)?;
            let who = (&*wanted.sender, &*wanted.invited);
            let event = invite(txn, &room, who, signed)?;
            let appended = emitter.emit(txn, &mut room, event)?;
            Ok::<_, MembershipError>(News::of(txn, room, &[appended], us)?)
        })
    })
    .await?;
    news.publish(hs).await;
    Ok(())
}

/// The event that invites the owner of an address. How the address is shown is for the event that
/// invited it to say.
fn invite(
    snap: &Snapshot<'_>,
    room: &Room,
    (sender, invited): (&UserId, &UserId),
    signed: &Value,
) -> Result<NewEvent, MembershipError> {
    let forbidden = |text: &str| MembershipError::Forbidden(text.to_owned());
    let token = signed["token"].as_str().ok_or_else(|| forbidden("the proof names no invite"))?;
    let kind = StateEventType::RoomThirdPartyInvite;
    let invite = view::state_event(snap, room.state, &kind, token)?
        .ok_or_else(|| forbidden("the room has no such invite"))?;
    let shown: Value = serde_json::from_str(invite.content().get()).unwrap_or_default();
    let content = json!({
        "membership": "invite",
        "third_party_invite": {
            "display_name": shown["display_name"].as_str().unwrap_or_default(),
            "signed": signed,
        },
    });
    Ok(NewEvent {
        room_id: Some(room.room_id.clone()),
        sender: sender.to_owned(),
        kind: TimelineEventType::RoomMember,
        state_key: Some(invited.to_string()),
        content: to_raw_value(&content)
            .map_err(|error| MembershipError::BadEvent(error.to_string()))?,
        redacts: None,
    })
}

/// That an address is a user's of this server, and an invite to it.
#[derive(Debug)]
pub struct Bound {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Who invited the address.
    pub sender: OwnedUserId,
    /// The proof.
    pub signed: Box<RawValue>,
}

/// Turns the invites to an address into invites of its owner: here where this server is in the
/// room, else by asking the inviter's server. The message itself proves nothing; the rules of each
/// room judge the proof in it.
///
/// # Errors
/// The user is none of ours, or an invite was not made; then the others were not tried.
pub async fn bound(
    hs: &Homeserver,
    user_id: OwnedUserId,
    invites: Vec<Bound>,
) -> Result<(), MembershipError> {
    hs.limits.rates.check(RateKey::StrangeInvite, hs.clock.now())?;
    if invites.len() > MAX_INVITES {
        return Err(MembershipError::TooManyInvites);
    }
    let is_ours = hs.identity.is_local(&user_id);
    let wanted = user_id.clone();
    if !is_ours || !hs.store.read(move |snap| users::exists(snap, &wanted)).await? {
        return Err(MembershipError::UnknownUser);
    }
    for invite in invites {
        if !here(hs, &user_id, &invite).await? {
            elsewhere(hs, &user_id, invite).await?;
        }
    }
    Ok(())
}

/// Makes the invite in a room that this server is in; `false` in others.
async fn here(
    hs: &Homeserver,
    user_id: &OwnedUserId,
    bound: &Bound,
) -> Result<bool, MembershipError> {
    let signed: Value = serde_json::from_str(bound.signed.get())
        .map_err(|error| MembershipError::BadEvent(error.to_string()))?;
    let wanted = Arc::new((bound.room_id.clone(), bound.sender.clone(), user_id.clone(), signed));
    let news = with_signatures(hs, |emitter| {
        let wanted = Arc::clone(&wanted);
        hs.store.write(move |txn| {
            let (room_id, sender, user_id, signed) = &*wanted;
            let us = emitter.identity.server_name();
            let Some(mut room) = rooms::find(txn, room_id)? else { return Ok(None) };
            if !memberships::is_server_in(txn, room.nid, us)? {
                return Ok(None);
            }
            // The inviter may be of another server: such an invite needs no signature of theirs.
            let event = invite(txn, &room, (sender, user_id), signed)?;
            let appended = emitter.emit(txn, &mut room, event)?;
            Ok::<_, MembershipError>(Some(News::of(txn, room, &[appended], us)?))
        })
    })
    .await?;
    let Some(news) = news else { return Ok(false) };
    news.publish(hs).await;
    Ok(true)
}

async fn elsewhere(
    hs: &Homeserver,
    user_id: &OwnedUserId,
    bound: Bound,
) -> Result<(), MembershipError> {
    let content = json!({
        "membership": "invite",
        "third_party_invite": { "display_name": "", "signed": bound.signed },
    });
    let content = Raw::<RoomMemberEventContent>::from_json(
        to_raw_value(&content).map_err(|error| MembershipError::BadEvent(error.to_string()))?,
    );
    let server = bound.sender.server_name().to_owned();
    let request =
        exchange_invite::Request::new(bound.room_id, bound.sender, user_id.clone(), content);
    match federation::ask(hs, &server, request, ASK_TIMEOUT).await {
        Ok(_) => Ok(()),
        Err(FederationError::Store(error)) => Err(error.into()),
        Err(FederationError::Refused {
            status: 429, retry_after_ms: Some(retry_after_ms), ..
        }) => Err(Limited { retry_after_ms }.into()),
        Err(error) => Err(MembershipError::Forbidden(format!("{server} makes no invite: {error}"))),
    }
}

impl From<SendError> for MembershipError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Store(error) => error.into(),
            SendError::Room(error) => error.into(),
            SendError::Limited(limited) => limited.into(),
            SendError::BadContent(_) | SendError::TooLarge => Self::BadEvent(error.to_string()),
            error => Self::Forbidden(error.to_string()),
        }
    }
}
