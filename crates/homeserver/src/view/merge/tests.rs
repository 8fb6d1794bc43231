use messagehub_protocol::receive::Standing;
use messagehub_store::rooms;
use ruma::{OwnedRoomId, OwnedUserId, RoomVersionId, events::StateEventType};
use serde_json::json;

use super::*;
use crate::testing::{TestServer, dag::Step};

/// Merges the states after some events, and resolves the same states in full: both must agree.
async fn check_merge(server: &TestServer, room_id: &OwnedRoomId, heads: Vec<OwnedEventId>) {
    let room_id = room_id.clone();
    let checked = server.hs.store.write(move |txn| {
        let room = rooms::find(txn, &room_id)?.unwrap();
        let rules = super::super::rules(&room)?;
        let mut roots = Vec::new();
        for head in &heads {
            roots.push(events::find(txn, head)?.unwrap().state_after.unwrap());
        }
        let merged = merge(txn, &room, roots.clone())?;
        let mut known = Known::default();
        let mut states = Vec::new();
        for root in roots {
            let mut state = StateMap::new();
            for (kind, key, nid) in room_state::all(txn, root)? {
                let place = known.add(txn, nid)?;
                state.insert((kind, key), known.id(place));
            }
            states.push(state);
        }
        let whole = resolve::resolve(rules, &states, &known.events)?;
        let mut found = StateMap::new();
        for (kind, key, nid) in room_state::all(txn, merged)? {
            found.insert((kind, key), events::id(txn, nid)?);
        }
        assert_eq!(found, whole);
        Ok::<_, ViewError>(())
    });
    checked.await.unwrap();
}

/// A random step of a room in which three people quarrel.
fn step(server: &TestServer, people: &[OwnedUserId], after: &[OwnedEventId]) -> Step {
    let rng = &server.hs.rng;
    let pick = |bound: usize| usize::try_from(rng.below(bound as u64)).unwrap();
    let (sender, other) = (&people[pick(people.len())], &people[pick(people.len())]);
    let member = |membership: &str| json!({ "membership": membership });
    let n = rng.below(1000);
    match rng.below(10) {
        0 | 1 => {
            Step::state(after, sender, ("m.room.topic", ""), json!({ "topic": n.to_string() }))
        }
        2 => Step::state(after, sender, ("m.room.name", ""), json!({ "name": n.to_string() })),
        3 => {
            // The creator's own level may not be named where creators are privileged.
            let level = |user: &OwnedUserId| (user.to_string(), json!(50 + pick(2) * 25));
            let users: serde_json::Map<_, _> = people[1..].iter().map(level).collect();
            let content = json!({ "users": users, "users_default": 0, "state_default": 50 });
            Step::state(after, &people[0], ("m.room.power_levels", ""), content)
        }
        4 => Step::state(after, sender, ("m.room.member", other.as_str()), member("ban")),
        5 => Step::state(after, sender, ("m.room.member", other.as_str()), member("leave")),
        6 | 7 => Step::state(after, sender, ("m.room.member", sender.as_str()), member("join")),
        8 => {
            let rule = ["public", "invite"][pick(2)];
            let content = json!({ "join_rule": rule });
            Step::state(after, sender, ("m.room.join_rules", ""), content)
        }
        _ => Step::message(after, sender, &n.to_string()),
    }
}

async fn quarrel(seed: u64, version: RoomVersionId) -> usize {
    let server = TestServer::new(seed);
    let mut people = Vec::new();
    for name in ["alice", "bob", "carol"] {
        people.push(server.user(name).await.user_id);
    }
    let alice = crate::sessions::Session { user_id: people[0].clone(), device_id: "D".into() };
    let room_id = server.room(&alice, Some(version)).await;
    let public = json!({ "join_rule": "public" });
    let head = server.head(&room_id).await;
    let step1 = Step::state(&[head], &people[0], ("m.room.join_rules", ""), public);
    let mut recent = vec![server.place(&room_id, step1).await.pdu.event_id().to_owned()];
    let mut merges = 0;
    for _ in 0..60 {
        let mut after: Vec<OwnedEventId> = Vec::new();
        for _ in 0..=server.hs.rng.below(3) {
            let back = usize::try_from(server.hs.rng.below(6)).unwrap().min(recent.len() - 1);
            let id = recent[recent.len() - 1 - back].clone();
            if !after.contains(&id) {
                after.push(id);
            }
        }
        if after.len() > 1 {
            merges += 1;
            check_merge(&server, &room_id, after.clone()).await;
        }
        let placed = server.place(&room_id, step(&server, &people, &after)).await;
        if placed.standing != Standing::Rejected {
            recent.push(placed.pdu.event_id().to_owned());
        }
    }
    check_merge(&server, &room_id, server.heads(&room_id).await).await;
    assert!(recent.len() > 20, "seed {seed}: nearly everything was rejected");
    merges
}

