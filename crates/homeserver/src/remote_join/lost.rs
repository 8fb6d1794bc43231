//! Joins whose answer was lost, brought to an end.

use messagehub_store::{
    Snapshot, StoreError, events,
    joins_under_way::{self, JoinUnderWay},
    memberships,
    outbox::{self, NewEntry},
    rooms,
};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerName, events::room::member::MembershipState};
use serde_json::{json, value::RawValue};

use super::{RemoteJoin, RemoteJoinError, make, through};
use crate::{Homeserver, clock::timestamp, federation::route};

/// When a join that was not answered counts as lost, in milliseconds: after whoever waits for the
/// answer has given up.
const LOST_AFTER_MS: u64 = 120_000;

/// How long others are given to show that they believe in a lost join, in milliseconds: a member
/// that was off for a month has more to catch up with than a user who is not there.
const BELIEVED_FOR_MS: u64 = 30 * 24 * 60 * 60 * 1_000;

/// A join of one user to one room that was never answered.
struct LostJoin {
    /// The servers that may know of it, each as it was asked.
    under_way: Vec<JoinUnderWay>,
    membership: Option<MembershipState>,
    /// The server of whoever invited the user.
    inviter: Option<OwnedServerName>,
}

/// Brings joins to an end whose answer was lost: the other server may have let the user in. Who is
/// invited still is brought in; anybody else leaves again, so that nobody waits for them in vain.
///
/// A server that was asked may be gone from the room by now, and the join live on with others.
/// Those show themselves sooner or later, by telling us of the room, and are asked then.
///
/// # Errors
/// Fails when the database does.
pub(crate) async fn finish_lost(hs: &Homeserver) -> Result<(), StoreError> {
    let now = hs.clock.now_ms();
    let before = timestamp(now.saturating_sub(LOST_AFTER_MS));
    for lost in hs.store.read(move |snap| list_lost(snap, before)).await? {
        match &lost.membership {
            Some(MembershipState::Invite) => go_on(hs, lost).await?,
            Some(MembershipState::Join) => {
                hs.store
                    .write(move |txn| match lost.under_way.first() {
                        Some(join) => joins_under_way::end(txn, &join.room_id, &join.user_id),
                        None => Ok(()),
                    })
                    .await?;
            }
            _ => take_back(hs, lost).await?,
        }
    }
    let forgotten = timestamp(now.saturating_sub(BELIEVED_FOR_MS));
    hs.store.write(move |txn| joins_under_way::forget_before(txn, forgotten)).await
}

fn list_lost(
    snap: &Snapshot<'_>,
    before: MilliSecondsSinceUnixEpoch,
) -> Result<Vec<LostJoin>, StoreError> {
    let mut all: Vec<LostJoin> = Vec::new();
    for join in joins_under_way::list_before(snap, before)? {
        let same = |lost: &&mut LostJoin| {
            lost.under_way
                .first()
                .is_some_and(|one| one.room_id == join.room_id && one.user_id == join.user_id)
        };
        if let Some(lost) = all.last_mut().filter(same) {
            lost.under_way.push(join);
            continue;
        }
        let member = match rooms::find(snap, &join.room_id)? {
            Some(room) => memberships::find(snap, room.nid, &join.user_id)?,
            None => None,
        };
        let inviter = match member.as_ref().and_then(|member| member.event) {
            Some(nid) => Some(events::pdu(snap, nid)?.sender().server_name().to_owned()),
            None => None,
        };
        let membership = member.map(|member| member.membership);
        all.push(LostJoin { under_way: vec![join], membership, inviter });
    }
    Ok(all)
}

/// Asks everybody who may know of the join to let the user in, until one does.
async fn go_on(hs: &Homeserver, lost: LostJoin) -> Result<(), StoreError> {
    let Some(first) = lost.under_way.first().cloned() else { return Ok(()) };
    let Ok(content) = RawValue::from_string(first.content.clone()) else { return Ok(()) };
    let asked = lost.under_way.iter().map(|join| join.server.clone());
    let again = RemoteJoin {
        user_id: first.user_id.clone(),
        room_id: first.room_id.clone(),
        via: asked.chain(lost.inviter).collect(),
        content,
    };
    for server in route::ordered(hs, again.via.clone(), None) {
        let joined = match make(hs, &server, &again).await {
            Ok(made) => through(hs, &server, (&again, made)).await,
            Err(error) => Err(error),
        };
        match joined {
            Ok(()) => return Ok(()),
            Err(RemoteJoinError::Store(error)) => return Err(error),
            Err(error) if error.is_transient() => {}
            Err(error) => {
                tracing::info!(%server, room_id = %again.room_id, %error, "a lost join stays lost");
                let answered = JoinUnderWay { server, ..first.clone() };
                hs.store.write(move |txn| joins_under_way::answer(txn, &answered)).await?;
            }
        }
    }
    Ok(())
}

/// Tells everybody who may believe in the join that the user is not there.
async fn take_back(hs: &Homeserver, lost: LostJoin) -> Result<(), StoreError> {
    let now = hs.clock.now();
    hs.store
        .write(move |txn| {
            for join in lost.under_way {
                let body = json!({ "room_id": join.room_id, "user_id": join.user_id });
                let entry = NewEntry {
                    destination: &join.server,
                    kind: outbox::Kind::Leave,
                    slot: None,
                    body: &body.to_string(),
                };
                // Before it is sent, the outbox looks whether the user is in the room after all.
                outbox::insert(txn, entry, now)?;
                joins_under_way::answer(txn, &join)?;
            }
            Ok::<_, StoreError>(())
        })
        .await?;
    hs.peers.wake();
    Ok(())
}
