//! The simulator as the transport: connections, subscriptions and frames, as `net` would carry
//! them. Requests are in `requests`.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use messagehub_homeserver::peers::{Acceptance, Inbound, NetStatus, Outbound};
use ruma::{OwnedRoomId, ServerName};
use tokio::sync::{mpsc, oneshot};

use crate::{dice::Dice, links::Connection, requests, script::Vice, trace::hash_of, world::World};

/// How much later some frames come, in milliseconds, so that others overtake them.
const LATE_MS: (u64, u64) = (500, 8_000);

/// How long a broken connection stands before anybody notices, in milliseconds.
const UNNOTICED_MS: (u64, u64) = (100, 15_000);

/// How long two nodes need to find each other once they can, in milliseconds.
const FINDING_MS: (u64, u64) = (50, 3_000);

/// Up to this many nodes are one LAN, in which all find all; where there are more, a node looks for
/// a few of each room.
const LAN: usize = 16;

/// Nodes of a room that a new one looks for: those next to it in an order of their own, which keeps
/// the room connected, and as many by chance.
const LOOKED_FOR: usize = 2;

/// Up to this many nodes, whoever has asked another one something stays connected with it; where there
/// are more, for as long as they ask. `net` closes connections beyond 128 that are of no use.
const ALL_KEPT: usize = 128;

/// How long a connection that nobody looked for is kept without being of use.
const IDLE: Duration = Duration::from_secs(30);

/// Does what a node asks of the transport, as long as it lives.
pub(crate) async fn pump(world: Rc<World>, node: usize, mut outbound: mpsc::Receiver<Outbound>) {
    while let Some(command) = outbound.recv().await {
        match command {
            Outbound::Gossip { room_id, frame } => {
                let id = hash_of((&room_id, &frame));
                world.with_life(node, |life| life.seen.insert(id));
                publish(&world, (node, node), &room_id, frame);
            }
            Outbound::Join { room_id } => subscribe(&world, node, room_id),
            Outbound::Leave { room_id } => {
                world.note(("leave", node, &room_id));
                world.with_life(node, |life| life.topics.remove(&room_id));
                world.ledger.borrow_mut().lose(node, room_id);
            }
            Outbound::Request { destination, request, reply } => {
                let task = requests::carry(Rc::clone(&world), node, (destination, request), reply);
                world.spawn(node, task);
            }
            Outbound::Status { reply } => drop(reply.send(NetStatus::default())),
            // Addresses do not change here, names are not searched for, and nobody is relayed by
            // the transport itself.
            Outbound::Learn { .. }
            | Outbound::Advertise { .. }
            | Outbound::Find { .. }
            | Outbound::Records { .. }
            | Outbound::Trusted { .. } => {}
        }
    }
}

/// A node is there: whoever looks for it and can reach it will find it.
pub(crate) fn attach(world: &Rc<World>, node: usize) {
    let others = match world.nodes.len() <= LAN {
        true => (0..world.nodes.len()).filter(|other| *other != node).collect(),
        false => world.links.borrow().wanted_of(node),
    };
    others.into_iter().for_each(|other| want(world, node, other));
}

/// A node is gone: its connections end, which the others notice in time.
pub(crate) fn detach(world: &Rc<World>, node: usize) {
    let neighbours = world.links.borrow().neighbours(node);
    for other in neighbours {
        let Some(connection) = world.links.borrow().connection(node, other) else { continue };
        fade(world, (node, other), connection);
    }
}

/// After links were cut or mended: what stands and does not work any more ends, and who looks for
/// each other tries again.
pub(crate) fn relink(world: &Rc<World>) {
    let (connections, wanted) = {
        let links = world.links.borrow();
        (links.connections(), links.wanted())
    };
    for ((a, b), connection) in connections {
        if !world.links.borrow().is_up(a, b) {
            world.count(|tally| tally.cuts += 1);
            fade(world, (a, b), connection);
        }
    }
    for (a, b) in wanted {
        let links = world.links.borrow();
        if links.is_up(a, b) && links.connection(a, b).is_none() {
            drop(links);
            seek(world, a, b);
        }
    }
}

fn want(world: &Rc<World>, a: usize, b: usize) {
    if world.script.may_meet(a, b) {
        world.links.borrow_mut().want(a, b);
        seek(world, a, b);
    }
}

/// How long two nodes need to find each other this time.
pub(crate) fn finding(way: &Dice) -> Duration {
    way.between(FINDING_MS.0, FINDING_MS.1)
}

/// Two nodes find each other after a while, if they can by then.
fn seek(world: &Rc<World>, a: usize, b: usize) {
    let after = finding(&world.way(a, b));
    let here = Rc::clone(world);
    world.fly(async move {
        tokio::time::sleep(after).await;
        connect(&here, a, b);
    });
}

