//! Tokens that prove to third parties who somebody is.
//!
//! Spec: Client-Server API, "OpenID".

use axum::Router;
use messagehub_homeserver::{
    Homeserver,
    openid::{self, TOKEN_LIFETIME},
    sessions::Session,
};
use ruma::{
    api::client::account::request_openid_token::v3::{Request, Response},
    authentication::TokenType,
};

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new().ruma(grant)
}

/// `POST /_matrix/client/v3/user/{userId}/openid/request_token`
async fn grant(hs: Homeserver, caller: Session, req: Request) -> Result<Response, ApiError> {
    let token = openid::grant(&hs, &caller.user_id, &req.user_id).await?.into_text();
    let server = hs.server_name().to_owned();
    Ok(Response::new(token, TokenType::Bearer, server, TOKEN_LIFETIME))
}
