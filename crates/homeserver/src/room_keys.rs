//! The keys with which frames are sealed, ours and those of others (D10).
//!
//! Invariants: they are in memory only and never printed. Ours for a room is replaced before the
//! first frame with something that was written after a server was seen to leave the room, and is
//! given to none but its members. A key of another server is what its id says, whoever told it.

mod asking;
mod audience;
mod held;
mod own;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use messagehub_protocol::wire::sealed::{RoomKey, RoomKeyId, SealedError};
use messagehub_store::{StateNid, StoreError};
use ruma::{OwnedServerName, RoomId, ServerName};
use zeroize::Zeroizing;

use self::{asking::Asking, audience::Look, held::HeldKeys, own::OwnKeys};
use crate::{
    Homeserver,
    buckets::{Buckets, Pace},
    peers::Counters,
    rate::Limited,
};

pub(crate) use self::{asking::find_or_ask, audience::has_applied};

/// How often one server may ask us for keys: after everybody changed theirs, one for each member
/// whose frames come by; a member of many rooms that comes back asks in all of them at once.
const GIVING: Pace = Pace { per_second: 50.0, burst: 500.0 };

/// Servers whose asking is counted at once: more than there are connections.
const MAX_ASKERS: usize = 1_024;

/// Looks at a room before a frame is given up. Each further one means that another frame of ours
/// was sealed for another state of the same room in between.
const MAX_LOOKS: usize = 16;

/// All keys.
pub(crate) struct RoomKeys(Mutex<Tables>);

struct Tables {
    own: OwnKeys,
    held: HeldKeys,
    asking: Asking,
    givings: Buckets<OwnedServerName>,
}

/// Why a frame of ours could not be sealed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    /// We are not in the room.
    #[error("this server is not in the room")]
    UnknownRoom,
    /// Its state changes faster than we can look.
    #[error("the room changes too fast")]
    Restless,
    /// It is no frame.
    #[error(transparent)]
    Sealed(#[from] SealedError),
    /// Our own database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Seals a frame with our key for a room, for those who are in it: a frame is never sealed with a key
/// that somebody holds who was seen to leave before this was called.
///
/// # Errors
/// See [`SealError`].
pub(crate) async fn seal(
    hs: &Homeserver,
    room_id: &RoomId,
    frame: &[u8],
) -> Result<Vec<u8>, SealError> {
    for _ in 0..MAX_LOOKS {
        let basis = hs.peers.room_keys().tables().own.basis(room_id, hs.clock.now_ms());
        let (us, wanted) = (hs.server_name().to_owned(), room_id.to_owned());
        let look = hs.store.read(move |snap| audience::look(snap, &us, &wanted, basis)).await?;
        if let Some(key) = fit(hs, room_id, look.ok_or(SealError::UnknownRoom)?) {
            return Ok(key.seal(room_id, hs.rng.bytes(), frame)?);
        }
    }
    Err(SealError::Restless)
}

/// The key that fits what was seen of a room, made if need be; `None` when the look is stale.
fn fit(hs: &Homeserver, room_id: &RoomId, look: Look) -> Option<Arc<RoomKey>> {
    let make = |after| {
        Counters::add(&hs.peers.counters().room_keys_made, 1);
        let secret = Zeroizing::new(hs.rng.bytes());
        RoomKey::new(hs.server_name().to_owned(), room_id, secret, after)
    };
    hs.peers.room_keys().tables().own.fit(room_id, look, hs.clock.now_ms(), make)
}

impl RoomKeys {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        // No table has an invariant that a panic elsewhere could break.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key by which a frame of a room is opened, if it is here.
    pub(crate) fn find(
        &self,
        room_id: &RoomId,
        key_id: RoomKeyId,
        now_ms: u64,
    ) -> Option<Arc<RoomKey>> {
        let mut tables = self.tables();
        tables.own.find(room_id, key_id).or_else(|| tables.held.find(room_id, key_id, now_ms))
    }

    /// Our key for a room, where it is known to be right for the members of a state: then it is
    /// right for events after which the room has that state, and nobody need look.
    pub(crate) fn for_members_of(
        &self,
        room_id: &RoomId,
        state: StateNid,
        now_ms: u64,
    ) -> Option<Arc<RoomKey>> {
        self.tables().own.for_members_of(room_id, state, now_ms)
    }

    /// Keeps a key of another server.
    pub(crate) fn hold(&self, room_id: &RoomId, key: RoomKey, now_ms: u64) {
        self.tables().held.insert(room_id, key, now_ms);
    }

    /// Whether a server may ask for keys once more.
    ///
    /// # Errors
    /// [`Limited`] when it asks too often.
    pub(crate) fn may_ask(&self, server: &ServerName, now_ms: u64) -> Result<(), Limited> {
        self.tables().givings.check(&server.to_owned(), now_ms)
    }

    /// Forgets what no fresh frame can need any more.
    pub(crate) fn sweep(&self, now_ms: u64) {
        let mut tables = self.tables();
        tables.own.sweep(now_ms);
        tables.held.sweep(now_ms);
        tables.asking.sweep(now_ms);
    }

    /// Forgets all keys of a room that we are no longer in.
    pub(crate) fn forget(&self, room_id: &RoomId) {
        let mut tables = self.tables();
        tables.own.forget(room_id);
        tables.held.forget(room_id);
    }
}

impl Default for RoomKeys {
    fn default() -> Self {
        Self(Mutex::new(Tables {
            own: OwnKeys::default(),
            held: HeldKeys::default(),
            asking: Asking::default(),
            givings: Buckets::new(GIVING, MAX_ASKERS),
        }))
    }
}

impl fmt::Debug for RoomKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RoomKeys(..)")
    }
}

#[cfg(test)]
mod tests;
