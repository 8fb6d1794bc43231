//! Joining a room that this server is not in, through any server that is (D13).
//!
//! What the other server tells is verified event by event before anything of it counts: the
//! signatures, what each event rests on, and that the state told lets us in. All of it is stored
//! in one transaction with the join.
//!
//! Spec: Server-Server API, "Joining Rooms".

use std::time::Duration;

use futures::{StreamExt, stream::FuturesUnordered};
use messagehub_protocol::{
    build::{self, NewEvent, Signer},
    pdu::SignedPdu,
    receive::{self, Verdict},
    rules::{list_supported, rules_of},
    server_keys::KeyRing,
};
use messagehub_store::{
    EventNid, Room, Snapshot, StoreError, Txn, events, extremities,
    joins_under_way::{self, Begun, JoinUnderWay},
    memberships, rooms,
};
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomVersionId, ServerName,
    api::federation::membership::{
        create_join_event::v2 as send_join, prepare_join_event::v1 as make_join,
    },
    events::{
        StateEventType, TimelineEventType,
        room::{create::RoomCreateEventContent, member::MembershipState},
    },
    room_version_rules::RoomVersionRules,
};
use serde_json::value::RawValue;

use crate::{
    Homeserver, append,
    federation::{self, ASK_TIMEOUT, route},
    ingest::{self, Admitted, Outcome, verify},
    outbox, outliers, view,
};

mod error;
mod lost;

pub use error::RemoteJoinError;
pub(crate) use lost::finish_lost;

/// How long the answer to a join may take: it holds the state of the room, 16 MB at 10,000 members,
/// over a slow home connection.
const SEND_JOIN_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the next server waits for those before it to answer, before it is asked too: more than
/// a round trip around the world.
const PAUSE: Duration = Duration::from_secs(1);

/// Memberships of one user that are looked at: a server that is further behind than this has
/// missed years of somebody coming and going.
const MAX_MEMBERSHIPS: usize = 64;

/// A join to make.
#[derive(Debug)]
pub struct RemoteJoin {
    /// The local user.
    pub user_id: OwnedUserId,
    /// The room.
    pub room_id: OwnedRoomId,
    /// Servers that may be in it.
    pub via: Vec<OwnedServerName>,
    /// The content of the member event.
    pub content: Box<RawValue>,
}

/// Joins through the first of the servers that lets us in; those connected are asked first. Whether
/// they would is asked of several: one that does not answer keeps nobody waiting. The join itself
/// is sent to one after the other.
///
/// # Errors
/// What the servers said that says most: a refusal before silence.
pub async fn join(hs: &Homeserver, join: RemoteJoin) -> Result<(), RemoteJoinError> {
    let mut waiting = route::ordered(hs, join.via.clone(), join.via.first()).into_iter();
    let mut asking = FuturesUnordered::new();
    let mut worst = RemoteJoinError::Unreachable;
    loop {
        asking.extend(waiting.next().map(|server| ask(hs, server, &join)));
        let answered = tokio::select! {
            biased;
            Some(answered) = asking.next() => answered,
            () = tokio::time::sleep(PAUSE), if waiting.len() > 0 => continue,
            else => return Err(worst),
        };
        let (server, made) = answered;
        let joined = match made {
            Ok(made) => through(hs, &server, (&join, made)).await,
            Err(error) => Err(error),
        };
        match joined {
            Ok(()) => return Ok(()),
            Err(RemoteJoinError::Store(error)) => return Err(error.into()),
            Err(error) => {
                tracing::info!(%server, room_id = %join.room_id, %error, "a join failed");
                worst = worst.or(error);
            }
        }
    }
}

async fn ask(
    hs: &Homeserver,
    server: OwnedServerName,
    join: &RemoteJoin,
) -> (OwnedServerName, Result<make_join::Response, RemoteJoinError>) {
    let made = make(hs, &server, join).await;
    (server, made)
}

async fn make(
    hs: &Homeserver,
    server: &OwnedServerName,
    join: &RemoteJoin,
) -> Result<make_join::Response, RemoteJoinError> {
    let mut request = make_join::Request::new(join.room_id.clone(), join.user_id.clone());
    request.ver = list_supported().cloned().collect();
    Ok(federation::ask(hs, server, request, ASK_TIMEOUT).await?)
}

async fn through(
    hs: &Homeserver,
    server: &OwnedServerName,
    (join, made): (&RemoteJoin, make_join::Response),
) -> Result<(), RemoteJoinError> {
    let version = made.room_version.ok_or(RemoteJoinError::UnsupportedVersion)?;
    let rules = rules_of(&version).ok_or(RemoteJoinError::UnsupportedVersion)?;
    if is_behind(hs, join, &made.event).await? {
        // It gets our departure from the outbox; until then it would let in whoever has left.
        outbox::deliver(hs, server).await?;
        return Err(RemoteJoinError::Unreachable);
    }
    let signed = complete(hs, &made.event, join, rules)?;

    let state = send(hs, server, (join, &signed)).await?;
    install(hs, &join.room_id, Told { version, rules, join: signed, state }).await
}

