//! From what went wrong to what HTTP says: the only place with statuses and `errcode`s.
//!
//! Each domain enum has one exhaustive `From`, without a catch-all arm, so that a new variant
//! does not compile before somebody chose its status.

mod accounts;
mod events;
mod peers;
mod rooms;
mod spaces;
pub(crate) mod users;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use messagehub_homeserver::{StoreError, sessions::AuthenticateError};
use ruma::api::error::{DeserializationError, FromHttpRequestError};
use serde_json::{Map, Value, json};

/// An error answer: a status and the specification's standard error body.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    body: Map<String, Value>,
}

impl ApiError {
    /// An answer with this status, `errcode` and text for people.
    pub(crate) fn new(status: StatusCode, errcode: &str, error: impl Into<String>) -> Self {
        let mut body = Map::new();
        body.insert("errcode".to_owned(), errcode.into());
        body.insert("error".to_owned(), error.into().into());
        Self { status, body }
    }

    /// The same answer with one field more, as some errors of the specification have.
    pub(crate) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.body.insert(field.to_owned(), value.into());
        self
    }

    /// 401 of User-Interactive Authentication: the flows are the body, without an `errcode`.
    ///
    /// Spec: Client-Server API, "User-interactive API in the REST API".
    pub(crate) fn interactive_auth(body: Map<String, Value>) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, body }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The `errcode`, empty where the specification has none.
    pub fn errcode(&self) -> &str {
        self.body.get("errcode").and_then(Value::as_str).unwrap_or_default()
    }

    /// 500: our fault; the cause is in the log only.
    pub(crate) fn unknown() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", "Internal server error.")
    }

    /// 500: our fault. The cause goes to the log here, and nowhere else.
    pub(crate) fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(%error, "a request failed inside");
        Self::unknown()
    }

    /// 404: an endpoint that this server does not have.
    pub(crate) fn unrecognized() -> Self {
        Self::new(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", "Unrecognized request.")
    }

    /// 405: a known path with another method.
    pub(crate) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED", "Unrecognized method.")
    }

    /// 401: an operation that needs a token came without one.
    pub(crate) fn missing_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN", "Missing access token.")
    }

    /// 403.
    pub(crate) fn forbidden(error: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "M_FORBIDDEN", error)
    }

    /// 404 of something that could have been there.
    pub(crate) fn not_found(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "M_NOT_FOUND", error)
    }

    /// 400: a parameter with an impossible value.
    pub(crate) fn invalid_param(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_INVALID_PARAM", error)
    }

    /// 400: JSON of the wrong form.
    pub(crate) fn bad_json(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_BAD_JSON", error)
    }

    /// 400: no JSON at all.
    pub(crate) fn not_json(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_NOT_JSON", error)
    }

    /// 413.
    pub(crate) fn too_large(error: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", error)
    }

    /// What is wrong with a request that could not be read.
    pub(crate) fn from_request(error: FromHttpRequestError) -> Self {
        match error {
            FromHttpRequestError::Deserialization(DeserializationError::Json(error)) => {
                if error.is_data() {
                    Self::bad_json(format!("The JSON has the wrong form: {error}."))
                } else {
                    Self::not_json(format!("The body is not JSON: {error}."))
                }
            }
            FromHttpRequestError::Deserialization(DeserializationError::Utf8(_)) => {
                Self::not_json("The body is not valid UTF-8.")
            }
            FromHttpRequestError::Deserialization(error) => {
                Self::invalid_param(format!("A parameter is invalid: {error}."))
            }
            FromHttpRequestError::MethodMismatch { .. } => Self::method_not_allowed(),
            error => Self::invalid_param(error.to_string()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let pause_ms = self.body.get("retry_after_ms").and_then(Value::as_u64);
        let mut response = Response::new(Body::from(Value::Object(self.body).to_string()));
        *response.status_mut() = self.status;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Spec: Client-Server API, "Rate limiting": the field is for clients that know no header.
        if let Some(pause_ms) = pause_ms {
            let seconds = HeaderValue::from(pause_ms.div_ceil(1_000));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

impl From<AuthenticateError> for ApiError {
    fn from(error: AuthenticateError) -> Self {
        match error {
            AuthenticateError::UnknownToken => Self::new(
                StatusCode::UNAUTHORIZED,
                "M_UNKNOWN_TOKEN",
                "Unknown or logged-out access token.",
            )
            .with("soft_logout", json!(false)),
            AuthenticateError::Store(error) => {
                tracing::error!(%error, "the store failed while a token was looked up");
                Self::unknown()
            }
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::internal(&error)
    }
}
