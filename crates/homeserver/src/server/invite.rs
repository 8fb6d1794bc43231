//! Invites from other servers to users of this one.
//!
//! Spec: Server-Server API, "Inviting to a room".

use std::sync::Arc;

use messagehub_protocol::{
    build::Signer,
    pdu::{Pdu, SignedPdu},
    receive,
    rules::rules_of,
    server_keys::KeyRing,
};
use messagehub_store::{
    Room, Txn,
    early_invites::{self, EarlyInvite},
    events,
    memberships::{self, NewMembership},
    rooms, users,
};
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomVersionId, ServerName, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};
use serde_json::value::RawValue;

use super::{
    access::{AccessError, is_admitted, raw},
    membership::{MembershipError, bad, sign_checked},
    shown,
};
use crate::{
    Homeserver, Identity,
    ingest::verify,
    invite_permission::{self, InvitePermission},
    rate::RateKey,
    visibility::membership_in,
};

/// Invites that one user may have open: more than anybody looks at, fewer than a flood.
const MAX_INVITES: usize = 1_000;

/// The same where the inviting server shares no room with us: what a person would read through. The
/// rest of the places is for those whom the user knows.
const MAX_STRANGE_INVITES: usize = 100;

/// An invite as it came.
#[derive(Debug)]
pub struct Invite {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The id that the inviting server computed.
    pub event_id: OwnedEventId,
    /// The version of the room.
    pub room_version: RoomVersionId,
    /// The event.
    pub event: Box<RawValue>,
    /// What the invited user is shown of the room: stripped state or whole events.
    pub shown: Vec<Box<RawValue>>,
    /// The `server_keys` of who signed these, unverified.
    pub server_keys: Vec<Box<RawValue>>,
}

/// Shows an invite to the invited user, and gives the event with our signature.
///
/// # Errors
/// Why not.
pub async fn receive(
    hs: &Homeserver,
    origin: OwnedServerName,
    invite: Invite,
) -> Result<Box<RawValue>, MembershipError> {
    let identity = Arc::clone(&hs.identity);
    let (us, them) = (hs.server_name().to_owned(), origin.clone());
    let is_co_member =
        hs.store.read(move |snap| memberships::share_a_room(snap, &us, &them)).await?;
    let key = if is_co_member { RateKey::Invite(origin.clone()) } else { RateKey::StrangeInvite };
    hs.limits.rates.check(key, hs.clock.now())?;
    let brought = shown::ring(&invite.server_keys);
    let signed = hs
        .store
        .write(move |txn| {
            let mut invite = invite;
            let (signed, invited) = checked(txn, &identity, &origin, &invite)?;
            let rules = rules_of(&invite.room_version)
                .ok_or_else(|| MembershipError::UnsupportedVersion(invite.room_version.clone()))?;
            invite.shown = shown::checked(txn, (&invite.room_id, rules), &invite.shown, &brought)?;
            match invite_permission::of(txn, &invited, signed.pdu().sender())? {
                InvitePermission::Blocked => return Err(MembershipError::InviteBlocked),
                // The inviter is not to know, and it costs nothing here.
                InvitePermission::Ignored => return Ok(signed),
                InvitePermission::Allowed => {}
            }
            let most = if is_co_member { MAX_INVITES } else { MAX_STRANGE_INVITES };
            keep(txn, identity.server_name(), &invite, (&signed, &invited, most))?;
            Ok::<_, MembershipError>(signed)
        })
        .await?;
    raw(signed.pdu().json())
        .ok_or_else(|| MembershipError::BadEvent("the event cannot be written".to_owned()))
}

