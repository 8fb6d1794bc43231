//! Sends requests to one peer: a session that opens its HTTP/2 connection when there is something
//! to send, keeps it, and opens it again when it broke or a better path is there. Requests that run
//! when the path changes end where they began.

use std::{collections::VecDeque, pin::pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Body, Incoming},
    client::conn::http2::{Builder, Connection, SendRequest},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use libp2p::PeerId;
use messagehub_homeserver::peers::{MAX_RESPONSE_BYTES, RequestError};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};
use tracing::debug;

use super::{
    CONNECTION_WINDOW, Job, MAX_CONCURRENT_REQUESTS, MAX_HEADER_BYTES, PROBE_INTERVAL,
    STREAM_WINDOW, executor::ConnectionTasks,
};
use crate::{
    metrics::{Metrics, RequestOutcome},
    streams::{OpenError, Opener, PeerStream},
};

/// Jobs that wait in one session; one more is refused.
pub(crate) const MAX_QUEUED_JOBS: usize = 256;

/// The longest that any request may take. Callers have shorter limits of their own; this one
/// covers a caller that forgot.
const REQUEST_LIMIT: Duration = Duration::from_secs(180);

/// A session without requests closes its stream after this time, before the server's side does,
/// so that no request meets a closing connection.
const SESSION_IDLE: Duration = Duration::from_secs(240);

/// How often a request is sent again when the connection broke before it left.
const MAX_BROKEN: u8 = 2;

/// Bytes of response bodies held at once, over all sessions: four of the largest.
const RESPONSE_BUDGET: usize = 4 * MAX_RESPONSE_BYTES;

/// The granule of the budget; permits are counted in it, since a semaphore counts in `u32`.
const GRANULE: usize = 16 * 1024;

type Sender = SendRequest<Full<Bytes>>;
type Link = Connection<TokioIo<Compat<PeerStream>>, Full<Bytes>, ConnectionTasks>;

/// Requests that run on one HTTP/2 connection; each gives its job back if it did not leave.
type Running = FuturesUnordered<BoxFuture<'static, Option<Job>>>;

/// What comes to a session from outside.
pub(crate) struct Wishes {
    /// The requests.
    pub(crate) jobs: mpsc::Receiver<Job>,
    /// Changes when there is a better path than before.
    pub(crate) path: watch::Receiver<u64>,
}

/// Connections that a better path replaced, while requests still run on them.
type Old = JoinSet<Vec<Job>>;

/// What all sessions share.
#[derive(Clone, Debug)]
pub(crate) struct Sessions {
    opener: Opener,
    metrics: Metrics,
    budget: Arc<Semaphore>,
}

impl Sessions {
    pub(crate) fn new(opener: Opener, metrics: Metrics) -> Self {
        Self { opener, metrics, budget: Arc::new(Semaphore::new(RESPONSE_BUDGET / GRANULE)) }
    }

    /// Runs the session with one peer until the channel of jobs closes.
    pub(crate) async fn run(self, peer: PeerId, mut wishes: Wishes) {
        let sessions = Arc::new(self);
        let mut unsent = VecDeque::new();
        let mut old = Old::new();
        loop {
            let first = match unsent.pop_front() {
                Some(job) => Some(job),
                None => tokio::select! {
                    job = wishes.jobs.recv() => match job {
                        Some(job) => Some(job),
                        None => return,
                    },
                    Some(ended) = old.join_next(), if !old.is_empty() => {
                        unsent.extend(ended.into_iter().flatten());
                        None
                    }
                },
            };
            let Some(mut first) = first else { continue };
            wishes.path.mark_unchanged();
            match sessions.connect(peer).await {
                Ok((sender, link)) => {
                    unsent
                        .extend(sessions.drive((sender, link), first, &mut wishes, &mut old).await);
                }
                // The connection that was chosen just ended; there may be another.
                Err(OpenError::Closed) if first.broken < MAX_BROKEN => {
                    first.broken += 1;
                    unsent.push_front(first);
                }
                Err(error) => {
                    debug!(%peer, %error, "no stream for a request");
                    sessions.finish(first, Err(refusal(error)));
                }
            }
        }
    }

