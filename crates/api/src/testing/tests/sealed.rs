//! What gossip carries can be read by the members of a room, and by nobody else.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use messagehub_homeserver::{
    federation::{self, Call, FederationError},
    peers::{Acceptance, Inbound},
    rooms::moderate::{self, Action, Moderation},
    testing::sealing,
};
use messagehub_protocol::wire::{
    room_keys::{ROOM_KEYS_PATH, RoomKeysRequest, RoomKeysResponse},
    sealed::{NONCE_BYTES, ROOM_KEY_BYTES, RoomKey, RoomKeyId, SealedFrame},
};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::*;

/// Three members of a room, who are told nothing by gossip unless a test does.
struct Three {
    net: Net,
    nodes: [Node; 3],
    users: [Session; 3],
    room_id: OwnedRoomId,
}

impl Three {
    async fn new() -> Self {
        let mut net = Net::new();
        let nodes = [net.start(1), net.start(2), net.start(3)];
        let [a, b, c] = &nodes;
        let users = [a.user("alice").await, b.user("bob").await, c.user("carol").await];
        let room_id = shared_room(&mut net, (a, &users[0]), (b, &users[1])).await;
        net.drive(invite(&a.hs, &users[0], &room_id, &users[2].user_id)).await;
        net.until("carol is invited", || async {
            membership(&c.hs, &room_id, &users[2].user_id).await == Some(MembershipState::Invite)
        })
        .await;
        net.drive(join(&c.hs, &users[2], &room_id, Vec::new())).await;
        let joined = Some(MembershipState::Join);
        net.until("all know of each other", || async {
            membership(&b.hs, &room_id, &users[2].user_id).await == joined
                && membership(&a.hs, &room_id, &users[2].user_id).await == joined
        })
        .await;
        Self { net, nodes, users, room_id }
    }

    /// What a node says, sealed, without anybody hearing it.
    async fn unheard(&mut self, who: usize, text: &str) -> Bytes {
        self.net.hub.lose_gossip();
        let (hs, user) = (self.nodes[who].hs.clone(), self.users[who].clone());
        let room_id = self.room_id.clone();
        self.frame_of(who, say(&hs, &user, &room_id, text)).await
    }

    /// The frame that a node publishes because of what it does.
    async fn frame_of(&mut self, who: usize, deed: impl Future<Output = ()>) -> Bytes {
        published(&mut self.net, &self.nodes[who], deed).await
    }

    /// The verdict of one node on a frame that another one forwards.
    async fn verdict(&mut self, (of, from): (usize, &str), frame: Bytes) -> Acceptance {
        let (reply, verdict) = oneshot::channel();
        let room_id = self.room_id.clone();
        let report = Inbound::Frame { source: from.to_owned(), room_id, frame, reply };
        self.net.hub.inject(self.nodes[of].name(), report);
        self.net.drive(verdict).await.unwrap()
    }

    /// Bans somebody; gives the frame that tells of it.
    async fn ban(&mut self, by: usize, whom: usize) -> Bytes {
        let ban = Moderation {
            room_id: self.room_id.clone(),
            user_id: self.users[whom].user_id.clone(),
            action: Action::Ban,
            reason: None,
        };
        let (hs, user_id) = (self.nodes[by].hs.clone(), self.users[by].user_id.clone());
        let banned = async { moderate::moderate(&hs, &user_id, ban).await.unwrap() };
        self.frame_of(by, banned).await
    }

    /// What one node answers when another one asks it for a key.
    async fn asked(
        &mut self,
        (who, whom): (usize, usize),
        key_id: RoomKeyId,
    ) -> Result<Vec<RoomKey>, u16> {
        let request = RoomKeysRequest { room_id: self.room_id.clone(), key_ids: vec![key_id] };
        let body = serde_json::to_vec(&request).unwrap();
        let call = Call { method: http::Method::POST, uri: ROOM_KEYS_PATH.to_owned(), body };
        let (hs, to) = (&self.nodes[who].hs, self.nodes[whom].name());
        match self
            .net
            .drive(federation::ask_raw(hs, to, call, std::time::Duration::from_secs(10)))
            .await
        {
            Ok(answer) => Ok(RoomKeysResponse::parse(&answer, &request).unwrap().keys),
            Err(FederationError::Refused { status, .. }) => Err(status),
            Err(error) => panic!("{error}"),
        }
    }

    fn reads(&self, who: usize, frame: &[u8]) -> bool {
        sealing::open(&self.nodes[who].hs, &self.room_id, frame).is_some()
    }
}

/// The frame that a node publishes because of what it does.
async fn published(net: &mut Net, node: &Node, deed: impl Future<Output = ()>) -> Bytes {
    let before = net.hub.last_frame_of(node.name());
    net.drive(deed).await;
    for _ in 0..100 {
        match net.hub.last_frame_of(node.name()) {
            Some(frame) if Some(&frame) != before.as_ref() => return frame.1,
            // It is on its way to the transport.
            _ => net.drive(tokio::task::yield_now()).await,
        }
    }
    panic!("nothing was published");
}

