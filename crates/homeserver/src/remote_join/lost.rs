//! Joins that did not come to their end: the answer was lost, or this node died before it had stored
//! it.
//!
//! The other server may have let the user in, and nobody here knows. So the join is made once more:
//! whoever is in a room may join it again. Only where nobody wants that any more is the room told
//! that the user is gone.

use messagehub_store::{
    Snapshot, StoreError, Txn, events,
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
/// answer has given up. One from before the start has nobody who waits.
const LOST_AFTER_MS: u64 = 120_000;

/// How long an uninvited user who wanted in is still brought in, in milliseconds: a device that
/// died is back within a day, and after more than that nobody expects to find themselves in a room.
const WANTED_FOR_MS: u64 = 24 * 60 * 60 * 1_000;

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

impl LostJoin {
    /// The join to make once more; `None` where the user does not want in any more.
    fn wanted(&self, now_ms: u64) -> Option<RemoteJoin> {
        let not_before = timestamp(now_ms.saturating_sub(WANTED_FOR_MS));
        let is_invited = self.membership == Some(MembershipState::Invite);
        let is_wanted = |join: &&JoinUnderWay| is_invited || join.started >= not_before;
        // That of a withdrawn join is empty, and so no JSON.
        let read = |join: &JoinUnderWay| {
            let content = RawValue::from_string(join.content.clone()).ok()?;
            Some((join.user_id.clone(), join.room_id.clone(), content))
        };
        let (user_id, room_id, content) = self.under_way.iter().filter(is_wanted).find_map(read)?;
        let asked = self.under_way.iter().map(|join| join.server.clone());
        let via = asked.chain(self.inviter.clone()).collect();
        Some(RemoteJoin { user_id, room_id, via, content })
    }
}

/// Brings joins to an end whose answer was lost, and those that a run of this node before `started`
/// did not finish. Who wants in is brought in; anybody else leaves again, so that nobody waits for
/// them in vain.
///
/// A server that was asked may be gone from the room by now, and the join live on with others.
/// Those show themselves sooner or later, by telling us of the room, and are asked then.
///
/// # Errors
/// Fails when the database does.
pub(crate) async fn finish_lost(
    hs: &Homeserver,
    started: MilliSecondsSinceUnixEpoch,
) -> Result<(), StoreError> {
    let now_ms = hs.clock.now_ms();
    let before = started.max(timestamp(now_ms.saturating_sub(LOST_AFTER_MS)));
    for lost in hs.store.read(move |snap| list_lost(snap, before)).await? {
        if lost.membership == Some(MembershipState::Join) {
            end(hs, lost).await?;
        } else if let Some(join) = lost.wanted(now_ms) {
            go_on(hs, join).await?;
        } else {
            take_back(hs, lost).await?;
        }
    }
    let forgotten = timestamp(now_ms.saturating_sub(BELIEVED_FOR_MS));
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

/// The user is in the room.
async fn end(hs: &Homeserver, lost: LostJoin) -> Result<(), StoreError> {
    let Some(join) = lost.under_way.into_iter().next() else { return Ok(()) };
    hs.store.write(move |txn| joins_under_way::end(txn, &join.room_id, &join.user_id)).await
}

/// Asks everybody who may know of the join to let the user in, until one does.
async fn go_on(hs: &Homeserver, join: RemoteJoin) -> Result<(), StoreError> {
    for server in route::ordered(hs, join.via.clone(), None) {
        let joined = match make(hs, &server, &join).await {
            Ok(made) => through(hs, &server, (&join, made)).await,
            Err(error) => Err(error),
        };
        match joined {
            Ok(()) => return Ok(()),
            Err(RemoteJoinError::Store(error)) => return Err(error),
            Err(error) if error.is_transient() => {}
            Err(error) => {
                tracing::info!(%server, room_id = %join.room_id, %error, "a lost join stays lost");
                let answered = JoinUnderWay {
                    room_id: join.room_id.clone(),
                    user_id: join.user_id.clone(),
                    server,
                    content: join.content.get().to_owned(),
                    started: hs.clock.now(),
                };
                let now = hs.clock.now();
                let may_believe = !error.is_refusal();
                hs.store
                    .write(move |txn| match may_believe {
                        true => leave(txn, &answered, now),
                        false => joins_under_way::answer(txn, &answered),
                    })
                    .await?;
            }
        }
    }
    Ok(())
}

/// Tells everybody who may believe in the join that the user is not there.
async fn take_back(hs: &Homeserver, lost: LostJoin) -> Result<(), StoreError> {
    let now = hs.clock.now();
    hs.store
        .write(move |txn| lost.under_way.iter().try_for_each(|join| leave(txn, join, now)))
        .await?;
    hs.peers.wake();
    Ok(())
}

/// Tells a server that the user is not there. Before it is sent, the outbox looks whether they are
/// after all.
fn leave(
    txn: &mut Txn<'_>,
    join: &JoinUnderWay,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<(), StoreError> {
    let body = json!({ "room_id": join.room_id, "user_id": join.user_id }).to_string();
    let entry =
        NewEntry { destination: &join.server, kind: outbox::Kind::Leave, slot: None, body: &body };
    outbox::insert(txn, entry, now)?;
    joins_under_way::answer(txn, join)
}
