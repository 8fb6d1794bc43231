//! Nodes that talk to each other, and what must hold whatever happens to the network.

mod between;
mod client;
mod forks;
mod ghosts;
mod heads;
mod hostile;
mod media;
mod moving;
mod outsider;
mod relayed;
mod repair;
mod rotation;
mod sealed;
mod strangers;
mod users;
mod waiting;

use std::{sync::Arc, time::Duration};

use messagehub_homeserver::{
    Homeserver,
    federation::{self, Call},
    rooms::{
        create::{self, NewRoom},
        invite::{self, Invite},
        join::{self, Join},
        leave,
        moderate::{self, Action, Moderation},
    },
    send::{self, NewMessage},
    sessions::Session,
};
use messagehub_protocol::pdu::Pdu;
use messagehub_store::{
    StoreError, StreamPos,
    events::{self, Direction},
    extremities, memberships, outbox, room_state, rooms,
};
use ruma::{
    OwnedRoomId, OwnedServerName, RoomId, UserId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};
use serde_json::{json, value::to_raw_value};

use super::{Link, Net, Node};

async fn read<T: Send + 'static>(
    hs: &Homeserver,
    read: impl FnOnce(&messagehub_store::Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
) -> T {
    hs.store.read(read).await.unwrap()
}

/// What a server answers that cannot take a request now.
fn busy() -> http::Response<axum::body::Bytes> {
    let mut busy = http::Response::default();
    *busy.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    busy
}

async fn kick(hs: &Homeserver, by: &Session, room_id: &RoomId, user_id: &UserId) {
    let (room_id, user_id) = (room_id.to_owned(), user_id.to_owned());
    let kick = Moderation { room_id, user_id, action: Action::Kick, reason: None };
    moderate::moderate(hs, &by.user_id, kick).await.unwrap();
}

async fn say(hs: &Homeserver, session: &Session, room_id: &OwnedRoomId, text: &str) {
    let message = NewMessage {
        room_id: room_id.clone(),
        kind: TimelineEventType::RoomMessage,
        content: to_raw_value(&json!({ "msgtype": "m.text", "body": text })).unwrap(),
        txn_id: text.into(),
    };
    send::message(hs, session, message).await.unwrap();
}

/// The texts of a room in the order of its timeline.
async fn texts(hs: &Homeserver, room_id: &OwnedRoomId) -> Vec<String> {
    let room_id = room_id.clone();
    read(hs, move |snap| {
        let Some(room) = rooms::find(snap, &room_id)? else { return Ok(Vec::new()) };
        let all = (StreamPos(i64::MIN), StreamPos(i64::MAX));
        let events = events::page(snap, room.nid, all, Direction::Forward, 10_000)?;
        let body = |event: &events::StoredEvent| {
            let content: serde_json::Value =
                serde_json::from_str(event.pdu.content().get()).unwrap();
            content.get("body")?.as_str().map(str::to_owned)
        };
        Ok(events.iter().filter_map(body).collect())
    })
    .await
}

/// Heads and current state, by ids.
async fn shape(hs: &Homeserver, room_id: &OwnedRoomId) -> (Vec<String>, Vec<String>) {
    let room_id = room_id.clone();
    read(hs, move |snap| {
        let room = rooms::find(snap, &room_id)?.unwrap();
        let mut heads = Vec::new();
        for nid in extremities::list(snap, room.nid)? {
            heads.push(events::id(snap, nid)?.to_string());
        }
        let mut state = Vec::new();
        for (_, _, nid) in room_state::all(snap, room.state)? {
            state.push(events::id(snap, nid)?.to_string());
        }
        heads.sort();
        state.sort();
        Ok((heads, state))
    })
    .await
}

async fn membership(
    hs: &Homeserver,
    room_id: &OwnedRoomId,
    user_id: &UserId,
) -> Option<MembershipState> {
    let (room_id, user_id) = (room_id.clone(), user_id.to_owned());
    read(hs, move |snap| {
        let Some(room) = rooms::find(snap, &room_id)? else { return Ok(None) };
        Ok(memberships::find(snap, room.nid, &user_id)?.map(|member| member.membership))
    })
    .await
}

async fn invite(hs: &Homeserver, by: &Session, room_id: &OwnedRoomId, user_id: &UserId) {
    let invite = Invite { room_id: room_id.clone(), user_id: user_id.to_owned(), reason: None };
    invite::invite(hs, &by.user_id, invite).await.unwrap();
}

async fn join(hs: &Homeserver, by: &Session, room_id: &OwnedRoomId, via: Vec<OwnedServerName>) {
    let join = Join { target: room_id.clone().into(), via, reason: None };
    join::join(hs, &by.user_id, join).await.unwrap();
}

