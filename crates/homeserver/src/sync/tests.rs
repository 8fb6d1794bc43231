//! Clients of one server that talk and look.

use std::time::Duration;

use ruma::{
    OwnedEventId, OwnedRoomId,
    api::{OutgoingResponseExt, client::sync::sync_events::v3::Request},
    events::{receipt::ReceiptThread, room::member::MembershipState},
};
use serde_json::{Value, json};

use super::sync;
use crate::{
    messages,
    receipts::{self, Kind, Mark, NewReceipt},
    rooms::{
        create::{self, NewRoom},
        invite::{self, Invite},
        join::{self, Join},
        leave,
        moderate::{self, Action, Moderation},
    },
    send::{self, NewMessage, NewState},
    sessions::Session,
    testing::{TestServer, content},
    typing::{self, Typing},
};

mod lazy;
mod others;
mod pages;
mod unread;
mod waiting;

/// A client that syncs again and again.
struct Client<'a> {
    server: &'a TestServer,
    session: Session,
    filter: Value,
    state_after: bool,
    token: Option<String>,
}

impl<'a> Client<'a> {
    fn new(server: &'a TestServer, localpart: &str) -> Self {
        Self {
            server,
            session: Session { user_id: server.user_id(localpart), device_id: "DEVICE".into() },
            filter: json!({}),
            state_after: false,
            token: None,
        }
    }

    fn with_filter(mut self, filter: Value) -> Self {
        self.filter = filter;
        self
    }

    fn request(&self, timeout: Duration) -> Request {
        let mut request = Request::new();
        request.filter = Some(serde_json::from_value(json!(self.filter.to_string())).unwrap());
        request.since = self.token.clone();
        request.timeout = Some(timeout);
        request.use_state_after = self.state_after;
        request
    }

    async fn sync(&mut self) -> Value {
        self.wait(Duration::ZERO).await
    }

    async fn wait(&mut self, timeout: Duration) -> Value {
        let request = self.request(timeout);
        let response = sync(&self.server.hs, &self.session, request).await.unwrap();
        self.token = Some(response.next_batch.clone());
        let response = response.try_into_http_response::<Vec<u8>>().unwrap();
        serde_json::from_slice(response.body()).unwrap()
    }

    async fn room(&self, new: NewRoom) -> OwnedRoomId {
        create::room(&self.server.hs, &self.session.user_id, new).await.unwrap()
    }

    /// A room that anybody may join.
    async fn public_room(&self) -> OwnedRoomId {
        let mut new = NewRoom::new();
        new.preset = Some(ruma::api::client::room::create_room::v3::RoomPreset::PublicChat);
        self.room(new).await
    }

    async fn join(&self, room_id: &OwnedRoomId) {
        let join = Join { target: room_id.clone().into(), via: Vec::new(), reason: None };
        join::join(&self.server.hs, &self.session.user_id, join).await.unwrap();
    }

    async fn leave(&self, room_id: &OwnedRoomId) {
        leave::leave(&self.server.hs, &self.session.user_id, room_id.clone(), None).await.unwrap();
    }

    async fn invite(&self, room_id: &OwnedRoomId, localpart: &str) {
        let user_id = self.server.user_id(localpart);
        let invite = Invite { room_id: room_id.clone(), user_id, reason: None };
        invite::invite(&self.server.hs, &self.session.user_id, invite).await.unwrap();
    }

    async fn say(&self, room_id: &OwnedRoomId, body: &str) -> OwnedEventId {
        self.send(room_id, json!({"msgtype": "m.text", "body": body})).await
    }

    async fn send(&self, room_id: &OwnedRoomId, message: Value) -> OwnedEventId {
        let txn_id: String =
            self.server.hs.rng.bytes::<8>().map(|byte| format!("{byte:02x}")).concat();
        let new = NewMessage {
            room_id: room_id.clone(),
            kind: "m.room.message".into(),
            content: content(&message),
            txn_id: txn_id.into(),
        };
        send::message(&self.server.hs, &self.session, new).await.unwrap()
    }

    async fn set(&self, room_id: &OwnedRoomId, kind: &str, value: Value) -> OwnedEventId {
        let new = NewState {
            room_id: room_id.clone(),
            kind: kind.into(),
            state_key: String::new(),
            content: content(&value),
        };
        send::state(&self.server.hs, &self.session.user_id, new).await.unwrap()
    }

