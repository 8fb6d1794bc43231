//! Owners of access tokens in memory: every request of a client asks for one.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ruma::{OwnedDeviceId, OwnedUserId};

use super::{TokenHash, TokenOwner};

/// About 250 bytes each. A node has tens of devices; beyond this the rest is read from the database.
const MAX_OWNERS: usize = 4096;

/// Which tokens are good, as far as that was read and has not changed since.
///
/// A token that is revoked is forgotten before its revocation is acknowledged. An owner that
/// was read while a revocation was committed is not remembered: the generation has moved.
#[derive(Default)]
pub(crate) struct Owners(Mutex<Known>);

#[derive(Default)]
struct Known {
    generation: u64,
    owners: HashMap<TokenHash, TokenOwner>,
}

impl Owners {
    /// The owner of a token, if it is known.
    pub(super) fn get(&self, hash: &TokenHash) -> Option<TokenOwner> {
        self.lock().owners.get(hash).cloned()
    }

    /// To be asked before an owner is read, and given to [`Owners::remember`].
    pub(super) fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// Remembers an owner that was read after `generation` was asked for, unless something
    /// changed meanwhile.
    pub(super) fn remember(&self, generation: u64, hash: TokenHash, owner: &TokenOwner) {
        let mut known = self.lock();
        if known.generation == generation {
            if known.owners.len() >= MAX_OWNERS {
                known.owners.clear();
            }
            known.owners.insert(hash, owner.clone());
        }
    }

    /// Forgets what is known of a device, since its rows have changed.
    pub(crate) fn forget(&self, user_id: &OwnedUserId, device_id: &OwnedDeviceId) {
        let mut known = self.lock();
        known.generation += 1;
        known.owners.retain(|_, owner| owner.user_id != *user_id || owner.device_id != *device_id);
    }

    /// No method leaves the map half-changed.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Owners(..)")
    }
}

#[cfg(test)]
mod tests {
    use ruma::{MilliSecondsSinceUnixEpoch, UInt, owned_device_id, owned_user_id};

    use super::*;

    fn ann() -> TokenOwner {
        TokenOwner {
            user_id: owned_user_id!("@ann:node.example"),
            device_id: owned_device_id!("D"),
            last_seen_ts: MilliSecondsSinceUnixEpoch(UInt::new_wrapping(1)),
        }
    }

    #[test]
    fn what_changed_while_it_was_read_is_not_remembered() {
        let (owners, hash) = (Owners::default(), TokenHash([1; 32]));
        let before = owners.generation();
        owners.forget(&ann().user_id, &ann().device_id);
        owners.remember(before, hash, &ann());
        assert_eq!(owners.get(&hash), None);
        owners.remember(owners.generation(), hash, &ann());
        assert_eq!(owners.get(&hash), Some(ann()));
        owners.forget(&ann().user_id, &owned_device_id!("E"));
        assert_eq!(owners.get(&hash), Some(ann()));
        owners.forget(&ann().user_id, &ann().device_id);
        assert_eq!(owners.get(&hash), None);
    }

    #[test]
    fn it_is_bounded() {
        let owners = Owners::default();
        for n in 0..=MAX_OWNERS {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.to_le_bytes());
            owners.remember(0, TokenHash(hash), &ann());
        }
        assert!(owners.lock().owners.len() <= MAX_OWNERS);
    }
}
