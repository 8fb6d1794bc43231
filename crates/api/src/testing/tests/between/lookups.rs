//! Access lists, events by time, keys of others, third-party invites, and what there is not.

use messagehub_homeserver::{
    clock::timestamp,
    rooms::{read::ReadError, timestamp as by_time},
    server::third_party::{self, Bound},
};
use messagehub_protocol::{
    canonical,
    keys::{PublicKey, VerifyKey},
    server_keys::ServerKeys,
};
use ruma::{
    MilliSecondsSinceUnixEpoch,
    api::Direction,
    serde::{Base64, base64::Standard},
};

use super::*;

const V1: &str = "/_matrix/federation/v1";
const V2: &str = "/_matrix/federation/v2";

/// Every operation that an access list closes, as the server of `bob` would use it.
async fn doors(
    b: &Node,
    (room_id, event_id): (&OwnedRoomId, &OwnedEventId),
    (bob, alice): (&UserId, &UserId),
) -> Vec<(&'static str, String, Value)> {
    let (room, event, user) = (enc(room_id), enc(event_id), enc(bob));
    let missing = json!({ "earliest_events": [], "latest_events": [event_id] });
    let template = template_after(event_id);
    let change = |whom, to| completed(b, room_id, (bob, whom), (&template, to));
    let (join_id, join) = change(bob, "join");
    let (leave_id, leave) = change(bob, "leave");
    let (knock_id, knock) = change(bob, "knock");
    let (invite_id, invite) = change(alice, "invite");
    let create = create_event(&b.hs, room_id).await;
    let invite = json!({ "room_version": "12", "event": invite, "invite_room_state": [create] });
    let (join_id, leave_id) = (enc(join_id), enc(leave_id));
    let (knock_id, invite_id) = (enc(knock_id), enc(invite_id));
    let none = || Value::Null;
    vec![
        ("GET", format!("{V1}/make_join/{room}/{user}?ver=12"), none()),
        ("PUT", format!("{V2}/send_join/{room}/{join_id}"), join),
        ("GET", format!("{V1}/make_leave/{room}/{user}"), none()),
        ("PUT", format!("{V2}/send_leave/{room}/{leave_id}"), leave),
        ("GET", format!("{V1}/make_knock/{room}/{user}?ver=12"), none()),
        ("PUT", format!("{V1}/send_knock/{room}/{knock_id}"), knock),
        ("PUT", format!("{V2}/invite/{room}/{invite_id}"), invite),
        ("GET", format!("{V1}/state/{room}?event_id={event}"), none()),
        ("GET", format!("{V1}/state_ids/{room}?event_id={event}"), none()),
        ("GET", format!("{V1}/backfill/{room}?v={event}&limit=5"), none()),
        ("GET", format!("{V1}/event_auth/{room}/{event}"), none()),
        ("POST", format!("{V1}/get_missing_events/{room}"), missing),
        ("GET", format!("{V1}/timestamp_to_event/{room}?ts=1&dir=f"), none()),
        ("GET", format!("{V1}/event/{event}"), none()),
    ]
}

fn template_after(event_id: &OwnedEventId) -> Value {
    json!({ "prev_events": [event_id], "auth_events": [event_id], "depth": 9 })
}