    async fn read(&self, room_id: &OwnedRoomId, event_id: &OwnedEventId, mark: Mark) {
        self.read_thread(room_id, event_id, mark, ReceiptThread::Unthreaded).await;
    }

    async fn read_thread(
        &self,
        room_id: &OwnedRoomId,
        event_id: &OwnedEventId,
        mark: Mark,
        thread: ReceiptThread,
    ) {
        let new = NewReceipt { room_id: room_id.clone(), event_id: event_id.clone(), mark, thread };
        receipts::send(&self.server.hs, &self.session.user_id, vec![new]).await.unwrap();
    }

    async fn types(&self, room_id: &OwnedRoomId, notice: Typing) {
        let user_id = self.session.user_id.clone();
        typing::set(&self.server.hs, &user_id, (room_id.clone(), user_id.clone()), notice)
            .await
            .unwrap();
    }
}

fn joined<'a>(answer: &'a Value, room_id: &OwnedRoomId) -> &'a Value {
    &answer["rooms"]["join"][room_id.as_str()]
}

/// What events are, in a word each: the body of a message, else type and state key.
fn words(events: &Value) -> Vec<String> {
    let word = |event: &Value| match event["content"]["body"].as_str() {
        Some(body) => body.to_owned(),
        None => {
            let kind = event["type"].as_str().unwrap().trim_start_matches("m.room.");
            let state_key = event["state_key"].as_str().unwrap_or_default();
            let who = state_key.split(':').next().unwrap_or_default();
            format!("{kind}{who}")
        }
    };
    events.as_array().map(|events| events.iter().map(word).collect()).unwrap_or_default()
}

fn timeline(room: &Value) -> Vec<String> {
    words(&room["timeline"]["events"])
}

fn state(room: &Value) -> Vec<String> {
    let mut words = words(&room["state"]["events"]);
    words.sort();
    words
}

#[tokio::test]
async fn the_first_answer_has_the_room_and_the_next_only_what_is_new() {
    let server = TestServer::new(1);
    let mut alice = Client::new(&server, "alice");
    let room_id = alice.public_room().await;
    alice.set(&room_id, "m.room.name", json!({"name": "Garden"})).await;
    alice.say(&room_id, "one").await;

    let first = alice.sync().await;
    let room = joined(&first, &room_id);
    assert_eq!(timeline(room).last().unwrap(), "one");
    assert!(timeline(room).contains(&"create".to_owned()), "{room}");
    assert_eq!(state(room), Vec::<String>::new(), "all of it is in the timeline");
    assert!(room["timeline"].get("limited").is_none());
    assert_eq!(room["summary"]["m.joined_member_count"], 1);
    assert_eq!(first["account_data"]["events"][0]["type"], "m.push_rules");
    for absent in ["to_device", "device_lists"] {
        assert!(first.get(absent).is_none(), "{absent}");
    }

    let nothing = alice.sync().await;
    assert!(nothing.get("rooms").is_none(), "{nothing}");
    alice.say(&room_id, "two").await;
    let next = alice.sync().await;
    assert_eq!(timeline(joined(&next, &room_id)), ["two"]);
    assert_eq!(joined(&next, &room_id)["summary"], Value::Null);
    assert_eq!(next["account_data"], Value::Null);
}

