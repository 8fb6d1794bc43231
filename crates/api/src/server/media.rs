//! Spec: Server-Server API, "Content Repository".

use std::time::Duration;

use axum::Router;
use messagehub_homeserver::{
    Homeserver,
    media::{self, Fit, MediaAddress, MediaFile, Reach, ThumbnailSize, Wanted},
};
use ruma::{
    UInt,
    api::federation::authenticated_media::{
        Content, ContentMetadata, FileOrLocation, get_content, get_content_thumbnail,
    },
    http_headers::{ContentDisposition, ContentDispositionType},
    media::Method,
};

use super::auth::Origin;
use crate::{ApiError, endpoint::RumaRoutes};

pub(super) fn router() -> Router<Homeserver> {
    Router::new().ruma(download).ruma(thumbnail)
}

/// `GET /_matrix/federation/v1/media/download/{mediaId}`
async fn download(
    hs: Homeserver,
    _: Origin,
    request: get_content::v1::Request,
) -> Result<get_content::v1::Response, ApiError> {
    let file = media::local(&hs, &request.media_id).await?;
    Ok(get_content::v1::Response::new(ContentMetadata::new(), content(file)))
}

/// `GET /_matrix/federation/v1/media/thumbnail/{mediaId}`
async fn thumbnail(
    hs: Homeserver,
    _: Origin,
    request: get_content_thumbnail::v1::Request,
) -> Result<get_content_thumbnail::v1::Response, ApiError> {
    let address =
        MediaAddress { server_name: hs.server_name().to_owned(), media_id: request.media_id };
    // As with a download, another node does not wait here for an upload.
    let wanted = Wanted { address, reach: Reach::Here, wait: Duration::ZERO };
    let fit = if request.method == Some(Method::Crop) { Fit::Fill } else { Fit::Inside };
    let pixels = |side: UInt| u32::try_from(u64::from(side)).unwrap_or(u32::MAX);
    let size = ThumbnailSize { width: pixels(request.width), height: pixels(request.height), fit };
    let file = media::thumbnail(&hs, &wanted, size).await?;
    Ok(get_content_thumbnail::v1::Response::new(ContentMetadata::new(), content(file)))
}

fn content(file: MediaFile) -> FileOrLocation {
    let kind = file.content_type.unwrap_or_else(|| "application/octet-stream".to_owned());
    let disposition =
        ContentDisposition::new(ContentDispositionType::Attachment).with_filename(file.filename);
    FileOrLocation::File(Content::new(file.bytes.into(), kind, disposition))
}
