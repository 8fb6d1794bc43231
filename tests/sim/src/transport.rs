//! The simulator as the transport: connections, requests and frames, as `net` would carry them.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use messagehub_homeserver::peers::{
    Acceptance, Inbound, NetStatus, Outbound, PeerIdentity, RequestError,
};
use ruma::{OwnedRoomId, OwnedServerName};
use tokio::sync::{mpsc, oneshot};
use tower::ServiceExt as _;

use crate::{links::Connection, trace::hash_of, world::World};

/// How long one hop takes, in milliseconds: a LAN at its best, a bad mobile network at its worst.
const HOP_MS: (u64, u64) = (1, 300);

/// How much later some frames come, in milliseconds, so that others overtake them.
const LATE_MS: (u64, u64) = (500, 8_000);

/// Of a hundred frames, those that come late, and those that come twice.
const LATE: u32 = 10;
const TWICE: u32 = 5;

/// How long a broken connection stands before anybody notices, in milliseconds.
const UNNOTICED_MS: (u64, u64) = (100, 15_000);

/// How long two nodes need to find each other once they can, in milliseconds.
const FINDING_MS: (u64, u64) = (50, 3_000);

/// Longer than any request waits.
const NEVER: Duration = Duration::from_secs(600);

type Reply = oneshot::Sender<Result<http::Response<Bytes>, RequestError>>;

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
                let task = carry(Rc::clone(&world), node, (destination, request), reply);
                world.spawn(node, task);
            }
            Outbound::Status { reply } => drop(reply.send(NetStatus::default())),
            // Every node is found by mDNS, and nobody is searched for.
            Outbound::Learn { .. } | Outbound::Advertise { .. } | Outbound::Find { .. } => {}
        }
    }
}

/// A node is there: whoever can reach it will find it.
pub(crate) fn attach(world: &Rc<World>, node: usize) {
    for other in 0..world.nodes.len() {
        if other != node {
            seek(world, node, other);
        }
    }
}

/// A node is gone: its connections end, which the others notice in time.
pub(crate) fn detach(world: &Rc<World>, node: usize) {
    for other in 0..world.nodes.len() {
        if other == node {
            continue;
        }
        let Some(connection) = world.links.borrow().connection(node, other) else { continue };
        fade(world, (node, other), connection);
    }
}

/// Cuts or mends a link.
pub(crate) fn set_link(world: &Rc<World>, (a, b): (usize, usize), is_up: bool) {
    if world.links.borrow().is_up(a, b) == is_up {
        return;
    }
    world.note(("link", a, b, is_up));
    world.links.borrow_mut().set_up((a, b), is_up);
    let connection = world.links.borrow().connection(a, b);
    match (is_up, connection) {
        (true, None) => seek(world, a, b),
        (false, Some(connection)) => {
            world.count(|tally| tally.cuts += 1);
            fade(world, (a, b), connection);
        }
        _ => {}
    }
}

/// Two nodes find each other after a while, if they can by then.
fn seek(world: &Rc<World>, a: usize, b: usize) {
    let after = world.between(FINDING_MS.0, FINDING_MS.1);
    let here = Rc::clone(world);
    world.fly(async move {
        tokio::time::sleep(after).await;
        connect(&here, a, b);
    });
}

/// A connection that carries nothing any more ends after a while, unless the link is back by then.
fn fade(world: &Rc<World>, (a, b): (usize, usize), connection: Connection) {
    let after = world.between(UNNOTICED_MS.0, UNNOTICED_MS.1);
    let here = Rc::clone(world);
    world.fly(async move {
        tokio::time::sleep(after).await;
        let stands = here.links.borrow().connection(a, b) == Some(connection);
        let works = here.links.borrow().is_up(a, b) && connection.lives == lives(&here, a, b);
        if stands && !works {
            sever(&here, a, b);
            // Whoever can reach the other still will look again.
            seek(&here, a, b);
        }
    });
}

/// Which lives two nodes are living, the smaller node's first.
fn lives(world: &World, a: usize, b: usize) -> (u32, u32) {
    let life = |node: usize| world.nodes[node].lives.get();
    (life(a.min(b)), life(a.max(b)))
}

fn connect(world: &Rc<World>, a: usize, b: usize) {
    let keys = |node: usize| world.nodes[node].hs().map(|hs| hs.identity.server_keys());
    let (Some(keys_a), Some(keys_b)) = (keys(a), keys(b)) else { return };
    let lives = lives(world, a, b);
    let stands = world.links.borrow().connection(a, b).is_some_and(|stands| stands.lives == lives);
    if stands || !world.links.borrow().is_up(a, b) {
        return;
    }
    // A node that died and came back before anybody noticed has no connection any more.
    sever(world, a, b);
    let connection = world.links.borrow_mut().connect((a, b), lives);
    world.note(("connected", a, b, connection.number));
    for (here, there, server_keys) in [(a, b, keys_b), (b, a, keys_a)] {
        let peer_id = world.nodes[there].peer_id.clone();
        let addresses = vec![format!("/ip4/10.0.0.{there}/tcp/4001")];
        report(world, here, Inbound::Connected { server_keys, peer_id, addresses });
    }
}

