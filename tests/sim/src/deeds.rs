//! What people do, each on their own node, by chance.

use std::rc::Rc;

use messagehub_homeserver::{
    Homeserver, StoreError,
    remote_join::RemoteJoinError,
    rooms::{
        create::{self, CreateError, NewRoom},
        invite::{self, Invite},
        join::{self, Join, JoinError},
        leave::{self, LeaveError},
        moderate::{self, Action, ModerateError, Moderation},
    },
    send::{self, NewMessage, NewRedaction, NewState, SendError},
    sessions::Session,
    view,
};
use messagehub_store::{memberships, rooms};
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId,
    api::client::room::create_room::v3::RoomPreset,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
    serde::Raw,
};
use serde_json::{Value, json, value::to_raw_value};

use crate::{
    Fault,
    life::home,
    world::{KnownRoom, World},
};

/// Rooms in one run: few, so that they are busy.
const MAX_ROOMS: usize = 3;

/// What somebody does.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Message,
    State,
    Power,
    Redact,
    Create,
    Invite,
    Join,
    Leave,
    Moderate(Action),
}

/// How often each is done, out of the sum.
const DEEDS: &[(u64, Deed)] = &[
    (45, Deed::Message),
    (20, Deed::State),
    (5, Deed::Power),
    (6, Deed::Redact),
    (2, Deed::Create),
    (8, Deed::Invite),
    (10, Deed::Join),
    (2, Deed::Leave),
    (3, Deed::Moderate(Action::Kick)),
    (2, Deed::Moderate(Action::Ban)),
    (2, Deed::Moderate(Action::Unban)),
];

/// Why somebody did not do something.
enum Refused {
    /// It is not allowed, not possible now, or there is nobody to do it with.
    No,
    /// The homeserver failed.
    Failed(Fault),
}

impl<E: std::error::Error + 'static> From<E> for Refused
where
    E: Refusal,
{
    fn from(error: E) -> Self {
        if error.is_failure() { Self::Failed(Box::new(error)) } else { Self::No }
    }
}

/// Errors that may be ordinary refusals.
trait Refusal {
    /// Whether it is the homeserver that failed.
    fn is_failure(&self) -> bool;
}

impl Refusal for StoreError {
    fn is_failure(&self) -> bool {
        true
    }
}

impl Refusal for SendError {
    fn is_failure(&self) -> bool {
        matches!(self, Self::Store(_) | Self::Room(_))
    }
}

impl Refusal for CreateError {
    fn is_failure(&self) -> bool {
        !matches!(self, Self::OutboxFull(_))
    }
}

impl Refusal for LeaveError {
    fn is_failure(&self) -> bool {
        matches!(self, Self::Send(error) if error.is_failure())
    }
}

impl Refusal for ModerateError {
    fn is_failure(&self) -> bool {
        matches!(self, Self::Send(error) if error.is_failure())
    }
}

impl Refusal for JoinError {
    fn is_failure(&self) -> bool {
        match self {
            Self::Send(error) => error.is_failure(),
            Self::Remote(error) => {
                matches!(error, RemoteJoinError::Store(_) | RemoteJoinError::Unusable(_))
            }
            Self::UnknownAlias(_) | Self::NoWay | Self::Limited(_) => false,
        }
    }
}

impl Refusal for serde_json::Error {
    fn is_failure(&self) -> bool {
        true
    }
}

/// Lets somebody on a node do something, now, while everything else goes on.
pub(crate) fn something(world: &Rc<World>, node: usize) {
    let here = Rc::clone(world);
    world.spawn(node, async move {
        let deed = here.draw_deed();
        let done = here.attempt(node, deed).await;
        here.settle((node, deed), done);
    });
}

/// Makes a room with everybody of some other nodes.
pub(crate) fn found(world: &Rc<World>, node: usize) {
    let here = Rc::clone(world);
    world.spawn(node, async move {
        let done = here.attempt(node, Deed::Create).await;
        here.settle((node, Deed::Create), done);
    });
}

/// Lets everybody on a node join what they may and are not in.
pub(crate) fn join_all(world: &Rc<World>, node: usize) {
    for user in world.nodes[node].users.borrow().clone() {
        let rooms = world.rooms.borrow().clone();
        for room in rooms {
            let (here, user) = (Rc::clone(world), user.clone());
            world.spawn(node, async move {
                let Some(hs) = here.nodes[node].hs() else { return };
                let done = here.enter(&hs, &user, &room).await;
                here.settle((node, Deed::Join), done);
            });
        }
    }
}

/// The last word of a node in a room, by whoever of its users may speak. Says whether there was
/// one.
pub(crate) async fn last_word(
    world: &Rc<World>,
    node: usize,
    room_id: &OwnedRoomId,
) -> Result<bool, Fault> {
    let Some(hs) = world.nodes[node].hs() else { return Ok(false) };
    let users = world.nodes[node].users.borrow().clone();
    for user in users {
        match world.say(&hs, &user, room_id).await {
            Ok(()) => return Ok(true),
            Err(Refused::No) => {}
            Err(Refused::Failed(fault)) => return Err(fault),
        }
    }
    Ok(false)
}

