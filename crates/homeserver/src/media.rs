//! The content repository: media of local users, and copies of what other nodes hold.
//!
//! A file is named by the hash of its bytes, so equal uploads are stored once; its `mxc://`
//! address is random, so knowing a file does not tell its address. No path is ever made of
//! anything a client sent.
//!
//! Spec: Client-Server API, "Content Repository".

mod access;
mod fetch;
mod files;
pub mod share;
mod thumbnails;

use std::time::Duration;

use bytes::Bytes;
use messagehub_store::{
    StoreError,
    media::{self, Media},
};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedMxcUri, ServerName, UserId};
use tokio::sync::Semaphore;

use crate::{Homeserver, clock::timestamp, federation::FederationError, peers::RequestError};

pub use messagehub_store::media::MediaAddress;
pub use thumbnails::{Fit, ThumbnailSize};

/// Characters of a media id: 190 random bits, nobody guesses one.
const MEDIA_ID_LENGTH: usize = 32;
/// Longest media id of another server that we ask for.
const MAX_MEDIA_ID: usize = 255;
/// Longest content type and longest file name kept, in bytes.
const MAX_META_BYTES: usize = 255;
/// How long a reserved address waits for its upload, in milliseconds. The specification
/// recommends 24 hours.
const RESERVATION_MS: u64 = 24 * 60 * 60 * 1000;
/// Addresses that one user may have reserved and not filled.
const MAX_RESERVED: u64 = 16;
/// Files in memory at once on their way to other nodes, of which each may ask for many.
const CONCURRENT: usize = 4;
static SERVING: Semaphore = Semaphore::const_new(CONCURRENT);
/// The longest that a download waits for an upload that is under way.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// A file, and what its uploader said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaFile {
    /// The bytes.
    pub bytes: Bytes,
    /// The content type; not to be trusted.
    pub content_type: Option<String>,
    /// The file name; not to be trusted.
    pub filename: Option<String>,
}

/// What a client uploads.
#[derive(Debug)]
pub struct Upload {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The content type as the client stated it.
    pub content_type: Option<String>,
    /// The file name as the client stated it.
    pub filename: Option<String>,
}

/// Which item a client asks for, and how far we may go to get it.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its address.
    pub address: MediaAddress,
    /// Whether other nodes may be asked.
    pub reach: Reach,
    /// How long to wait for an upload that is under way.
    pub wait: Duration,
}

/// Whether other nodes may be asked for an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Only what is here.
    Here,
    /// Other nodes too.
    Everywhere,
}