/// A connection that carries nothing any more ends after a while, unless the link is back by then.
fn fade(world: &Rc<World>, (a, b): (usize, usize), connection: Connection) {
    let after = world.way(a, b).between(UNNOTICED_MS.0, UNNOTICED_MS.1);
    let here = Rc::clone(world);
    world.fly(async move {
        tokio::time::sleep(after).await;
        let stands = here.links.borrow().connection(a, b) == Some(connection);
        let works = here.links.borrow().is_up(a, b) && connection.lives == lives(&here, a, b);
        if stands && !works {
            sever(&here, a, b);
            let is_wanted = here.links.borrow().is_wanted(a, b);
            // Whoever can reach the other still will look again.
            if is_wanted {
                seek(&here, a, b);
            }
        }
    });
}

/// Which lives two nodes are living, the smaller node's first.
fn lives(world: &World, a: usize, b: usize) -> (u32, u32) {
    let life = |node: usize| world.nodes[node].lives.get();
    (life(a.min(b)), life(a.max(b)))
}

/// Connects two nodes if that is possible now.
pub(crate) fn connect(world: &Rc<World>, a: usize, b: usize) {
    let keys = |node: usize| world.nodes[node].hs().map(|hs| hs.identity.server_keys());
    let (Some(keys_a), Some(keys_b)) = (keys(a), keys(b)) else { return };
    let lives = lives(world, a, b);
    let stands = world.links.borrow().connection(a, b).is_some_and(|stands| stands.lives == lives);
    if stands || !world.script.may_meet(a, b) || !world.links.borrow().is_up(a, b) {
        return;
    }
    // A node that died and came back before anybody noticed has no connection any more.
    sever(world, a, b);
    let connection = world.links.borrow_mut().connect(a, b, lives);
    world.note(("connected", a, b, connection.number));
    for (here, there, server_keys) in [(a, b, keys_b), (b, a, keys_a)] {
        let peer_id = world.nodes[there].peer_id.clone();
        let addresses = vec![format!("/ip4/10.0.{}.{}/tcp/4001", there / 256, there % 256)];
        report(world, here, Inbound::Connected { server_keys, peer_id, addresses });
    }
}

/// Connects two nodes that look for each other because one wants to ask the other something.
pub(crate) fn connect_for_now(world: &Rc<World>, a: usize, b: usize) {
    connect(world, a, b);
    if world.nodes.len() <= ALL_KEPT || world.links.borrow().is_wanted(a, b) {
        return;
    }
    let Some(connection) = world.links.borrow().connection(a, b) else { return };
    let here = Rc::clone(world);
    world.fly(async move {
        let mut before = None;
        loop {
            tokio::time::sleep(IDLE).await;
            let (used, is_same) = {
                let links = here.links.borrow();
                (links.used(a, b), links.connection(a, b) == Some(connection))
            };
            if !is_same || here.links.borrow().is_wanted(a, b) {
                return;
            }
            if used.open == 0 && before == Some(used) {
                sever(&here, a, b);
                return;
            }
            before = Some(used);
        }
    });
}

/// Ends a connection, if there is one, and tells both ends.
pub(crate) fn sever(world: &Rc<World>, a: usize, b: usize) {
    if !world.links.borrow_mut().disconnect(a, b) {
        return;
    }
    world.note(("disconnected", a, b));
    for (here, there) in [(a, b), (b, a)] {
        let server = world.nodes[there].name.clone();
        report(world, here, Inbound::Disconnected { server });
    }
}

fn subscribe(world: &Rc<World>, node: usize, room_id: OwnedRoomId) {
    world.note(("subscribe", node, &room_id));
    world.with_life(node, |life| life.topics.insert(room_id.clone()));
    if world.nodes.len() > LAN {
        look_for_members(world, node, &room_id);
    }
    let neighbours = world.links.borrow().neighbours(node);
    for other in neighbours.into_iter().filter(|other| listens(world, *other, &room_id)) {
        let (here, room_id) = (Rc::clone(world), room_id.clone());
        let after = hop_time(world, node, other);
        world.fly(async move {
            tokio::time::sleep(after).await;
            if !reaches(&here, node, other) {
                return;
            }
            let (peer_id, server) =
                (here.nodes[node].peer_id.clone(), Some(here.nodes[node].name.clone()));
            report(&here, other, Inbound::Subscribed { peer_id, server, room_id });
        });
    }
}

