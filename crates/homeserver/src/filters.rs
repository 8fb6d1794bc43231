//! Filters that clients leave with the server and name in `/sync`.
//!
//! Spec: Client-Server API, "Filtering".

use messagehub_store::{StoreError, filters};
use ruma::{UserId, api::client::filter::FilterDefinition};

use crate::Homeserver;

/// Largest filter, in bytes of JSON.
pub const MAX_FILTER_BYTES: usize = 64 * 1024;

/// Why a filter could not be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The user has no filter of that id.
    #[error("there is no such filter")]
    Unknown,
    /// It is larger than [`MAX_FILTER_BYTES`].
    #[error("the filter is too large")]
    TooLarge,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Keeps a filter and gives its id.
///
/// # Errors
/// See [`FilterError`].
pub async fn insert(
    hs: &Homeserver,
    user_id: &UserId,
    filter: &FilterDefinition,
) -> Result<String, FilterError> {
    let content = serde_json::to_string(filter).map_err(|_| FilterError::TooLarge)?;
    if content.len() > MAX_FILTER_BYTES {
        return Err(FilterError::TooLarge);
    }
    let user_id = user_id.to_owned();
    let id = hs.store.write(move |txn| filters::insert(txn, &user_id, &content)).await?;
    Ok(id.to_string())
}

/// The filter of an id.
///
/// # Errors
/// See [`FilterError`].
pub async fn get(
    hs: &Homeserver,
    user_id: &UserId,
    filter_id: &str,
) -> Result<FilterDefinition, FilterError> {
    let user_id = user_id.to_owned();
    let id: i64 = filter_id.parse().map_err(|_| FilterError::Unknown)?;
    let content = hs
        .store
        .read(move |snap| filters::find(snap, &user_id, id))
        .await?
        .ok_or(FilterError::Unknown)?;
    serde_json::from_str(&content).map_err(|_| FilterError::Unknown)
}
