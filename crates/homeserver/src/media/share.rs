//! Giving media to other servers: our own, and those of others that are here.
//!
//! Spec: Server-Server API, "Content Repository"; and operations of our own, see `docs/wire.md`.

use messagehub_protocol::wire::media::MediaDescription;
use messagehub_store::{StoreError, media::Media, server_keys};
use ruma::OwnedServerName;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    MediaAddress, MediaError, MediaFile, SERVING, ThumbnailSize, access, find, is_media_id, load,
    mxc, thumbnails,
};
use crate::Homeserver;

/// What a server gives of an item beside its bytes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Described {
    /// The description that the item's own server signed.
    pub description: Box<RawValue>,
    /// The keys of that server.
    #[serde(default)]
    pub server_keys: Vec<Box<RawValue>>,
}

/// The file of an item, for a server that may have it. Whether there is one that it may not have
/// is not told.
///
/// # Errors
/// See [`MediaError`].
pub async fn file(
    hs: &Homeserver,
    asker: OwnedServerName,
    address: MediaAddress,
) -> Result<MediaFile, MediaError> {
    let _turn = SERVING.acquire().await.map_err(|_| MediaError::Busy)?;
    let media = allowed(hs, asker, &address).await?;
    load(hs, media).await
}

/// A smaller picture of one of our own images, for a server that may have it.
///
/// # Errors
/// See [`MediaError`].
pub async fn smaller(
    hs: &Homeserver,
    asker: OwnedServerName,
    address: MediaAddress,
    size: ThumbnailSize,
) -> Result<MediaFile, MediaError> {
    let _turn = SERVING.acquire().await.map_err(|_| MediaError::Busy)?;
    let media = allowed(hs, asker, &address).await?;
    thumbnails::make(hs.store.media_dir(), load(hs, media).await?, size).await
}

/// What the own server of an item says of it, for a server that may have it.
///
/// # Errors
/// See [`MediaError`]; also [`MediaError::Unknown`] where nobody said anything.
pub async fn description(
    hs: &Homeserver,
    asker: OwnedServerName,
    address: MediaAddress,
) -> Result<Described, MediaError> {
    let media = allowed(hs, asker, &address).await?;
    if address.server_name == hs.server_name() {
        return Ok(Described {
            description: json(describe(hs, &address, &media)?)?,
            server_keys: vec![hs.identity.server_keys().json().to_owned()],
        });
    }
    let description = json(media.description.ok_or(MediaError::Unknown)?)?;
    let server = address.server_name;
    let keys = hs.store.read(move |snap| server_keys::find(snap, &server)).await?;
    let server_keys = keys.into_iter().map(|keys| keys.json().to_owned()).collect();
    Ok(Described { description, server_keys })
}

/// Signs the description of an item of our own: with the key of today, whenever somebody asks.
fn describe(hs: &Homeserver, address: &MediaAddress, media: &Media) -> Result<String, MediaError> {
    let hash = media.sha256.as_deref().ok_or(MediaError::NotYetUploaded)?;
    let sha256 = data_encoding::HEXLOWER
        .decode(hash.as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| StoreError::Damaged(format!("the hash of {}", address.media_id)))?;
    let description = MediaDescription {
        mxc: mxc(&address.server_name, &address.media_id).to_string(),
        sha256,
        length: media.size,
        content_type: media.content_type.clone(),
        filename: media.filename.clone(),
        created_ts: hs.clock.now(),
    };
    Ok(description.sign(hs.server_name(), hs.identity.verify_key()))
}

async fn allowed(
    hs: &Homeserver,
    asker: OwnedServerName,
    address: &MediaAddress,
) -> Result<Media, MediaError> {
    if !is_media_id(&address.media_id) {
        return Err(MediaError::Unknown);
    }
    let media = find(hs, address).await?.ok_or(MediaError::Unknown)?;
    let (us, address, there) = (hs.server_name().to_owned(), address.clone(), media.clone());
    let may = hs
        .store
        .read(move |snap| access::may_have(snap, (&us, &asker), (&address, &there)))
        .await?;
    match (may, &media.sha256) {
        (false, _) => Err(MediaError::Unknown),
        (true, None) => Err(MediaError::NotYetUploaded),
        (true, Some(_)) => Ok(media),
    }
}

fn json(text: String) -> Result<Box<RawValue>, StoreError> {
    RawValue::from_string(text).map_err(|error| StoreError::Damaged(error.to_string()))
}
