//! Accounts of this node: making them, finding them, changing their password.
//!
//! Spec: Client-Server API, "Account registration and management".

use messagehub_store::{StoreError, Txn, account_data, profiles, users};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedUserId, ServerName, UserId};

use crate::{
    Homeserver,
    passwords::{self, Password, PasswordError},
    push_rules, user_directory,
};

/// Why there is no such new account.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The localpart has characters outside the specification's grammar, or is too long.
    #[error("a user name consists of a-z, 0-9 and ._=-/+, and is not too long")]
    InvalidName,
    /// There is an account of that name.
    #[error("the user name is taken")]
    Taken,
    /// The password cannot be used.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a password was not changed.
#[derive(Debug, thiserror::Error)]
pub enum SetPasswordError {
    /// There is no such account.
    #[error("there is no such user on this node")]
    UnknownUser,
    /// The password cannot be used.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The user id of a localpart on this node. Capital letters become small ones.
///
/// Spec: Appendices, "User Identifiers".
///
/// # Errors
/// [`CreateError::InvalidName`].
pub fn user_id(localpart: &str, server_name: &ServerName) -> Result<OwnedUserId, CreateError> {
    let localpart = localpart.to_ascii_lowercase();
    if localpart.is_empty() || localpart.contains(':') {
        return Err(CreateError::InvalidName);
    }
    let user_id = UserId::parse(format!("@{localpart}:{server_name}"))
        .map_err(|_| CreateError::InvalidName)?;
    user_id.validate_strict().map_err(|_| CreateError::InvalidName)?;
    Ok(user_id)
}

/// Makes an account, with the default push rules and a profile named after the localpart.
/// Without a password it can only be logged in to on this machine (D17).
///
/// # Errors
/// See [`CreateError`]. Nothing is written then.
pub async fn create(
    hs: &Homeserver,
    localpart: &str,
    password: Option<Password>,
) -> Result<OwnedUserId, CreateError> {
    let user_id = user_id(localpart, hs.server_name())?;
    let known = user_id.clone();
    if hs.store.read(move |snap| users::exists(snap, &known)).await? {
        return Err(CreateError::Taken);
    }
    let password_hash = match password {
        Some(password) => Some(passwords::hash(&hs.rng, password).await?),
        None => None,
    };
    let now = hs.clock.now();
    let new = user_id.clone();
    hs.store.write(move |txn| insert(txn, &new, password_hash.as_deref(), now)).await?;
    user_directory::advertise(hs).await?;
    Ok(user_id)
}

fn insert(
    txn: &mut Txn<'_>,
    user_id: &UserId,
    password_hash: Option<&str>,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<(), CreateError> {
    if !users::insert(txn, user_id, password_hash, now)? {
        return Err(CreateError::Taken);
    }
    let profile =
        profiles::Profile { displayname: Some(user_id.localpart().to_owned()), avatar_url: None };
    profiles::set(txn, user_id, &profile)?;
    let rules = push_rules::to_content(&push_rules::defaults(user_id));
    account_data::set(txn, user_id, account_data::Scope::Global, push_rules::KIND, &rules)?;
    Ok(())
}

/// Gives an account another password.
///
/// # Errors
/// See [`SetPasswordError`].
pub async fn set_password(
    hs: &Homeserver,
    user_id: &UserId,
    password: Password,
) -> Result<(), SetPasswordError> {
    let hash = passwords::hash(&hs.rng, password).await?;
    let user = user_id.to_owned();
    let known = hs.store.write(move |txn| users::set_password_hash(txn, &user, &hash)).await?;
    if known { Ok(()) } else { Err(SetPasswordError::UnknownUser) }
}

/// Whether a password is that of an account; `false` also when there is no such account.
///
/// # Errors
/// The hashing queue is full, or the store failed.
pub async fn check_password(
    hs: &Homeserver,
    user_id: &UserId,
    password: Password,
) -> Result<bool, SetPasswordError> {
    let user = user_id.to_owned();
    let found = hs.store.read(move |snap| users::find(snap, &user)).await?;
    Ok(passwords::verify(password, found.and_then(|user| user.password_hash)).await?)
}

/// All accounts, oldest first.
///
/// # Errors
/// The store failed.
pub async fn list(hs: &Homeserver) -> Result<Vec<OwnedUserId>, StoreError> {
    let users = hs.store.read(users::list).await?;
    Ok(users.into_iter().map(|user| user.user_id).collect())
}
