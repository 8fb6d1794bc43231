//! Presence, names and other fields of a profile, proofs of who somebody is, and accounts that end.

use messagehub_homeserver::profiles::{self, Field};

use super::*;
use crate::testing::deliver;

async fn presence_of(client: &Client, user: &str) -> String {
    let path = format!("v3/presence/{user}/status");
    let (status, answer) = client.call("GET", &path, json!({})).await;
    if status == 200 { answer["presence"].as_str().unwrap().to_owned() } else { status.to_string() }
}

#[tokio::test(start_paused = true)]
async fn presence_reaches_who_shares_a_room_and_nothing_is_sent_when_nothing_changes() {
    let mut t = two().await;
    let alice = t.alice.user().to_owned();
    let status = json!({ "presence": "online", "status_msg": "Tea" });
    let path = format!("v3/presence/{alice}/status");
    t.net.drive(t.bob.sync()).await;
    t.net.drive(t.alice.ok("PUT", &path, status)).await;
    let answer = sync_until(&mut t.net, &mut t.bob, "bob sees it", |answer| {
        answer["presence"]["events"][0]["sender"] == json!(alice)
    })
    .await;
    let content = &answer["presence"]["events"][0]["content"];
    assert_eq!((&content["presence"], &content["status_msg"]), (&json!("online"), &json!("Tea")));

    // Her client goes on, and her node has nothing to tell.
    let wait = |seconds| tokio::time::sleep(std::time::Duration::from_secs(seconds));
    let received = || {
        read(&t.b.hs, |snap| {
            let count = "SELECT count(*) FROM received_transactions";
            Ok(snap.conn().query_row(count, [], |row| row.get::<_, i64>(0))?)
        })
    };
    t.net.drive(wait(100)).await;
    let before = received().await;
    t.net.drive(wait(200)).await;
    assert_eq!(received().await, before, "nothing is sent when nothing changed");
    assert_eq!(t.net.drive(presence_of(&t.bob, &alice)).await, "online");

    let clock = t.net.clock.clone().unwrap();
    clock.advance(120_000);
    t.net
        .until("her node takes her for gone", || async {
            presence_of(&t.bob, &alice).await == "offline"
        })
        .await;
    let carol = t.net.start(3);
    let carol = t.net.drive(Client::register(&carol, "carol", "C")).await;
    assert_eq!(t.net.drive(presence_of(&carol, &alice)).await, "403");
}

