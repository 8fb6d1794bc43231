//! A server that joined a room of ours while we were away, and shows us how.
//!
//! A stranger must not cost us more than a look: nothing is kept but a join that the room's rules
//! allow, or one that waits for what lies between, of which a stranger has one in a room.

use messagehub_protocol::{
    pdu::SignedPdu,
    receive::{self, Verdict},
    server_keys::KeyRing,
};
use messagehub_store::{Room, StoreError, Txn, pending};
use ruma::{
    OwnedRoomId, OwnedServerName, ServerName,
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

/// Takes the first join of a user of `origin` among some events, if the room lets that user in.
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
    let taken = hs
        .store
        .write(move |txn| {
            let mut room = verify::room_of_ours(txn, &id, &us)?;
            let Some(join) = find_join(txn, &room, (&them, pdus))? else { return Ok(None) };
            let admitted = take(txn, &us, &mut room, (&them, join))?;
            Ok::<_, IngestError>(admitted.map(|admitted| (room, admitted)))
        })
        .await;
    match taken {
        Ok(Some((room, admitted))) => {
            let outcomes = ingest::settle(hs, &room, admitted);
            if outcomes.values().any(|outcome| *outcome == Outcome::Accepted) {
                tracing::info!(%origin, %room_id, "a server had joined while we were away");
                hs.peers.note_behind(&room_id);
            }
            Ok(outcomes.into_iter().map(result).collect())
        }
        Ok(None) => Ok(Results::new()),
        Err(IngestError::View(ViewError::Store(error))) => Err(error),
        Err(error) => {
            tracing::debug!(%origin, %room_id, %error, "an introduction is of no use");
            Ok(Results::new())
        }
    }
}

fn find_join(
    txn: &Txn<'_>,
    room: &Room,
    (origin, pdus): (&ServerName, Vec<Box<RawValue>>),
) -> Result<Option<SignedPdu>, IngestError> {
    let checked = verify::events(txn, room, (pdus, &KeyRing::new()))?;
    Ok(checked.signed.into_iter().find(|event| {
        let pdu = event.pdu();
        *pdu.kind() == TimelineEventType::RoomMember
            && pdu.sender().server_name() == origin
            && pdu.state_key() == Some(pdu.sender().as_str())
            && membership_in(pdu) == Some(MembershipState::Join)
    }))
}

fn take(
    txn: &mut Txn<'_>,
    us: &ServerName,
    room: &mut Room,
    (origin, join): (&ServerName, SignedPdu),
) -> Result<Option<Admitted>, IngestError> {
    let worth_it = match view::for_event(txn, room, join.pdu()) {
        Ok(gathered) => {
            *receive::check(join.clone(), &gathered.view).verdict() == Verdict::Accepted
        }
        Err(ViewError::Missing(_)) => {
            let waiting = pending::list(txn, &room.room_id)?;
            !waiting.iter().any(|event| event.origin == origin)
        }
        Err(error) => return Err(error.into()),
    };
    if !worth_it {
        return Ok(None);
    }
    ingest::admit(txn, us, room, (origin, vec![join])).map(Some)
}
