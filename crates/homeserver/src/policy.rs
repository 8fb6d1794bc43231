//! Policy servers: whom a room wants to recommend its events, and getting that recommendation.
//!
//! An event of ours is built in a transaction, which fails because the signature is missing; the
//! policy server is asked, outside of any transaction; and a second transaction places the same
//! event, with the signature, where the first one built it.
//!
//! Spec: Server-Server API, "Policy Servers".

use std::{
    future::Future,
    sync::{Mutex, MutexGuard, PoisonError},
};

use messagehub_protocol::{
    auth::AuthState,
    build::NewEvent,
    pdu::{Pdu, SignedPdu},
    policy::{self, POLICY_EVENT, PolicyServer},
};
use messagehub_store::{Room, Snapshot, StoreError, memberships, rooms};
use ruma::{
    OwnedRoomId, api::federation::policy::sign_event::v1 as sign_event, events::StateEventType,
    room_version_rules::RoomVersionRules,
};
use serde_json::value::RawValue;

use crate::{
    Homeserver,
    emit::{Emitter, SendError},
    federation::{self, ASK_TIMEOUT, FederationError},
    ingest::verify,
    rate::Limited,
    view,
};

/// Events that one request of a client makes: a knock, a join, a message is one; closing a room
/// two.
const MAX_ROUNDS: usize = 8;

/// Events of others for which a signature is asked at once. Their senders had to do that.
const MAX_ASKED_FOR_OTHERS: usize = 10;

/// How long a sender is to wait whose policy server is asked too often and does not say for how
/// long: the pause after which ours takes ten events more.
const LIMITED_MS: u64 = 1_000;

/// The policy server that a room uses: it is named, and has somebody in the room.
///
/// # Errors
/// The store's.
pub(crate) fn in_use(snap: &Snapshot<'_>, room: &Room) -> Result<Option<PolicyServer>, StoreError> {
    let mut state = AuthState::new();
    add_to(snap, room, &mut state)?;
    Ok(state.into_values().next().and_then(|event| PolicyServer::named_by(&event)))
}

/// Puts the event that names the policy server into what judges an event, where the room uses one.
///
/// # Errors
/// The store's.
pub(crate) fn add_to(
    snap: &Snapshot<'_>,
    room: &Room,
    state: &mut AuthState,
) -> Result<(), StoreError> {
    let kind = StateEventType::from(POLICY_EVENT);
    let Some(event) = view::state_event(snap, room.state, &kind, "")? else { return Ok(()) };
    if let Some(policy) = PolicyServer::named_by(&event)
        && memberships::is_server_in(snap, room.nid, policy.server())?
    {
        state.insert((kind, String::new()), event);
    }
    Ok(())
}

/// An event that lacks the signature.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) event: SignedPdu,
    pub(crate) policy: PolicyServer,
    pub(crate) rules: &'static RoomVersionRules,
}

/// What lies between two transactions of one request: an event that lacks the signature, and
/// events that have it.
#[derive(Debug, Default)]
pub(crate) struct Desk(Mutex<Papers>);

#[derive(Debug, Default)]
struct Papers {
    draft: Option<Draft>,
    signed: Vec<SignedPdu>,
}

impl Desk {
    fn papers(&self) -> MutexGuard<'_, Papers> {
        // No invariant that a panic elsewhere could break.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves an event to be signed.
    pub(crate) fn leave(&self, draft: Draft) {
        self.papers().draft = Some(draft);
    }

    /// The event that says what is wanted, if it was signed.
    pub(crate) fn find(&self, new: &NewEvent) -> Option<SignedPdu> {
        let papers = self.papers();
        let says_it = |event: &&SignedPdu| {
            let pdu = event.pdu();
            *pdu.kind() == new.kind
                && pdu.state_key() == new.state_key.as_deref()
                && *pdu.sender() == *new.sender
                && pdu.redacts() == new.redacts.as_deref()
        };
        papers.signed.iter().rev().find(says_it).cloned()
    }

    fn take_draft(&self) -> Option<Draft> {
        self.papers().draft.take()
    }

    fn put(&self, signed: SignedPdu) {
        self.papers().signed.push(signed);
    }
}

/// Runs `attempt` until nothing in it lacks a signature any more.
///
/// # Errors
/// Those of `attempt`, and what the policy server said.
pub(crate) async fn with_signatures<T, E, F, Attempt>(hs: &Homeserver, attempt: F) -> Result<T, E>
where
    E: From<SendError>,
    F: Fn(Emitter) -> Attempt,
    Attempt: Future<Output = Result<T, E>>,
{
    let emitter = Emitter::of(hs);
    for _ in 0..MAX_ROUNDS {
        let outcome = attempt(emitter.clone()).await;
        let Some(draft) = emitter.desk.take_draft() else { return outcome };
        let signature = ask(hs, &draft.policy, draft.event.pdu()).await?;
        let signed = draft.policy.add(&draft.event, &signature, draft.rules);
        let unusable = |_| SendError::NoRecommendation(draft.policy.server().to_owned());
        emitter.desk.put(signed.map_err(unusable)?);
    }
    attempt(emitter).await
}

