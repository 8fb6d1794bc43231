//! Member events: what they say, and keeping them up with a user's profile.

use std::sync::Arc;

use messagehub_protocol::build::NewEvent;
use messagehub_store::{
    Room, Snapshot, StoreError,
    profiles::{self, Profile},
    rooms,
};
use ruma::{
    OwnedRoomId, UserId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};

use crate::{
    Homeserver,
    emit::{Emitted, News, SendError},
    policy::with_signatures,
    view,
};

/// The content of a member event in the making.
#[derive(Debug)]
pub(crate) struct Member(Map<String, Value>);

impl Member {
    /// Of somebody who is this in the room.
    pub(crate) fn new(membership: MembershipState) -> Self {
        Self(Map::new()).with("membership", membership.as_str())
    }

    /// With how the user wants to be seen.
    pub(crate) fn with_profile(mut self, profile: &Profile) -> Self {
        if let Some(name) = &profile.displayname {
            self = self.with("displayname", name.as_str());
        }
        if let Some(avatar) = &profile.avatar_url {
            self = self.with("avatar_url", avatar.as_str());
        }
        self
    }

    /// With a reason for people to read.
    pub(crate) fn with_reason(self, reason: Option<&str>) -> Self {
        match reason {
            Some(reason) => self.with("reason", reason),
            None => self,
        }
    }

    /// With one field more.
    pub(crate) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0.insert(field.to_owned(), value.into());
        self
    }

    /// As JSON.
    pub(crate) fn content(&self) -> Result<Box<RawValue>, SendError> {
        to_raw_value(&self.0).map_err(|error| SendError::BadContent(error.to_string()))
    }

    /// As an event about `target` in a room.
    pub(crate) fn event(
        &self,
        room: &Room,
        sender: &UserId,
        target: &UserId,
    ) -> Result<NewEvent, SendError> {
        Ok(NewEvent {
            room_id: Some(room.room_id.clone()),
            sender: sender.to_owned(),
            kind: TimelineEventType::RoomMember,
            state_key: Some(target.to_string()),
            content: self.content()?,
            redacts: None,
        })
    }
}

/// Brings a user's member event in every room they are in up to their profile. Rooms that do not
/// allow it are left as they are.
///
/// Spec: Client-Server API, "Profiles", "Events on Change of Profile Information".
///
/// # Errors
///
/// The store's.
pub async fn refresh_profile(hs: &Homeserver, user_id: &UserId) -> Result<(), StoreError> {
    let user = user_id.to_owned();
    let joined: Vec<OwnedRoomId> =
        hs.store.read(move |snap| super::read::list_joined(snap, &user)).await?;
    for room_id in joined {
        match refresh_in(hs, user_id, room_id.clone()).await {
            Ok(()) => {}
            Err(SendError::Store(error)) => return Err(error),
            Err(error) => tracing::info!(%room_id, %error, "a profile change is not for this room"),
        }
    }
    Ok(())
}

async fn refresh_in(
    hs: &Homeserver,
    user_id: &UserId,
    room_id: OwnedRoomId,
) -> Result<(), SendError> {
    let wanted = Arc::new((user_id.to_owned(), room_id));
    let news = with_signatures(hs, |emitter| {
        let wanted = Arc::clone(&wanted);
        hs.store.write(move |txn| {
            let (user_id, room_id) = &*wanted;
            let mut room = rooms::find(txn, room_id)?.ok_or(SendError::NotInRoom)?;
            let profile = profiles::get(txn, user_id)?;
            let mut member = current(txn, &room, user_id)?;
            member.0.remove("displayname");
            member.0.remove("avatar_url");
            // It says how somebody came into the room once; a later event must not claim it.
            member.0.remove("join_authorised_via_users_server");
            member.0.remove("reason");
            let event = member.with_profile(&profile).event(&room, user_id, user_id)?;
            match emitter.emit_state(txn, &mut room, event)? {
                Emitted::New(appended) => {
                    let server = emitter.identity.server_name();
                    Ok::<_, SendError>(Some(News::of(txn, room, &[appended], server)?))
                }
                Emitted::Same(_) => Ok(None),
            }
        })
    })
    .await?;
    if let Some(news) = news {
        news.publish(hs).await;
    }
    Ok(())
}

fn current(snap: &Snapshot<'_>, room: &Room, user_id: &UserId) -> Result<Member, SendError> {
    let event = view::state_event(snap, room.state, &StateEventType::RoomMember, user_id.as_str())?;
    let content = event.map(|event| serde_json::from_str(event.content().get()));
    content
        .transpose()
        .map(|content| Member(content.unwrap_or_default()))
        .map_err(|error| SendError::BadContent(error.to_string()))
}

/// Whether an invitation is to talk to one person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A room like any other.
    Room,
    /// A conversation with the invited, `is_direct`.
    Direct,
}
