//! The admin address, on loopback: health and metrics for anybody who can reach it, the rest for
//! whoever can read the data directory, which the token proves.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use http::{StatusCode, header};
use messagehub_homeserver::Homeserver;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};

use crate::{accounts, rotation::Rotation, status};

/// Content type of the OpenMetrics text format.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the admin address needs.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) hs: Homeserver,
    pub(crate) registry: Arc<Registry>,
    pub(crate) token: Arc<str>,
    pub(crate) rotation: Rotation,
}

/// A password, as the command line sends it.
#[derive(Serialize, Deserialize)]
pub(crate) struct NewPassword {
    pub(crate) password: String,
}

/// The routes of the admin address.
pub(crate) fn router(admin: Admin) -> Router {
    let owner_only = Router::new()
        .route("/status", get(show_status))
        .route("/users", get(list_users))
        .route("/users/{localpart}", put(add_user))
        .route("/users/{localpart}/password", put(set_password))
        .route("/keys/rotate", put(rotate_key))
        .layer(middleware::from_fn_with_state(admin.clone(), owner));
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .merge(owner_only)
        .with_state(admin)
}

/// Lets only those pass who can read the data directory.
async fn owner(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let expected = format!("Bearer {}", admin.token);
    let shown = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
    if shown.is_some_and(|shown| same(shown, expected.as_bytes())) {
        return next.run(request).await;
    }
    (StatusCode::UNAUTHORIZED, "the token of the data directory is needed\n").into_response()
}

/// Compares in a time that does not depend on where the two differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |found, (a, b)| found | (a ^ b)) == 0
}

/// 200 while the database answers.
async fn health(State(admin): State<Admin>) -> Response {
    match accounts::list(&admin.hs).await {
        Ok(_) => "ok\n".into_response(),
        Err(error) => internal(&error),
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &admin.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => internal(&error),
    }
}

async fn show_status(State(admin): State<Admin>) -> Response {
    match status::gather(&admin.hs).await {
        Ok(status) => Json(status).into_response(),
        Err(error) => internal(&error),
    }
}

async fn list_users(State(admin): State<Admin>) -> Response {
    match accounts::list(&admin.hs).await {
        Ok(users) => Json(users).into_response(),
        Err(error) => internal(&error),
    }
}

async fn add_user(
    State(admin): State<Admin>,
    Path(localpart): Path<String>,
    Json(body): Json<NewPassword>,
) -> Response {
    match accounts::add(&admin.hs, &localpart, body.password).await {
        Ok(user_id) => (StatusCode::CREATED, format!("{user_id}\n")).into_response(),
        Err(error) => refused(&*error),
    }
}

async fn set_password(
    State(admin): State<Admin>,
    Path(localpart): Path<String>,
    Json(body): Json<NewPassword>,
) -> Response {
    match accounts::set_password(&admin.hs, &localpart, body.password).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refused(&*error),
    }
}

async fn rotate_key(State(admin): State<Admin>) -> Response {
    match admin.rotation.rotate().await {
        Ok(key_id) => format!("{key_id}\n").into_response(),
        Err(error) => internal(&*error),
    }
}

fn refused(error: &dyn std::error::Error) -> Response {
    (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response()
}

fn internal(error: &dyn std::error::Error) -> Response {
    tracing::error!(%error, "the admin address could not answer");
    (StatusCode::INTERNAL_SERVER_ERROR, "internal error; the log says more\n").into_response()
}
