//! Holes in what a node has, and how they close.

use messagehub_homeserver::{
    receipts::{self, Mark, NewReceipt},
    typing::{self, Typing},
};
use messagehub_store::{receipts as receipt_rows, typing as typing_rows};
use ruma::events::receipt::ReceiptThread;

use super::*;

#[tokio::test(start_paused = true)]
async fn what_was_said_while_somebody_joined_elsewhere_finds_its_place() {
    let mut net = Net::new();
    let (a, b, c) = (net.start(1), net.start(2), net.start(3));
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    net.drive(say(&a.hs, &alice, &room_id, "old")).await;
    net.drive(invite(&a.hs, &alice, &room_id, &carol.user_id)).await;
    net.until("everybody knows of the invite", || async {
        membership(&c.hs, &room_id, &carol.user_id).await.is_some()
            && membership(&b.hs, &room_id, &carol.user_id).await.is_some()
    })
    .await;
    // Alice speaks on top of what carol will only know as history.
    for other in [&b, &c] {
        net.hub.set_link(a.name(), other.name(), Link::Down);
    }
    net.drive(say(&a.hs, &alice, &room_id, "meanwhile")).await;
    net.drive(join(&c.hs, &carol, &room_id, vec![b.owned_name()])).await;
    net.drive(say(&c.hs, &carol, &room_id, "here")).await;
    net.hub.set_link(a.name(), c.name(), Link::Up);
    net.until("all three agree", || async {
        let (one, two, three) = (
            shape(&a.hs, &room_id).await,
            shape(&b.hs, &room_id).await,
            shape(&c.hs, &room_id).await,
        );
        let heard = texts(&c.hs, &room_id).await;
        one == two && two == three && heard.contains(&"meanwhile".to_owned())
    })
    .await;
    let mut heard = texts(&c.hs, &room_id).await;
    assert_eq!(heard.first().map(String::as_str), Some("old"), "history comes before all else");
    heard.sort();
    assert_eq!(heard, ["here", "meanwhile", "old"]);
}

#[tokio::test(start_paused = true)]
async fn a_long_absence_is_made_up_for_in_order_though_gossip_goes_on() {
    let mut net = Net::new();
    let (a, b, c) = (net.start(1), net.start(2), net.start(3));
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    net.drive(invite(&a.hs, &alice, &room_id, &carol.user_id)).await;
    net.until("carol is invited", || async {
        membership(&c.hs, &room_id, &carol.user_id).await.is_some()
    })
    .await;
    net.drive(join(&c.hs, &carol, &room_id, Vec::new())).await;
    let seed = net.stop(b).await;
    let all: Vec<String> = (0..620).map(|n| n.to_string()).collect();
    for text in &all[..600] {
        net.drive(say(&a.hs, &alice, &room_id, text)).await;
    }
    net.until("c has heard it", || async { texts(&c.hs, &room_id).await.len() == 600 }).await;
    // Both others are asked at once, and new frames come in between.
    let b = net.start(seed);
    for text in &all[600..] {
        net.drive(say(&a.hs, &alice, &room_id, text)).await;
    }
    net.until("b has caught up", || async { texts(&b.hs, &room_id).await.len() == 620 }).await;
    assert_eq!(texts(&b.hs, &room_id).await, all);
    assert_eq!(shape(&a.hs, &room_id).await, shape(&b.hs, &room_id).await);
}

#[tokio::test(start_paused = true)]
async fn receipts_wait_and_typing_does_not() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    net.drive(say(&a.hs, &alice, &room_id, "read me")).await;
    net.until("b hears a", || async { texts(&b.hs, &room_id).await.len() == 1 }).await;

    let notice = Typing::For(std::time::Duration::from_secs(30));
    let whose = (room_id.clone(), bob.user_id.clone());
    net.drive(typing::set(&b.hs, &bob.user_id, whose, notice)).await.unwrap();
    let typists = |hs: &Homeserver| {
        let (hs, room_id) = (hs.clone(), room_id.clone());
        async move {
            read(&hs, move |snap| {
                typing_rows::list(snap, rooms::find(snap, &room_id)?.unwrap().nid)
            })
            .await
        }
    };
    net.until("a sees b type", || async { typists(&a.hs).await == [bob.user_id.clone()] }).await;

    net.hub.set_link(a.name(), b.name(), Link::Down);
    let (heads, _) = shape(&b.hs, &room_id).await;
    let event_id: ruma::OwnedEventId = heads[0].as_str().try_into().unwrap();
    let receipt = NewReceipt {
        room_id: room_id.clone(),
        event_id: event_id.clone(),
        mark: Mark::Read(receipt_rows::Kind::Public),
        thread: ReceiptThread::Unthreaded,
    };
    net.drive(receipts::send(&b.hs, &bob.user_id, vec![receipt])).await.unwrap();
    let seed = net.stop(b).await;
    net.hub.set_link(a.name(), bob.user_id.server_name(), Link::Up);
    let _b = net.start(seed);
    net.until("the receipt arrives", || {
        let (hs, room_id, bob) = (a.hs.clone(), room_id.clone(), bob.user_id.clone());
        let event_id = event_id.clone();
        async move {
            let found = read(&hs, move |snap| {
                let room = rooms::find(snap, &room_id)?.unwrap();
                let kind = (receipt_rows::Kind::Public, &ReceiptThread::Unthreaded);
                receipt_rows::find(snap, room.nid, &bob, kind)
            })
            .await;
            found == Some(event_id)
        }
    })
    .await;
}
