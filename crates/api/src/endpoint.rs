//! The one adapter between HTTP and ruma's endpoint types.
//!
//! Path, method and authentication scheme of an operation are read from its ruma request type,
//! so a handler states none of them. All path versions that ruma knows are served.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
};

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts, RawPathParams, State},
    response::{IntoResponse, Response},
    routing::{MethodFilter, on},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use messagehub_homeserver::Homeserver;
use ruma::api::{
    IncomingRequest, IncomingRequestExt, Metadata, OutgoingResponseExt, path_builder::PathBuilder,
};

use crate::{ApiError, caller::Scheme};

/// Largest JSON request body, in bytes. Synapse accepts 200 × the largest event; a client's
/// biggest ordinary request (a key upload, account data) stays well below 2 MiB.
pub(crate) const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;

/// How much of a body that is too large is read without being kept, in bytes: a photo or a short
/// video that somebody tried to upload. Beyond it the connection is closed.
const MAX_DISCARDED_BYTES: usize = 128 * 1024 * 1024;

/// Registers handlers under the paths and the method of their request type.
pub(crate) trait RumaRoutes {
    /// Serves `R` with `handler`, refusing bodies above [`MAX_BODY_BYTES`].
    fn ruma<H, Fut, R>(self, handler: H) -> Self
    where
        H: Handler<R, Fut>,
        Fut: Future<Output = Result<R::OutgoingResponse, ApiError>> + Send + 'static,
        R: Endpoint;

    /// Serves `R` with `handler`, refusing bodies above the limit that `limit` reads from the
    /// configuration.
    fn ruma_with_limit<H, Fut, R>(self, handler: H, limit: fn(&Homeserver) -> usize) -> Self
    where
        H: Handler<R, Fut>,
        Fut: Future<Output = Result<R::OutgoingResponse, ApiError>> + Send + 'static,
        R: Endpoint;
}

/// A ruma request type whose authentication scheme this node can identify a caller for.
pub(crate) trait Endpoint:
    IncomingRequest<OutgoingResponse: Send> + Metadata<Authentication: Scheme> + Send + 'static
{
}

impl<R> Endpoint for R where
    R: IncomingRequest<OutgoingResponse: Send> + Metadata<Authentication: Scheme> + Send + 'static
{
}

/// An operation: the node, who asks, and what is asked.
pub(crate) trait Handler<R: Endpoint, Fut>:
    Fn(Homeserver, <R::Authentication as Scheme>::Caller, R) -> Fut + Clone + Send + Sync + 'static
{
}

impl<H, R: Endpoint, Fut> Handler<R, Fut> for H where
    H: Fn(Homeserver, <R::Authentication as Scheme>::Caller, R) -> Fut
        + Clone
        + Send
        + Sync
        + 'static
{
}

impl RumaRoutes for Router<Homeserver> {
    fn ruma<H, Fut, R>(self, handler: H) -> Self
    where
        H: Handler<R, Fut>,
        Fut: Future<Output = Result<R::OutgoingResponse, ApiError>> + Send + 'static,
        R: Endpoint,
    {
        self.ruma_with_limit(handler, |_| MAX_BODY_BYTES)
    }

    fn ruma_with_limit<H, Fut, R>(self, handler: H, limit: fn(&Homeserver) -> usize) -> Self
    where
        H: Handler<R, Fut>,
        Fut: Future<Output = Result<R::OutgoingResponse, ApiError>> + Send + 'static,
        R: Endpoint,
    {
        let Ok(method) = MethodFilter::try_from(R::METHOD) else {
            // Every method of the Matrix specification is one that axum can filter by.
            return self;
        };
        R::PATH_BUILDER.all_paths().flat_map(axum_paths).fold(self, |router, path| {
            let handler = handler.clone();
            let serve = move |State(hs): State<Homeserver>, request: http::Request<Body>| {
                let handler = handler.clone();
                async move {
                    let limit = limit(&hs);
                    answer(hs, handler, request, limit)
                        .await
                        .unwrap_or_else(ApiError::into_response)
                }
            };
            router.route(&path, on(method, serve))
        })
    }
}

