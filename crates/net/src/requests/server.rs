//! Serves the requests of one peer on one stream: HTTP/2, bounded in number, size and time.

mod activity;
mod body;

use std::{
    collections::HashSet,
    convert::Infallible,
    pin::pin,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::{Body, Incoming},
    server::conn::http2::Builder,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use libp2p::PeerId;
use messagehub_homeserver::peers::{MAX_RESPONSE_BYTES, PeerIdentity};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::compat::FuturesAsyncReadCompatExt;
use tower::ServiceExt;
use tracing::debug;

use self::activity::{Activity, Look};
use super::{
    CONNECTION_WINDOW, MAX_CONCURRENT_REQUESTS, MAX_HEADER_BYTES, PROBE_INTERVAL, PeerService,
    RequestBody, STREAM_WINDOW, executor::ConnectionTasks,
};
use crate::{
    metrics::{Metrics, Refusal},
    streams::InboundStream,
};

/// The largest request body: a transaction of 50 events of 64 KiB with its EDUs and keys, and as
/// much again.
pub(crate) const MAX_REQUEST_BYTES: usize = 12 * 1024 * 1024;

/// Bytes of request bodies held at once for one stream: two of the largest.
const STREAM_BUDGET: usize = 2 * MAX_REQUEST_BYTES;

/// Bytes of request bodies held at once for all peers.
const TOTAL_BUDGET: usize = 256 * 1024 * 1024;

/// The largest request body of a peer whose server shares no room with us and is no contact. It
/// invites, joins, shows itself, or asks: the most is an invite with seven events of 64 KiB that show
/// the room, and its keys.
pub(crate) const MAX_STRANGERS_REQUEST_BYTES: usize = 640 * 1024;

/// Bytes of request bodies held at once for all of these: four of the largest.
const STRANGERS_BUDGET: usize = 4 * MAX_STRANGERS_REQUEST_BYTES;

/// Flow-control windows of a stranger's requests and of its whole connection. What a window lets in
/// is held before a body has its share of the budget.
const STRANGERS_STREAM_WINDOW: u32 = 64 * 1024;
const STRANGERS_CONNECTION_WINDOW: u32 = 128 * 1024;

/// Bytes of responses held at once for all peers, until the peers have taken them: four of the
/// largest. A peer that asks much and reads slowly makes others wait for large answers, and no
/// memory run out.
const RESPONSE_BUDGET: usize = 4 * MAX_RESPONSE_BYTES;

/// A response below this is not counted: requests in flight are bounded in number.
const SMALL_RESPONSE: u64 = 64 * 1024;

/// The granule of all budgets; permits are counted in it, since a semaphore counts in `u32`.
const GRANULE: usize = 4 * 1024;

/// The time limits of one served stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// From the start of a stream to its first request.
    pub(crate) first_request: Duration,
    /// Between requests. Longer than the client side's, so that the client closes first.
    pub(crate) idle: Duration,
    /// Between two pieces of a request body.
    pub(crate) body_piece: Duration,
    /// From the headers of a request to the last byte of its response that the peer took.
    pub(crate) request: Duration,
    /// How often the clock is looked at.
    pub(crate) look: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_request: Duration::from_secs(15),
            idle: Duration::from_secs(300),
            body_piece: Duration::from_secs(15),
            request: Duration::from_secs(180),
            look: Duration::from_secs(3),
        }
    }
}

/// What all served streams share.
#[derive(Clone)]
pub(crate) struct Server {
    service: PeerService,
    metrics: Metrics,
    budget: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    /// The peers of servers that share a room with us or are contacts.
    friends: Arc<RwLock<HashSet<PeerId>>>,
    responses: Arc<Semaphore>,
    patience: Patience,
}

/// One served stream.
struct Serving {
    server: Server,
    peer: PeerId,
    identity: PeerIdentity,
    budget: Arc<Semaphore>,
    activity: Activity,
}

/// The share of both budgets that one request body holds.
struct Held {
    /// The most bytes that it may have.
    most: usize,
    _permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Server {
    pub(crate) fn new(service: PeerService, metrics: Metrics, patience: Patience) -> Self {
        let budget = Arc::new(Semaphore::new(TOTAL_BUDGET / GRANULE));
        let strangers = Arc::new(Semaphore::new(STRANGERS_BUDGET / GRANULE));
        let responses = Arc::new(Semaphore::new(RESPONSE_BUDGET / GRANULE));
        let friends = Arc::default();
        Self { service, metrics, budget, strangers, friends, responses, patience }
    }

    /// Replaces the list of those who do not share the strangers' part.
    pub(crate) fn befriend(&self, friends: HashSet<PeerId>) {
        *self.friends.write().unwrap_or_else(PoisonError::into_inner) = friends;
    }

    fn is_friend(&self, peer: &PeerId) -> bool {
        self.friends.read().unwrap_or_else(PoisonError::into_inner).contains(peer)
    }

    /// Serves one stream until the peer closes it, or is idle or stuck for too long.
    pub(crate) async fn serve(self, inbound: InboundStream) {
        let peer = inbound.peer;
        let patience = self.patience;
        let metrics = self.metrics.clone();
        let activity = Activity::default();
        let builder = builder(self.is_friend(&peer));
        let serving = Arc::new(Serving {
            server: self,
            peer,
            identity: PeerIdentity { peer_id: peer.to_string() },
            budget: Arc::new(Semaphore::new(STREAM_BUDGET / GRANULE)),
            activity: activity.clone(),
        });
        let answer = service_fn(move |request| Arc::clone(&serving).answer(request).boxed());
        let io = TokioIo::new(inbound.stream.compat());
        let mut connection = pin!(builder.serve_connection(io, answer));
        let mut clock = tokio::time::interval(patience.look);
        loop {
            let refusal = tokio::select! {
                ended = &mut connection => {
                    debug!(%peer, ?ended, "a served stream ended");
                    return;
                }
                _ = clock.tick() => match activity.look(&patience) {
                    Look::Fine => continue,
                    Look::Idle => Refusal::Idle,
                    Look::Stuck => Refusal::Slow,
                },
            };
            debug!(%peer, ?refusal, "resetting a served stream");
            metrics.refuse(refusal);
            return;
        }
    }
}

fn builder(is_friend: bool) -> Builder<ConnectionTasks> {
    let (stream_window, connection_window) = match is_friend {
        true => (STREAM_WINDOW, CONNECTION_WINDOW),
        false => (STRANGERS_STREAM_WINDOW, STRANGERS_CONNECTION_WINDOW),
    };
    let mut builder = Builder::new(ConnectionTasks::default());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_CONCURRENT_REQUESTS as u32)
        .max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(stream_window)
        .initial_connection_window_size(connection_window)
        .max_send_buf_size(STREAM_WINDOW as usize)
        .keep_alive_interval(PROBE_INTERVAL)
        .keep_alive_timeout(PROBE_INTERVAL);
    builder
}

