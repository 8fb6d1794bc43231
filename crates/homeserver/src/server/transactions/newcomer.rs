//! A server that is not in a room as far as we know, but may have joined while we were away: it
//! shows us how it came in, or that it sent users of ours out.
//!
//! A stranger must not cost us more than a look: nothing is kept but a membership that the room's
//! rules allow, or one that waits for what lies between, of which a stranger has one in a room.

use messagehub_protocol::{
    pdu::SignedPdu,
    receive::{self, Verdict},
    server_keys::KeyRing,
};
use messagehub_store::{Room, StoreError, Txn, memberships, pending};
use ruma::{
    OwnedRoomId, OwnedServerName, ServerName, UserId,
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
    let taken = hs
        .store
        .write(move |txn| {
            let mut room = verify::room_of_ours(txn, &id, &us)?;
            let event = match find(txn, (&us, &room), (&them, pdus))? {
                Shown::New(event) => event,
                Shown::Known => return Ok(Taken::Disputed),
                Shown::Nothing => return Ok(Taken::Nothing),
            };
            let admitted = take(txn, &us, &mut room, (&them, event))?;
            Ok::<_, IngestError>(match admitted {
                Some(admitted) => Taken::Admitted(room, admitted),
                None => Taken::Nothing,
            })
        })
        .await;
    match taken {
        Ok(Taken::Admitted(room, admitted)) => {
            let outcomes = ingest::settle(hs, &room, admitted);
            if outcomes.values().any(|outcome| *outcome == Outcome::Accepted) {
                tracing::info!(%origin, %room_id, "a server was in a room without our knowing");
                hs.peers.note_behind(&room_id);
            }
            Ok(outcomes.into_iter().map(result).collect())
        }
        Ok(Taken::Disputed) => {
            hs.peers.note_disputed(&room_id);
            Ok(Results::new())
        }
        Ok(Taken::Nothing) => Ok(Results::new()),
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
    Admitted(Room, Admitted),
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
    /// Only what we have.
    Known,
    /// Nothing about itself.
    Nothing,
}

fn find(
    txn: &Txn<'_>,
    (us, room): (&ServerName, &Room),
    (origin, pdus): (&ServerName, Vec<Box<RawValue>>),
) -> Result<Shown, IngestError> {
    let checked = verify::events(txn, room, (pdus, &KeyRing::new()))?;
    let is_known = checked.outcomes.values().any(|outcome| *outcome == Outcome::Known);
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
    Ok(match found {
        Some(event) => Shown::New(event),
        None if is_known => Shown::Known,
        None => Shown::Nothing,
    })
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
