//! A server that writes into a store as the homeserver does: gather, decide, apply.

use std::sync::Arc;

use messagehub_protocol::{
    auth::{self, AuthState},
    build::{self, NewEvent, Place, Signer},
    keys::{IdentityKey, VerifyKey},
    pdu::{Pdu, RawPdu, SignedPdu},
    receive::{self, Judged, RoomView},
    rules::rules_of,
    server_keys::{KeyRing, ServerKeys, ServerKeysTerms},
};
use messagehub_store::{
    Room, Snapshot, Standing, StoreError, Txn,
    events::{self, Appended, Placement},
    extremities,
    memberships::{self, NewMembership},
    room_state, rooms,
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedServerName, OwnedUserId, RoomVersionId, UInt, UserId,
    events::{TimelineEventType, room::member::MembershipState},
    room_version_rules::RoomVersionRules,
};
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};

/// A point in time, in milliseconds.
pub(crate) fn at(ms: u32) -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(UInt::from(ms))
}

/// A server with its keys.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) name: OwnedServerName,
    key: Arc<VerifyKey>,
    keys: ServerKeys,
}

impl Server {
    pub(crate) fn new(seed: u8) -> Self {
        let identity = IdentityKey::from_seed(&[seed; 32]);
        let key = VerifyKey::from_seed(&[seed ^ 0x80; 32]);
        let terms = ServerKeysTerms { old_verify_keys: vec![], peer_ids: vec![], issued_ts: at(0) };
        let keys = ServerKeys::make(&identity, &key, terms);
        Self { name: identity.server_name().to_owned(), key: Arc::new(key), keys }
    }

    pub(crate) fn user(&self, localpart: &str) -> OwnedUserId {
        OwnedUserId::try_from(format!("@{localpart}:{}", self.name)).unwrap()
    }

    pub(crate) fn sign(&self, new: NewEvent, place: &Place) -> SignedPdu {
        let signer = Signer { server: &self.name, key: &self.key };
        build::event(new, place, at(1), signer, rules()).unwrap()
    }

    /// An event of this server, as it comes from another one.
    pub(crate) fn signed_again(&self, pdu: &Pdu) -> SignedPdu {
        let ring = KeyRing::from([(self.name.clone(), self.keys.clone())]);
        let raw = RawValue::from_string(pdu.json().to_owned()).unwrap();
        RawPdu::new(raw).well_formed(rules()).unwrap().signed(&ring).unwrap()
    }

    /// A new room: created, its creator joined.
    pub(crate) fn create_room(
        &self,
        txn: &mut Txn<'_>,
        creator: &UserId,
    ) -> Result<Room, StoreError> {
        // The id of a room is the hash of this event, so no two may be the same.
        let content = json!({"room_version": "12", "number": txn.position()?.0});
        let new = state(creator, "m.room.create", "", &content);
        let create = self.sign(new, &Place::default());
        let mut room = rooms::insert(txn, create.pdu().room_id(), &RoomVersionId::V12)?;
        let judged = receive::check(create, &view(AuthState::new(), vec![]));
        apply(txn, &mut room, &judged)?;
        self.send(txn, &mut room, member(creator, creator, &MembershipState::Join))?;
        Ok(room)
    }

    /// Builds an event on top of a room as the store has it, judges it and stores it.
    pub(crate) fn send(
        &self,
        txn: &mut Txn<'_>,
        room: &mut Room,
        new: NewEvent,
    ) -> Result<Appended, StoreError> {
        let judged = self.judged(txn, room, new)?;
        apply(txn, room, &judged)
    }

    /// Builds an event on top of a room and judges it.
    pub(crate) fn judged(
        &self,
        snap: &Snapshot<'_>,
        room: &Room,
        new: NewEvent,
    ) -> Result<Judged, StoreError> {
        let gathered = gather(snap, room, &new)?;
        Ok(self.decide(room, new, gathered))
    }

    /// Builds an event from what was gathered and judges it.
    pub(crate) fn decide(&self, room: &Room, mut new: NewEvent, gathered: Gathered) -> Judged {
        new.room_id = Some(room.room_id.clone());
        let (kind, sender) = (&new.kind, &new.sender);
        let types = auth::auth_types(kind, sender, new.state_key.as_deref(), &new.content, rules());
        let auth_events = auth::select(&types.unwrap(), &gathered.state);
        let place = Place { prev_events: gathered.prev_events, auth_events: auth_events.clone() };
        receive::check(self.sign(new, &place), &view(gathered.state, auth_events))
    }

