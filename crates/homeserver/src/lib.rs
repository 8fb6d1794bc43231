//! What this node does: the use-cases of a Matrix homeserver.

pub mod account_data;
pub mod accounts;
pub mod capabilities;
pub mod clock;
pub mod deactivate;
pub mod federation;
pub mod filters;
pub mod homeserver;
pub mod media;
pub mod passwords;
pub mod peers;
pub mod profiles;
pub mod push_rules;
pub mod rate;
pub mod register;
pub mod rng;
pub mod sessions;
pub mod sso;
pub mod uia;
pub mod user_directory;

pub mod append;
mod buckets;
pub mod client_event;
mod digests;
mod early_invites;
mod edus;
mod emit;
pub mod encryption;
pub mod gap;
pub mod heads;
pub mod history;
mod ignored;
pub mod ingest;
mod invite_permission;
pub mod members;
pub mod messages;
pub mod openid;
pub mod outbox;
mod outliers;
mod policy;
pub mod presence;
pub mod read_markers;
pub mod receipts;
mod records;
pub mod remote_join;
mod room_keys;
pub mod rooms;
pub mod run;
pub mod send;
pub mod server;
pub mod sync;
pub mod tags;
mod timeline;
pub mod to_device;
pub mod typing;
pub mod unread;
pub mod view;
pub mod visibility;
pub use homeserver::{
    DEFAULT_MAX_UPLOAD_BYTES, Homeserver, Identity, IdentityParts, Limits, Parts, RateLimits,
    Registration,
};
pub use messagehub_store::StoreError;

#[cfg(any(test, feature = "test-support"))]
pub mod testing;
