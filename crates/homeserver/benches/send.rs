//! What sending a message costs. `cargo bench -p messagehub-homeserver --features test-support`
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(clippy::expect_used, reason = "a benchmark that fails has no figures")]

use std::time::{Duration, Instant};

use messagehub_homeserver::{
    rooms::{
        invite::{self, Invite},
        join::{self, Join},
    },
    send::{self, NewMessage},
    sessions::Session,
    testing::{TestServer, content},
};
use messagehub_store::Mode;
use ruma::OwnedRoomId;
use serde_json::json;

/// Members of each room, as in the load that the whole server is measured with.
const MEMBERS: usize = 8;
/// Messages that are measured.
const MESSAGES: usize = 5_000;

fn main() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        report("one sender, CPU only", one_sender(Mode::Inline, MESSAGES).await);
        report("one sender, durable", one_sender(Mode::Threaded, MESSAGES / 5).await);
        report("eight senders in four rooms, durable", eight_senders().await);
    });
}

fn report(name: &str, (elapsed, messages): (Duration, usize)) {
    let each = elapsed.as_secs_f64() / messages as f64;
    println!("{name}: {:.1} µs each, {:.0} a second", each * 1e6, 1.0 / each);
}

async fn one_sender(mode: Mode, messages: usize) -> (Duration, usize) {
    let server = TestServer::with_mode(1, mode);
    let (room_id, people) = room(&server, "one").await;
    let start = Instant::now();
    for n in 0..messages {
        say(&server, &people[0], (&room_id, n)).await;
    }
    (start.elapsed(), messages)
}

async fn eight_senders() -> (Duration, usize) {
    let server = TestServer::with_mode(2, Mode::Threaded);
    let mut rooms = Vec::new();
    for name in ["a", "b", "c", "d"] {
        rooms.push(room(&server, name).await);
    }
    let each = MESSAGES / 8;
    let sender = async |index: usize| {
        let (room_id, people) = &rooms[index % 4];
        for n in 0..each {
            say(&server, &people[index / 4], (room_id, n)).await;
        }
    };
    let start = Instant::now();
    futures::future::join_all((0..8).map(sender)).await;
    (start.elapsed(), each * 8)
}

async fn room(server: &TestServer, name: &str) -> (OwnedRoomId, Vec<Session>) {
    let mut people = Vec::new();
    for n in 0..MEMBERS {
        people.push(server.user(&format!("{name}{n}")).await);
    }
    let room_id = server.room(&people[0], None).await;
    for person in &people[1..] {
        let new =
            Invite { room_id: room_id.clone(), user_id: person.user_id.clone(), reason: None };
        invite::invite(&server.hs, &people[0].user_id, new).await.expect("an invite");
        let new = Join { target: room_id.clone().into(), via: Vec::new(), reason: None };
        join::join(&server.hs, &person.user_id, new).await.expect("a join");
    }
    (room_id, people)
}

async fn say(server: &TestServer, by: &Session, (room_id, n): (&OwnedRoomId, usize)) {
    let new = NewMessage {
        room_id: room_id.clone(),
        kind: "m.room.message".into(),
        content: content(&json!({ "msgtype": "m.text", "body": format!("message {n}") })),
        txn_id: n.to_string().into(),
    };
    send::message(&server.hs, by, new).await.expect("a message");
}
