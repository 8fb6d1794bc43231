//! Waiting for something to happen. Time stands still unless a test waits.

use std::time::Duration;

use futures::{FutureExt, future::join};
use serde_json::json;
use tokio::time::Instant;

use super::{Client, Kind, Mark, TestServer, Typing, joined, timeline};

const LONG: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn a_message_wakes_who_waits() {
    let server = TestServer::new(41);
    let alice = Client::new(&server, "alice");
    let mut bob = Client::new(&server, "bob");
    let room_id = alice.public_room().await;
    bob.join(&room_id).await;
    bob.sync().await;
    let begun = Instant::now();
    let (answer, _) = join(bob.wait(LONG), alice.say(&room_id, "hello")).await;
    assert_eq!(timeline(joined(&answer, &room_id)), ["hello"]);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_happens_elsewhere_does_not_end_the_wait() {
    let server = TestServer::new(42);
    let alice = Client::new(&server, "alice");
    let mut bob = Client::new(&server, "bob");
    let room_id = alice.public_room().await;
    bob.sync().await;
    let begun = Instant::now();
    let (answer, _) = join(bob.wait(LONG), alice.say(&room_id, "hello")).await;
    assert!(answer.get("rooms").is_none());
    assert_eq!(begun.elapsed(), LONG);
}

/// The commit falls between any two polls of the waiting request; none may be missed.
#[tokio::test(start_paused = true)]
async fn no_wake_up_is_lost() {
    let server = TestServer::new(43);
    let alice = Client::new(&server, "alice");
    let mut bob = Client::new(&server, "bob");
    let room_id = alice.public_room().await;
    bob.join(&room_id).await;
    bob.sync().await;
    for n in 0..50 {
        let begun = Instant::now();
        let body = n.to_string();
        {
            let mut waiting = std::pin::pin!(bob.wait(LONG));
            for _ in 0..n % 3 {
                assert!(waiting.as_mut().now_or_never().is_none());
            }
            alice.say(&room_id, &body).await;
            assert_eq!(timeline(joined(&waiting.await, &room_id)), [body]);
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn typing_is_told_and_ends_by_itself() {
    let server = TestServer::new(44);
    let alice = Client::new(&server, "alice");
    let mut bob = Client::new(&server, "bob");
    let room_id = alice.public_room().await;
    bob.join(&room_id).await;
    bob.sync().await;

    alice.types(&room_id, Typing::For(Duration::from_secs(4))).await;
    let answer = bob.sync().await;
    let event =
        |answer: &serde_json::Value| joined(answer, &room_id)["ephemeral"]["events"][0].clone();
    let alice_types = json!({"type": "m.typing", "content": {"user_ids": [alice.session.user_id]}});
    assert_eq!(event(&answer), alice_types);

    // She goes on: nothing that anybody sees.
    alice.types(&room_id, Typing::For(Duration::from_secs(6))).await;
    assert!(bob.sync().await.get("rooms").is_none());

    let begun = Instant::now();
    let clock = async {
        tokio::time::sleep(Duration::from_millis(5_999)).await;
        server.clock.advance(6_000);
    };
    let (answer, ()) = join(bob.wait(LONG), clock).await;
    assert_eq!(event(&answer)["content"]["user_ids"], json!([]));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());

    alice.types(&room_id, Typing::For(Duration::from_secs(6))).await;
    bob.sync().await;
    let (answer, ()) = join(bob.wait(LONG), alice.types(&room_id, Typing::Stopped)).await;
    assert_eq!(event(&answer)["content"]["user_ids"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn ones_own_receipt_from_another_device_wakes() {
    let server = TestServer::new(45);
    let alice = Client::new(&server, "alice");
    let mut bob = Client::new(&server, "bob");
    let room_id = alice.public_room().await;
    bob.join(&room_id).await;
    let hello = alice.say(&room_id, "hello").await;
    bob.sync().await;
    let phone = Client::new(&server, "bob");
    let read = phone.read(&room_id, &hello, Mark::Read(Kind::Private));
    let (answer, ()) = join(bob.wait(LONG), read).await;
    let unread = &joined(&answer, &room_id)["unread_notifications"];
    assert_eq!(unread["notification_count"], 0);
}
