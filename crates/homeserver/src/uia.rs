//! User-Interactive Authentication: asking for one more proof before an action.
//!
//! Every flow of this node has one stage, so nothing has to be remembered between two
//! requests; the session id exists because clients echo it.
//!
//! Spec: Client-Server API, "User-Interactive Authentication API".

use messagehub_store::{StoreError, users};

use crate::{
    Homeserver, accounts,
    homeserver::Registration,
    passwords::{Password, PasswordError},
    rate::{Limited, RateKey},
    rng::Rng,
    sessions::{self, Session},
};

/// Characters of a session id; it guards nothing.
const SESSION_LENGTH: usize = 16;

/// What a client is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// `m.login.dummy`: nothing.
    Dummy,
    /// `m.login.password`: the password of the account.
    Password,
    /// `m.login.registration_token`: the token of this node's owner.
    RegistrationToken,
}

/// What a client gave.
#[derive(Debug)]
pub enum Proof {
    /// `m.login.dummy`.
    Dummy,
    /// `m.login.password`.
    Password {
        /// A user id or the localpart of one.
        user: String,
        /// The password.
        password: Password,
    },
    /// `m.login.registration_token`.
    RegistrationToken(String),
    /// A stage that this node never asks for, or a proof that cannot be right.
    Other,
}

/// The demand for a proof: the body of the 401.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The one stage of the one flow.
    pub stage: Stage,
    /// To be echoed by the client.
    pub session: String,
    /// Whether this answers a proof that was wrong.
    pub refused: bool,
}

/// Why an action was not authenticated.
#[derive(Debug, thiserror::Error)]
pub enum UiaError {
    /// A proof is needed, or the one given is wrong.
    #[error("the action needs a proof")]
    Challenge(Challenge),
    /// Too many attempts on this account.
    #[error(transparent)]
    Limited(#[from] Limited),
    /// Too many log-ins at once.
    #[error("too many log-ins at once")]
    Busy,
    /// The stored password hash is damaged.
    #[error("the password could not be checked: {0}")]
    Hashing(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Demands the password of an account that has one, before an action on the account. An account
/// without a password proves nothing more than its session.
///
/// # Errors
/// See [`UiaError`].
pub async fn confirm(
    hs: &Homeserver,
    session: &Session,
    proof: Option<Proof>,
) -> Result<(), UiaError> {
    let user = session.user_id.clone();
    let account = hs.store.read(move |snap| users::find(snap, &user)).await?;
    let stage = match account.and_then(|user| user.password_hash) {
        Some(_) => Stage::Password,
        None => Stage::Dummy,
    };
    let refused = proof.is_some();
    let right = match (stage, proof) {
        (Stage::Dummy, Some(Proof::Dummy)) => true,
        (Stage::Password, Some(Proof::Password { user, password }))
            if sessions::local_user(hs, &user).as_ref() == Some(&session.user_id) =>
        {
            hs.limits.rates.check(RateKey::Login(user), hs.clock.now())?;
            accounts::check_password(hs, &session.user_id, password).await?
        }
        _ => false,
    };
    if right { Ok(()) } else { Err(UiaError::Challenge(challenge(&hs.rng, stage, refused))) }
}

/// Checks the proof for a registration, where registering is possible at all.
///
/// # Errors
/// The challenge that is to be answered.
pub(crate) fn check_registration(
    rng: &Rng,
    registration: &Registration,
    proof: Option<&Proof>,
) -> Result<(), Challenge> {
    let (stage, right) = match (registration, proof) {
        (Registration::Token(token), Some(Proof::RegistrationToken(given))) => {
            // Hashes are compared, so that the time tells nothing of the token.
            (Stage::RegistrationToken, sessions::hash(token) == sessions::hash(given))
        }
        (Registration::Token(_), _) => (Stage::RegistrationToken, false),
        (_, proof) => (Stage::Dummy, matches!(proof, Some(Proof::Dummy))),
    };
    if right { Ok(()) } else { Err(challenge(rng, stage, proof.is_some())) }
}

fn challenge(rng: &Rng, stage: Stage, refused: bool) -> Challenge {
    Challenge { stage, session: rng.alphanumeric(SESSION_LENGTH), refused }
}

impl From<accounts::SetPasswordError> for UiaError {
    fn from(error: accounts::SetPasswordError) -> Self {
        match error {
            // `confirm` read the account a moment ago; the answer is the same as to a stranger.
            accounts::SetPasswordError::UnknownUser => {
                Self::Hashing("the account is gone".to_owned())
            }
            accounts::SetPasswordError::Password(PasswordError::Busy) => Self::Busy,
            accounts::SetPasswordError::Password(error) => Self::Hashing(error.to_string()),
            accounts::SetPasswordError::Store(error) => Self::Store(error),
        }
    }
}