    async fn connect(&self, peer: PeerId) -> Result<(Sender, Link), OpenError> {
        let stream = self.opener.open(peer).await?;
        let opening = Builder::new(ConnectionTasks::default())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADER_BYTES)
            .keep_alive_interval(PROBE_INTERVAL)
            .keep_alive_timeout(PROBE_INTERVAL)
            .handshake(TokioIo::new(stream.compat()))
            .await;
        opening.map_err(|_| OpenError::Closed)
    }

    /// Sends jobs over one connection until it ends, the session is idle, no job can come, or a
    /// better path is there. Gives back what was not sent.
    async fn drive(
        self: &Arc<Self>,
        (sender, mut link): (Sender, Link),
        first: Job,
        wishes: &mut Wishes,
        old: &mut Old,
    ) -> Vec<Job> {
        let mut unsent = Vec::new();
        let mut running = Running::new();
        running.push(self.clone().exchange(sender.clone(), first).boxed());
        let mut is_open = true;
        let mut jobs = Vec::new();
        let mut idle = pin!(tokio::time::sleep(SESSION_IDLE));
        while is_open || !running.is_empty() {
            let free = MAX_CONCURRENT_REQUESTS.saturating_sub(running.len());
            if running.is_empty() {
                idle.as_mut().reset(Instant::now() + SESSION_IDLE);
            }
            tokio::select! {
                ended = &mut link, if is_open => {
                    debug!(?ended, "a request connection ended");
                    is_open = false;
                }
                Some(exchange) = running.next(), if !running.is_empty() => {
                    unsent.extend(exchange);
                }
                Some(ended) = old.join_next(), if !old.is_empty() => {
                    for job in ended.into_iter().flatten() {
                        running.push(self.clone().exchange(sender.clone(), job).boxed());
                    }
                }
                count = wishes.jobs.recv_many(&mut jobs, free), if is_open && free > 0 => {
                    if count == 0 {
                        return Vec::new();
                    }
                    for job in jobs.drain(..) {
                        running.push(self.clone().exchange(sender.clone(), job).boxed());
                    }
                }
                Ok(()) = wishes.path.changed() => {
                    debug!(running = running.len(), "requests move to a better path");
                    old.spawn(finish_old(link, running));
                    return unsent;
                }
                () = &mut idle, if running.is_empty() => break,
            }
        }
        unsent
    }

    /// Sends one request and brings its response, unless whoever asked goes away. Gives the job back
    /// when the connection closed before the request left: it may be sent again.
    async fn exchange(self: Arc<Self>, mut sender: Sender, mut job: Job) -> Option<Job> {
        let request = absolute(job.request.clone());
        let asking = async {
            let response = sender.try_send_request(request).await.map_err(Failure::send)?;
            self.collect(response).await
        };
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(REQUEST_LIMIT, asking) => outcome,
            () = job.reply.closed() => {
                self.metrics.request(RequestOutcome::GivenUp);
                return None;
            }
        };
        match outcome {
            Ok(Err(Failure::Unsent)) if job.broken < MAX_BROKEN => {
                job.broken += 1;
                return Some(job);
            }
            Ok(Err(Failure::Unsent)) => self.finish(job, Err(RequestError::Unreachable)),
            Ok(Err(Failure::Refused(why))) => self.finish(job, Err(why)),
            Ok(Ok(response)) => self.finish(job, Ok(response)),
            Err(_) => self.finish(job, Err(RequestError::TimedOut)),
        }
        None
    }

    async fn collect(
        &self,
        response: http::Response<Incoming>,
    ) -> Result<http::Response<Bytes>, Failure> {
        let (head, mut body) = response.into_parts();
        if body.size_hint().lower() > MAX_RESPONSE_BYTES as u64 {
            return Err(Failure::Refused(RequestError::TooLarge));
        }
        let mut bytes = Bytes::new();
        let mut held: Option<OwnedSemaphorePermit> = None;
        let mut granules = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::Refused(broken(&error)))?;
            let Ok(data) = frame.into_data() else { continue };
            let size = bytes.len() + data.len();
            if size > MAX_RESPONSE_BYTES {
                return Err(Failure::Refused(RequestError::TooLarge));
            }
            let needed = size.div_ceil(GRANULE);
            if needed > granules {
                self.hold(&mut held, needed - granules)?;
                granules = needed;
            }
            bytes = joined(bytes, data);
        }
        Ok(http::Response::from_parts(head, bytes))
    }

    /// Takes more of the shared budget; it is given back when the response is handed over.
    fn hold(
        &self,
        held: &mut Option<OwnedSemaphorePermit>,
        granules: usize,
    ) -> Result<(), Failure> {
        let busy = || Failure::Refused(RequestError::Refused("too many large answers".into()));
        let wanted = u32::try_from(granules).map_err(|_| busy())?;
        let more = self.budget.clone().try_acquire_many_owned(wanted).map_err(|_| busy())?;
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }

    fn finish(&self, job: Job, outcome: Result<http::Response<Bytes>, RequestError>) {
        self.metrics.request(match &outcome {
            Ok(_) => RequestOutcome::Answered,
            Err(RequestError::Unreachable) => RequestOutcome::Unreachable,
            Err(RequestError::TimedOut) => RequestOutcome::TimedOut,
            Err(RequestError::TooLarge) => RequestOutcome::TooLarge,
            Err(RequestError::Refused(_)) => RequestOutcome::Refused,
        });
        // Whoever asked may have gone; then nobody needs the answer.
        let _ = job.reply.send(outcome);
    }
}

