//! Sessions: logging in, proving it with a token, logging out, and the devices in between.
//!
//! Spec: Client-Server API, "Client Authentication".

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use messagehub_store::{
    Snapshot, StoreError, Txn, devices,
    tokens::{self, Grant, Purpose, TokenHash},
    users,
};
use ruma::{DeviceId, MilliSecondsSinceUnixEpoch, OwnedDeviceId, OwnedUserId, UserId};
use sha2::{Digest, Sha256};

use crate::{
    Homeserver, accounts,
    clock::timestamp,
    encryption::device_lists::{self, Change},
    passwords::{Password, PasswordError},
    rate::{Limited, RateKey},
    rng::Rng,
};

pub use messagehub_store::devices::Device;

/// Longest device id and longest device name, in bytes.
pub const MAX_DEVICE_BYTES: usize = 255;
/// Devices of one user. Each costs a row and a place in every key query.
pub const MAX_DEVICES: usize = 1000;
/// How far behind "last seen" may be, in milliseconds: finer would be a write per request.
const SEEN_RESOLUTION_MS: u64 = 10 * 60 * 1000;
/// How long a login token is good for: the client uses it at once.
pub(crate) const LOGIN_TOKEN_TTL_MS: u64 = 2 * 60 * 1000;
/// Characters of a device id that we choose.
const DEVICE_ID_LENGTH: usize = 10;

/// A logged-in device: what a valid access token proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Who.
    pub user_id: OwnedUserId,
    /// Where.
    pub device_id: OwnedDeviceId,
}

/// A token in clear: it exists between its making and the answer that carries it.
pub struct Token(String);

impl Token {
    /// 32 random bytes as text.
    pub(crate) fn new(rng: &Rng) -> Self {
        Self(BASE64URL_NOPAD.encode(&rng.bytes::<32>()))
    }

    /// The only form in which a token is stored.
    pub(crate) fn hash(&self) -> TokenHash {
        hash(&self.0)
    }

    /// The text for the client.
    pub fn into_text(self) -> String {
        self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The hash under which a token that a client sent would be stored.
pub(crate) fn hash(token: &str) -> TokenHash {
    TokenHash(Sha256::digest(token.as_bytes()).into())
}

/// What a client says about the device it logs in from.
#[derive(Debug, Clone, Default)]
pub struct NewDevice {
    /// The id it wants; `None` lets us choose. A known id is logged in anew.
    pub device_id: Option<OwnedDeviceId>,
    /// Its name, if it is new.
    pub display_name: Option<String>,
}

/// The outcome of logging in.
#[derive(Debug)]
pub struct LoggedIn {
    /// Who and where.
    pub session: Session,
    /// What proves it from now on.
    pub access_token: Token,
}

/// Who somebody claims to be, and the proof.
pub enum Credentials {
    /// A user id or the localpart of one, and its password.
    Password {
        /// As the client sent it.
        user: String,
        /// The password.
        password: Password,
    },
    /// A login token that single sign-on gave.
    Token(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password {{ user: {user:?}, .. }}"),
            Self::Token(_) => f.write_str("Token(..)"),
        }
    }
}

/// Why somebody is not logged in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// No such user, a wrong password, or a token that is unknown, used or expired. Which one
    /// is not told.
    #[error("the user name, password or token is wrong")]
    WrongCredentials,
    /// The device id or name is too long.
    #[error("a device id or name has at most {MAX_DEVICE_BYTES} bytes")]
    InvalidDevice,
    /// The user has [`MAX_DEVICES`] devices.
    #[error("the user has too many devices; log some out first")]
    TooManyDevices,
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

/// Why a token proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticateError {
    /// It was never given out, or it is logged out.
    #[error("the access token is unknown or logged out")]
    UnknownToken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a device could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The user has no such device.
    #[error("there is no such device")]
    Unknown,
    /// The name is longer than [`MAX_DEVICE_BYTES`].
    #[error("a device name has at most {MAX_DEVICE_BYTES} bytes")]
    NameTooLong,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whose session a token belongs to.
///
/// # Errors
/// See [`AuthenticateError`].
pub async fn authenticate(hs: &Homeserver, token: &str) -> Result<Session, AuthenticateError> {
    let found = tokens::owner(&hs.store, hash(token)).await?;
    let owner = found.ok_or(AuthenticateError::UnknownToken)?;
    let now = hs.clock.now();
    let session = Session { user_id: owner.user_id, device_id: owner.device_id };
    if u64::from(owner.last_seen_ts.get()) + SEEN_RESOLUTION_MS <= u64::from(now.get()) {
        let seen = session.clone();
        hs.store
            .write(move |txn| devices::set_seen(txn, &seen.user_id, &seen.device_id, now))
            .await?;
    }
    Ok(session)
}

/// Logs a device in.
///
/// Spec: Client-Server API, "POST /login".
///
/// # Errors
/// See [`LoginError`].
pub async fn log_in(
    hs: &Homeserver,
    credentials: Credentials,
    device: NewDevice,
) -> Result<LoggedIn, LoginError> {
    check_device(&device)?;
    let user_id = match credentials {
        Credentials::Password { user, password } => by_password(hs, &user, password).await?,
        Credentials::Token(token) => by_token(hs, &token).await?,
    };
    open(hs, user_id, device).await
}

async fn by_password(
    hs: &Homeserver,
    user: &str,
    password: Password,
) -> Result<OwnedUserId, LoginError> {
    let user_id = local_user(hs, user).ok_or(LoginError::WrongCredentials)?;
    hs.limits.rates.check(RateKey::Login(user_id.to_string()), hs.clock.now())?;
    match accounts::check_password(hs, &user_id, password).await {
        Ok(true) => Ok(user_id),
        Ok(false) | Err(accounts::SetPasswordError::UnknownUser) => {
            Err(LoginError::WrongCredentials)
        }
        Err(accounts::SetPasswordError::Password(error)) => Err(error.into()),
        Err(accounts::SetPasswordError::Store(error)) => Err(error.into()),
    }
}

impl From<PasswordError> for LoginError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Unusable => Self::WrongCredentials,
            PasswordError::Busy => Self::Busy,
            PasswordError::Hashing(cause) => Self::Hashing(cause),
        }
    }
}

