//! The store with real events in it, through its public interface.

mod backup;
mod edges;
mod events;
mod memberships;
mod notes;
mod outbox;
mod pending;
mod support;