impl World {
    fn draw_deed(&self) -> Deed {
        let sum = DEEDS.iter().map(|(weight, _)| weight).sum();
        let mut at = self.below(sum);
        for (weight, deed) in DEEDS {
            if at < *weight {
                return *deed;
            }
            at -= weight;
        }
        Deed::Message
    }

    fn settle(&self, (node, deed): (usize, Deed), done: Result<(), Refused>) {
        tracing::info!(node, ?deed, done = done.is_ok(), at = ?self.start.elapsed(), "somebody acted");
        self.note(("deed", node, done.is_ok()));
        match done {
            Ok(()) => self.count(|tally| tally.deeds_done += 1),
            Err(Refused::No) => self.count(|tally| tally.deeds_refused += 1),
            Err(Refused::Failed(fault)) => self.fault(format!("on node {node}: {fault}")),
        }
    }

    async fn attempt(self: &Rc<Self>, node: usize, deed: Deed) -> Result<(), Refused> {
        let hs = self.nodes[node].hs().ok_or(Refused::No)?;
        let users = self.nodes[node].users.borrow().clone();
        let user = self.pick(&users).ok_or(Refused::No)?;
        match deed {
            Deed::Create => return self.create(&hs, &user).await,
            Deed::Join => return self.join_something(&hs, &user).await,
            _ => {}
        }
        let room_id = self.room_of(&hs, &user).await?;
        match deed {
            Deed::Message => self.say(&hs, &user, &room_id).await,
            Deed::State => self.set_state(&hs, &user, &room_id).await,
            Deed::Power => self.set_power(&hs, &user, &room_id).await,
            Deed::Redact => self.redact(&hs, &user, &room_id).await,
            Deed::Invite => {
                let user_id = self.anybody();
                let invite = Invite { room_id, user_id, reason: None };
                Ok(invite::invite(&hs, &user, invite).await?)
            }
            Deed::Leave => Ok(leave::leave(&hs, &user, room_id, None).await?),
            Deed::Moderate(action) => {
                let user_id = self.anybody();
                let moderation = Moderation { room_id, user_id, action, reason: None };
                moderate::moderate(&hs, &user, moderation).await?;
                self.count(|tally| tally.moderated += 1);
                Ok(())
            }
            Deed::Create | Deed::Join => Ok(()),
        }
    }

    fn anybody(&self) -> OwnedUserId {
        let everybody: Vec<OwnedUserId> =
            self.nodes.iter().flat_map(|node| node.users.borrow().clone()).collect();
        // There is a node with a user, since one of them asks.
        self.pick(&everybody).unwrap_or_else(|| everybody[0].clone())
    }

    async fn room_of(&self, hs: &Homeserver, user: &OwnedUserId) -> Result<OwnedRoomId, Refused> {
        let user = user.clone();
        let joined = hs.store.read(move |snap| {
            let joined = memberships::rooms_of(snap, &user, &MembershipState::Join)?;
            joined
                .into_iter()
                .map(|nid| rooms::get_by_nid(snap, nid).map(|room| room.room_id))
                .collect::<Result<Vec<_>, StoreError>>()
        });
        self.pick(&joined.await?).ok_or(Refused::No)
    }

    async fn create(self: &Rc<Self>, hs: &Homeserver, user: &OwnedUserId) -> Result<(), Refused> {
        let number = self.rooms.borrow().len();
        if number >= MAX_ROOMS {
            return Err(Refused::No);
        }
        let mut new = NewRoom::new();
        let is_public = self.chance(50);
        new.preset = Some(match (is_public, self.chance(50)) {
            (true, _) => RoomPreset::PublicChat,
            (false, true) => RoomPreset::PrivateChat,
            (false, false) => RoomPreset::TrustedPrivateChat,
        });
        new.room_version = self.plan.versions.get(number).cloned();
        let others = self.nodes.iter().flat_map(|node| node.users.borrow().clone());
        new.invite = others.filter(|other| other != user && self.chance(70)).collect();
        // Rooms in which many may do much: there people contradict each other.
        let levels = json!({
            "users_default": self.pick(&[0, 0, 50]),
            "state_default": self.pick(&[0, 0, 50]),
            "kick": self.pick(&[0, 50]),
            "ban": self.pick(&[0, 50]),
            "redact": self.pick(&[0, 50]),
            "invite": 0,
            "events": { "m.room.name": 0, "m.room.power_levels": self.pick(&[50, 100]) },
        });
        new.power_level_content_override = Some(Raw::from_json(to_raw_value(&levels)?));
        // The place is taken before the wait, so that there are never too many.
        let room_id = create::room(hs, user, new).await?;
        self.rooms.borrow_mut().push(KnownRoom { room_id, is_public });
        Ok(())
    }

    async fn join_something(
        self: &Rc<Self>,
        hs: &Homeserver,
        user: &OwnedUserId,
    ) -> Result<(), Refused> {
        let known = self.rooms.borrow().clone();
        let room = self.pick(&known).ok_or(Refused::No)?;
        self.enter(hs, user, &room).await
    }