#[tokio::test]
async fn a_merge_is_the_resolution_of_the_whole_states() {
    let mut merges = 0;
    for seed in 0..2 {
        for version in
            [RoomVersionId::V2, RoomVersionId::V6, RoomVersionId::V11, RoomVersionId::V12]
        {
            merges += quarrel(seed, version).await;
        }
    }
    assert!(merges > 60, "only {merges} merges: the graphs hardly branched");
}

/// Two topics conflict, and one of them rests on power levels that lost long ago. Somebody's
/// member event, about which all agree, rests on them too: so they are no auth difference, and
/// Bob's topic is judged by the power levels that all have.
#[tokio::test]
async fn what_all_have_in_common_is_no_auth_difference() {
    for version in [RoomVersionId::V6, RoomVersionId::V12] {
        let server = TestServer::new(11);
        let alice = server.user("alice").await;
        let (bob, dave) = (server.user("bob").await.user_id, server.user("dave").await.user_id);
        let room_id = server.room(&alice, Some(version.clone())).await;
        let alice = alice.user_id;
        let head = server.head(&room_id).await;
        let put = async |after: &[OwnedEventId], by: &OwnedUserId, key: (&str, &str), content| {
            let placed = server.place(&room_id, Step::state(after, by, key, content)).await;
            assert_eq!(placed.standing, Standing::Accepted, "{version} {key:?}");
            placed.pdu.event_id().to_owned()
        };
        let levels = |bob_level: u64| {
            let mut users = json!({ bob.as_str(): bob_level });
            if version == RoomVersionId::V6 {
                users[alice.as_str()] = json!(100);
            }
            ("m.room.power_levels", json!({ "users": users, "state_default": 50 }))
        };
        let join = |name: &str| json!({ "membership": "join", "displayname": name });
        let open = json!({ "join_rule": "public" });
        let head = put(&[head], &alice, ("m.room.join_rules", ""), open).await;
        let head = put(&[head], &bob, ("m.room.member", bob.as_str()), join("bob")).await;
        let fork = put(&[head], &dave, ("m.room.member", dave.as_str()), join("dave")).await;

        let (kind, content) = levels(0);
        let lost = put(std::slice::from_ref(&fork), &alice, (kind, ""), content).await;
        let renamed = put(&[lost], &dave, ("m.room.member", dave.as_str()), join("d")).await;
        let (kind, content) = levels(50);
        let won = put(&[fork], &alice, (kind, ""), content).await;

        let topic = json!({ "topic": "hers" });
        let after = std::slice::from_ref(&renamed);
        let hers = put(after, &alice, ("m.room.topic", ""), topic).await;
        let name = json!({ "name": "a room" });
        let left = put(&[hers, won.clone()], &alice, ("m.room.name", ""), name.clone()).await;
        let right = put(&[renamed, won], &alice, ("m.room.name", ""), name).await;
        let right = put(&[right], &bob, ("m.room.topic", ""), json!({ "topic": "his" })).await;
        check_merge(&server, &room_id, vec![left.clone(), right.clone()]).await;
        let both = [left, right];
        server.place(&room_id, Step::message(&both, &alice, "which?")).await;
        let shown = server
            .read(move |snap| {
                let room = rooms::find(snap, &room_id)?.unwrap();
                super::super::state_event(snap, room.state, &StateEventType::RoomTopic, "")
            })
            .await;
        assert_eq!(crate::testing::content_of(&shown.unwrap())["topic"], "his", "{version}");
    }
}
