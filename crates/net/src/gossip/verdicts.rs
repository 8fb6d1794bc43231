//! Frames that wait for the homeserver's verdict: a bounded set.

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use libp2p::{
    PeerId,
    gossipsub::{MessageAcceptance, MessageId},
};
use messagehub_homeserver::peers::Acceptance;
use tokio::sync::oneshot;

use super::settings::KEPT;

/// Frames that wait at once. At 256 KiB each gossipsub holds at most 256 MiB of them, at the usual
/// 2 KiB two.
const MAX_WAITING: usize = 1024;

/// What becomes of one frame.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) message: MessageId,
    pub(crate) source: PeerId,
    pub(crate) acceptance: MessageAcceptance,
}

/// The frames that wait.
#[derive(Default)]
pub(crate) struct Verdicts(FuturesUnordered<BoxFuture<'static, Verdict>>);

impl Verdicts {
    /// Whether one more frame may wait.
    pub(crate) fn has_room(&self) -> bool {
        self.0.len() < MAX_WAITING
    }

    /// Waits for the verdict on a frame. None in time, or none at all, counts as `Ignore`: gossipsub
    /// no longer has the frame then.
    pub(crate) fn wait(
        &mut self,
        message: MessageId,
        source: PeerId,
        reply: oneshot::Receiver<Acceptance>,
    ) {
        self.0.push(Box::pin(async move {
            let acceptance = match tokio::time::timeout(KEPT, reply).await {
                Ok(Ok(Acceptance::Accept)) => MessageAcceptance::Accept,
                Ok(Ok(Acceptance::Reject)) => MessageAcceptance::Reject,
                Ok(Ok(Acceptance::Ignore) | Err(_)) | Err(_) => MessageAcceptance::Ignore,
            };
            Verdict { message, source, acceptance }
        }));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next verdict.
    pub(crate) async fn next(&mut self) -> Option<Verdict> {
        self.0.next().await
    }
}