/// The local user that a client means by a full user id or a localpart.
pub(crate) fn local_user(hs: &Homeserver, user: &str) -> Option<OwnedUserId> {
    let user_id = if user.starts_with('@') {
        UserId::parse(user).ok()?
    } else {
        accounts::user_id(user, hs.server_name()).ok()?
    };
    hs.identity.is_local(&user_id).then_some(user_id)
}

async fn by_token(hs: &Homeserver, token: &str) -> Result<OwnedUserId, LoginError> {
    let (hash, now) = (hash(token), hs.clock.now());
    let subject = hs
        .store
        .write(move |txn| tokens::take_one_time(txn, &hash, Purpose::Login, now))
        .await?
        .ok_or(LoginError::WrongCredentials)?;
    UserId::parse(subject).map_err(|_| LoginError::WrongCredentials)
}

/// Opens a session for a user who is already proved.
///
/// # Errors
/// See [`LoginError`].
pub(crate) async fn open(
    hs: &Homeserver,
    user_id: OwnedUserId,
    device: NewDevice,
) -> Result<LoggedIn, LoginError> {
    check_device(&device)?;
    let access_token = Token::new(&hs.rng);
    let device_id = device
        .device_id
        .filter(|id| !id.as_str().is_empty())
        .unwrap_or_else(|| hs.rng.alphanumeric(DEVICE_ID_LENGTH).to_ascii_uppercase().into());
    let session = Session { user_id, device_id };
    let new = session.clone();
    let (hash, now) = (access_token.hash(), hs.clock.now());
    hs.store
        .write(move |txn| insert_session(txn, &new, device.display_name.as_deref(), &hash, now))
        .await?;
    hs.peers.wake();
    Ok(LoggedIn { session, access_token })
}

