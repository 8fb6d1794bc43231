//! Telling the members of a room what is new: gossip, the fast path. No peer is waited for and
//! nothing is repeated: a frame that is lost is repaired by comparing heads (D11). Each is sealed
//! for those who are in the room at that moment (D10).

use std::sync::Arc;

use messagehub_protocol::{
    keys::VerifyKey,
    limits::{MAX_FRAME_BYTES, MAX_PDUS},
    pdu::Pdu,
    server_keys::ServerKeys,
    wire::frame::{Frame, FrameError},
};
use messagehub_store::{StateNid, StoreError};
use ruma::RoomId;
use serde_json::value::RawValue;
use tracing::{debug, warn};

use super::keys;
use crate::{
    Homeserver,
    peers::{Counters, Outbound},
    room_keys::{self, SealError},
};

/// What a frame may carry in events: the rest of [`MAX_FRAME_BYTES`] is for keys and signature.
const EVENTS_BYTES: usize = MAX_FRAME_BYTES / 2;

/// Sends events of a room to its members, after their commit and in this order.
pub async fn announce(hs: &Homeserver, room_id: &RoomId, pdus: &[Arc<Pdu>]) {
    for chunk in chunks(pdus) {
        let (key, own) = hs.identity.signing();
        let server_keys = match keys_of(hs, chunk, &own).await {
            Ok(server_keys) => server_keys,
            Err(error) => {
                warn!(%error, "no server_keys for a frame");
                return;
            }
        };
        let pdus = chunk.iter().filter_map(|pdu| raw(pdu.json())).collect();
        publish(hs, room_id, Content { pdus, edus: Vec::new() }, (key, server_keys)).await;
    }
}

/// Sends an event of ours to the members of its room without looking who they are: where our key is
/// known to be right for those of `state`, which the room has after the event. Says whether it is.
pub(crate) fn announce_unlooked(
    hs: &Homeserver,
    (room_id, state): (&RoomId, StateNid),
    pdu: &Pdu,
) -> bool {
    let now_ms = hs.clock.now_ms();
    let Some(room_key) = hs.peers.room_keys().for_members_of(room_id, state, now_ms) else {
        return false;
    };
    let (key, own) = hs.identity.signing();
    let content = Content { pdus: raw(pdu.json()).into_iter().collect(), edus: Vec::new() };
    if let Some(frame) = sign(hs, room_id, content, (key, vec![own.json().to_owned()])) {
        offer(hs, room_id, room_key.seal(room_id, hs.rng.bytes(), &frame).map_err(Into::into));
    }
    true
}

/// Sends an EDU to the members of a room: for what is worth nothing a moment later.
pub async fn announce_edu(hs: &Homeserver, room_id: &RoomId, edu: Box<RawValue>) {
    let (key, own) = hs.identity.signing();
    let content = Content { pdus: Vec::new(), edus: vec![edu] };
    publish(hs, room_id, content, (key, vec![own.json().to_owned()])).await;
}

/// What a frame carries.
struct Content {
    pdus: Vec<Box<RawValue>>,
    edus: Vec<Box<RawValue>>,
}

async fn publish(
    hs: &Homeserver,
    room_id: &RoomId,
    content: Content,
    keys: (&VerifyKey, Vec<Box<RawValue>>),
) {
    if let Some(frame) = sign(hs, room_id, content, keys) {
        offer(hs, room_id, room_keys::seal(hs, room_id, &frame).await);
    }
}

fn sign(
    hs: &Homeserver,
    room_id: &RoomId,
    content: Content,
    (key, server_keys): (&VerifyKey, Vec<Box<RawValue>>),
) -> Option<Vec<u8>> {
    let frame = Frame {
        origin: hs.server_name().to_owned(),
        room_id: room_id.to_owned(),
        origin_server_ts: hs.clock.now(),
        pdus: content.pdus,
        edus: content.edus,
        server_keys,
    };
    match frame.sign(key) {
        Ok(signed) => return Some(signed),
        Err(FrameError::TooLarge) => debug!(%room_id, "a frame does not hold these events"),
        Err(error) => warn!(%room_id, %error, "a frame could not be made"),
    }
    None
}

fn offer(hs: &Homeserver, room_id: &RoomId, sealed: Result<Vec<u8>, SealError>) {
    match sealed {
        Ok(sealed) => {
            let command = Outbound::Gossip { room_id: room_id.to_owned(), frame: sealed.into() };
            if !hs.peers.offer(command) {
                Counters::add(&hs.peers.counters().frames_dropped, 1);
            }
        }
        // What was our leaving itself is told to the others by the outbox.
        Err(SealError::UnknownRoom) => debug!(%room_id, "no frame for a room that was left"),
        Err(error) => warn!(%room_id, %error, "a frame could not be sealed"),
    }
}

/// Our own keys, which sign the frame, and those of whoever else signed the events.
async fn keys_of(
    hs: &Homeserver,
    pdus: &[Arc<Pdu>],
    own: &ServerKeys,
) -> Result<Vec<Box<RawValue>>, StoreError> {
    let ours = |pdu: &Arc<Pdu>| hs.identity.is_local(pdu.sender());
    if pdus.iter().all(ours) {
        return Ok(vec![own.json().to_owned()]);
    }
    let (pdus, own) = (pdus.to_vec(), own.clone());
    hs.store
        .read(move |snap| {
            let mut server_keys = keys::for_events(snap, &own, pdus.iter().map(|pdu| &**pdu))?;
            if !server_keys.iter().any(|json| json.get() == own.json().get()) {
                server_keys.push(own.json().to_owned());
            }
            Ok(server_keys)
        })
        .await
}

/// Runs of events that fit one frame.
fn chunks(mut pdus: &[Arc<Pdu>]) -> Vec<&[Arc<Pdu>]> {
    let mut chunks = Vec::new();
    while !pdus.is_empty() {
        let mut bytes = 0;
        let fitting = pdus.iter().take(MAX_PDUS).take_while(|pdu| {
            bytes += pdu.json().len();
            bytes <= EVENTS_BYTES
        });
        let (chunk, rest) = pdus.split_at(fitting.count().max(1));
        chunks.push(chunk);
        pdus = rest;
    }
    chunks
}

fn raw(json: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(json.to_owned()).ok()
}
