//! The pages of single sign-on: for browsers, so not ruma endpoints. What is refused answers the
//! standard error body.
//!
//! Spec: Client-Server API, "SSO client login/authentication".

use std::net::SocketAddr;

use axum::{
    Form, Router,
    extract::{ConnectInfo, DefaultBodyLimit, Extension, Query, State, rejection::QueryRejection},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use messagehub_homeserver::{
    Homeserver,
    passwords::Password,
    sso::{self, Answer, Consent, SsoError, Visit},
};
use serde::Deserialize;

use crate::ApiError;

/// Largest form, in bytes: a token, a user id and a password.
const MAX_FORM_BYTES: usize = 16 * 1024;
/// The page runs nothing, loads nothing and is framed by nobody. `form-action` is not set,
/// since browsers apply it to the redirect that follows the form too.
const PAGE_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";

pub(super) fn router() -> Router<Homeserver> {
    Router::new()
        .route("/_matrix/client/v3/login/sso/redirect", get(ask))
        .route("/_matrix/client/r0/login/sso/redirect", get(ask))
        .route("/_matrix/client/v3/login/sso/redirect/{provider}", get(ask))
        .route("/_matrix/client/r0/login/sso/redirect/{provider}", get(ask))
        .route(sso::CONFIRM_PATH, post(confirm).layer(DefaultBodyLimit::max(MAX_FORM_BYTES)))
}

#[derive(Deserialize)]
struct RedirectQuery {
    #[serde(rename = "redirectUrl")]
    redirect_url: String,
}

/// `GET /_matrix/client/v3/login/sso/redirect` and
/// `GET /_matrix/client/v3/login/sso/redirect/{idpId}`
async fn ask(
    State(hs): State<Homeserver>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    query: Result<Query<RedirectQuery>, QueryRejection>,
) -> Response {
    let Ok(Query(query)) = query else {
        return ApiError::missing_param("redirectUrl is missing.").into_response();
    };
    respond(sso::ask(&hs, &visit(peer, &headers), &query.redirect_url).await)
}

#[derive(Deserialize)]
struct ConsentForm {
    token: String,
    user: String,
    #[serde(default)]
    password: String,
}

/// `POST /_messagehub/sso/confirm`: the form of the consent page.
async fn confirm(
    State(hs): State<Homeserver>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    Form(form): Form<ConsentForm>,
) -> Response {
    let consent =
        Consent { token: form.token, user: form.user, password: Password::new(form.password).ok() };
    respond(sso::confirm(&hs, &visit(peer, &headers), consent).await)
}

fn visit(peer: Option<Extension<ConnectInfo<SocketAddr>>>, headers: &HeaderMap) -> Visit {
    let text = |name: HeaderName| {
        headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    Visit {
        peer: peer.map(|Extension(ConnectInfo(address))| address.ip()),
        host: text(header::HOST),
        origin: text(header::ORIGIN),
        fetch_site: text(HeaderName::from_static("sec-fetch-site")),
        fetch_mode: text(HeaderName::from_static("sec-fetch-mode")),
        fetch_dest: text(HeaderName::from_static("sec-fetch-dest")),
        forwarded: text(header::FORWARDED)
            .or_else(|| text(HeaderName::from_static("x-forwarded-for")))
            .or_else(|| text(header::VIA)),
    }
}

fn respond(answer: Result<Answer, SsoError>) -> Response {
    let mut response = match answer {
        Ok(Answer::Page(html)) => Html(html).into_response(),
        Ok(Answer::Redirect(url)) => match HeaderValue::from_str(&url) {
            Ok(url) => (StatusCode::SEE_OTHER, [(header::LOCATION, url)]).into_response(),
            Err(_) => ApiError::from(SsoError::BadRedirect).into_response(),
        },
        Err(error) => ApiError::from(error).into_response(),
    };
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
    set(header::X_FRAME_OPTIONS, "DENY");
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::CACHE_CONTROL, "no-store");
    // Keeps `Origin` on our own form; the client's page learns nothing of ours.
    set(header::REFERRER_POLICY, "same-origin");
    response
}
