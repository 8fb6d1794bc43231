//! Knocking: asking to be let into a room, here when this server is in it, else through any server
//! that is.
//!
//! Whoever is let in gets an invite, and whoever is not a departure; both come like any other. A
//! knock is taken back by leaving.
//!
//! Spec: Client-Server API, "Knocking on rooms"; Server-Server API, "Knocking upon a room".

use std::sync::Arc;

use messagehub_protocol::{
    build::{self, NewEvent, Signer},
    pdu::SignedPdu,
    receive,
    rules::{list_supported, rules_of},
};
use messagehub_store::{
    Room, Txn, events, knocks,
    memberships::{self, NewMembership},
    profiles, rooms,
};
use ruma::{
    OwnedRoomId, OwnedRoomOrAliasId, OwnedServerName, OwnedUserId, RoomVersionId, UserId,
    api::federation::membership::{
        RawStrippedState, create_knock_event::v1 as send_knock,
        prepare_knock_event::v1 as make_knock,
    },
    events::{TimelineEventType, room::member::MembershipState},
};
use serde_json::value::RawValue;

use super::{
    membership::Member,
    ways::{self, EntryError},
};
use crate::{
    Homeserver,
    emit::{Emitted, News},
    federation::{self, ASK_TIMEOUT, route},
    policy::with_signatures,
    rate::RateKey,
    remote_join::RemoteJoinError,
    server::shown,
};

/// Where to knock.
#[derive(Debug)]
pub struct Knock {
    /// The room, or an alias of it.
    pub target: OwnedRoomOrAliasId,
    /// Servers that are said to be in it.
    pub via: Vec<OwnedServerName>,
    /// Why, for people.
    pub reason: Option<String>,
}

/// Knocks on a room and gives its id. The user sees the knock in their sync until it is answered.
///
/// # Errors
///
/// See [`EntryError`].
pub async fn knock(
    hs: &Homeserver,
    user_id: &UserId,
    knock: Knock,
) -> Result<OwnedRoomId, EntryError> {
    hs.limits.rates.check(RateKey::Message(user_id.to_owned()), hs.clock.now())?;
    let (room_id, mut via) = ways::target(hs, knock.target, knock.via).await?;
    let user = user_id.to_owned();
    let profile = hs.store.read(move |snap| profiles::get(snap, &user)).await?;
    let member = Member::new(MembershipState::Knock)
        .with_profile(&profile)
        .with_reason(knock.reason.as_deref());
    let content = member.content()?;
    match local(hs, user_id, &room_id, member).await? {
        Outcome::Heard => return Ok(room_id),
        Outcome::Elsewhere(known) => via.extend(known),
    }
    let via = ways::others(hs, via);
    if via.is_empty() {
        return Err(EntryError::NoWay);
    }
    remote(hs, Remote { room_id: room_id.clone(), user_id: user_id.to_owned(), content, via })
        .await?;
    Ok(room_id)
}

/// What trying it here came to.
enum Outcome {
    /// The room has the knock.
    Heard,
    /// Only other servers can take it; these are known to be in the room.
    Elsewhere(Vec<OwnedServerName>),
}

async fn local(
    hs: &Homeserver,
    user_id: &UserId,
    room_id: &OwnedRoomId,
    member: Member,
) -> Result<Outcome, EntryError> {
    let wanted = Arc::new((user_id.to_owned(), room_id.clone(), member));
    let (outcome, news) = with_signatures(hs, |emitter| {
        let wanted = Arc::clone(&wanted);
        hs.store.write(move |txn| {
            let (user_id, room_id, member) = &*wanted;
            let Some(mut room) = rooms::find(txn, room_id)? else {
                return Ok((Outcome::Elsewhere(ways::named(room_id)), None));
            };
            if !memberships::is_server_in(txn, room.nid, emitter.identity.server_name())? {
                return Ok((Outcome::Elsewhere(ways::known(txn, &room, user_id)?), None));
            }
            let event = member.event(&room, user_id, user_id)?;
            let news = match emitter.emit_state(txn, &mut room, event)? {
                Emitted::New(appended) => {
                    Some(News::of(txn, room, &[appended], emitter.identity.server_name())?)
                }
                Emitted::Same(_) => None,
            };
            Ok::<_, EntryError>((Outcome::Heard, news))
        })
    })
    .await?;
    if let Some(news) = news {
        news.publish(hs).await;
    }
    Ok(outcome)
}