/// One piece after another. Small answers are of one piece, which is not copied.
fn joined(bytes: Bytes, next: Bytes) -> Bytes {
    if bytes.is_empty() {
        return next;
    }
    let mut bytes = BytesMut::from(bytes);
    bytes.extend_from_slice(&next);
    bytes.freeze()
}

/// Lets the requests on a connection end, and then the connection. Gives back what did not leave.
async fn finish_old(mut link: Link, mut running: Running) -> Vec<Job> {
    let mut unsent = Vec::new();
    let mut is_open = true;
    while !running.is_empty() {
        tokio::select! {
            ended = &mut link, if is_open => {
                debug!(?ended, "an old request connection ended");
                is_open = false;
            }
            Some(exchange) = running.next() => unsent.extend(exchange),
        }
    }
    unsent
}

/// Why an exchange brought no response.
enum Failure {
    Unsent,
    Refused(RequestError),
}

impl Failure {
    fn send<T>(mut refused: hyper::client::conn::TrySendError<T>) -> Self {
        if refused.take_message().is_some() {
            return Self::Unsent;
        }
        Self::Refused(broken(refused.error()))
    }
}

/// HTTP/2 wants a scheme and an authority. They mean nothing here, since the connection is the
/// authority, and the other side drops them again.
fn absolute(request: http::Request<Bytes>) -> http::Request<Full<Bytes>> {
    let (mut head, body) = request.into_parts();
    let mut uri = head.uri.into_parts();
    uri.scheme = Some(http::uri::Scheme::HTTP);
    uri.authority = Some(http::uri::Authority::from_static("peer"));
    uri.path_and_query.get_or_insert(http::uri::PathAndQuery::from_static("/"));
    head.uri = http::Uri::from_parts(uri).unwrap_or_default();
    http::Request::from_parts(head, Full::new(body))
}

fn broken(error: &hyper::Error) -> RequestError {
    if error.is_timeout() {
        RequestError::TimedOut
    } else if error.is_canceled() || error.is_closed() || error.is_incomplete_message() {
        RequestError::Unreachable
    } else {
        RequestError::Refused(error.to_string())
    }
}

fn refusal(error: OpenError) -> RequestError {
    match error {
        OpenError::NotConnected | OpenError::Closed => RequestError::Unreachable,
        OpenError::TimedOut => RequestError::TimedOut,
        OpenError::Unsupported | OpenError::Busy => RequestError::Refused(error.to_string()),
    }
}
