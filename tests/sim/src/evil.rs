//! What hostile members do besides what their software does. They have real keys of their own and
//! a real homeserver; everything else is made up here.

use std::{rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use messagehub_homeserver::{
    Homeserver, StoreError,
    federation::{self, Call},
    view::{self, ViewError},
};
use messagehub_protocol::{
    build::{self, NewEvent, Place, Signer},
    pdu::{Pdu, SignedPdu},
};
use messagehub_store::rooms;
use ruma::{
    OwnedRoomId, OwnedServerName, OwnedUserId,
    events::{StateEventType, TimelineEventType},
};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use crate::{Fault, deeds, dice::Dice, script::Vice, world::World};

/// Events in one flood.
const FLOOD: usize = 40;

/// How long a hostile node waits for an answer that does not matter to it.
const WAIT: Duration = Duration::from_secs(10);

/// What becomes of a request to a hostile node.
pub(crate) enum Lie {
    /// This answer, and the request reaches nobody.
    Instead(http::Response<Bytes>),
    /// The true answer with a part left out.
    Less,
}

/// What a node answers that does not have an operation.
pub(crate) fn refusal() -> http::Response<Bytes> {
    let error = json!({ "errcode": "M_UNRECOGNIZED", "error": "Unrecognized request" });
    respond(http::StatusCode::NOT_FOUND, &error)
}

fn respond(status: http::StatusCode, body: &Value) -> http::Response<Bytes> {
    let mut response = http::Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response
}

/// How a node lies about a request, if it does.
pub(crate) fn lie(world: &World, node: usize, request: &http::Request<Bytes>) -> Option<Lie> {
    let path = request.uri().path();
    let has = |vice: Vice| world.script.has(node, vice);
    let about = |parts: &[&str]| parts.iter().any(|part| path.contains(part));
    let lie = if has(Vice::Withholds) && about(&["/get_missing_events/"]) {
        Lie::Instead(respond(http::StatusCode::OK, &json!({ "events": [] })))
    } else if has(Vice::Withholds) && about(&["/v1/event/", "/backfill/"]) {
        Lie::Instead(refusal())
    } else if has(Vice::LiesInHeads) && about(&["/net.messagehub/heads"]) {
        Lie::Instead(false_heads(request.body()))
    } else if has(Vice::TellsWrongStates) && about(&["/state_ids/", "/v1/state/"]) {
        Lie::Less
    } else {
        return None;
    };
    world.count(|tally| tally.lies += 1);
    Some(lie)
}

/// Says that all is alike, and to whoever asks on, names heads that nobody ever made.
fn false_heads(asked: &Bytes) -> http::Response<Bytes> {
    let asked: Value = serde_json::from_slice(asked).unwrap_or_default();
    let mut heads = serde_json::Map::new();
    for room_id in
        asked.get("heads").and_then(Value::as_object).into_iter().flat_map(|of| of.keys())
    {
        let id = invented_id(room_id);
        heads.insert(room_id.clone(), json!([format!("${id}")]));
    }
    let digest = asked.get("digest").cloned();
    let mut answer = json!({ "heads": heads });
    if let (Some(digest), Some(answer)) = (digest, answer.as_object_mut()) {
        answer.insert("digest".to_owned(), digest);
    }
    respond(http::StatusCode::OK, &answer)
}

/// 43 characters, as an event id has after its first.
fn invented_id(text: &str) -> String {
    let hash = crate::trace::hash_of(text);
    format!("{hash:016x}{hash:016x}abcdefghijk")
}

/// An answer about a state without every third of its events.
pub(crate) fn less(answer: http::Response<Bytes>) -> http::Response<Bytes> {
    let (parts, body) = answer.into_parts();
    let Ok(mut told) = serde_json::from_slice::<Value>(&body) else {
        return http::Response::from_parts(parts, body);
    };
    for list in ["pdu_ids", "pdus"] {
        if let Some(events) = told.get_mut(list).and_then(Value::as_array_mut) {
            let mut number = 0;
            events.retain(|_| {
                number += 1;
                number % 3 != 0
            });
        }
    }
    http::Response::from_parts(parts, Bytes::from(told.to_string()))
}

/// Does what belongs to a vice, in some room that the node is in.
pub(crate) async fn misbehave(
    world: &Rc<World>,
    (node, vice): (usize, Vice),
    dice: &Dice,
) -> Result<(), Fault> {
    let Some(hs) = world.nodes[node].hs() else { return Ok(()) };
    let users = world.nodes[node].users.borrow().clone();
    let Some(user) = dice.pick(&users) else { return Ok(()) };
    let Some(room_id) = deeds::a_room_of(&hs, &user, dice).await? else { return Ok(()) };
    let at = Standpoint { world: Rc::clone(world), node, hs, user, room_id };
    world.count(|tally| tally.misdeeds += 1);
    match vice {
        Vice::Forges => at.forge(dice).await,
        Vice::Equivocates => at.equivocate(dice).await,
        Vice::Floods => at.flood(dice).await,
        // These lie in wait.
        Vice::Withholds | Vice::LiesInHeads | Vice::TellsWrongStates => Ok(()),
    }
}

/// Who does it, and where.
struct Standpoint {
    world: Rc<World>,
    node: usize,
    hs: Homeserver,
    user: OwnedUserId,
    room_id: OwnedRoomId,
}

impl Standpoint {
    /// An event that is not taken into any room, and where it would stand. `None` where the rules
    /// do not let the node build it.
    async fn draft(
        &self,
        (sender, signer): (OwnedUserId, OwnedServerName),
        (kind, state_key, content): (TimelineEventType, Option<String>, Value),
    ) -> Result<Option<(SignedPdu, Place)>, Fault> {
        let (hs, room_id) = (self.hs.clone(), self.room_id.clone());
        let (now, content) = (hs.clock.now(), to_raw_value(&content)?);
        let new = NewEvent {
            room_id: Some(room_id.clone()),
            sender,
            kind,
            state_key,
            content,
            redacts: None,
        };
        let identity = Arc::clone(&hs.identity);
        let drafted = hs.store.write(move |txn| {
            let Some(room) = rooms::find(txn, &room_id)? else { return Ok(None) };
            let Ok(opening) = view::for_sending(txn, &room, &new)? else { return Ok(None) };
            let signer = Signer { server: &signer, key: identity.verify_key() };
            let event = build::event(new, &opening.place, now, signer, opening.view.rules);
            Ok::<_, ViewError>(event.ok().map(|event| (event, opening.place)))
        });
        match drafted.await {
            Ok(drafted) => Ok(drafted),
            Err(ViewError::Store(error)) => Err(error.into()),
            Err(_) => Ok(None),
        }
    }

    fn own(&self) -> (OwnedUserId, OwnedServerName) {
        (self.user.clone(), self.hs.server_name().to_owned())
    }

    /// The other nodes.
    fn others(&self) -> Vec<usize> {
        let present = self.world.script.present();
        present.into_iter().filter(|other| *other != self.node).collect()
    }

    /// Speaks as somebody else: with the wrong name under the signature, and with none.
    async fn forge(&self, dice: &Dice) -> Result<(), Fault> {
        let Some(victim) = dice.pick(&self.others()) else { return Ok(()) };
        let users = self.world.nodes[victim].users.borrow().clone();
        let Some(user) = dice.pick(&users) else { return Ok(()) };
        let mut forged = Vec::new();
        for signer in [self.hs.server_name().to_owned(), user.server_name().to_owned()] {
            let text = format!("said by nobody {}", dice.any());
            let content = json!({ "msgtype": "m.text", "body": text });
            let what = (TimelineEventType::RoomMessage, None, content);
            if let Some((event, _)) = self.draft((user.clone(), signer), what).await? {
                self.world.forged.borrow_mut().insert(event.pdu().event_id().to_owned());
                forged.push(event.into_pdu());
            }
        }
        federation::announce::announce(&self.hs, &self.room_id, &forged).await;
        for other in dice.some(&self.others(), 4) {
            self.push(other, &forged).await;
        }
        Ok(())
    }

    /// Tells one half that one thing came after what all know, and the other half another.
    async fn equivocate(&self, dice: &Dice) -> Result<(), Fault> {
        let mut halves: [Vec<usize>; 2] = Default::default();
        for other in self.others() {
            halves[dice.index(2)].push(other);
        }
        let kind = dice.pick(&[StateEventType::RoomTopic, StateEventType::RoomName]);
        let kind = kind.unwrap_or(StateEventType::RoomTopic);
        for half in halves {
            let text = format!("version {}", dice.any());
            let content = json!({ "topic": text, "name": text });
            let what = (TimelineEventType::from(kind.to_string()), Some(String::new()), content);
            let Some((event, _)) = self.draft(self.own(), what).await? else { return Ok(()) };
            let event = event.into_pdu();
            for other in half {
                self.push(other, std::slice::from_ref(&event)).await;
            }
        }
        Ok(())
    }

    /// Sends many events that follow one which nobody ever gets.
    async fn flood(&self, dice: &Dice) -> Result<(), Fault> {
        let what = |text: String| {
            let content = json!({ "msgtype": "m.text", "body": text });
            (TimelineEventType::RoomMessage, None, content)
        };
        let first = what(format!("kept back {}", dice.any()));
        let Some((first, place)) = self.draft(self.own(), first).await? else { return Ok(()) };
        let place = Place { prev_events: vec![first.into_pdu()], ..place };
        let mut events = Vec::with_capacity(FLOOD);
        for number in 0..FLOOD {
            let (kind, state_key, content) = what(format!("{number} of {}", dice.any()));
            let new = NewEvent {
                room_id: Some(self.room_id.clone()),
                sender: self.user.clone(),
                kind,
                state_key,
                content: to_raw_value(&content)?,
                redacts: None,
            };
            events.extend(self.build(new, &place).await?);
        }
        for other in dice.some(&self.others(), 4) {
            self.push(other, &events).await;
        }
        Ok(())
    }

    async fn build(&self, new: NewEvent, place: &Place) -> Result<Option<Arc<Pdu>>, Fault> {
        let (hs, room_id, place) = (self.hs.clone(), self.room_id.clone(), place.clone());
        let (identity, now) = (Arc::clone(&hs.identity), hs.clock.now());
        let built = hs.store.read(move |snap| {
            let Some(room) = rooms::find(snap, &room_id)? else { return Ok(None) };
            let Ok(rules) = view::rules(&room) else { return Ok(None) };
            let signer = Signer { server: identity.server_name(), key: identity.verify_key() };
            let event = build::event(new, &place, now, signer, rules).ok();
            Ok::<_, StoreError>(event.map(SignedPdu::into_pdu))
        });
        Ok(built.await?)
    }

    /// Sends events to one node, as a transaction.
    async fn push(&self, to: usize, events: &[Arc<Pdu>]) {
        let hs = &self.hs;
        let pdus: Vec<Box<RawValue>> = events
            .iter()
            .filter_map(|event| RawValue::from_string(event.json().to_owned()).ok())
            .collect();
        let body = json!({
            "origin": hs.server_name(),
            "origin_server_ts": hs.clock.now_ms(),
            "pdus": pdus,
            "edus": [],
            "server_keys": [hs.identity.server_keys().json()],
        });
        let id = crate::trace::hash_of(body.to_string());
        let call = Call {
            method: http::Method::PUT,
            uri: format!("/_matrix/federation/v1/send/x{id}"),
            body: body.to_string().into_bytes(),
        };
        // Whether it is taken is for the other side to say.
        let name = self.world.nodes[to].name.clone();
        let answer = federation::ask_raw(hs, &name, call, WAIT).await;
        self.world.note(("pushed", self.node, to, answer.is_ok()));
    }
}
