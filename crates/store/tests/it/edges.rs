use std::collections::HashMap;

use messagehub_store::{
    Mode, Room, Store, StoreError, Txn,
    edges::{self, Walk},
    events, extremities,
};
use ruma::{OwnedEventId, UserId};

use crate::support::{Server, apply, message};

/// Builds messages on given extremities, so that the graph is
///
/// ```text
/// a ← b ← c ← f
/// a ← d ← e ← f
/// a ← x
/// ```
///
/// in the order of their letters, but that `x` comes after `a`.
fn graph(
    txn: &mut Txn<'_>,
    server: &Server,
    alice: &UserId,
) -> Result<(Room, HashMap<&'static str, OwnedEventId>), StoreError> {
    let mut room = server.create_room(txn, alice)?;
    let mut nids = HashMap::new();
    let mut ids = HashMap::new();
    let order: [(&str, &[&str]); 7] = [
        ("a", &[]),
        ("x", &["a"]),
        ("b", &["a"]),
        ("c", &["b"]),
        ("d", &["a"]),
        ("e", &["d"]),
        ("f", &["c", "e"]),
    ];
    for (name, prev) in order {
        if !prev.is_empty() {
            let prev: Vec<_> = prev.iter().map(|name| nids[name]).collect();
            extremities::replace(txn, room.nid, &prev)?;
        }
        let judged = server.judged(txn, &room, message(alice, name))?;
        let appended = apply(txn, &mut room, &judged)?;
        nids.insert(name, appended.nid);
        ids.insert(name, judged.pdu().event_id().to_owned());
    }
    Ok((room, ids))
}

#[tokio::test]
async fn ancestors_are_what_one_side_lacks() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::new(1));
    let alice = server.user("alice");
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    store
        .write(move |txn| {
            let (room, ids) = graph(txn, &server, &alice)?;
            let names: HashMap<_, _> = ids.iter().map(|(name, id)| (id.clone(), *name)).collect();
            let walk = |from: &[&str], known: &[&str], limit| {
                let from: Vec<_> = from.iter().map(|name| ids[name].clone()).collect();
                let known: Vec<_> = known.iter().map(|name| ids[name].clone()).collect();
                let walk = Walk { room: room.nid, from: &from, known: &known, limit };
                let found = edges::ancestors(txn, walk).unwrap();
                found
                    .iter()
                    .map(|event| names.get(event.pdu.event_id()).copied().unwrap_or("·"))
                    .collect::<String>()
            };
            assert_eq!(walk(&["f"], &["c"], 9), "fed");
            assert_eq!(walk(&["f"], &["a"], 9), "fecdb");
            assert_eq!(walk(&["f"], &["f"], 9), "");
            assert_eq!(walk(&["c", "e"], &["b", "d"], 9), "ec");
            // The other side knows more than this one asked about.
            assert_eq!(walk(&["b"], &["f"], 9), "");
            // From the start: create and join are there too.
            assert_eq!(walk(&["b"], &[], 9), "ba··");
            assert_eq!(walk(&["f"], &[], 3), "fec");
            let unknown = OwnedEventId::try_from("$unknown").unwrap();
            let from = [unknown.clone(), ids["b"].clone()];
            assert_eq!(edges::missing_of(txn, &from)?, [unknown]);
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn successors_are_what_follows_in_an_order_in_which_each_can_be_judged() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::new(1));
    let alice = server.user("alice");
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    store
        .write(move |txn| {
            let (room, ids) = graph(txn, &server, &alice)?;
            let names: HashMap<_, _> = ids.iter().map(|(name, id)| (id.clone(), *name)).collect();
            let between = |known: &[&str], latest: &[&str], limit, left_out: &str| {
                let known: Vec<_> = known.iter().map(|name| ids[name].clone()).collect();
                let from: Vec<_> = latest.iter().map(|name| ids[name].clone()).collect();
                let walk = Walk { room: room.nid, from: &from, known: &known, limit };
                let name = |event: &events::StoredEvent| {
                    names.get(event.pdu.event_id()).copied().unwrap_or("·")
                };
                let is_given = |event: &events::StoredEvent| !left_out.contains(name(event));
                let found = edges::oldest_first(txn, walk, is_given).unwrap();
                found.iter().map(name).collect::<String>()
            };
            let after = |known: &[&str], limit| between(known, &[], limit, "");
            assert_eq!(after(&["a"], 9), "xbcdef");
            assert_eq!(after(&["a"], 2), "xb");
            assert_eq!(after(&["c"], 9), "def");
            assert_eq!(after(&["c", "d"], 9), "ef");
            assert_eq!(after(&["f"], 9), "");
            // The branch that came earlier goes first, and what it follows is not told again.
            assert_eq!(after(&["d"], 9), "bcef");
            assert_eq!(after(&["e"], 9), "bcf");
            assert_eq!(after(&["e"], 2), "bc");
            // What is not given takes no place of what is.
            assert_eq!(between(&["e"], &[], 2, "b"), "cf");
            assert_eq!(between(&["a"], &[], 2, "xb"), "cd");
            // A branch that came earlier and that nothing followed, when it is asked for.
            assert_eq!(between(&["f"], &["x"], 9, ""), "x");
            assert_eq!(between(&["c"], &["x", "e"], 9, "e"), "xdf");
            assert_eq!(between(&["c"], &["b"], 9, ""), "def");
            // What of that the asker has cannot be told where some of its own is unknown here.
            let known = [ids["f"].clone(), OwnedEventId::try_from("$unknown").unwrap()];
            let walk = Walk { room: room.nid, from: &[ids["x"].clone()], known: &known, limit: 9 };
            assert!(edges::oldest_first(txn, walk, |_| true)?.is_empty());
            // Nothing of ours is known: the oldest of what is before.
            assert_eq!(between(&[], &["c"], 3, "·"), "abc");
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn an_auth_chain_is_complete() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::new(1));
    let alice = server.user("alice");
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    store
        .write(move |txn| {
            let (_, ids) = graph(txn, &server, &alice)?;
            let event = events::find(txn, &ids["f"])?.unwrap().pdu;
            let chain = edges::auth_chain(txn, [&event])?;
            assert!(chain.missing.is_empty());
            let named = event.auth_events();
            assert!(!named.is_empty() && named.iter().all(|id| chain.events.contains_key(id)));
            let closed = |pdu: &std::sync::Arc<messagehub_protocol::pdu::Pdu>| {
                pdu.auth_events().iter().all(|id| chain.events.contains_key(id))
            };
            assert!(chain.events.values().all(closed));
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}
