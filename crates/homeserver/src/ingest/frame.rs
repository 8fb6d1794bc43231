//! Gossip frames: from bytes to a verdict on forwarding.

use std::sync::Arc;

use bytes::Bytes;
use messagehub_protocol::{
    server_keys::{KeyRing, ServerKeys},
    wire::{
        frame::{self, Frame},
        request::{RequestError, RequestId},
        sealed::{RoomKey, SealedError, SealedFrame},
    },
};
use messagehub_store::{Room, Snapshot, StoreError, memberships, server_keys};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedServerName, RoomId, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;
use tracing::debug;

use super::{IngestError, Outcome, admit, settle, verify};
use crate::{
    Homeserver, edus,
    federation::keys,
    peers::{Acceptance, Counters, Origins},
    policy, room_keys,
    server::access,
    view::ViewError,
};

/// A sealed frame, as the transport hands it over.
#[derive(Debug)]
pub struct Delivery {
    /// The PeerId of the neighbour that forwarded it.
    pub source: String,
    /// The room whose topic carried it.
    pub room_id: OwnedRoomId,
    /// Its bytes.
    pub bytes: Bytes,
}

/// Takes in one frame from the topic of a room. Where its key is not here it waits while a member is
/// asked.
pub async fn frame(hs: &Homeserver, delivery: Delivery) -> Acceptance {
    let room_id = delivery.room_id.clone();
    let acceptance = match take(hs, delivery).await {
        Ok(acceptance) => acceptance,
        Err(Declined::TooFast) => {
            Counters::add(&hs.peers.counters().frames_limited, 1);
            Acceptance::Ignore
        }
        Err(Declined::Bad(reason)) => {
            debug!(%room_id, reason, "a frame was rejected");
            Acceptance::Reject
        }
        Err(Declined::Useless(reason)) => {
            debug!(%room_id, reason, "a frame was ignored");
            Acceptance::Ignore
        }
        // Heads may tell what the sender is to this room.
        Err(Declined::Stranger(origin)) => {
            debug!(%room_id, %origin, "a frame of a server that is not in the room");
            hs.peers.note_stranger(&room_id, hs.clock.now());
            Acceptance::Ignore
        }
        // Comparing heads brings what is in it, and then the policy server is asked.
        Err(Declined::Unrecommended) => {
            debug!(%room_id, "the policy server has not signed what is in a frame");
            hs.peers.note_behind(&room_id);
            Acceptance::Ignore
        }
        Err(Declined::Failed(error)) => {
            tracing::error!(%room_id, %error, "a frame could not be taken in");
            Acceptance::Ignore
        }
    };
    let counters = hs.peers.counters();
    Counters::add(
        match acceptance {
            Acceptance::Accept => &counters.frames_accepted,
            Acceptance::Ignore => &counters.frames_ignored,
            Acceptance::Reject => &counters.frames_rejected,
        },
        1,
    );
    acceptance
}

/// Why a frame is not taken in.
enum Declined {
    /// Any honest peer could see it.
    Bad(String),
    /// It is of no use to us, which is nobody's fault.
    Useless(String),
    /// Its origin is not in the room, as far as we know.
    Stranger(OwnedServerName),
    /// The room's policy server has not signed an event in it. It may, when it is asked, which takes
    /// longer than gossip waits.
    Unrecommended,
    /// More came than we take: of this neighbour, this author or in this room.
    TooFast,
    /// Our own fault.
    Failed(IngestError),
}

impl From<StoreError> for Declined {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<ViewError> for Declined {
    fn from(error: ViewError) -> Self {
        Self::Failed(error.into())
    }
}

/// A frame whose signatures, and those of its events, are good.
struct Opened {
    origin: OwnedServerName,
    made_at: MilliSecondsSinceUnixEpoch,
    checked: verify::Checked,
    edus: Vec<Box<RawValue>>,
    /// The keys that came with it and are newer than ours.
    news: Vec<ServerKeys>,
    recommendation: Recommendation,
}

/// Whether the room's policy server has signed what is in a frame, where the room uses one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Recommendation {
    Complete,
    Lacking,
}

