//! The people whom a user meets in rooms.

use std::collections::HashSet;

use messagehub_store::{Snapshot, StoreError, events, memberships};
use ruma::{OwnedMxcUri, UserId, events::room::member::MembershipState};
use serde::Deserialize;

use super::FoundUser;

/// Members looked at in one search. A person knows fewer; the members of a crowd beyond this
/// are found by their full user id.
const MAX_MEMBERS: usize = 5_000;

/// The joined and invited members of the rooms that a user is joined to, each once, with the
/// name and avatar that the room shows.
pub(super) fn members(snap: &Snapshot<'_>, user_id: &UserId) -> Result<Vec<FoundUser>, StoreError> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for room in memberships::rooms_of(snap, user_id, &MembershipState::Join)? {
        for member in memberships::list(snap, room)? {
            let is_there =
                matches!(member.membership, MembershipState::Join | MembershipState::Invite);
            let Some(event) = member.event.filter(|_| is_there) else { continue };
            if found.len() >= MAX_MEMBERS {
                return Ok(found);
            }
            if seen.insert(member.user_id.clone()) {
                let shown = events::pdu(snap, event)?;
                let shown: Shown = serde_json::from_str(shown.content().get()).unwrap_or_default();
                found.push(FoundUser {
                    user_id: member.user_id,
                    displayname: shown.displayname,
                    avatar_url: shown.avatar_url,
                });
            }
        }
    }
    Ok(found)
}

/// The part of a member event that is shown.
#[derive(Default, Deserialize)]
struct Shown {
    displayname: Option<String>,
    avatar_url: Option<OwnedMxcUri>,
}
