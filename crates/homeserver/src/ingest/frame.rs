//! Gossip frames: from bytes to a verdict on forwarding.

use bytes::Bytes;
use messagehub_protocol::{
    limits::MAX_FRAME_BYTES,
    server_keys::{KeyRing, ServerKeys},
    wire::{
        frame::{self, Frame},
        request::RequestId,
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
    server::access,
    view::ViewError,
};

/// Takes in one frame from the topic of a room.
pub async fn frame(hs: &Homeserver, room_id: OwnedRoomId, bytes: Bytes) -> Acceptance {
    let acceptance = match take(hs, &room_id, bytes).await {
        Ok(acceptance) => acceptance,
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
}

async fn take(
    hs: &Homeserver,
    room_id: &OwnedRoomId,
    bytes: Bytes,
) -> Result<Acceptance, Declined> {
    let now = hs.clock.now();
    let (us, topic) = (hs.server_name().to_owned(), room_id.clone());
    let id = frame::message_id(&frame::topic(room_id), &bytes);
    let id: RequestId = std::array::from_fn(|index| id[index]);
    let mut opened = hs.store.read(move |snap| open(snap, &us, (&topic, &bytes), now)).await?;
    let seen = hs.peers.with_replay_filter(Origins::Members, |seen| {
        seen.check_id(&opened.origin, opened.made_at, id, now)
    });
    if let Err(error) = seen {
        return Err(Declined::Useless(error.to_string()));
    }
    keys::remember(hs, std::mem::take(&mut opened.news)).await?;
    apply(hs, room_id, opened).await
}

/// Everything that needs no transaction: whether its origin is in the room, the frame's form and
/// signature, and the signatures of its events.
fn open(
    snap: &Snapshot<'_>,
    us: &ServerName,
    (topic, bytes): (&RoomId, &[u8]),
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
    let claimed = claimed_origin(bytes);
    if let Some(origin) = &claimed
        && !is_member(snap, &room, origin)?
    {
        return Err(Declined::Stranger(origin.clone()));
    }
    let known = known_keys(snap, claimed.as_ref())?;
    let (frame, ring) = Frame::open_knowing(bytes, now, &known).map_err(|error| {
        if error.is_provable() {
            Declined::Bad(error.to_string())
        } else {
            Declined::Useless(error.to_string())
        }
    })?;
    if frame.room_id != topic {
        return Err(Declined::Bad("the frame is of another room than its topic".to_owned()));
    }
    if claimed.as_ref() != Some(&frame.origin) {
        return Err(Declined::Bad("the frame names two origins".to_owned()));
    }
    let news = news(snap, &ring)?;
    let checked = verify::events(snap, &room, (frame.pdus, &ring))?;
    let edus = edus::for_room(frame.edus, topic);
    Ok(Opened { origin: frame.origin, made_at: frame.origin_server_ts, checked, edus, news })
}

fn is_member(snap: &Snapshot<'_>, room: &Room, server: &ServerName) -> Result<bool, StoreError> {
    Ok(memberships::is_server_in(snap, room.nid, server)?
        && access::is_admitted(snap, room, server)?)
}

/// Whom a frame says it is of. What cannot be read here is refused when the frame is opened.
fn claimed_origin(bytes: &[u8]) -> Option<OwnedServerName> {
    #[derive(Deserialize)]
    struct Peek {
        origin: OwnedServerName,
    }
    let read = || serde_json::from_slice::<Peek>(bytes).ok();
    (bytes.len() <= MAX_FRAME_BYTES).then(read).flatten().map(|peek| peek.origin)
}

/// The keys we hold of a frame's origin, so that they are not verified again.
fn known_keys(
    snap: &Snapshot<'_>,
    origin: Option<&OwnedServerName>,
) -> Result<KeyRing, StoreError> {
    let mut known = KeyRing::new();
    if let Some(origin) = origin
        && let Some(keys) = server_keys::find(snap, origin)?
    {
        known.insert(origin.clone(), keys);
    }
    Ok(known)
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
            edus::apply(txn, &origin, &edus, now)?;
            let admitted = admit(txn, &us, &mut room, (&origin, signed))?;
            Ok::<_, IngestError>((room, admitted))
        });
        let (room, admitted) = write.await.map_err(Declined::Failed)?;
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
