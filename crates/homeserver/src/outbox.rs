//! Delivering what must arrive and is no event of a shared room (D12): in order, once, and again
//! on every sign of life of its destination until it has arrived.

use messagehub_protocol::{
    build::{self, NewEvent, Signer},
    rules::rules_of,
};
use messagehub_store::{
    StoreError, memberships,
    outbox::{self, Batch, Entry, Kind, Refused, Totals, Waiting},
    rooms,
};
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomVersionId,
    api::federation::membership::{
        create_leave_event::v2 as send_leave, prepare_leave_event::v1 as make_leave,
    },
    events::{TimelineEventType, room::member::MembershipState},
};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    Homeserver,
    federation::{self, ASK_TIMEOUT, Call, FederationError, path_segment},
    peers::{Attempt, Counters, REQUEST_TIMEOUT},
};

/// Servers that are told of when somebody asks what waits.
const MAX_SHOWN: usize = 100;

/// Whether everything for a destination has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// Nothing waits any more.
    All,
    /// The destination cannot be reached now, or cannot take more now.
    NotNow,
}

/// Delivers what waits for a server, batch by batch, until nothing does or it does not answer.
///
/// # Errors
/// Fails when the database does.
pub async fn deliver(
    hs: &Homeserver,
    destination: &OwnedServerName,
) -> Result<Delivered, StoreError> {
    loop {
        let (to, now) = (destination.clone(), hs.clock.now());
        let batch = hs.store.write(move |txn| outbox::take_batch(txn, &to, now)).await?;
        let Some(batch) = batch else { return Ok(Delivered::All) };
        let refused = match send(hs, destination, &batch).await {
            Ok(()) => {
                Counters::add(&hs.peers.counters().outbox_deliveries, 1);
                Vec::new()
            }
            Err(FederationError::Store(error)) => return Err(error),
            Err(error) if error.is_transient() => {
                tracing::debug!(%destination, %error, "the outbox has to wait");
                hs.peers.retries().note_failed(destination, (batch.id, hs.clock.now_ms()), &error);
                return Ok(Delivered::NotNow);
            }
            // What it will never take must not keep back what comes after.
            Err(error) => {
                tracing::warn!(%destination, %error, "an entry of the outbox was refused");
                Counters::add(&hs.peers.counters().outbox_refusals, 1);
                refused_of(destination, &batch, (&error, hs.clock.now_ms()))
            }
        };
        hs.peers.retries().note_reached(destination);
        let to = destination.clone();
        let finished = hs.store.write(move |txn| {
            refused.iter().try_for_each(|refused| outbox::note_refused(txn, refused))?;
            outbox::finish(txn, &to, batch.id)
        });
        finished.await?;
    }
}

/// What is remembered of a batch that its destination will not take: invites and what else its
/// sender may ask after; not the units that are replaced by later ones.
fn refused_of(
    destination: &OwnedServerName,
    batch: &Batch,
    (error, refused_ts): (&FederationError, u64),
) -> Vec<Refused> {
    #[derive(Deserialize, Default)]
    struct About {
        room_id: Option<String>,
        user_id: Option<String>,
        state_key: Option<String>,
        event: Option<Box<About>>,
    }
    let refused = |entry: &Entry| {
        let about: About = serde_json::from_str(&entry.body).unwrap_or_default();
        let invited = about.event.and_then(|event| event.state_key);
        Refused {
            destination: destination.clone(),
            kind: entry.kind,
            room_id: about.room_id,
            user_id: about.user_id.or(about.state_key).or(invited),
            reason: error.to_string(),
            refused_ts,
        }
    };
    batch.entries.iter().filter(|entry| entry.kind != Kind::Edu).map(refused).collect()
}

/// What waits for one server, and how the last attempt to deliver it ended.
#[derive(Debug, Clone)]
pub struct Backlog {
    /// What waits.
    pub waiting: Waiting,
    /// The last attempt, if one failed since the start.
    pub last_attempt: Option<Attempt>,
}

/// The outbox, for people.
#[derive(Debug, Clone)]
pub struct Overview {
    /// In numbers.
    pub totals: Totals,
    /// By server, those who wait longest first.
    pub backlogs: Vec<Backlog>,
    /// What its destination will not take, the latest first.
    pub refused: Vec<Refused>,
}

/// What waits, for whom and since when, and what was refused.
///
/// # Errors
/// Fails when the database does.
pub async fn overview(hs: &Homeserver) -> Result<Overview, StoreError> {
    let (totals, waiting, refused) = hs
        .store
        .read(|snap| {
            let waiting = outbox::list_waiting(snap, MAX_SHOWN)?;
            Ok::<_, StoreError>((
                outbox::totals(snap)?,
                waiting,
                outbox::list_refused(snap, MAX_SHOWN)?,
            ))
        })
        .await?;
    let backlogs = waiting.into_iter().map(|waiting| Backlog {
        last_attempt: hs.peers.last_attempt(&waiting.destination),
        waiting,
    });
    Ok(Overview { totals, backlogs: backlogs.collect(), refused })
}

async fn send(
    hs: &Homeserver,
    destination: &OwnedServerName,
    batch: &Batch,
) -> Result<(), FederationError> {
    match batch.entries.as_slice() {
        [Entry { kind: Kind::Invite, body }] => send_invite(hs, destination, body).await,
        [Entry { kind: Kind::Leave, body }] => leave(hs, destination, body).await,
        entries => send_transaction(hs, destination, (batch.id, entries)).await,
    }
}