/// Looks for some of those who listen to a room already.
fn look_for_members(world: &Rc<World>, node: usize, room_id: &OwnedRoomId) {
    let place = |other: usize| hash_of((room_id, other));
    let mut listening: Vec<usize> = (0..world.nodes.len())
        .filter(|other| *other != node && listens(world, *other, room_id))
        .collect();
    listening.sort_by_key(|other| place(*other).wrapping_sub(place(node)));
    let dice = Dice::of(("members", world.script.seed, room_id, node));
    let by_chance = dice.some(&listening, LOOKED_FOR);
    listening.truncate(LOOKED_FOR);
    listening.into_iter().chain(by_chance).for_each(|other| want(world, node, other));
}

fn listens(world: &World, node: usize, room_id: &OwnedRoomId) -> bool {
    world.with_life(node, |life| life.topics.contains(room_id)).unwrap_or_default()
}

/// How long one hop takes this time.
pub(crate) fn hop_time(world: &World, from: usize, to: usize) -> Duration {
    world.way(from, to).between(1, world.script.net.hop_ms)
}

/// Whether bytes get from one node to another now.
pub(crate) fn reaches(world: &World, from: usize, to: usize) -> bool {
    let links = world.links.borrow();
    let connection = links.connection(from, to);
    let stands = connection.is_some_and(|stands| stands.lives == lives(world, from, to));
    stands && links.is_up(from, to) && world.nodes[to].is_alive()
}

fn report(world: &World, node: usize, report: Inbound) {
    let taken = world.with_life(node, |life| life.inbound.try_send(report).is_ok());
    if taken == Some(false) {
        world.fault(format!("node {node} takes no reports any more"));
    }
}

/// Sends a frame on from a node to its neighbours in the room, but not back to `from`.
fn publish(world: &Rc<World>, (node, from): (usize, usize), room_id: &OwnedRoomId, frame: Bytes) {
    let net = &world.script.net;
    let neighbours = world.links.borrow().neighbours(node);
    for other in neighbours {
        let pair = (node.min(other), node.max(other));
        // Where connections are few, all of them carry frames.
        let meshed =
            world.nodes.len() > LAN || hash_of((room_id, pair)) % 100 < u64::from(net.mesh);
        if other == from || !meshed || !listens(world, other, room_id) {
            continue;
        }
        let way = world.way(node, other);
        let copies = if way.chance(net.twice) { 2 } else { 1 };
        for copy in 0..copies {
            if !world.is_peace.get() && way.chance(net.frames_lost) {
                world.count(|tally| tally.frames_lost += 1);
                continue;
            }
            let mut after = hop_time(world, node, other);
            if way.chance(net.late) {
                after += way.between(LATE_MS.0, LATE_MS.1);
            }
            let hop = Hop { from: node, to: other, room_id: room_id.clone(), frame: frame.clone() };
            let here = Rc::clone(world);
            world.fly(async move {
                tokio::time::sleep(after).await;
                hop.arrive(&here, copy > 0).await;
            });
        }
    }
}

/// A frame on its way from one node to the next.
struct Hop {
    from: usize,
    to: usize,
    room_id: OwnedRoomId,
    frame: Bytes,
}

impl Hop {
    async fn arrive(self, world: &Rc<World>, is_copy: bool) {
        let Self { from, to, room_id, frame } = self;
        if !reaches(world, from, to) || !listens(world, to, &room_id) {
            return;
        }
        let id = hash_of((&room_id, &frame));
        let is_new = world.with_life(to, |life| life.seen.insert(id)).unwrap_or_default();
        // gossipsub forgets what it has seen after a while: then the homeserver sees it again.
        if !is_new && !is_copy {
            return;
        }
        world.count(|tally| match is_new {
            true => tally.frames_delivered += 1,
            false => tally.frames_repeated += 1,
        });
        world.note(("frame", from, to, id));
        let (reply, verdict) = oneshot::channel();
        let source = world.nodes[from].peer_id.clone();
        let arrived =
            Inbound::Frame { source, room_id: room_id.clone(), frame: frame.clone(), reply };
        report(world, to, arrived);
        match verdict.await {
            Ok(Acceptance::Accept) if is_new && !world.script.has(to, Vice::Withholds) => {
                world.count(|tally| tally.frames_forwarded += 1);
                publish(world, (to, from), &room_id, frame);
            }
            Ok(Acceptance::Reject) if world.script.is_honest(from) => {
                world.fault(format!("node {to} rejected a frame that node {from} sent"));
            }
            // An Ignore, a hostile sender, or the node is dead.
            Ok(_) | Err(_) => {}
        }
    }
}

/// The node of a server, if one can be connected to it at once: on a LAN all are, sooner or later.
pub(crate) fn is_near(world: &World, node: usize, name: &ServerName) -> Option<usize> {
    let to = world.node_of(name)?;
    let can = world.nodes.len() > LAN
        && to != node
        && world.nodes[to].is_alive()
        && world.script.may_meet(node, to)
        && world.links.borrow().is_up(node, to);
    can.then_some(to)
}
