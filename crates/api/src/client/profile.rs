//! Profiles.
//!
//! Spec: Client-Server API, "Profiles".

use axum::Router;
use messagehub_homeserver::{
    Homeserver,
    profiles::{self, Field, ProfileError},
    sessions::Session,
};
use ruma::{
    OwnedUserId, UserId,
    api::{
        IncomingRequest, Metadata,
        client::profile::{
            delete_profile_field, get_profile, get_profile_field, set_profile_field,
        },
        error::DeserializationError,
    },
    profile::ProfileFieldValue,
};
use serde_json::{Map, Value};

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new().ruma(get).ruma(get_field).ruma(set_field).ruma(delete_field)
}

/// `GET /_matrix/client/v3/profile/{userId}`
async fn get(
    hs: Homeserver,
    (): (),
    req: get_profile::v3::Request,
) -> Result<get_profile::v3::Response, ApiError> {
    Ok(profiles::fields(&hs, &req.user_id).await?.into_iter().collect())
}

/// `GET /_matrix/client/v3/profile/{userId}/{keyName}`
async fn get_field(
    hs: Homeserver,
    (): (),
    req: get_profile_field::v3::Request,
) -> Result<get_profile_field::v3::Response, ApiError> {
    let name = req.field.as_str();
    let value = profiles::field(&hs, &req.user_id, name).await?;
    let value = ProfileFieldValue::new(name, value).map_err(|e| ApiError::internal(&e))?;
    Ok(get_profile_field::v3::Response::new(value))
}

/// `PUT /_matrix/client/v3/profile/{userId}/{keyName}`
async fn set_field(
    hs: Homeserver,
    caller: Session,
    SetField { user_id, name, value }: SetField,
) -> Result<set_profile_field::v3::Response, ApiError> {
    let value = value.ok_or(ProfileError::ValueMissing)?;
    let field = Field::of(name, Some(value))?;
    profiles::set(&hs, &caller.user_id, &user_id, field).await?;
    Ok(set_profile_field::v3::Response::new())
}

/// `DELETE /_matrix/client/v3/profile/{userId}/{keyName}`
async fn delete_field(
    hs: Homeserver,
    caller: Session,
    req: delete_profile_field::v3::Request,
) -> Result<delete_profile_field::v3::Response, ApiError> {
    let field = Field::of(req.field.as_str().to_owned(), None)?;
    profiles::set(&hs, &caller.user_id, &req.user_id, field).await?;
    Ok(delete_profile_field::v3::Response::new())
}

/// The operation with any value. ruma's type takes no `null`, with which clients take a name away.
struct SetField {
    user_id: OwnedUserId,
    name: String,
    value: Option<Value>,
}

impl Metadata for SetField {
    const METHOD: http::Method = set_profile_field::v3::Request::METHOD;
    const RATE_LIMITED: bool = set_profile_field::v3::Request::RATE_LIMITED;
    type Authentication = <set_profile_field::v3::Request as Metadata>::Authentication;
    type PathBuilder = <set_profile_field::v3::Request as Metadata>::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = set_profile_field::v3::Request::PATH_BUILDER;
}

impl IncomingRequest for SetField {
    type EndpointError = ruma::api::error::Error;
    type OutgoingResponse = set_profile_field::v3::Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let wrong = |text: &str| DeserializationError::Json(serde::de::Error::custom(text));
        let [user_id, name] = path_args else { return Err(wrong("a user and a field")) };
        let user_id = UserId::parse(*user_id).map_err(|_| wrong("no user id"))?;
        let mut body: Map<String, Value> = serde_json::from_slice(request.body())?;
        let value = body.remove(*name);
        Ok(Self { user_id, name: (*name).to_owned(), value })
    }
}
