//! Users of other servers who come into our rooms, leave them, or knock on them.
//!
//! Spec: Server-Server API, "Joining Rooms", "Knocking upon a room" and "Leaving Rooms".

use std::sync::Arc;

use messagehub_protocol::{
    auth::{AuthRule, AuthViolation},
    build::{self, NewEvent, Signer},
    pdu::{Pdu, PduError, SignedPdu, WellFormedPdu},
    receive::{self, Verdict},
    server_keys::KeyRing,
};
use messagehub_store::{
    Room, Snapshot, StoreError, Txn,
    events::{self, Standing},
    rooms,
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId,
    RoomVersionId, ServerName, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};
use serde_json::{
    Map,
    value::{RawValue, to_raw_value},
};

use super::{
    access::{AccessError, raw, resident_room},
    shown::{self, Shown, ShownError},
    state::{self, State},
};
use crate::{
    Homeserver, Identity,
    federation::announce,
    ingest::{self, IngestError, Outcome, verify},
    policy,
    rate::{Limited, RateKey},
    rooms::{
        moderate,
        restricted::{Vouching, restriction, vouch},
    },
    view::{self, ViewError},
    visibility::membership_in,
};

/// Why a membership of another server's user is not changed.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The server may not have to do with the room.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The user belongs to another server than the one that asks.
    #[error("the user belongs to another server")]
    NotYourUser,
    /// The asking server does not know the room's version.
    #[error("the room has version {0}")]
    IncompatibleVersion(RoomVersionId),
    /// The room's version is unknown here.
    #[error("room version {0} is not supported")]
    UnsupportedVersion(RoomVersionId),
    /// The event is not what this operation takes.
    #[error("{0}")]
    BadEvent(String),
    /// The rules of the room do not allow it.
    #[error("{0}")]
    Forbidden(String),
    /// A restricted room: of its conditions, none that this server can judge is met.
    #[error("this server cannot say whether the user may join")]
    UnableToAuthorise,
    /// A restricted room: the user may join, but nobody here has the power to let them in.
    #[error("nobody on this server has the power to let the user in")]
    UnableToGrant,
    /// There is no such user here.
    #[error("there is no such user here")]
    UnknownUser,
    /// The user takes no invites, or none of that server.
    #[error("the user does not take this invite")]
    InviteBlocked,
    /// The user has more invites than anybody looks at.
    #[error("the user has too many invites")]
    TooManyInvites,
    /// Invites come faster than anybody means them.
    #[error(transparent)]
    Limited(#[from] Limited),
    /// Gathering failed.
    #[error(transparent)]
    Ingest(#[from] IngestError),
}

impl From<StoreError> for MembershipError {
    fn from(error: StoreError) -> Self {
        Self::Ingest(error.into())
    }
}

impl From<ViewError> for MembershipError {
    fn from(error: ViewError) -> Self {
        Self::Ingest(error.into())
    }
}

impl From<AuthViolation> for MembershipError {
    fn from(violation: AuthViolation) -> Self {
        Self::Forbidden(violation.to_string())
    }
}

impl From<ShownError> for MembershipError {
    fn from(error: ShownError) -> Self {
        match error {
            ShownError::Store(error) => error.into(),
            error => Self::BadEvent(error.to_string()),
        }
    }
}

impl From<PduError> for MembershipError {
    fn from(error: PduError) -> Self {
        Self::BadEvent(error.to_string())
    }
}

/// A membership that a user of another server wants.
#[derive(Debug)]
pub struct Wish {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The user.
    pub user_id: OwnedUserId,
    /// Join, leave or knock.
    pub membership: MembershipState,
}

/// An event for the other server to complete and sign.
#[derive(Debug)]
pub struct Template {
    /// The version of the room.
    pub room_version: RoomVersionId,
    /// The event without hashes and signatures.
    pub event: Box<RawValue>,
}

/// Makes the event by which a user of another server joins, leaves or knocks, if the room lets
/// them.
/// `versions` are those that the other server takes part in; `None` for all.
///
/// # Errors
/// Why not.
pub async fn make(
    hs: &Homeserver,
    origin: OwnedServerName,
    wish: Wish,
    versions: Option<Vec<RoomVersionId>>,
) -> Result<Template, MembershipError> {
    if wish.user_id.server_name() != origin {
        return Err(MembershipError::NotYourUser);
    }
    let (identity, now) = (Arc::clone(&hs.identity), hs.clock.now());
    hs.store
        .write(move |txn| {
            let room = resident_room(txn, &wish.room_id, identity.server_name(), &origin)?;
            if versions.is_some_and(|versions| !versions.contains(&room.version)) {
                return Err(MembershipError::IncompatibleVersion(room.version));
            }
            template(txn, (&identity, now), &room, wish)
        })
        .await
}

fn template(
    txn: &mut Txn<'_>,
    (identity, now): (&Identity, MilliSecondsSinceUnixEpoch),
    room: &Room,
    wish: Wish,
) -> Result<Template, MembershipError> {
    let mut content = Map::new();
    content.insert("membership".to_owned(), wish.membership.as_str().into());
    if wish.membership == MembershipState::Join
        && let Some(by) = authorised_by(txn, identity.server_name(), (room, &wish.user_id))?
    {
        content.insert("join_authorised_via_users_server".to_owned(), by.as_str().into());
    }
    let content =
        to_raw_value(&content).map_err(|error| MembershipError::BadEvent(error.to_string()))?;
    let new = NewEvent {
        room_id: Some(room.room_id.clone()),
        sender: wish.user_id.clone(),
        kind: TimelineEventType::RoomMember,
        state_key: Some(wish.user_id.to_string()),
        content,
        redacts: None,
    };
    let bad = |error: build::BuildError| MembershipError::BadEvent(error.to_string());
    let opening = view::for_sending(txn, room, &new)??;
    let rules = opening.view.rules;
    let event = build::template(&new, &opening.place, now, rules).map_err(bad)?;
    // The rules judge a whole event: a draft in our own name that nobody ever sees.
    let signer = Signer { server: identity.server_name(), key: identity.verify_key() };
    let draft = build::event(new, &opening.place, now, signer, rules).map_err(bad)?;
    match receive::check(draft, &opening.view).verdict() {
        Verdict::Accepted => Ok(Template { room_version: room.version.clone(), event }),
        // The last of all checks; a draft cannot pass it, and the event will be signed in time.
        Verdict::SoftFailed(violation) if violation.rule == AuthRule::Policy => {
            Ok(Template { room_version: room.version.clone(), event })
        }
        Verdict::Rejected(violation) | Verdict::SoftFailed(violation) => {
            Err(MembershipError::Forbidden(violation.to_string()))
        }
    }
}

/// Who of our users lets somebody into a restricted room; `None` where nobody has to: in other
/// rooms, and for whoever was invited or is there.
fn authorised_by(
    snap: &Snapshot<'_>,
    us: &ServerName,
    (room, user_id): (&Room, &UserId),
) -> Result<Option<OwnedUserId>, MembershipError> {
    let is = moderate::membership(snap, room, user_id)?;
    if matches!(is, Some(MembershipState::Invite | MembershipState::Join)) {
        return Ok(None);
    }
    let Some(allow) = restriction(snap, room)? else { return Ok(None) };
    if is == Some(MembershipState::Ban) {
        return Err(MembershipError::Forbidden("the user is banned from the room".to_owned()));
    }
    match vouch(snap, us, (room, user_id), &allow)? {
        Vouching::Granted(by) => Ok(Some(by)),
        Vouching::Powerless => Err(MembershipError::UnableToGrant),
        Vouching::Unknowing => Err(MembershipError::UnableToAuthorise),
        Vouching::Unmet => {
            let text = "the user is in none of the rooms whose members may join";
            Err(MembershipError::Forbidden(text.to_owned()))
        }
    }
}

/// A completed event of another server's user.
#[derive(Debug)]
pub struct Completed {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The id that the other server computed.
    pub event_id: OwnedEventId,
    /// Join, leave or knock.
    pub membership: MembershipState,
    /// The event.
    pub pdu: Box<RawValue>,
}

/// The room as a server that comes in needs it.
#[derive(Debug)]
pub struct Welcome {
    /// The state before the join, and what it rests on.
    pub state: State,
    /// The join, with all signatures.
    pub event: Option<Box<RawValue>>,
}

/// Takes a join into the room, tells the other members, and gives the state of the room.
///
/// # Errors
/// Why not.
pub async fn send_join(
    hs: &Homeserver,
    origin: OwnedServerName,
    completed: Completed,
) -> Result<Welcome, MembershipError> {
    let taken = take(hs, origin, completed).await?;
    let own = hs.identity.server_keys();
    let event = raw(taken.json());
    hs.store
        .read(move |snap| {
            let stored = events::find(snap, taken.event_id())?.ok_or(AccessError::UnknownEvent)?;
            let before = stored.state_before.ok_or(AccessError::UnknownState)?;
            Ok(Welcome { state: state::whole(snap, before, &own)?, event })
        })
        .await
}

/// Takes a knock into the room, tells the other members, and gives what the room shows of itself
/// to somebody who is not in it.
///
/// # Errors
/// Why not.
pub async fn send_knock(
    hs: &Homeserver,
    origin: OwnedServerName,
    completed: Completed,
) -> Result<Shown, MembershipError> {
    hs.limits.rates.check(RateKey::Knock(completed.room_id.clone()), hs.clock.now())?;
    let taken = take(hs, origin, completed).await?;
    let own = hs.identity.server_keys();
    hs.store
        .read(move |snap| {
            let room = rooms::find(snap, taken.room_id())?.ok_or(AccessError::UnknownRoom)?;
            Ok(shown::of_room(snap, &own, room.state, &[])?)
        })
        .await
}

/// Takes a departure into the room and tells the other members.
///
/// # Errors
/// Why not.
pub async fn send_leave(
    hs: &Homeserver,
    origin: OwnedServerName,
    completed: Completed,
) -> Result<(), MembershipError> {
    take(hs, origin, completed).await.map(drop)
}

async fn take(
    hs: &Homeserver,
    origin: OwnedServerName,
    mut completed: Completed,
) -> Result<Arc<Pdu>, MembershipError> {
    let us = hs.server_name().to_owned();
    // Who is not in the room cannot know that it wants another signature.
    completed.pdu = policy::completed(hs, &completed.room_id, completed.pdu).await?;
    let room_id = completed.room_id.clone();
    let identity = Arc::clone(&hs.identity);
    let (room, admitted, pdu) = hs
        .store
        .write(move |txn| {
            let mut room = resident_room(txn, &completed.room_id, &us, &origin)?;
            let signed = checked(txn, &identity, &room, (&origin, completed))?;
            let pdu = Arc::clone(signed.pdu());
            if verify::is_placed(txn, pdu.event_id())? {
                // The answer to the first time was lost; or it came in another way, and was refused.
                let placed = events::find(txn, pdu.event_id())?;
                if placed.is_none_or(|event| event.standing != Standing::Accepted) {
                    return Err(MembershipError::Forbidden("the room refused it".to_owned()));
                }
                return Ok((room, ingest::Admitted::default(), pdu));
            }
            let judged = view::for_event(txn, &room, &pdu)?;
            match receive::check(signed.clone(), &judged.view).verdict() {
                Verdict::Accepted => {}
                Verdict::Rejected(violation) | Verdict::SoftFailed(violation) => {
                    return Err(MembershipError::Forbidden(violation.to_string()));
                }
            }
            let admitted = ingest::admit(txn, &us, &mut room, (&origin, vec![signed]))?;
            Ok((room, admitted, pdu))
        })
        .await?;
    let outcomes = ingest::settle(hs, &room, admitted);
    match outcomes.get(pdu.event_id()) {
        Some(Outcome::Accepted) => {
            announce::announce(hs, &room_id, &[Arc::clone(&pdu)]).await;
            Ok(pdu)
        }
        // It was here before.
        None => Ok(pdu),
        // By the check that only the room as a whole allows.
        Some(_) => Err(MembershipError::Forbidden("the room refused it".to_owned())),
    }
}

/// The event as this operation takes it: of a user of the asking server, about that user, with the
/// membership that the operation is for.
fn checked(
    txn: &Txn<'_>,
    identity: &Identity,
    room: &Room,
    (origin, completed): (&OwnedServerName, Completed),
) -> Result<SignedPdu, MembershipError> {
    let rules = view::rules(room)?;
    let mut event = verify::well_formed(completed.pdu, &room.room_id, rules).map_err(bad)?;
    let pdu = event.pdu();
    if pdu.event_id() != completed.event_id {
        return Err(MembershipError::BadEvent("the event has another id".to_owned()));
    }
    let about_itself = *pdu.kind() == TimelineEventType::RoomMember
        && pdu.state_key() == Some(pdu.sender().as_str());
    if !about_itself || membership_in(pdu) != Some(completed.membership) {
        return Err(MembershipError::BadEvent("the event is none of that membership".to_owned()));
    }
    if pdu.sender().server_name() != origin {
        return Err(MembershipError::NotYourUser);
    }
    if event.required_signers().contains(identity.server_name()) {
        // Our signature says that somebody here lets the user in. The rules of the room see only
        // that whoever the event names has the power to.
        if authorised_by(txn, identity.server_name(), (room, pdu.sender()))?.is_none() {
            let text = "nobody has to let the user in";
            return Err(MembershipError::BadEvent(text.to_owned()));
        }
        let signer = Signer { server: identity.server_name(), key: identity.verify_key() };
        event = event.countersign(signer)?;
    }
    let brought = KeyRing::from([(identity.server_name().to_owned(), identity.server_keys())]);
    sign_checked(txn, event, &brought)
}

pub(super) fn sign_checked(
    txn: &Txn<'_>,
    event: WellFormedPdu,
    brought: &KeyRing,
) -> Result<SignedPdu, MembershipError> {
    verify::signed(txn, event, brought)?.map_err(bad)
}

pub(super) fn bad(outcome: Outcome) -> MembershipError {
    match outcome {
        Outcome::Refused(reason) | Outcome::Unjudged(reason) => MembershipError::BadEvent(reason),
        _ => MembershipError::BadEvent("the event is not usable".to_owned()),
    }
}
