//! Joining a room: here when this server is in it, else through any server that is.
//!
//! Spec: Client-Server API, "Joining rooms".

use messagehub_protocol::auth::PowerLevels;
use messagehub_store::{Room, Snapshot, StoreError, Txn, events, memberships, profiles, rooms};
use ruma::{
    OwnedRoomAliasId, OwnedRoomId, OwnedRoomOrAliasId, OwnedServerName, OwnedUserId, RoomAliasId,
    RoomId, ServerName, UserId,
    events::{
        StateEventType,
        room::{
            join_rules::{AllowRule, JoinRule, RoomJoinRulesEventContent},
            member::MembershipState,
        },
    },
    state_res::events::RoomPowerLevelsIntField,
};

use super::{
    aliases::{self, AliasError},
    membership::Member,
    moderate::membership,
};
use crate::{
    Homeserver,
    emit::{Emitter, News, SendError},
    rate::{Limited, RateKey},
    remote_join::{self, RemoteJoin, RemoteJoinError},
    view,
};

/// Servers that a client may name as ways into a room.
const MAX_VIA: usize = 20;

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

/// Why a room is not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The alias stands for nothing that this server knows.
    #[error("there is no room {0}")]
    UnknownAlias(OwnedRoomAliasId),
    /// This server is not in the room, and no other server is known to be.
    #[error("no server is known that is in this room")]
    NoWay,
    /// The user joins rooms too fast.
    #[error(transparent)]
    Limited(#[from] Limited),
    /// The event could not be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The other servers did not let us in, or could not be reached.
    #[error(transparent)]
    Remote(#[from] RemoteJoinError),
}

impl From<StoreError> for JoinError {
    fn from(error: StoreError) -> Self {
        Self::Send(error.into())
    }
}

/// Joins a room and gives its id. Who is in it already has nothing to do.
///
/// # Errors
///
/// See [`JoinError`].
pub async fn join(hs: &Homeserver, user_id: &UserId, join: Join) -> Result<OwnedRoomId, JoinError> {
    hs.limits.rates.check(RateKey::Message(user_id.to_owned()), hs.clock.now())?;
    let Join { target, mut via, reason } = join;
    via.truncate(MAX_VIA);
    let room_id = match OwnedRoomId::try_from(target) {
        Ok(room_id) => room_id,
        Err(alias) => {
            let resolved = resolve(hs, &alias).await?;
            via.extend(resolved.servers);
            resolved.room_id
        }
    };
    match local(hs, user_id, &room_id, reason.clone()).await? {
        Outcome::Joined => return Ok(room_id),
        Outcome::Elsewhere(known) => via.extend(known),
    }
    via.retain(|server| server != hs.server_name());
    let mut seen = std::collections::BTreeSet::new();
    via.retain(|server| seen.insert(server.clone()));
    if via.is_empty() {
        return Err(JoinError::NoWay);
    }
    remote(hs, user_id, (room_id.clone(), via), reason).await?;
    Ok(room_id)
}

async fn resolve(hs: &Homeserver, alias: &RoomAliasId) -> Result<aliases::Resolved, JoinError> {
    aliases::resolve(hs, alias).await.map_err(|error| match error {
        AliasError::Store(error) => JoinError::from(error),
        _ => JoinError::UnknownAlias(alias.to_owned()),
    })
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
) -> Result<Outcome, JoinError> {
    let emitter = Emitter::of(hs);
    let (user_id, room_id) = (user_id.to_owned(), room_id.to_owned());
    let (outcome, news) = hs
        .store
        .write(move |txn| {
            let Some(room) = rooms::find(txn, &room_id)? else {
                return Ok((Outcome::Elsewhere(via_of(&room_id)), None));
            };
            if !memberships::is_server_in(txn, room.nid, emitter.identity.server_name())? {
                return Ok((Outcome::Elsewhere(ways(txn, &room, &user_id)?), None));
            }
            locally(txn, &emitter, room, (&user_id, reason.as_deref()))
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
) -> Result<(Outcome, Option<News>), JoinError> {
    let is = membership(txn, &room, user_id)?;
    if is == Some(MembershipState::Join) {
        return Ok((Outcome::Joined, None));
    }
    let profile = profiles::get(txn, user_id)?;
    let mut member = Member::new(MembershipState::Join).with_profile(&profile).with_reason(reason);
    if is != Some(MembershipState::Invite)
        && let Some(allow) = restriction(txn, &room)?
    {
        match authorizer(txn, emitter, (&room, user_id), &allow)? {
            Authorizer::Found(by) => {
                member = member.with("join_authorised_via_users_server", by.as_str());
            }
            Authorizer::OnlyElsewhere => {
                return Ok((Outcome::Elsewhere(memberships::servers_in(txn, room.nid)?), None));
            }
            Authorizer::NotAllowed => {}
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
) -> Result<(), JoinError> {
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

/// Servers that can let a user in: whoever invited them, and whoever was in the room when this
/// server last was.
fn ways(
    snap: &Snapshot<'_>,
    room: &Room,
    user_id: &UserId,
) -> Result<Vec<OwnedServerName>, StoreError> {
    let mut ways = Vec::new();
    if let Some(invite) = memberships::find(snap, room.nid, user_id)?
        && let Some(nid) = invite.event
    {
        ways.push(events::pdu(snap, nid)?.sender().server_name().to_owned());
    }
    ways.extend(memberships::servers_in(snap, room.nid)?.into_iter().take(MAX_VIA));
    ways.extend(via_of(&room.room_id));
    Ok(ways)
}

/// The server in a room id, for ids that have one: a guess, where nothing better is known.
fn via_of(room_id: &RoomId) -> Vec<OwnedServerName> {
    room_id.server_name().map(ToOwned::to_owned).into_iter().collect()
}

/// Whom a restricted room lets in; `None` for other rooms.
fn restriction(snap: &Snapshot<'_>, room: &Room) -> Result<Option<Vec<AllowRule>>, StoreError> {
    let rules = view::state_event(snap, room.state, &StateEventType::RoomJoinRules, "")?;
    let content = rules
        .and_then(|event| {
            serde_json::from_str::<RoomJoinRulesEventContent>(event.content().get()).ok()
        })
        .map(|content| content.join_rule);
    Ok(match content {
        Some(JoinRule::Restricted(restricted) | JoinRule::KnockRestricted(restricted)) => {
            Some(restricted.allow)
        }
        _ => None,
    })
}

/// Who of this server's users can vouch that somebody may join.
enum Authorizer {
    /// This one.
    Found(OwnedUserId),
    /// The user may join, but nobody here has the power to let them in.
    OnlyElsewhere,
    /// Nothing that this server knows allows it.
    NotAllowed,
}

/// Whether this server can say that somebody of another server may come into a restricted room:
/// it is itself in a room that lets them in, and they are too.
///
/// Spec: Server-Server API, "Restricted rooms".
pub(crate) fn can_vouch(
    snap: &Snapshot<'_>,
    us: &ServerName,
    (room, user_id): (&Room, &UserId),
) -> Result<bool, StoreError> {
    for rule in restriction(snap, room)?.unwrap_or_default() {
        let AllowRule::RoomMembership(other) = rule else { continue };
        if let Some(other) = rooms::find(snap, &other.room_id)?
            && memberships::is_server_in(snap, other.nid, us)?
            && memberships::is_joined(snap, other.nid, user_id)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Spec: Client-Server API, "Restricted rooms".
fn authorizer(
    snap: &Snapshot<'_>,
    emitter: &Emitter,
    (room, user_id): (&Room, &UserId),
    allow: &[AllowRule],
) -> Result<Authorizer, JoinError> {
    let mut allowed = false;
    for rule in allow {
        let AllowRule::RoomMembership(other) = rule else { continue };
        if let Some(other) = rooms::find(snap, &other.room_id)? {
            let member = memberships::find(snap, other.nid, user_id)?;
            allowed |= member.is_some_and(|member| member.membership == MembershipState::Join);
        }
    }
    if !allowed {
        return Ok(Authorizer::NotAllowed);
    }
    let rules = view::rules(room).map_err(SendError::from)?;
    let keys = [
        (StateEventType::RoomCreate, String::new()),
        (StateEventType::RoomPowerLevels, String::new()),
    ];
    let state = view::part(snap, room.state, &keys)?;
    let levels = PowerLevels::of(&state, rules);
    let needed = levels.level(RoomPowerLevelsIntField::Invite);
    let ours = memberships::list_joined_from(snap, room.nid, emitter.identity.server_name())?;
    let can = |user: &OwnedUserId| {
        levels.of_user(user) >= messagehub_protocol::auth::PowerLevel::Int(needed)
    };
    Ok(match ours.into_iter().find(can) {
        Some(user) => Authorizer::Found(user),
        None => Authorizer::OnlyElsewhere,
    })
}