/// A transaction of events and EDUs that one node made up, signed and sent as that node.
async fn push(
    (from, to): (&Node, &Node),
    txn_id: &str,
    (pdus, edus): (&[Arc<Pdu>], serde_json::Value),
) {
    let pdus: Vec<serde_json::Value> =
        pdus.iter().map(|pdu| serde_json::from_str(pdu.json()).unwrap()).collect();
    let body = json!({ "origin": from.name(), "origin_server_ts": 0, "pdus": pdus, "edus": edus });
    let call = Call {
        method: http::Method::PUT,
        uri: format!("/_matrix/federation/v1/send/{txn_id}"),
        body: body.to_string().into_bytes(),
    };
    federation::ask_raw(&from.hs, to.name(), call, Duration::from_secs(20)).await.unwrap();
}

/// A room of a user of `a` that a user of `b` was invited to and has joined.
async fn shared_room(net: &mut Net, a: (&Node, &Session), b: (&Node, &Session)) -> OwnedRoomId {
    let room_id = net.drive(create::room(&a.0.hs, &a.1.user_id, NewRoom::new())).await.unwrap();
    bring_in(net, a, b, &room_id).await;
    room_id
}

/// Lets a user of another node into a room, by an invite of a member.
async fn bring_in(
    net: &mut Net,
    by: (&Node, &Session),
    who: (&Node, &Session),
    room_id: &OwnedRoomId,
) {
    net.drive(invite(&by.0.hs, by.1, room_id, &who.1.user_id)).await;
    let invited = Some(MembershipState::Invite);
    net.until("the invite arrives", || async {
        membership(&who.0.hs, room_id, &who.1.user_id).await == invited
    })
    .await;
    net.drive(join(&who.0.hs, who.1, room_id, Vec::new())).await;
}

#[tokio::test(start_paused = true)]
async fn an_invite_a_join_and_a_conversation() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    net.drive(say(&a.hs, &alice, &room_id, "hello")).await;
    net.until("b hears a", || async { texts(&b.hs, &room_id).await == ["hello"] }).await;
    net.drive(say(&b.hs, &bob, &room_id, "hi")).await;
    net.until("a hears b", || async { texts(&a.hs, &room_id).await == ["hello", "hi"] }).await;
    assert_eq!(shape(&a.hs, &room_id).await, shape(&b.hs, &room_id).await);

    net.drive(leave::leave(&b.hs, &bob.user_id, room_id.clone(), None)).await.unwrap();
    let left = Some(MembershipState::Leave);
    net.until("a sees b leave", || async {
        membership(&a.hs, &room_id, &bob.user_id).await == left
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_was_said_before_a_join_can_be_read_after_it() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = net.drive(create::room(&a.hs, &alice.user_id, NewRoom::new())).await.unwrap();
    for n in 0..150 {
        net.drive(say(&a.hs, &alice, &room_id, &n.to_string())).await;
    }
    net.drive(invite(&a.hs, &alice, &room_id, &bob.user_id)).await;
    net.until("the invite arrives", || async {
        membership(&b.hs, &room_id, &bob.user_id).await.is_some()
    })
    .await;
    net.drive(join(&b.hs, &bob, &room_id, Vec::new())).await;
    let all: Vec<String> = (0..150).map(|n| n.to_string()).collect();
    net.until("history is there", || async { texts(&b.hs, &room_id).await == all }).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_off_gets_everything_in_order_and_once() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    let seed = net.stop(b).await;
    let all: Vec<String> = (0..250).map(|n| n.to_string()).collect();
    for text in &all {
        net.drive(say(&a.hs, &alice, &room_id, text)).await;
    }
    let b = net.start(seed);
    net.until("b has caught up", || async { texts(&b.hs, &room_id).await == all }).await;
    assert_eq!(shape(&a.hs, &room_id).await, shape(&b.hs, &room_id).await);
}

#[tokio::test(start_paused = true)]
async fn lost_frames_are_repaired_within_a_minute_or_so() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    net.hub.lose_gossip();
    net.drive(say(&a.hs, &alice, &room_id, "unheard")).await;
    net.until("heads repair it", || async { texts(&b.hs, &room_id).await == ["unheard"] }).await;
}

