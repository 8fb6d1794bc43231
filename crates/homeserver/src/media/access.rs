//! Which server may have which media.
//!
//! A peer gets what it could see named: in an event of a room that it is in, or that may be behind
//! the encryption of such a room, where the ids themselves are secrets of 190 bits. It never gets
//! what it named itself, and never makes this node fetch anything.

use messagehub_store::{
    Room, Snapshot, StoreError, media::Media, media_references, memberships, profiles, rooms,
    sharing,
};
use ruma::{
    OwnedServerName, ServerName, UserId,
    events::{
        StateEventType,
        room::{
            avatar::RoomAvatarEventContent,
            join_rules::{JoinRule, RoomJoinRulesEventContent},
        },
    },
};

use super::{MediaAddress, mxc};
use crate::{server::access, view::state_event};

/// Rooms that are looked at for one question. Media that more rooms name are found in one of these.
const MAX_ROOMS: usize = 256;

/// Whether a server may have an item that is here.
///
/// # Errors
/// Fails when the database does.
pub(super) fn may_have(
    snap: &Snapshot<'_>,
    (us, asker): (&ServerName, &ServerName),
    (address, media): (&MediaAddress, &Media),
) -> Result<bool, StoreError> {
    let mxc = mxc(&address.server_name, &address.media_id);
    if is_avatar(snap, media, mxc.as_str())? {
        return Ok(true);
    }
    // Nobody gets media by naming them.
    let named = media_references::list_rooms(snap, mxc.as_str(), Some(asker))?;
    for nid in named.into_iter().take(MAX_ROOMS) {
        let room = rooms::get_by_nid(snap, nid)?;
        let sees = sharing::is_server_in_or_invited(snap, nid, asker)?
            || is_open_avatar(snap, &room, mxc.as_str())?;
        if sees && access::is_admitted(snap, &room, asker)? {
            return Ok(true);
        }
    }
    let uploader = media.user_id.as_deref().and_then(|user_id| <&UserId>::try_from(user_id).ok());
    for nid in memberships::shared_rooms(snap, us, asker)?.into_iter().take(MAX_ROOMS) {
        let is_its_owners = match uploader {
            Some(uploader) => memberships::is_joined(snap, nid, uploader)?,
            None => memberships::is_server_known(snap, nid, &address.server_name)?,
        };
        if !is_its_owners {
            continue;
        }
        let room = rooms::get_by_nid(snap, nid)?;
        if is_encrypted(snap, &room)? && access::is_admitted(snap, &room, asker)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Servers that may hold an item of another server: those in rooms whose events name it, and those
/// in encrypted rooms in which its own server is or was.
///
/// # Errors
/// Fails when the database does.
pub(super) fn list_holders(
    snap: &Snapshot<'_>,
    us: &ServerName,
    address: &MediaAddress,
) -> Result<Vec<OwnedServerName>, StoreError> {
    let mxc = mxc(&address.server_name, &address.media_id);
    let mut rooms_to_ask = media_references::list_rooms(snap, mxc.as_str(), None)?;
    for nid in memberships::shared_rooms(snap, us, us)?.into_iter().take(MAX_ROOMS) {
        if memberships::is_server_known(snap, nid, &address.server_name)?
            && is_encrypted(snap, &rooms::get_by_nid(snap, nid)?)?
        {
            rooms_to_ask.push(nid);
        }
    }
    let mut holders = Vec::new();
    for nid in rooms_to_ask.into_iter().take(MAX_ROOMS) {
        holders.extend(memberships::servers_in(snap, nid)?);
    }
    Ok(holders)
}

/// Whether it is the avatar of the local user who uploaded it: profiles are for everybody.
fn is_avatar(snap: &Snapshot<'_>, media: &Media, mxc: &str) -> Result<bool, StoreError> {
    let uploader = media.user_id.as_deref().and_then(|user_id| <&UserId>::try_from(user_id).ok());
    let Some(uploader) = uploader else { return Ok(false) };
    Ok(profiles::get(snap, uploader)?.avatar_url.is_some_and(|url| url.as_str() == mxc))
}

/// Whether it is the avatar of a room that anybody may join or knock on: they see it before.
fn is_open_avatar(snap: &Snapshot<'_>, room: &Room, mxc: &str) -> Result<bool, StoreError> {
    let rule = state_event(snap, room.state, &StateEventType::RoomJoinRules, "")?.and_then(|pdu| {
        serde_json::from_str::<RoomJoinRulesEventContent>(pdu.content().get()).ok()
    });
    let is_open = rule.is_some_and(|rule| {
        matches!(rule.join_rule, JoinRule::Public | JoinRule::Knock | JoinRule::KnockRestricted(_))
    });
    if !is_open {
        return Ok(false);
    }
    let avatar = state_event(snap, room.state, &StateEventType::RoomAvatar, "")?
        .and_then(|pdu| serde_json::from_str::<RoomAvatarEventContent>(pdu.content().get()).ok());
    Ok(avatar.and_then(|avatar| avatar.url).is_some_and(|url| url.as_str() == mxc))
}

fn is_encrypted(snap: &Snapshot<'_>, room: &Room) -> Result<bool, StoreError> {
    Ok(state_event(snap, room.state, &StateEventType::RoomEncryption, "")?.is_some())
}
