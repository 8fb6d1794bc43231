//! What this node remembers: SQLite, one writer, positions.
//!
//! [`Store`] runs closures: [`Store::read`] on a [`Snapshot`], [`Store::write`] in a
//! [`Txn`]. Inside them, one module for each noun has the functions, with their SQL.

mod cache;
mod convert;
mod error;
mod ids;
mod migrations;
mod reader;
mod shared;
mod store;
mod txn;
mod writer;

pub mod account_data;
pub mod aliases;
pub mod backup;
pub mod backward_extremities;
pub mod changes;
pub mod cross_signing;
pub mod device_keys;
pub mod device_lists;
pub mod devices;
pub mod early_invites;
pub mod early_redactions;
pub mod edges;
pub mod event_times;
pub mod events;
pub mod extremities;
pub mod filters;
pub mod joins_under_way;
pub mod knocks;
pub mod media;
pub mod media_references;
pub mod memberships;
pub mod names;
pub mod one_time_keys;
pub mod openid;
pub mod outbox;
pub mod peer_book;
pub mod peer_records;
pub mod pending;
pub mod presence;
pub mod profiles;
pub mod published_rooms;
pub mod receipts;
pub mod room_state;
pub mod rooms;
pub mod server_keys;
pub mod shared_heads;
pub mod sharing;
pub mod to_device;
pub mod tokens;
pub mod txn_ids;
pub mod typing;
pub mod unread;
pub mod users;

pub use error::{OpenError, StoreError};
pub use events::{Standing, StoredEvent};
pub use ids::{EventNid, KeyNid, RoomNid, ServerNid, StateNid, StreamPos, UserNid};
pub use rooms::Room;
pub use store::{Counts, DATABASE_FILE, MEDIA_DIR, Mode, Store};
pub use txn::{Snapshot, Txn};
