//! Bodies on the server's side: requests bounded in size and pace, responses in small pieces.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep},
};

use super::{Held, activity::InFlight};
use crate::requests::{BoxError, RequestBody};

/// The body, at most as long as it was let in, each piece within `piece` of the one before. It holds
/// its share of the memory budget while it lives.
pub(super) fn bounded(body: Incoming, piece: Duration, held: Held) -> RequestBody {
    let inner = Limited::new(body, held.most);
    let waiting = Box::pin(tokio::time::sleep(piece));
    Paced { inner, piece, waiting, _held: held }.boxed_unsync()
}

/// Bytes that are handed to HTTP/2 at once: one frame of it.
const PIECE: usize = 16 * 1024;

/// The body in pieces, in flight until the peer took all but the last one. HTTP/2 would take a
/// large piece whole and hold it for as long as the peer likes, without anybody noticing.
///
/// It holds its share of the memory budget while it lives.
pub(super) fn in_pieces(
    body: RequestBody,
    in_flight: InFlight,
    held: Option<OwnedSemaphorePermit>,
) -> RequestBody {
    Pieces { inner: body, rest: Bytes::new(), _in_flight: in_flight, _held: held }.boxed_unsync()
}

struct Pieces {
    inner: RequestBody,
    rest: Bytes,
    _in_flight: InFlight,
    _held: Option<OwnedSemaphorePermit>,
}

impl Pieces {
    fn piece(&mut self) -> Frame<Bytes> {
        Frame::data(self.rest.split_to(self.rest.len().min(PIECE)))
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.piece())));
        }
        match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => Poll::Ready(Some(Ok(match frame.into_data() {
                Ok(data) => {
                    self.rest = data;
                    self.piece()
                }
                Err(other) => other,
            }))),
            end => Poll::Ready(end),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let inner = self.inner.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper().and_then(|upper| upper.checked_add(rest)) {
            hint.set_upper(upper);
        }
        hint
    }
}

struct Paced {
    inner: Limited<Incoming>,
    piece: Duration,
    waiting: Pin<Box<Sleep>>,
    _held: Held,
}

#[derive(Debug, thiserror::Error)]
#[error("the body comes too slowly")]
struct TooSlow;

impl Body for Paced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            let next = Instant::now() + self.piece;
            self.waiting.as_mut().reset(next);
            return Poll::Ready(frame);
        }
        ready!(self.waiting.as_mut().poll(cx));
        Poll::Ready(Some(Err(TooSlow.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
