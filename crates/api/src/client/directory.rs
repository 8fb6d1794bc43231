//! Finding people.
//!
//! Spec: Client-Server API, "User Directory".

use axum::Router;
use messagehub_homeserver::{Homeserver, sessions::Session, user_directory};
use ruma::api::client::user_directory::search_users;

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new().ruma(search)
}

/// `POST /_matrix/client/v3/user_directory/search`
async fn search(
    hs: Homeserver,
    caller: Session,
    req: search_users::v3::Request,
) -> Result<search_users::v3::Response, ApiError> {
    let limit = usize::try_from(req.limit).unwrap_or(user_directory::MAX_RESULTS);
    let found = user_directory::search(&hs, &caller.user_id, &req.search_term, limit).await?;
    let users = found.users.into_iter().map(|user| {
        let mut shown = search_users::v3::User::new(user.user_id);
        shown.display_name = user.displayname;
        shown.avatar_url = user.avatar_url;
        shown
    });
    Ok(search_users::v3::Response::new(users.collect(), found.limited))
}
