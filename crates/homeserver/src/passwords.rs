//! Passwords: hashed with argon2id, slowly and one at a time.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use argon2::{Algorithm, Argon2, Block, Params, PasswordHash, Version};
use data_encoding::BASE64_NOPAD;
use tokio::sync::Semaphore;

use crate::rng::Rng;

/// Memory of one hash, in KiB. Of the settings that OWASP calls equal, the one with the least
/// memory: a node at rest must be small.
const MEMORY_KIB: u32 = 7 * 1024;
/// Passes over the memory; belongs to [`MEMORY_KIB`].
const PASSES: u32 = 5;
/// Bytes of a hash.
const HASH_BYTES: usize = 32;
/// Log-ins that may wait for their turn. One hash takes some 30 ms, so the last one waits two
/// seconds.
const WAITING: usize = 64;
/// Longest password, in bytes; longer ones only cost time.
pub const MAX_PASSWORD_BYTES: usize = 1024;

/// One hash at a time, so that log-ins take one core at most.
static TURN: Semaphore = Semaphore::const_new(1);
/// The memory that a hash works in, kept for the next: allocating it anew on whichever thread comes
/// would leave as much of it in the allocator's pool of every thread.
static MEMORY: Mutex<Vec<Block>> = Mutex::new(Vec::new());
static QUEUE: Semaphore = Semaphore::const_new(WAITING);

/// A password as a person typed it. Never printed.
#[derive(Clone)]
pub struct Password(String);

impl Password {
    /// Takes a password.
    ///
    /// # Errors
    /// Refuses an empty one and one above [`MAX_PASSWORD_BYTES`].
    pub fn new(text: String) -> Result<Self, PasswordError> {
        if text.is_empty() || text.len() > MAX_PASSWORD_BYTES {
            return Err(PasswordError::Unusable);
        }
        Ok(Self(text))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Why a password could not be hashed or checked.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Empty or above [`MAX_PASSWORD_BYTES`].
    #[error("a password has 1 to {MAX_PASSWORD_BYTES} bytes")]
    Unusable,
    /// Too many log-ins wait already.
    #[error("too many log-ins at once")]
    Busy,
    /// The hash could not be computed, or the stored one is damaged.
    #[error("the password could not be hashed: {0}")]
    Hashing(String),
}

/// The PHC string of a password, with a fresh salt.
///
/// # Errors
/// [`PasswordError::Busy`], or the hashing failed.
pub(crate) async fn hash(rng: &Rng, password: Password) -> Result<String, PasswordError> {
    let salt: [u8; 16] = rng.bytes();
    in_turn(move || {
        let hash = compute(params()?, &password, &salt)?;
        let (salt, hash) = (BASE64_NOPAD.encode(&salt), BASE64_NOPAD.encode(&hash));
        Ok(format!("$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p=1${salt}${hash}"))
    })
    .await
}

/// Whether a password belongs to a PHC string. Without one, the same time is spent and the
/// answer is `false`, so that the time does not tell whether an account exists.
///
/// # Errors
/// [`PasswordError::Busy`], or the stored string is damaged.
pub(crate) async fn verify(password: Password, phc: Option<String>) -> Result<bool, PasswordError> {
    in_turn(move || {
        let Some(phc) = phc else {
            compute(params()?, &password, &[0; 16])?;
            return Ok(false);
        };
        let phc = PasswordHash::new(&phc)?;
        let (Some(salt), Some(expected)) = (phc.salt, phc.hash) else {
            return Err(HashingFailed("the stored hash is incomplete".to_owned()));
        };
        let hash = compute(Params::try_from(&phc)?, &password, salt.as_ref())?;
        Ok(same(&hash, expected.as_bytes()))
    })
    .await
}

fn params() -> Result<Params, argon2::Error> {
    Params::new(MEMORY_KIB, PASSES, 1, Some(HASH_BYTES))
}

fn compute(
    params: Params,
    password: &Password,
    salt: &[u8],
) -> Result<[u8; HASH_BYTES], argon2::Error> {
    let blocks = params.block_count();
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    // What an earlier hash left in the memory is overwritten by the next.
    let mut memory = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    if memory.len() < blocks {
        memory.resize(blocks, Block::new());
    }
    let mut hash = [0; HASH_BYTES];
    let working = &mut memory[..blocks];
    let done = hasher.hash_password_into_with_memory(
        password.0.as_bytes(),
        salt,
        &mut hash,
        &mut *working,
    );
    working.fill(Block::new());
    done.map(|()| hash)
}

/// Compares in a time that does not depend on where the two differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |found, (a, b)| found | (a ^ b)) == 0
}

/// Runs `work` on a thread for blocking work, when its turn comes.
async fn in_turn<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HashingFailed> + Send + 'static,
) -> Result<T, PasswordError> {
    let _waiting = QUEUE.try_acquire().map_err(|_| PasswordError::Busy)?;
    let _turn = TURN.acquire().await.map_err(|_| PasswordError::Busy)?;
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| PasswordError::Hashing(error.to_string()))?
        .map_err(|HashingFailed(error)| PasswordError::Hashing(error))
}

struct HashingFailed(String);

impl From<argon2::Error> for HashingFailed {
    fn from(error: argon2::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<argon2::password_hash::Error> for HashingFailed {
    fn from(error: argon2::password_hash::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<argon2::password_hash::phc::Error> for HashingFailed {
    fn from(error: argon2::password_hash::phc::Error) -> Self {
        Self(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_verifies_against_its_own_hash_only() {
        let rng = Rng::from_seed([1; 32]);
        let password = |text: &str| Password::new(text.to_owned()).unwrap();
        let phc = hash(&rng, password("correct horse")).await.unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=7168,t=5,p=1$"), "{phc}");
        assert!(verify(password("correct horse"), Some(phc.clone())).await.unwrap());
        assert!(!verify(password("battery staple"), Some(phc.clone())).await.unwrap());
        assert!(!verify(password("correct horse"), None).await.unwrap());
        assert_ne!(phc, hash(&rng, password("correct horse")).await.unwrap());
    }

    #[test]
    fn an_unusable_password_is_refused() {
        assert!(Password::new(String::new()).is_err());
        assert!(Password::new("x".repeat(MAX_PASSWORD_BYTES + 1)).is_err());
        assert_eq!(format!("{:?}", Password::new("secret".to_owned()).unwrap()), "Password(..)");
    }
}
