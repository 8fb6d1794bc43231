//! What a peer may try. Nothing of it may change anything.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use messagehub_homeserver::{
    federation,
    peers::{Acceptance, Inbound},
    testing::sealing,
};
use messagehub_protocol::{
    build::{self, NewEvent, Place, Signer},
    keys::IdentityKey,
    pdu::Pdu,
    rules::rules_of,
    server_keys::{ServerKeys, ServerKeysTerms},
    wire::{
        frame::Frame,
        sealed::{NONCE_BYTES, ROOM_KEY_BYTES, RoomKey},
    },
};
use messagehub_store::server_keys;
use ruma::{MilliSecondsSinceUnixEpoch, RoomVersionId, ServerName, UInt};
use serde_json::Value;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::{outsider::Outsider, *};
use crate::testing::deliver;

async fn answer(node: &Node, peer_id: &str, request: http::Request<Bytes>) -> (u16, String) {
    let response = deliver(node.router.clone(), peer_id.to_owned(), request).await.unwrap();
    let status = response.status().as_u16();
    let body: Value = serde_json::from_slice(response.body()).unwrap();
    (status, body["errcode"].as_str().unwrap_or_default().to_owned())
}

fn later(at: MilliSecondsSinceUnixEpoch, ms: u32) -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(at.get() + UInt::from(ms))
}

const PROFILE: &str = "/_matrix/federation/v1/query/profile?user_id=%40x%3Ay";

#[tokio::test(start_paused = true)]
async fn a_request_is_taken_once_from_its_own_peer_and_in_time() {
    let mut net = Net::new();
    let a = net.start(1);
    let now = a.hs.clock.now();
    let mallory = Outsider::new(66, now);
    let get = ("GET", PROFILE, "");
    let unauthorized = (401, "M_UNAUTHORIZED".to_owned());

    let good = mallory.signed(get, a.name(), now);
    let (parts, body) = good.into_parts();
    let copy = || http::Request::from_parts(parts.clone(), body.clone());
    let (status, _) = answer(&a, &mallory.peer_id, copy()).await;
    assert_ne!(status, 401, "a stranger may ask for a profile");
    assert_eq!(answer(&a, &mallory.peer_id, copy()).await, unauthorized, "repeated");

    let other_peer = format!("12D3KooW{}", "n".repeat(44));
    let fresh = mallory.signed(get, a.name(), later(now, 1));
    assert_eq!(answer(&a, &other_peer, fresh).await, unauthorized, "unlisted peer");

    let elsewhere = ServerName::parse("elsewhere.example").unwrap();
    let misdirected = mallory.signed(get, &elsewhere, later(now, 2));
    assert_eq!(answer(&a, &mallory.peer_id, misdirected).await, unauthorized, "other destination");

    let early = mallory.signed(get, a.name(), later(now, 11 * 60 * 1000));
    assert_eq!(answer(&a, &mallory.peer_id, early).await, unauthorized, "from the future");

    let mut changed = mallory.signed(get, a.name(), later(now, 3));
    *changed.uri_mut() = "/_matrix/federation/v1/query/profile?user_id=%40z%3Ay".parse().unwrap();
    assert_eq!(answer(&a, &mallory.peer_id, changed).await, unauthorized, "changed after signing");

    let mut unsigned = mallory.signed(get, a.name(), later(now, 4));
    unsigned.headers_mut().remove(http::header::AUTHORIZATION);
    assert_eq!(answer(&a, &mallory.peer_id, unsigned).await, unauthorized, "not signed");

    assert_eq!(a.hs.peers.counters().requests_refused.load(Ordering::Relaxed), 6);
}

