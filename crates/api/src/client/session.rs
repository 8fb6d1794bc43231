//! Logging in and out, and the devices in between.
//!
//! Spec: Client-Server API, "Client Authentication" and "Device Management".

mod sso;

use axum::Router;
use messagehub_homeserver::{
    Homeserver,
    passwords::Password,
    sessions::{self, Credentials, LoginError, NewDevice, Session},
    sso as sso_uses, uia,
};
use ruma::api::client::{
    account::whoami,
    device::{self, delete_device, delete_devices, get_device, get_devices, update_device},
    session::{get_login_types, login, logout, logout_all},
};

use super::proof;
use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new()
        .ruma(login_types)
        .ruma(log_in)
        .ruma(log_out)
        .ruma(log_out_all)
        .ruma(who_am_i)
        .ruma(list_devices)
        .ruma(get_one_device)
        .ruma(rename_device)
        .ruma(remove_device)
        .ruma(remove_devices)
        .merge(sso::router())
}

/// `GET /_matrix/client/v3/login`
async fn login_types(
    hs: Homeserver,
    (): (),
    _: get_login_types::v3::Request,
) -> Result<get_login_types::v3::Response, ApiError> {
    use get_login_types::v3::{
        IdentityProvider, LoginType, PasswordLoginType, SsoLoginType, TokenLoginType,
    };
    let mut flows = vec![LoginType::Password(PasswordLoginType::new())];
    if sso_uses::is_offered(&hs) {
        let mut sso = SsoLoginType::new();
        let (id, name) = (sso_uses::PROVIDER_ID.to_owned(), sso_uses::PROVIDER_NAME.to_owned());
        sso.identity_providers = vec![IdentityProvider::new(id, name)];
        flows.push(LoginType::Sso(sso));
        flows.push(LoginType::Token(TokenLoginType::new()));
    }
    Ok(get_login_types::v3::Response::new(flows))
}

/// `POST /_matrix/client/v3/login`
async fn log_in(
    hs: Homeserver,
    (): (),
    req: login::v3::Request,
) -> Result<login::v3::Response, ApiError> {
    let device =
        NewDevice { device_id: req.device_id, display_name: req.initial_device_display_name };
    let credentials = credentials(req.login_info)?;
    let done = sessions::log_in(&hs, credentials, device).await?;
    let Session { user_id, device_id } = done.session;
    Ok(login::v3::Response::new(user_id, done.access_token.into_text(), device_id))
}

#[expect(deprecated, reason = "old clients name the user in a field of its own")]
fn credentials(info: login::v3::LoginInfo) -> Result<Credentials, ApiError> {
    match info {
        login::v3::LoginInfo::Password(data) => {
            let user = data
                .identifier
                .and_then(proof::user)
                .or(data.user)
                .ok_or_else(|| ApiError::bad_json("A user is needed."))?;
            let password =
                Password::new(data.password).map_err(|_| LoginError::WrongCredentials)?;
            Ok(Credentials::Password { user, password })
        }
        login::v3::LoginInfo::Token(data) => Ok(Credentials::Token(data.token)),
        _ => Err(ApiError::unknown_login_type()),
    }
}

/// `POST /_matrix/client/v3/logout`
async fn log_out(
    hs: Homeserver,
    caller: Session,
    _: logout::v3::Request,
) -> Result<logout::v3::Response, ApiError> {
    sessions::log_out(&hs, &caller).await?;
    Ok(logout::v3::Response::new())
}

/// `POST /_matrix/client/v3/logout/all`
async fn log_out_all(
    hs: Homeserver,
    caller: Session,
    _: logout_all::v3::Request,
) -> Result<logout_all::v3::Response, ApiError> {
    sessions::log_out_all(&hs, &caller.user_id, None).await?;
    Ok(logout_all::v3::Response::new())
}

/// `GET /_matrix/client/v3/account/whoami`
async fn who_am_i(
    _: Homeserver,
    caller: Session,
    _: whoami::v3::Request,
) -> Result<whoami::v3::Response, ApiError> {
    let mut response = whoami::v3::Response::new(caller.user_id, false);
    response.device_id = Some(caller.device_id);
    Ok(response)
}

/// `GET /_matrix/client/v3/devices`
async fn list_devices(
    hs: Homeserver,
    caller: Session,
    _: get_devices::v3::Request,
) -> Result<get_devices::v3::Response, ApiError> {
    let devices = sessions::list_devices(&hs, &caller.user_id).await?;
    Ok(get_devices::v3::Response::new(devices.into_iter().map(shown).collect()))
}

/// `GET /_matrix/client/v3/devices/{deviceId}`
async fn get_one_device(
    hs: Homeserver,
    caller: Session,
    req: get_device::v3::Request,
) -> Result<get_device::v3::Response, ApiError> {
    let device = sessions::get_device(&hs, &caller.user_id, &req.device_id).await?;
    Ok(get_device::v3::Response::new(shown(device)))
}

/// `PUT /_matrix/client/v3/devices/{deviceId}`
async fn rename_device(
    hs: Homeserver,
    caller: Session,
    req: update_device::v3::Request,
) -> Result<update_device::v3::Response, ApiError> {
    sessions::rename_device(&hs, &caller.user_id, &req.device_id, req.display_name).await?;
    Ok(update_device::v3::Response::new())
}

/// `DELETE /_matrix/client/v3/devices/{deviceId}`
async fn remove_device(
    hs: Homeserver,
    caller: Session,
    req: delete_device::v3::Request,
) -> Result<delete_device::v3::Response, ApiError> {
    uia::confirm(&hs, &caller, proof::from_auth(req.auth)).await?;
    sessions::remove_devices(&hs, &caller.user_id, vec![req.device_id]).await?;
    Ok(delete_device::v3::Response::new())
}

/// `POST /_matrix/client/v3/delete_devices`
async fn remove_devices(
    hs: Homeserver,
    caller: Session,
    req: delete_devices::v3::Request,
) -> Result<delete_devices::v3::Response, ApiError> {
    uia::confirm(&hs, &caller, proof::from_auth(req.auth)).await?;
    sessions::remove_devices(&hs, &caller.user_id, req.devices).await?;
    Ok(delete_devices::v3::Response::new())
}

fn shown(device: sessions::Device) -> device::Device {
    let mut shown = device::Device::new(device.device_id);
    shown.display_name = device.display_name;
    shown.last_seen_ts = Some(device.last_seen_ts);
    shown
}
