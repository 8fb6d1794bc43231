//! The course of a run: trouble, peace, the last word.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use messagehub_homeserver::history;
use messagehub_store::outbox;
use ruma::{OwnedRoomId, OwnedServerName};

use crate::{
    Fault, crowd, deeds,
    dice::Dice,
    evil,
    look::{self, Glance},
    script::{Deed, Step, Switches, What},
    transport, verdict,
    world::World,
};

/// How long peace may take until everything is everywhere. Heads are compared every minute, a
/// broken connection is noticed after 15 seconds, and one repair may need several rounds.
const PEACE: Duration = Duration::from_secs(900);

/// With something switched off there is nothing to hope for after that long.
const PEACE_IN_VAIN: Duration = Duration::from_secs(200);

/// How often is looked whether peace has come; where there are many nodes a look costs more.
const GLANCE: Duration = Duration::from_secs(5);
const GLANCE_AT_MANY: Duration = Duration::from_secs(30);
const MANY: usize = 50;

/// How long people get to gather in the first rooms.
const GATHERING: Duration = Duration::from_secs(30);

/// Nodes that join at once whatever they may: the last ones, among which are those that are in no
/// room yet.
const JOINERS: usize = 100;

/// Batches of history that a node is asked for: more than any room here has.
const MAX_BATCHES: usize = 50;

/// Nodes that say a last word in each room. Of hundreds each would double what there is.
const LAST_SPEAKERS: usize = 12;

/// Rounds of last words at most.
const LAST_ROUNDS: usize = 8;

/// Plays a whole run.
pub(crate) async fn play(world: &Rc<World>) -> Result<(), Fault> {
    gather(world).await?;
    let from = world.start.elapsed();
    trouble(world).await?;
    world.trouble.set((from, world.start.elapsed()));
    peace(world).await?;
    settle(world, "peace").await?;
    // What people find when they scroll back may be what other events waited for.
    scroll_back(world).await?;
    settle(world, "people scrolled back").await?;
    last_words(world).await?;
    scroll_back(world).await?;
    verdict::judge(world).await
}

/// Everybody comes, and the first rooms are made.
async fn gather(world: &Rc<World>) -> Result<(), Fault> {
    crowd::seat(world).await?;
    for node in world.script.present() {
        world.start(node).await?;
    }
    let dice = Dice::of(("gather", world.script.seed));
    tokio::time::sleep(dice.between(0, 4_000)).await;
    for founder in &world.script.founders {
        if world.script.is_there(*founder) {
            deeds::something(world, (*founder, Deed::Create), dice.any());
        }
    }
    for _ in 0..2 {
        tokio::time::sleep(GATHERING / 2).await;
        for node in world.script.present().into_iter().rev().take(JOINERS).rev() {
            deeds::join_all(world, node);
        }
    }
    tokio::time::sleep(dice.between(0, 10_000)).await;
    Ok(())
}

/// What the script says.
async fn trouble(world: &Rc<World>) -> Result<(), Fault> {
    for Step { what, pause_ms } in &world.script.steps {
        if happen(world, what).await? {
            tokio::time::sleep(Duration::from_millis(*pause_ms)).await;
        }
    }
    Ok(())
}

