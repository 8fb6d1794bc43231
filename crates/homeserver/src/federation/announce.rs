//! Telling the members of a room what is new: gossip, the fast path. Nothing here is waited for
//! and nothing is repeated: a frame that is lost is repaired by comparing heads (D11). Each is sealed
//! for those who are in the room at that moment (D10).

use std::sync::Arc;

use messagehub_protocol::{
    keys::VerifyKey,
    limits::{MAX_FRAME_BYTES, MAX_PDUS},
    pdu::Pdu,
    server_keys::ServerKeys,
    wire::frame::{Frame, FrameError},
};
use messagehub_store::StoreError;
use ruma::RoomId;
use serde_json::value::RawValue;
use tracing::{debug, warn};

use super::keys;
use crate::{
    Homeserver,
    peers::{Counters, Outbound},
    room_keys::{self, SealError, Written},
};

/// What a frame may carry in events: the rest of [`MAX_FRAME_BYTES`] is for keys and signature.
const EVENTS_BYTES: usize = MAX_FRAME_BYTES / 2;

/// Sends events of a room to its members, after their commit and in this order.
pub async fn announce(hs: &Homeserver, room_id: &RoomId, pdus: &[Arc<Pdu>]) {
    announce_written(hs, (room_id, None), pdus).await;
}

/// The same, where it may be known how they left the room.
pub(crate) async fn announce_written(
    hs: &Homeserver,
    (room_id, written): (&RoomId, Option<Written>),
    pdus: &[Arc<Pdu>],
) {
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
        let content = Content { pdus, edus: Vec::new(), written };
        publish(hs, room_id, content, (key, server_keys)).await;
    }
}

/// Sends an EDU to the members of a room: for what is worth nothing a moment later.
pub async fn announce_edu(hs: &Homeserver, room_id: &RoomId, edu: Box<RawValue>) {
    let (key, own) = hs.identity.signing();
    let content = Content { pdus: Vec::new(), edus: vec![edu], written: None };
    publish(hs, room_id, content, (key, vec![own.json().to_owned()])).await;
}

/// What a frame carries.
struct Content {
    pdus: Vec<Box<RawValue>>,
    edus: Vec<Box<RawValue>>,
    written: Option<Written>,
}

async fn publish(
    hs: &Homeserver,
    room_id: &RoomId,
    content: Content,
    (key, server_keys): (&VerifyKey, Vec<Box<RawValue>>),
) {
    let frame = Frame {
        origin: hs.server_name().to_owned(),
        room_id: room_id.to_owned(),
        origin_server_ts: hs.clock.now(),
        pdus: content.pdus,
        edus: content.edus,
        server_keys,
    };
    let signed = match frame.sign(key) {
        Ok(signed) => signed,
        Err(FrameError::TooLarge) => {
            debug!(%room_id, "a frame does not hold these events");
            return;
        }
        Err(error) => {
            warn!(%room_id, %error, "a frame could not be made");
            return;
        }
    };
    match room_keys::seal(hs, room_id, (&signed, content.written)).await {
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