/// Sends the join. From here on the other server may have let us in, whatever we hear of it: that
/// is noted before, and [`finish_lost`] sees to it if the join does not come to its end, be it that
/// this node dies.
async fn send(
    hs: &Homeserver,
    server: &OwnedServerName,
    (join, signed): (&RemoteJoin, &SignedPdu),
) -> Result<send_join::RoomState, RemoteJoinError> {
    let pdu = RawValue::from_string(signed.pdu().json().to_owned())
        .map_err(|error| RemoteJoinError::Unusable(error.to_string()))?;
    let event_id = signed.pdu().event_id().to_owned();
    let request = send_join::Request::new(join.room_id.clone(), event_id, pdu);
    let under_way = JoinUnderWay {
        room_id: join.room_id.clone(),
        user_id: join.user_id.clone(),
        server: server.clone(),
        content: join.content.get().to_owned(),
        started: hs.clock.now(),
    };
    let noted = under_way.clone();
    let begun = hs.store.write(move |txn| joins_under_way::begin(txn, &noted)).await?;
    match federation::ask(hs, server, request, SEND_JOIN_TIMEOUT).await {
        Ok(answer) => Ok(answer.room_state),
        Err(error) => {
            let (is_final, is_no) = (!error.is_transient(), error.is_no());
            hs.store
                .write(move |txn| match begun {
                    Begun::First if is_no => joins_under_way::forget(txn, &under_way),
                    Begun::Again if is_final => joins_under_way::answer(txn, &under_way),
                    // It may have let us in, now or before.
                    Begun::First | Begun::Again => Ok(()),
                })
                .await?;
            Err(error.into())
        }
    }
}

/// Whether a server places the join on a membership of the user that a departure, which we know
/// of, has replaced: state resolution would undo such a join, and only we would believe in it.
async fn is_behind(
    hs: &Homeserver,
    join: &RemoteJoin,
    template: &RawValue,
) -> Result<bool, StoreError> {
    let (room_id, user_id) = (join.room_id.clone(), join.user_id.clone());
    let before = hs
        .store
        .read(move |snap| {
            let Some(room) = rooms::find(snap, &room_id)? else { return Ok(Vec::new()) };
            let member = memberships::find(snap, room.nid, &user_id)?;
            let departure = member.filter(|member| {
                matches!(member.membership, MembershipState::Leave | MembershipState::Ban)
            });
            match departure.and_then(|member| member.event) {
                Some(nid) => replaced(snap, nid),
                None => Ok(Vec::new()),
            }
        })
        .await?;
    Ok(before.iter().any(|event_id| template.get().contains(event_id.as_str())))
}

/// The memberships of the same user before this one, the last first, as their auth events tell.
fn replaced(snap: &Snapshot<'_>, last: EventNid) -> Result<Vec<OwnedEventId>, StoreError> {
    let mut member = events::pdu(snap, last)?;
    let mut before = Vec::new();
    while before.len() < MAX_MEMBERSHIPS {
        let mut previous = None;
        for event_id in member.auth_events() {
            let found = events::find(snap, event_id)?.map(|event| event.pdu);
            previous = previous.or(found.filter(|event| {
                event.kind() == member.kind() && event.state_key() == member.state_key()
            }));
        }
        let Some(previous) = previous else { break };
        before.push(previous.event_id().to_owned());
        member = previous;
    }
    Ok(before)
}

fn complete(
    hs: &Homeserver,
    template: &RawValue,
    join: &RemoteJoin,
    rules: &'static RoomVersionRules,
) -> Result<SignedPdu, RemoteJoinError> {
    let new = NewEvent {
        room_id: Some(join.room_id.clone()),
        sender: join.user_id.clone(),
        kind: TimelineEventType::RoomMember,
        state_key: Some(join.user_id.to_string()),
        content: join.content.clone(),
        redacts: None,
    };
    let signer = Signer { server: hs.server_name(), key: hs.identity.verify_key() };
    build::complete(template, new, hs.clock.now(), signer, rules)
        .map_err(|error| RemoteJoinError::Unusable(error.to_string()))
}

/// What a server in the room told.
struct Told {
    version: RoomVersionId,
    rules: &'static RoomVersionRules,
    join: SignedPdu,
    state: send_join::RoomState,
}

/// What a server in the room told, with good signatures.
struct Verified {
    version: RoomVersionId,
    join: SignedPdu,
    state: Vec<SignedPdu>,
    auth_chain: Vec<SignedPdu>,
}