/// Lets one thing happen; says whether it concerned anybody.
async fn happen(world: &Rc<World>, what: &What) -> Result<bool, Fault> {
    let is_there = |node: &usize| world.script.is_there(*node);
    match what {
        What::Deed { node, deed, seed } if is_there(node) => {
            deeds::something(world, (*node, *deed), *seed);
        }
        What::Misdeed { node, vice, seed } if world.script.has(*node, *vice) && is_there(node) => {
            let (here, at, seed) = (Rc::clone(world), (*node, *vice), *seed);
            world.spawn(*node, async move {
                if let Err(fault) = evil::misbehave(&here, at, &Dice::of(seed)).await {
                    here.fault(format!("a misdeed: {fault}"));
                }
            });
        }
        What::Cut(a, b) if is_there(a) && is_there(b) => {
            world.links.borrow_mut().cut(*a, *b);
            transport::relink(world);
        }
        What::Mend(a, b) if is_there(a) && is_there(b) => {
            world.links.borrow_mut().mend(*a, *b);
            transport::relink(world);
        }
        What::Split(side) => {
            world.links.borrow_mut().split(side.clone());
            transport::relink(world);
        }
        What::Heal => heal(world),
        What::Kill(node) if is_there(node) && world.nodes[*node].is_alive() => {
            world.count(|tally| tally.crashes += 1);
            world.stop(*node).await;
        }
        What::Start(node) if is_there(node) && !world.nodes[*node].is_alive() => {
            revive(world, *node).await?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn heal(world: &Rc<World>) {
    world.note("heal");
    world.links.borrow_mut().split(BTreeSet::new());
    transport::relink(world);
}

async fn revive(world: &Rc<World>, node: usize) -> Result<(), Fault> {
    world.start(node).await?;
    world.recover(node).await
}

/// Everything works again, for good.
async fn peace(world: &Rc<World>) -> Result<(), Fault> {
    // What people wanted before goes on for as long as a request may take.
    tokio::time::sleep(Dice::of(("peace", world.script.seed)).between(0, 5_000)).await;
    world.is_peace.set(true);
    heal(world);
    for node in world.script.present() {
        if !world.nodes[node].is_alive() {
            revive(world, node).await?;
        }
    }
    // Joins that people have begun take a minute at most.
    tokio::time::sleep(Duration::from_secs(90)).await;
    Ok(())
}

/// Waits until every honest node has what any other has.
async fn settle(world: &Rc<World>, when: &str) -> Result<(), Fault> {
    let patience = match world.script.switches == Switches::default() {
        true => PEACE,
        false => PEACE_IN_VAIN,
    };
    let glance = if world.nodes.len() >= MANY { GLANCE_AT_MANY } else { GLANCE };
    let mut waited = Duration::ZERO;
    loop {
        let Some(open) = open(world).await? else { return Ok(()) };
        if waited >= patience {
            for room_id in room_ids(world) {
                for (node, glance) in glances(world, &room_id).await?.into_iter().take(MANY) {
                    tracing::info!(node, %room_id, ?glance, "in the end");
                }
            }
            return Err(format!("{waited:?} after {when}, {open}").into());
        }
        tokio::time::sleep(glance).await;
        waited += glance;
    }
}

fn room_ids(world: &World) -> Vec<OwnedRoomId> {
    world.rooms.borrow().iter().map(|room| room.room_id.clone()).collect()
}

/// The first thing that is not as it must be in the end.
async fn open(world: &Rc<World>) -> Result<Option<String>, Fault> {
    for room_id in room_ids(world) {
        if let Some(open) = unsettled(world, &room_id).await? {
            return Ok(Some(open));
        }
    }
    undelivered(world).await
}

/// What is still different between nodes in one room, in words.
async fn unsettled(world: &Rc<World>, room_id: &OwnedRoomId) -> Result<Option<String>, Fault> {
    let glances = glances(world, room_id).await?;
    let members: BTreeSet<_> = glances.keys().map(|node| world.nodes[*node].name.clone()).collect();
    let all_heads: BTreeSet<_> = glances.values().flat_map(|glance| glance.heads.clone()).collect();
    for (node, glance) in &glances {
        if let Some(waiting) = waiting(world, room_id, (*node, glance)).await? {
            return Ok(Some(waiting));
        }
        let heads = all_heads.clone();
        let Some(hs) = world.nodes[*node].hs() else { continue };
        let lacking = hs.store.read(move |snap| look::lacking(snap, &heads)).await?;
        if !lacking.is_empty() {
            return Ok(Some(format!("node {node} lacks {lacking:?} in {room_id}")));
        }
    }
    let is_honest = |name: &&OwnedServerName| {
        world.node_of(name).is_some_and(|node| world.script.is_honest(node))
    };
    for (node, glance) in &glances {
        let believed: BTreeSet<_> = glance.servers.iter().filter(is_honest).cloned().collect();
        if believed != members {
            let named = |names: BTreeSet<&OwnedServerName>| {
                names.into_iter().filter_map(|name| world.node_of(name)).collect::<Vec<_>>()
            };
            return Ok(Some(format!(
                "node {node} believes {:?} too many and {:?} too few to be in {room_id}",
                named(believed.difference(&members).collect()),
                named(members.difference(&believed).collect())
            )));
        }
    }
    Ok(None)
}

/// What still waits on a node and could be had: what a hostile server made may rest on nothing.
async fn waiting(
    world: &World,
    room_id: &OwnedRoomId,
    (node, glance): (usize, &Glance),
) -> Result<Option<String>, Fault> {
    let is_honest = |server: &Option<OwnedServerName>| {
        let maker = server.as_ref().and_then(|server| world.node_of(server));
        maker.is_none_or(|maker| world.script.is_honest(maker))
    };
    let waiting: Vec<_> = glance
        .waiting
        .iter()
        .filter(|(_, server)| is_honest(server))
        .map(|(event_id, _)| event_id)
        .collect();
    let Some(hs) = world.nodes[node].hs().filter(|_| !waiting.is_empty()) else { return Ok(None) };
    let wanted = room_id.clone();
    let missing = hs.store.read(move |snap| look::missing(snap, &wanted)).await?;
    Ok(Some(format!("on node {node} in {room_id} {waiting:?} wait for {missing:?}")))
}

async fn undelivered(world: &Rc<World>) -> Result<Option<String>, Fault> {
    for node in world.honest() {
        let Some(hs) = node.hs() else { continue };
        let left = hs.store.read(outbox::destinations).await?;
        let to: Vec<_> = left
            .iter()
            .filter_map(|(name, _)| world.node_of(name))
            .filter(|to| world.script.is_there(*to))
            .collect();
        if !to.is_empty() {
            return Ok(Some(format!("the outbox of node {} waits for {to:?}", node.index)));
        }
    }
    Ok(None)
}

/// What each honest member node sees of a room.
pub(crate) async fn glances(
    world: &Rc<World>,
    room_id: &OwnedRoomId,
) -> Result<BTreeMap<usize, Glance>, Fault> {
    let mut glances = BTreeMap::new();
    for node in world.honest() {
        let Some(hs) = node.hs() else { continue };
        let (name, room_id) = (node.name.clone(), room_id.clone());
        let read = hs.store.read(move |snap| look::glance(snap, &name, &room_id));
        if let Some(glance) = read.await? {
            glances.insert(node.index, glance);
        }
    }
    Ok(glances)
}

/// Many say one thing more, so that what each knows has successors; then those who know of more
/// than others do, until all know the same: what one node does not let in by the state it has now,
/// another had before.
async fn last_words(world: &Rc<World>) -> Result<(), Fault> {
    let rooms = room_ids(world);
    for room_id in &rooms {
        let members: Vec<usize> = glances(world, room_id).await?.into_keys().collect();
        let every = members.len().div_ceil(LAST_SPEAKERS).max(1);
        for node in members.into_iter().step_by(every) {
            deeds::last_word(world, node, room_id).await?;
        }
    }
    settle(world, "the first last words").await?;
    for round in 0..LAST_ROUNDS {
        let mut is_one = true;
        for room_id in &rooms {
            let glances = glances(world, room_id).await?;
            let most = glances.values().map(|glance| glance.heads.len()).max().unwrap_or(1);
            let alike = glances.values().all(|one| one.heads.len() == 1)
                && glances.values().map(|glance| &glance.heads).collect::<BTreeSet<_>>().len() <= 1;
            if alike && round > 0 {
                continue;
            }
            is_one = false;
            for node in glances.iter().filter(|(_, g)| g.heads.len() == most).map(|(node, _)| node)
            {
                if deeds::last_word(world, *node, room_id).await? {
                    break;
                }
            }
        }
        if is_one {
            break;
        }
        settle(world, "a last word").await?;
    }
    Ok(())
}

/// People scroll back to the beginning.
async fn scroll_back(world: &Rc<World>) -> Result<(), Fault> {
    for node in world.honest() {
        let Some(hs) = node.hs() else { continue };
        for room_id in world.rooms_of(node.index).await? {
            for _ in 0..MAX_BATCHES {
                if history::more(&hs, &room_id).await? != history::Progress::More {
                    break;
                }
            }
        }
    }
    Ok(())
}
