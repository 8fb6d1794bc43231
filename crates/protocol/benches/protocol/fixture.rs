//! A server and its room.

use std::{collections::HashMap, sync::Arc};

use messagehub_protocol::{
    auth::{AuthState, StateMap, auth_types, select},
    build::{self, NewEvent, Place, Signer},
    keys::{IdentityKey, VerifyKey},
    pdu::Pdu,
    rules::{DEFAULT_ROOM_VERSION, rules_of},
    server_keys::{KeyRing, ServerKeys, ServerKeysTerms},
    wire::{frame::Frame, request::RequestParts},
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedUserId, UInt, UserId, events::StateEventType,
    room_version_rules::RoomVersionRules,
};
use serde_json::{Value, json, value::RawValue};

pub(crate) fn now() -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(UInt::new_saturating(1_750_000_000_000))
}

pub(crate) fn rules() -> &'static RoomVersionRules {
    rules_of(&DEFAULT_ROOM_VERSION).unwrap()
}

pub(crate) fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

pub(crate) fn request() -> RequestParts<'static> {
    RequestParts {
        method: "GET",
        uri: "/_matrix/federation/v1/event/$0123456789012345678901234567890123456789012",
        body: b"",
    }
}

pub(crate) struct Server {
    pub(crate) identity: IdentityKey,
    pub(crate) verify: VerifyKey,
}

impl Server {
    pub(crate) fn new(seed: u8) -> Self {
        Self {
            identity: IdentityKey::from_seed(&[seed; 32]),
            verify: VerifyKey::from_seed(&[seed + 100; 32]),
        }
    }

    pub(crate) fn keys(&self) -> ServerKeys {
        let peer_ids = vec!["12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN".to_owned()];
        let terms = ServerKeysTerms { old_verify_keys: vec![], peer_ids, issued_ts: now() };
        ServerKeys::make(&self.identity, &self.verify, terms)
    }

    pub(crate) fn ring(&self) -> KeyRing {
        KeyRing::from([(self.identity.server_name().to_owned(), self.keys())])
    }

    fn user(&self, name: &str) -> OwnedUserId {
        UserId::parse(format!("@{name}:{}", self.identity.server_name())).unwrap()
    }
}

/// A public room with one member.
pub(crate) struct Room {
    pub(crate) server: Server,
    state: AuthState,
    last: Arc<Pdu>,
}

impl Room {
    pub(crate) fn new() -> Self {
        let server = Server::new(1);
        let alice = server.user("alice");
        let content = raw(&json!({ "room_version": DEFAULT_ROOM_VERSION }).to_string());
        let create = NewEvent {
            room_id: None,
            sender: alice.clone(),
            kind: "m.room.create".into(),
            state_key: Some(String::new()),
            content,
            redacts: None,
        };
        let signer = Signer { server: server.identity.server_name(), key: &server.verify };
        let create = build::event(create, &Place::default(), now(), signer, rules()).unwrap();
        let create = create.into_pdu();
        let state =
            AuthState::from([((StateEventType::RoomCreate, String::new()), Arc::clone(&create))]);
        let mut room = Self { server, state, last: create };
        room.set(&alice, "m.room.member", alice.as_str(), json!({"membership": "join"}));
        room.set(&alice, "m.room.join_rules", "", json!({"join_rule": "public"}));
        room
    }

    /// An event with a text of so many bytes.
    pub(crate) fn message(&self, body_bytes: usize) -> Arc<Pdu> {
        let content = json!({"msgtype": "m.text", "body": "x".repeat(body_bytes)});
        self.event(&self.server.user("alice"), ("m.room.message", None), content)
    }

    pub(crate) fn frame(&self, pdu: &Pdu) -> Frame {
        Frame {
            origin: self.server.identity.server_name().to_owned(),
            room_id: pdu.room_id().to_owned(),
            origin_server_ts: now(),
            pdus: vec![raw(pdu.json())],
            edus: vec![],
            server_keys: vec![self.server.keys().json().to_owned()],
        }
    }

    /// Two states after as many joins, of which the last few differ, and all events.
    pub(crate) fn fork(
        mut self,
        members: usize,
        differing: usize,
    ) -> ([StateMap<OwnedEventId>; 2], HashMap<OwnedEventId, Arc<Pdu>>) {
        let mut events: HashMap<_, _> = self.state.values().map(entry).collect();
        for n in 0..members {
            let (user, join) = (self.server.user(&format!("u{n}")), json!({"membership": "join"}));
            events.extend([entry(&self.set(&user, "m.room.member", user.as_str(), join))]);
        }
        let base: StateMap<_> =
            self.state.iter().map(|(key, pdu)| (key.clone(), pdu.event_id().to_owned())).collect();
        let states = ["a", "b"].map(|branch| {
            let mut state = base.clone();
            let alice = self.server.user("alice");
            let topic = self.event(&alice, ("m.room.topic", Some("")), json!({"topic": branch}));
            state.insert((StateEventType::RoomTopic, String::new()), topic.event_id().to_owned());
            events.extend([entry(&topic)]);
            for n in members - differing..members {
                let user = self.server.user(&format!("u{n}"));
                let content = json!({"membership": "join", "displayname": branch});
                let pdu = self.event(&user, ("m.room.member", Some(user.as_str())), content);
                let key = (StateEventType::RoomMember, user.to_string());
                state.insert(key, pdu.event_id().to_owned());
                events.extend([entry(&pdu)]);
            }
            state
        });
        (states, events)
    }

    fn set(&mut self, sender: &UserId, kind: &str, state_key: &str, content: Value) -> Arc<Pdu> {
        let pdu = self.event(sender, (kind, Some(state_key)), content);
        self.state.insert((kind.into(), state_key.to_owned()), Arc::clone(&pdu));
        self.last = Arc::clone(&pdu);
        pdu
    }

    fn event(
        &self,
        sender: &UserId,
        (kind, state_key): (&str, Option<&str>),
        content: Value,
    ) -> Arc<Pdu> {
        let new = NewEvent {
            room_id: Some(self.last.room_id().to_owned()),
            sender: sender.to_owned(),
            kind: kind.into(),
            state_key: state_key.map(str::to_owned),
            content: raw(&content.to_string()),
            redacts: None,
        };
        let types = auth_types(&new.kind, sender, state_key, &new.content, rules()).unwrap();
        let place = Place {
            prev_events: vec![Arc::clone(&self.last)],
            auth_events: select(&types, &self.state),
        };
        let signer =
            Signer { server: self.server.identity.server_name(), key: &self.server.verify };
        build::event(new, &place, now(), signer, rules()).unwrap().into_pdu()
    }
}

fn entry(pdu: &Arc<Pdu>) -> (OwnedEventId, Arc<Pdu>) {
    (pdu.event_id().to_owned(), Arc::clone(pdu))
}
