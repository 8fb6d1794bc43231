//! Registration by clients, where the configuration opens it.
//!
//! Spec: Client-Server API, "POST /register".

use messagehub_store::{StoreError, users};
use ruma::OwnedUserId;

use crate::{
    Homeserver,
    accounts::{self, CreateError},
    homeserver::Registration,
    passwords::{Password, PasswordError},
    rate::{Limited, RateKey},
    sessions::{self, LoggedIn, LoginError, NewDevice},
    uia::{self, Challenge, Proof},
};

/// Characters of a user name that we choose.
const GENERATED_NAME_LENGTH: usize = 10;

/// The bucket that all registrations share: a node is a household's, and the hashing of
/// passwords is the most that a stranger can make it do.
const EVERYBODY: &str = "registration";

/// What a client asks for.
#[derive(Debug)]
pub struct NewAccount {
    /// The wanted localpart; `None` lets us choose.
    pub username: Option<String>,
    /// The password. An account that comes over the network must have one.
    pub password: Option<Password>,
    /// The device to log in, if any.
    pub device: Option<NewDevice>,
    /// The proof that the client may register.
    pub proof: Option<Proof>,
}

/// The outcome of a registration.
#[derive(Debug)]
pub enum Registered {
    /// The account exists; nobody is logged in.
    Account(OwnedUserId),
    /// The account exists, and a device is logged in.
    LoggedIn(LoggedIn),
}

/// Why nobody was registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// This node's owner makes the accounts.
    #[error("registration is closed on this node")]
    Closed,
    /// A proof is needed, or the one given is wrong.
    #[error("registration needs a proof")]
    Challenge(Challenge),
    /// An account without a password could not be logged in to again.
    #[error("a password is needed")]
    PasswordMissing,
    /// Too many registrations.
    #[error(transparent)]
    Limited(#[from] Limited),
    /// No such account can be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The account exists, and the device could not be logged in.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Registers an account.
///
/// # Errors
/// See [`RegisterError`].
pub async fn register(hs: &Homeserver, new: NewAccount) -> Result<Registered, RegisterError> {
    if hs.limits.registration == Registration::Closed {
        return Err(RegisterError::Closed);
    }
    let localpart = match new.username {
        // The name is checked first, so that nobody answers a challenge for a taken name.
        Some(username) => available(hs, &username).await.map(|()| username)?,
        None => hs.rng.alphanumeric(GENERATED_NAME_LENGTH).to_ascii_lowercase(),
    };
    uia::check_registration(&hs.rng, &hs.limits.registration, new.proof.as_ref())
        .map_err(RegisterError::Challenge)?;
    let password = new.password.ok_or(RegisterError::PasswordMissing)?;
    hs.limits.rates.check(RateKey::Login(EVERYBODY.to_owned()), hs.clock.now())?;
    let user_id = accounts::create(hs, &localpart, Some(password)).await?;
    match new.device {
        None => Ok(Registered::Account(user_id)),
        Some(device) => Ok(Registered::LoggedIn(sessions::open(hs, user_id, device).await?)),
    }
}

/// Whether a user name could be registered.
///
/// Spec: Client-Server API, "GET /register/available".
///
/// # Errors
/// [`RegisterError::Closed`], or what is wrong with the name.
pub async fn available(hs: &Homeserver, username: &str) -> Result<(), RegisterError> {
    if hs.limits.registration == Registration::Closed {
        return Err(RegisterError::Closed);
    }
    let user_id = accounts::user_id(username, hs.server_name())?;
    if hs.store.read(move |snap| users::exists(snap, &user_id)).await? {
        return Err(CreateError::Taken.into());
    }
    Ok(())
}

/// Whether a registration token would be accepted.
///
/// Spec: Client-Server API, "GET /register/m.login.registration_token/validity".
///
/// # Errors
/// [`RegisterError::Limited`]: a token must not be guessed here.
pub fn is_token_valid(hs: &Homeserver, token: &str) -> Result<bool, RegisterError> {
    hs.limits.rates.check(RateKey::Login(EVERYBODY.to_owned()), hs.clock.now())?;
    let proof = Proof::RegistrationToken(token.to_owned());
    let asks_for_token = matches!(hs.limits.registration, Registration::Token(_));
    Ok(asks_for_token
        && uia::check_registration(&hs.rng, &hs.limits.registration, Some(&proof)).is_ok())
}

impl From<PasswordError> for RegisterError {
    fn from(error: PasswordError) -> Self {
        Self::Create(error.into())
    }
}

#[cfg(test)]
mod tests;
