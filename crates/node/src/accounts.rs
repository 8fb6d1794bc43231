//! Accounts as the owner of the node manages them: by localpart, with a password in the clear
//! that came from the command line.

use messagehub_homeserver::{Homeserver, accounts, passwords::Password};
use messagehub_store::StoreError;
use ruma::OwnedUserId;

use crate::AnyError;

/// Creates an account.
pub(crate) async fn add(
    hs: &Homeserver,
    localpart: &str,
    password: String,
) -> Result<OwnedUserId, AnyError> {
    Ok(accounts::create(hs, localpart, Some(Password::new(password)?)).await?)
}

/// Sets the password of an account.
pub(crate) async fn set_password(
    hs: &Homeserver,
    localpart: &str,
    password: String,
) -> Result<(), AnyError> {
    let user_id = accounts::user_id(localpart, hs.server_name())?;
    Ok(accounts::set_password(hs, &user_id, Password::new(password)?).await?)
}

/// All accounts.
pub(crate) async fn list(hs: &Homeserver) -> Result<Vec<OwnedUserId>, StoreError> {
    accounts::list(hs).await
}
