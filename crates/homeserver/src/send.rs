//! Sending: messages, state and redactions of local users.
//!
//! Spec: Client-Server API, "Sending events to a room" and "Redactions".

use std::sync::Arc;

use messagehub_protocol::{
    auth::{PowerLevel, PowerLevels},
    build::NewEvent,
    pdu::Pdu,
    receive::RoomView,
};
use messagehub_store::{
    Room, Snapshot, Txn, aliases, events, rooms,
    txn_ids::{self, TxnKey},
};
use ruma::{
    OwnedEventId, OwnedRoomAliasId, OwnedRoomId, OwnedTransactionId, RoomId, UserId,
    events::{StateEventType, TimelineEventType},
    state_res::events::RoomPowerLevelsIntField,
};
use serde::Deserialize;
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};

pub use crate::emit::SendError;
use crate::{
    Homeserver, Identity,
    append::Appended,
    emit::{Emitted, Emitter, News},
    policy::with_signatures,
    presence,
    rate::RateKey,
    sessions::Session,
    view,
};

#[cfg(test)]
mod tests;

/// A message-like event to send.
#[derive(Debug)]
pub struct NewMessage {
    /// Where to.
    pub room_id: OwnedRoomId,
    /// The `type`.
    pub kind: TimelineEventType,
    /// The content, a JSON object.
    pub content: Box<RawValue>,
    /// The client's id of this request: repeating it gives the same event.
    pub txn_id: OwnedTransactionId,
}

/// A state event to send.
#[derive(Debug)]
pub struct NewState {
    /// Where to.
    pub room_id: OwnedRoomId,
    /// The `type`.
    pub kind: StateEventType,
    /// The state key.
    pub state_key: String,
    /// The content, a JSON object.
    pub content: Box<RawValue>,
}

/// An event to redact.
#[derive(Debug)]
pub struct NewRedaction {
    /// Its room.
    pub room_id: OwnedRoomId,
    /// The event that loses its content.
    pub target: OwnedEventId,
    /// Why, for people.
    pub reason: Option<String>,
    /// The client's id of this request: repeating it gives the same event.
    pub txn_id: OwnedTransactionId,
}

/// Sends a message-like event from a local user. Answers after it is durable.
///
/// Spec: Client-Server API, "PUT /rooms/{roomId}/send/{eventType}/{txnId}".
///
/// # Errors
///
/// See [`SendError`].
pub async fn message(
    hs: &Homeserver,
    session: &Session,
    new: NewMessage,
) -> Result<OwnedEventId, SendError> {
    let scope = format!("send {} {}", new.room_id, new.kind);
    let request = Request { session: session.clone(), scope, txn_id: new.txn_id };
    let NewMessage { room_id, kind, content, .. } = new;
    let redacts = redacts_in(&kind, &content);
    once(hs, request, room_id, move |emitter, txn, room, sender| {
        let event = NewEvent {
            room_id: Some(room.room_id.clone()),
            sender: sender.to_owned(),
            kind: kind.clone(),
            state_key: None,
            content: content.clone(),
            redacts: redacts.clone(),
        };
        match event.kind {
            TimelineEventType::RoomRedaction => redact(emitter, txn, room, event),
            _ => emitter.emit(txn, room, event),
        }
    })
    .await
}

/// Redacts an event. Answers after that is durable.
///
/// Spec: Client-Server API, "PUT /rooms/{roomId}/redact/{eventId}/{txnId}".
///
/// # Errors
///
/// See [`SendError`].
pub async fn redaction(
    hs: &Homeserver,
    session: &Session,
    new: NewRedaction,
) -> Result<OwnedEventId, SendError> {
    let scope = format!("redact {} {}", new.room_id, new.target);
    let request = Request { session: session.clone(), scope, txn_id: new.txn_id };
    let NewRedaction { room_id, target, reason, .. } = new;
    let content = reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
    once(hs, request, room_id, move |emitter, txn, room, sender| {
        let event = NewEvent {
            room_id: Some(room.room_id.clone()),
            sender: sender.to_owned(),
            kind: TimelineEventType::RoomRedaction,
            state_key: None,
            content: to_raw_value(&content)
                .map_err(|error| SendError::BadContent(error.to_string()))?,
            redacts: Some(target.clone()),
        };
        redact(emitter, txn, room, event)
    })
    .await
}

/// Sets state of a room from a local user. Answers after it is durable; saying what the same user
/// has said already gives the event that says it.
///
/// Spec: Client-Server API, "PUT /rooms/{roomId}/state/{eventType}/{stateKey}".
///
/// # Errors
///
/// See [`SendError`].
pub async fn state(
    hs: &Homeserver,
    sender: &UserId,
    new: NewState,
) -> Result<OwnedEventId, SendError> {
    hs.limits.rates.check(RateKey::Message(sender.to_owned()), hs.clock.now())?;
    let wanted = Arc::new((sender.to_owned(), new));
    let (event_id, news) = with_signatures(hs, |emitter| {
        let wanted = Arc::clone(&wanted);
        hs.store.write(move |txn| {
            let (sender, new) = &*wanted;
            let mut room = find_room(txn, &new.room_id)?;
            check_aliases(txn, &emitter.identity, &room, new)?;
            let event = NewEvent {
                room_id: Some(room.room_id.clone()),
                sender: sender.clone(),
                kind: new.kind.clone().into(),
                state_key: Some(new.state_key.clone()),
                content: new.content.clone(),
                redacts: None,
            };
            let emitted = emitter.emit_state(txn, &mut room, event)?;
            let event_id = emitted.event_id().to_owned();
            let news = match emitted {
                Emitted::New(appended) => {
                    Some(News::of(txn, room, &[appended], emitter.identity.server_name())?)
                }
                Emitted::Same(_) => None,
            };
            Ok::<_, SendError>((event_id, news))
        })
    })
    .await?;
    if let Some(news) = news {
        news.publish(hs).await;
    }
    Ok(event_id)
}

