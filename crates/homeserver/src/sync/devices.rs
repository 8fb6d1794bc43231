//! What encryption needs of a sync: messages for the device, whose devices changed, and how many of
//! the device's own keys are left.
//!
//! Spec: Client-Server API, "Send-to-Device messaging" and "End-to-End Encryption", "Extensions to
//! /sync".

use std::collections::{BTreeMap, BTreeSet};

use messagehub_store::{
    Room, RoomNid, Snapshot, StoreError, StreamPos, changes, cross_signing,
    device_lists::list_changed_since, events, memberships, one_time_keys, room_state, rooms,
    sharing, to_device,
};
use ruma::{
    OneTimeKeyAlgorithm, OwnedUserId, UInt, UserId,
    api::client::sync::sync_events::{DeviceLists, v3::Response},
    events::{AnyToDeviceEvent, StateEventType, room::member::MembershipState},
    serde::Raw,
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{Context, token::SyncToken};
use crate::visibility::membership_in;

/// Messages for a device in one answer; the specification recommends 100.
const MAX_MESSAGES: usize = 100;

/// Adds all of it to an answer, and says whether any of it is news. `since` is none for the first
/// answer of a client.
pub(super) fn add(
    cx: &Context<'_>,
    since: Option<SyncToken>,
    met: &Met,
    response: &mut Response,
) -> Result<bool, StoreError> {
    let device = (&*cx.wanted.user_id, &*cx.wanted.device_id);
    let after = since.map_or(StreamPos(i64::MIN), |since| since.to_device);
    let mut messages = to_device::list(cx.snap, device, after, MAX_MESSAGES + 1)?;
    let mut token = SyncToken { pos: cx.until, to_device: cx.until };
    if messages.len() > MAX_MESSAGES {
        messages.truncate(MAX_MESSAGES);
        token.to_device = messages.last().map_or(cx.until, |message| message.pos);
    }
    response.next_batch = token.text();
    response.to_device.events = messages
        .iter()
        .filter_map(|message| event(&message.kind, &message.sender, &message.content))
        .collect();
    response.device_one_time_keys_count = counts(cx, device)?;
    let unused = one_time_keys::list_unused_fallbacks(cx.snap, device)?;
    response.device_unused_fallback_key_types =
        Some(unused.into_iter().map(OneTimeKeyAlgorithm::from).collect());
    let Some(since) = since else { return Ok(!messages.is_empty()) };
    response.device_lists = lists(cx.snap, &cx.wanted.user_id, (since.pos, met))?;
    Ok(!messages.is_empty()
        || !response.device_lists.is_empty()
        || one_time_keys::changed_at(cx.snap, device)? > since.pos)
}

fn counts(
    cx: &Context<'_>,
    device: one_time_keys::Device<'_>,
) -> Result<BTreeMap<OneTimeKeyAlgorithm, UInt>, StoreError> {
    // Clients take what is not counted for unknown, and not for none.
    let none = (OneTimeKeyAlgorithm::SignedCurve25519, UInt::MIN);
    let mut counts = BTreeMap::from([none]);
    for (algorithm, count) in one_time_keys::count(cx.snap, device)? {
        let count = UInt::try_from(count).unwrap_or(UInt::MAX);
        counts.insert(OneTimeKeyAlgorithm::from(algorithm), count);
    }
    Ok(counts)
}

/// Whose devices a user has to look at again since a position, and whose no longer.
///
/// # Errors
/// Fails when the database does.
pub(crate) fn lists(
    snap: &Snapshot<'_>,
    user_id: &UserId,
    (since, met): (StreamPos, &Met),
) -> Result<DeviceLists, StoreError> {
    let mut changed: BTreeSet<OwnedUserId> = BTreeSet::new();
    for other in list_changed_since(snap, since)? {
        if other == user_id || sharing::do_users(snap, user_id, &other)? {
            changed.insert(other);
        }
    }
    changed.extend(cross_signing::list_signed_since(snap, user_id, since)?);
    changed.extend(met.came.iter().cloned());
    let mut lists = DeviceLists::new();
    for other in &met.went {
        if !changed.contains(other) && !sharing::do_users(snap, user_id, other)? {
            lists.left.push(other.clone());
        }
    }
    lists.changed = changed.into_iter().collect();
    Ok(lists)
}

/// With whom a user came together, and from whom they parted.
#[derive(Debug, Default)]
pub(crate) struct Met {
    /// Now joined to a room of the user's, and was not before, or the user was not.
    pub(super) came: BTreeSet<OwnedUserId>,
    /// The other way round; they may share another room.
    went: BTreeSet<OwnedUserId>,
}

/// Whom a user met in rooms since a position.
///
/// # Errors
/// Fails when the database does.
pub(crate) fn met(
    snap: &Snapshot<'_>,
    user_id: &UserId,
    since: StreamPos,
) -> Result<Met, StoreError> {
    let mut met = Met::default();
    for nid in rooms_changed(snap, user_id, since)? {
        let room = rooms::get_by_nid(snap, nid)?;
        let known = rooms::state_at(snap, nid, since)?;
        if known == room.state {
            continue;
        }
        let is_in = memberships::is_joined(snap, nid, user_id)?;
        match (membership_at(snap, known, user_id)? == Some(MembershipState::Join), is_in) {
            (false, false) => {}
            (false, true) => met.came.extend(memberships::list_joined(snap, nid)?),
            (true, false) => {
                met.went.extend(memberships::list_joined(snap, nid)?);
                let moved = moved(snap, &room, known)?;
                met.went.extend(moved.into_iter().filter(|it| it.1).map(|it| it.0));
            }
            (true, true) => {
                for (other, was_in, is_in) in moved(snap, &room, known)? {
                    match (was_in, is_in) {
                        (false, true) => met.came.insert(other),
                        (true, false) => met.went.insert(other),
                        _ => false,
                    };
                }
            }
        }
    }
    met.came.remove(user_id);
    met.went.remove(user_id);
    Ok(met)
}

/// The rooms in which something happened since a position that a user may be part of.
fn rooms_changed(
    snap: &Snapshot<'_>,
    user_id: &UserId,
    since: StreamPos,
) -> Result<BTreeSet<RoomNid>, StoreError> {
    let until = snap.position()?;
    let moved = memberships::list_of_user_since(snap, user_id, since)?;
    let mut found: BTreeSet<RoomNid> = moved.into_iter().map(|member| member.room).collect();
    match changes::list_rooms(snap, since, until)? {
        Some(rooms) => found.extend(rooms),
        None => found.extend(memberships::rooms_of(snap, user_id, &MembershipState::Join)?),
    }
    Ok(found)
}

/// Whose membership differs between a state and the current one: whether they were joined, and are.
fn moved(
    snap: &Snapshot<'_>,
    room: &Room,
    known: messagehub_store::StateNid,
) -> Result<Vec<(OwnedUserId, bool, bool)>, StoreError> {
    let mut moved = Vec::new();
    for change in room_state::diff(snap, known, room.state)? {
        let Ok(user_id) = OwnedUserId::try_from(change.state_key) else { continue };
        if change.kind != StateEventType::RoomMember {
            continue;
        }
        let is_join = |event| {
            let Some(event) = event else { return Ok(false) };
            let membership = membership_in(&*events::pdu(snap, event)?);
            Ok::<_, StoreError>(membership == Some(MembershipState::Join))
        };
        moved.push((user_id, is_join(change.before)?, is_join(change.after)?));
    }
    Ok(moved)
}

fn membership_at(
    snap: &Snapshot<'_>,
    state: messagehub_store::StateNid,
    user_id: &UserId,
) -> Result<Option<MembershipState>, StoreError> {
    let kind = StateEventType::RoomMember;
    let Some(nid) = room_state::get(snap, state, &kind, user_id.as_str())? else { return Ok(None) };
    Ok(membership_in(&*events::pdu(snap, nid)?))
}

fn event(kind: &str, sender: &UserId, content: &RawValue) -> Option<Raw<AnyToDeviceEvent>> {
    #[derive(Serialize)]
    struct Event<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        sender: &'a UserId,
        content: &'a RawValue,
    }
    // Strings and what is JSON already always become JSON.
    to_raw_value(&Event { kind, sender, content }).ok().map(Raw::from_json)
}