#[tokio::test(start_paused = true)]
async fn who_is_not_connected_is_gone_and_comes_back_with_the_connection() {
    let mut t = two().await;
    let alice = t.alice.user().to_owned();
    let path = format!("v3/presence/{alice}/status");
    t.net.drive(t.alice.ok("PUT", &path, json!({ "presence": "online" }))).await;
    t.net.until("bob sees her", || async { presence_of(&t.bob, &alice).await == "online" }).await;
    t.net.hub.set_link(t.a.name(), t.b.name(), Link::Down);
    t.net.until("she is gone", || async { presence_of(&t.bob, &alice).await == "offline" }).await;
    t.net.hub.set_link(t.a.name(), t.b.name(), Link::Up);
    t.net.until("she is back", || async { presence_of(&t.bob, &alice).await == "online" }).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_tells_a_third_party_who_somebody_is() {
    let mut t = two().await;
    let path = format!("v3/user/{}/openid/request_token", t.alice.user());
    let granted = t.net.drive(t.alice.ok("POST", &path, json!({}))).await;
    assert_eq!(granted["matrix_server_name"], t.a.name().as_str());
    let ask = |token: String| {
        let uri = format!("/_matrix/federation/v1/openid/userinfo?access_token={token}");
        let request = http::Request::get(uri).body(bytes::Bytes::new()).unwrap();
        deliver(t.a.router.clone(), t.b.peer_id.clone(), request)
    };
    let token = granted["access_token"].as_str().unwrap().to_owned();
    let answer = ask(token).await.unwrap();
    let answer: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(answer, json!({ "sub": t.alice.user() }));
    assert_eq!(ask("guess".to_owned()).await.unwrap().status(), 401);
    let foreign = format!("v3/user/{}/openid/request_token", t.bob.user());
    let (status, _) = t.net.drive(t.alice.call("POST", &foreign, json!({}))).await;
    assert_eq!(status, 403);
}

#[tokio::test(start_paused = true)]
async fn a_new_name_arrives_though_the_other_node_was_off() {
    let mut t = two().await;
    t.bob.leave();
    let seed = t.net.stop(t.b).await;
    let name = Field::DisplayName(Some("Alice in Wonderland".to_owned()));
    let alice = t.alice.session.user_id.clone();
    t.net.drive(profiles::set(&t.a.hs, &alice, &alice, name)).await.unwrap();
    let b = t.net.start(seed);
    t.net
        .until("b shows the new name", || async {
            let (room_id, alice) = (t.room_id.clone(), alice.clone());
            let shown = read(&b.hs, move |snap| {
                let room = rooms::find(snap, &room_id)?.unwrap();
                let member = memberships::find(snap, room.nid, &alice)?.unwrap();
                events::pdu(snap, member.event.unwrap())
            });
            shown.await.content().get().contains("Wonderland")
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn further_profile_fields_are_seen_by_other_nodes() {
    let mut t = two().await;
    let path = |field: &str| format!("v3/profile/{}/{field}", t.alice.user());
    for (field, value) in [("m.tz", json!("Europe/Berlin")), ("org.example.x", json!({ "a": [1] }))]
    {
        t.net.drive(t.alice.ok("PUT", &path(field), json!({ field: value }))).await;
        let seen = t.net.drive(t.bob.ok("GET", &path(field), json!({}))).await;
        assert_eq!(seen, json!({ field: value }));
    }
    let of_alice = format!("v3/profile/{}", t.alice.user());
    let all = t.net.drive(t.bob.ok("GET", &of_alice, json!({})));
    assert_eq!(
        all.await,
        json!({
        "displayname": "alice", "m.tz": "Europe/Berlin", "org.example.x": { "a": [1] } })
    );
    t.net.drive(t.alice.ok("DELETE", &path("m.tz"), json!({}))).await;
    for (method, field, body, status, errcode) in [
        ("GET", "m.tz", json!({}), 404, "M_NOT_FOUND"),
        ("PUT", "m.tz", json!({}), 400, "M_MISSING_PARAM"),
        ("PUT", "Bad", json!({ "Bad": 1 }), 400, "M_INVALID_PARAM"),
        ("PUT", "displayname", json!({ "displayname": 7 }), 400, "M_INVALID_PARAM"),
    ] {
        let (got, answer) = t.net.drive(t.alice.call(method, &path(field), body)).await;
        assert_eq!((got, answer["errcode"].as_str()), (status, Some(errcode)), "{method} {field}");
    }
    let (status, _) = t.net.drive(t.bob.call("PUT", &path("m.tz"), json!({ "m.tz": "x" }))).await;
    assert_eq!(status, 403);
    // A name may be taken away.
    t.net.drive(t.alice.ok("PUT", &path("displayname"), json!({ "displayname": null }))).await;
    let (status, _) = t.net.drive(t.bob.call("GET", &path("displayname"), json!({}))).await;
    assert_eq!(status, 404);
}

#[tokio::test(start_paused = true)]
async fn typing_needs_no_timeout_and_receipts_a_thread_that_is_there() {
    let mut t = two().await;
    let typing = format!("v3/rooms/{}/typing/{}", t.room_id, t.bob.user());
    t.net.drive(t.bob.ok("PUT", &typing, json!({ "typing": true }))).await;
    let bob = t.bob.user().to_owned();
    let room_id = t.room_id.clone();
    let ephemeral = |answer: &Value| {
        let room = &answer["rooms"]["join"][room_id.as_str()];
        room["ephemeral"]["events"].as_array().cloned().unwrap_or_default()
    };
    sync_until(&mut t.net, &mut t.alice, "alice sees bob type", |answer| {
        ephemeral(answer).iter().any(|event| event["content"]["user_ids"] == json!([bob]))
    })
    .await;

    let sent = format!("v3/rooms/{}/send/m.room.message/t1", t.room_id);
    let sent = t.net.drive(t.bob.ok("PUT", &sent, json!({ "body": "x", "msgtype": "m.text" })));
    let event_id = sent.await["event_id"].as_str().unwrap().to_owned();
    let receipt = |thread: &str| {
        json!([{ "edu_type": "m.receipt", "content": { t.room_id.as_str(): { "m.read": {
            &bob: { "event_ids": [&event_id], "data": { "ts": 1, "thread_id": thread } } } } } }])
    };
    t.net
        .until("the message arrives", || async { texts(&t.a.hs, &t.room_id).await == ["x"] })
        .await;
    t.net.drive(t.alice.sync()).await;
    t.net.drive(push((&t.b, &t.a), "r1", (&[], receipt("$made-up")))).await;
    assert!(ephemeral(&t.net.drive(t.alice.sync()).await).is_empty(), "no such thread");
    t.net.drive(push((&t.b, &t.a), "r2", (&[], receipt("main")))).await;
    let events = ephemeral(&t.net.drive(t.alice.sync()).await);
    assert_eq!(events[0]["content"][&event_id]["m.read"][&bob]["thread_id"], "main");
}

#[tokio::test(start_paused = true)]
async fn a_deactivated_user_leaves_and_is_gone_for_other_nodes() {
    let mut t = two().await;
    t.net.drive(t.bob.upload_keys(11)).await;
    let path = "v3/account/deactivate";
    let (status, _) = t.net.drive(t.bob.call("POST", path, json!({}))).await;
    assert_eq!(status, 401);
    let auth = json!({ "auth": {
        "type": "m.login.password", "password": "a long enough password",
        "identifier": { "type": "m.id.user", "user": t.bob.user() } } });
    t.net.drive(t.bob.ok("POST", path, auth)).await;
    let (status, answer) = t.net.drive(t.bob.call("GET", "v3/account/whoami", json!({}))).await;
    assert_eq!((status, answer["errcode"].as_str()), (401, Some("M_UNKNOWN_TOKEN")));
    t.net
        .until("alice sees him leave", || async {
            membership(&t.a.hs, &t.room_id, &t.bob.session.user_id).await
                == Some(MembershipState::Leave)
        })
        .await;
    let path = format!("v3/profile/{}", t.bob.user());
    let (status, _) = t.net.drive(t.alice.call("GET", &path, json!({}))).await;
    assert_eq!(status, 404);
}
