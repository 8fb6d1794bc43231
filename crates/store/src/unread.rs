//! What was worked out about unread messages, kept in memory: counting is done when a client
//! asks, and goes on from where it stopped the last time.
//!
//! Nothing here is needed for correctness. What is missing or stale is counted again.

use std::{collections::BTreeMap, fmt, sync::Arc};

use ruma::{OwnedEventId, OwnedUserId, push::Ruleset};

use crate::{RoomNid, StreamPos, cache::Cache};

/// Pairs of user and room that are remembered: the rooms of a household several times over, at
/// about 200 bytes each.
const MAX_TALLIES: usize = 16_384;

/// Rule sets that are remembered; each is about 20 KB.
const MAX_RULESETS: usize = 256;

/// A number of unread messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that the user is to be notified of.
    pub notifications: u32,
    /// Those among them that are highlighted.
    pub highlights: u32,
}

/// The unread messages of one user in one room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// The newest receipt that was taken into account.
    pub receipts: StreamPos,
    /// The newest position that was taken into account.
    pub until: StreamPos,
    /// Messages outside threads.
    pub main: Counts,
    /// Messages in threads, by the thread's root.
    pub threads: BTreeMap<OwnedEventId, Counts>,
}

/// Tallies and rule sets, bounded.
pub struct UnreadCache {
    tallies: Cache<(RoomNid, OwnedUserId), Arc<Tally>>,
    rulesets: Cache<OwnedUserId, (StreamPos, Arc<Ruleset>)>,
}

impl Default for UnreadCache {
    fn default() -> Self {
        Self { tallies: Cache::new(MAX_TALLIES), rulesets: Cache::new(MAX_RULESETS) }
    }
}

impl UnreadCache {
    /// The tally of a user in a room.
    pub fn tally(&self, key: &(RoomNid, OwnedUserId)) -> Option<Arc<Tally>> {
        self.tallies.get(key)
    }

    /// Remembers a tally.
    pub fn keep_tally(&self, key: (RoomNid, OwnedUserId), tally: Arc<Tally>) {
        self.tallies.insert(key, tally, 1);
    }

    /// The push rules of a user as they were written at `pos`.
    pub fn ruleset(&self, user_id: &OwnedUserId, pos: StreamPos) -> Option<Arc<Ruleset>> {
        self.rulesets.get(user_id).filter(|(at, _)| *at == pos).map(|(_, rules)| rules)
    }

    /// Remembers the push rules of a user as they were written at `pos`.
    pub fn keep_ruleset(&self, user_id: OwnedUserId, pos: StreamPos, rules: Arc<Ruleset>) {
        self.rulesets.insert(user_id, (pos, rules), 1);
    }
}

impl fmt::Debug for UnreadCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnreadCache").finish_non_exhaustive()
    }
}
