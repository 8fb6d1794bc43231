//! A room with many members from the start. It is built once, by the first node, from joins that
//! each member's own key signed; then every member gets a copy of that database, as if it had been
//! there all the time.

use std::rc::Rc;

use messagehub_homeserver::{
    Homeserver, Identity,
    ingest::{self, Parcel},
    rooms::create::{self, NewRoom},
    view::{self, ViewError},
};
use messagehub_protocol::build::{self, NewEvent, Signer};
use messagehub_store::{DATABASE_FILE, rooms, server_keys};
use ruma::{
    OwnedRoomId, OwnedUserId, UserId, api::client::room::create_room::v3::RoomPreset,
    events::TimelineEventType, serde::Raw,
};
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};

use crate::{
    Fault,
    dice::Dice,
    life,
    world::{KnownRoom, World},
};

/// Gives every member of the crowd the database with their room in it.
pub(crate) async fn seat(world: &Rc<World>) -> Result<(), Fault> {
    let members: Vec<usize> = (0..world.script.crowd).collect();
    let [founder, others @ ..] = &members[..] else { return Ok(()) };
    let dir = life::directory(world.script.nodes.len())?;
    let room_id = {
        let seed = Dice::of(("crowd", world.script.seed)).seed();
        let (hs, _nobody) =
            world.nodes[*founder].homeserver(dir.path(), (world.start, seed)).await?;
        let user_id = first_user(world, *founder)?;
        let room_id = found(&hs, &user_id, world).await?;
        for member in others {
            join(world, &hs, (*member, &room_id)).await?;
        }
        room_id
    };
    let database = std::fs::read(dir.path().join(DATABASE_FILE))?;
    for member in &members {
        world.nodes[*member].give_database(&database)?;
    }
    world.rooms.borrow_mut().push(KnownRoom { room_id, is_public: true });
    Ok(())
}

fn first_user(world: &World, node: usize) -> Result<OwnedUserId, Fault> {
    let name = &world.nodes[node].name;
    Ok(UserId::parse(format!("@{}:{name}", life::user_name(0)))?)
}

async fn found(
    hs: &Homeserver,
    user_id: &OwnedUserId,
    world: &World,
) -> Result<OwnedRoomId, Fault> {
    let mut new = NewRoom::new();
    new.preset = Some(RoomPreset::PublicChat);
    new.room_version = world.script.versions.first().cloned();
    // Everybody may do much: there people contradict each other.
    let levels = json!({
        "users_default": 50, "state_default": 0, "kick": 50, "ban": 50, "redact": 50, "invite": 0,
        "events": { "m.room.power_levels": 50 },
    });
    new.power_level_content_override = Some(Raw::from_json(to_raw_value(&levels)?));
    Ok(create::room(hs, user_id, new).await?)
}

/// Lets a member join, by an event of its own.
async fn join(
    world: &World,
    hs: &Homeserver,
    (member, room_id): (usize, &OwnedRoomId),
) -> Result<(), Fault> {
    let node = &world.nodes[member];
    let user_id = first_user(world, member)?;
    let now = node.clock(world.start).now();
    let identity = Identity::new(node.identity_parts(), None, now);
    let keys = identity.server_keys();
    let content = to_raw_value(&json!({ "membership": "join" }))?;
    let new = NewEvent {
        room_id: Some(room_id.clone()),
        sender: user_id.clone(),
        kind: TimelineEventType::RoomMember,
        state_key: Some(user_id.to_string()),
        content,
        redacts: None,
    };
    let wanted = room_id.clone();
    let event = hs
        .store
        .write(move |txn| {
            server_keys::put_if_newer(txn, &keys)?;
            let Some(room) = rooms::find(txn, &wanted)? else { return Ok(None) };
            let Ok(opening) = view::for_sending(txn, &room, &new)? else { return Ok(None) };
            let signer = Signer { server: identity.server_name(), key: identity.verify_key() };
            let event = build::event(new, &opening.place, now, signer, opening.view.rules);
            Ok::<_, ViewError>(event.ok())
        })
        .await?
        .ok_or("a join could not be built")?;
    let pdu = RawValue::from_string(event.pdu().json().to_owned())?;
    let parcel = Parcel { room_id: room_id.clone(), from: node.name.clone(), pdus: vec![pdu] };
    ingest::events(hs, parcel).await?;
    Ok(())
}