impl Serving {
    /// Answers one request: refuses what is too large before it is read, and lets the router do
    /// the rest.
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<RequestBody>, Infallible> {
        let in_flight = self.activity.enter();
        let response = match self.admit(&request).await {
            Ok(held) => self.ask_router(request, held).await,
            Err(status) => refused(status),
        };
        let (response, held) = self.hold(response);
        Ok(response.map(|body| body::in_pieces(body, in_flight, held)))
    }

    /// Reserves memory for a large response until the peer has taken it, or refuses it.
    fn hold(
        &self,
        response: Response<RequestBody>,
    ) -> (Response<RequestBody>, Option<OwnedSemaphorePermit>) {
        let size = response.body().size_hint().upper().unwrap_or(MAX_RESPONSE_BYTES as u64);
        if size < SMALL_RESPONSE {
            return (response, None);
        }
        let granules = u32::try_from(size.div_ceil(GRANULE as u64)).unwrap_or(u32::MAX);
        match self.server.responses.clone().try_acquire_many_owned(granules) {
            Ok(held) => (response, Some(held)),
            Err(_) => {
                self.server.metrics.refuse(Refusal::Busy);
                (refused(StatusCode::SERVICE_UNAVAILABLE), None)
            }
        }
    }

    /// Reserves memory for the body. A length that was not declared counts as the largest.
    async fn admit(&self, request: &Request<Incoming>) -> Result<Held, StatusCode> {
        let (most, shared) = match self.server.is_friend(&self.peer) {
            true => (MAX_REQUEST_BYTES, &self.server.budget),
            false => (MAX_STRANGERS_REQUEST_BYTES, &self.server.strangers),
        };
        let size = request.body().size_hint().upper();
        let bytes = size.unwrap_or(most as u64);
        if bytes > most as u64 {
            self.server.metrics.refuse(Refusal::BodyTooLarge);
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        let granules = u32::try_from(bytes.div_ceil(GRANULE as u64)).unwrap_or(u32::MAX);
        let try_reserve = |from: &Arc<Semaphore>| from.clone().try_acquire_many_owned(granules);
        if let (Ok(mine), Ok(shared)) = (try_reserve(&self.budget), try_reserve(shared)) {
            return Ok(Held { most, _permits: (mine, shared) });
        }
        let reserving = async {
            let mine = self.budget.clone().acquire_many_owned(granules).await?;
            let shared = shared.clone().acquire_many_owned(granules).await?;
            Ok::<_, tokio::sync::AcquireError>(Held { most, _permits: (mine, shared) })
        };
        let reserved = tokio::time::timeout(self.server.patience.body_piece, reserving).await;
        match reserved {
            Ok(Ok(held)) => Ok(held),
            Ok(Err(_)) | Err(_) => {
                self.server.metrics.refuse(Refusal::Busy);
                Err(StatusCode::SERVICE_UNAVAILABLE)
            }
        }
    }

    async fn ask_router(&self, request: Request<Incoming>, held: Held) -> Response<RequestBody> {
        self.server.metrics.served.inc();
        let (mut head, body) = request.into_parts();
        // As over HTTPS with HTTP/1.1: routers and signatures see path and query, nothing else.
        head.uri = head.uri.path_and_query().cloned().map_or_else(Uri::default, Uri::from);
        head.extensions.insert(self.identity.clone());
        let body = body::bounded(body, self.server.patience.body_piece, held);
        let request = Request::from_parts(head, body);
        let answering = oneshot(self.server.service.clone(), request);
        match tokio::time::timeout(self.server.patience.request, answering).await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => refused(StatusCode::GATEWAY_TIMEOUT),
        }
    }
}

/// Boxed outside of any async function: the compiler cannot see there that a boxed error's lifetime
/// is `'static`.
fn oneshot(
    service: PeerService,
    request: Request<RequestBody>,
) -> BoxFuture<'static, Result<Response<RequestBody>, Infallible>> {
    service.oneshot(request).boxed()
}

fn refused(status: StatusCode) -> Response<RequestBody> {
    let empty = Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync();
    let mut response = Response::new(empty);
    *response.status_mut() = status;
    response
}