async fn take(hs: &Homeserver, delivery: Delivery) -> Result<Acceptance, Declined> {
    let Delivery { source, room_id, bytes } = delivery;
    if !hs.peers.with_frame_paces(|paces| paces.take_of_neighbour(&source, hs.clock.now_ms())) {
        return Err(Declined::TooFast);
    }
    let sealed = SealedFrame::parse(&bytes).map_err(of_seal)?;
    let key = room_keys::find_or_ask(hs, &room_id, sealed.key_id(), &source).await?;
    let key = key.ok_or_else(|| Declined::Useless("its key is not here".to_owned()))?;
    if !hs.peers.with_frame_paces(|paces| paces.has(&room_id, &key, hs.clock.now_ms())) {
        return Err(Declined::TooFast);
    }
    let text = sealed.open(&room_id, &key).map_err(of_seal)?;
    let mut opened = verified(hs, &room_id, (key, text)).await?;
    let (author, now_ms) = (&opened.origin, hs.clock.now_ms());
    if !hs.peers.with_frame_paces(|paces| paces.take(&room_id, author, now_ms)) {
        return Err(Declined::TooFast);
    }
    // Whoever brought it: its author made it within the last minutes, so there is a way to them.
    hs.peers.note_alive(&opened.origin);
    keys::remember(hs, std::mem::take(&mut opened.news)).await?;
    if opened.recommendation == Recommendation::Lacking {
        return Err(Declined::Unrecommended);
    }
    apply(hs, &room_id, opened).await
}

fn of_seal(error: SealedError) -> Declined {
    match error.is_provable() {
        true => Declined::Bad(error.to_string()),
        false => Declined::Useless(error.to_string()),
    }
}

/// The frame with its signatures verified, if it did not come before. Any member can seal again
/// what another one signed, so it is the signed text that counts as seen.
async fn verified(
    hs: &Homeserver,
    room_id: &OwnedRoomId,
    (key, text): (Arc<RoomKey>, Vec<u8>),
) -> Result<Opened, Declined> {
    let now = hs.clock.now();
    let id = frame::message_id(&frame::topic(room_id), &text);
    let id: RequestId = std::array::from_fn(|index| id[index]);
    let again = || Declined::Useless("the frame came before".to_owned());
    let peek = Peek::of(&text)?;
    // Whoever sealed it is its origin: the id of a key names its owner, so all who hold it see this.
    if peek.origin != key.owner() {
        return Err(Declined::Bad("sealed with the key of another server".to_owned()));
    }
    if hs.peers.with_replay_filter(Origins::Members, |seen| {
        seen.has_seen(&peek.origin, peek.origin_server_ts, &id)
    }) {
        return Err(again());
    }
    let (us, topic) = (hs.server_name().to_owned(), room_id.clone());
    let opened = hs.store.read(move |snap| open(snap, &us, (&topic, peek, &text), now)).await?;
    let seen = hs.peers.with_replay_filter(Origins::Members, |seen| {
        seen.check_id(&opened.origin, opened.made_at, id, now)
    });
    match seen {
        Ok(()) => Ok(opened),
        Err(RequestError::Replayed) => Err(again()),
        Err(error) => Err(Declined::Useless(error.to_string())),
    }
}

/// What a frame says of itself, before anything of it is verified.
#[derive(Deserialize)]
struct Peek {
    origin: OwnedServerName,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
}

impl Peek {
    /// What can be read in a frame of another version stands in the same place, or it is of no use.
    fn of(text: &[u8]) -> Result<Self, Declined> {
        #[derive(Deserialize)]
        struct Version {
            v: u64,
        }
        serde_json::from_slice::<Self>(text).map_err(|error| {
            match serde_json::from_slice::<Version>(text) {
                Ok(Version { v }) if v != frame::FRAME_VERSION => {
                    Declined::Useless(format!("a frame of version {v}"))
                }
                _ => Declined::Bad(error.to_string()),
            }
        })
    }
}