#[tokio::test]
async fn a_limited_timeline_has_the_state_at_its_start_and_a_way_back() {
    let server = TestServer::new(2);
    let mut alice =
        Client::new(&server, "alice").with_filter(json!({"room": {"timeline": {"limit": 2}}}));
    let room_id = alice.public_room().await;
    let first = alice.sync().await;
    assert_eq!(joined(&first, &room_id)["timeline"]["limited"], true);

    alice.set(&room_id, "m.room.topic", json!({"topic": "tea"})).await;
    for body in ["a", "b", "c", "d"] {
        alice.say(&room_id, body).await;
    }
    let gap = alice.sync().await;
    let room = joined(&gap, &room_id);
    assert_eq!(timeline(room), ["c", "d"]);
    assert_eq!(state(room), ["topic"]);
    assert_eq!(room["timeline"]["limited"], true);

    let mut request =
        ruma::api::client::message::get_message_events::v3::Request::backward(room_id);
    request.from = Some(room["timeline"]["prev_batch"].as_str().unwrap().to_owned());
    request.limit = ruma::uint!(3);
    let page = messages::page(&server.hs, &alice.session, request.clone()).await.unwrap();
    let page_words = words(&serde_json::to_value(&page.chunk).unwrap());
    assert_eq!(page_words, ["b", "a", "topic"]);

    request.from = page.end;
    request.limit = ruma::uint!(1000);
    let rest = messages::page(&server.hs, &alice.session, request).await.unwrap();
    assert_eq!(words(&serde_json::to_value(&rest.chunk).unwrap()).last().unwrap(), "create");
    assert_eq!(rest.end, None);
}

