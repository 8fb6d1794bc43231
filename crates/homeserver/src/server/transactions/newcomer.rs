//! A server that is not in a room as far as we know, but may have joined while we were away: it
//! shows us how it came in, or that it sent users of ours out. Or it is out, and has not heard of it.
//!
//! A stranger must not cost us more than a look: nothing is kept but a membership that the room's
//! rules allow, or one that waits for what lies between, of which a stranger has one in a room, and
//! what it is told, of which it has one for each of its users there.

use std::sync::Arc;

use messagehub_protocol::{
    pdu::{Pdu, SignedPdu},
    receive::{self, Verdict},
    server_keys::KeyRing,
};
use messagehub_store::{Room, StoreError, Txn, events, memberships, outbox, pending};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedServerName, ServerName, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};
use serde_json::value::RawValue;

use super::{Results, result};
use crate::{
    Homeserver,
    ingest::{self, Admitted, IngestError, Outcome, verify},
    view::{self, ViewError},
    visibility::membership_in,
};

/// Strangers of whom an event may wait in one room: more than join while we are away from all others.
const MAX_STRANGERS: usize = 16;

/// Takes the first membership of use among some events, if the room's rules allow it.
///
/// # Errors
/// Fails when the database does.
pub(super) async fn introduced(
    hs: &Homeserver,
    origin: &OwnedServerName,
    room_id: OwnedRoomId,
    pdus: Vec<Box<RawValue>>,
) -> Result<Results, StoreError> {
    let (us, them, id) = (hs.server_name().to_owned(), origin.clone(), room_id.clone());
    let now = hs.clock.now();
    let may_tell = hs.peers.may_tell_departure((&room_id, origin), now);
    let looked = hs
        .store
        .write(move |txn| {
            let mut room = verify::room_of_ours(txn, &id, &us)?;
            let (shown, taken) = match find(txn, (&us, &room), (&them, pdus))? {
                Shown::New(event) => {
                    let shown = Arc::clone(event.pdu());
                    let admitted = take(txn, &us, &mut room, (&them, event))?;
                    (shown, admitted.map_or(Taken::Nothing, Taken::Admitted))
                }
                Shown::Known(shown) => (shown, Taken::Disputed),
                Shown::Nothing => return Ok((room, Taken::Nothing, None)),
            };
            let told = match may_tell {
                true => tell_departure(txn, &room, (&them, &shown), now)?,
                false => None,
            };
            Ok::<_, IngestError>((room, taken, told))
        })
        .await;
    if matches!(looked, Ok((.., Some(outbox::Queued::Stored)))) {
        hs.peers.wake();
    }
    match looked {
        Ok((room, Taken::Admitted(admitted), _)) => {
            let outcomes = ingest::settle(hs, &room, admitted);
            if outcomes.values().any(|outcome| *outcome == Outcome::Accepted) {
                tracing::info!(%origin, %room_id, "a server was in a room without our knowing");
                hs.peers.note_behind(&room_id);
            }
            Ok(outcomes.into_iter().map(result).collect())
        }
        Ok((_, Taken::Disputed, _)) => {
            hs.peers.note_disputed(&room_id, now);
            Ok(Results::new())
        }
        Ok((_, Taken::Nothing, _)) => Ok(Results::new()),
        Err(IngestError::View(ViewError::Store(error))) => Err(error),
        Err(error) => {
            tracing::debug!(%origin, %room_id, %error, "an introduction is of no use");
            Ok(Results::new())
        }
    }
}

/// What became of an introduction.
enum Taken {
    /// It is taken in, or waits.
    Admitted(Admitted),
    /// We know it, and have the server out of the room all the same: one of us lacks what the other
    /// went on from.
    Disputed,
    /// It is of no use.
    Nothing,
}

/// What a server shows of itself.
enum Shown {
    /// A user of it joins by this, or sends one of ours out.
    New(SignedPdu),
    /// Only what we have, of which this is one.
    Known(Arc<Pdu>),
    /// Nothing about itself.
    Nothing,
}

