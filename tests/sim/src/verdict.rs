//! The verdict: whether all honest nodes of a room hold the same, and all that was promised.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use messagehub_store::{StoreError, events::Standing};
use ruma::{
    OwnedEventId, OwnedRoomId, UserId,
    events::{StateEventType, room::member::MembershipState},
};

use crate::{
    Fault, course, life,
    look::{self, Held, Look},
    measure,
    world::World,
};

/// Judges every room.
pub(crate) async fn judge(world: &Rc<World>) -> Result<(), Fault> {
    let rooms: Vec<OwnedRoomId> =
        world.rooms.borrow().iter().map(|room| room.room_id.clone()).collect();
    for room_id in rooms {
        world.count(|tally| tally.rooms += 1);
        let looks = looks(world, &room_id).await?;
        if looks.len() > 1 {
            world.count(|tally| tally.shared_rooms += 1);
        }
        if let Err(Differs { event_id, between: (a, b), how }) = compare(world, &room_id, &looks) {
            let (one, other) =
                (text(world, a, (&room_id, &event_id)), text(world, b, (&room_id, &event_id)));
            let (one, other) = (one.await?, other.await?);
            return Err(format!("{how}\n  on {a}: {one}\n  on {b}: {other}").into());
        }
        promises(world, &room_id, &looks)?;
        invites(world, &room_id, &looks).await?;
        receipts(world, &room_id, &looks).await?;
        if let Some(one) = looks.values().next() {
            measure::measure(world, one);
        }
    }
    forged(world).await
}

async fn looks(world: &Rc<World>, room_id: &OwnedRoomId) -> Result<BTreeMap<usize, Look>, Fault> {
    let mut looks = BTreeMap::new();
    for node in course::glances(world, room_id).await?.into_keys() {
        let Some(hs) = world.nodes[node].hs() else { continue };
        let wanted = room_id.clone();
        if let Some(seen) = hs.store.read(move |snap| look::look(snap, &wanted)).await? {
            looks.insert(node, seen);
        }
    }
    Ok(looks)
}

/// What two nodes have differently.
struct Differs {
    /// The event that shows it, if it is one.
    event_id: Option<OwnedEventId>,
    between: (usize, usize),
    how: String,
}

/// The same heads, state and events everywhere, and nothing missing.
fn compare(
    world: &World,
    room_id: &OwnedRoomId,
    looks: &BTreeMap<usize, Look>,
) -> Result<(), Differs> {
    let Some((first, one)) = looks.first_key_value() else { return Ok(()) };
    let disputed = disputed(looks);
    for (node, other) in looks {
        let differs = |how| Differs { event_id: None, between: (*first, *node), how };
        // What only a hostile member ever had cannot be asked of anybody.
        let is_somewhere = |id: &&OwnedEventId| looks.values().any(|l| l.events.contains_key(*id));
        let missing: Vec<_> = other.missing.iter().filter(is_somewhere).collect();
        if !missing.is_empty() {
            return Err(differs(format!("node {node} has a hole in {room_id}: {missing:?}")));
        }
        if one.heads != other.heads {
            let (a, b) = (&one.heads, &other.heads);
            let how =
                format!("nodes {first} and {node} have other heads in {room_id}: {a:?}, {b:?}");
            return Err(differs(how));
        }
        if one.state != other.state {
            let lines = difference(&one.state, &other.state);
            let how = format!("nodes {first} and {node} have other state in {room_id}:\n{lines}");
            return Err(differs(how));
        }
        for (event_id, held) in &other.events {
            if one.events.contains_key(event_id) && disputed.contains(event_id) {
                continue;
            }
            // It may be before a hole that nobody honest can fill, but for this one.
            if !one.events.contains_key(event_id) && !one.missing.is_empty() {
                continue;
            }
            let pair = ((*first, one.events.get(event_id)), (*node, held));
            same(world, pair).map_err(|what| Differs {
                event_id: Some(event_id.clone()),
                between: (*first, *node),
                how: format!("{event_id} in {room_id}: {what}"),
            })?;
        }
    }
    Ok(())
}

/// Events that need not be redacted everywhere. A redaction that fails by the state that is current
/// when it comes takes nothing away there, and where nothing follows it no head tells of it; and a
/// redaction that was itself redacted no longer says, to those who get it after that, what it
/// redacts.
fn disputed(looks: &BTreeMap<usize, Look>) -> BTreeSet<OwnedEventId> {
    let unheard = looks
        .values()
        .flat_map(|look| look.events.values())
        .filter(|held| !held.is_shown || held.is_redacted);
    let beside = looks.values().flat_map(|look| look.redacted_beside.iter().cloned());
    unheard.filter_map(|held| held.redacts.clone()).chain(beside).collect()
}

