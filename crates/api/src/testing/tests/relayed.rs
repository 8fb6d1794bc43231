//! Requests that travel through another member, where two members have no path.

use axum::{Json, Router, routing::post};
use bytes::Bytes;
use messagehub_homeserver::{federation, peers::RequestError, receipts};
use messagehub_protocol::{
    keys::VerifyKey,
    server_keys::ServerKeys,
    wire::{
        relayed::{
            AnswerKey, InnerRequest, RELAY_PATH, RELAYED_PATH, SealedAnswer, SealedRequest, Secrets,
        },
        request::SERVER_KEYS_HEADER,
    },
};
use messagehub_store::{receipts as receipt_rows, server_keys};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, ServerName, UInt,
    api::federation::{backfill::get_backfill, query::get_profile_information},
    events::receipt::ReceiptThread,
};
use serde_json::Value;
use std::{sync::atomic::Ordering, time::Duration};

use super::{
    outsider::{self, Outsider},
    *,
};
use crate::testing::deliver;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Three nodes in one room, of which the first and the last do not hear each other.
struct Chain {
    net: Net,
    a: Node,
    b: Node,
    c: Node,
    alice: Session,
    carol: Session,
    room_id: OwnedRoomId,
}

impl Chain {
    async fn new() -> Self {
        let mut net = Net::new();
        let (a, b, c) = (net.start(1), net.start(2), net.start(3));
        let (alice, bob, carol) =
            (a.user("alice").await, b.user("bob").await, c.user("carol").await);
        let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
        net.drive(invite(&a.hs, &alice, &room_id, &carol.user_id)).await;
        net.until("carol is invited", || async {
            membership(&c.hs, &room_id, &carol.user_id).await.is_some()
        })
        .await;
        net.drive(join(&c.hs, &carol, &room_id, Vec::new())).await;
        net.until("all know of carol", || async {
            let joined = Some(MembershipState::Join);
            membership(&a.hs, &room_id, &carol.user_id).await == joined
                && membership(&b.hs, &room_id, &carol.user_id).await == joined
        })
        .await;
        net.hub.set_link(a.name(), c.name(), Link::Down);
        net.drive(tokio::time::sleep(Duration::from_secs(1))).await;
        Self { net, a, b, c, alice, carol, room_id }
    }

    async fn profile_of_carol(&mut self) -> Result<Option<String>, federation::FederationError> {
        let request = get_profile_information::v1::Request::new(self.carol.user_id.clone());
        let asking = federation::ask(&self.a.hs, self.c.name(), request, TIMEOUT);
        let answer = self.net.drive(asking).await?;
        Ok(answer.get("displayname").and_then(Value::as_str).map(str::to_owned))
    }
}

fn counted(node: &Node) -> [u64; 4] {
    let counters = node.hs.peers.counters();
    [
        &counters.relayed_requests,
        &counters.relays_carried,
        &counters.relays_refused,
        &counters.relays_taken,
    ]
    .map(|counter| counter.load(Ordering::Relaxed))
}

#[tokio::test(start_paused = true)]
async fn questions_and_transactions_reach_a_member_without_a_path() {
    let mut chain = Chain::new().await;
    let before = (counted(&chain.a)[0], counted(&chain.b)[1], counted(&chain.c)[3]);
    let name = chain.profile_of_carol().await.unwrap();
    assert_eq!(name.as_deref(), Some("carol"));
    let after = (counted(&chain.a)[0], counted(&chain.b)[1], counted(&chain.c)[3]);
    assert!(after.0 > before.0 && after.1 > before.1 && after.2 > before.2);

    let (heads, _) = shape(&chain.a.hs, &chain.room_id).await;
    let from = vec![OwnedEventId::try_from(heads[0].clone()).unwrap()];
    let request = get_backfill::v1::Request::new(chain.room_id.clone(), from, UInt::from(10u32));
    let asking = federation::ask(&chain.a.hs, chain.c.name(), request, TIMEOUT);
    assert!(!chain.net.drive(asking).await.unwrap().pdus.is_empty());

    // A transaction, from the outbox.
    chain.net.drive(say(&chain.a.hs, &chain.alice, &chain.room_id, "read this")).await;
    let (a, c) = (&chain.a, &chain.c);
    let (room_id, alice) = (&chain.room_id, &chain.alice);
    chain.net.until("c has it", || async { texts(&c.hs, room_id).await == ["read this"] }).await;
    let (heads, _) = shape(&a.hs, room_id).await;
    let event_id = OwnedEventId::try_from(heads[0].clone()).unwrap();
    let receipt = receipts::NewReceipt {
        room_id: room_id.clone(),
        event_id: event_id.clone(),
        mark: receipts::Mark::Read(receipts::Kind::Public),
        thread: ReceiptThread::Unthreaded,
    };
    chain.net.drive(receipts::send(&a.hs, &alice.user_id, vec![receipt])).await.unwrap();
    chain
        .net
        .until("c knows what alice has read", || async {
            let (room_id, user) = (room_id.clone(), alice.user_id.clone());
            let found = read(&c.hs, move |snap| {
                let room = rooms::find(snap, &room_id)?.unwrap();
                let key = (receipts::Kind::Public, &ReceiptThread::Unthreaded);
                receipt_rows::find(snap, room.nid, &user, key)
            });
            found.await == Some(event_id.clone())
        })
        .await;
}