/// Why there is no such item, or it was not taken.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// There is nothing at that address.
    #[error("there is no such media")]
    Unknown,
    /// The address is reserved, and the upload has not come.
    #[error("the media has not been uploaded yet")]
    NotYetUploaded,
    /// It is larger than the configuration allows.
    #[error("the media is too large")]
    TooLarge,
    /// The user has reserved too many addresses without filling them.
    #[error("too many uploads are pending")]
    TooManyReserved,
    /// The address is filled already.
    #[error("the media was uploaded before")]
    AlreadyUploaded,
    /// The address was reserved by somebody else.
    #[error("the address belongs to another user")]
    NotYours,
    /// The node that has it cannot be reached.
    #[error("the node that has the media cannot be reached")]
    Unreachable,
    /// It is no image, or one that is too large to be decoded.
    #[error("there is no thumbnail of that")]
    NoThumbnail,
    /// Too many thumbnails are being made.
    #[error("too many thumbnails at once")]
    Busy,
    /// The disk failed.
    #[error("media file: {0}")]
    Io(#[from] std::io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Keeps an upload and gives its address.
///
/// # Errors
/// See [`MediaError`].
pub async fn upload(
    hs: &Homeserver,
    user_id: &UserId,
    upload: Upload,
) -> Result<OwnedMxcUri, MediaError> {
    let address = new_address(hs);
    let media = keep(hs, upload, Some(user_id)).await?;
    let uri = uri(&address);
    // The id is random: a collision would be a broken generator, and then nothing is overwritten.
    if !hs.store.write(move |txn| media::insert(txn, &address, &media)).await? {
        return Err(MediaError::AlreadyUploaded);
    }
    Ok(uri)
}

/// Reserves an address for an upload that comes later. Gives it, and when it lapses.
///
/// Spec: Client-Server API, "POST /_matrix/media/v1/create".
///
/// # Errors
/// [`MediaError::TooManyReserved`], or the store failed.
pub async fn reserve(
    hs: &Homeserver,
    user_id: &UserId,
) -> Result<(OwnedMxcUri, MilliSecondsSinceUnixEpoch), MediaError> {
    let (address, now) = (new_address(hs), hs.clock.now());
    let uri = uri(&address);
    let user_id = user_id.to_owned();
    let lapsed = timestamp(u64::from(now.get()).saturating_sub(RESERVATION_MS));
    hs.store
        .write(move |txn| {
            media::remove_stale(txn, &user_id, lapsed)?;
            if media::count_reserved(txn, &user_id, lapsed)? >= MAX_RESERVED {
                return Err(MediaError::TooManyReserved);
            }
            media::insert(txn, &address, &reservation(&user_id, now))?;
            Ok(())
        })
        .await?;
    Ok((uri, timestamp(u64::from(now.get()) + RESERVATION_MS)))
}

/// Keeps an upload at an address that its user reserved.
///
/// Spec: Client-Server API, "PUT /_matrix/media/v3/upload/{serverName}/{mediaId}".
///
/// # Errors
/// See [`MediaError`].
pub async fn fill(
    hs: &Homeserver,
    user_id: &UserId,
    address: MediaAddress,
    upload: Upload,
) -> Result<(), MediaError> {
    if address.server_name != hs.server_name() {
        return Err(MediaError::Unknown);
    }
    let reserved = find(hs, &address).await?.ok_or(MediaError::Unknown)?;
    if reserved.user_id.as_deref() != Some(user_id.as_str()) {
        return Err(MediaError::NotYours);
    }
    if reserved.sha256.is_some() {
        return Err(MediaError::AlreadyUploaded);
    }
    let media = keep(hs, upload, Some(user_id)).await?;
    let filled = hs
        .store
        .write(move |txn| {
            // Nothing in `/sync` changes; the position wakes the downloads that wait.
            txn.next_pos();
            media::fill(txn, &address, &media)
        })
        .await?;
    if filled { Ok(()) } else { Err(MediaError::AlreadyUploaded) }
}

/// The file at an address, from here or from the node that has it.
///
/// # Errors
/// See [`MediaError`].
pub async fn get(hs: &Homeserver, wanted: &Wanted) -> Result<MediaFile, MediaError> {
    if !is_media_id(&wanted.address.media_id) {
        return Err(MediaError::Unknown);
    }
    match found(hs, wanted).await? {
        Some(media) => load(hs, media).await,
        None if wanted.address.server_name == hs.server_name() => Err(MediaError::Unknown),
        None if wanted.reach == Reach::Here => Err(MediaError::Unknown),
        None => {
            let media = fetch::fetch(hs, &wanted.address).await?;
            load(hs, media).await
        }
    }
}

/// A smaller picture of an image, as PNG or JPEG.
///
/// # Errors
/// See [`MediaError`].
pub async fn thumbnail(
    hs: &Homeserver,
    wanted: &Wanted,
    size: ThumbnailSize,
) -> Result<MediaFile, MediaError> {
    let original = get(hs, wanted).await?;
    thumbnails::make(hs.store.media_dir(), original, size).await
}

/// Waits for an item that is being uploaded, at most as long as the client wants.
async fn found(hs: &Homeserver, wanted: &Wanted) -> Result<Option<Media>, MediaError> {
    let mut positions = hs.store.subscribe();
    let wait_over = tokio::time::sleep(wanted.wait.min(MAX_WAIT));
    tokio::pin!(wait_over);
    loop {
        positions.borrow_and_update();
        match find(hs, &wanted.address).await? {
            Some(media) if media.sha256.is_none() => {}
            found => return Ok(found),
        }
        tokio::select! {
            () = &mut wait_over => return Err(MediaError::NotYetUploaded),
            moved = positions.changed() => {
                if moved.is_err() {
                    return Err(MediaError::NotYetUploaded);
                }
            }
        }
    }
}

async fn find(hs: &Homeserver, address: &MediaAddress) -> Result<Option<Media>, StoreError> {
    let address = address.clone();
    hs.store.read(move |snap| media::find(snap, &address.server_name, &address.media_id)).await
}

async fn load(hs: &Homeserver, media: Media) -> Result<MediaFile, MediaError> {
    let Some(sha256) = media.sha256 else { return Err(MediaError::NotYetUploaded) };
    let bytes = files::read(hs.store.media_dir(), sha256).await?;
    Ok(MediaFile { bytes, content_type: media.content_type, filename: media.filename })
}

/// Puts bytes on the disk and gives the row that describes them.
async fn keep(
    hs: &Homeserver,
    upload: Upload,
    user_id: Option<&UserId>,
) -> Result<Media, MediaError> {
    let size = u64::try_from(upload.bytes.len()).unwrap_or(u64::MAX);
    if size > hs.limits.max_upload_bytes {
        return Err(MediaError::TooLarge);
    }
    let sha256 = files::write(hs, upload.bytes).await?;
    Ok(Media {
        sha256: Some(sha256),
        content_type: upload.content_type.and_then(header_text),
        filename: upload.filename.and_then(short_text),
        size,
        user_id: user_id.map(ToString::to_string),
        created_ts: hs.clock.now(),
        description: None,
    })
}

fn reservation(user_id: &UserId, now: MilliSecondsSinceUnixEpoch) -> Media {
    Media {
        sha256: None,
        content_type: None,
        filename: None,
        size: 0,
        user_id: Some(user_id.to_string()),
        created_ts: now,
        description: None,
    }
}

fn new_address(hs: &Homeserver) -> MediaAddress {
    MediaAddress {
        server_name: hs.server_name().to_owned(),
        media_id: hs.rng.alphanumeric(MEDIA_ID_LENGTH),
    }
}

fn uri(address: &MediaAddress) -> OwnedMxcUri {
    mxc(&address.server_name, &address.media_id)
}

fn mxc(server_name: &ServerName, media_id: &str) -> OwnedMxcUri {
    format!("mxc://{server_name}/{media_id}").into()
}

/// Spec: Client-Server API, "Security considerations" of the content repository: the grammar of
/// a media id, which no path trick passes.
fn is_media_id(media_id: &str) -> bool {
    (1..=MAX_MEDIA_ID).contains(&media_id.len())
        && media_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// A content type that can stand in a header, or none.
fn header_text(text: String) -> Option<String> {
    let fits = text.len() <= MAX_META_BYTES && text.bytes().all(|b| matches!(b, b' '..=b'~'));
    (fits && !text.is_empty()).then_some(text)
}

/// A file name without control characters and of bounded length, or none. Path separators do
/// no harm here, since the name is only ever sent back.
fn short_text(text: String) -> Option<String> {
    let fits = text.len() <= MAX_META_BYTES && !text.chars().any(char::is_control);
    (fits && !text.is_empty()).then_some(text)
}

impl From<FederationError> for MediaError {
    fn from(error: FederationError) -> Self {
        match error {
            FederationError::Transport(RequestError::TooLarge) => Self::TooLarge,
            FederationError::Transport(_) => Self::Unreachable,
            FederationError::Refused { status: 404, .. } => Self::Unknown,
            FederationError::Refused { .. } => Self::Unreachable,
            FederationError::BadAnswer(_) | FederationError::BadRequest(_) => Self::Unknown,
            FederationError::Store(error) => Self::Store(error),
        }
    }
}

#[cfg(test)]
mod tests;
