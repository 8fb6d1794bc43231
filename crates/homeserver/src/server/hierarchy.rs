//! A space and its children, for another server.
//!
//! Spec: Server-Server API, "Spaces".

use messagehub_store::{Snapshot, memberships, rooms};
use ruma::{
    OwnedRoomId, OwnedServerName, RoomId, ServerName,
    api::federation::space::{SpaceHierarchyParentSummary, get_hierarchy::v1::Response},
};

use super::access::{AccessError, resident_room};
use crate::{
    Homeserver,
    rooms::{hierarchy, summary},
};

/// What a room is, and its children: those that a user of the asking server could go into, and by
/// their ids those that none could.
///
/// # Errors
/// `UnknownRoom` where the asking server may not know of the room, as where there is none.
pub async fn of(
    hs: &Homeserver,
    origin: OwnedServerName,
    (room_id, suggested_only): (OwnedRoomId, bool),
) -> Result<Response, AccessError> {
    let us = hs.server_name().to_owned();
    hs.store.read(move |snap| tell(snap, (&us, &origin), (&room_id, suggested_only))).await
}

fn tell(
    snap: &Snapshot<'_>,
    (us, origin): (&ServerName, &ServerName),
    (room_id, suggested_only): (&RoomId, bool),
) -> Result<Response, AccessError> {
    let room = resident_room(snap, room_id, us, origin).map_err(hidden)?;
    if !summary::is_open_to_server(snap, &room, origin)? {
        return Err(AccessError::UnknownRoom);
    }
    let summary = summary::of(snap, &room)?;
    let children = hierarchy::children(snap, &room, &summary, suggested_only)?;
    let events = children.iter().map(|child| child.event.clone()).collect();
    let mut response = Response::new(SpaceHierarchyParentSummary::new(summary, events));
    for child in children {
        let Some(room) = rooms::find(snap, &child.room_id)? else { continue };
        // Of what this server is not in, it knows nothing.
        if !memberships::is_server_in(snap, room.nid, us)? {
            continue;
        }
        let is_admitted = super::access::is_admitted(snap, &room, origin)?;
        if is_admitted && summary::is_open_to_server(snap, &room, origin)? {
            response.children.push(summary::of(snap, &room)?);
        } else {
            response.inaccessible_children.push(child.room_id);
        }
    }
    Ok(response)
}

/// The operation knows no other refusal.
fn hidden(error: AccessError) -> AccessError {
    match error {
        AccessError::Store(error) => AccessError::Store(error),
        _ => AccessError::UnknownRoom,
    }
}