/// A request is sealed to the key of its destination. One that was replaced opens it while the node
/// runs, and afterwards a carrier knows the new one.
#[tokio::test(start_paused = true)]
async fn whoever_has_replaced_its_key_is_reached_through_others_all_the_same() {
    let mut chain = Chain::new().await;
    chain.net.hub.lose_gossip();
    let known = |node: &Node, of: &ServerName| {
        let (hs, of) = (node.hs.clone(), of.to_owned());
        async move { read(&hs, move |snap| server_keys::find(snap, &of)).await.unwrap() }
    };
    chain.net.clock.as_ref().unwrap().advance(1_000);
    let before = known(&chain.a, chain.c.name()).await;
    chain.net.rotate_key(&chain.c).await;
    assert_eq!(chain.profile_of_carol().await.unwrap().as_deref(), Some("carol"));
    assert_eq!(known(&chain.a, chain.c.name()).await, before, "it was sealed to the old one");

    let Chain { mut net, a, b, c, alice, carol, room_id } = chain;
    let seed = net.stop(c).await;
    let c = net.start(seed);
    net.until("b knows the new key", || async {
        known(&b, c.name()).await == c.hs.identity.server_keys()
    })
    .await;
    let mut chain = Chain { net, a, b, c, alice, carol, room_id };
    assert_eq!(known(&chain.a, chain.c.name()).await, before, "it has not heard of it");
    assert_eq!(chain.profile_of_carol().await.unwrap().as_deref(), Some("carol"));
    assert_eq!(known(&chain.a, chain.c.name()).await, chain.c.hs.identity.server_keys());
}

