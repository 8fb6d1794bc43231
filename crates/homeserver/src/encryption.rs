//! What end-to-end encryption between clients needs of their servers: the keys of devices, keys for
//! one use, cross-signing, and knowing whose devices changed. Nothing here can decrypt anything.
//!
//! Spec: Client-Server API, "End-to-End Encryption"; Server-Server API, "End-to-End Encryption" and
//! "Device Management".

pub mod claim;
pub mod cross_signing;
pub mod device_lists;
mod merge;
pub mod query;
pub mod signatures;
pub mod upload;

use std::time::Duration;

/// How long other servers may take to give keys, whatever the client says: the specification
/// recommends 10 seconds.
const MAX_TIMEOUT: Duration = Duration::from_secs(10);

/// Servers asked at once for one client. Each waits for its own network.
const MAX_SERVERS_AT_ONCE: usize = 64;

/// Largest key object, in bytes: a device's keys with a dozen signatures take 2 KiB.
const MAX_KEY_BYTES: usize = 8 * 1024;

fn timeout(wanted: Option<Duration>) -> Duration {
    wanted.unwrap_or(MAX_TIMEOUT).min(MAX_TIMEOUT)
}
