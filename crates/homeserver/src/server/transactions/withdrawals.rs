//! Invites and knocks that come to an end, told by events of a room that this server is not in.
//!
//! Of such an event we can check no more than that its sender's server signed it, and what the room
//! showed of itself when the invite or the knock was made.

use messagehub_protocol::{pdu::SignedPdu, server_keys::KeyRing};
use messagehub_store::{
    Room, Snapshot, StoreError, Txn, events, knocks,
    memberships::{self, Membership, NewMembership},
};
use ruma::{
    OwnedServerName, ServerName, UserId,
    events::{TimelineEventType, room::member::MembershipState},
    room_version_rules::RoomVersionRules,
};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::Results;
use crate::{Homeserver, ingest::verify, view, visibility::membership_in};

/// The level for kicking and banning where a room sets none.
///
/// Spec: Client-Server API, `m.room.power_levels`.
const DEFAULT_LEVEL: i64 = 50;

/// The level of the creator of a room before version 12 that has no power levels event.
const CREATOR_LEVEL: i64 = 100;

/// Takes back invites to users of ours, and tells those who knocked that they are not let in.
///
/// # Errors
/// Fails when the database does.
pub(super) async fn take(
    hs: &Homeserver,
    origin: &OwnedServerName,
    room: Room,
    pdus: Vec<Box<RawValue>>,
) -> Result<Results, StoreError> {
    let origin = origin.clone();
    hs.store
        .write(move |txn| {
            let mut results = Results::new();
            for json in pdus {
                let Ok(rules) = view::rules(&room) else { continue };
                let Ok(event) = verify::well_formed(json, &room.room_id, rules) else { continue };
                let event_id = event.pdu().event_id().to_owned();
                let done = match verify::signed(txn, event, &KeyRing::new())? {
                    Ok(signed) => withdraw(txn, (&room, rules), (&origin, &signed))?,
                    Err(_) => Err("the event is not signed".to_owned()),
                };
                results.insert(event_id, done);
            }
            Ok::<_, StoreError>(results)
        })
        .await
}

fn withdraw(
    txn: &mut Txn<'_>,
    (room, rules): (&Room, &RoomVersionRules),
    (origin, signed): (&ServerName, &SignedPdu),
) -> Result<Result<(), String>, StoreError> {
    let pdu = signed.pdu();
    let gone = matches!(membership_in(pdu), Some(MembershipState::Leave | MembershipState::Ban));
    if *pdu.kind() != TimelineEventType::RoomMember || !gone {
        return Ok(Err("this server is not in the room".to_owned()));
    }
    let user = pdu.state_key().and_then(|key| UserId::parse(key).ok());
    let Some(user) = user else { return Ok(Err("the event is about no user".to_owned())) };
    let Some(member) = memberships::find(txn, room.nid, &user)? else {
        return Ok(Err("the user was not invited".to_owned()));
    };
    let is_theirs = match member.membership {
        MembershipState::Invite => is_invited_by(txn, &member, origin)?,
        MembershipState::Knock => {
            let shown = member.stripped.as_deref().unwrap_or("[]");
            may_kick(shown, pdu.sender(), rules)
        }
        _ => false,
    };
    if !is_theirs || pdu.sender().server_name() != origin {
        return Ok(Err("the user is not that server's to send away".to_owned()));
    }
    knocks::remove(txn, &room.room_id, &user)?;
    let pos = txn.next_pos();
    let new =
        NewMembership { membership: &MembershipState::Leave, event: None, pos, stripped: None };
    memberships::set(txn, room.nid, &user, new)?;
    Ok(Ok(()))
}

fn is_invited_by(
    snap: &Snapshot<'_>,
    member: &Membership,
    origin: &ServerName,
) -> Result<bool, StoreError> {
    match member.event {
        Some(nid) => Ok(events::pdu(snap, nid)?.sender().server_name() == origin),
        None => Ok(false),
    }
}

/// Whether a user has the power to kick in a room, as far as what the room showed of itself says.
fn may_kick(shown: &str, user_id: &UserId, rules: &RoomVersionRules) -> bool {
    #[derive(Deserialize)]
    struct Shown {
        r#type: String,
        state_key: String,
        sender: String,
        content: Value,
    }
    let shown: Vec<Shown> = serde_json::from_str(shown).unwrap_or_default();
    let find =
        |kind: &str| shown.iter().find(|event| event.r#type == kind && event.state_key.is_empty());
    let Some(create) = find("m.room.create") else { return false };
    let rules = &rules.authorization;
    let creator = match rules.use_room_create_sender {
        true => Some(create.sender.as_str()),
        false => create.content["creator"].as_str(),
    };
    let more = create.content["additional_creators"].as_array();
    let is_creator = creator == Some(user_id.as_str())
        || (rules.additional_room_creators
            && more.is_some_and(|more| more.iter().any(|one| one == user_id.as_str())));
    if is_creator && rules.explicitly_privilege_room_creators {
        return true;
    }
    let Some(levels) = find("m.room.power_levels").map(|event| &event.content) else {
        return is_creator && CREATOR_LEVEL >= DEFAULT_LEVEL;
    };
    let own = number(&levels["users"][user_id.as_str()]);
    let own = own.or_else(|| number(&levels["users_default"])).unwrap_or(0);
    own >= number(&levels["kick"]).unwrap_or(DEFAULT_LEVEL)
}

/// A level; rooms of before version 10 may have them as text.
fn number(level: &Value) -> Option<i64> {
    level.as_i64().or_else(|| level.as_str()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use messagehub_protocol::rules::rules_of;
    use ruma::{RoomVersionId, user_id};
    use serde_json::json;

    use super::*;

    #[test]
    fn who_may_kick_is_read_from_what_the_room_shows() {
        let create = json!({
            "type": "m.room.create", "state_key": "", "sender": "@c:x",
            "content": { "creator": "@c:x", "additional_creators": ["@d:x"] }
        });
        let levels = |content: Value| {
            json!({ "type": "m.room.power_levels", "state_key": "", "sender": "@c:x",
                    "content": content })
        };
        let mods = json!({ "users": { "@m:x": 50, "@w:x": 49 }, "users_default": 0 });
        let strict = json!({ "users": { "@m:x": "60" }, "kick": 60, "users_default": 10 });
        let (old, new) = (RoomVersionId::V10, RoomVersionId::V12);
        for (version, shown, user, expected) in [
            (&new, vec![create.clone()], user_id!("@c:x"), true),
            (&new, vec![create.clone()], user_id!("@d:x"), true),
            (&old, vec![create.clone()], user_id!("@c:x"), true),
            (&old, vec![create.clone()], user_id!("@d:x"), false),
            (&new, vec![], user_id!("@c:x"), false),
            (&new, vec![create.clone(), levels(mods.clone())], user_id!("@m:x"), true),
            (&new, vec![create.clone(), levels(mods.clone())], user_id!("@w:x"), false),
            (&new, vec![create.clone(), levels(mods.clone())], user_id!("@n:x"), false),
            (&old, vec![create.clone(), levels(strict.clone())], user_id!("@m:x"), true),
            (&old, vec![create, levels(strict)], user_id!("@n:x"), false),
        ] {
            let rules = rules_of(version).unwrap();
            let text = serde_json::to_string(&shown).unwrap();
            assert_eq!(may_kick(&text, user, rules), expected, "{user} in {version}: {text}");
        }
    }
}
