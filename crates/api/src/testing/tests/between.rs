//! What the tests of room-shaped operations across nodes share.

use std::time::Duration;

use messagehub_homeserver::{
    federation::{self, Call, FederationError},
    rooms::{moderate::Action, ways::EntryError},
    send::NewState,
    sync,
};
use messagehub_protocol::{
    build::{self, NewEvent, Signer},
    rules::rules_of,
};
use ruma::{
    OwnedEventId, RoomId, RoomVersionId, ServerName,
    api::client::sync::sync_events::v3 as sync_events,
};
use serde_json::Value;

use super::*;

mod directory;
mod knocking;
mod limits;
mod lookups;
mod policy;
mod restricted;

/// A refusal: status and `errcode`.
type Refusal = (u16, String);

/// One operation of the Server-Server API, asked as one node of another.
async fn ask(
    from: &Node,
    to: &ServerName,
    (method, uri): (&str, &str),
    body: Value,
) -> Result<Value, Refusal> {
    let call = Call {
        method: method.parse().unwrap(),
        uri: uri.to_owned(),
        body: if body.is_null() { Vec::new() } else { body.to_string().into_bytes() },
    };
    match federation::ask_json(&from.hs, to, call, Duration::from_secs(20)).await {
        Ok(answer) => Ok(answer),
        Err(FederationError::Refused { status, errcode, .. }) => Err((status, errcode)),
        Err(error) => panic!("{method} {uri}: {error}"),
    }
}

fn refused(status: u16, errcode: &str) -> Result<Value, Refusal> {
    Err((status, errcode.to_owned()))
}

fn enc(text: impl AsRef<str>) -> String {
    federation::path_segment(text.as_ref())
}

async fn set_at(
    hs: &Homeserver,
    by: &Session,
    room_id: &RoomId,
    (kind, state_key): (&str, &str),
    content: Value,
) -> OwnedEventId {
    let new = NewState {
        room_id: room_id.to_owned(),
        kind: StateEventType::from(kind),
        state_key: state_key.to_owned(),
        content: to_raw_value(&content).unwrap(),
    };
    send::state(hs, &by.user_id, new).await.unwrap()
}

async fn set(hs: &Homeserver, by: &Session, room_id: &RoomId, kind: &str, content: Value) {
    set_at(hs, by, room_id, (kind, ""), content).await;
}

/// A new room of a user with a join rule.
async fn room_with(net: &mut Net, a: (&Node, &Session), join_rule: Value) -> OwnedRoomId {
    let room_id = net.drive(create::room(&a.0.hs, &a.1.user_id, NewRoom::new())).await.unwrap();
    net.drive(set(&a.0.hs, a.1, &room_id, "m.room.join_rules", join_rule)).await;
    room_id
}

async fn try_join(
    node: &Node,
    by: &Session,
    room_id: &OwnedRoomId,
    via: Vec<OwnedServerName>,
) -> Result<OwnedRoomId, EntryError> {
    let join = Join { target: room_id.clone().into(), via, reason: None };
    join::join(&node.hs, &by.user_id, join).await
}

/// The first sync of a user.
async fn synced(hs: &Homeserver, session: &Session) -> sync_events::Response {
    sync::sync(hs, session, sync_events::Request::new()).await.unwrap()
}

async fn until_membership(
    net: &mut Net,
    node: &Node,
    room_id: &OwnedRoomId,
    user_id: &UserId,
    wanted: MembershipState,
) {
    let wanted = Some(wanted);
    net.until(&format!("{user_id} is {wanted:?}"), || async {
        membership(&node.hs, room_id, user_id).await == wanted
    })
    .await;
}

/// A membership that somebody gives to somebody, where a template has it: its id, and itself.
pub(super) fn completed(
    node: &Node,
    room_id: &RoomId,
    who: (&UserId, &UserId),
    what: (&Value, &str),
) -> (String, Value) {
    completed_in(&RoomVersionId::V12, node, room_id, who, what)
}

fn completed_in(
    version: &RoomVersionId,
    node: &Node,
    room_id: &RoomId,
    (sender, target): (&UserId, &UserId),
    (template, membership): (&Value, &str),
) -> (String, Value) {
    let new = NewEvent {
        room_id: Some(room_id.to_owned()),
        sender: sender.to_owned(),
        kind: TimelineEventType::RoomMember,
        state_key: Some(target.to_string()),
        content: to_raw_value(&json!({ "membership": membership })).unwrap(),
        redacts: None,
    };
    let signer = Signer { server: node.name(), key: node.hs.identity.verify_key() };
    let rules = rules_of(version).unwrap();
    let template = to_raw_value(template).unwrap();
    let signed = build::complete(&template, new, node.hs.clock.now(), signer, rules).unwrap();
    let pdu = signed.pdu();
    (pdu.event_id().to_string(), serde_json::from_str(pdu.json()).unwrap())
}
