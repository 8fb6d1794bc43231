//! The Server-Server API as HTTP/2 over streams: one long-lived connection per peer and direction.

pub(crate) mod client;
mod executor;
pub(crate) mod keys;
pub(crate) mod server;
#[cfg(test)]
mod tests;

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::body::Body;
use messagehub_homeserver::peers::RequestError;
use tokio::sync::oneshot;
use tower::{Service, ServiceExt, util::BoxCloneSyncService};

/// Any error, as bodies carry it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request that a peer sent, bounded in size and time.
pub type RequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// The router behind the network: a function from a peer's request to our response.
pub(crate) type PeerService =
    BoxCloneSyncService<http::Request<RequestBody>, http::Response<RequestBody>, Infallible>;

/// Requests in flight at once to one peer, and from one peer: measured to be enough to fill a
/// link (`rust-stack.md` 1.3: 64-way HTTP/2).
pub(crate) const MAX_CONCURRENT_REQUESTS: usize = 64;

/// Flow-control window of one request or response. It bounds what a slow reader makes us hold.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// Flow-control window of a whole HTTP/2 connection: what we hold at most for one peer below the
/// bodies themselves.
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;

/// Header bytes of one request: a URI of 8 KiB, `server_keys` of 8 KiB as 11 KiB of base64, and the
/// usual headers.
const MAX_HEADER_BYTES: u32 = 32 * 1024;

/// How often a connection with requests in flight is probed, and how long the answer may take.
const PROBE_INTERVAL: Duration = Duration::from_secs(20);

/// Where files are asked for.
const MEDIA_PATHS: [&str; 2] =
    ["/_matrix/federation/v1/media/", "/_matrix/federation/unstable/net.messagehub/media/"];

/// One request on its way to one peer.
#[derive(Debug)]
pub(crate) struct Job {
    request: http::Request<Bytes>,
    reply: Reply,
    /// How often a connection broke before the request left.
    broken: u8,
}

/// Gets the response, whatever its status.
type Reply = oneshot::Sender<Result<http::Response<Bytes>, RequestError>>;

impl Job {
    pub(crate) fn new(request: http::Request<Bytes>, reply: Reply) -> Self {
        Self { request, reply, broken: 0 }
    }

    /// Whether the answer is a file: it waits for a direct path, since it may be larger than all
    /// that a relay carries for us.
    pub(crate) fn is_bulk(&self) -> bool {
        let path = self.request.uri().path();
        MEDIA_PATHS.iter().any(|prefix| path.starts_with(prefix))
    }

    /// Gives the job up. Whoever asked may have gone; then nobody needs the reason.
    pub(crate) fn fail(self, why: RequestError) {
        let _ = self.reply.send(Err(why));
    }
}

/// Hides the service's types.
pub(crate) fn boxed<S, B>(service: S) -> PeerService
where
    S: Service<http::Request<RequestBody>, Response = http::Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let service = service.map_response(|response: http::Response<B>| {
        response.map(|body| body.map_err(Into::into).boxed_unsync())
    });
    BoxCloneSyncService::new(service)
}
