//! The course of a run: trouble, peace, the last word.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use messagehub_homeserver::history;
use messagehub_store::outbox;
use ruma::OwnedRoomId;

use crate::{
    Fault, Switches, deeds,
    look::{self, Glance},
    transport, verdict,
    world::World,
};

/// How long peace may take until everything is everywhere. Heads are compared every minute, a
/// broken connection is noticed after 15 seconds, and one repair may need several rounds.
const PEACE: Duration = Duration::from_secs(600);

/// With something switched off there is nothing to hope for after that long.
const PEACE_IN_VAIN: Duration = Duration::from_secs(200);

/// How often is looked whether peace has come.
const GLANCE: Duration = Duration::from_secs(5);

/// How long people get to gather in the first rooms.
const GATHERING: Duration = Duration::from_secs(30);

/// Batches of history that a node is asked for: more than any room here has.
const MAX_BATCHES: usize = 50;

/// Plays a whole run.
pub(crate) async fn play(world: &Rc<World>) -> Result<(), Fault> {
    gather(world).await?;
    trouble(world).await?;
    peace(world).await?;
    settle(world, "peace").await?;
    last_words(world).await?;
    settle(world, "the last word").await?;
    scroll_back(world).await?;
    verdict::judge(world).await
}

/// Everybody comes, and the first rooms are made.
async fn gather(world: &Rc<World>) -> Result<(), Fault> {
    for node in 0..world.nodes.len() {
        world.start(node).await?;
    }
    tokio::time::sleep(world.between(0, 4_000)).await;
    deeds::found(world, 0);
    if world.chance(50) {
        deeds::found(world, 1);
    }
    for _ in 0..2 {
        tokio::time::sleep(GATHERING / 2).await;
        for node in 0..world.nodes.len() {
            deeds::join_all(world, node);
        }
    }
    tokio::time::sleep(world.between(0, 10_000)).await;
    Ok(())
}

/// People act while links break and nodes die.
async fn trouble(world: &Rc<World>) -> Result<(), Fault> {
    for _ in 0..world.plan.steps {
        let cuts = u64::from(world.plan.cuts);
        let crashes = u64::from(world.plan.crashes);
        match world.below(100) {
            at if at < cuts => cut(world),
            at if at < cuts + crashes => crash(world).await?,
            _ => {
                let alive = world.alive();
                if let Some(node) = world.pick(&alive) {
                    deeds::something(world, node);
                }
            }
        }
        tokio::time::sleep(world.between(0, world.plan.pause_ms)).await;
    }
    Ok(())
}

/// Cuts one link, or a group of nodes off from the rest, or mends everything.
fn cut(world: &Rc<World>) {
    let pairs = world.links.borrow().pairs();
    match world.below(4) {
        0 => pairs.into_iter().for_each(|pair| transport::set_link(world, pair, true)),
        1 => {
            if let Some(pair) = world.pick(&pairs) {
                transport::set_link(world, pair, world.chance(30));
            }
        }
        _ => {
            let side: Vec<bool> = world.nodes.iter().map(|_| world.chance(50)).collect();
            for (a, b) in pairs {
                transport::set_link(world, (a, b), side[a] == side[b]);
            }
        }
    }
}

/// Kills a node, or starts one that is dead.
async fn crash(world: &Rc<World>) -> Result<(), Fault> {
    let dead: Vec<usize> =
        (0..world.nodes.len()).filter(|node| !world.nodes[*node].is_alive()).collect();
    if let Some(node) = world.pick(&dead)
        && world.chance(60)
    {
        return revive(world, node).await;
    }
    let alive = world.alive();
    if let Some(node) = world.pick(&alive) {
        // In the middle of something, if possible.
        deeds::something(world, node);
        if world.chance(50) {
            tokio::time::sleep(world.between(0, 500)).await;
        }
        world.count(|tally| tally.crashes += 1);
        world.stop(node).await;
        if world.chance(40) {
            return revive(world, node).await;
        }
    }
    Ok(())
}

async fn revive(world: &Rc<World>, node: usize) -> Result<(), Fault> {
    world.start(node).await?;
    world.recover(node).await
}

/// Everything works again, for good.
async fn peace(world: &Rc<World>) -> Result<(), Fault> {
    // What people wanted before goes on for as long as a request may take.
    tokio::time::sleep(world.between(0, 5_000)).await;
    world.is_peace.set(true);
    let pairs = world.links.borrow().pairs();
    for pair in pairs {
        transport::set_link(world, pair, true);
    }
    for node in 0..world.nodes.len() {
        if !world.nodes[node].is_alive() {
            revive(world, node).await?;
        }
    }
    // Joins that people have begun take a minute at most.
    tokio::time::sleep(Duration::from_secs(90)).await;
    Ok(())
}

