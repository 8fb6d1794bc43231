//! Counting what is unread.

use ruma::{OwnedRoomId, events::receipt::ReceiptThread};
use serde_json::{Value, json};

use super::{Client, Kind, Mark, TestServer, joined};

fn counts(answer: &Value, room_id: &OwnedRoomId) -> (u64, u64) {
    let counts = &joined(answer, room_id)["unread_notifications"];
    let number = |key: &str| counts[key].as_u64().unwrap();
    (number("notification_count"), number("highlight_count"))
}

#[tokio::test]
async fn messages_count_until_they_are_read() {
    let server = TestServer::new(31);
    let alice = Client::new(&server, "alice");
    let mut bob = Client::new(&server, "bob");
    let room_id = alice.public_room().await;
    bob.join(&room_id).await;
    assert_eq!(counts(&bob.sync().await, &room_id), (0, 0));

    alice.say(&room_id, "one").await;
    let two = alice.say(&room_id, "two").await;
    assert_eq!(counts(&bob.sync().await, &room_id), (2, 0));
    let mention = json!({
        "msgtype": "m.text", "body": "look", "m.mentions": {"user_ids": [bob.session.user_id]},
    });
    let three = alice.send(&room_id, mention).await;
    assert_eq!(counts(&bob.sync().await, &room_id), (3, 1));
    assert_eq!(counts(&Client::new(&server, "bob").sync().await, &room_id), (3, 1));

    bob.read(&room_id, &two, Mark::Read(Kind::Public)).await;
    assert_eq!(counts(&bob.sync().await, &room_id), (1, 1), "the mention is left");
    bob.read(&room_id, &three, Mark::Read(Kind::Private)).await;
    assert_eq!(counts(&bob.sync().await, &room_id), (0, 0));
}

#[tokio::test]
async fn who_writes_has_read() {
    let server = TestServer::new(32);
    let alice = Client::new(&server, "alice");
    let mut bob = Client::new(&server, "bob");
    let room_id = alice.public_room().await;
    bob.join(&room_id).await;
    alice.say(&room_id, "one").await;
    assert_eq!(counts(&bob.sync().await, &room_id), (1, 0));
    bob.say(&room_id, "answer").await;
    assert_eq!(counts(&bob.sync().await, &room_id), (0, 0));
    alice.say(&room_id, "two").await;
    assert_eq!(counts(&bob.sync().await, &room_id), (1, 0));
}

#[tokio::test]
async fn notices_and_names_do_not_count_and_everybody_highlights() {
    let server = TestServer::new(33);
    let alice = Client::new(&server, "alice");
    let carol = Client::new(&server, "carol");
    let mut bob = Client::new(&server, "bob");
    let room_id = alice.public_room().await;
    bob.join(&room_id).await;
    carol.join(&room_id).await;
    alice.send(&room_id, json!({"msgtype": "m.notice", "body": "beep"})).await;
    alice.set(&room_id, "m.room.name", json!({"name": "Garden"})).await;
    assert_eq!(counts(&bob.sync().await, &room_id), (0, 0));
    let everybody = json!({"msgtype": "m.text", "body": "all", "m.mentions": {"room": true}});
    carol.send(&room_id, everybody.clone()).await;
    assert_eq!(counts(&bob.sync().await, &room_id), (1, 0), "carol may not notify everybody");
    alice.send(&room_id, everybody).await;
    assert_eq!(counts(&bob.sync().await, &room_id), (2, 1));
}

#[tokio::test]
async fn threads_count_apart_for_clients_that_know_them() {
    let server = TestServer::new(34);
    let alice = Client::new(&server, "alice");
    let room_id = alice.public_room().await;
    let filter = json!({"room": {"timeline": {"unread_thread_notifications": true}}});
    let mut bob = Client::new(&server, "bob").with_filter(filter);
    let mut simple = Client::new(&server, "bob");
    bob.join(&room_id).await;
    bob.sync().await;
    simple.sync().await;
    let root = alice.say(&room_id, "root").await;
    let reply = json!({
        "msgtype": "m.text", "body": "in the thread",
        "m.relates_to": {"rel_type": "m.thread", "event_id": root},
    });
    let reply = alice.send(&room_id, reply).await;
    let answer = bob.sync().await;
    assert_eq!(counts(&answer, &room_id), (1, 0));
    let threads = &joined(&answer, &room_id)["unread_thread_notifications"];
    assert_eq!(threads[root.as_str()]["notification_count"], 1);
    assert_eq!(counts(&simple.sync().await, &room_id), (2, 0));

    let thread = ReceiptThread::Thread(root.clone());
    bob.read_thread(&room_id, &reply, Mark::Read(Kind::Public), thread).await;
    let answer = bob.sync().await;
    assert_eq!(counts(&answer, &room_id), (1, 0));
    assert_eq!(joined(&answer, &room_id).get("unread_thread_notifications"), None);
    bob.read_thread(&room_id, &root, Mark::Read(Kind::Public), ReceiptThread::Main).await;
    assert_eq!(counts(&bob.sync().await, &room_id), (0, 0));
}