/// The event with good signatures, ours added, and whom it invites.
fn checked(
    txn: &Txn<'_>,
    identity: &Identity,
    origin: &OwnedServerName,
    invite: &Invite,
) -> Result<(SignedPdu, OwnedUserId), MembershipError> {
    let rules = rules_of(&invite.room_version)
        .ok_or_else(|| MembershipError::UnsupportedVersion(invite.room_version.clone()))?;
    let event = verify::well_formed(invite.event.clone(), &invite.room_id, rules).map_err(bad)?;
    let pdu = event.pdu();
    if pdu.event_id() != invite.event_id {
        return Err(MembershipError::BadEvent("the event has another id".to_owned()));
    }
    if *pdu.kind() != TimelineEventType::RoomMember
        || membership_in(pdu) != Some(MembershipState::Invite)
    {
        return Err(MembershipError::BadEvent("the event is no invite".to_owned()));
    }
    if pdu.sender().server_name() != origin {
        return Err(MembershipError::NotYourUser);
    }
    let invited = pdu.state_key().and_then(|key| UserId::parse(key).ok());
    let invited = invited.filter(|user| identity.is_local(user));
    let invited = invited.ok_or(MembershipError::UnknownUser)?;
    if !users::is_active(txn, &invited)? {
        return Err(MembershipError::UnknownUser);
    }
    let signer = Signer { server: identity.server_name(), key: identity.verify_key() };
    let signed = sign_checked(txn, event.countersign(signer)?, &KeyRing::new())?;
    Ok((signed, invited))
}

/// Stores the invite, unless this server is in the room: then the room's own state, which we have
/// or get, says who is invited, and by whom that may be done. But it may be that we were sent out and
/// have not heard of it, and then the room tells us nothing more: the invite waits for that. A second
/// invite of the same server while the first is open says nothing new.
fn keep(
    txn: &mut Txn<'_>,
    us: &ServerName,
    invite: &Invite,
    (signed, invited, most): (&SignedPdu, &UserId, usize),
) -> Result<(), MembershipError> {
    let room = rooms::of_version(txn, &invite.room_id, &invite.room_version)?;
    if room.version != invite.room_version {
        return Err(MembershipError::BadEvent("the room has another version".to_owned()));
    }
    let inviter = signed.pdu().sender().server_name();
    let known = memberships::find(txn, room.nid, invited)?;
    let membership = known.as_ref().map(|known| &known.membership);
    if memberships::is_server_in(txn, room.nid, us)? {
        if !is_admitted(txn, &room, inviter)? {
            return Err(AccessError::Excluded.into());
        }
        return keep_early(txn, (&room, invite), (signed, invited, most));
    }
    match membership {
        Some(MembershipState::Join | MembershipState::Ban) => return Ok(()),
        Some(MembershipState::Invite) => {
            let open = known.and_then(|known| known.event);
            let open = open.map(|nid| events::pdu(txn, nid)).transpose()?;
            // An older one that comes late must not take the place of a newer: what takes the
            // older back would take the newer with it.
            let is_newer = |open: &Pdu| {
                open.sender().server_name() == inviter || open.depth() >= signed.pdu().depth()
            };
            if open.is_some_and(|open| is_newer(&open)) {
                return Ok(());
            }
        }
        _ => {}
    }
    let open = memberships::rooms_of(txn, invited, &MembershipState::Invite)?;
    if open.len() >= most {
        return Err(MembershipError::TooManyInvites);
    }
    let nid = events::insert_outlier(txn, &room, &receive::accept_unplaced(signed.clone()))?;
    let stripped = shown::stripped(&invite.shown, signed.pdu()).map_err(unwritable)?;
    let pos = txn.next_pos();
    let new = NewMembership {
        membership: &MembershipState::Invite,
        event: Some(nid),
        pos,
        stripped: Some(&stripped),
    };
    Ok(memberships::set(txn, room.nid, invited, new)?)
}

/// Lets an invite wait until we hear that we are out of the room, unless it is in the room here
/// already.
fn keep_early(
    txn: &mut Txn<'_>,
    (room, invite): (&Room, &Invite),
    (signed, invited, most): (&SignedPdu, &UserId, usize),
) -> Result<(), MembershipError> {
    let pdu = signed.pdu();
    if verify::is_placed(txn, pdu.event_id())? {
        return Ok(());
    }
    let inviter = pdu.sender().server_name();
    if early_invites::count_others(txn, room.nid, (inviter, invited))? >= most {
        return Err(MembershipError::TooManyInvites);
    }
    let early = EarlyInvite {
        user_id: invited.to_owned(),
        json: pdu.json().to_owned(),
        stripped: shown::stripped(&invite.shown, pdu).map_err(unwritable)?,
    };
    Ok(early_invites::put(txn, room.nid, inviter, &early)?)
}

fn unwritable(error: serde_json::Error) -> MembershipError {
    MembershipError::BadEvent(error.to_string())
}
