//! Invites that came while this server took itself to be in their room, shown when it learns that it
//! is out: then the room does not tell it of them any more.

use std::collections::BTreeMap;

use messagehub_protocol::{
    pdu::{Pdu, SignedPdu},
    receive,
    rules::rules_of,
    server_keys::KeyRing,
};
use messagehub_store::{
    Room, Snapshot, StoreError, StreamPos, Txn,
    early_invites::{self, EarlyInvite},
    events,
    memberships::{self, NewMembership},
    pending, users,
};
use ruma::{OwnedUserId, UserId, events::room::member::MembershipState};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    append::MemberChange,
    ingest::verify,
    invite_permission::{self, InvitePermission},
};

/// Shows local users who are out of a room the best of the invites to it that wait: one of a server
/// that is in the room, and of these the deepest. `members` gets what changes by that.
///
/// # Errors
/// Fails when the database does.
pub(crate) fn show(
    txn: &mut Txn<'_>,
    room: &Room,
    members: &mut Vec<MemberChange>,
    pos: StreamPos,
) -> Result<(), StoreError> {
    let mut best: BTreeMap<OwnedUserId, (_, SignedPdu, String)> = BTreeMap::new();
    for EarlyInvite { user_id, json, stripped } in early_invites::take(txn, room.nid)? {
        let Some(invite) = checked(txn, room, json)? else { continue };
        let pdu = invite.pdu();
        if !is_of_use(txn, room, &user_id, pdu)? {
            continue;
        }
        let is_member = memberships::is_server_in(txn, room.nid, pdu.sender().server_name())?;
        let rank = (is_member, pdu.depth());
        if best.get(&user_id).is_none_or(|(other, ..)| *other < rank) {
            best.insert(user_id, (rank, invite, stripped));
        }
    }
    for (user_id, (_, invite, stripped)) in best {
        let nid = events::insert_outlier(txn, room, &receive::accept_unplaced(invite))?;
        let before = memberships::find(txn, room.nid, &user_id)?.map(|member| member.membership);
        let now = MembershipState::Invite;
        let new =
            NewMembership { membership: &now, event: Some(nid), pos, stripped: Some(&stripped) };
        memberships::set(txn, room.nid, &user_id, new)?;
        match members.iter_mut().find(|member| member.user_id == user_id) {
            Some(member) => member.now = now,
            None => members.push(MemberChange { user_id, before, now }),
        }
    }
    Ok(())
}

/// The event with its signatures checked again: what waited is bytes.
fn checked(
    snap: &Snapshot<'_>,
    room: &Room,
    json: String,
) -> Result<Option<SignedPdu>, StoreError> {
    let Some(rules) = rules_of(&room.version) else { return Ok(None) };
    let Ok(json) = RawValue::from_string(json) else { return Ok(None) };
    let Ok(event) = verify::well_formed(json, &room.room_id, rules) else { return Ok(None) };
    Ok(verify::signed(snap, event, &KeyRing::new())?.ok())
}

/// Whether an invite is to be shown now. Where the room brought it too, the room's state has said
/// what became of it.
fn is_of_use(
    snap: &Snapshot<'_>,
    room: &Room,
    user_id: &UserId,
    invite: &Pdu,
) -> Result<bool, StoreError> {
    let member = memberships::find(snap, room.nid, user_id)?;
    let is_out = member.as_ref().is_none_or(|member| member.membership == MembershipState::Leave);
    let last = member.and_then(|member| member.event);
    let last = last.map(|nid| events::pdu(snap, nid)).transpose()?;
    let is_taken_back = last.is_some_and(|last| {
        last.auth_events().iter().any(|event_id| event_id == invite.event_id())
    });
    let permission = invite_permission::of(snap, user_id, invite.sender())?;
    Ok(is_out
        && !is_taken_back
        && !waits_to_be_taken_back(snap, room, user_id, invite)?
        && !verify::is_placed(snap, invite.event_id())?
        && permission == InvitePermission::Allowed
        && users::is_active(snap, user_id)?)
}

/// Whether another membership of the user that rests on the invite waits for its place, which it
/// does not get any more.
fn waits_to_be_taken_back(
    snap: &Snapshot<'_>,
    room: &Room,
    user_id: &UserId,
    invite: &Pdu,
) -> Result<bool, StoreError> {
    #[derive(Deserialize)]
    struct Claim {
        r#type: String,
        state_key: Option<String>,
        auth_events: Vec<String>,
    }
    let rests_on_it = |claim: Claim| {
        claim.r#type == "m.room.member"
            && claim.state_key.as_deref() == Some(user_id.as_str())
            && claim.auth_events.iter().any(|event_id| event_id == invite.event_id().as_str())
    };
    let waiting = pending::list(snap, &room.room_id)?;
    Ok(waiting.iter().filter_map(|event| serde_json::from_str(&event.json).ok()).any(rests_on_it))
}
