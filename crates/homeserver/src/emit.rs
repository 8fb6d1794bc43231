//! One event of a local user inside a transaction: gather, decide, apply.

use std::sync::Arc;

use messagehub_protocol::{
    auth::AuthViolation,
    build::{self, BuildError, NewEvent, Signer},
    pdu::{Pdu, SignedPdu},
    policy,
    receive::{self, RoomView, Standing},
};
use messagehub_store::{
    Room, Snapshot, StateNid, StoreError, Txn,
    events::{self, StoredEvent},
    memberships, outbox,
};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedServerName, OwnedUserId, RoomId,
    ServerName, UserId,
    events::{StateEventType, room::member::MembershipState},
};
use serde_json::value::RawValue;

use crate::{
    Homeserver, Identity,
    append::{self, Appended, MemberChange, TopicChange},
    federation::announce,
    ingest::verify,
    invite_permission::{self, InvitePermission},
    policy::{Desk, Draft},
    rate::Limited,
    server::shown,
    view::{self, Gathered, Opening, ViewError},
    visibility::membership_in,
};

/// Why an event of a local user is not sent. Nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The user is not in the room, or there is no such room; which of them is not told.
    #[error("the user is not in this room")]
    NotInRoom,
    /// The room's rules do not allow it.
    #[error("{0}")]
    Forbidden(AuthViolation),
    /// Neither the event's author nor somebody with the power to redact.
    #[error("the user may not redact this event")]
    MayNotRedact,
    /// There is no such event in the room.
    #[error("there is no such event")]
    UnknownEvent,
    /// The event would be larger than an event may be.
    #[error("the event is too large")]
    TooLarge,
    /// The content has the wrong form; the text is for people.
    #[error("{0}")]
    BadContent(String),
    /// An alias in the content has the wrong form.
    #[error("{0} is no alias")]
    InvalidAlias(String),
    /// An alias in the content does not point to the room.
    #[error("{0} is no alias of this room")]
    BadAlias(String),
    /// The invited user takes no invites.
    #[error("{0} does not take this invite")]
    InviteBlocked(OwnedUserId),
    /// The room's policy server does not recommend the event.
    #[error("{message}")]
    NotRecommended {
        /// The HTTP status of its answer.
        status: u16,
        /// Its `errcode`.
        errcode: String,
        /// Its words.
        message: String,
    },
    /// The room's policy server has not signed the event, and cannot be asked now.
    #[error("the policy server {0} of the room cannot be asked now")]
    NoRecommendation(OwnedServerName),
    /// The event reached the room another way, where what had happened meanwhile does not let it in.
    #[error("what happened in the room meanwhile does not allow the event")]
    NotKept,
    /// The user sends too fast.
    #[error(transparent)]
    Limited(#[from] Limited),
    /// The outbox of a server that must be told is full.
    #[error("too much waits for {0} already")]
    OutboxFull(OwnedServerName),
    /// The room cannot be worked with: its version is unknown here, or its graph has holes.
    #[error("the room is not usable: {0}")]
    Room(ViewError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ViewError> for SendError {
    fn from(error: ViewError) -> Self {
        match error {
            ViewError::Store(error) => Self::Store(error),
            error => Self::Room(error),
        }
    }
}

impl From<BuildError> for SendError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::TooLarge => Self::TooLarge,
            error => Self::BadContent(error.to_string()),
        }
    }
}

/// Who signs, and when: what making an event needs beside rows.
#[derive(Debug, Clone)]
pub(crate) struct Emitter {
    pub(crate) identity: Arc<Identity>,
    pub(crate) now: MilliSecondsSinceUnixEpoch,
    /// What the policy server of a room is to sign, or has signed.
    pub(crate) desk: Arc<Desk>,
}

/// What an attempt to set state came to.
pub(crate) enum Emitted {
    /// A new event.
    New(Appended),
    /// The room said so already, in this event of the same sender.
    Same(OwnedEventId),
}

impl Emitted {
    pub(crate) fn event_id(&self) -> &EventId {
        match self {
            Self::New(appended) => appended.pdu.event_id(),
            Self::Same(event_id) => event_id,
        }
    }
}

impl Emitter {
    pub(crate) fn of(hs: &Homeserver) -> Self {
        Self { identity: Arc::clone(&hs.identity), now: hs.clock.now(), desk: Arc::default() }
    }

    /// Sends an event to a room, whatever the room says already.
    pub(crate) fn emit(
        &self,
        txn: &mut Txn<'_>,
        room: &mut Room,
        new: NewEvent,
    ) -> Result<Appended, SendError> {
        let opening = view::for_sending(txn, room, &new)?.map_err(SendError::Forbidden)?;
        self.emit_at(txn, room, new, &opening)
    }

    /// The same where the place was looked up already.
    pub(crate) fn emit_at(
        &self,
        txn: &mut Txn<'_>,
        room: &mut Room,
        new: NewEvent,
        opening: &Opening,
    ) -> Result<Appended, SendError> {
        if let Some(signed) = self.desk.find(&new) {
            return self.place(txn, room, signed);
        }
        let pdu = self.build(new, opening)?;
        self.apply(txn, room, pdu, opening)
    }

