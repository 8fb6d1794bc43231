//! Registering, and changing the password.
//!
//! Spec: Client-Server API, "Account registration and management".

use axum::Router;
use messagehub_homeserver::{
    Homeserver, accounts,
    deactivate::{self, Extent},
    passwords::Password,
    register::{self, NewAccount, Registered},
    sessions::{self, NewDevice, Session},
    uia,
};
use ruma::api::client::account::{
    ThirdPartyIdRemovalStatus, change_password, check_registration_token_validity,
    deactivate as deactivate_account, get_username_availability, register as api,
};

use super::proof;
use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new()
        .ruma(register)
        .ruma(is_available)
        .ruma(is_token_valid)
        .ruma(change_password)
        .ruma(deactivate)
}

/// `POST /_matrix/client/v3/register`
async fn register(
    hs: Homeserver,
    (): (),
    req: api::v3::Request,
) -> Result<api::v3::Response, ApiError> {
    if req.kind != api::RegistrationKind::User {
        return Err(ApiError::guests_refused());
    }
    let device =
        NewDevice { device_id: req.device_id, display_name: req.initial_device_display_name };
    let new = NewAccount {
        username: req.username,
        password: req.password.map(Password::new).transpose()?,
        device: (!req.inhibit_login).then_some(device),
        proof: proof::from_auth(req.auth),
    };
    match register::register(&hs, new).await? {
        Registered::Account(user_id) => Ok(api::v3::Response::new(user_id)),
        Registered::LoggedIn(done) => {
            let mut response = api::v3::Response::new(done.session.user_id);
            response.device_id = Some(done.session.device_id);
            response.access_token = Some(done.access_token.into_text());
            Ok(response)
        }
    }
}

/// `GET /_matrix/client/v3/register/available`
async fn is_available(
    hs: Homeserver,
    (): (),
    req: get_username_availability::v3::Request,
) -> Result<get_username_availability::v3::Response, ApiError> {
    register::available(&hs, &req.username).await?;
    Ok(get_username_availability::v3::Response::new(true))
}

/// `GET /_matrix/client/v1/register/m.login.registration_token/validity`
async fn is_token_valid(
    hs: Homeserver,
    (): (),
    req: check_registration_token_validity::v1::Request,
) -> Result<check_registration_token_validity::v1::Response, ApiError> {
    let valid = register::is_token_valid(&hs, &req.token)?;
    Ok(check_registration_token_validity::v1::Response::new(valid))
}

/// `POST /_matrix/client/v3/account/password`
async fn change_password(
    hs: Homeserver,
    caller: Option<Session>,
    req: change_password::v3::Request,
) -> Result<change_password::v3::Response, ApiError> {
    // Without a session it would be a reset by e-mail, which this node does not have.
    let caller = caller.ok_or_else(ApiError::missing_token)?;
    uia::confirm(&hs, &caller, proof::from_auth(req.auth)).await?;
    let password = Password::new(req.new_password)?;
    accounts::set_password(&hs, &caller.user_id, password).await?;
    if req.logout_devices {
        sessions::log_out_all(&hs, &caller.user_id, Some(&caller.device_id)).await?;
    }
    Ok(change_password::v3::Response::new())
}

/// `POST /_matrix/client/v3/account/deactivate`
async fn deactivate(
    hs: Homeserver,
    caller: Option<Session>,
    req: deactivate_account::v3::Request,
) -> Result<deactivate_account::v3::Response, ApiError> {
    // Without a session it would be by e-mail, which this node does not have.
    let caller = caller.ok_or_else(ApiError::missing_token)?;
    let extent = if req.erase { Extent::Everything } else { Extent::Account };
    deactivate::deactivate(&hs, &caller, proof::from_auth(req.auth), extent).await?;
    // There are no addresses to unbind, and no identity server to ask.
    Ok(deactivate_account::v3::Response::new(ThirdPartyIdRemovalStatus::Success))
}
