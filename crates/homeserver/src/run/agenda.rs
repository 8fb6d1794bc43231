//! The jobs of the run loop: each at most once at a time, a bounded number at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use ruma::{OwnedRoomId, OwnedServerName};

use super::perform;
use crate::Homeserver;

/// Jobs at once. Each waits for one server at a time; with fewer, a handful of servers that do not
/// answer would hold up the others.
const MAX_RUNNING: usize = 32;

/// Jobs that wait for their turn: one for each room and server of a node built for 5,000 rooms.
/// What does not fit comes again within a minute.
const MAX_WAITING: usize = 8_192;

/// Something to do with other servers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Job {
    /// Compare the heads of all shared rooms.
    Heads(OwnedServerName),
    /// Compare the heads of one room.
    RoomHeads(OwnedServerName, OwnedRoomId),
    /// Fetch what the waiting events of a room lack.
    Gap(OwnedRoomId),
    /// Deliver what waits for a server.
    Outbox(OwnedServerName),
    /// Bring joins to an end whose answer was lost.
    LostJoins,
    /// Fetch some history of a room.
    History(OwnedRoomId),
}

/// What is being done, and what comes next.
pub(super) struct Agenda {
    hs: Homeserver,
    running: FuturesUnordered<BoxFuture<'static, Job>>,
    /// The jobs in `running`.
    busy: BTreeSet<Job>,
    /// Jobs in `busy` that were asked for again meanwhile.
    again: BTreeSet<Job>,
    queue: VecDeque<Job>,
    /// The jobs in `queue`.
    waiting: BTreeSet<Job>,
    /// The newest entry of the outbox for each server when it was last tried.
    attempts: BTreeMap<OwnedServerName, i64>,
}

impl Agenda {
    /// Nothing to do yet.
    pub(super) fn new(hs: Homeserver) -> Self {
        Self {
            hs,
            running: FuturesUnordered::new(),
            busy: BTreeSet::new(),
            again: BTreeSet::new(),
            queue: VecDeque::new(),
            waiting: BTreeSet::new(),
            attempts: BTreeMap::new(),
        }
    }

    /// Whether the outbox has something for a server that was not there at the last look.
    pub(super) fn is_newer(&mut self, server: &OwnedServerName, newest: i64) -> bool {
        if self.attempts.len() >= MAX_WAITING {
            self.attempts.pop_first();
        }
        self.attempts.insert(server.clone(), newest).is_none_or(|before| before < newest)
    }

    /// Lets every server be tried again.
    pub(super) fn forget_attempts(&mut self) {
        self.attempts.clear();
    }

    /// Adds a job unless it waits already. One that is running runs once more afterwards, since
    /// what it looked at may have changed.
    pub(super) fn add(&mut self, job: Job) {
        if self.busy.contains(&job) {
            self.again.insert(job);
        } else if self.waiting.len() < MAX_WAITING && self.waiting.insert(job.clone()) {
            self.queue.push_back(job);
        }
        self.start();
    }

    /// Goes on with the jobs until one is done; without any it never ends.
    pub(super) async fn advance(&mut self) {
        let Some(done) = self.running.next().await else { return std::future::pending().await };
        self.busy.remove(&done);
        if self.again.remove(&done) {
            self.add(done);
        }
        self.start();
    }

    fn start(&mut self) {
        while self.running.len() < MAX_RUNNING
            && let Some(job) = self.queue.pop_front()
        {
            self.waiting.remove(&job);
            self.busy.insert(job.clone());
            let hs = self.hs.clone();
            self.running.push(Box::pin(async move {
                perform(hs, &job).await;
                job
            }));
        }
    }
}