#[tokio::test(start_paused = true)]
async fn a_stranger_learns_nothing_of_a_room() {
    let mut net = Net::new();
    let a = net.start(1);
    let alice = a.user("alice").await;
    let room_id = net.drive(create::room(&a.hs, &alice.user_id, NewRoom::new())).await.unwrap();
    net.drive(say(&a.hs, &alice, &room_id, "secret")).await;
    let (heads, _) = shape(&a.hs, &room_id).await;
    let now = a.hs.clock.now();
    let mallory = Outsider::new(66, now);
    let room = messagehub_homeserver::federation::path_segment(room_id.as_str());
    let head = messagehub_homeserver::federation::path_segment(&heads[0]);
    let v1 = "/_matrix/federation/v1";
    let user = format!("%40m%3A{}", mallory.name());
    let cases = [
        ("GET", format!("{v1}/backfill/{room}?v={head}&limit=10"), "", 403),
        ("GET", format!("{v1}/state/{room}?event_id={head}"), "", 403),
        ("GET", format!("{v1}/state_ids/{room}?event_id={head}"), "", 403),
        ("GET", format!("{v1}/event_auth/{room}/{head}"), "", 403),
        ("GET", format!("{v1}/event/{head}"), "", 404),
        (
            "POST",
            format!("{v1}/get_missing_events/{room}"),
            r#"{"earliest_events":[],"latest_events":[]}"#,
            403,
        ),
        ("GET", format!("{v1}/make_join/{room}/{user}?ver=12"), "", 403),
        ("GET", "/_matrix/client/v3/sync".to_owned(), "", 404),
        ("GET", "/_matrix/federation/v1/nothing".to_owned(), "", 404),
        ("GET", "/".to_owned(), "", 404),
    ];
    for (n, (method, uri, body, expected)) in (10..).zip(cases) {
        let request = mallory.signed((method, &uri, body), a.name(), later(now, n));
        let (status, errcode) = answer(&a, &mallory.peer_id, request).await;
        assert_eq!(status, expected, "{method} {uri}: {errcode}");
    }
    let heads = serde_json::json!({ "heads": { room_id.as_str(): [] } }).to_string();
    let uri = messagehub_protocol::wire::heads::HEADS_PATH;
    let request = mallory.signed(("POST", uri, &heads), a.name(), later(now, 99));
    let told = deliver(a.router.clone(), mallory.peer_id.clone(), request).await.unwrap();
    assert_eq!(told.body().as_ref(), b"{}");
}

#[tokio::test(start_paused = true)]
async fn an_oversized_body_is_refused() {
    let mut net = Net::new();
    let a = net.start(1);
    let now = a.hs.clock.now();
    let mallory = Outsider::new(66, now);
    let mut request = mallory.signed(("PUT", "/_matrix/federation/v1/send/1", "{}"), a.name(), now);
    *request.body_mut() = Bytes::from(vec![b' '; 5 * 1024 * 1024]);
    assert_eq!(answer(&a, &mallory.peer_id, request).await, (413, "M_TOO_LARGE".to_owned()));
}

async fn verdict(net: &mut Net, node: &Node, room_id: &OwnedRoomId, frame: Vec<u8>) -> Acceptance {
    let (reply, verdict) = oneshot::channel();
    let report = Inbound::Frame {
        source: "12D3KooWsomebody".to_owned(),
        room_id: room_id.clone(),
        frame: frame.into(),
        reply,
    };
    net.hub.inject(node.name(), report);
    net.drive(verdict).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn frames_that_are_not_to_be_had() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    net.drive(say(&a.hs, &alice, &room_id, "hello")).await;
    net.until("b hears a", || async { texts(&b.hs, &room_id).await == ["hello"] }).await;
    let (_, good) = net.hub.last_frame_of(a.name()).unwrap();
    let signed = sealing::open(&b.hs, &room_id, &good).unwrap();

    let again = verdict(&mut net, &b, &room_id, good.to_vec()).await;
    assert_eq!(again, Acceptance::Ignore, "repeated");

    let mut broken = good.to_vec();
    let at = broken.len() / 2;
    broken[at] ^= 1;
    let broken = verdict(&mut net, &b, &room_id, broken).await;
    assert_eq!(broken, Acceptance::Reject, "a changed byte");

    let huge = verdict(&mut net, &b, &room_id, vec![b'x'; 300_000]).await;
    assert_eq!(huge, Acceptance::Reject, "too large");
    let plain = verdict(&mut net, &b, &room_id, signed.clone()).await;
    assert_eq!(plain, Acceptance::Ignore, "not sealed: another version");
    let sealed_again = sealing::seal(&a.hs, &room_id, &signed).await;
    assert_ne!(sealed_again, good);
    let sealed_again = verdict(&mut net, &b, &room_id, sealed_again).await;
    assert_eq!(sealed_again, Acceptance::Ignore, "the same frame in another seal");
    let under_another = sealing::seal(&b.hs, &room_id, &signed).await;
    let under_another = verdict(&mut net, &b, &room_id, under_another).await;
    assert_eq!(under_another, Acceptance::Reject, "sealed by whom it is not of");
    let garbage = sealing::seal(&a.hs, &room_id, b"{}").await;
    let garbage = verdict(&mut net, &b, &room_id, garbage).await;
    assert_eq!(garbage, Acceptance::Reject, "no frame");

    let mallory = Outsider::new(66, a.hs.clock.now());
    let (opened, _) = Frame::open(&signed, a.hs.clock.now()).unwrap();
    let stolen = Frame {
        origin: mallory.name().to_owned(),
        server_keys: vec![mallory.keys.json().to_owned()],
        ..opened
    };
    let stolen = stolen.sign(&mallory.verify_key).unwrap();
    let secret = Zeroizing::new([66; ROOM_KEY_BYTES]);
    let key = RoomKey::new(mallory.name().to_owned(), &room_id, secret, Vec::new());
    let stolen = key.seal(&room_id, [0; NONCE_BYTES], &stolen).unwrap();
    sealing::give(&b.hs, &room_id, key);
    let stolen = verdict(&mut net, &b, &room_id, stolen).await;
    assert_eq!(stolen, Acceptance::Ignore, "of a server that is not in the room");
    assert_eq!(texts(&b.hs, &room_id).await, ["hello"]);
}

