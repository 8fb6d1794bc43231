//! What is acknowledged is durable: the binary is killed at random moments under load, a hundred
//! times, and then every acknowledged event is there, in order, once.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use e2e::{http::Caller, node::Node};
use serde_json::json;

/// Kills in one run; the requirement is a hundred.
const KILLS: usize = 100;
/// Users that send at once, each in an order of its own.
const SENDERS: usize = 4;
/// A run in which fewer events were acknowledged between kills proved nothing.
const MIN_ACKNOWLEDGED: usize = 5 * KILLS;

/// Events that one sender got a 200 for, in the order of sending.
type Acknowledged = Vec<(String, String)>;

/// Sends until the node dies. What was not acknowledged is not sent again: it may be there or
/// not, and the next text is another.
async fn load(caller: Caller, room_id: String, sender: usize, start: usize) -> Acknowledged {
    let mut acknowledged = Vec::new();
    for number in start.. {
        let text = format!("{sender} {number}");
        let txn_id = format!("t{sender}-{number}");
        match caller.send(&room_id, &text, &txn_id).await {
            Some(event_id) => acknowledged.push((event_id, text)),
            None => break,
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_in_a_hundred_kills() {
    let mut node = Node::local(&["--registration", "open"]).await;
    let mut callers = Vec::new();
    for sender in 0..SENDERS {
        callers.push(Caller::register(node.client_address(), &format!("sender{sender}")).await);
    }
    let room_id = callers[0].create_room(json!({"preset": "public_chat"})).await;
    for caller in &callers[1..] {
        let path = format!("/join/{}", e2e::http::escape(&room_id));
        caller.ask(reqwest::Method::POST, &path, json!({})).await.expect("a join");
    }
    let mut acknowledged: Vec<Acknowledged> = vec![Vec::new(); SENDERS];
    let began = Instant::now();
    for kill in 0..KILLS {
        let address = node.client_address();
        let loads: Vec<_> = callers
            .iter()
            .enumerate()
            .map(|(sender, caller)| {
                let start = (kill + 1) * 1_000_000;
                tokio::spawn(load(caller.moved(address), room_id.clone(), sender, start))
            })
            .collect();
        // A moment that no sender chose: 20 to 119 ms into the load.
        let moment = Duration::from_millis(20 + (kill as u64 * 37) % 100);
        tokio::time::sleep(moment).await;
        node.kill().await;
        for (sender, load) in loads.into_iter().enumerate() {
            acknowledged[sender].extend(load.await.expect("a sender"));
        }
        node.start().await;
    }
    let history = callers[0].moved(node.client_address()).history(&room_id).await;
    let total = acknowledged.iter().map(Vec::len).sum::<usize>();
    println!(
        "{KILLS} kills in {:.1?}: {total} events acknowledged, {} found",
        began.elapsed(),
        history.len()
    );
    assert!(total >= MIN_ACKNOWLEDGED, "only {total} events were acknowledged");
    check(&acknowledged, &history);
    assert_eq!(node.run(&["check"], "").await, "the database is sound");
}

fn check(acknowledged: &[Acknowledged], history: &[(String, String)]) {
    let mut places: HashMap<&str, (usize, &str)> = HashMap::new();
    for (place, (event_id, text)) in history.iter().enumerate() {
        let before = places.insert(event_id, (place, text));
        assert!(before.is_none(), "{event_id} is there twice");
    }
    for sender in acknowledged {
        let mut last = None;
        for (event_id, text) in sender {
            let (place, found) = places.get(event_id.as_str()).unwrap_or_else(|| {
                panic!("{event_id} was acknowledged and is lost");
            });
            assert_eq!(found, text);
            assert!(last < Some(*place), "{event_id} is not in the order of sending");
            last = Some(*place);
        }
    }
}
