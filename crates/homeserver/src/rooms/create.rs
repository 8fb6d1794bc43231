//! Making a room: all its first events in one transaction.
//!
//! Spec: Client-Server API, "Creation", "POST /createRoom".

use messagehub_protocol::{
    auth::AuthViolation,
    build::{NewEvent, Place},
    receive::RoomView,
    rules::rules_of,
};
use messagehub_store::{
    Room, StoreError, Txn, aliases, profiles, published_rooms, room_state, rooms,
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedRoomAliasId, OwnedRoomId, OwnedServerName, OwnedUserId,
    RoomAliasId, RoomId, RoomVersionId, UserId,
    api::client::room::Visibility,
    events::{TimelineEventType, room::member::MembershipState},
    room_version_rules::RoomVersionRules,
};

pub use ruma::api::client::room::create_room::v3::Request as NewRoom;

use super::{
    invite,
    membership::{Member, Purpose},
};
use crate::{
    Homeserver,
    append::Appended,
    clock::timestamp,
    emit::{Emitter, News, SendError},
    rate::{Limited, RateKey},
    view::{Opening, ViewError},
};

mod plan;
#[cfg(test)]
mod tests;

/// People invited with one request: each is an event in one transaction.
pub const MAX_INVITES: usize = 100;

/// State events given with one request. A room of many features has a few tens.
pub const MAX_INITIAL_STATE: usize = 500;

/// Characters of a room id that we choose: 107 bits, never to be guessed nor met twice.
const ROOM_ID_LENGTH: usize = 18;

/// Rooms that one user can make in one millisecond, where the id follows from the create event.
const MAX_SAME_MILLISECOND: u64 = 100;

/// Why a room is not made. Nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The version is not one this server takes part in.
    #[error("room version {0} is not supported")]
    UnsupportedVersion(RoomVersionId),
    /// A part of the request has the wrong form; the text is for people.
    #[error("{0}")]
    BadContent(String),
    /// The state asked for is not allowed by the rules, or not to the creator.
    #[error("the initial state is not allowed: {0}")]
    InvalidState(AuthViolation),
    /// The alias has the wrong form.
    #[error("{0} is no legal alias")]
    InvalidAlias(String),
    /// The alias stands for another room.
    #[error("{0} stands for another room")]
    AliasTaken(OwnedRoomAliasId),
    /// An event would be larger than an event may be.
    #[error("an event is too large")]
    TooLarge,
    /// The user makes rooms too fast.
    #[error(transparent)]
    Limited(#[from] Limited),
    /// The outbox of an invited user's server is full.
    #[error("too much waits for {0} already")]
    OutboxFull(OwnedServerName),
    /// An invited user takes no invites.
    #[error("{0} does not take this invite")]
    InviteBlocked(OwnedUserId),
    /// The new room is not usable, which is our fault.
    #[error("the room is not usable: {0}")]
    Room(ViewError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<SendError> for CreateError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Forbidden(violation) => Self::InvalidState(violation),
            SendError::TooLarge => Self::TooLarge,
            SendError::BadContent(text) => Self::BadContent(text),
            SendError::InvalidAlias(alias) | SendError::BadAlias(alias) => {
                Self::InvalidAlias(alias)
            }
            SendError::Limited(limited) => Self::Limited(limited),
            SendError::OutboxFull(server) => Self::OutboxFull(server),
            SendError::InviteBlocked(user_id) => Self::InviteBlocked(user_id),
            SendError::Room(error) => Self::Room(error),
            SendError::Store(error) => Self::Store(error),
            SendError::NotInRoom
            | SendError::MayNotRedact
            | SendError::UnknownEvent
            | SendError::NotRecommended { .. }
            | SendError::NoRecommendation(_)
            | SendError::NotKept => Self::BadContent(error.to_string()),
        }
    }
}

impl From<ViewError> for CreateError {
    fn from(error: ViewError) -> Self {
        Self::from(SendError::from(error))
    }
}

/// Makes a room with a local user in it. Answers after it is durable.
///
/// # Errors
///
/// See [`CreateError`].
pub async fn room(
    hs: &Homeserver,
    creator: &UserId,
    new: NewRoom,
) -> Result<OwnedRoomId, CreateError> {
    let emitter = Emitter::of(hs);
    hs.limits.rates.check(RateKey::Message(creator.to_owned()), emitter.now)?;
    let version =
        new.room_version.clone().unwrap_or_else(|| hs.limits.default_room_version.clone());
    let rules =
        rules_of(&version).ok_or_else(|| CreateError::UnsupportedVersion(version.clone()))?;
    check_request(&new)?;
    let alias = alias_of(hs, &new)?;
    let blueprint = Blueprint {
        creator: creator.to_owned(),
        create_content: plan::create_content(&new, creator, &version, rules)?,
        state: plan::state(&new, creator, alias.as_ref(), rules)?,
        invites: invited(&new, creator),
        purpose: if new.is_direct { Purpose::Direct } else { Purpose::Room },
        room_id: chosen_id(hs, rules),
        version,
        rules,
        alias,
        visibility: new.visibility,
    };
    let news = hs.store.write(move |txn| make(txn, emitter, blueprint)).await?;
    let room_id = news.room_id().to_owned();
    news.publish(hs).await;
    Ok(room_id)
}

