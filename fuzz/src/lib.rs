//! What the fuzz targets share.

use ruma::{MilliSecondsSinceUnixEpoch, UInt};

/// The time at which the frame of the corpus, which is the one of `docs/wire.md`, was made.
pub fn now() -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(UInt::new_saturating(1_750_000_000_000))
}
