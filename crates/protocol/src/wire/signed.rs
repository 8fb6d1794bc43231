//! What signed requests and frames have in common.

use ruma::MilliSecondsSinceUnixEpoch;

use crate::{limits::FRESHNESS_MS, server_keys::millis};

/// Whether a time is within [`FRESHNESS_MS`] of our clock, on either side.
pub(super) fn is_fresh(ts: MilliSecondsSinceUnixEpoch, now: MilliSecondsSinceUnixEpoch) -> bool {
    millis(ts).abs_diff(millis(now)) <= FRESHNESS_MS
}
