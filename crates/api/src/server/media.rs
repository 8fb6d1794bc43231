//! Spec: Server-Server API, "Content Repository"; and passing media of other servers on, which are
//! operations of our own.

use axum::Router;
use http::HeaderValue;
use messagehub_homeserver::{
    Homeserver,
    media::{Fit, MediaAddress, MediaFile, ThumbnailSize, share},
};
use messagehub_protocol::wire::media::{DESCRIPTION_ENDPOINT, MEDIA_ENDPOINT};
use ruma::{
    OwnedServerName, UInt,
    api::{
        IncomingRequest, Metadata, OutgoingBody, OutgoingResponse,
        error::{DeserializationError, IntoHttpError},
        federation::{
            authenticated_media::{
                Content, ContentMetadata, FileOrLocation, get_content, get_content_thumbnail,
            },
            authentication::ServerSignatures,
        },
        path_builder::SinglePath,
    },
    http_headers::{ContentDisposition, ContentDispositionType},
    media::Method,
};

use super::{auth::Origin, keyed::JsonAnswer};
use crate::{ApiError, endpoint::RumaRoutes};

pub(super) fn router() -> Router<Homeserver> {
    Router::new().ruma(download).ruma(thumbnail).ruma(bytes).ruma(description)
}

/// `GET /_matrix/federation/v1/media/download/{mediaId}`
async fn download(
    hs: Homeserver,
    Origin(origin): Origin,
    request: get_content::v1::Request,
) -> Result<get_content::v1::Response, ApiError> {
    let file = share::file(&hs, origin, ours(&hs, request.media_id)).await?;
    Ok(get_content::v1::Response::new(ContentMetadata::new(), content(file)))
}

/// `GET /_matrix/federation/v1/media/thumbnail/{mediaId}`
async fn thumbnail(
    hs: Homeserver,
    Origin(origin): Origin,
    request: get_content_thumbnail::v1::Request,
) -> Result<get_content_thumbnail::v1::Response, ApiError> {
    let fit = if request.method == Some(Method::Crop) { Fit::Fill } else { Fit::Inside };
    let pixels = |side: UInt| u32::try_from(u64::from(side)).unwrap_or(u32::MAX);
    let size = ThumbnailSize { width: pixels(request.width), height: pixels(request.height), fit };
    let file = share::smaller(&hs, origin, ours(&hs, request.media_id), size).await?;
    Ok(get_content_thumbnail::v1::Response::new(ContentMetadata::new(), content(file)))
}

/// `GET /_matrix/federation/unstable/net.messagehub/media/{serverName}/{mediaId}`
async fn bytes(
    hs: Homeserver,
    Origin(origin): Origin,
    GetBytes(address): GetBytes,
) -> Result<Bytes, ApiError> {
    Ok(Bytes(share::file(&hs, origin, address).await?.bytes.into()))
}

/// `GET /_matrix/federation/unstable/net.messagehub/media_description/{serverName}/{mediaId}`
async fn description(
    hs: Homeserver,
    Origin(origin): Origin,
    GetDescription(address): GetDescription,
) -> Result<JsonAnswer<share::Described>, ApiError> {
    Ok(JsonAnswer(share::description(&hs, origin, address).await?))
}

fn ours(hs: &Homeserver, media_id: String) -> MediaAddress {
    MediaAddress { server_name: hs.server_name().to_owned(), media_id }
}

fn content(file: MediaFile) -> FileOrLocation {
    let kind = file.content_type.unwrap_or_else(|| "application/octet-stream".to_owned());
    let disposition =
        ContentDisposition::new(ContentDispositionType::Attachment).with_filename(file.filename);
    FileOrLocation::File(Content::new(file.bytes.into(), kind, disposition))
}

/// The operation, in the form in which ruma has those of the specification.
struct GetBytes(MediaAddress);

impl Metadata for GetBytes {
    const METHOD: http::Method = http::Method::GET;
    const RATE_LIMITED: bool = true;
    type Authentication = ServerSignatures;
    type PathBuilder = SinglePath;
    const PATH_BUILDER: SinglePath = SinglePath::new(MEDIA_ENDPOINT);
}

impl IncomingRequest for GetBytes {
    type EndpointError = ruma::api::error::Error;
    type OutgoingResponse = Bytes;

    fn try_from_http_request_inner(
        _: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        address(path_args).map(Self)
    }
}

/// The operation, in the form in which ruma has those of the specification.
struct GetDescription(MediaAddress);

impl Metadata for GetDescription {
    const METHOD: http::Method = http::Method::GET;
    const RATE_LIMITED: bool = true;
    type Authentication = ServerSignatures;
    type PathBuilder = SinglePath;
    const PATH_BUILDER: SinglePath = SinglePath::new(DESCRIPTION_ENDPOINT);
}

impl IncomingRequest for GetDescription {
    type EndpointError = ruma::api::error::Error;
    type OutgoingResponse = JsonAnswer<share::Described>;

    fn try_from_http_request_inner(
        _: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        address(path_args).map(Self)
    }
}

fn address(path_args: &[&str]) -> Result<MediaAddress, DeserializationError> {
    let json = |text: &str| DeserializationError::Json(serde::de::Error::custom(text));
    let [server, media_id] = path_args else { return Err(json("a server and a media id")) };
    let server_name = OwnedServerName::try_from(*server).map_err(|_| json("no server name"))?;
    Ok(MediaAddress { server_name, media_id: (*media_id).to_owned() })
}

/// Bytes as they are.
#[derive(Debug)]
struct Bytes(Vec<u8>);

impl OutgoingResponse for Bytes {
    type Body = Self;

    fn try_into_http_response_inner(self) -> Result<http::Response<Self>, IntoHttpError> {
        Ok(http::Response::new(self))
    }
}

impl OutgoingBody for Bytes {
    type Error = IntoHttpError;

    fn content_type(&self) -> Option<HeaderValue> {
        Some(HeaderValue::from_static("application/octet-stream"))
    }

    fn try_into_buf<T: Default + bytes::BufMut + AsRef<[u8]>>(self) -> Result<T, IntoHttpError> {
        let mut buffer = T::default();
        buffer.put_slice(&self.0);
        Ok(buffer)
    }
}