/// A knock on a room that this server is not in.
struct Remote {
    room_id: OwnedRoomId,
    user_id: OwnedUserId,
    content: Box<RawValue>,
    via: Vec<OwnedServerName>,
}

/// Knocks through the first of the servers that takes it; those connected are asked first.
async fn remote(hs: &Homeserver, knock: Remote) -> Result<(), RemoteJoinError> {
    let mut worst = RemoteJoinError::Unreachable;
    for server in route::ordered(hs, knock.via.clone(), knock.via.first()) {
        match through(hs, &server, &knock).await {
            Ok(()) => return Ok(()),
            Err(RemoteJoinError::Store(error)) => return Err(error.into()),
            Err(error) => {
                tracing::info!(%server, room_id = %knock.room_id, %error, "a knock was not taken");
                worst = worst.or(error);
            }
        }
    }
    Err(worst)
}

async fn through(
    hs: &Homeserver,
    server: &OwnedServerName,
    knock: &Remote,
) -> Result<(), RemoteJoinError> {
    let mut request = make_knock::Request::new(knock.room_id.clone(), knock.user_id.clone());
    request.ver = list_supported().cloned().collect();
    let made = federation::ask(hs, server, request, ASK_TIMEOUT).await?;
    let rules = rules_of(&made.room_version).ok_or(RemoteJoinError::UnsupportedVersion)?;
    let new = NewEvent {
        room_id: Some(knock.room_id.clone()),
        sender: knock.user_id.clone(),
        kind: TimelineEventType::RoomMember,
        state_key: Some(knock.user_id.to_string()),
        content: knock.content.clone(),
        redacts: None,
    };
    let signer = Signer { server: hs.server_name(), key: hs.identity.verify_key() };
    let signed =
        build::complete(&made.event, new, hs.clock.now(), signer, rules).map_err(unusable)?;
    let pdu = RawValue::from_string(signed.pdu().json().to_owned()).map_err(unusable)?;
    let event_id = signed.pdu().event_id().to_owned();
    let request = send_knock::Request::new(knock.room_id.clone(), event_id, pdu);
    let answer = federation::ask(hs, server, request, ASK_TIMEOUT).await?;
    let heard = Heard {
        server: server.clone(),
        version: made.room_version,
        knock: signed,
        shown: answer.knock_room_state.into_iter().map(json_of).collect(),
    };
    hs.store.write(move |txn| keep(txn, &heard)).await
}

/// A knock that a server in the room took.
struct Heard {
    server: OwnedServerName,
    version: RoomVersionId,
    knock: SignedPdu,
    /// What the room shows of itself.
    shown: Vec<Box<RawValue>>,
}

fn keep(txn: &mut Txn<'_>, heard: &Heard) -> Result<(), RemoteJoinError> {
    let pdu = heard.knock.pdu();
    let room: Room = rooms::of_version(txn, pdu.room_id(), &heard.version)?;
    let known = memberships::find(txn, room.nid, pdu.sender())?.map(|member| member.membership);
    // The answer may be here before we hear that the knock was taken.
    if matches!(known, Some(MembershipState::Invite | MembershipState::Join)) {
        return Ok(());
    }
    let stripped = shown::stripped(&heard.shown, pdu).map_err(unusable)?;
    let judged = receive::accept_unplaced(heard.knock.clone());
    let nid = events::insert_outlier(txn, &room, &judged)?;
    let pos = txn.next_pos();
    let new = NewMembership {
        membership: &MembershipState::Knock,
        event: Some(nid),
        pos,
        stripped: Some(&stripped),
    };
    memberships::set(txn, room.nid, pdu.sender(), new)?;
    Ok(knocks::put(txn, pdu.room_id(), pdu.sender(), &heard.server)?)
}

#[expect(deprecated, reason = "servers of before Matrix 1.16 send stripped state")]
fn json_of(shown: RawStrippedState) -> Box<RawValue> {
    match shown {
        RawStrippedState::Stripped(event) => event.into_json(),
        RawStrippedState::Pdu(event) => event,
        // A form that this program does not know shows nothing.
        _ => RawValue::NULL.to_owned(),
    }
}

fn unusable(error: impl ToString) -> RemoteJoinError {
    RemoteJoinError::Unusable(error.to_string())
}
