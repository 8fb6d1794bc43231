//! The store with real events in it, through its public interface.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod backup;
mod edges;
mod events;
mod heads;
mod lists;
mod memberships;
mod notes;
mod outbox;
mod peer_records;
mod pending;
mod shared_heads;
mod support;
mod users;