fn same(
    world: &World,
    ((first, one), (node, other)): ((usize, Option<&Held>), (usize, &Held)),
) -> Result<(), String> {
    let Some(one) = one else { return Err(format!("on node {node}, not on {first}")) };
    if one.bytes != other.bytes {
        let (by_one, by_other) = (one.is_redacted, other.is_redacted);
        return Err(format!(
            "other bytes on nodes {first} (redacted: {by_one}) and {node} ({by_other})"
        ));
    }
    let sender = life::home(world, &other.sender);
    let is_honest = sender.is_none_or(|sender| world.script.is_honest(sender));
    for (at, held) in [(first, one), (node, other)] {
        // Whoever is honest sends nothing that the rules forbid.
        if is_honest && held.standing == Standing::Rejected {
            return Err(format!("rejected on node {at}"));
        }
        // What is not shown failed by the state that was current when it came.
        if is_honest && !held.is_shown && held.standing != Standing::SoftFailed {
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

async fn text(
    world: &World,
    node: usize,
    (room_id, event_id): (&OwnedRoomId, &Option<OwnedEventId>),
) -> Result<String, Fault> {
    let (Some(hs), Some(event_id)) = (world.nodes[node].hs(), event_id.clone()) else {
        return Ok(String::new());
    };
    let room_id = room_id.clone();
    Ok(hs.store.read(move |snap| look::text(snap, &room_id, &event_id)).await?)
}

/// Everything that was promised by an honest node that is still there is with everybody.
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

/// Whoever is invited knows of it.
async fn invites(
    world: &World,
    room_id: &OwnedRoomId,
    looks: &BTreeMap<usize, Look>,
) -> Result<(), Fault> {
    let Some(hs) = looks.keys().next().and_then(|node| world.nodes[*node].hs()) else {
        return Ok(());
    };
    let wanted = room_id.clone();
    for user_id in hs.store.read(move |snap| look::invited(snap, &wanted)).await? {
        let Some(node) = life::home(world, &user_id) else { continue };
        let Some(hs) = world.nodes[node].hs().filter(|_| world.script.is_honest(node)) else {
            continue;
        };
        let (wanted, user) = (room_id.clone(), user_id.clone());
        let known = hs.store.read(move |snap| look::membership(snap, &wanted, &user)).await?;
        if known != Some(MembershipState::Invite) {
            return Err(format!(
                "the invite of {user_id} to {room_id} is lost: on node {node} it is {known:?}"
            )
            .into());
        }
        world.count(|tally| tally.invites_delivered += 1);
    }
    Ok(())
}

/// How far somebody has read is known to all who were there when it was said, and stayed.
async fn receipts(
    world: &World,
    room_id: &OwnedRoomId,
    looks: &BTreeMap<usize, Look>,
) -> Result<(), Fault> {
    let receipts = world.ledger.borrow().receipts_of(room_id);
    for (user_id, join, mut nodes) in receipts {
        nodes.retain(|node| looks.contains_key(node));
        let Some(home) = life::home(world, &user_id).filter(|home| nodes.contains(home)) else {
            continue;
        };
        // Some may have got it while they held its user to be gone, even if the user is back.
        if looks.get(&home).is_none_or(|look| may_have_gone(look, &user_id, &join)) {
            continue;
        }
        let mut known = BTreeMap::new();
        for node in nodes {
            let Some(hs) = world.nodes[node].hs() else { continue };
            let (wanted, user) = (room_id.clone(), user_id.clone());
            let read = hs.store.read(move |snap| look::receipt(snap, &wanted, &user)).await?;
            known.insert(node, read);
        }
        // Whoever is gone is not heard any more, not even with what is said late.
        let Some(hs) = world.nodes[home].hs() else { continue };
        let (wanted, user) = (room_id.clone(), user_id.clone());
        let is = hs.store.read(move |snap| look::membership(snap, &wanted, &user)).await?;
        if is != Some(MembershipState::Join) {
            continue;
        }
        // Which of two came first each node says for itself: by when it got the events.
        if let Some(node) = known.iter().find(|(_, read)| read.is_none()).map(|(node, _)| node) {
            return Err(format!(
                "the receipt of {user_id} in {room_id} is lost: node {node} has none"
            )
            .into());
        }
        world.count(|tally| tally.receipts_delivered += 1);
    }
    Ok(())
}

/// Whether a room has more about the membership of a user than what their join follows.
fn may_have_gone(look: &Look, user_id: &UserId, join: &OwnedEventId) -> bool {
    let (mut before, mut next) = (BTreeSet::new(), vec![join]);
    while let Some(event_id) = next.pop() {
        if before.insert(event_id) {
            next.extend(look.events.get(event_id).into_iter().flat_map(|held| &held.prev_events));
        }
    }
    let member = Some((StateEventType::RoomMember.to_string(), user_id.to_string()));
    look.events.iter().any(|(event_id, held)| held.sets == member && !before.contains(event_id))
}

/// Nobody honest has what was said in the name of others.
async fn forged(world: &World) -> Result<(), Fault> {
    let forged: Vec<OwnedEventId> = world.forged.borrow().iter().cloned().collect();
    for node in world.honest() {
        let Some(hs) = node.hs() else { continue };
        let wanted = forged.clone();
        let taken = hs.store.read(move |snap| {
            let mut taken = Vec::new();
            for event_id in wanted {
                if look::has(snap, &event_id)? {
                    taken.push(event_id);
                }
            }
            Ok::<_, StoreError>(taken)
        });
        let taken = taken.await?;
        if !taken.is_empty() {
            return Err(format!("node {} took forged events: {taken:?}", node.index).into());
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
