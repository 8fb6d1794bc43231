//! The jobs of the run loop: each at most once at a time, a bounded number at once.

use std::collections::{BTreeSet, VecDeque};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedServerName, OwnedUserId};

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
    /// Compare the heads of those rooms of which a server has something for us.
    Ahead(OwnedServerName),
    /// Fetch what the waiting events of a room lack.
    Gap(OwnedRoomId),
    /// Deliver what waits for a server.
    Outbox(OwnedServerName),
    /// Bring joins to an end whose answer was lost, or that were begun before this time.
    LostJoins(MilliSecondsSinceUnixEpoch),
    /// Fetch some history of a room.
    History(OwnedRoomId),
    /// Fetch the devices of a user.
    Devices(OwnedUserId),
    /// Tell a server who is here.
    Presence(OwnedServerName),
}

/// What is being done, and what comes next.
pub(super) struct Agenda {
    hs: Homeserver,
    running: FuturesUnordered<BoxFuture<'static, (Job, Vec<OwnedServerName>)>>,
    /// The jobs in `running`.
    busy: BTreeSet<Job>,
    /// Jobs in `busy` that were asked for again meanwhile.
    again: BTreeSet<Job>,
    queue: VecDeque<Job>,
    /// The jobs in `queue`.
    waiting: BTreeSet<Job>,
    /// Servers that may lack what gaps brought; they are compared with when no gap is being
    /// filled.
    news_for: BTreeSet<OwnedServerName>,
    /// What the transport was told last of whom to keep near.
    trusted: BTreeSet<OwnedServerName>,
    /// Counts the looks for members without a path.
    turn: usize,
    /// When this run began.
    started: MilliSecondsSinceUnixEpoch,
}

impl Agenda {
    /// Nothing to do yet.
    pub(super) fn new(hs: Homeserver) -> Self {
        Self {
            started: hs.clock.now(),
            hs,
            running: FuturesUnordered::new(),
            busy: BTreeSet::new(),
            again: BTreeSet::new(),
            queue: VecDeque::new(),
            waiting: BTreeSet::new(),
            news_for: BTreeSet::new(),
            trusted: BTreeSet::new(),
            turn: 0,
        }
    }

    /// What the transport was told last of whom to keep near.
    pub(super) fn trusted(&mut self) -> &mut BTreeSet<OwnedServerName> {
        &mut self.trusted
    }

    /// The job for joins that nobody waits for any more, those of the run before among them.
    pub(super) fn lost_joins(&self) -> Job {
        Job::LostJoins(self.started)
    }

    /// A number that is another one each time.
    pub(super) fn next_turn(&mut self) -> usize {
        self.turn = self.turn.wrapping_add(1);
        self.turn
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

    /// As [`Self::add`], for a job that looks by itself whether there is more when it comes to its
    /// end.
    pub(super) fn add_unless_busy(&mut self, job: Job) {
        if !self.busy.contains(&job) {
            self.add(job);
        }
    }

    /// Goes on with the jobs until one is done; without any it never ends.
    pub(super) async fn advance(&mut self) {
        let Some((done, news_for)) = self.running.next().await else {
            return std::future::pending().await;
        };
        self.busy.remove(&done);
        self.news_for.extend(news_for);
        if self.again.remove(&done) {
            self.add(done);
        }
        let is_gap = |job: &Job| matches!(job, Job::Gap(_));
        if !self.busy.iter().chain(&self.waiting).any(is_gap) {
            for server in std::mem::take(&mut self.news_for) {
                self.add(Job::Heads(server));
            }
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
                let news_for = perform(hs, &job).await;
                (job, news_for)
            }));
        }
    }
}