/// Everything about a room but where its events stand.
struct Blueprint {
    creator: OwnedUserId,
    version: RoomVersionId,
    rules: &'static RoomVersionRules,
    /// `None` where it follows from the create event.
    room_id: Option<OwnedRoomId>,
    create_content: Box<serde_json::value::RawValue>,
    state: Vec<plan::Entry>,
    invites: Vec<OwnedUserId>,
    purpose: Purpose,
    alias: Option<OwnedRoomAliasId>,
    visibility: Visibility,
}

fn make(txn: &mut Txn<'_>, emitter: Emitter, plan: Blueprint) -> Result<News, CreateError> {
    let (mut room, created) = begin(txn, &emitter, &plan)?;
    if let Some(alias) = &plan.alias
        && aliases::insert(txn, alias, room.nid, &plan.creator)? == aliases::Added::Taken
    {
        return Err(CreateError::AliasTaken(alias.clone()));
    }
    if plan.visibility == Visibility::Public {
        published_rooms::insert(txn, room.nid)?;
    }
    let mut appended = vec![created];
    let profile = profiles::get(txn, &plan.creator)?;
    let join = Member::new(MembershipState::Join).with_profile(&profile).content()?;
    let member = (TimelineEventType::RoomMember, plan.creator.to_string(), join);
    let state = plan.state.into_iter().map(|entry| (entry.kind, entry.state_key, entry.content));
    for (kind, state_key, content) in std::iter::once(member).chain(state) {
        let event = NewEvent {
            room_id: Some(room.room_id.clone()),
            sender: plan.creator.clone(),
            kind,
            state_key: Some(state_key),
            content,
            redacts: None,
        };
        appended.push(emitter.emit(txn, &mut room, event)?);
    }
    for invitee in plan.invites {
        let who = (&room, &*plan.creator, &*invitee);
        let event = invite::of_new_room(txn, &emitter.identity, who, plan.purpose)?;
        appended.push(emitter.emit(txn, &mut room, event)?);
    }
    Ok(News::of(txn, room, &appended, emitter.identity.server_name())?)
}

/// The create event, and the room that comes to be with it.
fn begin(
    txn: &mut Txn<'_>,
    emitter: &Emitter,
    plan: &Blueprint,
) -> Result<(Room, Appended), CreateError> {
    let view = RoomView {
        rules: plan.rules,
        auth_events: Vec::new(),
        state_before: Default::default(),
        current_state: None,
    };
    let opening = Opening { place: Place::default(), view, state_before: room_state::EMPTY };
    let event = NewEvent {
        room_id: plan.room_id.clone(),
        sender: plan.creator.clone(),
        kind: TimelineEventType::RoomCreate,
        state_key: Some(String::new()),
        content: plan.create_content.clone(),
        redacts: None,
    };
    // Where the id follows from the event, the same request in the same millisecond would make
    // the same room.
    for later in 0..MAX_SAME_MILLISECOND {
        let emitter = Emitter { now: plus(emitter.now, later), ..emitter.clone() };
        let pdu = emitter.build(event.clone(), &opening)?;
        let room_id: &RoomId = pdu.pdu().room_id();
        if rooms::find(txn, room_id)?.is_none() {
            let mut room = rooms::insert(txn, room_id, &plan.version)?;
            let appended = emitter.apply(txn, &mut room, pdu, &opening)?;
            return Ok((room, appended));
        }
    }
    Err(CreateError::Limited(Limited { retry_after_ms: 1 }))
}

fn plus(now: MilliSecondsSinceUnixEpoch, ms: u64) -> MilliSecondsSinceUnixEpoch {
    timestamp(u64::from(now.get()).saturating_add(ms))
}

fn check_request(new: &NewRoom) -> Result<(), CreateError> {
    let refuse = |text: &str| Err(CreateError::BadContent(text.to_owned()));
    if new.invite.len() > MAX_INVITES {
        return refuse("too many people are invited with one request");
    }
    if new.initial_state.len() > MAX_INITIAL_STATE {
        return refuse("too many events of initial state");
    }
    if !new.invite_3pid.is_empty() {
        return refuse("inviting by e-mail address or telephone number is not supported");
    }
    Ok(())
}

fn alias_of(hs: &Homeserver, new: &NewRoom) -> Result<Option<OwnedRoomAliasId>, CreateError> {
    let Some(localpart) = &new.room_alias_name else { return Ok(None) };
    let alias = format!("#{localpart}:{}", hs.server_name());
    let legal = !localpart.is_empty() && !localpart.contains([':', ' ', '\0']);
    match RoomAliasId::parse(&alias) {
        Ok(alias) if legal => Ok(Some(alias)),
        _ => Err(CreateError::InvalidAlias(alias)),
    }
}

fn invited(new: &NewRoom, creator: &UserId) -> Vec<OwnedUserId> {
    let mut invited: Vec<OwnedUserId> = Vec::with_capacity(new.invite.len());
    for user_id in &new.invite {
        if user_id != creator && !invited.contains(user_id) {
            invited.push(user_id.clone());
        }
    }
    invited
}

fn chosen_id(hs: &Homeserver, rules: &RoomVersionRules) -> Option<OwnedRoomId> {
    if rules.authorization.room_create_event_id_as_room_id {
        return None;
    }
    let id = format!("!{}:{}", hs.rng.alphanumeric(ROOM_ID_LENGTH), hs.server_name());
    OwnedRoomId::try_from(id).ok()
}