/// Spec: Server-Server API, "PUT /_matrix/federation/v2/invite/{roomId}/{eventId}".
async fn send_invite(
    hs: &Homeserver,
    destination: &OwnedServerName,
    body: &str,
) -> Result<(), FederationError> {
    #[derive(Deserialize)]
    struct Queued {
        room_id: OwnedRoomId,
        event_id: OwnedEventId,
        room_version: RoomVersionId,
        event: Box<RawValue>,
        invite_room_state: Vec<Box<RawValue>>,
        #[serde(default)]
        server_keys: Vec<Box<RawValue>>,
    }
    #[derive(Serialize)]
    struct Invite<'a> {
        room_version: &'a RoomVersionId,
        event: &'a RawValue,
        invite_room_state: &'a [Box<RawValue>],
        server_keys: &'a [Box<RawValue>],
    }
    let queued: Queued = serde_json::from_str(body).map_err(unreadable)?;
    let invite = Invite {
        room_version: &queued.room_version,
        event: &queued.event,
        invite_room_state: &queued.invite_room_state,
        server_keys: &queued.server_keys,
    };
    let uri = format!(
        "/_matrix/federation/v2/invite/{}/{}",
        path_segment(queued.room_id.as_str()),
        path_segment(queued.event_id.as_str())
    );
    put(hs, destination, uri, &invite).await
}

async fn send_transaction(
    hs: &Homeserver,
    destination: &OwnedServerName,
    (id, entries): (i64, &[Entry]),
) -> Result<(), FederationError> {
    let of_kind = |wanted: Kind| -> Vec<Box<RawValue>> {
        let chosen = entries.iter().filter(|entry| entry.kind == wanted);
        chosen.filter_map(|entry| RawValue::from_string(entry.body.clone()).ok()).collect()
    };
    push(hs, destination, &id.to_string(), (of_kind(Kind::Pdu), of_kind(Kind::Edu))).await
}

/// Pushes events and EDUs that only this server signed.
///
/// Spec: Server-Server API, "Transactions".
///
/// # Errors
/// The other server did not take them.
pub(crate) async fn push(
    hs: &Homeserver,
    destination: &OwnedServerName,
    txn_id: &str,
    (pdus, edus): (Vec<Box<RawValue>>, Vec<Box<RawValue>>),
) -> Result<(), FederationError> {
    #[derive(Serialize)]
    struct Transaction {
        origin: OwnedServerName,
        origin_server_ts: u64,
        pdus: Vec<Box<RawValue>>,
        edus: Vec<Box<RawValue>>,
        server_keys: Vec<Box<RawValue>>,
    }
    let transaction = Transaction {
        origin: hs.server_name().to_owned(),
        origin_server_ts: hs.clock.now_ms(),
        pdus,
        edus,
        server_keys: vec![hs.identity.server_keys().json().to_owned()],
    };
    put(hs, destination, format!("/_matrix/federation/v1/send/{txn_id}"), &transaction).await
}

async fn put(
    hs: &Homeserver,
    destination: &OwnedServerName,
    uri: String,
    body: &impl Serialize,
) -> Result<(), FederationError> {
    let body = serde_json::to_vec(body).map_err(unreadable)?;
    let call = Call { method: http::Method::PUT, uri, body };
    federation::ask_raw(hs, destination, call, REQUEST_TIMEOUT).await.map(drop)
}

/// Refuses an invite at a server that is in the room. Our user has forgotten it already.
///
/// Spec: Server-Server API, "Leaving Rooms (Rejecting Invites)".
async fn leave(
    hs: &Homeserver,
    destination: &OwnedServerName,
    body: &str,
) -> Result<(), FederationError> {
    #[derive(Deserialize)]
    struct Queued {
        room_id: OwnedRoomId,
        user_id: OwnedUserId,
    }
    let Queued { room_id, user_id } = serde_json::from_str(body).map_err(unreadable)?;
    if is_wanted_there(hs, (room_id.clone(), user_id.clone())).await? {
        return Ok(());
    }
    let request = make_leave::Request::new(room_id.clone(), user_id.clone());
    let made = federation::ask(hs, destination, request, ASK_TIMEOUT).await?;
    let rules = made.room_version.as_ref().and_then(rules_of);
    let rules = rules.ok_or_else(|| FederationError::BadAnswer("no room version".to_owned()))?;
    let content = to_raw_value(&serde_json::json!({ "membership": "leave" }));
    let new = NewEvent {
        room_id: Some(room_id.clone()),
        sender: user_id.clone(),
        kind: TimelineEventType::RoomMember,
        state_key: Some(user_id.to_string()),
        content: content.map_err(unreadable)?,
        redacts: None,
    };
    let signer = Signer { server: hs.server_name(), key: hs.identity.verify_key() };
    let signed = build::complete(&made.event, new, hs.clock.now(), signer, rules)
        .map_err(|error| FederationError::BadAnswer(error.to_string()))?;
    let pdu = RawValue::from_string(signed.pdu().json().to_owned()).map_err(unreadable)?;
    let request = send_leave::Request::new(room_id, signed.pdu().event_id().to_owned(), pdu);
    federation::ask(hs, destination, request, ASK_TIMEOUT).await.map(drop)
}

/// Whether a user has joined, knocked or was invited again since the departure was queued.
async fn is_wanted_there(
    hs: &Homeserver,
    (room_id, user_id): (OwnedRoomId, OwnedUserId),
) -> Result<bool, StoreError> {
    hs.store
        .read(move |snap| {
            let Some(room) = rooms::find(snap, &room_id)? else { return Ok(false) };
            let member = memberships::find(snap, room.nid, &user_id)?;
            Ok(member.is_some_and(|member| {
                matches!(
                    member.membership,
                    MembershipState::Join | MembershipState::Invite | MembershipState::Knock
                )
            }))
        })
        .await
}

fn unreadable(error: serde_json::Error) -> FederationError {
    FederationError::BadRequest(error.to_string())
}
