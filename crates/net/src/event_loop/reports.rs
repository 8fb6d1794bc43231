//! What the homeserver is told: a bounded queue before a bounded channel, so that the event loop
//! never waits for the homeserver.

use std::collections::VecDeque;

use messagehub_homeserver::peers::Inbound;
use tokio::sync::mpsc;

use crate::metrics::Metrics;

/// Reports that wait and only say that heads are worth a comparison; the one of every minute covers
/// those that are dropped.
const MAX_HINTS: usize = 1_024;

/// Reports about peers that wait: the connection limit bounds them, so this many means that the
/// homeserver stands still.
const MAX_REPORTS: usize = 4_096;

/// The reports that wait.
pub(super) struct Reports {
    channel: mpsc::Sender<Inbound>,
    queue: VecDeque<Inbound>,
    metrics: Metrics,
}

impl Reports {
    pub(super) fn new(channel: mpsc::Sender<Inbound>, metrics: Metrics) -> Self {
        Self { channel, queue: VecDeque::new(), metrics }
    }

    /// Tells about a peer; it waits until the homeserver takes it.
    pub(super) fn about_peer(&mut self, report: Inbound) {
        self.push(report, MAX_REPORTS);
    }

    /// Tells about a subscription or a lost path, unless many wait already.
    pub(super) fn hint(&mut self, report: Inbound) {
        self.push(report, MAX_HINTS);
    }

    /// Hands over a frame now or never. Gives `false` when the homeserver is behind.
    pub(super) fn frame(&mut self, report: Inbound) -> bool {
        let is_taken = self.channel.try_send(report).is_ok();
        if !is_taken {
            self.metrics.reports_dropped.inc();
        }
        is_taken
    }

    pub(super) fn has_some(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Hands over the oldest report when there is room for it. May be dropped at any time.
    pub(super) async fn deliver(&mut self) {
        match self.channel.reserve().await {
            Ok(permit) => {
                if let Some(report) = self.queue.pop_front() {
                    permit.send(report);
                }
            }
            // The homeserver is gone; the closed channel of commands ends the event loop.
            Err(_) => self.queue.clear(),
        }
    }

    fn push(&mut self, report: Inbound, most: usize) {
        if self.queue.len() >= most {
            self.metrics.reports_dropped.inc();
            return;
        }
        self.queue.push_back(report);
    }
}