#[tokio::test(start_paused = true)]
async fn a_stranger_cannot_fill_the_key_store() {
    let mut net = Net::new();
    let a = net.start(1);
    let now = a.hs.clock.now();
    let mallory = Outsider::new(66, now);
    let terms = || ServerKeysTerms {
        old_verify_keys: Vec::new(),
        peer_ids: vec![mallory.peer_id.clone()],
        issued_ts: now,
    };
    let made_up =
        ServerKeys::make(&IdentityKey::from_seed(&[70; 32]), &mallory.verify_key, terms());
    let body = json!({ "origin": mallory.name(), "origin_server_ts": now, "pdus": [],
        "edus": [{ "edu_type": "m.typing", "content": {} }], "server_keys": [made_up.json()] });
    let uri = "/_matrix/federation/v1/send/1";
    let request = mallory.signed(("PUT", uri, &body.to_string()), a.name(), now);
    assert_eq!(answer(&a, &mallory.peer_id, request).await.0, 200);
    let (own, other) = (mallory.name().to_owned(), made_up.server_name().to_owned());
    let known = read(&a.hs, move |snap| {
        Ok((server_keys::find(snap, &own)?.is_some(), server_keys::find(snap, &other)?.is_some()))
    });
    assert_eq!(known.await, (true, false), "only those it proved to have");
}

impl Outsider {
    /// An invite to a room of Mallory's own, in the words of `/invite`.
    fn invite(&self, who: &UserId, (version, nonce): (&RoomVersionId, u32)) -> (String, String) {
        let server = self.name();
        let sender = self.user_id("m");
        let room_id = OwnedRoomId::try_from(format!("!trap:{server}")).unwrap();
        let rules = rules_of(version).unwrap();
        let signer = || Signer { server, key: &self.verify_key };
        let event = |kind: TimelineEventType, state_key: &str, content: Value, place: &Place| {
            let new = NewEvent {
                room_id: Some(room_id.clone()),
                sender: sender.clone(),
                kind,
                state_key: Some(state_key.to_owned()),
                content: to_raw_value(&content).unwrap(),
                redacts: None,
            };
            let at = MilliSecondsSinceUnixEpoch(UInt::from(nonce));
            build::event(new, place, at, signer(), rules).unwrap()
        };
        let root = Place { prev_events: Vec::new(), auth_events: Vec::new() };
        let create = event(TimelineEventType::RoomCreate, "", json!({}), &root).into_pdu();
        let place = Place { prev_events: vec![create.clone()], auth_events: vec![create] };
        let content = json!({ "membership": "invite" });
        let invite = event(TimelineEventType::RoomMember, who.as_str(), content, &place);
        let path = messagehub_homeserver::federation::path_segment;
        let id = invite.pdu().event_id();
        let uri = format!(
            "/_matrix/federation/v2/invite/{}/{}",
            path(room_id.as_str()),
            path(id.as_str())
        );
        let json: Value = serde_json::from_str(invite.pdu().json()).unwrap();
        let body = json!({ "room_version": version, "event": json, "invite_room_state": [] });
        (uri, body.to_string())
    }
}

#[tokio::test(start_paused = true)]
async fn invites_of_a_stranger_leave_little_behind() {
    let mut net = Net::new();
    let a = net.start(1);
    let alice = a.user("alice").await;
    let now = a.hs.clock.now();
    let mallory = Outsider::new(66, now);
    let room_id = OwnedRoomId::try_from(format!("!trap:{}", mallory.name())).unwrap();
    let mut statuses = Vec::new();
    let mut kept = Vec::new();
    let versions = [RoomVersionId::V10, RoomVersionId::V10, RoomVersionId::V11];
    for (n, version) in (1..).zip(&versions) {
        let (uri, body) = mallory.invite(&alice.user_id, (version, n));
        let request = mallory.signed(("PUT", &uri, &body), a.name(), later(now, n));
        statuses.push(answer(&a, &mallory.peer_id, request).await.0);
        let (wanted, user_id) = (room_id.clone(), alice.user_id.clone());
        kept.push(
            read(&a.hs, move |snap| {
                let room = rooms::find(snap, &wanted)?.unwrap();
                let member = memberships::find(snap, room.nid, &user_id)?.unwrap();
                Ok((room.version, member.event))
            })
            .await,
        );
    }
    assert_eq!(kept[0], kept[1], "a second one says nothing new");
    assert_eq!(kept[2].0, RoomVersionId::V11, "a lie about the version does not stay");
    assert_eq!(statuses, [200; 3]);
}

