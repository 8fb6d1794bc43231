//! What people do, each on their own node, by chance.

use std::rc::Rc;

use messagehub_homeserver::{
    Homeserver, StoreError,
    receipts::{self, Mark, NewReceipt, ReceiptError},
    remote_join::RemoteJoinError,
    rooms::{
        create::{self, CreateError, NewRoom},
        invite::{self, Invite},
        join::{self, Join},
        leave::{self, LeaveError},
        moderate::{self, Action, ModerateError, Moderation},
        ways::EntryError,
    },
    send::{self, NewMessage, NewRedaction, NewState, SendError},
    sessions::Session,
    view,
};
use messagehub_store::{memberships, rooms};
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId,
    api::client::room::create_room::v3::RoomPreset,
    events::{
        StateEventType, TimelineEventType, receipt::ReceiptThread, room::member::MembershipState,
    },
    serde::Raw,
};
use serde_json::{Value, json, value::to_raw_value};

use crate::{
    Fault,
    dice::Dice,
    life::home,
    look,
    script::Deed,
    world::{KnownRoom, World},
};

/// Rooms in one run: few, so that they are busy.
const MAX_ROOMS: usize = 3;

/// Servers named to somebody who wants to join.
const MAX_VIA: usize = 8;

/// People invited to a new room at most.
const MAX_INVITED: usize = 12;

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

impl Refusal for EntryError {
    fn is_failure(&self) -> bool {
        match self {
            Self::Send(error) => error.is_failure(),
            Self::Remote(error) => {
                matches!(error, RemoteJoinError::Store(_) | RemoteJoinError::Unusable(_))
            }
            Self::Alias(_) | Self::NoWay | Self::Limited(_) => false,
        }
    }
}

impl Refusal for ReceiptError {
    fn is_failure(&self) -> bool {
        matches!(self, Self::Store(_))
    }
}