/// Asks a policy server to recommend an event.
///
/// # Errors
/// `NotRecommended` in its own words; `NoRecommendation` when it gives no answer; `Limited` when it
/// was asked too often.
async fn ask(hs: &Homeserver, policy: &PolicyServer, event: &Pdu) -> Result<String, SendError> {
    let none = || SendError::NoRecommendation(policy.server().to_owned());
    let json = RawValue::from_string(event.json().to_owned()).map_err(|_| none())?;
    let request = sign_event::Request::new(json);
    match federation::ask(hs, policy.server(), request, ASK_TIMEOUT).await {
        Ok(answer) => answer.ed25519_signature(policy.server()).map(str::to_owned).ok_or_else(none),
        Err(FederationError::Refused { status: 429, retry_after_ms, .. }) => {
            let retry_after_ms = retry_after_ms.unwrap_or(LIMITED_MS);
            Err(Limited { retry_after_ms }.into())
        }
        Err(error @ FederationError::Refused { .. }) if error.is_transient() => {
            tracing::info!(server = %policy.server(), %error, "a policy server is unable to answer");
            Err(none())
        }
        Err(FederationError::Refused { status, errcode, message, .. }) => {
            Err(SendError::NotRecommended { status, errcode, message })
        }
        Err(FederationError::Store(error)) => Err(error.into()),
        Err(error) => {
            tracing::info!(server = %policy.server(), %error, "a policy server gave no answer");
            Err(none())
        }
    }
}

/// The signature of the policy server, which may be this one.
async fn signature(
    hs: &Homeserver,
    policy: &PolicyServer,
    (event, rules): (&Pdu, &RoomVersionRules),
) -> Result<String, SendError> {
    if policy.server() != hs.server_name() {
        return ask(hs, policy, event).await;
    }
    policy::sign(event, &hs.identity.policy_key(), rules)
        .map_err(|error| SendError::BadContent(error.to_string()))
}

/// An event that a server outside the room completed, with the signature where the room wants one.
/// What is no event of the room is left as it is: whoever takes it says so.
///
/// # Errors
/// Those of asking.
pub(crate) async fn completed(
    hs: &Homeserver,
    room_id: &OwnedRoomId,
    pdu: Box<RawValue>,
) -> Result<Box<RawValue>, SendError> {
    let (id, json) = (room_id.clone(), pdu.clone());
    let wanted = hs
        .store
        .read(move |snap| {
            let Some(room) = rooms::find(snap, &id)? else { return Ok(None) };
            let Some(policy) = in_use(snap, &room)? else { return Ok(None) };
            let Ok(rules) = view::rules(&room) else { return Ok(None) };
            let event = verify::well_formed(json, &id, rules).ok();
            let lacking = event.filter(|event| !policy.recommends(event.pdu(), rules));
            Ok::<_, StoreError>(lacking.map(|event| (event, policy, rules)))
        })
        .await?;
    let Some((event, policy, rules)) = wanted else { return Ok(pdu) };
    let signature = signature(hs, &policy, (event.pdu(), rules)).await?;
    let unusable = |_| SendError::NoRecommendation(policy.server().to_owned());
    let signed = policy.add_to(event.pdu(), &signature, rules).map_err(unusable)?;
    RawValue::from_string(signed.json().to_owned())
        .map_err(|error| SendError::BadContent(error.to_string()))
}

/// Those of some events of other servers that lack the signature, by their places in the list.
///
/// # Errors
/// The store's.
pub(crate) fn lacking(
    snap: &Snapshot<'_>,
    room: &Room,
    events: &[SignedPdu],
) -> Result<Option<Lacking>, StoreError> {
    let Some(policy) = in_use(snap, room)? else { return Ok(None) };
    let Ok(rules) = view::rules(room) else { return Ok(None) };
    let lacks = |(_, event): &(usize, &SignedPdu)| !policy.recommends(event.pdu(), rules);
    let places = events.iter().enumerate().filter(lacks).map(|(place, _)| place);
    let places: Vec<usize> = places.take(MAX_ASKED_FOR_OTHERS).collect();
    Ok((!places.is_empty()).then_some(Lacking { policy, rules, places }))
}

/// Events that lack the signature.
pub(crate) struct Lacking {
    policy: PolicyServer,
    rules: &'static RoomVersionRules,
    places: Vec<usize>,
}

/// Asks for the signatures that are lacking. An event that gets none stays as it is, and is soft
/// failed; after a policy server that does not answer, nothing more is asked.
pub(crate) async fn fill_in(hs: &Homeserver, lacking: Lacking, events: &mut [SignedPdu]) {
    let Lacking { policy, rules, places } = lacking;
    for place in places {
        let Some(event) = events.get_mut(place) else { continue };
        match signature(hs, &policy, (event.pdu(), rules)).await {
            Ok(signature) => match policy.add(event, &signature, rules) {
                Ok(signed) => *event = signed,
                Err(error) => tracing::debug!(%error, "a policy server's signature is no good"),
            },
            Err(SendError::NotRecommended { message, .. }) => {
                tracing::debug!(message, "an event is not recommended");
            }
            Err(error) => {
                tracing::debug!(%error, "events stay without recommendation");
                break;
            }
        }
    }
}
