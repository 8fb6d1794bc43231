//! Each signed request, and each frame, is taken once.

use std::{
    collections::{BTreeSet, HashMap},
    sync::atomic::{AtomicU64, Ordering},
};

use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName};

use super::{RequestError, RequestId, VerifiedOrigin};
use crate::{
    limits::{FRESHNESS_MS, MAX_REPLAY_ORIGINS, MAX_REPLAY_PER_ORIGIN},
    server_keys::{millis, timestamp},
    wire::signed::is_fresh,
};

/// Remembers what came within the time in which it would be fresh.
///
/// Bounded, and safe where the bound is met: of an origin that sends more than the filter can
/// remember, whatever is as old as what was forgotten is refused; and no origin is forgotten while
/// anything of it is fresh, so that others cannot push it out.
#[derive(Debug, Default)]
pub struct ReplayFilter {
    origins: HashMap<OwnedServerName, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// By time, so that the oldest can be dropped.
    ids: BTreeSet<(u64, RequestId)>,
    /// Nothing up to this time is taken any more.
    forgotten_to: Option<u64>,
}

/// The sender's side: times of which no two are alike, so that no two of its requests are.
#[derive(Debug, Default)]
pub struct UniqueTimes {
    last: AtomicU64,
}

impl UniqueTimes {
    /// The time now, or the first later millisecond that was not given yet.
    pub fn next(&self, now: MilliSecondsSinceUnixEpoch) -> MilliSecondsSinceUnixEpoch {
        let next = |last: u64| millis(now).max(last.saturating_add(1));
        let mut last = self.last.load(Ordering::Relaxed);
        loop {
            match self.last.compare_exchange_weak(
                last,
                next(last),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return timestamp(next(last)),
                Err(other) => last = other,
            }
        }
    }
}

impl ReplayFilter {
    /// Remembers a request whose signature was verified.
    ///
    /// # Errors
    ///
    /// [`RequestError::Replayed`] when it came before, [`RequestError::NotFresh`] when it is so old
    /// that it may have, [`RequestError::Busy`] when too many other origins are followed.
    pub fn check(
        &mut self,
        request: &VerifiedOrigin,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Result<(), RequestError> {
        self.check_id(request.server_name(), request.origin_server_ts(), request.id(), now)
    }

    /// As [`Self::check`], for whatever else has an origin, a time and an id: of a frame, the first
    /// bytes of its message id.
    ///
    /// # Errors
    ///
    /// As [`Self::check`].
    pub fn check_id(
        &mut self,
        origin: &ServerName,
        ts: MilliSecondsSinceUnixEpoch,
        id: RequestId,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Result<(), RequestError> {
        if !is_fresh(ts, now) {
            return Err(RequestError::NotFresh);
        }
        let oldest_fresh = millis(now).saturating_sub(FRESHNESS_MS);
        if let Some(seen) = self.origins.get_mut(origin) {
            return seen.insert(millis(ts), id, oldest_fresh);
        }
        if self.origins.len() >= MAX_REPLAY_ORIGINS {
            self.origins.retain(|_, seen| seen.is_fresh(oldest_fresh));
            if self.origins.len() >= MAX_REPLAY_ORIGINS {
                return Err(RequestError::Busy);
            }
        }
        self.origins.entry(origin.to_owned()).or_default().insert(millis(ts), id, oldest_fresh)
    }

    /// Whether [`Self::check_id`] would find that this came before: worth a look before a signature
    /// is verified for nothing.
    pub fn has_seen(
        &self,
        origin: &ServerName,
        ts: MilliSecondsSinceUnixEpoch,
        id: &RequestId,
    ) -> bool {
        self.origins.get(origin).is_some_and(|seen| seen.ids.contains(&(millis(ts), *id)))
    }
}

impl Seen {
    fn is_fresh(&self, oldest_fresh: u64) -> bool {
        let newest = self.ids.last().map(|(ts, _)| *ts).max(self.forgotten_to);
        newest.is_some_and(|ts| ts >= oldest_fresh)
    }

    fn insert(&mut self, ts: u64, id: RequestId, oldest_fresh: u64) -> Result<(), RequestError> {
        if self.forgotten_to.is_some_and(|forgotten| ts <= forgotten) {
            return Err(RequestError::NotFresh);
        }
        if !self.ids.insert((ts, id)) {
            return Err(RequestError::Replayed);
        }
        while self.ids.first().is_some_and(|(ts, _)| *ts < oldest_fresh) {
            self.ids.pop_first();
        }
        if self.ids.len() > MAX_REPLAY_PER_ORIGIN {
            self.forgotten_to = self.ids.pop_first().map(|(ts, _)| ts).max(self.forgotten_to);
        }
        Ok(())
    }
}