/// Waits until every node has what any other has.
async fn settle(world: &Rc<World>, when: &str) -> Result<(), Fault> {
    let rooms: Vec<OwnedRoomId> =
        world.rooms.borrow().iter().map(|room| room.room_id.clone()).collect();
    let patience = match world.plan.switches == Switches::default() {
        true => PEACE,
        false => PEACE_IN_VAIN,
    };
    let mut waited = Duration::ZERO;
    loop {
        let mut open = None;
        for room_id in &rooms {
            open = open.or(unsettled(world, room_id).await?);
        }
        let open = open.or(undelivered(world).await?);
        let Some(open) = open else { return Ok(()) };
        if waited >= patience {
            for room_id in &rooms {
                for (node, glance) in glances(world, room_id).await? {
                    tracing::info!(node, %room_id, ?glance, "in the end");
                }
            }
            return Err(format!("{waited:?} after {when}, {open}").into());
        }
        tokio::time::sleep(GLANCE).await;
        waited += GLANCE;
    }
}

/// What is still different between nodes in one room, in words.
async fn unsettled(world: &Rc<World>, room_id: &OwnedRoomId) -> Result<Option<String>, Fault> {
    let glances = glances(world, room_id).await?;
    let members: BTreeSet<_> = glances.keys().map(|node| world.nodes[*node].name.clone()).collect();
    let all_heads: BTreeSet<_> = glances.values().flat_map(|glance| glance.heads.clone()).collect();
    for (node, glance) in &glances {
        let (node, waiting) = (*node, &glance.waiting);
        if !waiting.is_empty() {
            return Ok(Some(format!("on node {node} in {room_id} {waiting}")));
        }
        let heads = all_heads.clone();
        let Some(hs) = world.nodes[node].hs() else { continue };
        let lacking = hs.store.read(move |snap| look::lacking(snap, &heads)).await?;
        if !lacking.is_empty() {
            return Ok(Some(format!("node {node} lacks {lacking:?} in {room_id}")));
        }
    }
    for (node, glance) in &glances {
        if glance.servers != members {
            let named = |names: &BTreeSet<ruma::OwnedServerName>| {
                names.iter().filter_map(|name| world.node_of(name)).collect::<Vec<_>>()
            };
            return Ok(Some(format!(
                "node {node} believes {:?} to be in {room_id}, where {:?} believe to be",
                named(&glance.servers),
                named(&members)
            )));
        }
    }
    Ok(None)
}

async fn undelivered(world: &Rc<World>) -> Result<Option<String>, Fault> {
    for node in &world.nodes {
        let Some(hs) = node.hs() else { continue };
        let left = hs.store.read(outbox::destinations).await?;
        if !left.is_empty() {
            let to: Vec<_> = left.iter().filter_map(|(name, _)| world.node_of(name)).collect();
            return Ok(Some(format!("the outbox of node {} waits for {to:?}", node.index)));
        }
    }
    Ok(None)
}

/// What each member node sees of a room.
pub(crate) async fn glances(
    world: &Rc<World>,
    room_id: &OwnedRoomId,
) -> Result<BTreeMap<usize, Glance>, Fault> {
    let mut glances = BTreeMap::new();
    for node in &world.nodes {
        let Some(hs) = node.hs() else { continue };
        let (name, room_id) = (node.name.clone(), room_id.clone());
        let read = hs.store.read(move |snap| look::glance(snap, &name, &room_id));
        if let Some(glance) = read.await? {
            glances.insert(node.index, glance);
        }
    }
    Ok(glances)
}

/// Everybody says one thing more, so that what each knows has successors; then one who knows all
/// of that.
async fn last_words(world: &Rc<World>) -> Result<(), Fault> {
    let rooms: Vec<OwnedRoomId> =
        world.rooms.borrow().iter().map(|room| room.room_id.clone()).collect();
    for room_id in &rooms {
        for node in glances(world, room_id).await?.into_keys() {
            deeds::last_word(world, node, room_id).await?;
        }
    }
    settle(world, "the first last words").await?;
    for room_id in &rooms {
        for node in glances(world, room_id).await?.into_keys() {
            if deeds::last_word(world, node, room_id).await? {
                break;
            }
        }
    }
    Ok(())
}

/// People scroll back to the beginning.
async fn scroll_back(world: &Rc<World>) -> Result<(), Fault> {
    for node in 0..world.nodes.len() {
        let Some(hs) = world.nodes[node].hs() else { continue };
        for room_id in world.rooms_of(node).await? {
            for _ in 0..MAX_BATCHES {
                if history::more(&hs, &room_id).await? != history::Progress::More {
                    break;
                }
            }
        }
    }
    Ok(())
}
