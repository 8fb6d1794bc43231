//! Graphs drawn in text.
//!
//! `room ← join(bob) ← { ban(bob) | topic(x) by bob }`: each event follows the one before it, the
//! branches of braces follow the same one, and what comes after the braces follows all of them.
//! `room` is a public room of alice's. `by` says who sends, `@` when (in ms after the start).

use std::sync::Arc;

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, RoomId, RoomVersionId,
    events::TimelineEventType,
};
use serde_json::{json, value::RawValue};

use super::{Node, Person, at, person};
use crate::{
    auth::{StateMap, auth_types, select},
    build::{NewEvent, Place, event},
    pdu::{Pdu, SignedPdu},
    receive::Verdict,
    rules::rules_of,
};

/// A graph and the node that saw it grow.
pub(crate) struct Drawn {
    pub(crate) node: Node,
    pub(crate) events: Vec<SignedPdu>,
    version: RoomVersionId,
    room_id: Option<OwnedRoomId>,
}

/// Draws a graph in a room of a version.
pub(crate) fn draw(version: &RoomVersionId, text: &str) -> Drawn {
    let mut drawn = Drawn {
        node: Node::new(rules_of(version).unwrap()),
        events: vec![],
        version: version.clone(),
        room_id: None,
    };
    let text = text.replace("room", "create ← join(alice) ← power() ← rules(public)");
    let mut tips = vec![];
    for step in split(&text, '←') {
        tips = drawn.step(step.trim(), tips);
    }
    drawn
}

/// Splits where no bracket is open.
fn split(text: &str, at: char) -> Vec<&str> {
    let mut depth = 0;
    text.split(|c: char| {
        match c {
            '(' | '{' => depth += 1,
            ')' | '}' => depth -= 1,
            _ => {}
        }
        depth == 0 && c == at
    })
    .collect()
}