fn find(
    txn: &Txn<'_>,
    (us, room): (&ServerName, &Room),
    (origin, pdus): (&ServerName, Vec<Box<RawValue>>),
) -> Result<Shown, IngestError> {
    let checked = verify::events(txn, room, (pdus, &KeyRing::new()))?;
    let known = checked.outcomes.iter().find(|(_, outcome)| **outcome == Outcome::Known);
    let known = known.map(|(event_id, _)| events::find(txn, event_id)).transpose()?.flatten();
    let found = checked.signed.into_iter().find(|event| {
        let pdu = event.pdu();
        let about = pdu.state_key().and_then(|key| <&UserId>::try_from(key).ok());
        *pdu.kind() == TimelineEventType::RoomMember
            && pdu.sender().server_name() == origin
            && about.is_some_and(|about| match membership_in(pdu) {
                Some(MembershipState::Join) => about == pdu.sender(),
                Some(MembershipState::Leave | MembershipState::Ban) => about.server_name() == us,
                _ => false,
            })
    });
    Ok(match (found, known) {
        (Some(event), _) => Shown::New(event),
        (None, Some(event)) => Shown::Known(event.pdu),
        (None, None) => Shown::Nothing,
    })
}

/// Puts the departure of the user whose join a server shows us into the outbox, if there is one: the
/// server may never have heard of it, and of a room that it is out of it is told no heads.
fn tell_departure(
    txn: &mut Txn<'_>,
    room: &Room,
    (origin, shown): (&ServerName, &Pdu),
    now: MilliSecondsSinceUnixEpoch,
) -> Result<Option<outbox::Queued>, StoreError> {
    let is_join = *shown.kind() == TimelineEventType::RoomMember
        && membership_in(shown) == Some(MembershipState::Join);
    let user = shown.state_key().and_then(|key| <&UserId>::try_from(key).ok());
    let Some(user) = user.filter(|user| is_join && user.server_name() == origin) else {
        return Ok(None);
    };
    let gone = memberships::find(txn, room.nid, user)?.filter(|member| {
        matches!(member.membership, MembershipState::Leave | MembershipState::Ban)
    });
    let Some(departure) = gone.and_then(|member| member.event) else { return Ok(None) };
    let departure = events::pdu(txn, departure)?;
    // Whoever shows itself again and again has one entry.
    let slot = format!("m.room.member {} {user}", room.room_id);
    let entry = outbox::NewEntry {
        destination: origin,
        kind: outbox::Kind::Pdu,
        slot: Some(&slot),
        body: departure.json(),
    };
    outbox::insert(txn, entry, now).map(Some)
}

fn take(
    txn: &mut Txn<'_>,
    us: &ServerName,
    room: &mut Room,
    (origin, event): (&ServerName, SignedPdu),
) -> Result<Option<Admitted>, IngestError> {
    let worth_it = match view::for_event(txn, room, event.pdu()) {
        Ok(gathered) => {
            *receive::check(event.clone(), &gathered.view).verdict() == Verdict::Accepted
        }
        Err(ViewError::Missing(_)) => may_wait(txn, room, origin)?,
        Err(error) => return Err(error.into()),
    };
    if !worth_it {
        return Ok(None);
    }
    ingest::admit(txn, us, room, (origin, vec![event])).map(Some)
}

/// Whether one more event of a stranger may wait: one for each, and few in all, since strangers
/// are as many as anybody cares to make up, and what members sent must not give way to them.
fn may_wait(txn: &Txn<'_>, room: &Room, origin: &ServerName) -> Result<bool, StoreError> {
    let mut strangers = 0;
    for waiting in pending::list(txn, &room.room_id)? {
        if waiting.origin == origin {
            return Ok(false);
        }
        strangers += usize::from(!memberships::is_server_in(txn, room.nid, &waiting.origin)?);
    }
    Ok(strangers < MAX_STRANGERS)
}

#[cfg(test)]
mod tests {
    use messagehub_store::rooms;
    use ruma::{OwnedUserId, events::StateEventType};
    use serde_json::json;

    use super::*;
    use crate::{
        rooms::moderate::{self, Action, Moderation},
        sessions::Session,
        testing::{TestServer, crowd, dag::Step},
    };

