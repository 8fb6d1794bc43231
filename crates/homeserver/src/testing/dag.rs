//! Events placed anywhere in a room's graph, as other servers would place them.

use messagehub_protocol::{
    auth,
    build::{self, NewEvent, Place, Signer},
    pdu::SignedPdu,
    receive,
};
use messagehub_store::{Txn, events, rooms};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, UserId, events::TimelineEventType,
};
use serde_json::Value;

use super::{TestServer, content};
use crate::{
    Homeserver,
    append::{self, Appended},
    view::{self, ViewError},
};

/// What an event says, and which events it follows.
#[derive(Debug)]
pub struct Step {
    /// The events it follows.
    pub after: Vec<OwnedEventId>,
    /// Who says it.
    pub sender: ruma::OwnedUserId,
    /// The `type`.
    pub kind: TimelineEventType,
    /// The state key, for state.
    pub state_key: Option<String>,
    /// The content.
    pub content: Value,
    /// What a redaction redacts.
    pub redacts: Option<OwnedEventId>,
}

impl Step {
    /// A state event.
    pub fn state(
        after: &[OwnedEventId],
        sender: &UserId,
        (kind, state_key): (&str, &str),
        content: Value,
    ) -> Self {
        Self {
            after: after.to_vec(),
            sender: sender.to_owned(),
            kind: TimelineEventType::from(kind),
            state_key: Some(state_key.to_owned()),
            content,
            redacts: None,
        }
    }

    /// A message.
    pub fn message(after: &[OwnedEventId], sender: &UserId, body: &str) -> Self {
        Self {
            after: after.to_vec(),
            sender: sender.to_owned(),
            kind: TimelineEventType::RoomMessage,
            state_key: None,
            content: serde_json::json!({ "msgtype": "m.text", "body": body }),
            redacts: None,
        }
    }
}

impl TestServer {
    /// Adds an event of a local user where the step says, judged like one that was received.
    ///
    /// # Panics
    ///
    /// When it cannot be built or stored. How it was judged is in the answer.
    pub async fn place(&self, room_id: &RoomId, step: Step) -> Appended {
        let pdu = self.draft(room_id, step).await;
        self.submit(pdu).await
    }

    /// Makes an event of a local user where the step says, and does not store it.
    ///
    /// # Panics
    ///
    /// When it cannot be built.
    #[expect(clippy::expect_used, reason = "a test whose store fails has failed")]
    pub async fn draft(&self, room_id: &RoomId, step: Step) -> SignedPdu {
        self.clock.advance(1);
        let (hs, room_id) = (self.hs.clone(), room_id.to_owned());
        let drafted = self.hs.store.write(move |txn| draft(&hs, txn, &room_id, step));
        drafted.await.expect("an event with its place")
    }

    /// Judges and stores an event as if it had been received.
    ///
    /// # Panics
    ///
    /// When it cannot be stored.
    #[expect(clippy::expect_used, reason = "a test whose store fails has failed")]
    pub async fn submit(&self, pdu: SignedPdu) -> Appended {
        self.try_submit(pdu).await.expect("an event with its place")
    }

    /// As [`Self::submit`].
    ///
    /// # Errors
    ///
    /// Why it cannot be judged.
    ///
    /// # Panics
    ///
    /// When there is no such room.
    #[expect(clippy::expect_used, reason = "a test without its room has failed")]
    pub async fn try_submit(&self, pdu: SignedPdu) -> Result<Appended, ViewError> {
        let hs = self.hs.clone();
        let submitted = self.hs.store.write(move |txn| {
            let mut room = rooms::find(txn, pdu.pdu().room_id())?.expect("the room");
            let gathered = view::for_event(txn, &room, pdu.pdu())?;
            let judged = receive::check(pdu, &gathered.view);
            append::event(txn, hs.server_name(), &mut room, &judged, gathered.state_before)
        });
        submitted.await
    }

    /// The last event of a room with one head.
    ///
    /// # Panics
    ///
    /// When there are several.
    #[expect(clippy::expect_used, reason = "a test whose room has no head has failed")]
    pub async fn head(&self, room_id: &RoomId) -> OwnedEventId {
        let heads = self.heads(room_id).await;
        assert_eq!(heads.len(), 1, "the room has branches");
        heads.into_iter().next().expect("one head")
    }

    /// The forward extremities of a room.
    ///
    /// # Panics
    ///
    /// When there is no such room.
    #[expect(clippy::expect_used, reason = "a test without its room has failed")]
    pub async fn heads(&self, room_id: &RoomId) -> Vec<OwnedEventId> {
        let room_id = room_id.to_owned();
        self.read(move |snap| {
            let room = rooms::find(snap, &room_id)?.expect("the room");
            let heads = messagehub_store::extremities::list(snap, room.nid)?;
            heads.into_iter().map(|nid| events::id(snap, nid)).collect()
        })
        .await
    }
}

fn draft(
    hs: &Homeserver,
    txn: &mut Txn<'_>,
    room_id: &RoomId,
    step: Step,
) -> Result<SignedPdu, ViewError> {
    let signer = Signer { server: hs.server_name(), key: hs.identity.verify_key() };
    signed(txn, room_id, step, (signer, hs.clock.now()))
}

/// An event of anybody's server where the step says; it is not stored.
#[expect(clippy::expect_used, reason = "a test whose event cannot be built has failed")]
pub(super) fn signed(
    txn: &mut Txn<'_>,
    room_id: &RoomId,
    step: Step,
    (signer, now): (Signer<'_>, MilliSecondsSinceUnixEpoch),
) -> Result<SignedPdu, ViewError> {
    let room = rooms::find(txn, room_id)?.expect("the room");
    let rules = view::rules(&room)?;
    let previous = step.after.iter().map(|id| stored(txn, id)).collect::<Result<Vec<_>, _>>()?;
    let roots = previous.iter().filter_map(|event| event.state_after).collect();
    let state_before = view::merge(txn, &room, roots)?;
    let content = content(&step.content);
    let types =
        auth::auth_types(&step.kind, &step.sender, step.state_key.as_deref(), &content, rules)
            .expect("a well-formed event");
    let state = view::part(txn, state_before, &types)?;
    let place = Place {
        prev_events: previous.into_iter().map(|event| event.pdu).collect(),
        auth_events: auth::select(&types, &state),
    };
    let new = NewEvent {
        room_id: Some(room.room_id.clone()),
        sender: step.sender,
        kind: step.kind,
        state_key: step.state_key,
        content,
        redacts: step.redacts,
    };
    Ok(build::event(new, &place, now, signer, rules).expect("an event"))
}

fn stored(txn: &Txn<'_>, id: &EventId) -> Result<events::StoredEvent, ViewError> {
    events::find(txn, id)?.ok_or_else(|| ViewError::Missing(vec![id.to_owned()]))
}
