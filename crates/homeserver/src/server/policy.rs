//! Recommending events of rooms whose policy server this one is.
//!
//! What it checks: that the event has the form of the room's version and bears no wrong signature;
//! that its sender's server is admitted by the room's access list and the sender is not banned; and
//! that neither the sender nor the asking server makes more events than people do.
//!
//! Spec: Server-Server API, "Policy Servers", "POST /_matrix/policy/v1/sign".

use messagehub_protocol::{policy, policy::PolicyServer, server_keys::KeyRing};
use messagehub_store::{Room, Snapshot, StoreError, rooms};
use ruma::{OwnedRoomId, OwnedServerName, events::room::member::MembershipState};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::access::is_admitted;
use crate::{
    Homeserver,
    ingest::{Outcome, verify},
    policy::in_use,
    rate::{Limited, RateKey},
    rooms::moderate,
    view,
};

/// Why an event is not recommended.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// There is no such room here, or its policy server is another one.
    #[error("this server is not the policy server of that room")]
    NotOurs,
    /// What came is no event.
    #[error("{0}")]
    BadEvent(String),
    /// The room's access list excludes the asking server.
    #[error("the asking server is excluded from the room")]
    Excluded,
    /// The event is not one to recommend.
    #[error("{0}")]
    Refused(&'static str),
    /// Events come faster than anybody means them.
    #[error(transparent)]
    Limited(#[from] Limited),
    /// Our own database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The public key by which this server recommends events, for whoever wants to name it in a room.
pub fn public_key(hs: &Homeserver) -> [u8; 32] {
    hs.identity.policy_key().public_key()
}

/// The signature that recommends an event, in unpadded base64.
///
/// # Errors
/// See [`PolicyError`].
pub async fn sign(
    hs: &Homeserver,
    origin: OwnedServerName,
    event: Box<RawValue>,
) -> Result<String, PolicyError> {
    #[derive(Deserialize)]
    struct Claim {
        room_id: OwnedRoomId,
    }
    let claim: Claim = serde_json::from_str(event.get())
        .map_err(|error| PolicyError::BadEvent(error.to_string()))?;
    let now = hs.clock.now();
    hs.limits.rates.check(RateKey::Policy(origin.to_string()), now)?;
    let key = hs.identity.policy_key();
    let us = hs.server_name().to_owned();
    let (sender, signature) = hs
        .store
        .read(move |snap| {
            let room = rooms::find(snap, &claim.room_id)?.ok_or(PolicyError::NotOurs)?;
            let is_ours = |policy: &PolicyServer| {
                policy.server() == us && *policy.key() == *key.as_public_key()
            };
            if !in_use(snap, &room)?.as_ref().is_some_and(is_ours) {
                return Err(PolicyError::NotOurs);
            }
            if !is_admitted(snap, &room, &origin)? {
                return Err(PolicyError::Excluded);
            }
            let rules = view::rules(&room).map_err(|_| PolicyError::NotOurs)?;
            let event = verify::well_formed(event, &room.room_id, rules).map_err(malformed)?;
            judge(snap, &room, event.pdu())?;
            let sender = event.pdu().sender().to_string();
            let signature = policy::sign(event.pdu(), &key, rules)
                .map_err(|error| PolicyError::BadEvent(error.to_string()))?;
            // A signature that cannot be checked for want of a key is for the members to check.
            match verify::signed(snap, event, &KeyRing::new())? {
                Ok(_) | Err(Outcome::Unjudged(_)) => Ok((sender, signature)),
                Err(_) => Err(PolicyError::Refused("the event's own signature is wrong")),
            }
        })
        .await?;
    hs.limits.rates.check(RateKey::Policy(sender), now)?;
    Ok(signature)
}

fn judge(
    snap: &Snapshot<'_>,
    room: &Room,
    pdu: &messagehub_protocol::pdu::Pdu,
) -> Result<(), PolicyError> {
    if policy::is_exempt(pdu) {
        return Err(PolicyError::Refused("this event needs no signature"));
    }
    if !is_admitted(snap, room, pdu.sender().server_name())? {
        return Err(PolicyError::Refused("the sender's server is excluded from the room"));
    }
    if moderate::membership(snap, room, pdu.sender())? == Some(MembershipState::Ban) {
        return Err(PolicyError::Refused("the sender is banned from the room"));
    }
    Ok(())
}

fn malformed(outcome: Outcome) -> PolicyError {
    match outcome {
        Outcome::Refused(reason) | Outcome::Unjudged(reason) => PolicyError::BadEvent(reason),
        _ => PolicyError::BadEvent("the event is not usable".to_owned()),
    }
}
