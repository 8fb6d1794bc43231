//! Requests that wait until their server is reached: bounded, each with a deadline.

use std::collections::HashMap;

use libp2p::PeerId;
use ruma::{OwnedServerName, ServerName};
use tokio::time::{Duration, Instant};

use crate::requests::Job;

/// How long a request waits for a path: a search and a dial.
const REACH_TIMEOUT: Duration = Duration::from_secs(8);

/// Requests that wait for one server.
const MAX_JOBS_PER_SERVER: usize = 64;

/// Servers that are waited for at once.
const MAX_SERVERS: usize = 256;

/// How long a request for a file waits for a direct path: hole punching takes about two seconds and
/// is tried again after five.
const DIRECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests for files that wait at once, over all peers.
const MAX_BULK: usize = 256;

/// Requests for files that wait until their peer is reached without a relay.
#[derive(Debug, Default)]
pub(super) struct Bulk(Vec<(PeerId, Instant, Job)>);

impl Bulk {
    /// Lets a request wait; gives it back when there is no room.
    pub(super) fn push(&mut self, peer: PeerId, job: Job, now: Instant) -> Option<Job> {
        if self.0.len() >= MAX_BULK {
            return Some(job);
        }
        self.0.push((peer, now + DIRECT_TIMEOUT, job));
        None
    }

    /// Takes the requests that wait for this peer.
    pub(super) fn take(&mut self, peer: &PeerId) -> Vec<Job> {
        let of_peer = self.0.extract_if(.., |(other, ..)| other == peer);
        of_peer.map(|(_, _, job)| job).collect()
    }

    /// Takes the requests whose time is up.
    pub(super) fn late(&mut self, now: Instant) -> Vec<Job> {
        let late = self.0.extract_if(.., |(_, deadline, _)| *deadline <= now);
        late.map(|(_, _, job)| job).collect()
    }
}

/// The requests that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting(HashMap<OwnedServerName, Queue>);

#[derive(Debug)]
struct Queue {
    jobs: Vec<Job>,
    deadline: Instant,
}

impl Waiting {
    /// Lets a request wait; gives it back when there is no room.
    pub(super) fn push(&mut self, name: &ServerName, job: Job, now: Instant) -> Option<Job> {
        if self.0.len() >= MAX_SERVERS && !self.0.contains_key(name) {
            return Some(job);
        }
        let queue = self
            .0
            .entry(name.to_owned())
            .or_insert_with(|| Queue { jobs: Vec::new(), deadline: now + REACH_TIMEOUT });
        if queue.jobs.len() >= MAX_JOBS_PER_SERVER {
            return Some(job);
        }
        queue.jobs.push(job);
        None
    }

    /// Whether requests wait for this server.
    pub(super) fn contains(&self, name: &ServerName) -> bool {
        self.0.contains_key(name)
    }

    /// Takes the requests that wait for this server.
    pub(super) fn take(&mut self, name: &ServerName) -> Vec<Job> {
        self.0.remove(name).map(|queue| queue.jobs).unwrap_or_default()
    }

    /// The servers for which waiting is over: their time is up, or nothing is under way for them.
    pub(super) fn hopeless(
        &self,
        now: Instant,
        is_under_way: impl Fn(&ServerName) -> bool,
    ) -> Vec<OwnedServerName> {
        let is_hopeless = |(name, queue): &(&OwnedServerName, &Queue)| {
            queue.deadline <= now || !is_under_way(name)
        };
        self.0.iter().filter(is_hopeless).map(|(name, _)| name.clone()).collect()
    }
}
