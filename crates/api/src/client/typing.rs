//! Typing notifications.
//!
//! Spec: Client-Server API, "Typing Notifications".

use std::time::Duration;

use axum::Router;
use messagehub_homeserver::{
    Homeserver,
    sessions::Session,
    typing::{self, DEFAULT_TIMEOUT, Typing},
};
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, UserId,
    api::{
        IncomingRequest, Metadata,
        client::typing::create_typing_event::v3::{Request, Response},
        error::DeserializationError,
    },
};
use serde::Deserialize;

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new().ruma(set)
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId}`
async fn set(
    hs: Homeserver,
    caller: Session,
    SetTyping { whose, notice }: SetTyping,
) -> Result<Response, ApiError> {
    typing::set(&hs, &caller.user_id, whose, notice).await?;
    Ok(Response::new())
}

/// The operation as the specification has it, which requires no `timeout`; ruma's type does.
struct SetTyping {
    whose: (OwnedRoomId, OwnedUserId),
    notice: Typing,
}

impl Metadata for SetTyping {
    const METHOD: http::Method = Request::METHOD;
    const RATE_LIMITED: bool = Request::RATE_LIMITED;
    type Authentication = <Request as Metadata>::Authentication;
    type PathBuilder = <Request as Metadata>::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = Request::PATH_BUILDER;
}

impl IncomingRequest for SetTyping {
    type EndpointError = ruma::api::error::Error;
    type OutgoingResponse = Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        #[derive(Deserialize)]
        struct Body {
            typing: bool,
            timeout: Option<u64>,
        }
        let wrong = |text: &str| DeserializationError::Json(serde::de::Error::custom(text));
        let [room_id, user_id] = path_args else { return Err(wrong("a room and a user")) };
        let room_id = RoomId::parse(*room_id).map_err(|_| wrong("no room id"))?;
        let user_id = UserId::parse(*user_id).map_err(|_| wrong("no user id"))?;
        let body: Body = serde_json::from_slice(request.body())?;
        let timeout = body.timeout.map_or(DEFAULT_TIMEOUT, Duration::from_millis);
        let notice = if body.typing { Typing::For(timeout) } else { Typing::Stopped };
        Ok(Self { whose: (room_id, user_id), notice })
    }
}