#[tokio::test]
async fn pages_forward_end_where_they_began() {
    let server = TestServer::new(3);
    let alice = Client::new(&server, "alice");
    let room_id = alice.public_room().await;
    let start = server.hs.store.position();
    for n in 0..25 {
        alice.say(&room_id, &n.to_string()).await;
    }
    let mut request = ruma::api::client::message::get_message_events::v3::Request::forward(room_id);
    request.from = Some(super::token::sync_token(start));
    let mut seen = Vec::new();
    loop {
        let page = messages::page(&server.hs, &alice.session, request.clone()).await.unwrap();
        seen.extend(words(&serde_json::to_value(&page.chunk).unwrap()));
        request.from = page.end;
        if request.from.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..25).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn state_after_has_what_changed_until_the_end() {
    let server = TestServer::new(4);
    let mut alice = Client::new(&server, "alice");
    alice.state_after = true;
    let room_id = alice.public_room().await;
    let first = alice.sync().await;
    let state_after = words(&joined(&first, &room_id)["state_after"]["events"]);
    assert!(
        state_after.contains(&"create".to_owned())
            && state_after.contains(&"member@alice".to_owned())
    );
    assert_eq!(joined(&first, &room_id).get("state"), None);

    alice.set(&room_id, "m.room.topic", json!({"topic": "tea"})).await;
    alice.set(&room_id, "m.room.topic", json!({"topic": "coffee"})).await;
    let next = alice.sync().await;
    let room = joined(&next, &room_id);
    assert_eq!(timeline(room), ["topic", "topic"]);
    assert_eq!(room["state_after"]["events"].as_array().unwrap().len(), 1);
    assert_eq!(room["state_after"]["events"][0]["content"]["topic"], "coffee");

    alice.say(&room_id, "hello").await;
    let next = alice.sync().await;
    assert_eq!(joined(&next, &room_id)["state_after"], json!({}));
}

#[tokio::test]
async fn an_invite_shows_itself_then_becomes_a_room_then_a_past_one() {
    let server = TestServer::new(5);
    let alice = Client::new(&server, "alice");
    let mut bob = Client::new(&server, "bob");
    bob.sync().await;
    let mut new = NewRoom::new();
    new.name = Some("Garden".to_owned());
    let room_id = alice.room(new).await;
    alice.say(&room_id, "before bob").await;
    alice.invite(&room_id, "bob").await;

    let answer = bob.sync().await;
    let invite = &answer["rooms"]["invite"][room_id.as_str()]["invite_state"]["events"];
    let shown = words(invite);
    for kind in ["name", "join_rules", "member@alice", "member@bob"] {
        assert_eq!(shown.iter().filter(|word| *word == kind).count(), 1, "{kind} in {shown:?}");
    }
    assert_eq!(answer["rooms"].get("join"), None);
    assert!(bob.sync().await.get("rooms").is_none(), "an invite is told once");

    bob.join(&room_id).await;
    let answer = bob.sync().await;
    let room = joined(&answer, &room_id);
    assert_eq!(timeline(room).last().unwrap(), "member@bob");
    assert!(timeline(room).contains(&"before bob".to_owned()), "shared history: {room}");
    assert_eq!(room["summary"]["m.joined_member_count"], 2);

    bob.leave(&room_id).await;
    alice.say(&room_id, "after bob").await;
    let answer = bob.sync().await;
    assert_eq!(answer["rooms"].get("join"), None);
    let left = &answer["rooms"]["leave"][room_id.as_str()];
    assert_eq!(timeline(left), ["member@bob"]);
    assert!(bob.sync().await.get("rooms").is_none());

    let mut fresh = Client::new(&server, "bob");
    assert!(fresh.sync().await.get("rooms").is_none());
    let mut fresh =
        Client::new(&server, "bob").with_filter(json!({"room": {"include_leave": true}}));
    let answer = fresh.sync().await;
    let left = &answer["rooms"]["leave"][room_id.as_str()];
    assert_eq!(timeline(left).last().unwrap(), "member@bob");
}

#[tokio::test]
async fn refusing_an_invite_shows_nothing_of_the_room() {
    let server = TestServer::new(6);
    let alice = Client::new(&server, "alice");
    let mut bob = Client::new(&server, "bob");
    let room_id = alice.room(NewRoom::new()).await;
    alice.say(&room_id, "secret").await;
    alice.invite(&room_id, "bob").await;
    bob.sync().await;
    bob.leave(&room_id).await;
    let answer = bob.sync().await;
    let left = &answer["rooms"]["leave"][room_id.as_str()];
    assert_eq!(timeline(left), ["member@bob"]);
    assert_eq!(left.get("state"), None);
}

#[tokio::test]
async fn who_comes_and_goes_between_two_answers_has_left() {
    let server = TestServer::new(7);
    let alice = Client::new(&server, "alice");
    let mut bob = Client::new(&server, "bob");
    let room_id = alice.public_room().await;
    bob.sync().await;
    bob.join(&room_id).await;
    alice.say(&room_id, "hello bob").await;
    bob.leave(&room_id).await;
    alice.say(&room_id, "gone").await;
    let answer = bob.sync().await;
    let left = &answer["rooms"]["leave"][room_id.as_str()];
    let seen = timeline(left);
    assert!(
        seen.contains(&"hello bob".to_owned()) && !seen.contains(&"gone".to_owned()),
        "{seen:?}"
    );
    assert_eq!(answer["rooms"].get("join"), None);
    assert_eq!(left["timeline"].get("limited"), None, "nothing went before");

    bob.join(&room_id).await;
    let answer = bob.sync().await;
    let room = joined(&answer, &room_id);
    assert!(timeline(room).contains(&"gone".to_owned()));
    assert_eq!(room["timeline"]["limited"], true, "what bob had is told again");
}

#[tokio::test]
async fn a_ban_ends_what_is_seen() {
    let server = TestServer::new(8);
    let alice = Client::new(&server, "alice");
    let mut bob = Client::new(&server, "bob");
    let room_id = alice.public_room().await;
    bob.join(&room_id).await;
    bob.sync().await;
    let ban = Moderation {
        room_id: room_id.clone(),
        user_id: server.user_id("bob"),
        action: Action::Ban,
        reason: None,
    };
    moderate::moderate(&server.hs, &alice.session.user_id, ban).await.unwrap();
    alice.say(&room_id, "after").await;
    let answer = bob.sync().await;
    let left = &answer["rooms"]["leave"][room_id.as_str()];
    assert_eq!(timeline(left), ["member@bob"]);
    let membership = &left["timeline"]["events"][0]["content"]["membership"];
    assert_eq!(*membership, json!(MembershipState::Ban));
}

#[tokio::test]
async fn filters_choose_rooms_and_events() {
    let server = TestServer::new(9);
    let alice = Client::new(&server, "alice");
    let bob = Client::new(&server, "bob");
    let (one, two) = (alice.public_room().await, alice.public_room().await);
    bob.join(&one).await;
    alice.say(&one, "from alice").await;
    bob.say(&one, "from bob").await;
    alice.say(&two, "elsewhere").await;

    let filter = json!({"room": {
        "not_rooms": [two],
        "timeline": {"types": ["m.room.mess*"], "not_senders": [bob.session.user_id]},
        "state": {"types": ["m.room.create"]},
        "account_data": {"types": []},
        "ephemeral": {"types": []},
    }});
    let mut reader = Client::new(&server, "alice").with_filter(filter);
    let answer = reader.sync().await;
    assert_eq!(timeline(joined(&answer, &one)), ["from alice"]);
    assert_eq!(state(joined(&answer, &one)), ["create"]);
    assert_eq!(joined(&answer, &two), &Value::Null);
    bob.say(&one, "again").await;
    assert!(reader.sync().await.get("rooms").is_none(), "nothing that is wanted");
}

#[tokio::test]
async fn full_state_is_told_again() {
    let server = TestServer::new(10);
    let mut alice = Client::new(&server, "alice");
    let room_id = alice.public_room().await;
    alice.sync().await;
    let mut request = alice.request(Duration::ZERO);
    request.full_state = true;
    let response = sync(&server.hs, &alice.session, request).await.unwrap();
    let response = response.try_into_http_response::<Vec<u8>>().unwrap();
    let answer: Value = serde_json::from_slice(response.body()).unwrap();
    assert!(state(joined(&answer, &room_id)).contains(&"create".to_owned()), "{answer}");
    assert_eq!(timeline(joined(&answer, &room_id)), Vec::<String>::new());
}

#[tokio::test]
async fn receipts_are_told_and_private_ones_only_to_their_user() {
    let server = TestServer::new(11);
    let mut alice = Client::new(&server, "alice");
    let mut bob = Client::new(&server, "bob");
    let room_id = alice.public_room().await;
    bob.join(&room_id).await;
    let one = alice.say(&room_id, "one").await;
    let two = alice.say(&room_id, "two").await;
    alice.sync().await;
    bob.sync().await;

    bob.read(&room_id, &two, Mark::Read(Kind::Public)).await;
    let answer = alice.sync().await;
    let receipt = &joined(&answer, &room_id)["ephemeral"]["events"][0];
    assert_eq!(receipt["type"], "m.receipt");
    let bob_id = bob.session.user_id.clone();
    let bob_id = bob_id.as_str();
    assert!(receipt["content"][two.as_str()]["m.read"][bob_id]["ts"].is_u64(), "{receipt}");

    bob.read(&room_id, &one, Mark::Read(Kind::Public)).await;
    assert!(alice.sync().await.get("rooms").is_none(), "nobody reads backward");

    let three = alice.say(&room_id, "three").await;
    alice.sync().await;
    bob.read(&room_id, &three, Mark::Read(Kind::Private)).await;
    bob.read(&room_id, &three, Mark::FullyRead).await;
    assert!(alice.sync().await.get("rooms").is_none(), "private");
    let answer = bob.sync().await;
    let room = joined(&answer, &room_id);
    let content = &room["ephemeral"]["events"][0]["content"];
    assert!(content[three.as_str()]["m.read.private"][bob_id].is_object(), "{content}");
    assert_eq!(room["account_data"]["events"][0]["type"], "m.fully_read");
    assert_eq!(room["account_data"]["events"][0]["content"]["event_id"], json!(three));
}

#[tokio::test]
async fn what_a_device_sent_carries_its_transaction_id() {
    let server = TestServer::new(12);
    let mut alice = Client::new(&server, "alice");
    let mut bob = Client::new(&server, "bob");
    let room_id = alice.public_room().await;
    bob.join(&room_id).await;
    alice.say(&room_id, "hello").await;
    let last = |answer: &Value| {
        joined(answer, &room_id)["timeline"]["events"].as_array().unwrap().last().unwrap().clone()
    };
    let own = last(&alice.sync().await);
    assert_eq!(own["unsigned"]["membership"], "join");
    assert!(own["unsigned"]["transaction_id"].is_string());
    assert_eq!(last(&bob.sync().await)["unsigned"].get("transaction_id"), None);
}

#[tokio::test]
async fn a_strange_token_is_refused_and_one_from_the_future_begins_anew() {
    let server = TestServer::new(13);
    let mut alice = Client::new(&server, "alice");
    let room_id = alice.public_room().await;
    alice.token = Some("yesterday".to_owned());
    let refused = sync(&server.hs, &alice.session, alice.request(Duration::ZERO)).await;
    assert!(matches!(refused, Err(super::SyncError::InvalidToken)));
    alice.token = Some("s4000000".to_owned());
    let answer = alice.sync().await;
    assert!(joined(&answer, &room_id).is_object());
}
