//! Passwords: hashed with argon2id, slowly and a few at a time.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version};
use tokio::sync::Semaphore;

use crate::rng::Rng;

/// Memory of one hash, in KiB: OWASP's recommendation for argon2id with two passes.
const MEMORY_KIB: u32 = 19 * 1024;
/// Passes over the memory; belongs to [`MEMORY_KIB`].
const PASSES: u32 = 2;
/// Hashes computed at the same time: bounds the memory and the cores that log-ins can take.
const CONCURRENT: usize = 2;
/// Log-ins that may wait for their turn. One hash takes some 30 ms, so the last one waits a second.
const WAITING: usize = 64;
/// Longest password, in bytes; longer ones only cost time.
pub const MAX_PASSWORD_BYTES: usize = 1024;

static TURNS: Semaphore = Semaphore::const_new(CONCURRENT);
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
        let hash = hasher()?.hash_password_with_salt(password.0.as_bytes(), &salt)?;
        Ok(hash.to_string())
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
            hasher()?.hash_password_with_salt(password.0.as_bytes(), &[0; 16])?;
            return Ok(false);
        };
        let phc = PasswordHash::new(&phc)?;
        match hasher()?.verify_password(password.0.as_bytes(), &phc) {
            Ok(()) => Ok(true),
            Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

fn hasher() -> Result<Argon2<'static>, argon2::Error> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, None)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Runs `work` on a thread for blocking work, when its turn comes.
async fn in_turn<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HashingFailed> + Send + 'static,
) -> Result<T, PasswordError> {
    let _waiting = QUEUE.try_acquire().map_err(|_| PasswordError::Busy)?;
    let _turn = TURNS.acquire().await.map_err(|_| PasswordError::Busy)?;
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
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
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
