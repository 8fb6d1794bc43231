//! Joining a room: here when this server is in it, else through any server that is.
//!
//! Spec: Client-Server API, "Joining rooms".

use std::sync::Arc;

use messagehub_store::{Room, Txn, memberships, profiles, rooms};
use ruma::{
    OwnedRoomId, OwnedRoomOrAliasId, OwnedServerName, RoomId, UserId,
    events::room::member::MembershipState,
};

use super::{
    membership::Member,
    moderate::membership,
    restricted::{Vouching, restriction, vouch},
    ways::{self, EntryError},
};
use crate::{
    Homeserver,
    emit::{Emitter, News, SendError},
    policy::with_signatures,
    rate::RateKey,
    remote_join::{self, RemoteJoin},
};

/// What to join.
#[derive(Debug)]
pub struct Join {
    /// The room, or an alias of it.
    pub target: OwnedRoomOrAliasId,
    /// Servers that are said to be in it.
    pub via: Vec<OwnedServerName>,
    /// Why, for people.
    pub reason: Option<String>,
}

/// Joins a room and gives its id. Who is in it already has nothing to do.
///
/// # Errors
///
/// See [`EntryError`].
pub async fn join(
    hs: &Homeserver,
    user_id: &UserId,
    join: Join,
) -> Result<OwnedRoomId, EntryError> {
    hs.limits.rates.check(RateKey::Message(user_id.to_owned()), hs.clock.now())?;
    let (room_id, mut via) = ways::target(hs, join.target, join.via).await?;
    let reason = join.reason;
    match local(hs, user_id, &room_id, reason.clone()).await? {
        Outcome::Joined => return Ok(room_id),
        Outcome::Elsewhere(known) => via.extend(known),
    }
    let via = ways::others(hs, via);
    if via.is_empty() {
        return Err(EntryError::NoWay);
    }
    remote(hs, user_id, (room_id.clone(), via), reason).await?;
    Ok(room_id)
}

/// What trying it here came to.
enum Outcome {
    /// The user is in the room.
    Joined,
    /// Only other servers can let the user in; these are known to be in the room.
    Elsewhere(Vec<OwnedServerName>),
}

async fn local(
    hs: &Homeserver,
    user_id: &UserId,
    room_id: &RoomId,
    reason: Option<String>,
) -> Result<Outcome, EntryError> {
    let wanted = Arc::new((user_id.to_owned(), room_id.to_owned(), reason));
    let (outcome, news) = with_signatures(hs, |emitter| {
        let wanted = Arc::clone(&wanted);
        hs.store.write(move |txn| {
            let (user_id, room_id, reason) = &*wanted;
            let Some(room) = rooms::find(txn, room_id)? else {
                return Ok((Outcome::Elsewhere(ways::named(room_id)), None));
            };
            if !memberships::is_server_in(txn, room.nid, emitter.identity.server_name())? {
                return Ok((Outcome::Elsewhere(ways::known(txn, &room, user_id)?), None));
            }
            locally(txn, &emitter, room, (user_id, reason.as_deref()))
        })
    })
    .await?;
    if let Some(news) = news {
        news.publish(hs).await;
    }
    Ok(outcome)
}

fn locally(
    txn: &mut Txn<'_>,
    emitter: &Emitter,
    mut room: Room,
    (user_id, reason): (&UserId, Option<&str>),
) -> Result<(Outcome, Option<News>), EntryError> {
    let is = membership(txn, &room, user_id)?;
    if is == Some(MembershipState::Join) {
        return Ok((Outcome::Joined, None));
    }
    let profile = profiles::get(txn, user_id)?;
    let mut member = Member::new(MembershipState::Join).with_profile(&profile).with_reason(reason);
    if is != Some(MembershipState::Invite)
        && let Some(allow) = restriction(txn, &room).map_err(SendError::from)?
    {
        let us = emitter.identity.server_name();
        match vouch(txn, us, (&room, user_id), &allow).map_err(SendError::from)? {
            Vouching::Granted(by) => {
                member = member.with("join_authorised_via_users_server", by.as_str());
            }
            Vouching::Powerless => {
                return Ok((Outcome::Elsewhere(memberships::servers_in(txn, room.nid)?), None));
            }
            // In a room that this server is not in, no user of it is: the rules say no.
            Vouching::Unknowing | Vouching::Unmet => {}
        }
    }
    let event = member.event(&room, user_id, user_id)?;
    let appended = emitter.emit(txn, &mut room, event)?;
    let news = News::of(txn, room, &[appended], emitter.identity.server_name())?;
    Ok((Outcome::Joined, Some(news)))
}

async fn remote(
    hs: &Homeserver,
    user_id: &UserId,
    (room_id, via): (OwnedRoomId, Vec<OwnedServerName>),
    reason: Option<String>,
) -> Result<(), EntryError> {
    let user = user_id.to_owned();
    let profile = hs.store.read(move |snap| profiles::get(snap, &user)).await?;
    let content = Member::new(MembershipState::Join)
        .with_profile(&profile)
        .with_reason(reason.as_deref())
        .content()?;
    remote_join::join(hs, RemoteJoin { user_id: user_id.to_owned(), room_id, via, content })
        .await?;
    Ok(())
}
