//! Requests and their answers, on their way between two nodes.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use messagehub_homeserver::peers::{PeerIdentity, RequestError};
use messagehub_protocol::wire::heads::HEADS_PATH;
use ruma::OwnedServerName;
use tokio::sync::oneshot;
use tower::ServiceExt as _;

use crate::{
    evil,
    trace::hash_of,
    transport::{self, hop_time, reaches},
    world::World,
};

/// Longer than any request waits.
const NEVER: Duration = Duration::from_secs(600);

type Reply = oneshot::Sender<Result<http::Response<Bytes>, RequestError>>;

/// Carries one request there, and its answer back. Where no connection stands and one can be made,
/// it is made first.
pub(crate) async fn carry(
    world: Rc<World>,
    from: usize,
    (destination, request): (OwnedServerName, http::Request<Bytes>),
    reply: Reply,
) {
    let path = request.uri().path().to_owned();
    let to = world.node_of(&destination);
    if let Some(near) = transport::is_near(&world, from, &destination)
        && world.links.borrow().connection(from, near).is_none()
    {
        let after = transport::finding(&world.way(from, near));
        tokio::time::sleep(after).await;
        transport::connect_for_now(&world, from, near);
    }
    let connection = to.and_then(|to| world.links.borrow().connection(from, to));
    let (Some(to), Some(connection)) = (to, connection) else {
        tokio::time::sleep(Duration::from_millis(1)).await;
        drop(reply.send(Err(RequestError::Unreachable)));
        return;
    };
    // Comparing heads is what a connection is kept for while it is of other use.
    let _asking = (path != HEADS_PATH).then(|| Asking::begin(&world, from, to));
    let connected = |world: &World| world.links.borrow().connection(from, to) == Some(connection);
    let asked = (request.method().as_str(), &path, hash_of(request.body()));
    world.note(("request", from, to, asked));
    let answer = match hop(&world, from, to).await {
        Ok(()) if world.script.switches.refuses(&path) => {
            world.count(|tally| tally.requests_refused += 1);
            Some(evil::refusal())
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
            tracing::trace!(body = %String::from_utf8_lossy(answer.body()), "said");
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

/// A request under way; it ends when this is dropped.
struct Asking {
    world: Rc<World>,
    between: (usize, usize),
}

impl Asking {
    fn begin(world: &Rc<World>, from: usize, to: usize) -> Self {
        world.links.borrow_mut().begin(from, to);
        Self { world: Rc::clone(world), between: (from, to) }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.world.links.borrow_mut().end(self.between.0, self.between.1);
    }
}

/// A message that did not arrive.
struct Lost;

async fn hop(world: &World, from: usize, to: usize) -> Result<(), Lost> {
    tokio::time::sleep(hop_time(world, from, to)).await;
    let share = world.script.net.requests_lost;
    let lost = !world.is_peace.get() && world.way(from, to).chance(share);
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
    let lie = evil::lie(world, to, &request);
    if let Some(evil::Lie::Instead(answer)) = lie {
        return Some(answer);
    }
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
    let answer = answer.await.ok()?;
    Some(match lie {
        Some(evil::Lie::Less) => evil::less(answer),
        _ => answer,
    })
}