    /// As [`Self::decide`], where the current state has nobody in the room.
    pub(crate) fn decide_late(&self, room: &Room, new: NewEvent, gathered: Gathered) -> Judged {
        let judging = view(gathered.state.clone(), vec![]);
        let judged = self.decide(room, new, gathered);
        let auth_events = judged.pdu().auth_events().to_vec();
        let rests_on = |pdu: &&Arc<Pdu>| auth_events.iter().any(|id| *id == *pdu.event_id());
        let auth_events = judging.state_before.values().filter(rests_on).cloned().collect();
        let current_state = Some(AuthState::new());
        let judging = RoomView { current_state, ..view(judging.state_before, auth_events) };
        receive::check(self.signed_again(judged.pdu()), &judging)
    }
}

/// What a new event is built from.
#[derive(Clone)]
pub(crate) struct Gathered {
    pub(crate) prev_events: Vec<Arc<Pdu>>,
    pub(crate) state: AuthState,
}

/// Reads what a new event is built from.
pub(crate) fn gather(
    snap: &Snapshot<'_>,
    room: &Room,
    new: &NewEvent,
) -> Result<Gathered, StoreError> {
    let state_key = new.state_key.as_deref();
    let needed = auth::needed_state(&new.kind, &new.sender, state_key, &new.content, rules());
    let mut state = AuthState::new();
    for (kind, state_key) in needed.unwrap() {
        if let Some(nid) = room_state::get(snap, room.state, &kind, &state_key)? {
            state.insert((kind, state_key), events::pdu(snap, nid)?);
        }
    }
    let extremities = extremities::list(snap, room.nid)?;
    let prev_events: Result<_, _> =
        extremities.into_iter().map(|nid| events::pdu(snap, nid)).collect();
    Ok(Gathered { prev_events: prev_events?, state })
}

/// Stores a judged event at the end of a room with one extremity.
pub(crate) fn apply(
    txn: &mut Txn<'_>,
    room: &mut Room,
    judged: &Judged,
) -> Result<Appended, StoreError> {
    let pdu = judged.pdu();
    let placement = Placement { state_before: room.state, state_after: room.state };
    let appended = events::append(txn, room, judged, placement)?;
    if let Some(pos) = appended.pos {
        if let Some(key) = pdu.state_key() {
            let kind = pdu.kind().to_string().into();
            let after = room_state::set(txn, room.state, &kind, key, appended.nid)?;
            events::set_state_after(txn, appended.nid, after)?;
            rooms::set_state(txn, room, after, pos)?;
        }
        if let (TimelineEventType::RoomMember, Some(user)) = (pdu.kind(), pdu.state_key()) {
            let membership = membership_of(pdu);
            let new = NewMembership {
                membership: &membership,
                event: Some(appended.nid),
                pos,
                stripped: None,
            };
            memberships::set(txn, room.nid, <&UserId>::try_from(user).unwrap(), new)?;
        }
    }
    extremities::advance(txn, room.nid, appended, pdu)?;
    Ok(appended)
}

fn membership_of(pdu: &Pdu) -> MembershipState {
    #[derive(serde::Deserialize)]
    struct Content {
        membership: MembershipState,
    }
    serde_json::from_str::<Content>(pdu.content().get()).unwrap().membership
}

fn view(state: AuthState, auth_events: Vec<Arc<Pdu>>) -> RoomView {
    let auth_events = auth_events.into_iter().map(|pdu| (pdu, Standing::Accepted)).collect();
    RoomView {
        rules: rules(),
        auth_events,
        current_state: Some(state.clone()),
        state_before: state,
    }
}

pub(crate) fn rules() -> &'static RoomVersionRules {
    rules_of(&RoomVersionId::V12).unwrap()
}

/// A message.
pub(crate) fn message(sender: &UserId, body: &str) -> NewEvent {
    NewEvent {
        room_id: None,
        sender: sender.to_owned(),
        kind: TimelineEventType::RoomMessage,
        state_key: None,
        content: raw(&json!({"msgtype": "m.text", "body": body})),
        redacts: None,
    }
}

/// A change of a membership.
pub(crate) fn member(sender: &UserId, user: &UserId, membership: &MembershipState) -> NewEvent {
    state(sender, "m.room.member", user.as_str(), &json!({"membership": membership}))
}

/// A state event.
pub(crate) fn state(
    sender: &UserId,
    kind: &str,
    state_key: &str,
    content: &serde_json::Value,
) -> NewEvent {
    NewEvent {
        room_id: None,
        sender: sender.to_owned(),
        kind: kind.into(),
        state_key: Some(state_key.to_owned()),
        content: raw(content),
        redacts: None,
    }
}

fn raw(value: &serde_json::Value) -> Box<RawValue> {
    to_raw_value(value).unwrap()
}