#[tokio::test(start_paused = true)]
async fn an_access_list_holds_at_every_door() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    net.drive(set(&a.hs, &alice, &room_id, "m.room.join_rules", json!({ "join_rule": "public" })))
        .await;
    let event_id = net
        .drive(set_at(&a.hs, &alice, &room_id, ("m.room.topic", ""), json!({ "topic": "t" })))
        .await;
    net.until("b has it", || async {
        shape(&a.hs, &room_id).await == shape(&b.hs, &room_id).await
    })
    .await;
    net.drive(say(&b.hs, &bob, &room_id, "still in")).await;
    net.until("a hears b", || async { texts(&a.hs, &room_id).await == ["still in"] }).await;
    let acl = json!({ "allow": ["*"], "deny": [b.name()], "allow_ip_literals": true });
    net.drive(set(&a.hs, &alice, &room_id, "m.room.server_acl", acl)).await;

    let doors = doors(&b, (&room_id, &event_id), (&bob.user_id, &alice.user_id)).await;
    for (method, uri, body) in doors {
        let asked = ask(&b, a.name(), (method, &uri), body);
        assert_eq!(net.drive(asked).await, refused(403, "M_FORBIDDEN"), "{method} {uri}");
    }
    let uri = format!("{V1}/hierarchy/{}", enc(&room_id));
    let asked = ask(&b, a.name(), ("GET", &uri), Value::Null);
    assert_eq!(net.drive(asked).await, refused(404, "M_NOT_FOUND"));

    // Each event of a transaction, and each EDU.
    let about = (&*bob.user_id, &*bob.user_id);
    let what = (&template_after(&event_id), "leave");
    let (id, member) = completed(&b, &room_id, about, what);
    let transaction = json!({
        "origin": b.name(), "origin_server_ts": 1, "pdus": [member],
        "edus": [{ "edu_type": "m.typing", "content": {
            "room_id": room_id, "user_id": bob.user_id, "typing": true } }],
    });
    let uri = format!("{V1}/send/acl");
    let sent = net.drive(ask(&b, a.name(), ("PUT", &uri), transaction)).await.unwrap();
    assert!(sent["pdus"][&id]["error"].is_string(), "{sent}");
    let wanted = room_id.clone();
    let typing = read(&a.hs, move |snap| {
        let room = rooms::find(snap, &wanted)?.unwrap();
        messagehub_store::typing::list(snap, room.nid)
    });
    assert!(typing.await.is_empty());
    let heads = json!({ "heads": { room_id.as_str(): [event_id] } });
    let uri = "/_matrix/federation/unstable/net.messagehub/heads";
    let answer = net.drive(ask(&b, a.name(), ("POST", uri), heads)).await.unwrap();
    assert!(answer["heads"].as_object().is_none_or(serde_json::Map::is_empty), "{answer}");
}

async fn create_event(hs: &Homeserver, room_id: &OwnedRoomId) -> Value {
    let room_id = room_id.clone();
    let json = read(hs, move |snap| {
        let room = rooms::find(snap, &room_id)?.unwrap();
        let create = room_state::get(snap, room.state, &StateEventType::RoomCreate, "")?.unwrap();
        Ok(events::pdu(snap, create)?.json().to_owned())
    })
    .await;
    serde_json::from_str(&json).unwrap()
}