async fn install(
    hs: &Homeserver,
    room_id: &OwnedRoomId,
    told: Told,
) -> Result<(), RemoteJoinError> {
    let (us, id) = (hs.server_name().to_owned(), room_id.clone());
    let verified = hs
        .store
        .read(move |snap| {
            let Told { version, rules, mut join, state } = told;
            let room = (&*id, rules);
            // A restricted room's server adds its signature, which lets us in.
            if let Some(json) = state.event
                && let Ok(event) = verify::well_formed(json, &id, rules)
                && event.pdu().event_id() == join.pdu().event_id()
                && let Ok(event) = verify::signed(snap, event, &KeyRing::new())?
            {
                join = event;
            }
            let (state, chain) = (state.state, state.auth_chain);
            let state = outliers::checked(snap, room, state)?;
            if let Some(event_id) = state.unjudged.first() {
                // With a hole in the state we would disagree with everybody from the start.
                let text = format!("there is no key to check {event_id} with");
                return Err(RemoteJoinError::Unusable(text));
            }
            let auth_chain = outliers::checked(snap, room, chain)?.signed;
            Ok(Verified { version, join, state: state.signed, auth_chain })
        })
        .await?;
    let id = room_id.clone();
    let (room, admitted) = hs
        .store
        .write(move |txn| {
            let mut room = rooms::of_version(txn, &id, &verified.version)?;
            let admitted = apply(txn, &us, &mut room, verified)?;
            Ok::<_, RemoteJoinError>((room, admitted))
        })
        .await?;
    ingest::settle(hs, &room, admitted);
    hs.peers.note_history(room_id);
    hs.peers.note_behind(room_id);
    Ok(())
}

/// Takes the join in. It is done then, unless it waits for what came before it: that may never come,
/// while others believe in the join.
fn apply(
    txn: &mut Txn<'_>,
    us: &ServerName,
    room: &mut Room,
    verified: Verified,
) -> Result<Admitted, RemoteJoinError> {
    let unusable = |text: &str| RemoteJoinError::Unusable(text.to_owned());
    if room.version != verified.version {
        return Err(unusable("its version is another one than before"));
    }
    let join = verified.join.pdu();
    if verify::is_placed(txn, join.event_id())? || memberships::is_server_in(txn, room.nid, us)? {
        // Another user of this server was faster, or the room brought the join before its answer
        // came: it is an event like any other.
        let (event_id, user_id) = (join.event_id().to_owned(), join.sender().to_owned());
        let admitted = ingest::admit(txn, us, room, (us, vec![verified.join]))?;
        if verify::is_placed(txn, &event_id)? {
            joins_under_way::end(txn, &room.room_id, &user_id)?;
        }
        return Ok(admitted);
    }
    let member = memberships::find(txn, room.nid, join.sender())?.and_then(|member| member.event);
    if let Some(last) = member
        && replaced(txn, last)?.iter().any(|event_id| event_id == join.event_id())
    {
        // What the room has heard of the user since goes on from this join.
        joins_under_way::end(txn, &room.room_id, join.sender())?;
        return Ok(Admitted::default());
    }
    let ids: Vec<_> =
        verified.state.iter().map(|event| event.pdu().event_id().to_owned()).collect();
    let told = verified.state.into_iter().chain(verified.auth_chain).collect();
    let stored = outliers::insert_all(txn, room, told)?;
    if ids.iter().any(|id| !stored.contains_key(id)) {
        return Err(unusable("its state rests on events that were not told"));
    }
    let state = outliers::state_of(txn, room, &ids)?;
    if !is_of_version(txn, state, &verified.version)? {
        return Err(unusable("its create event is missing or of another version"));
    }
    let mut view = view::at(txn, room, state, verified.join.pdu())?;
    view.current_state = None;
    let judged = receive::check(verified.join, &view);
    if let Verdict::Rejected(violation) | Verdict::SoftFailed(violation) = judged.verdict() {
        return Err(unusable(&format!("its state does not let us in: {violation}")));
    }
    // Whatever we had of the room before is history now; we go on from the join.
    extremities::replace(txn, room.nid, &[])?;
    let appended = append::event(txn, us, room, &judged, state)?;
    joins_under_way::end(txn, &room.room_id, judged.pdu().sender())?;
    let mut admitted = ingest::release(txn, us, room, judged.pdu().event_id())?;
    admitted.topics.extend(appended.topic);
    admitted.outcomes.insert(judged.pdu().event_id().to_owned(), Outcome::Accepted);
    Ok(admitted)
}

fn is_of_version(
    txn: &Txn<'_>,
    state: messagehub_store::StateNid,
    version: &RoomVersionId,
) -> Result<bool, StoreError> {
    let create = view::state_event(txn, state, &StateEventType::RoomCreate, "")?;
    let content = create.and_then(|create| {
        serde_json::from_str::<RoomCreateEventContent>(create.content().get()).ok()
    });
    Ok(content.is_some_and(|content| content.room_version == *version))
}
