//! The users whose messages and invites a user does not want to see.
//!
//! Spec: Client-Server API, "Ignoring Users".

use std::collections::BTreeMap;

use messagehub_store::{Snapshot, StoreError, account_data, account_data::Scope};
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, de::IgnoredAny};

#[derive(Deserialize)]
struct Content {
    ignored_users: BTreeMap<OwnedUserId, IgnoredAny>,
}

/// The users that one user ignores.
#[derive(Debug, Default)]
pub(crate) struct Users(Vec<OwnedUserId>);

impl Users {
    /// Reads the list; one that cannot be read is empty.
    pub(crate) fn load(snap: &Snapshot<'_>, user_id: &UserId) -> Result<Self, StoreError> {
        let stored = account_data::find(snap, user_id, Scope::Global, "m.ignored_user_list")?;
        let content = stored.and_then(|json| serde_json::from_str::<Content>(json.get()).ok());
        Ok(Self(content.map(|list| list.ignored_users.into_keys().collect()).unwrap_or_default()))
    }

    /// Whether a user is ignored.
    pub(crate) fn contain(&self, user_id: &UserId) -> bool {
        self.0.iter().any(|ignored| ignored == user_id)
    }
}