/// When an event with a text was sent.
async fn time_of(hs: &Homeserver, room_id: &OwnedRoomId, text: &str) -> u64 {
    let (room_id, text) = (room_id.clone(), format!("\"{text}\""));
    read(hs, move |snap| {
        let room = rooms::find(snap, &room_id)?.unwrap();
        let all = (StreamPos(i64::MIN), StreamPos(i64::MAX));
        let events = events::page(
            snap,
            room.nid,
            all,
            messagehub_store::events::Direction::Forward,
            10_000,
        )?;
        let found = events.iter().find(|event| event.pdu.content().get().contains(&text));
        Ok(found.unwrap().pdu.origin_server_ts().get().into())
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn an_event_is_found_by_its_time_here_and_with_others() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = net.drive(create::room(&a.hs, &alice.user_id, NewRoom::new())).await.unwrap();
    let clock = net.clock.clone().unwrap();
    for n in 0..700 {
        clock.advance(1_000);
        net.drive(say(&a.hs, &alice, &room_id, &format!("m{n}"))).await;
    }
    let at = |ms: u64| -> MilliSecondsSinceUnixEpoch { timestamp(ms) };
    let text_of = async |hs: &Homeserver, event_id: OwnedEventId| -> String {
        let found = read(hs, move |snap| events::find(snap, &event_id)).await.unwrap();
        let content: Value = serde_json::from_str(found.pdu.content().get()).unwrap();
        content["body"].as_str().unwrap_or_default().to_owned()
    };
    let m300 = time_of(&a.hs, &room_id, "m300").await;
    for (time, direction, expected) in [
        (m300, Direction::Forward, "m300"),
        (m300, Direction::Backward, "m300"),
        (m300 + 1, Direction::Forward, "m301"),
        (m300 - 1, Direction::Backward, "m299"),
    ] {
        let from = (at(time), direction);
        let found = by_time::nearest(&a.hs, &alice.user_id, room_id.clone(), from).await.unwrap();
        assert_eq!(text_of(&a.hs, found.event_id).await, expected);
    }
    let never = (at(m300 + 10_000_000), Direction::Forward);
    let none = by_time::nearest(&a.hs, &alice.user_id, room_id.clone(), never).await;
    assert!(matches!(none, Err(ReadError::NotFound)), "{none:?}");
    let stranger = by_time::nearest(&a.hs, &bob.user_id, room_id.clone(), never).await;
    assert!(matches!(stranger, Err(ReadError::NotInRoom)), "{stranger:?}");

    // Who joins later has the newest part of the history, and asks for the rest.
    bring_in(&mut net, (&a, &alice), (&b, &bob), &room_id).await;
    let m20 = time_of(&a.hs, &room_id, "m20").await;
    let from = (at(m20), Direction::Forward);
    let found = by_time::nearest(&b.hs, &bob.user_id, room_id.clone(), from);
    let found = net.drive(found).await.unwrap();
    assert_eq!(found.time, at(m20));
    assert_eq!(text_of(&b.hs, found.event_id).await, "m20");

    let c = net.start(3);
    let uri = format!("/_matrix/federation/v1/timestamp_to_event/{}?ts={m20}&dir=b", enc(&room_id));
    let told = net.drive(ask(&b, a.name(), ("GET", &uri), Value::Null)).await.unwrap();
    assert_eq!(told["origin_server_ts"], m20);
    let asked = ask(&c, a.name(), ("GET", &uri), Value::Null);
    assert_eq!(net.drive(asked).await, refused(403, "M_FORBIDDEN"));
}

/// The keys in a notary's answer, and whether it signed them.
fn notarised(answer: &Value, notary: &Node) -> Vec<(String, bool)> {
    let keys = notary.hs.identity.server_keys();
    let (key_id, public) = keys.verify_keys().next().unwrap();
    let public = PublicKey::from_bytes(public).unwrap();
    let list = answer["server_keys"].as_array().unwrap();
    let one = |object: &Value| {
        let name = object["server_name"].as_str().unwrap().to_owned();
        let signature = object["signatures"][notary.name().as_str()][key_id].as_str().unwrap();
        let signature = Base64::<Standard>::parse(signature).unwrap();
        let mut unsigned = object.clone();
        unsigned.as_object_mut().unwrap().remove("signatures");
        let unsigned = canonical::parse_object(unsigned.to_string().as_bytes()).unwrap();
        let message = canonical::to_canonical(&unsigned);
        (name, public.verifies(message.as_bytes(), signature.as_bytes().try_into().unwrap()))
    };
    list.iter().map(one).collect()
}

#[tokio::test(start_paused = true)]
async fn a_notary_signs_the_keys_it_knows() {
    let mut net = Net::new();
    let (a, b, c) = (net.start(1), net.start(2), net.start(3));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    let uri = format!("/_matrix/key/v2/query/{}", b.name());
    let answer = net.drive(ask(&c, a.name(), ("GET", &uri), Value::Null)).await.unwrap();
    assert_eq!(notarised(&answer, &a), [(b.name().to_string(), true)]);
    // Without the notary's signature it is what the server itself says.
    let mut bare = answer["server_keys"][0].clone();
    bare["signatures"].as_object_mut().unwrap().remove(a.name().as_str());
    assert!(ServerKeys::verify_for(&bare.to_string(), b.name()).is_ok());

    let body = json!({ "server_keys": {
        b.name().as_str(): {}, a.name().as_str(): {}, "elsewhere.example": {},
    }});
    let asked = ask(&c, a.name(), ("POST", "/_matrix/key/v2/query"), body);
    let mut both = notarised(&net.drive(asked).await.unwrap(), &a);
    both.sort();
    let mut expected = vec![(a.name().to_string(), true), (b.name().to_string(), true)];
    expected.sort();
    assert_eq!(both, expected);
    let uri = "/_matrix/key/v2/query/elsewhere.example";
    let none = net.drive(ask(&c, a.name(), ("GET", uri), Value::Null)).await.unwrap();
    assert_eq!(none["server_keys"], json!([]));

    let uri = "/_matrix/federation/v1/query/weather?of=x";
    let asked = ask(&c, a.name(), ("GET", uri), Value::Null);
    assert_eq!(net.drive(asked).await, refused(404, "M_UNRECOGNIZED"));
    let asked = ask(&c, a.name(), ("GET", "/.well-known/matrix/server"), Value::Null);
    assert_eq!(net.drive(asked).await, refused(404, "M_NOT_FOUND"));
}

/// What an identity server says when an address turns out to be somebody's.
fn proof(key: &VerifyKey, mxid: &UserId, token: &str) -> Value {
    let mut signed = json!({ "mxid": mxid, "token": token });
    let object = canonical::parse_object(signed.to_string().as_bytes()).unwrap();
    let signature = key.sign(canonical::to_canonical(&object).as_bytes());
    let signature = Base64::<Standard, _>::new(signature.to_vec()).encode();
    signed["signatures"] = json!({ "id.example": { "ed25519:0": signature } });
    signed
}

#[tokio::test(start_paused = true)]
async fn an_address_that_was_invited_becomes_an_invited_user() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = net.drive(create::room(&a.hs, &alice.user_id, NewRoom::new())).await.unwrap();
    let identity_server = VerifyKey::from_seed(&[9; 32]);
    let public_key = Base64::<Standard, _>::new(identity_server.public_key().to_vec()).encode();
    let address = json!({
        "display_name": "b...@example", "key_validity_url": "https://id.example/ok",
        "public_key": public_key, "public_keys": [{ "public_key": public_key }],
    });
    let kind = ("m.room.third_party_invite", "tok");
    net.drive(set_at(&a.hs, &alice, &room_id, kind, address)).await;

    let bound = |signed: Value| {
        let bound = Bound {
            room_id: room_id.clone(),
            sender: alice.user_id.clone(),
            signed: to_raw_value(&signed).unwrap(),
        };
        third_party::bound(&b.hs, bob.user_id.clone(), vec![bound])
    };
    // A proof that somebody else signed, or of another invite, is none.
    let forged = proof(&VerifyKey::from_seed(&[8; 32]), &bob.user_id, "tok");
    assert!(net.drive(bound(forged)).await.is_err());
    let other = proof(&identity_server, &bob.user_id, "other");
    assert!(net.drive(bound(other)).await.is_err());
    let other = proof(&identity_server, &alice.user_id, "tok");
    assert!(net.drive(bound(other)).await.is_err());
    assert_eq!(membership(&a.hs, &room_id, &bob.user_id).await, None);

    let good = proof(&identity_server, &bob.user_id, "tok");
    net.drive(bound(good)).await.unwrap();
    until_membership(&mut net, &b, &room_id, &bob.user_id, MembershipState::Invite).await;
    net.drive(join(&b.hs, &bob, &room_id, Vec::new())).await;
    net.until("both agree", || async {
        shape(&a.hs, &room_id).await == shape(&b.hs, &room_id).await
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_invite_of_version_1_of_the_operation_is_taken() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = OwnedRoomId::try_from(format!("!old:{}", a.name())).unwrap();
    let before = json!([[format!("$before:{}", a.name()), { "sha256": "x".repeat(43) }]]);
    let template = json!({ "prev_events": before, "auth_events": before, "depth": 9 });
    let about = (&*alice.user_id, &*bob.user_id);
    let (id, mut event) =
        completed_in(&RoomVersionId::V2, &a, &room_id, about, (&template, "invite"));
    let name = json!({
        "type": "m.room.name", "state_key": "", "sender": alice.user_id,
        "content": { "name": "Old" },
    });
    event["unsigned"] = json!({ "invite_room_state": [name] });
    let uri = format!("/_matrix/federation/v1/invite/{}/{}", enc(&room_id), enc(id));
    let answer = net.drive(ask(&a, b.name(), ("PUT", &uri), event)).await.unwrap();
    assert_eq!(answer[0], 200);
    let signed = answer[1]["event"]["signatures"].as_object().unwrap();
    assert!(signed.contains_key(a.name().as_str()) && signed.contains_key(b.name().as_str()));
    let seen = synced(&b.hs, &bob).await.rooms.invite.remove(&room_id).unwrap();
    let shown: Vec<&str> = seen.invite_state.events.iter().map(|e| e.json().get()).collect();
    assert!(shown.iter().any(|event| event.contains("Old")), "{shown:?}");
}

#[tokio::test(start_paused = true)]
async fn an_invite_to_a_new_room_must_show_which_room_it_is() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = net.drive(create::room(&a.hs, &alice.user_id, NewRoom::new())).await.unwrap();
    let create = create_event(&a.hs, &room_id).await;
    let template = json!({
        "prev_events": [format!("${}", "p".repeat(43))],
        "auth_events": [format!("${}", "q".repeat(43))],
        "depth": 9,
    });
    let about = (&*alice.user_id, &*bob.user_id);
    let (id, event) = completed(&a, &room_id, about, (&template, "invite"));
    let uri = format!("/_matrix/federation/v2/invite/{}/{}", enc(&room_id), enc(id));
    let mut forged = create.clone();
    forged["content"]["m.federate"] = json!(false);
    let stripped = json!({
        "type": "m.room.create", "state_key": "", "sender": alice.user_id,
        "content": create["content"],
    });
    let send = async |shown: Value| {
        let body = json!({ "room_version": "12", "event": event, "invite_room_state": shown });
        ask(&a, b.name(), ("PUT", &uri), body).await
    };
    let invalid = || refused(400, "M_INVALID_PARAM");
    for shown in [json!([]), json!([stripped]), json!([forged])] {
        assert_eq!(net.drive(send(shown.clone())).await, invalid(), "{shown}");
    }
    assert!(net.drive(send(json!([create]))).await.is_ok());
}
