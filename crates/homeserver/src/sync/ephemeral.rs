//! Typing notices and receipts as clients get them.

use std::collections::BTreeMap;

use messagehub_store::{
    Room, StoreError, StreamPos,
    receipts::{self, Kind, Receipt},
    typing,
};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedUserId, UserId,
    events::{AnySyncEphemeralRoomEvent, receipt::ReceiptThread},
    serde::Raw,
};
use serde::Serialize;
use serde_json::value::to_raw_value;

use super::{Context, filter};

/// The ephemeral events of a room that came after `after`.
pub(super) fn events(
    cx: &Context<'_>,
    room: &Room,
    after: StreamPos,
) -> Result<Vec<Raw<AnySyncEphemeralRoomEvent>>, StoreError> {
    let wanted = &cx.wanted.filter.room.ephemeral;
    let mut events = Vec::new();
    if !filter::part_passes(wanted, &room.room_id) {
        return Ok(events);
    }
    if filter::kind_passes_in_room(wanted, "m.typing")
        && typing::changed_at(cx.snap, room.nid)? > after
    {
        let mut user_ids = typing::list(cx.snap, room.nid)?;
        user_ids.retain(|user_id| !cx.ignored.contain(user_id));
        if after > StreamPos::ZERO || !user_ids.is_empty() {
            events.extend(event("m.typing", &Typing { user_ids })?);
        }
    }
    if filter::kind_passes_in_room(wanted, "m.receipt") {
        let mut found = receipts::list_between(cx.snap, room.nid, after, cx.until)?;
        found.retain(|receipt| {
            is_visible(receipt, &cx.wanted.user_id) && !cx.ignored.contain(&receipt.user_id)
        });
        if !found.is_empty() {
            events.extend(event("m.receipt", &by_event(&found))?);
        }
    }
    Ok(events)
}

fn is_visible(receipt: &Receipt, user_id: &UserId) -> bool {
    receipt.kind == Kind::Public || receipt.user_id == user_id
}

#[derive(Serialize)]
struct Typing {
    user_ids: Vec<OwnedUserId>,
}

/// The content of `m.receipt`: event, kind, user.
type Receipts<'a> = BTreeMap<&'a EventId, BTreeMap<&'static str, BTreeMap<&'a UserId, Data<'a>>>>;

#[derive(Serialize)]
struct Data<'a> {
    ts: MilliSecondsSinceUnixEpoch,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_id: Option<&'a str>,
}

/// Receipts as the content of `m.receipt`. It has room for one receipt of a user on an event;
/// the one for the whole room says more than one for a thread.
///
/// Spec: Client-Server API, "Receipts".
fn by_event(receipts: &[Receipt]) -> Receipts<'_> {
    let mut content = Receipts::new();
    for receipt in receipts {
        let users =
            content.entry(&receipt.event_id).or_default().entry(receipt.kind.as_str()).or_default();
        let is_new = !users.contains_key(&*receipt.user_id);
        if is_new || receipt.thread == ReceiptThread::Unthreaded {
            let data = Data { ts: receipt.ts, thread_id: receipt.thread.as_str() };
            users.insert(&receipt.user_id, data);
        }
    }
    content
}

fn event(
    kind: &'static str,
    content: &impl Serialize,
) -> Result<Option<Raw<AnySyncEphemeralRoomEvent>>, StoreError> {
    #[derive(Serialize)]
    struct Event<'a, C> {
        #[serde(rename = "type")]
        kind: &'static str,
        content: &'a C,
    }
    // Strings and integers always become JSON.
    Ok(to_raw_value(&Event { kind, content }).ok().map(Raw::from_json))
}
