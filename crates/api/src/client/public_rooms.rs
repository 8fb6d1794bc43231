//! The public list of rooms.
//!
//! Spec: Client-Server API, "Published Room Directory".

use axum::Router;
use messagehub_homeserver::{
    Homeserver,
    rooms::public::{self, Page, Query},
    sessions::Session,
};
use ruma::api::{
    IncomingRequest, Metadata,
    auth_scheme::AccessTokenOptional,
    client::directory::{
        get_public_rooms, get_public_rooms_filtered, get_room_visibility, set_room_visibility,
    },
    error::DeserializationError,
};

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new().ruma(list).ruma(filtered_list).ruma(visibility).ruma(set_visibility)
}

/// The operation for people with and without an account: these may see the list of this server,
/// those that of others too.
struct List(get_public_rooms::v3::Request);

impl Metadata for List {
    const METHOD: http::Method = get_public_rooms::v3::Request::METHOD;
    const RATE_LIMITED: bool = get_public_rooms::v3::Request::RATE_LIMITED;
    type Authentication = AccessTokenOptional;
    type PathBuilder = <get_public_rooms::v3::Request as Metadata>::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = get_public_rooms::v3::Request::PATH_BUILDER;
}

impl IncomingRequest for List {
    type EndpointError = ruma::api::error::Error;
    type OutgoingResponse = get_public_rooms::v3::Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        get_public_rooms::v3::Request::try_from_http_request_inner(request, path_args).map(Self)
    }
}

/// `GET /_matrix/client/v3/publicRooms`
async fn list(
    hs: Homeserver,
    session: Option<Session>,
    List(req): List,
) -> Result<get_public_rooms::v3::Response, ApiError> {
    if session.is_none() && req.server.as_ref().is_some_and(|server| server != hs.server_name()) {
        return Err(ApiError::missing_token());
    }
    let query = Query { limit: req.limit, since: req.since, ..Query::default() };
    let Page { rooms, next, previous, total } =
        public::list(&hs, req.server.as_deref(), query).await?;
    let mut response = get_public_rooms::v3::Response::new(rooms);
    (response.next_batch, response.prev_batch) = (next, previous);
    response.total_room_count_estimate = total;
    Ok(response)
}

/// `POST /_matrix/client/v3/publicRooms`
async fn filtered_list(
    hs: Homeserver,
    _: Session,
    req: get_public_rooms_filtered::v3::Request,
) -> Result<get_public_rooms_filtered::v3::Response, ApiError> {
    let query =
        Query { limit: req.limit, since: req.since, filter: req.filter, network: req.room_network };
    let Page { rooms, next, previous, total } =
        public::list(&hs, req.server.as_deref(), query).await?;
    let mut response = get_public_rooms_filtered::v3::Response::new();
    (response.chunk, response.next_batch, response.prev_batch) = (rooms, next, previous);
    response.total_room_count_estimate = total;
    Ok(response)
}

/// `GET /_matrix/client/v3/directory/list/room/{roomId}`
async fn visibility(
    hs: Homeserver,
    (): (),
    req: get_room_visibility::v3::Request,
) -> Result<get_room_visibility::v3::Response, ApiError> {
    Ok(get_room_visibility::v3::Response::new(public::visibility(&hs, req.room_id).await?))
}

/// `PUT /_matrix/client/v3/directory/list/room/{roomId}`
async fn set_visibility(
    hs: Homeserver,
    session: Session,
    req: set_room_visibility::v3::Request,
) -> Result<set_room_visibility::v3::Response, ApiError> {
    public::set_visibility(&hs, &session.user_id, (req.room_id, req.visibility)).await?;
    Ok(set_room_visibility::v3::Response::new())
}