#[tokio::test(start_paused = true)]
async fn peers_reach_no_client_endpoint_whatever_they_bring() {
    let mut net = Net::new();
    let a = net.start(1);
    let alice = client::Client::register(&a, "alice", "A").await;
    let mallory = Outsider::new(66, a.hs.clock.now());
    let login = json!({ "type": "m.login.token", "token": "loginToken" }).to_string();
    let cases = [
        ("POST", "/_matrix/client/v3/login", login.as_str()),
        ("POST", "/_matrix/client/v3/register", "{}"),
        ("GET", "/_matrix/client/v3/account/whoami", ""),
        ("GET", "/_matrix/client/versions", ""),
        ("GET", "/_messagehub/login", ""),
        ("GET", "/metrics", ""),
        ("GET", "/health", ""),
        ("GET", "/_matrix/federation/v1/../../client/v3/account/whoami", ""),
        ("GET", "/_matrix/media/v3/download/x/y", ""),
    ];
    for (n, (method, uri, body)) in (1..).zip(cases) {
        let now = later(a.hs.clock.now(), n);
        let request = mallory.signed((method, uri, body), a.name(), now);
        let signed = answer(&a, &mallory.peer_id, request.clone()).await;
        assert_eq!(signed, (404, "M_UNRECOGNIZED".to_owned()), "{method} {uri}");
        let mut request = request;
        let token = format!("Bearer {}", alice.token()).parse().unwrap();
        request.headers_mut().insert(http::header::AUTHORIZATION, token);
        let with_token = answer(&a, &mallory.peer_id, request).await;
        assert_eq!(with_token, (404, "M_UNRECOGNIZED".to_owned()), "{method} {uri}, a client's");
    }
}

#[tokio::test(start_paused = true)]
async fn invites_of_whoever_is_blocked_or_ignored_leave_nothing() {
    let mut net = Net::new();
    let a = net.start(1);
    let alice = client::Client::register(&a, "alice", "A").await;
    let user_id = UserId::parse(alice.user()).unwrap();
    let now = a.hs.clock.now();
    let mallory = Outsider::new(66, now);
    let server = mallory.name().to_owned();
    let room_id = OwnedRoomId::try_from(format!("!trap:{server}")).unwrap();
    let data = |kind: &str| format!("v3/user/{}/account_data/{kind}", alice.user());
    let invited = async |n: u32| {
        let (uri, body) = mallory.invite(&user_id, (&RoomVersionId::V10, n));
        let request = mallory.signed(("PUT", &uri, &body), a.name(), later(now, n));
        let answer = answer(&a, &mallory.peer_id, request).await;
        (answer, membership(&a.hs, &room_id, &user_id).await)
    };
    let blocked = ((403, "M_INVITE_BLOCKED".to_owned()), None);
    let taken = (200, String::new());

    let permission = data("m.invite_permission_config");
    alice.ok("PUT", &permission, json!({ "default_action": "block" })).await;
    assert_eq!(invited(1).await, blocked, "everybody");
    alice.ok("PUT", &permission, json!({ "blocked_servers": [server] })).await;
    assert_eq!(invited(2).await, blocked, "that server");
    alice.ok("PUT", &permission, json!({})).await;
    let ignored = json!({ "ignored_users": { format!("@m:{server}"): {} } });
    alice.ok("PUT", &data("m.ignored_user_list"), ignored).await;
    assert_eq!(invited(3).await, (taken.clone(), None), "who is ignored does not know");
    alice.ok("PUT", &data("m.ignored_user_list"), json!({ "ignored_users": {} })).await;
    assert_eq!(invited(4).await, (taken, Some(MembershipState::Invite)), "anybody else");
}

