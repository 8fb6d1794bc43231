//! Fetching media of another server: from that server, else from whoever may hold a copy. A copy is
//! believed when it is what its own server signed, or has the hash that an event names.

use std::time::Duration;

use messagehub_protocol::wire::media::{DESCRIPTION_PATH, MEDIA_PATH, MediaDescription};
use messagehub_store::{
    StoreError,
    media::{self, Media},
    media_references, server_keys,
};
use ruma::{
    OwnedServerName, ServerName,
    api::federation::authenticated_media::{FileOrLocation, get_content},
};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::{MediaAddress, MediaError, Upload, access, keep, mxc, share::Described};
use crate::{
    Homeserver,
    federation::{self, ASK_TIMEOUT, Call, FederationError, path_segment, route},
};

/// How long fetching media from another node may take: 50 MB over a slow home connection.
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);

/// Files in memory at once on their way from other nodes: what a client shows on one screen.
const CONCURRENT: usize = 8;
static FETCHING: Semaphore = Semaphore::const_new(CONCURRENT);

/// Fetches an item and keeps a copy, with its description so that it can be passed on.
///
/// # Errors
/// See [`MediaError`].
pub(super) async fn fetch(hs: &Homeserver, address: &MediaAddress) -> Result<Media, MediaError> {
    let _turn = FETCHING.acquire().await.map_err(|_| MediaError::Busy)?;
    let (us, wanted) = (hs.server_name().to_owned(), address.clone());
    let (holders, hashes) = hs
        .store
        .read(move |snap| {
            let mxc = mxc(&wanted.server_name, &wanted.media_id);
            let holders = access::list_holders(snap, &us, &wanted)?;
            Ok::<_, StoreError>((holders, media_references::list_hashes(snap, mxc.as_str())?))
        })
        .await?;
    let mut error = match from_owner(hs, address).await {
        Ok((upload, description)) => return store(hs, address, upload, description).await,
        Err(error @ (MediaError::Store(_) | MediaError::Io(_) | MediaError::TooLarge)) => {
            return Err(error);
        }
        Err(error) => error,
    };
    let mut holders = route::ordered(hs, holders, None);
    holders.retain(|server| *server != address.server_name && hs.peers.is_connected(server));
    for holder in holders {
        match from_member(hs, &holder, address, &hashes).await {
            Ok((upload, description)) => return store(hs, address, upload, description).await,
            Err(failed @ (MediaError::Store(_) | MediaError::Io(_))) => return Err(failed),
            Err(failed) => {
                tracing::debug!(%holder, %failed, "a member did not give media");
                // That one cannot be reached says more than that another does not have it.
                if matches!(error, MediaError::Unknown) {
                    error = failed;
                }
            }
        }
    }
    Err(error)
}

/// What was fetched, and what its server says of it.
type Fetched = (Upload, Option<String>);

/// From the server whose it is. That it is what that server gives follows from the connection.
async fn from_owner(hs: &Homeserver, address: &MediaAddress) -> Result<Fetched, MediaError> {
    let described = match describe(hs, &address.server_name, address).await {
        Ok(described) => Some(described),
        // A server that describes nothing, or knows of no such item: the next answer tells.
        Err(FederationError::Refused { status: 404 | 405, .. } | FederationError::BadAnswer(_)) => {
            None
        }
        Err(error) => return Err(error.into()),
    };
    let request = get_content::v1::Request::new(address.media_id.clone());
    let answer = federation::ask(hs, &address.server_name, request, FETCH_TIMEOUT).await?;
    let FileOrLocation::File(content) = answer.content else {
        // A location would let another node make us fetch from anywhere.
        return Err(MediaError::Unknown);
    };
    let upload = Upload {
        bytes: content.file,
        content_type: content.content_type,
        filename: content.content_disposition.and_then(|disposition| disposition.filename),
    };
    // A description that is of other bytes is of no use to anybody.
    let described = described.filter(|(read, _)| read.describes(&upload.bytes));
    Ok((upload, described.map(|(_, json)| json)))
}

/// From another server, which is believed nothing.
async fn from_member(
    hs: &Homeserver,
    holder: &OwnedServerName,
    address: &MediaAddress,
    hashes: &[[u8; 32]],
) -> Result<Fetched, MediaError> {
    let described = match describe(hs, holder, address).await {
        Ok(described) => Some(described),
        Err(FederationError::Refused { status: 404, .. } | FederationError::BadAnswer(_))
            if !hashes.is_empty() =>
        {
            None
        }
        Err(error) => return Err(error.into()),
    };
    if described.as_ref().is_some_and(|(read, _)| read.length > hs.limits.max_upload_bytes) {
        return Err(MediaError::TooLarge);
    }
    let call = Call { method: http::Method::GET, uri: uri(MEDIA_PATH, address), body: Vec::new() };
    let bytes = federation::ask_raw(hs, holder, call, FETCH_TIMEOUT).await?;
    let is_right = match &described {
        Some((read, _)) => read.describes(&bytes),
        None => hashes.contains(&Sha256::digest(&bytes).into()),
    };
    if !is_right {
        tracing::warn!(%holder, server = %address.server_name, "a member gave wrong bytes");
        return Err(MediaError::Unknown);
    }
    let (read, json) = described.unzip();
    let (content_type, filename) =
        read.map_or((None, None), |read| (read.content_type, read.filename));
    Ok((Upload { bytes: bytes.into(), content_type, filename }, json))
}

/// What the item's own server signed, as `from` tells it.
async fn describe(
    hs: &Homeserver,
    from: &ServerName,
    address: &MediaAddress,
) -> Result<(MediaDescription, String), FederationError> {
    let uri = uri(DESCRIPTION_PATH, address);
    let call = Call { method: http::Method::GET, uri, body: Vec::new() };
    let told: Described = federation::ask_json(hs, from, call, ASK_TIMEOUT).await?;
    let server = address.server_name.clone();
    let keys = hs.store.read(move |snap| server_keys::find(snap, &server)).await?;
    let keys = keys.ok_or_else(|| FederationError::BadAnswer("no keys of the owner".to_owned()))?;
    let mxc = mxc(&address.server_name, &address.media_id);
    let json = told.description.get();
    let read = MediaDescription::verify(json, mxc.as_str(), &keys)
        .map_err(|error| FederationError::BadAnswer(error.to_string()))?;
    Ok((read, json.to_owned()))
}

async fn store(
    hs: &Homeserver,
    address: &MediaAddress,
    upload: Upload,
    description: Option<String>,
) -> Result<Media, MediaError> {
    let media = Media { description, ..keep(hs, upload, None).await? };
    let (new, to) = (media.clone(), address.clone());
    // Somebody else may have fetched it meanwhile; then theirs stays.
    hs.store.write(move |txn| media::insert(txn, &to, &new)).await?;
    Ok(media)
}

fn uri(path: &str, address: &MediaAddress) -> String {
    let (server, id) = (&address.server_name, &address.media_id);
    format!("{path}/{}/{}", path_segment(server.as_str()), path_segment(id))
}
