//! The content repository, with and without a token.
//!
//! Spec: Client-Server API, "Content Repository".

use std::time::Duration;

use axum::{Router, middleware, response::Response};
use http::{HeaderName, HeaderValue, header};
use messagehub_homeserver::{
    Homeserver,
    media::{self, Fit, MediaAddress, MediaFile, Reach, ThumbnailSize, Upload, Wanted},
    sessions::Session,
};
use ruma::{
    OwnedServerName, UInt,
    api::{
        IncomingRequest, Metadata,
        client::{
            authenticated_media as with_token,
            media::{
                self as without_token, create_content, create_content_async, create_mxc_uri,
                is_safe_inline_content_type,
            },
            profile::set_display_name,
        },
        error::DeserializationError,
    },
    http_headers::{ContentDisposition, ContentDispositionType},
    media::Method,
};

use crate::{ApiError, endpoint::RumaRoutes};

/// Media comes from strangers and is served on our origin: it may run nothing.
///
/// Spec: Client-Server API, "GET /_matrix/client/v1/media/download", the recommended policy.
const POLICY: &str = "sandbox; default-src 'none'; script-src 'none'; plugin-types \
                      application/pdf; style-src 'unsafe-inline'; object-src 'self';";

pub(crate) fn router() -> Router<Homeserver> {
    let files = Router::new()
        .ruma(download)
        .ruma(download_as)
        .ruma(thumbnail)
        .ruma(download_openly)
        .ruma(download_openly_as)
        .ruma(thumbnail_openly)
        .layer(middleware::map_response(harmless));
    Router::new()
        .ruma_with_limit(upload, upload_limit)
        .ruma_with_limit(upload_later, upload_limit)
        .ruma(reserve)
        .ruma(config)
        .ruma(config_openly)
        .merge(files)
}

fn upload_limit(hs: &Homeserver) -> usize {
    usize::try_from(hs.limits.max_upload_bytes).unwrap_or(usize::MAX)
}

/// Sets the headers under which foreign bytes do no harm in a browser.
async fn harmless(mut response: Response) -> Response {
    let is_success = response.status().is_success();
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(HeaderName::from_static("cross-origin-resource-policy"), "cross-origin");
    if is_success {
        // What stands at an address never changes.
        set(header::CACHE_CONTROL, "private, max-age=86400, immutable");
    }
    response
}

/// `POST /_matrix/media/v3/upload`
async fn upload(
    hs: Homeserver,
    caller: Session,
    req: create_content::v3::Request,
) -> Result<create_content::v3::Response, ApiError> {
    let upload = Upload { bytes: req.file, content_type: req.content_type, filename: req.filename };
    let uri = media::upload(&hs, &caller.user_id, upload).await?;
    Ok(create_content::v3::Response::new(uri))
}

/// `POST /_matrix/media/v1/create`
async fn reserve(
    hs: Homeserver,
    caller: Session,
    _: create_mxc_uri::v1::Request,
) -> Result<create_mxc_uri::v1::Response, ApiError> {
    let (uri, lapses) = media::reserve(&hs, &caller.user_id).await?;
    let mut response = create_mxc_uri::v1::Response::new(uri);
    response.unused_expires_at = Some(lapses);
    Ok(response)
}

/// `PUT /_matrix/media/v3/upload/{serverName}/{mediaId}`
async fn upload_later(
    hs: Homeserver,
    caller: Session,
    UploadLater(req): UploadLater,
) -> Result<Done, ApiError> {
    let address = MediaAddress { server_name: req.server_name, media_id: req.media_id };
    let upload = Upload { bytes: req.file, content_type: req.content_type, filename: req.filename };
    media::fill(&hs, &caller.user_id, address, upload).await?;
    Ok(Done::new())
}

/// The request of ruma, with an answer that can be built: ruma's own has no constructor.
struct UploadLater(create_content_async::v3::Request);

/// An empty object, as [`create_content_async`] answers.
type Done = set_display_name::v3::Response;

impl Metadata for UploadLater {
    const METHOD: http::Method = create_content_async::v3::Request::METHOD;
    const RATE_LIMITED: bool = create_content_async::v3::Request::RATE_LIMITED;
    type Authentication = <create_content_async::v3::Request as Metadata>::Authentication;
    type PathBuilder = <create_content_async::v3::Request as Metadata>::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = create_content_async::v3::Request::PATH_BUILDER;
}

impl IncomingRequest for UploadLater {
    type EndpointError = ruma::api::error::Error;
    type OutgoingResponse = Done;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        create_content_async::v3::Request::try_from_http_request_inner(request, path_args).map(Self)
    }
}

/// `GET /_matrix/client/v1/media/config`
async fn config(
    hs: Homeserver,
    _: Session,
    _: with_token::get_media_config::v1::Request,
) -> Result<with_token::get_media_config::v1::Response, ApiError> {
    Ok(with_token::get_media_config::v1::Response::new(upload_size(&hs)))
}

/// `GET /_matrix/media/v3/config`
#[expect(deprecated, reason = "older clients ask here")]
async fn config_openly(
    hs: Homeserver,
    _: Session,
    _: without_token::get_media_config::v3::Request,
) -> Result<without_token::get_media_config::v3::Response, ApiError> {
    Ok(without_token::get_media_config::v3::Response::new(upload_size(&hs)))
}

fn upload_size(hs: &Homeserver) -> UInt {
    UInt::try_from(hs.limits.max_upload_bytes).unwrap_or(UInt::MAX)
}

