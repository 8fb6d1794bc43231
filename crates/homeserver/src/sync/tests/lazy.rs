//! Clients that want the members only when they need them.

use serde_json::json;

use super::{Client, TestServer, joined, state, timeline};

fn lazy(redundant: bool) -> serde_json::Value {
    json!({"room": {
        "timeline": {"limit": 2},
        "state": {"lazy_load_members": true, "include_redundant_members": redundant},
    }})
}

fn members(words: Vec<String>) -> Vec<String> {
    words.into_iter().filter(|word| word.starts_with("member")).collect()
}

#[tokio::test]
async fn only_senders_and_oneself_come_with_a_room() {
    let server = TestServer::new(21);
    let alice = Client::new(&server, "alice");
    let bob = Client::new(&server, "bob");
    let carol = Client::new(&server, "carol");
    let room_id = alice.public_room().await;
    bob.join(&room_id).await;
    carol.join(&room_id).await;
    bob.say(&room_id, "one").await;
    bob.say(&room_id, "two").await;

    let mut reader = Client::new(&server, "alice").with_filter(lazy(false));
    let answer = reader.sync().await;
    let room = joined(&answer, &room_id);
    assert_eq!(members(state(room)), ["member@alice", "member@bob"]);
    assert!(state(room).contains(&"create".to_owned()));
    assert_eq!(room["summary"]["m.joined_member_count"], 3);
    assert_eq!(room["summary"]["m.heroes"].as_array().unwrap().len(), 2);

    bob.say(&room_id, "three").await;
    let answer = reader.sync().await;
    assert_eq!(state(joined(&answer, &room_id)), Vec::<String>::new(), "bob is known");

    carol.say(&room_id, "four").await;
    let answer = reader.sync().await;
    assert_eq!(state(joined(&answer, &room_id)), ["member@carol"]);
}

#[tokio::test]
async fn redundant_members_come_each_time() {
    let server = TestServer::new(22);
    let bob = Client::new(&server, "bob");
    let room_id = bob.public_room().await;
    let mut reader = Client::new(&server, "bob").with_filter(lazy(true));
    reader.sync().await;
    bob.say(&room_id, "one").await;
    bob.say(&room_id, "two").await;
    assert_eq!(state(joined(&reader.sync().await, &room_id)), ["member@bob"]);
    bob.say(&room_id, "three").await;
    assert_eq!(state(joined(&reader.sync().await, &room_id)), ["member@bob"]);
}

#[tokio::test]
async fn who_joins_is_told_with_the_new_numbers() {
    let server = TestServer::new(23);
    let alice = Client::new(&server, "alice");
    let room_id = alice.public_room().await;
    let mut reader = Client::new(&server, "alice").with_filter(lazy(false));
    reader.sync().await;
    Client::new(&server, "bob").join(&room_id).await;
    let answer = reader.sync().await;
    let room = joined(&answer, &room_id);
    assert_eq!(timeline(room), ["member@bob"]);
    assert_eq!(room["summary"]["m.joined_member_count"], 2);
}

#[tokio::test]
async fn changes_in_a_gap_are_told_with_lazy_state_after() {
    let server = TestServer::new(24);
    let alice = Client::new(&server, "alice");
    let room_id = alice.public_room().await;
    let mut reader = Client::new(&server, "alice").with_filter(lazy(false));
    reader.state_after = true;
    reader.sync().await;
    Client::new(&server, "bob").join(&room_id).await;
    for body in ["a", "b", "c"] {
        alice.say(&room_id, body).await;
    }
    let answer = reader.sync().await;
    let room = joined(&answer, &room_id);
    assert_eq!(room["timeline"]["limited"], true);
    assert!(super::words(&room["state_after"]["events"]).contains(&"member@bob".to_owned()));
}