#[tokio::test(start_paused = true)]
async fn a_room_of_two_without_a_path_heals_through_a_third() {
    let mut chain = Chain::new().await;
    let (a, c) = (&chain.a, &chain.c);
    chain.net.hub.set_link(a.name(), c.name(), Link::Up);
    let room_id = shared_room(&mut chain.net, (a, &chain.alice), (c, &chain.carol)).await;
    chain.net.drive(say(&a.hs, &chain.alice, &room_id, "near")).await;
    chain.net.until("c hears", || async { texts(&c.hs, &room_id).await == ["near"] }).await;
    chain.net.hub.set_link(a.name(), c.name(), Link::Down);
    chain.net.drive(say(&a.hs, &chain.alice, &room_id, "far")).await;
    chain.net.drive(say(&c.hs, &chain.carol, &room_id, "away")).await;
    chain
        .net
        .until("both have all", || async {
            texts(&a.hs, &room_id).await.len() == 3 && texts(&c.hs, &room_id).await.len() == 3
        })
        .await;
    assert_eq!(shape(&a.hs, &room_id).await, shape(&c.hs, &room_id).await);
    assert!(counted(&chain.b)[1] > 0, "through the one who is not in it");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_the_destination_did_not_give_is_none() {
    let mut chain = Chain::new().await;
    let forged = Json(SealedAnswer { sealed: vec![7; 200] });
    let evil = Router::new().route(RELAY_PATH, post(async move || forged));
    let keys = (chain.b.hs.identity.server_keys(), chain.b.peer_id.clone());
    let (inbound, _reports) = tokio::sync::mpsc::channel(64);
    chain.net.hub.attach(keys, evil, inbound);
    let before = counted(&chain.a)[0];
    let answer = chain.profile_of_carol().await;
    let unreachable = federation::FederationError::Transport(RequestError::Unreachable);
    assert_eq!(answer.unwrap_err().to_string(), unreachable.to_string());
    assert_eq!(counted(&chain.a)[0], before);
}

type Signer<'a> = (&'a ServerKeys, &'a VerifyKey);

/// A request of so many milliseconds after the start.
fn signed(
    parts: (&str, &str, &[u8]),
    from: Signer<'_>,
    to: &ServerName,
    at: u32,
) -> http::Request<Bytes> {
    let start = UInt::new(messagehub_homeserver::testing::START_MS).unwrap();
    outsider::signed(parts, from, to, MilliSecondsSinceUnixEpoch(start + UInt::from(at)))
}

/// A question to C, sealed.
fn question(chain: &Chain, from: Signer<'_>, at: u32) -> (SealedRequest, AnswerKey) {
    let user = chain.carol.user_id.as_str();
    let uri =
        format!("/_matrix/federation/v1/query/profile?user_id={}", federation::path_segment(user));
    let inner = signed(("GET", &uri, b""), from, chain.c.name(), at);
    let header = |name: &str| inner.headers()[name].to_str().unwrap().to_owned();
    let inner = InnerRequest {
        method: "GET".to_owned(),
        uri,
        authorization: header("authorization"),
        server_keys: Some(header(SERVER_KEYS_HEADER)),
        content: None,
    };
    let secrets = Secrets { ephemeral: [at as u8 + 1; 32], nonce: [1; 24] };
    SealedRequest::seal(&inner, &chain.c.hs.identity.server_keys(), &secrets).unwrap()
}

async fn post_to(
    node: &Node,
    (peer_id, from): (&str, Signer<'_>),
    (path, body): (&str, &SealedRequest),
    at: u32,
) -> http::Response<Bytes> {
    let body = serde_json::to_vec(body).unwrap();
    let request = signed(("POST", path, &body), from, node.name(), at);
    deliver(node.router.clone(), peer_id.to_owned(), request).await.unwrap()
}

fn opened(response: &http::Response<Bytes>, key: &AnswerKey) -> u16 {
    assert_eq!(response.status(), 200);
    key.open(&serde_json::from_slice(response.body()).unwrap()).unwrap().status
}

#[tokio::test(start_paused = true)]
async fn a_carrier_cannot_bring_a_request_twice() {
    let mut chain = Chain::new().await;
    let (a_keys, b_keys) = (chain.a.hs.identity.server_keys(), chain.b.hs.identity.server_keys());
    let from_a = (&a_keys, chain.a.hs.identity.verify_key());
    let from_b = (&*chain.b.peer_id, (&b_keys, chain.b.hs.identity.verify_key()));
    // After whatever the nodes have said so far, and before the present is over.
    let (sealed, key) = question(&chain, from_a, 200_000);
    let c = &chain.c;
    let first = post_to(c, from_b, (RELAYED_PATH, &sealed), 200_001);
    let first = chain.net.drive(first).await;
    assert_eq!(opened(&first, &key), 200);
    let again = post_to(c, from_b, (RELAYED_PATH, &sealed), 200_002);
    let again = chain.net.drive(again).await;
    assert_eq!(opened(&again, &key), 401, "it came before");
    let late = post_to(c, from_b, (RELAYED_PATH, &sealed), 200_001);
    assert_eq!(chain.net.drive(late).await.status(), 401, "and so did the carrier's own");
}

#[tokio::test(start_paused = true)]
async fn relaying_is_for_those_who_share_a_room_and_goes_one_hop() {
    let mut chain = Chain::new().await;
    // Somebody who is in no room of ours.
    let stranger = Outsider::new(66, chain.a.hs.clock.now());
    let as_stranger = (&stranger.keys, &stranger.verify_key);
    let by_stranger = (&*stranger.peer_id, as_stranger);
    let (sealed, _) = question(&chain, as_stranger, 0);
    let asked = post_to(&chain.b, by_stranger, (RELAY_PATH, &sealed), 1);
    assert_eq!(chain.net.drive(asked).await.status(), 403, "for a stranger");
    let brought = post_to(&chain.c, by_stranger, (RELAYED_PATH, &sealed), 2);
    assert_eq!(chain.net.drive(brought).await.status(), 403, "by a stranger");

    let a_keys = chain.a.hs.identity.server_keys();
    let from_a = (&*chain.a.peer_id, (&a_keys, chain.a.hs.identity.verify_key()));
    let (mut sealed, _) = question(&chain, from_a.1, 100);
    sealed.destination = stranger.keys.server_name().to_owned();
    let asked = post_to(&chain.b, from_a, (RELAY_PATH, &sealed), 200_101);
    assert_eq!(chain.net.drive(asked).await.status(), 403, "to a stranger");
    for (to, what) in [(chain.a.owned_name(), "back"), (chain.b.owned_name(), "to itself")] {
        sealed.destination = to;
        let asked = post_to(&chain.b, from_a, (RELAY_PATH, &sealed), 200_102);
        assert_ne!(chain.net.drive(asked).await.status(), 200, "{what}");
    }

    // Nobody is dialed for others.
    chain.net.hub.set_link(chain.b.name(), chain.c.name(), Link::Down);
    let (sealed, _) = question(&chain, from_a.1, 110);
    let b = &chain.b;
    chain.net.until("b has noticed", || async { !b.hs.peers.is_connected(chain.c.name()) }).await;
    let before = chain.net.hub.carried();
    let at = 200_200;
    let asked = post_to(b, from_a, (RELAY_PATH, &sealed), at);
    assert_eq!(chain.net.drive(asked).await.status(), 404);
    assert_eq!(chain.net.hub.carried(), before);
}