    /// Places an event where it was built before the policy server signed it.
    fn place(
        &self,
        txn: &mut Txn<'_>,
        room: &mut Room,
        signed: SignedPdu,
    ) -> Result<Appended, SendError> {
        if verify::is_placed(txn, signed.pdu().event_id())?
            && let Some(known) = events::find(txn, signed.pdu().event_id())?
        {
            return self.sent_by_another(txn, room, known);
        }
        let Gathered { view, state_before } = view::for_event(txn, room, signed.pdu())?;
        self.judge_and_append(txn, room, signed, (&view, state_before))
    }

    /// An event that the policy server sent to the room before it gave us its signature.
    fn sent_by_another(
        &self,
        txn: &mut Txn<'_>,
        room: &Room,
        known: StoredEvent,
    ) -> Result<Appended, SendError> {
        if known.standing != Standing::Accepted {
            return Err(SendError::NotKept);
        }
        let appended = Appended::known(known);
        self.queue(txn, room, &appended)?;
        Ok(appended)
    }

    /// Sends a state event to a room, unless the same sender has said the same already.
    pub(crate) fn emit_state(
        &self,
        txn: &mut Txn<'_>,
        room: &mut Room,
        new: NewEvent,
    ) -> Result<Emitted, SendError> {
        if let Some(signed) = self.desk.find(&new) {
            return Ok(Emitted::New(self.place(txn, room, signed)?));
        }
        let opening = view::for_sending(txn, room, &new)?.map_err(SendError::Forbidden)?;
        let pdu = self.build(new, &opening)?;
        let kind = StateEventType::from(pdu.pdu().kind().to_string());
        let state_key = pdu.pdu().state_key().unwrap_or_default();
        if let Some(said) = view::state_event(txn, opening.state_before, &kind, state_key)?
            && said.content().get() == pdu.pdu().content().get()
            && said.sender() == pdu.pdu().sender()
        {
            return Ok(Emitted::Same(said.event_id().to_owned()));
        }
        Ok(Emitted::New(self.apply(txn, room, pdu, &opening)?))
    }

    /// Builds and signs.
    pub(crate) fn build(&self, new: NewEvent, opening: &Opening) -> Result<SignedPdu, SendError> {
        let signer =
            Signer { server: self.identity.server_name(), key: self.identity.verify_key() };
        Ok(build::event(new, &opening.place, self.now, signer, opening.view.rules)?)
    }

    /// Judges and stores, and queues what other servers must be told outside the room.
    pub(crate) fn apply(
        &self,
        txn: &mut Txn<'_>,
        room: &mut Room,
        pdu: SignedPdu,
        opening: &Opening,
    ) -> Result<Appended, SendError> {
        self.judge_and_append(txn, room, pdu, (&opening.view, opening.state_before))
    }

    fn judge_and_append(
        &self,
        txn: &mut Txn<'_>,
        room: &mut Room,
        pdu: SignedPdu,
        (view, state_before): (&RoomView, StateNid),
    ) -> Result<Appended, SendError> {
        let judged = receive::check(self.recommended(pdu, view)?, view);
        let judged = judged.accepted_or(SendError::Forbidden)?;
        self.check_invite(txn, judged.pdu())?;
        let server = self.identity.server_name();
        let appended = append::event(txn, server, room, &judged, state_before)?;
        self.queue(txn, room, &appended)?;
        Ok(appended)
    }

    /// Spec: Client-Server API, "Invite permission". Of other servers' users their own server says.
    fn check_invite(&self, snap: &Snapshot<'_>, pdu: &Pdu) -> Result<(), SendError> {
        if membership_in(pdu) != Some(MembershipState::Invite) {
            return Ok(());
        }
        let invited = pdu.state_key().and_then(|key| OwnedUserId::try_from(key).ok());
        let Some(invited) = invited.filter(|invited| self.identity.is_local(invited)) else {
            return Ok(());
        };
        match invite_permission::of(snap, &invited, pdu.sender())? {
            InvitePermission::Blocked => Err(SendError::InviteBlocked(invited)),
            InvitePermission::Allowed | InvitePermission::Ignored => Ok(()),
        }
    }

    /// The event with the signature that the room wants. Where only another server can give it, the
    /// event is left on the desk, and nothing is sent this time.
    fn recommended(&self, event: SignedPdu, view: &RoomView) -> Result<SignedPdu, SendError> {
        let Some(policy) = view.policy() else { return Ok(event) };
        if policy.recommends(event.pdu(), view.rules) {
            return Ok(event);
        }
        let server = policy.server().to_owned();
        if server != self.identity.server_name() {
            self.desk.leave(Draft { event, policy, rules: view.rules });
            return Err(SendError::NoRecommendation(server));
        }
        let unusable = |_| SendError::NoRecommendation(server.clone());
        let key = self.identity.policy_key();
        let signature = policy::sign(event.pdu(), &key, view.rules).map_err(unusable)?;
        policy.add(&event, &signature, view.rules).map_err(unusable)
    }

