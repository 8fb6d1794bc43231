//! The verdict: whether all nodes of a room hold the same, and all that was promised.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use messagehub_store::events::Standing;
use ruma::{OwnedEventId, OwnedRoomId};

use crate::{
    Fault,
    look::{self, Held, Look},
    script,
    world::World,
};

/// Judges every room.
pub(crate) async fn judge(world: &Rc<World>) -> Result<(), Fault> {
    let rooms: Vec<OwnedRoomId> =
        world.rooms.borrow().iter().map(|room| room.room_id.clone()).collect();
    for room_id in rooms {
        world.count(|tally| tally.rooms += 1);
        let mut looks = BTreeMap::new();
        for node in script::glances(world, &room_id).await?.into_keys() {
            let Some(hs) = world.nodes[node].hs() else { continue };
            let wanted = room_id.clone();
            if let Some(seen) = hs.store.read(move |snap| look::look(snap, &wanted)).await? {
                looks.insert(node, seen);
            }
        }
        if looks.len() > 1 {
            world.count(|tally| tally.shared_rooms += 1);
        }
        compare(world, &room_id, &looks)?;
        promises(world, &room_id, &looks)?;
        if let Some(one) = looks.values().next() {
            measure(world, one);
        }
    }
    Ok(())
}

/// The same heads, state and events everywhere, and nothing missing.
fn compare(
    world: &World,
    room_id: &OwnedRoomId,
    looks: &BTreeMap<usize, Look>,
) -> Result<(), Fault> {
    let Some((first, one)) = looks.first_key_value() else { return Ok(()) };
    let disputed = disputed(looks);
    for (node, other) in looks {
        let missing = &other.missing;
        if !missing.is_empty() {
            return Err(format!("node {node} has a hole in {room_id}: {missing:?}").into());
        }
        if one.heads != other.heads {
            let (a, b) = (&one.heads, &other.heads);
            return Err(format!(
                "nodes {first} and {node} have other heads in {room_id}: {a:?}, {b:?}"
            )
            .into());
        }
        if one.state != other.state {
            let differs = difference(&one.state, &other.state);
            return Err(format!(
                "nodes {first} and {node} have other state in {room_id}:\n{differs}"
            )
            .into());
        }
        for (event_id, held) in &other.events {
            if one.events.contains_key(event_id) && disputed.contains(event_id) {
                continue;
            }
            same(world, (*first, one.events.get(event_id)), (*node, held))
                .map_err(|what| format!("{event_id} in {room_id}: {what}"))?;
        }
    }
    Ok(())
}

/// Events that need not be redacted everywhere. A redaction that fails by the state that is current
/// when it comes takes nothing away there; and a redaction that was itself redacted no longer says,
/// to those who get it after that, what it redacts.
fn disputed(looks: &BTreeMap<usize, Look>) -> BTreeSet<OwnedEventId> {
    let unheard = looks
        .values()
        .flat_map(|look| look.events.values())
        .filter(|held| !held.is_shown || held.is_redacted);
    unheard.filter_map(|held| held.redacts.clone()).collect()
}

fn same(
    world: &World,
    (first, one): (usize, Option<&Held>),
    (node, other): (usize, &Held),
) -> Result<(), String> {
    let Some(one) = one else { return Err(format!("on node {node}, not on {first}")) };
    if one.json != other.json {
        let (a, b) = (&one.json, &other.json);
        let (by_one, by_other) = (one.is_redacted, other.is_redacted);
        return Err(format!(
            "other bytes on nodes {first} (redacted: {by_one}) and {node} ({by_other}):\n  {a}\n  {b}"
        ));
    }
    for (at, held) in [(first, one), (node, other)] {
        // Everybody here is honest.
        if held.standing == Standing::Rejected {
            return Err(format!("rejected on node {at}"));
        }
        // What is not shown failed by the state that was current when it came.
        if !held.is_shown && held.standing != Standing::SoftFailed {
            return Err(format!("{:?} and not shown on node {at}", held.standing));
        }
    }
    if one.is_shown != other.is_shown {
        world.count(|tally| tally.soft_failed += 1);
    } else if one.is_redacted != other.is_redacted {
        return Err(format!("redacted on one of nodes {first} and {node} only"));
    }
    Ok(())
}

/// Everything that was promised by a node that is still there is with everybody.
fn promises(
    world: &World,
    room_id: &OwnedRoomId,
    looks: &BTreeMap<usize, Look>,
) -> Result<(), Fault> {
    let ledger = world.ledger.borrow();
    for promise in ledger.of_room(room_id) {
        if !ledger.binds(promise) || !looks.contains_key(&promise.node) {
            world.count(|tally| tally.excused += 1);
            continue;
        }
        world.count(|tally| tally.acknowledged += 1);
        for (node, seen) in looks {
            if !seen.events.contains_key(&promise.event_id) {
                return Err(format!(
                    "{} in {room_id}, acknowledged by node {}, is lost on node {node}",
                    promise.event_id, promise.node
                )
                .into());
            }
        }
    }
    Ok(())
}

/// The lines that are in one text only.
fn difference(one: &str, other: &str) -> String {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (one, other) = (lines(one), lines(other));
    let left = one.difference(&other).map(|line| format!("  - {line}\n"));
    let right = other.difference(&one).map(|line| format!("  + {line}\n"));
    left.chain(right).collect()
}

/// How much happened in a room.
fn measure(world: &World, seen: &Look) {
    let ancestors = ancestors(&seen.events);
    let apart = |a: &OwnedEventId, b: &OwnedEventId| {
        a != b
            && !ancestors.get(a).is_some_and(|before| before.contains(b))
            && !ancestors.get(b).is_some_and(|before| before.contains(a))
    };
    let ids: Vec<&OwnedEventId> = seen.events.keys().collect();
    let concurrent = ids.iter().filter(|a| ids.iter().any(|b| apart(a, b))).count();
    let merges = seen.events.values().filter(|event| event.prev_events.len() > 1).count();
    let mut settings: BTreeMap<&(String, String), Vec<&OwnedEventId>> = BTreeMap::new();
    for (event_id, event) in &seen.events {
        if let Some(key) = &event.sets {
            settings.entry(key).or_default().push(event_id);
        }
    }
    let conflicts =
        settings.values().filter(|by| by.iter().any(|a| by.iter().any(|b| apart(a, b)))).count();
    world.count(|tally| {
        tally.events += seen.events.len();
        tally.merges += merges;
        tally.concurrent += concurrent;
        tally.state_conflicts += conflicts;
    });
}

/// All events before each event.
fn ancestors(
    events: &BTreeMap<OwnedEventId, Held>,
) -> BTreeMap<OwnedEventId, BTreeSet<OwnedEventId>> {
    let mut ancestors: BTreeMap<OwnedEventId, BTreeSet<OwnedEventId>> = BTreeMap::new();
    let mut stack: Vec<&OwnedEventId> = events.keys().collect();
    while let Some(event_id) = stack.pop() {
        if ancestors.contains_key(event_id) {
            continue;
        }
        let Some(event) = events.get(event_id) else { continue };
        let open: Vec<&OwnedEventId> = event
            .prev_events
            .iter()
            .filter(|before| events.contains_key(*before) && !ancestors.contains_key(*before))
            .collect();
        if open.is_empty() {
            let mut all = BTreeSet::new();
            for before in &event.prev_events {
                all.insert(before.clone());
                all.extend(ancestors.get(before).into_iter().flatten().cloned());
            }
            ancestors.insert(event_id.clone(), all);
        } else {
            stack.push(event_id);
            stack.extend(open);
        }
    }
    ancestors
}