/// A client's request that may come again.
struct Request {
    session: Session,
    scope: String,
    txn_id: OwnedTransactionId,
}

/// Sends one event in one transaction with the id of the request that wants it, so that the same
/// request gets the same event for ever.
async fn once<F>(
    hs: &Homeserver,
    request: Request,
    room_id: OwnedRoomId,
    send: F,
) -> Result<OwnedEventId, SendError>
where
    F: Fn(&Emitter, &mut Txn<'_>, &mut Room, &UserId) -> Result<Appended, SendError>
        + Send
        + Sync
        + 'static,
{
    hs.limits.rates.check(RateKey::Message(request.session.user_id.clone()), hs.clock.now())?;
    presence::note_active(hs, &request.session.user_id);
    let wanted = Arc::new((request, room_id, send));
    let (event_id, news) = with_signatures(hs, |emitter| {
        let (wanted, teller) = (Arc::clone(&wanted), hs.clone());
        hs.store.write(move |txn| {
            let (request, room_id, send) = &*wanted;
            let key = TxnKey {
                user_id: &request.session.user_id,
                device_id: &request.session.device_id,
                scope: &request.scope,
                txn_id: &request.txn_id,
            };
            if let Some(done) = txn_ids::find(txn, key, emitter.now)? {
                return Ok((done, None));
            }
            let mut room = find_room(txn, room_id)?;
            let appended = send(&emitter, txn, &mut room, &request.session.user_id)?;
            txn_ids::set(txn, key, appended.nid)?;
            let event_id = appended.pdu.event_id().to_owned();
            let mut news = News::of(txn, room, &[appended], emitter.identity.server_name())?;
            news.tell_early(&teller);
            Ok::<_, SendError>((event_id, Some(news)))
        })
    })
    .await?;
    if let Some(news) = news {
        news.publish(hs).await;
    }
    Ok(event_id)
}

/// Sends the redaction of an event of the same room that its sender may redact.
fn redact(
    emitter: &Emitter,
    txn: &mut Txn<'_>,
    room: &mut Room,
    event: NewEvent,
) -> Result<Appended, SendError> {
    let target = event.redacts.as_ref().map(|target| events::find(txn, target)).transpose()?;
    let target =
        target.flatten().filter(|target| target.room == room.nid).ok_or(SendError::UnknownEvent)?;
    let opening = view::for_sending(txn, room, &event)?.map_err(SendError::Forbidden)?;
    if !may_redact(&event.sender, &target.pdu, &opening.view) {
        return Err(SendError::MayNotRedact);
    }
    emitter.emit_at(txn, room, event, &opening)
}

/// Users may redact what they sent, and with the power to redact what others sent. Other servers
/// take a redaction from any user of the author's server, so this is for us to keep.
///
/// Spec: Client-Server API, "PUT /rooms/{roomId}/redact/{eventId}/{txnId}".
fn may_redact(user_id: &UserId, target: &Pdu, view: &RoomView) -> bool {
    let levels = PowerLevels::of(&view.state_before, view.rules);
    let needed = levels.level(RoomPowerLevelsIntField::Redact);
    target.sender() == user_id || levels.of_user(user_id) >= PowerLevel::Int(needed)
}

/// A room to send to.
pub(crate) fn find_room(snap: &Snapshot<'_>, room_id: &RoomId) -> Result<Room, SendError> {
    rooms::find(snap, room_id)?.ok_or(SendError::NotInRoom)
}

/// What a redaction that is sent like any other event redacts.
fn redacts_in(kind: &TimelineEventType, content: &RawValue) -> Option<OwnedEventId> {
    #[derive(Deserialize)]
    struct Content {
        redacts: OwnedEventId,
    }
    if *kind != TimelineEventType::RoomRedaction {
        return None;
    }
    serde_json::from_str::<Content>(content.get()).ok().map(|content| content.redacts)
}

/// Aliases of this server that are newly listed must be aliases of the room; those of other
/// servers are taken on trust, as asking them would put the network before the answer.
///
/// Spec: Client-Server API, `m.room.canonical_alias`.
fn check_aliases(
    snap: &Snapshot<'_>,
    identity: &Identity,
    room: &Room,
    new: &NewState,
) -> Result<(), SendError> {
    if new.kind != StateEventType::RoomCanonicalAlias {
        return Ok(());
    }
    let said = view::state_event(snap, room.state, &new.kind, &new.state_key)?;
    let before = said.map_or_else(|| Ok(Vec::new()), |said| aliases_in(said.content()));
    let before = before.unwrap_or_default();
    for alias in aliases_in(&new.content)? {
        let local = alias.server_name() == identity.server_name();
        if before.contains(&alias) || !local {
            continue;
        }
        match aliases::find(snap, &alias)? {
            Some(found) if found.room == room.nid => {}
            _ => return Err(SendError::BadAlias(alias.to_string())),
        }
    }
    Ok(())
}

fn aliases_in(content: &RawValue) -> Result<Vec<OwnedRoomAliasId>, SendError> {
    #[derive(Deserialize)]
    struct Content {
        alias: Option<String>,
        #[serde(default)]
        alt_aliases: Vec<String>,
    }
    let content: Content = serde_json::from_str(content.get())
        .map_err(|error| SendError::BadContent(format!("m.room.canonical_alias: {error}")))?;
    content
        .alias
        .into_iter()
        .filter(|alias| !alias.is_empty())
        .chain(content.alt_aliases)
        .map(|alias| {
            OwnedRoomAliasId::try_from(alias.clone()).map_err(|_| SendError::InvalidAlias(alias))
        })
        .collect()
}