    /// Puts into the outbox what a membership change means for servers that are not in the room,
    /// or that we no longer share it with: heads are not compared with them.
    fn queue(&self, txn: &mut Txn<'_>, room: &Room, appended: &Appended) -> Result<(), SendError> {
        for change in &appended.members {
            let there = change.user_id.server_name();
            if there == self.identity.server_name() {
                continue;
            }
            match change.now {
                MembershipState::Invite if is_about(&appended.pdu, &change.user_id) => {
                    self.queue_invite(txn, room, (appended, change))?;
                }
                MembershipState::Leave | MembershipState::Ban
                    if !memberships::is_server_in(txn, room.nid, there)? =>
                {
                    self.put(txn, there, outbox::Kind::Pdu, appended.pdu.json())?;
                }
                _ => {}
            }
        }
        if appended.topic == Some(TopicChange::Leave) {
            for there in memberships::servers_in(txn, room.nid)? {
                self.put(txn, &there, outbox::Kind::Pdu, appended.pdu.json())?;
            }
        }
        Ok(())
    }

    /// Spec: Server-Server API, "Inviting to a room".
    fn queue_invite(
        &self,
        txn: &mut Txn<'_>,
        room: &Room,
        (appended, change): (&Appended, &MemberChange),
    ) -> Result<(), SendError> {
        let own = self.identity.server_keys();
        let shown = shown::of_room(txn, &own, room.state, &[appended.pdu.sender()])?;
        let event = RawValue::from_string(appended.pdu.json().to_owned());
        let body = event.and_then(|event| {
            serde_json::to_string(&serde_json::json!({
                "room_id": room.room_id,
                "event_id": appended.pdu.event_id(),
                "room_version": room.version,
                "event": event,
                "invite_room_state": shown.pdus,
                "server_keys": shown.server_keys,
            }))
        });
        let body = body.map_err(|error| SendError::BadContent(error.to_string()))?;
        self.put(txn, change.user_id.server_name(), outbox::Kind::Invite, &body)
    }

    fn put(
        &self,
        txn: &mut Txn<'_>,
        destination: &ServerName,
        kind: outbox::Kind,
        body: &str,
    ) -> Result<(), SendError> {
        let entry = outbox::NewEntry { destination, kind, slot: None, body };
        match outbox::insert(txn, entry, self.now)? {
            outbox::Queued::Stored => Ok(()),
            outbox::Queued::Full => Err(SendError::OutboxFull(destination.to_owned())),
        }
    }
}

/// What is to be told to the transport.
#[derive(Debug)]
pub(crate) struct News {
    room: Room,
    events: Vec<Arc<Pdu>>,
    topic: Option<TopicChange>,
    audience: Audience,
    outbox: Outbox,
}

/// Whether something for other servers may stand in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outbox {
    Touched,
    Untouched,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Audience {
    /// Some other server is in the room.
    Others,
    /// All members are ours, or the others were told already.
    Nobody,
}

impl News {
    /// What some events of one room, in order, are to others. For the end of a transaction.
    pub(crate) fn of(
        snap: &Snapshot<'_>,
        room: Room,
        appended: &[Appended],
        server: &ServerName,
    ) -> Result<Self, StoreError> {
        let others = memberships::is_shared(snap, room.nid, server)?;
        let remote = |change: &MemberChange| change.user_id.server_name() != server;
        let touched = appended.iter().any(|appended| {
            appended.topic == Some(TopicChange::Leave) || appended.members.iter().any(remote)
        });
        Ok(Self {
            outbox: if touched { Outbox::Touched } else { Outbox::Untouched },
            room,
            events: appended.iter().map(|appended| Arc::clone(&appended.pdu)).collect(),
            topic: appended.iter().filter_map(|appended| appended.topic).next_back(),
            audience: if others { Audience::Others } else { Audience::Nobody },
        })
    }

    /// The room.
    pub(crate) fn room_id(&self) -> &RoomId {
        &self.room.room_id
    }

    /// Tells the others at the end of the transaction, so that they have the event while our disk is
    /// at work. Not where the key for the frame must be looked for: then [`News::publish`] does it.
    ///
    /// Should the commit fail, they have an event that its own server has not: it comes back from
    /// them, as does any that this server lacks ([decision 13]).
    ///
    /// [decision 13]: ../../../docs/decisions/0013-frames-leave-before-the-commit.md
    pub(crate) fn tell_early(&mut self, hs: &Homeserver) {
        let room = (&*self.room.room_id, self.room.state);
        if self.audience == Audience::Others
            && let [event] = &*self.events
            && announce::announce_unlooked(hs, room, event)
        {
            self.audience = Audience::Nobody;
        }
    }

    /// Tells the transport, after the commit.
    pub(crate) async fn publish(self, hs: &Homeserver) {
        if self.audience == Audience::Others {
            announce::announce(hs, &self.room.room_id, &self.events).await;
        }
        append::announce_topic(hs, &self.room, self.topic);
        if self.outbox == Outbox::Touched {
            hs.peers.wake();
        }
    }
}

fn is_about(pdu: &Pdu, user_id: &UserId) -> bool {
    pdu.state_key() == Some(user_id.as_str()) && membership_in(pdu) == Some(MembershipState::Invite)
}
