//! What users have beside rooms: keys, messages from device to device, presence, proofs of who
//! they are.

use serde_json::Value;

use super::{client::Client, *};

mod encryption;
mod people;

/// Two nodes with a user each, who share a room.
struct Two {
    net: Net,
    a: Node,
    b: Node,
    alice: Client,
    bob: Client,
    room_id: OwnedRoomId,
}

async fn two() -> Two {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let alice = net.drive(Client::register(&a, "alice", "ALICE1")).await;
    let bob = net.drive(Client::register(&b, "bob", "BOB1")).await;
    let room_id = shared_room(&mut net, (&a, &alice.session), (&b, &bob.session)).await;
    Two { net, a, b, alice, bob, room_id }
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().map(|list| list.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

/// Syncs until the answer has what is looked for.
async fn sync_until(
    net: &mut Net,
    client: &mut Client,
    what: &str,
    holds: impl Fn(&Value) -> bool,
) -> Value {
    for _ in 0..200 {
        let answer = net.drive(client.sync()).await;
        if holds(&answer) {
            return answer;
        }
        net.drive(tokio::time::sleep(std::time::Duration::from_secs(1))).await;
    }
    panic!("it never came about that {what}");
}

fn has_changed(answer: &Value, user: &str) -> bool {
    names(&answer["device_lists"]["changed"]).contains(&user)
}
