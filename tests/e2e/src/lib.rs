//! The rig of the end-to-end tests: the real binary, network namespaces, and a way for a client
//! in the test process to talk to a server inside a namespace.

pub mod client;
pub mod http;
pub mod namespace;
pub mod nat;
pub mod node;

use std::time::Duration;

/// How long anything may take before a test gives up. Generous: the machine may be busy, and no
/// test waits this long when all is well.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `look` gives something.
///
/// # Panics
///
/// When that takes longer than [`DEADLINE`].
pub async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = within(DEADLINE, look).await;
    found.unwrap_or_else(|| panic!("{what}: not within {DEADLINE:?}"))
}

/// Waits until `look` gives something, and no longer than this.
pub async fn within<T>(limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let mut pause = tokio::time::interval(Duration::from_millis(50));
    let search = async {
        loop {
            pause.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    tokio::time::timeout(limit, search).await.ok()
}
