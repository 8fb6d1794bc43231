//! Whose invites a user takes.
//!
//! Spec: Client-Server API, "Invite permission" and "Ignoring Users".

use std::collections::BTreeSet;

use messagehub_store::{Snapshot, StoreError, account_data, account_data::Scope};
use ruma::{OwnedServerName, UserId};
use serde::Deserialize;

use crate::ignored;

/// What becomes of an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InvitePermission {
    /// The user is shown it.
    Allowed,
    /// The user ignores the inviter, who is not to know.
    Ignored,
    /// The user takes no invites, or none of that server, and the inviter is told.
    Blocked,
}

/// The account data `m.invite_permission_config`. `blocked_servers` is ours: an identity is a
/// server, and one that is unwanted can make as many users as it likes.
#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    default_action: Option<String>,
    #[serde(default)]
    blocked_servers: BTreeSet<OwnedServerName>,
}

impl Config {
    /// Reads it; one that cannot be read blocks nobody.
    fn load(snap: &Snapshot<'_>, user_id: &UserId) -> Result<Self, StoreError> {
        let stored = account_data::find(snap, user_id, Scope::Global, "m.invite_permission_config");
        Ok(stored?.and_then(|json| serde_json::from_str(json.get()).ok()).unwrap_or_default())
    }

    fn blocks(&self, inviter: &UserId) -> bool {
        self.default_action.as_deref() == Some("block")
            || self.blocked_servers.contains(inviter.server_name())
    }
}

/// What becomes of an invite of a local user.
pub(crate) fn of(
    snap: &Snapshot<'_>,
    invited: &UserId,
    inviter: &UserId,
) -> Result<InvitePermission, StoreError> {
    if Config::load(snap, invited)?.blocks(inviter) {
        return Ok(InvitePermission::Blocked);
    }
    let is_ignored = ignored::Users::load(snap, invited)?.contain(inviter);
    Ok(if is_ignored { InvitePermission::Ignored } else { InvitePermission::Allowed })
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[test]
    fn all_or_one_server_can_be_blocked() {
        let (anna, bob) = (user_id!("@anna:one.example"), user_id!("@bob:two.example"));
        for (json, blocks_anna, blocks_bob) in [
            ("{}", false, false),
            (r#"{"default_action": "block"}"#, true, true),
            (r#"{"default_action": "allow"}"#, false, false),
            (r#"{"blocked_servers": ["two.example"]}"#, false, true),
        ] {
            let config: Config = serde_json::from_str(json).unwrap();
            assert_eq!((config.blocks(anna), config.blocks(bob)), (blocks_anna, blocks_bob));
        }
    }
}