    /// Joins a room if that makes sense: it is public or the user is invited.
    async fn enter(
        self: &Rc<Self>,
        hs: &Homeserver,
        user: &OwnedUserId,
        room: &KnownRoom,
    ) -> Result<(), Refused> {
        let (wanted, who) = (room.room_id.clone(), user.clone());
        let is = hs
            .store
            .read(move |snap| {
                let Some(room) = rooms::find(snap, &wanted)? else { return Ok(None) };
                let found = memberships::find(snap, room.nid, &who)?;
                Ok::<_, StoreError>(found.map(|found| found.membership))
            })
            .await?;
        match is {
            Some(MembershipState::Join) => return Err(Refused::No),
            Some(MembershipState::Invite) => {}
            _ if room.is_public => {}
            _ => return Err(Refused::No),
        }
        let via = self.nodes.iter().filter(|_| self.chance(60)).map(|node| node.name.clone());
        let join = Join { target: room.room_id.clone().into(), via: via.collect(), reason: None };
        let was_in = self.rooms_of(home(self, user).unwrap_or_default()).await;
        join::join(hs, user, join).await?;
        if was_in.is_ok_and(|rooms| !rooms.contains(&room.room_id)) {
            self.count(|tally| tally.remote_joins += 1);
        }
        Ok(())
    }

    async fn say(
        &self,
        hs: &Homeserver,
        user: &OwnedUserId,
        room_id: &OwnedRoomId,
    ) -> Result<(), Refused> {
        let body = format!("word {}", self.below(1_000_000));
        let content = to_raw_value(&json!({ "msgtype": "m.text", "body": body }))?;
        let new = NewMessage {
            room_id: room_id.clone(),
            kind: TimelineEventType::RoomMessage,
            content,
            txn_id: self.txn_id().into(),
        };
        let event_id = send::message(hs, &session(user), new).await?;
        self.promise(user, room_id, event_id);
        Ok(())
    }

    async fn set_state(
        &self,
        hs: &Homeserver,
        user: &OwnedUserId,
        room_id: &OwnedRoomId,
    ) -> Result<(), Refused> {
        let text = format!("text {}", self.below(1_000_000));
        let (kind, state_key, content) = match self.below(3) {
            0 => (StateEventType::RoomTopic, String::new(), json!({ "topic": text })),
            1 => (StateEventType::RoomName, String::new(), json!({ "name": text })),
            _ => ("org.example.note".into(), self.below(3).to_string(), json!({ "note": text })),
        };
        self.put_state(hs, user, (room_id, kind, state_key, content)).await
    }

    async fn set_power(
        &self,
        hs: &Homeserver,
        user: &OwnedUserId,
        room_id: &OwnedRoomId,
    ) -> Result<(), Refused> {
        let wanted = room_id.clone();
        let levels = hs
            .store
            .read(move |snap| match rooms::find(snap, &wanted)? {
                Some(room) => {
                    view::state_event(snap, room.state, &StateEventType::RoomPowerLevels, "")
                }
                None => Ok(None),
            })
            .await?;
        let levels = levels.ok_or(Refused::No)?;
        let mut content: Value = serde_json::from_str(levels.content().get())?;
        if let Some(users) = content.get_mut("users").and_then(Value::as_object_mut) {
            let level = self.pick(&[0, 50, 100]).unwrap_or_default();
            users.insert(self.anybody().to_string(), level.into());
        }
        self.put_state(hs, user, (room_id, StateEventType::RoomPowerLevels, String::new(), content))
            .await
    }

    async fn put_state(
        &self,
        hs: &Homeserver,
        user: &OwnedUserId,
        (room_id, kind, state_key, content): (&OwnedRoomId, StateEventType, String, Value),
    ) -> Result<(), Refused> {
        let content = to_raw_value(&content)?;
        let new = NewState { room_id: room_id.clone(), kind, state_key, content };
        let event_id = send::state(hs, user, new).await?;
        self.promise(user, room_id, event_id);
        Ok(())
    }

    async fn redact(
        &self,
        hs: &Homeserver,
        user: &OwnedUserId,
        room_id: &OwnedRoomId,
    ) -> Result<(), Refused> {
        let said: Vec<OwnedEventId> = {
            let ledger = self.ledger.borrow();
            ledger.of_room(room_id).map(|promise| promise.event_id.clone()).collect()
        };
        let target = self.pick(&said).ok_or(Refused::No)?;
        let new = NewRedaction {
            room_id: room_id.clone(),
            target,
            reason: None,
            txn_id: self.txn_id().into(),
        };
        let event_id = send::redaction(hs, &session(user), new).await?;
        self.promise(user, room_id, event_id);
        Ok(())
    }

    fn promise(&self, user: &OwnedUserId, room_id: &OwnedRoomId, event_id: OwnedEventId) {
        self.note(("promise", &event_id));
        if let Some(node) = home(self, user) {
            self.ledger.borrow_mut().promise(node, room_id.clone(), event_id);
        }
    }

    fn txn_id(&self) -> String {
        format!("t{}", self.below(u64::MAX))
    }
}

fn session(user: &OwnedUserId) -> Session {
    Session { user_id: user.clone(), device_id: "DEVICE".into() }
}