fn sever(world: &Rc<World>, a: usize, b: usize) {
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
    for other in 0..world.nodes.len() {
        let hears = other != node
            && world.links.borrow().connection(node, other).is_some()
            && listens(world, other, &room_id);
        if hears {
            let (here, room_id) = (Rc::clone(world), room_id.clone());
            let after = world.between(HOP_MS.0, HOP_MS.1);
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
}

fn listens(world: &World, node: usize, room_id: &OwnedRoomId) -> bool {
    world.with_life(node, |life| life.topics.contains(room_id)).unwrap_or_default()
}

/// Whether bytes get from one node to another now.
fn reaches(world: &World, from: usize, to: usize) -> bool {
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
    for other in 0..world.nodes.len() {
        let pair = (node.min(other), node.max(other));
        let neighbours = hash_of((room_id, pair)) % 100 < u64::from(world.plan.mesh);
        if other == node || other == from || !neighbours || !listens(world, other, room_id) {
            continue;
        }
        let copies = if world.chance(TWICE) { 2 } else { 1 };
        for copy in 0..copies {
            if !world.is_peace.get() && world.chance(world.plan.frames_lost) {
                world.count(|tally| tally.frames_lost += 1);
                continue;
            }
            let mut after = world.between(HOP_MS.0, HOP_MS.1);
            if world.chance(LATE) {
                after += world.between(LATE_MS.0, LATE_MS.1);
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
            Ok(Acceptance::Accept) if is_new => {
                world.count(|tally| tally.frames_forwarded += 1);
                publish(world, (to, from), &room_id, frame);
            }
            Ok(Acceptance::Reject) => {
                world.fault(format!("node {to} rejected a frame that node {from} sent"));
            }
            // An Ignore, or the node is dead.
            Ok(_) | Err(_) => {}
        }
    }
}

/// Carries one request there, and its answer back.
async fn carry(
    world: Rc<World>,
    from: usize,
    (destination, request): (OwnedServerName, http::Request<Bytes>),
    reply: Reply,
) {
    let path = request.uri().path().to_owned();
    let to = world.node_of(&destination);
    let connection = to.and_then(|to| world.links.borrow().connection(from, to));
    let (Some(to), Some(connection)) = (to, connection) else {
        tokio::time::sleep(world.between(HOP_MS.0, HOP_MS.1)).await;
        drop(reply.send(Err(RequestError::Unreachable)));
        return;
    };
    let connected = |world: &World| world.links.borrow().connection(from, to) == Some(connection);
    let asked = (request.method().as_str(), &path, hash_of(request.body()));
    world.note(("request", from, to, asked));
    let answer = match hop(&world, from, to).await {
        Ok(()) if world.plan.switches.refuses(&path) => {
            world.count(|tally| tally.requests_refused += 1);
            Some(refusal())
        }
        Ok(()) => serve(&world, (from, to), request).await,
        Err(Lost) => None,
    };
    let back = match answer {
        Some(answer) => hop(&world, to, from).await.map(|()| answer),
        None => Err(Lost),
    };
    match back {
        Ok(answer) if connected(&world) => {
            let said = (answer.status().as_u16(), hash_of(answer.body()));
            world.note(("answer", from, to, said));
            drop(reply.send(Ok(answer)));
        }
        _ => {
            // The connection's end is noticed, or the one who asked gives up.
            let mut reply = reply;
            let noticed = async {
                while connected(&world) {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            };
            tokio::select! {
                biased;
                () = reply.closed() => return,
                () = noticed => {}
                () = tokio::time::sleep(NEVER) => {}
            }
            drop(reply.send(Err(RequestError::Unreachable)));
        }
    }
}

/// A message that did not arrive.
struct Lost;

async fn hop(world: &World, from: usize, to: usize) -> Result<(), Lost> {
    tokio::time::sleep(world.between(HOP_MS.0, HOP_MS.1)).await;
    let lost = !world.is_peace.get() && world.chance(world.plan.requests_lost);
    if lost {
        world.count(|tally| tally.requests_lost += 1);
    }
    if lost || !reaches(world, from, to) { Err(Lost) } else { Ok(()) }
}

/// Lets a node answer a request. It goes on with it even when nobody waits for the answer.
async fn serve(
    world: &Rc<World>,
    (from, to): (usize, usize),
    mut request: http::Request<Bytes>,
) -> Option<http::Response<Bytes>> {
    let peer_id = world.nodes[from].peer_id.clone();
    request.extensions_mut().insert(PeerIdentity { peer_id });
    let router = world.with_life(to, |life| life.router.clone())?;
    let (done, answer) = oneshot::channel();
    world.count(|tally| tally.requests += 1);
    world.spawn(to, async move {
        let Ok(response) = router.oneshot(request.map(Full::new)).await;
        let (parts, body) = response.into_parts();
        if let Ok(body) = body.collect().await {
            drop(done.send(http::Response::from_parts(parts, body.to_bytes())));
        }
    });
    answer.await.ok()
}

fn refusal() -> http::Response<Bytes> {
    let mut response = http::Response::new(Bytes::from_static(
        br#"{"errcode":"M_UNRECOGNIZED","error":"Unrecognized request"}"#,
    ));
    *response.status_mut() = http::StatusCode::NOT_FOUND;
    response
}