/// Runs one operation from raw request to raw response.
async fn answer<H, Fut, R>(
    hs: Homeserver,
    handler: H,
    request: http::Request<Body>,
    limit: usize,
) -> Result<Response, ApiError>
where
    H: Handler<R, Fut>,
    Fut: Future<Output = Result<R::OutgoingResponse, ApiError>> + Send + 'static,
    R: Endpoint,
{
    let (mut parts, body) = request.into_parts();
    let path_args = RawPathParams::from_request_parts(&mut parts, &())
        .await
        .map_err(|_| ApiError::invalid_param("The path is not valid UTF-8."))?;
    let body = if R::Authentication::BODY_BEFORE_CALLER {
        read_body(body, limit).await.map(Ok)?
    } else {
        Err(body)
    };
    let signed = body.as_ref().ok().cloned().unwrap_or_default();
    let request = http::Request::from_parts(parts, signed);
    let caller = R::Authentication::identify(&hs, &request).await?;
    let (parts, _) = request.into_parts();
    let body = match body {
        Ok(read) => read,
        Err(unread) => read_body(unread, limit).await?,
    };
    let request = parse::<R>(parts, body, &path_args)?;
    let response = handler(hs, caller, request).await?;
    let response = response.try_into_http_response::<Vec<u8>>().map_err(|error| {
        tracing::error!(%error, "an answer could not be written as HTTP");
        ApiError::unknown()
    })?;
    Ok(response.map(Body::from))
}

/// Reads a whole body, at most `limit` bytes of it. What is above the limit is read and thrown
/// away, up to [`MAX_DISCARDED_BYTES`], since a client that is still sending does not see an answer.
async fn read_body(mut body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let mut kept = BytesMut::new();
    let mut discarded = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiError::not_json("The request body ended early."))?;
        let Ok(data) = frame.into_data() else { continue };
        if discarded == 0 && kept.len() + data.len() <= limit {
            kept.extend_from_slice(&data);
            continue;
        }
        discarded += kept.len() + data.len();
        kept = BytesMut::new();
        if discarded > MAX_DISCARDED_BYTES {
            break;
        }
    }
    if discarded > 0 {
        return Err(ApiError::too_large("The request body is too large."));
    }
    Ok(kept.freeze())
}

/// Reads a typed request. An absent body of a JSON operation counts as an empty object, which
/// clients rely on for operations without required fields; an upload has a type of its own and
/// may be empty.
fn parse<R: Endpoint>(
    parts: http::request::Parts,
    body: Bytes,
    path_args: &RawPathParams,
) -> Result<R, ApiError> {
    let mut args: Vec<&str> = path_args.iter().map(|(_, value)| value).collect();
    let wanted = R::PATH_BUILDER
        .all_paths()
        .next()
        .map_or(0, |path| path.split('/').filter(|segment| placeholder(segment)).count());
    if args.len() < wanted {
        args.push("");
    }
    let absent = body.is_empty() && R::METHOD != http::Method::GET && is_json(&parts.headers);
    let body = if absent { &b"{}"[..] } else { &body };
    let request = http::Request::from_parts(parts, body);
    // Some of ruma's readers index into what they were given: a login without a `type` panics.
    // Nothing is shared with them that a panic could leave half-done.
    catch_unwind(AssertUnwindSafe(|| R::try_from_http_request(request, &args)))
        .map_err(|_| ApiError::bad_json("The JSON lacks a field that it must have."))?
        .map_err(ApiError::from_request)
}

/// Whether a body is JSON: it says so, or it says nothing.
fn is_json(headers: &http::HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .is_none_or(|kind| kind.as_bytes().to_ascii_lowercase().starts_with(b"application/json"))
}

/// A path of ruma's as axum spells it. Parameters are numbered, since axum wants one name for
/// one place; an operation that ends in a state key also answers where the key is empty.
fn axum_paths(path: &'static str) -> Vec<String> {
    let mut count = 0;
    let numbered = path
        .split('/')
        .map(|segment| {
            if placeholder(segment) {
                count += 1;
                format!("{{p{count}}}")
            } else {
                segment.to_owned()
            }
        })
        .collect::<Vec<_>>()
        .join("/");
    let mut paths = vec![numbered.clone()];
    if path.ends_with("/{state_key}")
        && let Some((without_key, _)) = numbered.rsplit_once('/')
    {
        paths.push(without_key.to_owned());
        paths.push(format!("{without_key}/"));
    }
    paths
}

fn placeholder(segment: &str) -> bool {
    segment.starts_with('{')
}

#[cfg(test)]
mod tests {
    use super::axum_paths;

    #[test]
    fn parameters_are_numbered() {
        assert_eq!(
            axum_paths("/_matrix/client/v3/rooms/{room_id}/send/{event_type}/{txn_id}"),
            ["/_matrix/client/v3/rooms/{p1}/send/{p2}/{p3}"]
        );
    }

    #[test]
    fn a_state_key_may_be_left_out() {
        assert_eq!(
            axum_paths("/r/{room_id}/state/{event_type}/{state_key}"),
            ["/r/{p1}/state/{p2}/{p3}", "/r/{p1}/state/{p2}", "/r/{p1}/state/{p2}/"]
        );
    }
}