#[tokio::test(start_paused = true)]
async fn both_sides_of_a_cut_agree_again() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    net.hub.set_link(a.name(), b.name(), Link::Down);
    for n in 0..7 {
        net.drive(say(&a.hs, &alice, &room_id, &format!("a{n}"))).await;
        net.drive(say(&b.hs, &bob, &room_id, &format!("b{n}"))).await;
    }
    assert_ne!(shape(&a.hs, &room_id).await, shape(&b.hs, &room_id).await);
    net.hub.set_link(a.name(), b.name(), Link::Up);
    net.until("both have all", || async {
        texts(&a.hs, &room_id).await.len() == 14
            && shape(&a.hs, &room_id).await == shape(&b.hs, &room_id).await
    })
    .await;
    net.drive(say(&b.hs, &bob, &room_id, "again")).await;
    net.until("and talk", || async {
        texts(&a.hs, &room_id).await.last().is_some_and(|text| text == "again")
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_third_joins_through_the_second_while_the_first_is_off() {
    let mut net = Net::new();
    let (a, b, c) = (net.start(1), net.start(2), net.start(3));
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    net.drive(say(&a.hs, &alice, &room_id, "before")).await;
    net.until("b hears a", || async { texts(&b.hs, &room_id).await == ["before"] }).await;
    net.drive(invite(&a.hs, &alice, &room_id, &carol.user_id)).await;
    let invited = Some(MembershipState::Invite);
    net.until("carol is invited, and bob knows", || async {
        membership(&c.hs, &room_id, &carol.user_id).await == invited
            && membership(&b.hs, &room_id, &carol.user_id).await == invited
    })
    .await;
    let seed = net.stop(a).await;
    net.drive(join(&c.hs, &carol, &room_id, vec![b.owned_name()])).await;
    net.until("history is there", || async { texts(&c.hs, &room_id).await == ["before"] }).await;
    net.drive(say(&c.hs, &carol, &room_id, "here")).await;
    net.until("b hears c", || async { texts(&b.hs, &room_id).await == ["before", "here"] }).await;

    let a = net.start(seed);
    net.until("a hears of both", || async {
        texts(&a.hs, &room_id).await == ["before", "here"]
            && membership(&a.hs, &room_id, &carol.user_id).await == Some(MembershipState::Join)
    })
    .await;
    assert_eq!(shape(&a.hs, &room_id).await, shape(&c.hs, &room_id).await);
}

#[tokio::test(start_paused = true)]
async fn an_invite_waits_for_somebody_who_is_off_and_a_refusal_too() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let seed = net.stop(b).await;
    let room_id = net.drive(create::room(&a.hs, &alice.user_id, NewRoom::new())).await.unwrap();
    net.drive(invite(&a.hs, &alice, &room_id, &bob.user_id)).await;
    let waits = |hs: &Homeserver, to: &Session| {
        let (hs, to) = (hs.clone(), to.user_id.server_name().to_owned());
        async move { read(&hs, move |snap| outbox::count(snap, &to)).await }
    };
    assert_eq!(waits(&a.hs, &bob).await, 1);
    let b = net.start(seed);
    net.until("the invite arrives", || async {
        membership(&b.hs, &room_id, &bob.user_id).await == Some(MembershipState::Invite)
    })
    .await;
    net.until("nothing waits", || async { waits(&a.hs, &bob).await == 0 }).await;

    net.hub.set_link(a.name(), b.name(), Link::Down);
    net.drive(leave::leave(&b.hs, &bob.user_id, room_id.clone(), None)).await.unwrap();
    assert_eq!(
        membership(&b.hs, &room_id, &bob.user_id).await,
        Some(MembershipState::Leave),
        "it counts here at once"
    );
    assert_eq!(membership(&a.hs, &room_id, &bob.user_id).await, Some(MembershipState::Invite));
    net.hub.set_link(a.name(), b.name(), Link::Up);
    net.until("a learns of the refusal", || async {
        membership(&a.hs, &room_id, &bob.user_id).await == Some(MembershipState::Leave)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_invite_can_be_taken_back() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = net.drive(create::room(&a.hs, &alice.user_id, NewRoom::new())).await.unwrap();
    net.drive(invite(&a.hs, &alice, &room_id, &bob.user_id)).await;
    net.until("the invite arrives", || async {
        membership(&b.hs, &room_id, &bob.user_id).await == Some(MembershipState::Invite)
    })
    .await;
    let state = send::NewState {
        room_id: room_id.clone(),
        kind: StateEventType::RoomMember,
        state_key: bob.user_id.to_string(),
        content: to_raw_value(&json!({ "membership": "leave" })).unwrap(),
    };
    net.drive(send::state(&a.hs, &alice.user_id, state)).await.unwrap();
    net.until("b forgets the invite", || async {
        membership(&b.hs, &room_id, &bob.user_id).await == Some(MembershipState::Leave)
    })
    .await;
}