impl Refusal for serde_json::Error {
    fn is_failure(&self) -> bool {
        true
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

/// Lets somebody on a node do something, now, while everything else goes on.
pub(crate) fn something(world: &Rc<World>, (node, deed): (usize, Deed), seed: u64) {
    let here = Rc::clone(world);
    world.spawn(node, async move {
        let done = here.attempt((node, deed), &Dice::of(seed)).await;
        here.settle((node, deed), done);
    });
}

/// Lets everybody on a node join what they may and are not in.
pub(crate) fn join_all(world: &Rc<World>, node: usize) {
    for user in world.nodes[node].users.borrow().clone() {
        let rooms = world.rooms.borrow().clone();
        for room in rooms {
            let (here, user) = (Rc::clone(world), user.clone());
            let seed = ("join all", world.script.seed, &user, &room.room_id);
            let dice = Dice::of(seed);
            world.spawn(node, async move {
                let Some(hs) = here.nodes[node].hs() else { return };
                let done = here.enter(&hs, (&user, &room), &dice).await;
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
    let dice = Dice::of(("last word", world.script.seed, node, world.start.elapsed()));
    for user in users {
        match world.say(&hs, (&user, room_id), &dice).await {
            Ok(()) => return Ok(true),
            Err(Refused::No) => {}
            Err(Refused::Failed(fault)) => return Err(fault),
        }
    }
    Ok(false)
}

/// A room that a user is in, if there is any.
pub(crate) async fn a_room_of(
    hs: &Homeserver,
    user: &OwnedUserId,
    dice: &Dice,
) -> Result<Option<OwnedRoomId>, Fault> {
    let user = user.clone();
    let joined = hs.store.read(move |snap| {
        let joined = memberships::rooms_of(snap, &user, &MembershipState::Join)?;
        joined
            .into_iter()
            .map(|nid| rooms::get_by_nid(snap, nid).map(|room| room.room_id))
            .collect::<Result<Vec<_>, StoreError>>()
    });
    Ok(dice.pick(&joined.await?))
}

impl World {
    fn settle(&self, (node, deed): (usize, Deed), done: Result<(), Refused>) {
        tracing::info!(node, ?deed, done = done.is_ok(), at = ?self.start.elapsed(), "somebody acted");
        self.note(("deed", node, done.is_ok()));
        match done {
            Ok(()) => self.count(|tally| tally.deeds_done += 1),
            Err(Refused::No) => self.count(|tally| tally.deeds_refused += 1),
            Err(Refused::Failed(fault)) => self.fault(format!("on node {node}: {fault}")),
        }
    }

    async fn attempt(
        self: &Rc<Self>,
        (node, deed): (usize, Deed),
        dice: &Dice,
    ) -> Result<(), Refused> {
        let hs = self.nodes[node].hs().ok_or(Refused::No)?;
        let users = self.nodes[node].users.borrow().clone();
        let user = dice.pick(&users).ok_or(Refused::No)?;
        match deed {
            Deed::Create => return self.create(&hs, &user, dice).await,
            Deed::Join => return self.join_something(&hs, &user, dice).await,
            _ => {}
        }
        let room_id = a_room_of(&hs, &user, dice).await?.ok_or(Refused::No)?;
        let at = (&user, &room_id);
        match deed {
            Deed::State => self.set_state(&hs, at, dice).await,
            Deed::Power => self.set_power(&hs, at, dice).await,
            Deed::Redact => self.redact(&hs, at, dice).await,
            Deed::Read => self.read(&hs, at, node).await,
            Deed::Invite => {
                let user_id = self.anybody(dice);
                let invite = Invite { room_id, user_id, reason: None };
                Ok(invite::invite(&hs, &user, invite).await?)
            }
            Deed::Leave => Ok(leave::leave(&hs, &user, room_id, None).await?),
            Deed::Kick => self.moderate(&hs, at, (Action::Kick, dice)).await,
            Deed::Ban => self.moderate(&hs, at, (Action::Ban, dice)).await,
            Deed::Unban => self.moderate(&hs, at, (Action::Unban, dice)).await,
            Deed::Message | Deed::Create | Deed::Join => self.say(&hs, at, dice).await,
        }
    }

    async fn moderate(
        &self,
        hs: &Homeserver,
        (user, room_id): (&OwnedUserId, &OwnedRoomId),
        (action, dice): (Action, &Dice),
    ) -> Result<(), Refused> {
        let user_id = self.anybody(dice);
        let moderation = Moderation { room_id: room_id.clone(), user_id, action, reason: None };
        moderate::moderate(hs, user, moderation).await?;
        self.count(|tally| tally.moderated += 1);
        Ok(())
    }

    /// Says that the newest event of a room was read.
    async fn read(
        &self,
        hs: &Homeserver,
        (user, room_id): (&OwnedUserId, &OwnedRoomId),
        node: usize,
    ) -> Result<(), Refused> {
        let known = |hs: Homeserver, user: OwnedUserId, room_id: OwnedRoomId| async move {
            hs.store.read(move |snap| look::receipt(snap, &room_id, &user)).await
        };
        let wanted = room_id.clone();
        let newest = hs.store.read(move |snap| look::newest(snap, &wanted)).await?;
        let (event_id, servers) = newest.ok_or(Refused::No)?;
        let before = known(hs.clone(), user.clone(), room_id.clone()).await?;
        let (wanted, who) = (room_id.clone(), user.clone());
        let join = hs.store.read(move |snap| look::join(snap, &wanted, &who)).await?;
        let join = join.ok_or(Refused::No)?;
        let receipt = NewReceipt {
            room_id: room_id.clone(),
            event_id,
            mark: Mark::Read(receipts::Kind::Public),
            thread: ReceiptThread::Unthreaded,
        };
        receipts::send(hs, user, vec![receipt]).await?;
        // One that says no more than the last is not told to anybody.
        if known(hs.clone(), user.clone(), room_id.clone()).await? != before {
            let mut members = vec![node];
            for member in servers.iter().filter_map(|name| self.node_of(name)) {
                // Nobody keeps what is said of somebody of whose join they have never heard.
                if member != node && self.knows(member, (user, room_id), &join).await? {
                    members.push(member);
                }
            }
            self.ledger.borrow_mut().receipt((room_id.clone(), user.clone()), join, members);
        }
        Ok(())
    }

    /// Whether a node, dead or alive, is in a room and knows that a user is, by the same join.
    async fn knows(
        &self,
        node: usize,
        (user, room_id): (&OwnedUserId, &OwnedRoomId),
        join: &OwnedEventId,
    ) -> Result<bool, Fault> {
        let store = match self.nodes[node].hs() {
            Some(hs) => hs.store,
            None => self.nodes[node].store()?,
        };
        let (name, wanted, user) = (self.nodes[node].name.clone(), room_id.clone(), user.clone());
        let known = store.read(move |snap| {
            let is_in = look::glance(snap, &name, &wanted)?.is_some();
            Ok::<_, StoreError>((is_in, look::join(snap, &wanted, &user)?))
        });
        let (is_in, known) = known.await?;
        Ok(is_in && known.as_ref() == Some(join))
    }

    fn anybody(&self, dice: &Dice) -> OwnedUserId {
        let everybody: Vec<OwnedUserId> =
            self.nodes.iter().flat_map(|node| node.users.borrow().clone()).collect();
        // There is a node with a user, since one of them asks.
        dice.pick(&everybody).unwrap_or_else(|| everybody[0].clone())
    }

    async fn create(
        self: &Rc<Self>,
        hs: &Homeserver,
        user: &OwnedUserId,
        dice: &Dice,
    ) -> Result<(), Refused> {
        let number = self.rooms.borrow().len();
        if number >= MAX_ROOMS {
            return Err(Refused::No);
        }
        let mut new = NewRoom::new();
        let is_public = dice.chance(50);
        new.preset = Some(match (is_public, dice.chance(50)) {
            (true, _) => RoomPreset::PublicChat,
            (false, true) => RoomPreset::PrivateChat,
            (false, false) => RoomPreset::TrustedPrivateChat,
        });
        new.room_version = self.script.versions.get(number).cloned();
        let others = self.nodes.iter().flat_map(|node| node.users.borrow().clone());
        new.invite = others.filter(|other| other != user && dice.chance(70)).collect();
        new.invite = dice.some(&new.invite, MAX_INVITED);
        // Rooms in which many may do much: there people contradict each other.
        let levels = json!({
            "users_default": dice.pick(&[0, 50]),
            "state_default": dice.pick(&[0, 0, 0, 50]),
            "kick": dice.pick(&[0, 50]),
            "ban": dice.pick(&[0, 50]),
            "redact": dice.pick(&[0, 50]),
            "invite": 0,
            "events": { "m.room.name": 0, "m.room.power_levels": dice.pick(&[50, 100]) },
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
        dice: &Dice,
    ) -> Result<(), Refused> {
        let known = self.rooms.borrow().clone();
        let room = dice.pick(&known).ok_or(Refused::No)?;
        self.enter(hs, (user, &room), dice).await
    }

    /// Joins a room if that makes sense: it is public or the user is invited.
    async fn enter(
        self: &Rc<Self>,
        hs: &Homeserver,
        (user, room): (&OwnedUserId, &KnownRoom),
        dice: &Dice,
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
        let via = self.nodes.iter().filter(|_| dice.chance(60)).map(|node| node.name.clone());
        let via = dice.some(&via.collect::<Vec<_>>(), MAX_VIA);
        let join = Join { target: room.room_id.clone().into(), via, reason: None };
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
        (user, room_id): (&OwnedUserId, &OwnedRoomId),
        dice: &Dice,
    ) -> Result<(), Refused> {
        let body = format!("word {}", dice.below(1_000_000));
        let content = to_raw_value(&json!({ "msgtype": "m.text", "body": body }))?;
        let new = NewMessage {
            room_id: room_id.clone(),
            kind: TimelineEventType::RoomMessage,
            content,
            txn_id: txn_id(dice).into(),
        };
        let event_id = send::message(hs, &session(user), new).await?;
        self.promise(user, room_id, event_id);
        Ok(())
    }

    async fn set_state(
        &self,
        hs: &Homeserver,
        (user, room_id): (&OwnedUserId, &OwnedRoomId),
        dice: &Dice,
    ) -> Result<(), Refused> {
        let text = format!("text {}", dice.below(1_000_000));
        // Few keys, so that people set the same ones.
        let (kind, state_key, content) = match dice.below(3) {
            0 => (StateEventType::RoomTopic, String::new(), json!({ "topic": text })),
            1 => (StateEventType::RoomName, String::new(), json!({ "name": text })),
            _ => ("org.example.note".into(), String::new(), json!({ "note": text })),
        };
        self.put_state(hs, user, (room_id, kind, state_key, content)).await
    }

    async fn set_power(
        &self,
        hs: &Homeserver,
        (user, room_id): (&OwnedUserId, &OwnedRoomId),
        dice: &Dice,
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
            let level = dice.pick(&[0, 50, 100]).unwrap_or_default();
            users.insert(self.anybody(dice).to_string(), level.into());
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
        (user, room_id): (&OwnedUserId, &OwnedRoomId),
        dice: &Dice,
    ) -> Result<(), Refused> {
        let said: Vec<OwnedEventId> = {
            let ledger = self.ledger.borrow();
            ledger.of_room(room_id).map(|promise| promise.event_id.clone()).collect()
        };
        let target = dice.pick(&said).ok_or(Refused::No)?;
        let new = NewRedaction {
            room_id: room_id.clone(),
            target,
            reason: None,
            txn_id: txn_id(dice).into(),
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
}

fn txn_id(dice: &Dice) -> String {
    format!("t{}", dice.any())
}

fn session(user: &OwnedUserId) -> Session {
    Session { user_id: user.clone(), device_id: "DEVICE".into() }
}