    /// Alice's public room, and somebody of another server who joined it.
    async fn joined(server: &TestServer) -> (Session, OwnedRoomId, SignedPdu) {
        let alice = server.user("alice").await;
        let room_id = server.room(&alice, None).await;
        let rule = ("m.room.join_rules", "");
        let open = json!({ "join_rule": "public" });
        let after = [server.head(&room_id).await];
        server.place(&room_id, Step::state(&after, &alice.user_id, rule, open)).await;
        let (hs, now) = (&server.hs, server.hs.clock.now());
        crowd::join(&hs.store, hs.server_name(), &room_id, (1, 1), now).await.unwrap();
        let (id, us) = (room_id.clone(), hs.server_name().to_owned());
        let join = server.read(move |snap| {
            let room = rooms::find(snap, &id)?.unwrap();
            let members = memberships::list_joined(snap, room.nid)?;
            let other = members.into_iter().find(|user| user.server_name() != us).unwrap();
            let member = memberships::find(snap, room.nid, &other)?.unwrap();
            let json = events::pdu(snap, member.event.unwrap())?.json().to_owned();
            let rules = view::rules(&room).unwrap();
            let event = verify::well_formed(raw(&json), &id, rules).unwrap();
            Ok(verify::signed(snap, event, &KeyRing::new())?.unwrap())
        });
        (alice, room_id, join.await)
    }

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    async fn shown(server: &TestServer, room_id: &OwnedRoomId, join: &SignedPdu) -> bool {
        let (pdu, hs) = (join.pdu(), &server.hs);
        let origin = pdu.sender().server_name().to_owned();
        let pdus = vec![raw(pdu.json())];
        let results = introduced(hs, &origin, room_id.clone(), pdus).await.unwrap();
        assert!(results.is_empty(), "nothing new was taken in: {results:?}");
        hs.peers.take_disputed().contains(room_id)
    }

    #[tokio::test]
    async fn a_join_that_is_known_and_does_not_count_is_looked_at() {
        let server = TestServer::new(81);
        let (alice, room_id, join) = joined(&server).await;
        let user_id: OwnedUserId = join.pdu().sender().to_owned();
        let ban =
            Moderation { room_id: room_id.clone(), user_id, action: Action::Ban, reason: None };
        moderate::moderate(&server.hs, &alice.user_id, ban).await.unwrap();
        assert!(shown(&server, &room_id, &join).await, "one of both lacks something");

        // Of a stranger's event that is no membership there is nothing to look at.
        let origin = join.pdu().sender().server_name().to_owned();
        let message = vec![raw(r#"{"type":"m.room.message","content":{}}"#)];
        introduced(&server.hs, &origin, room_id.clone(), message).await.unwrap();
        assert!(server.hs.peers.take_disputed().is_empty());
        let kind = StateEventType::RoomMember;
        let state_key = join.pdu().sender().to_string();
        let current = server
            .read(move |snap| {
                let room = rooms::find(snap, &room_id)?.unwrap();
                Ok(view::state_event(snap, room.state, &kind, &state_key)?.unwrap())
            })
            .await;
        assert_eq!(membership_in(&current), Some(MembershipState::Ban), "it stays out");
    }

    #[tokio::test]
    async fn whoever_was_sent_out_without_hearing_of_it_is_told() {
        let server = TestServer::new(82);
        let (alice, room_id, join) = joined(&server).await;
        let member = ("m.room.member", join.pdu().sender().as_str());
        let gone = json!({ "membership": "leave" });
        let after = [server.head(&room_id).await];
        let kick = Step::state(&after, &alice.user_id, member, gone);
        let kick = server.place(&room_id, kick).await.pdu;
        let waiting = async |there: &ServerName| {
            let (there, now) = (there.to_owned(), server.hs.clock.now());
            let taken = server.hs.store.write(move |txn| outbox::take_batch(txn, &there, now));
            let batch: Result<_, StoreError> = taken.await;
            let entries = batch.unwrap().map(|batch| batch.entries).unwrap_or_default();
            entries.into_iter().map(|entry| entry.body).collect::<Vec<_>>()
        };
        // Of what others show there is nothing to tell them.
        let other = OwnedServerName::try_from("other.example").unwrap();
        let pdus = vec![raw(join.pdu().json())];
        introduced(&server.hs, &other, room_id.clone(), pdus).await.unwrap();
        assert!(waiting(&other).await.is_empty());
        assert!(waiting(join.pdu().sender().server_name()).await.is_empty());
        server.hs.peers.take_disputed();

        server.clock.advance(60_000);
        assert!(shown(&server, &room_id, &join).await);
        assert!(!shown(&server, &room_id, &join).await, "others are not asked again so soon");
        assert_eq!(waiting(join.pdu().sender().server_name()).await, [kick.json()]);
    }
}
