//! What a room is, in a few words, and who may know that.
//!
//! Spec: Client-Server API, "GET /room_summary/{roomIdOrAlias}" and "Spaces".

use messagehub_store::{Room, Snapshot, StoreError, events, memberships, room_state, rooms};
use ruma::{
    EventEncryptionAlgorithm, OwnedMxcUri, OwnedRoomAliasId, OwnedRoomId, OwnedRoomOrAliasId,
    OwnedServerName, ServerName, UInt, UserId,
    events::{
        StateEventType,
        room::{
            history_visibility::HistoryVisibility,
            join_rules::{AllowRule, JoinRule},
            member::MembershipState,
        },
    },
    room::{JoinRuleSummary, RoomSummary, RoomType},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{aliases::AliasError, hierarchy::remote, restricted::join_rule, ways};
use crate::{Homeserver, client_event, visibility::history_visibility};

/// Why a room is not summed up.
#[derive(Debug, thiserror::Error)]
pub enum SummaryError {
    /// There is no such room, or the user may not know of it.
    #[error("there is no such room")]
    NotFound,
    /// The alias stands for nothing, or its server cannot be asked.
    #[error(transparent)]
    Alias(#[from] AliasError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A summary, and what the asking user is in the room.
#[derive(Debug)]
pub struct Summarised {
    /// The room.
    pub summary: RoomSummary,
    /// What the user is there; `None` for nothing, and where nobody in particular asks.
    pub membership: Option<MembershipState>,
}

/// Sums up a room, if `user_id`, or everybody, may know of it. Where this server is not in it, the
/// servers named are asked.
///
/// # Errors
/// See [`SummaryError`].
pub async fn summarise(
    hs: &Homeserver,
    user_id: Option<&UserId>,
    (target, via): (OwnedRoomOrAliasId, Vec<OwnedServerName>),
) -> Result<Summarised, SummaryError> {
    let (room_id, via) = ways::target(hs, target, via).await?;
    let (us, user, wanted) =
        (hs.server_name().to_owned(), user_id.map(ToOwned::to_owned), room_id.clone());
    let here = hs.store.read(move |snap| here(snap, &us, &wanted, user.as_deref())).await?;
    match here {
        Here::Summary(summarised) => Ok(*summarised),
        Here::Hidden => Err(SummaryError::NotFound),
        // Somebody without an account must not make this server ask others.
        Here::Elsewhere { .. } if user_id.is_none() => Err(SummaryError::NotFound),
        Here::Elsewhere { mut known, membership, is_member_of } => {
            known.splice(0..0, via);
            let found = remote(hs, &room_id, ways::others(hs, known)).await?;
            let summary = found.ok_or(SummaryError::NotFound)?.room.summary;
            let is_open = membership == Some(MembershipState::Invite)
                || is_open(&summary, |room_id| is_member_of.contains(room_id));
            if !is_open {
                return Err(SummaryError::NotFound);
            }
            Ok(Summarised { summary, membership })
        }
    }
}

/// What this server itself can say.
enum Here {
    Summary(Box<Summarised>),
    Hidden,
    Elsewhere {
        known: Vec<OwnedServerName>,
        membership: Option<MembershipState>,
        is_member_of: Vec<OwnedRoomId>,
    },
}

fn here(
    snap: &Snapshot<'_>,
    us: &ServerName,
    room_id: &OwnedRoomId,
    user_id: Option<&UserId>,
) -> Result<Here, StoreError> {
    let room = rooms::find(snap, room_id)?;
    let membership = match (&room, user_id) {
        (Some(room), Some(user_id)) => memberships::find(snap, room.nid, user_id)?,
        _ => None,
    };
    let membership = membership.map(|member| member.membership);
    if let Some(room) = &room
        && memberships::is_server_in(snap, room.nid, us)?
    {
        if !is_open_to(snap, room, user_id)? {
            return Ok(Here::Hidden);
        }
        let summary = of(snap, room)?;
        return Ok(Here::Summary(Box::new(Summarised { summary, membership })));
    }
    let mut known = ways::named(room_id);
    let mut is_member_of = Vec::new();
    if let Some(user_id) = user_id {
        if let Some(room) = &room {
            known = ways::known(snap, room, user_id)?;
        }
        is_member_of = super::read::list_joined(snap, user_id)?;
    }
    Ok(Here::Elsewhere { known, membership, is_member_of })
}

/// A room as its current state sums it up.
///
/// # Errors
/// The store's.
pub(crate) fn of(snap: &Snapshot<'_>, room: &Room) -> Result<RoomSummary, StoreError> {
    let content = |kind: StateEventType| content(snap, room, &kind);
    let joined = memberships::count_joined(snap, room.nid)?;
    let rule = JoinRuleSummary::from(join_rule(snap, room)?);
    let guests: Option<String> = field(&content(StateEventType::RoomGuestAccess)?, "guest_access");
    let is_readable = history_visibility(snap, room.state)? == HistoryVisibility::WorldReadable;
    let mut summary = RoomSummary::new(
        room.room_id.clone(),
        rule,
        guests.as_deref() == Some("can_join"),
        UInt::try_from(joined).unwrap_or(UInt::MAX),
        is_readable,
    );
    summary.name = field(&content(StateEventType::RoomName)?, "name");
    summary.topic = field(&content(StateEventType::RoomTopic)?, "topic");
    summary.avatar_url = field::<OwnedMxcUri>(&content(StateEventType::RoomAvatar)?, "url");
    summary.canonical_alias =
        field::<OwnedRoomAliasId>(&content(StateEventType::RoomCanonicalAlias)?, "alias");
    summary.room_type = field::<RoomType>(&content(StateEventType::RoomCreate)?, "type");
    summary.encryption =
        field::<EventEncryptionAlgorithm>(&content(StateEventType::RoomEncryption)?, "algorithm");
    summary.room_version = Some(room.version.clone());
    Ok(summary)
}

/// The content of a state event with an empty state key, without what was redacted; empty where
/// there is none.
fn content(
    snap: &Snapshot<'_>,
    room: &Room,
    kind: &StateEventType,
) -> Result<Map<String, Value>, StoreError> {
    let Some(nid) = room_state::get(snap, room.state, kind, "")? else { return Ok(Map::new()) };
    let pdu = client_event::shown(snap, &events::get(snap, nid)?)?;
    // Members may write any content; what is no object says nothing.
    Ok(serde_json::from_str(pdu.content().get()).unwrap_or_default())
}

fn field<T: DeserializeOwned>(content: &Map<String, Value>, name: &str) -> Option<T> {
    serde_json::from_value(content.get(name)?.clone()).ok()
}

/// Whether a user, or everybody, may know what a room is: whoever is in it or could be.
///
/// Spec: Client-Server API, "GET /rooms/{roomId}/hierarchy".
///
/// # Errors
/// The store's.
pub(crate) fn is_open_to(
    snap: &Snapshot<'_>,
    room: &Room,
    user_id: Option<&UserId>,
) -> Result<bool, StoreError> {
    if is_open_to_all(snap, room)? {
        return Ok(true);
    }
    let Some(user_id) = user_id else { return Ok(false) };
    let member = memberships::find(snap, room.nid, user_id)?;
    if let Some(member) = member
        && matches!(member.membership, MembershipState::Join | MembershipState::Invite)
    {
        return Ok(true);
    }
    is_let_in(snap, room, |nid| memberships::is_joined(snap, nid, user_id))
}

/// Whether a server may know what a room is: one of its users is in it, or could be.
///
/// # Errors
/// The store's.
pub(crate) fn is_open_to_server(
    snap: &Snapshot<'_>,
    room: &Room,
    server: &ServerName,
) -> Result<bool, StoreError> {
    if is_open_to_all(snap, room)? || memberships::is_server_in(snap, room.nid, server)? {
        return Ok(true);
    }
    for user_id in memberships::list_with(snap, room.nid, &MembershipState::Invite)? {
        if user_id.server_name() == server {
            return Ok(true);
        }
    }
    is_let_in(snap, room, |nid| memberships::is_server_in(snap, nid, server))
}

fn is_open_to_all(snap: &Snapshot<'_>, room: &Room) -> Result<bool, StoreError> {
    if history_visibility(snap, room.state)? == HistoryVisibility::WorldReadable {
        return Ok(true);
    }
    let rule = join_rule(snap, room)?;
    Ok(matches!(rule, JoinRule::Public | JoinRule::Knock | JoinRule::KnockRestricted(_)))
}

fn is_let_in(
    snap: &Snapshot<'_>,
    room: &Room,
    is_in: impl Fn(messagehub_store::RoomNid) -> Result<bool, StoreError>,
) -> Result<bool, StoreError> {
    let JoinRule::Restricted(restricted) = join_rule(snap, room)? else { return Ok(false) };
    for rule in restricted.allow {
        if let AllowRule::RoomMembership(other) = rule
            && let Some(other) = rooms::find(snap, &other.room_id)?
            && is_in(other.nid)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The same of a room that only others know, by what they say of it.
pub(crate) fn is_open(summary: &RoomSummary, is_in: impl Fn(&OwnedRoomId) -> bool) -> bool {
    summary.world_readable
        || match &summary.join_rule {
            JoinRuleSummary::Public
            | JoinRuleSummary::Knock
            | JoinRuleSummary::KnockRestricted(_) => true,
            JoinRuleSummary::Restricted(restricted) => {
                restricted.allowed_room_ids.iter().any(is_in)
            }
            _ => false,
        }
}