fn key_id(frame: &[u8]) -> RoomKeyId {
    SealedFrame::parse(frame).unwrap().key_id()
}

#[tokio::test(start_paused = true)]
async fn whoever_was_banned_reads_nothing_that_follows() {
    let mut three = Three::new().await;
    let before = three.unheard(0, "for all").await;
    let [a_peer, b_peer] = [0, 1].map(|n: usize| three.nodes[n].peer_id.clone());
    for member in [1, 2] {
        let verdict = three.verdict((member, &a_peer), before.clone()).await;
        assert_eq!(verdict, Acceptance::Accept);
        assert!(three.reads(member, &before));
    }

    let the_ban = three.ban(0, 1).await;
    let after = three.unheard(0, "without bob").await;
    assert_ne!(key_id(&before), key_id(&after));
    assert_eq!(key_id(&the_ban), key_id(&after), "sealed with the new key already");
    for frame in [&the_ban, &after] {
        assert!(!frame.windows(6).any(|text| text == b"origin"), "it is not plain");
        assert_eq!(three.asked((1, 0), key_id(frame)).await.unwrap_err(), 403);
        assert!(!three.reads(1, frame));
    }
    assert_eq!(
        three.asked((1, 0), key_id(&before)).await.unwrap_err(),
        403,
        "not even what it had"
    );

    // Carol is told by the frame itself that there is something to ask for.
    assert_eq!(three.verdict((2, &a_peer), the_ban).await, Acceptance::Accept);
    assert_eq!(three.verdict((2, &a_peer), after.clone()).await, Acceptance::Accept);
    let hers = three.unheard(2, "nor from carol").await;
    assert_eq!(three.asked((1, 2), key_id(&after)).await.unwrap_err(), 403);
    assert_eq!(three.asked((1, 2), key_id(&hers)).await.unwrap_err(), 403);
    assert!(!three.reads(1, &hers));
    // What bob's node forwards all the same, under keys it made up, leads to no question.
    let asked = three.nodes[2].hs.peers.counters().room_keys_asked.load(Ordering::Relaxed);
    let made_up = made_up(&three.room_id, three.nodes[1].owned_name(), 1);
    assert_eq!(three.verdict((2, &b_peer), made_up).await, Acceptance::Ignore);
    let now_asked = three.nodes[2].hs.peers.counters().room_keys_asked.load(Ordering::Relaxed);
    assert_eq!(asked, now_asked);
}

fn made_up(room_id: &OwnedRoomId, owner: OwnedServerName, seed: u8) -> Bytes {
    let secret = Zeroizing::new([seed; ROOM_KEY_BYTES]);
    let key = RoomKey::new(owner, room_id, secret, Vec::new());
    key.seal(room_id, [0; NONCE_BYTES], b"{}").unwrap().into()
}