#[tokio::test(start_paused = true)]
async fn a_local_user_who_blocks_invites_is_not_invited() {
    let mut net = Net::new();
    let a = net.start(1);
    let alice = client::Client::register(&a, "alice", "A").await;
    let bob = client::Client::register(&a, "bob", "B").await;
    let room = bob.ok("POST", "v3/createRoom", json!({})).await;
    let room_id = room["room_id"].as_str().unwrap();
    let permission = format!("v3/user/{}/account_data/m.invite_permission_config", alice.user());
    alice.ok("PUT", &permission, json!({ "default_action": "block" })).await;
    let attempts = [
        ("POST", format!("v3/rooms/{room_id}/invite"), json!({ "user_id": alice.user() })),
        ("POST", "v3/createRoom".to_owned(), json!({ "invite": [alice.user()] })),
        (
            "PUT",
            format!("v3/rooms/{room_id}/state/m.room.member/{}", alice.user()),
            json!({ "membership": "invite" }),
        ),
    ];
    for (method, path, body) in attempts {
        let (status, answer) = bob.call(method, &path, body).await;
        assert_eq!((status, answer["errcode"].as_str()), (403, Some("M_INVITE_BLOCKED")), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_that_asks_without_end_is_slowed_down_alone() {
    let mut net = Net::new();
    let a = net.start(1);
    let b = net.start(2);
    let now = a.hs.clock.now();
    let mallory = Outsider::new(66, now);
    let mut statuses = Vec::new();
    for n in 0..70 {
        let request = mallory.signed(("GET", PROFILE, ""), a.name(), later(now, n));
        statuses.push(answer(&a, &mallory.peer_id, request).await);
    }
    assert!(statuses[..60].iter().all(|(status, _)| *status != 429));
    assert!(statuses[60..].iter().all(|slowed| *slowed == (429, "M_LIMIT_EXCEEDED".to_owned())));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = shared_room(&mut net, (&b, &bob), (&a, &alice)).await;
    assert_eq!(membership(&a.hs, &room_id, &alice.user_id).await, Some(MembershipState::Join));
}

#[tokio::test(start_paused = true)]
async fn one_bad_event_or_edu_spoils_nothing_beside_it() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    let good = {
        let room_id = room_id.clone();
        read(&b.hs, move |snap| {
            let room = rooms::find(snap, &room_id)?.unwrap();
            let heads = extremities::list(snap, room.nid)?;
            Ok(events::get(snap, heads[0])?.pdu)
        })
        .await
    };
    let place = Place { prev_events: vec![good.clone()], auth_events: auth_of(&b, &room_id).await };
    let new = NewEvent {
        room_id: Some(room_id.clone()),
        sender: bob.user_id.clone(),
        kind: TimelineEventType::RoomMessage,
        state_key: None,
        content: to_raw_value(&json!({ "msgtype": "m.text", "body": "still here" })).unwrap(),
        redacts: None,
    };
    let signer = Signer { server: b.name(), key: b.hs.identity.verify_key() };
    let rules = rules_of(&RoomVersionId::V12).unwrap();
    let event = build::event(new, &place, a.hs.clock.now(), signer, rules).unwrap();
    let event: Value = serde_json::from_str(event.pdu().json()).unwrap();
    let body = json!({
        "origin": b.name(), "origin_server_ts": a.hs.clock.now(),
        "pdus": [
            { "type": 5 },
            { "room_id": room_id, "type": "m.room.member", "content": { "membership": 7 } },
            { "room_id": "!nowhere:else", "type": "m.room.message", "content": {} },
            event,
        ],
        "edus": [{ "edu_type": "m.typing", "content": { "typing": "perhaps" } }],
    });
    let call = federation::Call {
        method: http::Method::PUT,
        uri: "/_matrix/federation/v1/send/spoilt".to_owned(),
        body: body.to_string().into_bytes(),
    };
    let sent = federation::ask_json(&b.hs, a.name(), call, std::time::Duration::from_secs(9));
    let answer: Value = net.drive(sent).await.unwrap();
    assert!(answer["pdus"].is_object(), "{answer}");
    assert_eq!(texts(&a.hs, &room_id).await, ["still here"]);
}

/// What lets a member send: the power levels, where there are some, and the member's own event.
async fn auth_of(node: &Node, room_id: &OwnedRoomId) -> Vec<Arc<Pdu>> {
    let (room_id, name) = (room_id.clone(), node.name().to_string());
    read(&node.hs, move |snap| {
        let room = rooms::find(snap, &room_id)?.unwrap();
        let mut auth = Vec::new();
        for (kind, state_key, nid) in room_state::all(snap, room.state)? {
            let is_power = kind == StateEventType::RoomPowerLevels;
            let is_member =
                kind == StateEventType::RoomMember && state_key.ends_with(name.as_str());
            if is_power || is_member {
                auth.push(events::pdu(snap, nid)?);
            }
        }
        Ok(auth)
    })
    .await
}
