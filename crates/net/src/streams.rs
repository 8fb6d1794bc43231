//! Streams of the request protocol, `/messagehub/s2s/1`, over whatever connection is best.
//!
//! A behaviour of our own instead of the published helper crate, which drops inbound streams
//! silently under bursts, negotiates one open at a time per connection, and picks a random
//! connection. Here a stream is either delivered, or reset and counted.

pub(crate) mod behaviour;
pub(crate) mod handler;
mod live;
#[cfg(test)]
mod tests;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::{PeerId, Stream, StreamProtocol};
use tokio::sync::{mpsc, oneshot};

pub(crate) use behaviour::Behaviour;
use live::Guard;

/// The protocol under which Server-Server requests travel. D9.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/messagehub/s2s/1");

/// How long one open may take, negotiation included. Two round trips on a bad mobile link fit.
pub(crate) const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// The bounds of the stream behaviour.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamLimits {
    /// Inbound streams that wait for the event loop, over all peers. A burst of opens from every
    /// connected peer at once fits; beyond it a stream is reset.
    pub(crate) inbound_queue: usize,
    /// Inbound streams that live at once on one connection. A peer needs one, and a second while
    /// the first closes; the rest is slack.
    pub(crate) inbound_per_connection: usize,
    /// Outbound streams that live at once on one connection. Half of the above, so that a peer
    /// with our settings never refuses one of ours; further opens wait.
    pub(crate) outbound_per_connection: usize,
    /// Outbound negotiations at once on one connection: enough to hide a round trip.
    pub(crate) parallel_opens: usize,
    /// Opens that wait on one connection; one more is refused.
    pub(crate) pending_opens: usize,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            inbound_queue: 256,
            inbound_per_connection: 32,
            outbound_per_connection: 16,
            parallel_opens: 16,
            pending_opens: 1024,
        }
    }
}

/// Why a stream could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    /// There is no connection to the peer.
    #[error("the peer is not connected")]
    NotConnected,
    /// The connection closed before the stream was there.
    #[error("the connection closed")]
    Closed,
    /// The peer does not speak the protocol.
    #[error("the peer does not speak the protocol")]
    Unsupported,
    /// Too many opens wait already.
    #[error("too many streams are being opened")]
    Busy,
    /// It took longer than [`OPEN_TIMEOUT`].
    #[error("the stream was not opened in time")]
    TimedOut,
}

/// Gets the stream, or the reason why there is none.
type Reply = oneshot::Sender<Result<PeerStream, OpenError>>;

/// One wish for a stream, on its way to the behaviour.
#[derive(Debug)]
pub(crate) struct OpenRequest {
    peer: PeerId,
    reply: Reply,
}

/// Opens streams; clones share the way to the behaviour.
#[derive(Clone, Debug)]
pub(crate) struct Opener {
    requests: mpsc::Sender<OpenRequest>,
}

impl Opener {
    /// Opens a stream to a connected peer, on its newest direct connection if it has one.
    ///
    /// Dropping the future gives the stream up.
    pub(crate) async fn open(&self, peer: PeerId) -> Result<PeerStream, OpenError> {
        let opening = async {
            let (reply, stream) = oneshot::channel();
            let request = OpenRequest { peer, reply };
            self.requests.send(request).await.map_err(|_| OpenError::Closed)?;
            stream.await.unwrap_or(Err(OpenError::Closed))
        };
        tokio::time::timeout(OPEN_TIMEOUT, opening).await.unwrap_or(Err(OpenError::TimedOut))
    }
}

/// A stream that a peer opened.
#[derive(Debug)]
pub(crate) struct InboundStream {
    /// The authenticated peer.
    pub(crate) peer: PeerId,
    /// Its stream.
    pub(crate) stream: PeerStream,
}

/// A negotiated stream, counted against its connection's limit while it lives. Dropping it resets
/// it, unless it was closed.
#[derive(Debug)]
pub(crate) struct PeerStream {
    stream: Stream,
    _counted: Guard,
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