#[tokio::test(start_paused = true)]
async fn who_has_not_heard_of_a_ban_does_not_pass_the_new_key_on() {
    let mut three = Three::new().await;
    three.net.hub.lose_gossip();
    three.ban(0, 1).await;
    let after = three.unheard(0, "without bob").await;
    let key = sealing::key_of(&three.nodes[0].hs, &three.room_id, &after).unwrap();
    assert_eq!(key.after().len(), 1, "the ban");
    let (carol, room_id) = (three.nodes[2].hs.clone(), three.room_id.clone());
    let bob = three.users[1].user_id.clone();
    assert_eq!(membership(&carol, &room_id, &bob).await, Some(MembershipState::Join));
    sealing::give(&carol, &room_id, key);
    assert!(three.asked((1, 2), key_id(&after)).await.unwrap().is_empty(), "held back");
    assert!(three.asked((0, 2), key_id(&after)).await.unwrap().is_empty(), "from everybody");
    three
        .net
        .until("carol hears of the ban", || async {
            membership(&carol, &room_id, &bob).await == Some(MembershipState::Ban)
        })
        .await;
    assert_eq!(three.asked((1, 2), key_id(&after)).await.unwrap_err(), 403);
    assert_eq!(three.asked((0, 2), key_id(&after)).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_is_had_from_another_member_when_its_owner_is_off() {
    let mut three = Three::new().await;
    let frame = three.unheard(0, "through bob").await;
    let [a, b] = [0, 1].map(|n: usize| three.nodes[n].peer_id.clone());
    assert_eq!(three.verdict((1, &a), frame.clone()).await, Acceptance::Accept);
    let (alice, carol) = (three.nodes[0].owned_name(), three.nodes[2].owned_name());
    three.net.hub.set_link(&alice, &carol, Link::Down);
    assert_eq!(three.verdict((2, &b), frame).await, Acceptance::Accept);
    let room_id = three.room_id.clone();
    assert_eq!(texts(&three.nodes[2].hs, &room_id).await, ["through bob"]);
}

#[tokio::test(start_paused = true)]
async fn many_frames_under_one_key_ask_once() {
    let mut three = Three::new().await;
    let mut frames = Vec::new();
    for n in 0..10 {
        frames.push(three.unheard(0, &n.to_string()).await);
    }
    let (a, carol) = (three.nodes[0].peer_id.clone(), three.nodes[2].hs.clone());
    let asked = || carol.peers.counters().room_keys_asked.load(Ordering::Relaxed);
    let before = asked();
    let mut verdicts = Vec::new();
    for frame in frames {
        let (reply, verdict) = oneshot::channel();
        let room_id = three.room_id.clone();
        let report = Inbound::Frame { source: a.clone(), room_id, frame, reply };
        three.net.hub.inject(three.nodes[2].name(), report);
        verdicts.push(verdict);
    }
    let verdicts = three.net.drive(futures::future::join_all(verdicts)).await;
    assert!(verdicts.into_iter().any(|verdict| verdict == Ok(Acceptance::Accept)));
    assert_eq!(asked() - before, 1);
    let room_id = three.room_id.clone();
    three.net.until("carol has all", || async { texts(&carol, &room_id).await.len() == 10 }).await;
}

#[tokio::test(start_paused = true)]
async fn made_up_keys_cost_little() {
    let mut three = Three::new().await;
    three.net.hub.lose_gossip();
    let b = three.nodes[1].peer_id.clone();
    let mut waiting = Vec::new();
    for n in 0..100 {
        let (reply, verdict) = oneshot::channel();
        let frame = made_up(&three.room_id, three.nodes[1].owned_name(), n);
        let room_id = three.room_id.clone();
        let report = Inbound::Frame { source: b.clone(), room_id, frame, reply };
        three.net.hub.inject(three.nodes[0].name(), report);
        waiting.push(verdict);
    }
    let verdicts = three.net.drive(futures::future::join_all(waiting)).await;
    assert!(verdicts.iter().all(|verdict| *verdict == Ok(Acceptance::Ignore)), "no proof of guilt");
    let asked = three.nodes[0].hs.peers.counters().room_keys_asked.load(Ordering::Relaxed);
    // The neighbour and one other, for no more frames than may wait at once of one neighbour.
    assert!((1..=32).contains(&asked), "{asked}");
    // A stranger's make us ask nobody.
    let source = format!("12D3KooW{}", "q".repeat(44));
    let frame = made_up(&three.room_id, three.nodes[1].owned_name(), 200);
    assert_eq!(three.verdict((0, &source), frame).await, Acceptance::Ignore);
    let counters = three.nodes[0].hs.peers.counters();
    assert_eq!(counters.room_keys_asked.load(Ordering::Relaxed), asked);
}

#[tokio::test(start_paused = true)]
async fn a_restart_makes_another_key_and_all_goes_on() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    let before = published(&mut net, &a, say(&a.hs, &alice, &room_id, "before")).await;
    net.until("b hears a", || async { texts(&b.hs, &room_id).await == ["before"] }).await;
    let seed = net.stop(a).await;
    let a = net.start(seed);
    // Each life of a test's node draws the same numbers.
    let _drawn: [u8; 32] = a.hs.rng.bytes();
    let after = published(&mut net, &a, say(&a.hs, &alice, &room_id, "after")).await;
    net.until("b hears a", || async { texts(&b.hs, &room_id).await == ["before", "after"] }).await;
    assert_eq!(sealing::key_of(&a.hs, &room_id, &before).map(|key| key.id()), None);
    assert!(sealing::key_of(&a.hs, &room_id, &after).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_neighbour_that_floods_is_not_listened_to_and_others_are() {
    let mut three = Three::new().await;
    let frame = three.unheard(0, "through the noise").await;
    let [a, b] = [0, 1].map(|n: usize| three.nodes[n].peer_id.clone());
    for _ in 0..10 {
        let mut waiting = Vec::new();
        for _ in 0..500 {
            let (reply, verdict) = oneshot::channel();
            let (source, room_id) = (b.clone(), three.room_id.clone());
            let report = Inbound::Frame { source, room_id, frame: Bytes::from_static(b"x"), reply };
            three.net.hub.inject(three.nodes[2].name(), report);
            waiting.push(verdict);
        }
        let verdicts = three.net.drive(futures::future::join_all(waiting)).await;
        assert!(verdicts.into_iter().all(|verdict| verdict == Ok(Acceptance::Ignore)));
    }
    let limited = &three.nodes[2].hs.peers.counters().frames_limited;
    assert!(limited.load(Ordering::Relaxed) >= 500, "{limited:?}");
    assert_eq!(three.verdict((2, &b), frame.clone()).await, Acceptance::Ignore, "too much of it");
    assert_eq!(three.verdict((2, &a), frame).await, Acceptance::Accept);
}