/// Everything that needs no transaction: whether its origin is in the room, the frame's form and
/// signature, and the signatures of its events.
fn open(
    snap: &Snapshot<'_>,
    us: &ServerName,
    (topic, claimed, text): (&RoomId, Peek, &[u8]),
    now: MilliSecondsSinceUnixEpoch,
) -> Result<Opened, Declined> {
    let room = match verify::room_of_ours(snap, topic, us) {
        Ok(room) => room,
        Err(IngestError::UnknownRoom) => {
            return Err(Declined::Useless("this server is not in the room".to_owned()));
        }
        Err(error) => return Err(Declined::Failed(error)),
    };
    // Before anything is verified: a stranger may send what takes many signatures to check.
    if !is_member(snap, &room, &claimed.origin)? {
        return Err(Declined::Stranger(claimed.origin));
    }
    let known = known_keys(snap, &claimed.origin)?;
    let (frame, ring) = Frame::open_knowing(text, now, &known).map_err(|error| {
        if error.is_provable() {
            Declined::Bad(error.to_string())
        } else {
            Declined::Useless(error.to_string())
        }
    })?;
    if frame.room_id != topic {
        return Err(Declined::Bad("the frame is of another room than its topic".to_owned()));
    }
    if claimed.origin != frame.origin {
        return Err(Declined::Bad("the frame names two origins".to_owned()));
    }
    let news = news(snap, &ring)?;
    let checked = verify::events(snap, &room, (frame.pdus, &ring))?;
    let recommendation = match policy::lacking(snap, &room, &checked.signed)? {
        None => Recommendation::Complete,
        Some(_) => Recommendation::Lacking,
    };
    Ok(Opened {
        origin: frame.origin,
        made_at: frame.origin_server_ts,
        checked,
        edus: edus::for_room(frame.edus, topic),
        news,
        recommendation,
    })
}

fn is_member(snap: &Snapshot<'_>, room: &Room, server: &ServerName) -> Result<bool, StoreError> {
    Ok(memberships::is_server_in(snap, room.nid, server)?
        && access::is_admitted(snap, room, server)?)
}

/// The keys we hold of a frame's origin, so that they are not verified again.
fn known_keys(snap: &Snapshot<'_>, origin: &OwnedServerName) -> Result<KeyRing, StoreError> {
    let keys = server_keys::find(snap, origin)?;
    Ok(keys.map(|keys| (origin.clone(), keys)).into_iter().collect())
}

fn news(snap: &Snapshot<'_>, ring: &KeyRing) -> Result<Vec<ServerKeys>, StoreError> {
    let mut news = Vec::new();
    for (server, keys) in ring {
        let known = server_keys::find(snap, server)?;
        if known.is_none_or(|known| keys.is_newer_than(&known)) {
            news.push(keys.clone());
        }
    }
    Ok(news)
}

async fn apply(
    hs: &Homeserver,
    room_id: &OwnedRoomId,
    opened: Opened,
) -> Result<Acceptance, Declined> {
    let Opened { origin, checked, edus, .. } = opened;
    let verify::Checked { signed, mut outcomes, nameless } = checked;
    let (us, now, wanted) = (hs.server_name().to_owned(), hs.clock.now(), room_id.clone());
    let ephemeral = !edus.is_empty();
    if !signed.is_empty() || ephemeral {
        let write = hs.store.write(move |txn| {
            let mut room = verify::room_of_ours(txn, &wanted, &us)?;
            let after = edus::apply(txn, (&us, &origin), &edus, now)?;
            let admitted = admit(txn, &us, &mut room, (&origin, signed))?;
            Ok::<_, IngestError>((room, admitted, after))
        });
        let (room, admitted, after) = write.await.map_err(Declined::Failed)?;
        after.settle(hs);
        outcomes.extend(settle(hs, &room, admitted));
    }
    let start = if ephemeral { Acceptance::Accept } else { Acceptance::Ignore };
    Ok(acceptance(start, outcomes.values().chain(&nameless)))
}

/// Style section 3.3, point 9, for a frame: one bad event condemns it, one good one carries it.
fn acceptance<'o>(
    mut acceptance: Acceptance,
    outcomes: impl Iterator<Item = &'o Outcome>,
) -> Acceptance {
    for outcome in outcomes {
        match outcome {
            Outcome::Refused(_) => return Acceptance::Reject,
            Outcome::Accepted => acceptance = Acceptance::Accept,
            Outcome::Known
            | Outcome::Parked
            | Outcome::StillParked
            | Outcome::SoftFailed
            | Outcome::Rejected
            | Outcome::Unjudged(_) => {}
        }
    }
    acceptance
}
