//! The word of somebody who is not in a room is no state of it.

use std::sync::{Arc, Mutex};

use axum::{Router, extract::Request, http::StatusCode, response::IntoResponse};
use messagehub_homeserver::{
    peers::INBOUND_CAPACITY,
    send::{self, NewState},
};
use messagehub_protocol::{
    build::{self, NewEvent, Place, Signer},
    pdu::Pdu,
    rules::{DEFAULT_ROOM_VERSION, rules_of},
};
use messagehub_store::pending;
use ruma::OwnedUserId;
use tokio::sync::mpsc;

use super::{outsider::Outsider, *};
use crate::testing::deliver;

/// A node that says what suits it, and remembers what it was asked.
struct Stranger {
    outsider: Outsider,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Stranger {
    /// Puts it on the network. It claims that there is nothing between what anybody has and its own
    /// events.
    fn new(net: &Net, now: ruma::MilliSecondsSinceUnixEpoch) -> Self {
        let outsider = Outsider::new(80, now);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let router = Router::new().fallback(move |request: Request| {
            let path = request.uri().path().to_owned();
            seen.lock().unwrap().push(path.clone());
            async move {
                match path.contains("/get_missing_events/") {
                    true => r#"{"events":[]}"#.into_response(),
                    false => StatusCode::NOT_FOUND.into_response(),
                }
            }
        });
        let (inbound, _unread) = mpsc::channel(INBOUND_CAPACITY);
        net.hub.attach((outsider.keys.clone(), outsider.peer_id.clone()), router, inbound);
        Self { outsider, asked }
    }

    fn user_id(&self) -> OwnedUserId {
        self.outsider.user_id("t")
    }

    /// An event in a room, after some others and resting on some.
    fn event(
        &self,
        (room_id, kind): (&OwnedRoomId, TimelineEventType),
        state_key: Option<&str>,
        content: &serde_json::Value,
        place: &Place,
    ) -> Arc<Pdu> {
        let new = NewEvent {
            room_id: Some(room_id.clone()),
            sender: self.user_id(),
            kind,
            state_key: state_key.map(str::to_owned),
            content: to_raw_value(content).unwrap(),
            redacts: None,
        };
        let Outsider { verify_key, keys, .. } = &self.outsider;
        let signer = Signer { server: keys.server_name(), key: verify_key };
        let rules = rules_of(&DEFAULT_ROOM_VERSION).unwrap();
        let at = keys.issued_ts();
        build::event(new, place, at, signer, rules).unwrap().into_pdu()
    }

    /// Pushes an event to a node.
    async fn push(&self, to: &Node, pdu: &Pdu) -> u16 {
        let body = json!({ "origin": self.outsider.name(), "origin_server_ts": 0,
            "pdus": [serde_json::from_str::<serde_json::Value>(pdu.json()).unwrap()] });
        let push = ("PUT", "/_matrix/federation/v1/send/1", body.to_string());
        let request = self.outsider.signed(push, to.name(), to.hs.clock.now());
        let peer_id = self.outsider.peer_id.clone();
        let answer = deliver(to.router.clone(), peer_id, request).await.unwrap();
        answer.status().as_u16()
    }

    fn was_asked(&self, what: &str) -> bool {
        self.asked.lock().unwrap().iter().any(|path| path.contains(what))
    }
}

/// What a join rests on in the current state of a room.
async fn rests_on(hs: &Homeserver, room_id: &OwnedRoomId) -> Vec<Arc<Pdu>> {
    let room_id = room_id.clone();
    read(hs, move |snap| {
        let room = rooms::find(snap, &room_id)?.unwrap();
        let mut pdus = Vec::new();
        for kind in [StateEventType::RoomPowerLevels, StateEventType::RoomJoinRules] {
            let nid = room_state::get(snap, room.state, &kind, "")?.unwrap();
            pdus.push(events::pdu(snap, nid)?);
        }
        Ok(pdus)
    })
    .await
}

/// It joins after an event that nobody has, says that before that there is nothing, and would tell
/// the state there, in which it may do everything.
#[tokio::test(start_paused = true)]
async fn nobody_joins_by_a_state_that_only_they_tell() {
    let mut net = Net::new();
    let a = net.start(1);
    let alice = a.user("alice").await;
    let room_id = net.drive(create::room(&a.hs, &alice.user_id, NewRoom::new())).await.unwrap();
    let public = NewState {
        room_id: room_id.clone(),
        kind: StateEventType::RoomJoinRules,
        state_key: String::new(),
        content: to_raw_value(&json!({ "join_rule": "public" })).unwrap(),
    };
    net.drive(send::state(&a.hs, &alice.user_id, public)).await.unwrap();
    let stranger = Stranger::new(&net, a.hs.clock.now());
    let auth_events = rests_on(&a.hs, &room_id).await;

    let hidden = Place { prev_events: auth_events.clone(), auth_events: auth_events.clone() };
    let message = (&room_id, TimelineEventType::RoomMessage);
    let hidden = stranger.event(message, None, &json!({ "body": "unseen" }), &hidden);
    let place = Place { prev_events: vec![hidden], auth_events };
    let (user_id, join) = (stranger.user_id(), json!({ "membership": "join" }));
    let member = (&room_id, TimelineEventType::RoomMember);
    let join = stranger.event(member, Some(user_id.as_str()), &join, &place);
    assert_eq!(net.drive(stranger.push(&a, &join)).await, 200);
    net.until("what is before the join was asked for", || async {
        stranger.was_asked("/get_missing_events/")
    })
    .await;
    // And some rounds of everything that a node does by itself.
    net.drive(tokio::time::sleep(std::time::Duration::from_secs(200))).await;
    assert!(!stranger.was_asked("/state"), "its word would be no state");
    assert_eq!(membership(&a.hs, &room_id, &user_id).await, None);
    let waits = read(&a.hs, move |snap| pending::list(snap, &room_id)).await;
    assert_eq!(waits.len(), 1, "it waits, as one event of one stranger may");
}
