//! Events of other servers, on their way into a room.
//!
//! `RawPdu → WellFormedPdu → SignedPdu` happens on a reader thread, without a lock; gather, decide
//! and apply in one transaction. What lacks ancestors is parked, and no network is touched here:
//! `gap` asks for what is missing, and what comes back enters here again.

mod admit;
mod frame;
mod pace;
pub(crate) mod verify;

use std::collections::BTreeMap;

use messagehub_protocol::{pdu::PduError, server_keys::KeyRing};
use messagehub_store::{Room, StoreError};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName};
use serde_json::value::RawValue;

use crate::{
    Homeserver,
    append::{self, TopicChange},
    policy,
    view::ViewError,
};

pub(crate) use admit::{Admitted, admit, admit_by_state, release, unpark};
pub use frame::{Delivery, frame};
pub(crate) use pace::FramePaces;

/// Events of one room, and where they came from.
#[derive(Debug)]
pub struct Parcel {
    /// The room that all of them must belong to.
    pub room_id: OwnedRoomId,
    /// The server that gave them; asked first for what they lack.
    pub from: OwnedServerName,
    /// The events, in any order.
    pub pdus: Vec<Box<RawValue>>,
}

/// What became of one event. Style section 3.3, point 9.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// In the room, and shown to clients.
    Accepted,
    /// It was there before.
    Known,
    /// Kept until its ancestors are here.
    Parked,
    /// Kept so before, and its ancestors are not here yet.
    StillParked,
    /// Kept, not shown: the current state does not allow it.
    SoftFailed,
    /// Kept so that it is not asked for again: not allowed where it stands.
    Rejected,
    /// Not kept: any honest server could see that it is bad.
    Refused(String),
    /// Not kept: we lack something to judge it, such as a key of its signer.
    Unjudged(String),
}

/// What became of the events of a parcel that have an id.
pub type Outcomes = BTreeMap<OwnedEventId, Outcome>;

/// Why events could not be taken in at all.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// We are not in that room.
    #[error("this server is not in the room")]
    UnknownRoom,
    /// A view could not be gathered, or the store failed.
    #[error(transparent)]
    View(#[from] ViewError),
}

impl From<StoreError> for IngestError {
    fn from(error: StoreError) -> Self {
        Self::View(error.into())
    }
}

/// Takes events into a room, in whatever order they come, and those that waited for them.
///
/// # Errors
/// The store failed, or the room is none of ours. What is wrong with single events is in the
/// outcomes.
pub async fn events(hs: &Homeserver, parcel: Parcel) -> Result<Outcomes, IngestError> {
    let us = hs.server_name().to_owned();
    let Parcel { room_id, from, pdus } = parcel;
    let (wanted, in_room) = (room_id.clone(), us.clone());
    let (checked, lacking) = hs
        .store
        .read(move |snap| {
            let room = verify::room_of_ours(snap, &wanted, &in_room)?;
            let checked = verify::events(snap, &room, (pdus, &KeyRing::new()))?;
            let lacking = policy::lacking(snap, &room, &checked.signed)?;
            Ok::<_, IngestError>((checked, lacking))
        })
        .await?;
    let verify::Checked { mut signed, mut outcomes, .. } = checked;
    if signed.is_empty() {
        return Ok(outcomes);
    }
    if let Some(lacking) = lacking {
        policy::fill_in(hs, lacking, &mut signed).await;
    }
    let applied = hs
        .store
        .write(move |txn| {
            let mut room = verify::room_of_ours(txn, &room_id, &us)?;
            let admitted = admit(txn, &us, &mut room, (&from, signed))?;
            Ok::<_, IngestError>((room, admitted))
        })
        .await?;
    let (room, admitted) = applied;
    outcomes.extend(settle(hs, &room, admitted));
    Ok(outcomes)
}

/// What follows a commit: topics, and a word to the run loop where something is missing.
pub(crate) fn settle(hs: &Homeserver, room: &Room, admitted: Admitted) -> Outcomes {
    for topic in admitted.topics {
        append::announce_topic(hs, room, Some(topic));
        if topic == TopicChange::Leave {
            tracing::info!(room_id = %room.room_id, "this server is no longer in a room");
        }
    }
    if admitted.outcomes.values().any(|outcome| *outcome == Outcome::Parked) {
        hs.peers.wake();
    }
    admitted.outcomes
}

impl Outcome {
    fn of_fault(error: &PduError) -> Self {
        match error.is_provable() {
            true => Self::Refused(error.to_string()),
            false => Self::Unjudged(error.to_string()),
        }
    }

    /// Whether it changed what we hold: progress, for whoever asked for the event.
    pub(crate) fn is_news(&self) -> bool {
        match self {
            Self::Accepted | Self::Parked | Self::SoftFailed | Self::Rejected => true,
            Self::Known | Self::StillParked | Self::Refused(_) | Self::Unjudged(_) => false,
        }
    }
}
