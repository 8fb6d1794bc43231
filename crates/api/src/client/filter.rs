//! Filters.
//!
//! Spec: Client-Server API, "Filtering".

use axum::Router;
use messagehub_homeserver::{Homeserver, filters, sessions::Session};
use ruma::api::client::filter::{create_filter, get_filter};

use super::account_data::check_own;
use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new().ruma(create).ruma(get)
}

/// `POST /_matrix/client/v3/user/{userId}/filter`
async fn create(
    hs: Homeserver,
    caller: Session,
    req: create_filter::v3::Request,
) -> Result<create_filter::v3::Response, ApiError> {
    check_own(&caller, &req.user_id)?;
    let filter_id = filters::insert(&hs, &caller.user_id, &req.filter).await?;
    Ok(create_filter::v3::Response::new(filter_id))
}

/// `GET /_matrix/client/v3/user/{userId}/filter/{filterId}`
async fn get(
    hs: Homeserver,
    caller: Session,
    req: get_filter::v3::Request,
) -> Result<get_filter::v3::Response, ApiError> {
    check_own(&caller, &req.user_id)?;
    let filter = filters::get(&hs, &caller.user_id, &req.filter_id).await?;
    Ok(get_filter::v3::Response::new(filter))
}