/// `GET /_matrix/client/v1/media/download/{serverName}/{mediaId}`
async fn download(
    hs: Homeserver,
    _: Session,
    req: with_token::get_content::v1::Request,
) -> Result<with_token::get_content::v1::Response, ApiError> {
    let wanted = wanted(req.server_name, req.media_id, req.timeout_ms);
    let served = Served::new(media::get(&hs, &wanted).await?);
    Ok(with_token::get_content::v1::Response::new(
        served.file,
        served.content_type,
        served.disposition,
    ))
}

/// `GET /_matrix/client/v1/media/download/{serverName}/{mediaId}/{fileName}`
async fn download_as(
    hs: Homeserver,
    _: Session,
    req: with_token::get_content_as_filename::v1::Request,
) -> Result<with_token::get_content_as_filename::v1::Response, ApiError> {
    let wanted = wanted(req.server_name, req.media_id, req.timeout_ms);
    let served = Served::new(media::get(&hs, &wanted).await?).named(req.filename);
    Ok(with_token::get_content_as_filename::v1::Response::new(
        served.file,
        served.content_type,
        served.disposition,
    ))
}

/// `GET /_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}`
async fn thumbnail(
    hs: Homeserver,
    _: Session,
    req: with_token::get_content_thumbnail::v1::Request,
) -> Result<with_token::get_content_thumbnail::v1::Response, ApiError> {
    let wanted = wanted(req.server_name, req.media_id, req.timeout_ms);
    let size = size(req.width, req.height, req.method.as_ref());
    let served = Served::new(media::thumbnail(&hs, &wanted, size).await?);
    Ok(with_token::get_content_thumbnail::v1::Response::new(
        served.file,
        served.content_type,
        served.disposition,
    ))
}

/// `GET /_matrix/media/v3/download/{serverName}/{mediaId}`
#[expect(deprecated, reason = "older clients load media without a token")]
async fn download_openly(
    hs: Homeserver,
    (): (),
    req: without_token::get_content::v3::Request,
) -> Result<without_token::get_content::v3::Response, ApiError> {
    let wanted = Wanted {
        reach: reach(req.allow_remote),
        ..wanted(req.server_name, req.media_id, req.timeout_ms)
    };
    let served = Served::new(media::get(&hs, &wanted).await?);
    Ok(without_token::get_content::v3::Response::new(
        served.file,
        served.content_type,
        served.disposition,
    ))
}

/// `GET /_matrix/media/v3/download/{serverName}/{mediaId}/{fileName}`
#[expect(deprecated, reason = "older clients load media without a token")]
async fn download_openly_as(
    hs: Homeserver,
    (): (),
    req: without_token::get_content_as_filename::v3::Request,
) -> Result<without_token::get_content_as_filename::v3::Response, ApiError> {
    let wanted = Wanted {
        reach: reach(req.allow_remote),
        ..wanted(req.server_name, req.media_id, req.timeout_ms)
    };
    let served = Served::new(media::get(&hs, &wanted).await?).named(req.filename);
    Ok(without_token::get_content_as_filename::v3::Response::new(
        served.file,
        served.content_type,
        served.disposition,
    ))
}

/// `GET /_matrix/media/v3/thumbnail/{serverName}/{mediaId}`
#[expect(deprecated, reason = "older clients load media without a token")]
async fn thumbnail_openly(
    hs: Homeserver,
    (): (),
    req: without_token::get_content_thumbnail::v3::Request,
) -> Result<without_token::get_content_thumbnail::v3::Response, ApiError> {
    let wanted = Wanted {
        reach: reach(req.allow_remote),
        ..wanted(req.server_name, req.media_id, req.timeout_ms)
    };
    let size = size(req.width, req.height, req.method.as_ref());
    let served = Served::new(media::thumbnail(&hs, &wanted, size).await?);
    Ok(without_token::get_content_thumbnail::v3::Response::new(
        served.file,
        served.content_type,
        served.disposition,
    ))
}

fn wanted(server_name: OwnedServerName, media_id: String, wait: Duration) -> Wanted {
    let address = MediaAddress { server_name, media_id };
    Wanted { address, reach: Reach::Everywhere, wait }
}

/// `allow_remote` as the older operations have it.
fn reach(allow_remote: bool) -> Reach {
    if allow_remote { Reach::Everywhere } else { Reach::Here }
}

fn size(width: UInt, height: UInt, method: Option<&Method>) -> ThumbnailSize {
    let fit = if method == Some(&Method::Crop) { Fit::Fill } else { Fit::Inside };
    let pixels = |side| u32::try_from(u64::from(side)).unwrap_or(u32::MAX);
    ThumbnailSize { width: pixels(width), height: pixels(height), fit }
}

/// A file as it goes into an answer.
struct Served {
    file: Vec<u8>,
    content_type: String,
    disposition: ContentDisposition,
}

impl Served {
    fn new(file: MediaFile) -> Self {
        let content_type =
            file.content_type.unwrap_or_else(|| "application/octet-stream".to_owned());
        // Parameters such as a character set do not change what a browser does with it.
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let kind = if is_safe_inline_content_type(essence) {
            ContentDispositionType::Inline
        } else {
            ContentDispositionType::Attachment
        };
        let disposition = ContentDisposition::new(kind).with_filename(file.filename);
        Self { file: file.bytes.into(), content_type, disposition }
    }

    fn named(mut self, filename: String) -> Self {
        self.disposition.filename = Some(filename);
        self
    }
}
