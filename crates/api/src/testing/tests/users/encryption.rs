//! Keys of devices and users, and messages from device to device.

use super::{
    super::client::{device_keys, one_time_keys, public, sign},
    *,
};

#[tokio::test(start_paused = true)]
async fn keys_are_queried_and_claimed_across_nodes_each_once() {
    let mut t = two().await;
    let (alice, bob) = (&t.alice, &t.bob);
    let keys = t.net.drive(bob.upload_keys(11)).await;
    let fallback = json!({ "signed_curve25519:F": {
        "key": "RkZG", "fallback": true, "signatures": {} } });
    let upload = json!({ "one_time_keys": one_time_keys(&["1", "2"]), "fallback_keys": fallback });
    let counts = t.net.drive(bob.ok("POST", "v3/keys/upload", upload.clone())).await;
    assert_eq!(counts["one_time_key_counts"]["signed_curve25519"], 2);
    t.net.drive(bob.ok("POST", "v3/keys/upload", upload)).await;

    let found = t.net.drive(alice.query(bob.user())).await;
    assert_eq!(found["device_keys"][bob.user()]["BOB1"], keys, "{found}");
    assert_eq!(found.get("failures"), None);

    let claim = json!({ "one_time_keys": { bob.user(): { "BOB1": "signed_curve25519" } } });
    let mut claimed = Vec::new();
    for _ in 0..4 {
        let answer = t.net.drive(alice.ok("POST", "v3/keys/claim", claim.clone())).await;
        let keys = answer["one_time_keys"][bob.user()]["BOB1"].as_object().unwrap().clone();
        claimed.extend(keys.keys().map(|id| id.replace("signed_curve25519:", "")));
    }
    assert_eq!(claimed, ["1", "2", "F", "F"], "in the order of upload, then the fallback");
    let again = json!({ "one_time_keys": one_time_keys(&["1"]) });
    let counts = t.net.drive(bob.ok("POST", "v3/keys/upload", again)).await;
    assert_eq!(counts["one_time_key_counts"], json!({}), "a key that was used is not new");
    let synced = t.net.drive(t.bob.sync()).await;
    assert_eq!(synced["device_one_time_keys_count"]["signed_curve25519"], 0);
    assert_eq!(synced["device_unused_fallback_key_types"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn one_time_keys_are_claimed_once_by_many_at_once() {
    let mut t = two().await;
    let names: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let upload = json!({ "one_time_keys": one_time_keys(&names) });
    t.net.drive(t.bob.ok("POST", "v3/keys/upload", upload)).await;
    let claim = json!({ "one_time_keys": { t.bob.user(): { "BOB1": "signed_curve25519" } } });
    let here = (0..30).map(|_| t.bob.ok("POST", "v3/keys/claim", claim.clone()));
    let there = (0..30).map(|_| t.alice.ok("POST", "v3/keys/claim", claim.clone()));
    let all = futures::future::join_all(here.chain(there));
    let answers = t.net.drive(all).await;
    let mut ids: Vec<String> = Vec::new();
    for answer in &answers {
        let keys = answer["one_time_keys"][t.bob.user()]["BOB1"].as_object();
        ids.extend(keys.into_iter().flat_map(|keys| keys.keys().cloned()));
    }
    ids.sort();
    let count = ids.len();
    ids.dedup();
    assert_eq!((ids.len(), count), (50, 50), "no key twice, and none lost");
}

#[tokio::test(start_paused = true)]
async fn bad_keys_are_refused() {
    let mut t = two().await;
    let (alice, bob) = (&t.alice, &t.bob);
    let foreign = json!({ "device_keys": device_keys(bob.user(), "ALICE1", 1) });
    let (status, _) = t.net.drive(alice.call("POST", "v3/keys/upload", foreign)).await;
    assert_eq!(status, 400);
    let other = json!({ "device_keys": device_keys(alice.user(), "OTHER", 1) });
    let (status, _) = t.net.drive(alice.call("POST", "v3/keys/upload", other)).await;
    assert_eq!(status, 400);
    let upload = |key: &str| json!({ "one_time_keys": { "signed_curve25519:1": { "key": key, "signatures": {} } } });
    t.net.drive(alice.ok("POST", "v3/keys/upload", upload("YWFh"))).await;
    let (status, answer) = t.net.drive(alice.call("POST", "v3/keys/upload", upload("YmJi"))).await;
    assert_eq!((status, answer["errcode"].as_str()), (400, Some("M_INVALID_PARAM")));
    let ids = json!({ "device_keys": { bob.user(): { "BOB1": true } } });
    let (status, _) = t.net.drive(alice.call("POST", "v3/keys/query", ids)).await;
    assert_eq!(status, 400);
}

#[tokio::test(start_paused = true)]
async fn changes_of_devices_reach_the_other_node_though_it_was_off() {
    let mut t = two().await;
    t.net.drive(t.alice.sync()).await;
    t.net.drive(t.bob.upload_keys(11)).await;
    let bob = t.bob.user().to_owned();
    sync_until(&mut t.net, &mut t.alice, "alice learns of bob's device", |answer| {
        has_changed(answer, &bob)
    })
    .await;
    let found = t.net.drive(t.alice.query(&bob)).await;
    assert_eq!(found["device_keys"][&bob].as_object().unwrap().len(), 1);

    // Several changes of several devices while the other node is off.
    t.alice.leave();
    let seed = t.net.stop(t.a).await;
    let second = t.net.drive(t.bob.log_in("BOB2")).await;
    t.net.drive(second.upload_keys(12)).await;
    let third = t.net.drive(t.bob.log_in("BOB3")).await;
    t.net.drive(third.upload_keys(13)).await;
    t.net.drive(second.ok("POST", "v3/logout", json!({}))).await;
    let a = t.net.start(seed);
    t.alice.at(&a);
    sync_until(&mut t.net, &mut t.alice, "alice learns of it", |answer| has_changed(answer, &bob))
        .await;
    t.net
        .until("the list is up to date", || async {
            let found = t.alice.query(&bob).await;
            let devices = found["device_keys"][&bob].as_object().unwrap();
            devices.keys().collect::<Vec<_>>() == ["BOB1", "BOB3"]
        })
        .await;

    // What is known is there though nobody can be asked.
    t.bob.leave();
    let _seed = t.net.stop(t.b).await;
    let carried = t.net.hub.carried();
    let found = t.net.drive(t.alice.query(&bob)).await;
    assert_eq!(found["device_keys"][&bob].as_object().unwrap().len(), 2);
    assert_eq!(found.get("failures"), None);
    assert_eq!(t.net.hub.carried(), carried, "what is followed is not asked for");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_there_is_a_failure() {
    let mut t = two().await;
    let (bob, server) = (t.bob.user().to_owned(), t.b.name().to_string());
    t.bob.leave();
    let _seed = t.net.stop(t.b).await;
    let found = t.net.drive(t.alice.query(&bob)).await;
    assert!(found["failures"][&server].is_object(), "{found}");
    let claim = json!({ "one_time_keys": { bob: { "BOB1": "signed_curve25519" } } });
    let claimed = t.net.drive(t.alice.ok("POST", "v3/keys/claim", claim)).await;
    assert!(claimed["failures"][&server].is_object(), "{claimed}");
}

#[tokio::test(start_paused = true)]
async fn who_leaves_is_no_longer_followed_and_who_comes_is() {
    let mut t = two().await;
    t.net.drive(t.bob.upload_keys(11)).await;
    let bob = t.bob.user().to_owned();
    sync_until(&mut t.net, &mut t.alice, "alice learns", |it| has_changed(it, &bob)).await;
    let room_id = t.room_id.clone();
    t.net.drive(leave::leave(&t.b.hs, &t.bob.session.user_id, room_id, None)).await.unwrap();
    sync_until(&mut t.net, &mut t.alice, "bob has left", |answer| {
        names(&answer["device_lists"]["left"]).contains(&bob.as_str())
    })
    .await;
    let kept = read(&t.a.hs, {
        let bob = t.bob.session.user_id.clone();
        move |snap| messagehub_store::device_keys::count(snap, &bob)
    });
    assert_eq!(t.net.drive(kept).await, 0, "nobody would tell us of changes");
    let room = shared_room(&mut t.net, (&t.a, &t.alice.session), (&t.b, &t.bob.session)).await;
    sync_until(&mut t.net, &mut t.alice, "bob is back", |it| has_changed(it, &bob)).await;
    t.net
        .until("his devices are known again", || async {
            let bob = t.bob.session.user_id.clone();
            read(&t.a.hs, move |snap| messagehub_store::device_keys::count(snap, &bob)).await == 1
        })
        .await;
    drop(room);
}

#[tokio::test(start_paused = true)]
async fn keys_changes_tells_what_a_sync_would() {
    let mut t = two().await;
    t.net.drive(t.alice.sync()).await;
    let from = t.alice.since.clone().unwrap();
    t.net.drive(t.bob.upload_keys(11)).await;
    let bob = t.bob.user().to_owned();
    sync_until(&mut t.net, &mut t.alice, "alice learns", |it| has_changed(it, &bob)).await;
    let to = t.alice.since.clone().unwrap();
    let path = format!("v3/keys/changes?from={from}&to={to}");
    let changes = t.net.drive(t.alice.ok("GET", &path, json!({}))).await;
    assert_eq!(names(&changes["changed"]), [bob]);
    let (status, _) =
        t.net.drive(t.alice.call("GET", "v3/keys/changes?from=x&to=y", json!({}))).await;
    assert_eq!(status, 400);
}

/// A set of cross-signing keys: the master key, and the two others signed by it.
fn signing_keys(user: &str, seed: u8) -> Value {
    let key = |usage: &str, seed: u8| {
        json!({
            "user_id": user,
            "usage": [usage],
            "keys": { format!("ed25519:{}", public(seed)): public(seed) },
        })
    };
    let master = key("master", seed);
    let id = format!("ed25519:{}", public(seed));
    let mut own = key("self_signing", seed + 1);
    sign(&mut own, user, &id, seed);
    let mut others = key("user_signing", seed + 2);
    sign(&mut others, user, &id, seed);
    json!({ "master_key": master, "self_signing_key": own, "user_signing_key": others })
}

#[tokio::test(start_paused = true)]
async fn cross_signing_keys_are_published_and_replaced_only_with_a_proof() {
    let mut t = two().await;
    let path = "v3/keys/device_signing/upload";
    let keys = signing_keys(t.alice.user(), 21);
    let mut forged = keys.clone();
    forged["self_signing_key"]["signatures"] = json!({});
    let (status, answer) = t.net.drive(t.alice.call("POST", path, forged)).await;
    assert_eq!((status, answer["errcode"].as_str()), (400, Some("M_INVALID_SIGNATURE")));
    let without = json!({ "self_signing_key": keys["self_signing_key"] });
    let (status, answer) = t.net.drive(t.alice.call("POST", path, without)).await;
    assert_eq!((status, answer["errcode"].as_str()), (400, Some("M_MISSING_PARAM")));

    t.net.drive(t.alice.ok("POST", path, keys.clone())).await;
    t.net.drive(t.alice.ok("POST", path, keys.clone())).await;
    let mut new = signing_keys(t.alice.user(), 31);
    let (status, answer) = t.net.drive(t.alice.call("POST", path, new.clone())).await;
    assert_eq!(status, 401, "{answer}");
    let own = t.net.drive(t.alice.query(t.alice.user())).await;
    assert_eq!(own["master_keys"][t.alice.user()], keys["master_key"]);
    assert_eq!(own["user_signing_keys"][t.alice.user()], keys["user_signing_key"]);

    let alice = t.alice.user().to_owned();
    t.net
        .until("bob's node has them", || async {
            let found = t.bob.query(&alice).await;
            found["self_signing_keys"][&alice] == keys["self_signing_key"]
                && found["user_signing_keys"].get(&alice).is_none()
        })
        .await;
    new["auth"] = json!({
        "type": "m.login.password", "password": "a long enough password",
        "identifier": { "type": "m.id.user", "user": alice },
        "session": answer["session"],
    });
    t.net.drive(t.alice.ok("POST", path, new.clone())).await;
    t.net
        .until("bob's node has the new ones", || async {
            t.bob.query(&alice).await["master_keys"][&alice] == new["master_key"]
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn signatures_are_checked_and_seen_by_those_they_are_for() {
    let mut t = two().await;
    let (alice, bob) = (t.alice.user().to_owned(), t.bob.user().to_owned());
    let device = t.net.drive(t.alice.upload_keys(11)).await;
    let path = "v3/keys/device_signing/upload";
    t.net.drive(t.alice.ok("POST", path, signing_keys(&alice, 21))).await;
    let bobs = signing_keys(&bob, 31);
    t.net.drive(t.bob.ok("POST", path, bobs.clone())).await;

    // Alice's self-signing key vouches for her device; her node tells bob's.
    let path = "v3/keys/signatures/upload";
    let mut signed = device.clone();
    let own_key = format!("ed25519:{}", public(22));
    sign(&mut signed, &alice, &own_key, 23);
    let body = |signed: &Value| json!({ &alice: { "ALICE1": signed } });
    let refused = t.net.drive(t.alice.ok("POST", path, body(&signed))).await;
    assert_eq!(refused["failures"][&alice]["ALICE1"]["errcode"], "M_INVALID_SIGNATURE");
    sign(&mut signed, &alice, &own_key, 22);
    assert_eq!(t.net.drive(t.alice.ok("POST", path, body(&signed))).await, json!({}));
    t.net
        .until("bob sees the signature", || async {
            let found = t.bob.query(&alice).await;
            found["device_keys"][&alice]["ALICE1"]["signatures"][&alice][&own_key].is_string()
        })
        .await;

    // Alice vouches for bob; only she sees it.
    t.net
        .until("alice sees bob's master key", || async {
            t.alice.query(&bob).await["master_keys"][&bob] == bobs["master_key"]
        })
        .await;
    t.net.drive(t.alice.sync()).await;
    let mut master = bobs["master_key"].clone();
    let for_others = format!("ed25519:{}", public(23));
    sign(&mut master, &alice, &for_others, 23);
    let body = json!({ &bob: { public(31): master } });
    assert_eq!(t.net.drive(t.alice.ok("POST", path, body)).await, json!({}));
    let seen = t.net.drive(t.alice.query(&bob)).await;
    assert!(seen["master_keys"][&bob]["signatures"][&alice][&for_others].is_string(), "{seen}");
    let seen = t.net.drive(t.bob.query(&bob)).await;
    assert_eq!(seen["master_keys"][&bob].get("signatures"), None);
    assert!(has_changed(&t.net.drive(t.alice.sync()).await, &bob), "her other devices are told");

    let unknown = json!({ &bob: { "NOPE": { "user_id": bob } } });
    let refused = t.net.drive(t.alice.ok("POST", path, unknown)).await;
    assert_eq!(refused["failures"][&bob]["NOPE"]["errcode"], "M_NOT_FOUND");
}

fn texts_to_device(answer: &Value) -> Vec<String> {
    let events = answer["to_device"]["events"].as_array().cloned().unwrap_or_default();
    events.iter().map(|event| event["content"]["n"].to_string()).collect()
}

async fn send_to_device(from: &Client, to: &str, device: &str, n: usize) {
    let body = json!({ "messages": { to: { device: { "n": n } } } });
    from.ok("PUT", &format!("v3/sendToDevice/m.test/txn{n}"), body).await;
}

#[tokio::test(start_paused = true)]
async fn messages_to_devices_arrive_in_order_once_and_wait_for_who_is_off() {
    let mut t = two().await;
    let bob = t.bob.user().to_owned();
    t.bob.leave();
    let seed = t.net.stop(t.b).await;
    for n in 0..250 {
        t.net.drive(send_to_device(&t.alice, &bob, "BOB1", n)).await;
    }
    t.net.drive(send_to_device(&t.alice, &bob, "BOB1", 0)).await;
    let b = t.net.start(seed);
    t.bob.at(&b);
    t.net
        .until("all has arrived", || async {
            let device = (t.bob.session.user_id.clone(), t.bob.session.device_id.clone());
            let waiting = read(&b.hs, move |snap| {
                let all = messagehub_store::StreamPos::ZERO;
                messagehub_store::to_device::list(snap, (&device.0, &device.1), all, 1000)
            });
            waiting.await.len() == 250
        })
        .await;
    let mut got = Vec::new();
    let first = t.net.drive(t.bob.sync()).await;
    got.extend(texts_to_device(&first));
    assert_eq!(got.len(), 100, "so many at a time");
    let (event, token) = (first["to_device"]["events"][0].clone(), t.bob.since.take());
    assert_eq!(
        event,
        json!({
        "type": "m.test", "sender": t.alice.user(), "content": { "n": 0 } })
    );
    let repeated = t.net.drive(t.bob.sync()).await;
    assert_eq!(texts_to_device(&repeated), got, "what was not acknowledged comes again");
    t.bob.since = token;
    for _ in 0..3 {
        got.extend(texts_to_device(&t.net.drive(t.bob.sync()).await));
    }
    let all: Vec<String> = (0..250).map(|n| n.to_string()).collect();
    assert_eq!(got, all);
    let device = (t.bob.session.user_id.clone(), t.bob.session.device_id.clone());
    let kept = read(&b.hs, move |snap| {
        let all = messagehub_store::StreamPos(i64::MAX);
        messagehub_store::to_device::is_any_until(snap, (&device.0, &device.1), all)
    });
    assert!(!t.net.drive(kept).await, "what was acknowledged is gone");
}

#[tokio::test(start_paused = true)]
async fn a_message_may_be_for_all_devices_of_a_user() {
    let mut t = two().await;
    let mut second = t.net.drive(t.bob.log_in("BOB2")).await;
    let bob = t.bob.user().to_owned();
    t.net.drive(send_to_device(&t.alice, &bob, "*", 1)).await;
    t.net.drive(send_to_device(&t.alice, &bob, "BOB2", 2)).await;
    t.net.drive(send_to_device(&t.alice, &bob, "NOBODY", 3)).await;
    let last = |answer: &Value| texts_to_device(answer).last().is_some_and(|n| n == "2");
    let answer = sync_until(&mut t.net, &mut second, "both are there", last).await;
    assert!(texts_to_device(&answer).ends_with(&["2".to_owned()]));
    assert_eq!(texts_to_device(&t.net.drive(t.bob.sync()).await), ["1"]);
    let large = json!({ "messages": { bob: { "*": { "x": "y".repeat(70_000) } } } });
    let (status, _) = t.net.drive(t.alice.call("PUT", "v3/sendToDevice/m.test/large", large)).await;
    assert_eq!(status, 413);
}

#[tokio::test(start_paused = true)]
async fn edus_are_believed_of_their_senders_only_and_once() {
    let mut t = two().await;
    let (alice, bob) = (t.alice.user().to_owned(), t.bob.user().to_owned());
    let message = |sender: &str, id: &str, n: usize| {
        json!({ "edu_type": "m.direct_to_device", "content": {
            "sender": sender, "type": "m.test", "message_id": id,
            "messages": { &bob: { "BOB1": { "n": n } } } } })
    };
    let ignored = || {
        let counter = &t.b.hs.peers.counters().edus_ignored;
        counter.load(std::sync::atomic::Ordering::Relaxed)
    };
    let edus = json!([
        message(&alice, "m1", 1),
        message(&bob, "m2", 2),
        { "edu_type": "org.example.unknown", "content": {} },
        { "edu_type": "m.typing", "content": { "room_id": 7 } },
        { "edu_type": "m.presence", "content": { "push": [
            { "user_id": bob, "presence": "online", "last_active_ago": 1 } ] } },
        { "edu_type": "m.device_list_update", "content": {
            "user_id": bob, "device_id": "EVIL", "stream_id": 9, "prev_id": [] } },
        message(&alice, "m3", 3),
    ]);
    t.net.drive(push((&t.a, &t.b), "t1", (&[], edus))).await;
    assert_eq!(ignored(), 2);
    let again = json!([message(&alice, "m1", 1), message(&alice, "m4", 4)]);
    t.net.drive(push((&t.a, &t.b), "t2", (&[], again))).await;
    let answer = t.net.drive(t.bob.sync()).await;
    assert_eq!(texts_to_device(&answer), ["1", "3", "4"]);
    assert!(answer["presence"]["events"].as_array().is_none_or(Vec::is_empty), "{answer}");
    let own = t.net.drive(t.bob.query(&bob)).await;
    assert!(own["device_keys"][&bob].get("EVIL").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_stranger_learns_no_devices_and_takes_no_keys() {
    let mut t = two().await;
    let c = t.net.start(3);
    let carol = t.net.drive(Client::register(&c, "carol", "CAROL1")).await;
    t.net.drive(t.bob.upload_keys(11)).await;
    let upload = json!({ "one_time_keys": one_time_keys(&["1"]) });
    t.net.drive(t.bob.ok("POST", "v3/keys/upload", upload)).await;
    let bob = t.bob.user().to_owned();
    let found = t.net.drive(carol.query(&bob)).await;
    assert_eq!(found.get("device_keys"), None, "{found}");
    let claim = json!({ "one_time_keys": { &bob: { "BOB1": "signed_curve25519" } } });
    let claimed = t.net.drive(carol.ok("POST", "v3/keys/claim", claim.clone())).await;
    assert_eq!(claimed["one_time_keys"], json!({}));

    // Whom bob invites has to do with him.
    let room_id =
        t.net.drive(create::room(&t.b.hs, &t.bob.session.user_id, NewRoom::new())).await.unwrap();
    t.net.drive(invite(&t.b.hs, &t.bob.session, &room_id, &carol.session.user_id)).await;
    let found = t.net.drive(carol.query(&bob)).await;
    assert!(found["device_keys"][&bob]["BOB1"].is_object(), "{found}");
    let claimed = t.net.drive(carol.ok("POST", "v3/keys/claim", claim)).await;
    assert!(claimed["one_time_keys"][&bob]["BOB1"].is_object(), "{claimed}");
}