fn insert_session(
    txn: &mut Txn<'_>,
    session: &Session,
    display_name: Option<&str>,
    hash: &TokenHash,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<(), LoginError> {
    let Session { user_id, device_id } = session;
    if !users::is_active(txn, user_id)? {
        return Err(LoginError::WrongCredentials);
    }
    let is_new = devices::find(txn, user_id, device_id)?.is_none();
    if is_new && devices::list(txn, user_id)?.len() >= MAX_DEVICES {
        return Err(LoginError::TooManyDevices);
    }
    // "Any access tokens previously associated with the device ID are invalidated."
    tokens::revoke_device(txn, user_id, device_id)?;
    devices::insert(txn, user_id, device_id, display_name, now)?;
    tokens::insert(txn, hash, user_id, device_id, now)?;
    if is_new {
        device_lists::changed(
            txn,
            user_id.server_name(),
            (user_id, Change::Updated(device_id)),
            now,
        )?;
    }
    Ok(())
}

fn check_device(device: &NewDevice) -> Result<(), LoginError> {
    let id = device.device_id.as_ref().map_or(0, |id| id.as_str().len());
    let name = device.display_name.as_ref().map_or(0, String::len);
    if id > MAX_DEVICE_BYTES || name > MAX_DEVICE_BYTES {
        return Err(LoginError::InvalidDevice);
    }
    Ok(())
}

/// Makes a login token for a user, good for one log-in within [`LOGIN_TOKEN_TTL_MS`].
///
/// # Errors
/// The store failed.
pub(crate) fn grant_login(
    txn: &mut Txn<'_>,
    token: &TokenHash,
    user_id: &UserId,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<(), StoreError> {
    let expires_ts = timestamp(u64::from(now.get()) + LOGIN_TOKEN_TTL_MS);
    let grant = Grant { purpose: Purpose::Login, subject: user_id.as_str(), expires_ts };
    tokens::insert_one_time(txn, token, grant, now)
}

/// Logs a device out: its tokens and the device itself are gone.
///
/// # Errors
/// The store failed.
pub async fn log_out(hs: &Homeserver, session: &Session) -> Result<(), StoreError> {
    remove_devices(hs, &session.user_id, vec![session.device_id.clone()]).await
}

/// Logs every device of a user out, but for `keep`.
///
/// # Errors
/// The store failed.
pub async fn log_out_all(
    hs: &Homeserver,
    user_id: &UserId,
    keep: Option<&DeviceId>,
) -> Result<(), StoreError> {
    let mut devices = list_devices(hs, user_id).await?;
    devices.retain(|device| keep != Some(&*device.device_id));
    let device_ids = devices.into_iter().map(|device| device.device_id).collect();
    remove_devices(hs, user_id, device_ids).await
}

/// The devices of a user.
///
/// # Errors
/// The store failed.
pub async fn list_devices(hs: &Homeserver, user_id: &UserId) -> Result<Vec<Device>, StoreError> {
    let user_id = user_id.to_owned();
    hs.store.read(move |snap| devices::list(snap, &user_id)).await
}

/// One device of a user.
///
/// # Errors
/// See [`DeviceError`].
pub async fn get_device(
    hs: &Homeserver,
    user_id: &UserId,
    device_id: &DeviceId,
) -> Result<Device, DeviceError> {
    let (user_id, device_id) = (user_id.to_owned(), device_id.to_owned());
    let find = move |snap: &Snapshot<'_>| devices::find(snap, &user_id, &device_id);
    hs.store.read(find).await?.ok_or(DeviceError::Unknown)
}

/// Renames a device.
///
/// # Errors
/// See [`DeviceError`].
pub async fn rename_device(
    hs: &Homeserver,
    user_id: &UserId,
    device_id: &DeviceId,
    display_name: Option<String>,
) -> Result<(), DeviceError> {
    if display_name.as_ref().is_some_and(|name| name.len() > MAX_DEVICE_BYTES) {
        return Err(DeviceError::NameTooLong);
    }
    let (user_id, device_id) = (user_id.to_owned(), device_id.to_owned());
    let renamed = hs
        .store
        .write(move |txn| {
            devices::set_display_name(txn, &user_id, &device_id, display_name.as_deref())
        })
        .await?;
    if renamed { Ok(()) } else { Err(DeviceError::Unknown) }
}

/// Removes devices of a user, with their keys and what waits for them; unknown ones are no error.
///
/// # Errors
/// The store failed.
pub async fn remove_devices(
    hs: &Homeserver,
    user_id: &UserId,
    device_ids: Vec<OwnedDeviceId>,
) -> Result<(), StoreError> {
    let (us, user_id, now) = (hs.server_name().to_owned(), user_id.to_owned(), hs.clock.now());
    hs.store
        .write(move |txn| {
            for device_id in &device_ids {
                device_lists::remove_device(txn, &us, (&user_id, device_id), now)?;
            }
            Ok::<_, StoreError>(())
        })
        .await?;
    hs.peers.wake();
    Ok(())
}

#[cfg(test)]
mod tests;