impl Drawn {
    fn step(&mut self, text: &str, tips: Vec<OwnedEventId>) -> Vec<OwnedEventId> {
        let Some(inner) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) else {
            return vec![self.event(text, &tips)];
        };
        let mut ends = vec![];
        for branch in split(inner, '|') {
            let mut tips = tips.clone();
            for step in split(branch, '←') {
                tips = self.step(step.trim(), tips);
            }
            ends.extend(tips);
        }
        ends
    }

    fn event(&mut self, text: &str, tips: &[OwnedEventId]) -> OwnedEventId {
        let (text, ms) = match text.split_once('@') {
            Some((text, ms)) => (text.trim(), ms.trim().parse().unwrap()),
            None => (text, self.events.len() as u32 * 1000),
        };
        let (text, by) = match text.split_once(" by ") {
            Some((text, by)) => (text.trim(), Some(by.trim())),
            None => (text, None),
        };
        let (name, argument) = match text.split_once('(') {
            Some((name, argument)) => (name, argument.strip_suffix(')').unwrap()),
            None => (text, ""),
        };
        let own = matches!(name, "join" | "leave" | "knock").then_some(argument);
        let sender = person(by.or(own).unwrap_or("alice"));
        let new = self.new_event(name, argument, &sender);
        let pdu = self.place(new, tips, at(ms), &sender);
        self.add(pdu)
    }

    /// Adds a finished event.
    pub(crate) fn add(&mut self, pdu: SignedPdu) -> OwnedEventId {
        let id = pdu.pdu().event_id().to_owned();
        self.events.push(pdu.clone());
        self.node.receive(pdu);
        id
    }

    /// Builds an event after others as its sender sees the room there; whether it is allowed is
    /// not asked.
    pub(crate) fn place(
        &mut self,
        new: NewEvent,
        tips: &[OwnedEventId],
        now: MilliSecondsSinceUnixEpoch,
        sender: &Person,
    ) -> SignedPdu {
        let node = &self.node;
        let state = node.after(tips);
        let state = state.into_iter().map(|(key, id)| (key, Arc::clone(&node.pdus[&id])));
        let types =
            auth_types(&new.kind, &new.sender, new.state_key.as_deref(), &new.content, node.rules);
        let place = Place {
            prev_events: tips.iter().map(|id| Arc::clone(&node.pdus[id])).collect(),
            auth_events: select(&types.unwrap(), &state.collect()),
        };
        let pdu = event(new, &place, now, sender.signer(), node.rules).unwrap();
        self.room_id.get_or_insert_with(|| pdu.pdu().room_id().to_owned());
        pdu
    }

    /// An event by its name in a drawing.
    pub(crate) fn new_event(&self, name: &str, argument: &str, sender: &Person) -> NewEvent {
        let member = |membership: &str| {
            let user = person(argument.trim()).user_id.to_string();
            ("m.room.member", Some(user), json!({ "membership": membership }))
        };
        let (kind, state_key, content) = match name {
            "create" => ("m.room.create", Some(String::new()), self.create_content(sender)),
            "join" => member("join"),
            "leave" | "kick" => member("leave"),
            "ban" => member("ban"),
            "invite" => member("invite"),
            "knock" => member("knock"),
            "power" => ("m.room.power_levels", Some(String::new()), self.power_content(argument)),
            "rules" => ("m.room.join_rules", Some(String::new()), json!({ "join_rule": argument })),
            "topic" => ("m.room.topic", Some(String::new()), json!({ "topic": argument })),
            "message" => ("m.room.message", None, json!({ "body": argument })),
            other => panic!("unknown event {other}"),
        };
        NewEvent {
            room_id: self.room_id_for(name),
            sender: sender.user_id.clone(),
            kind: TimelineEventType::from(kind),
            state_key,
            content: raw(content),
            redacts: None,
        }
    }

    fn room_id_for(&self, name: &str) -> Option<OwnedRoomId> {
        let derived = self.node.rules.authorization.room_create_event_id_as_room_id;
        match name {
            "create" if derived => None,
            "create" => {
                let server = person("alice").server_keys().server_name().to_owned();
                Some(RoomId::parse(format!("!drawn:{server}")).unwrap())
            }
            _ => self.room_id.clone(),
        }
    }

    fn create_content(&self, sender: &Person) -> serde_json::Value {
        match self.node.rules.authorization.use_room_create_sender {
            true => json!({ "room_version": self.version }),
            false => json!({ "room_version": self.version, "creator": sender.user_id }),
        }
    }

    /// `bob=50,topic:0`: levels of people and of event types. Alice has 100 where she needs it.
    fn power_content(&self, argument: &str) -> serde_json::Value {
        let mut users = serde_json::Map::new();
        let mut fields = serde_json::Map::new();
        if !self.node.rules.authorization.explicitly_privilege_room_creators {
            users.insert(person("alice").user_id.to_string(), json!(100));
        }
        for entry in argument.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            if let Some((name, level)) = entry.split_once('=') {
                let level: i64 = level.parse().unwrap();
                users.insert(person(name).user_id.to_string(), json!(level));
            } else if let Some((field, level)) = entry.split_once(':') {
                let level: i64 = level.parse().unwrap();
                fields.insert(field.to_owned(), json!(level));
            }
        }
        fields.insert("users".to_owned(), users.into());
        fields.into()
    }

    /// What became of the event drawn last.
    pub(crate) fn last_verdict(&self) -> String {
        match &self.node.verdicts[self.events.last().unwrap().pdu().event_id()] {
            Verdict::Accepted => "accepted".to_owned(),
            Verdict::SoftFailed(why) => format!("soft failed: {:?} {:?}", why.basis, why.rule),
            Verdict::Rejected(why) => format!("rejected: {:?} {:?}", why.basis, why.rule),
        }
    }

    /// The values of `topic` or `member(bob)` in a state, as `key=value` with commas between.
    pub(crate) fn show(&self, state: &StateMap<OwnedEventId>, keys: &str) -> String {
        let shown = keys.split(',').map(|key| {
            let key = key.trim();
            let (kind, state_key) = match key.split_once('(') {
                Some((_, name)) => {
                    ("m.room.member", person(name.trim_end_matches(')')).user_id.to_string())
                }
                None if key == "rules" => ("m.room.join_rules", String::new()),
                None => ("m.room.topic", String::new()),
            };
            let value = state.get(&(kind.into(), state_key)).map(|id| value(&self.node.pdus[id]));
            format!("{key}={}", value.unwrap_or("∅".to_owned()))
        });
        shown.collect::<Vec<_>>().join(", ")
    }
}

fn value(pdu: &Pdu) -> String {
    let content: serde_json::Value = serde_json::from_str(pdu.content().get()).unwrap();
    let field = ["topic", "membership", "join_rule"].into_iter().find_map(|f| content.get(f));
    field.and_then(|value| value.as_str()).unwrap_or("?").to_owned()
}

fn raw(value: serde_json::Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(&value).unwrap()
}
