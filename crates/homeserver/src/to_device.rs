//! Messages from device to device: kept until each device has them, and delivered once.
//!
//! Spec: Client-Server API, "Send-to-Device messaging"; Server-Server API, "Send-to-device
//! messaging".

use std::collections::BTreeMap;

use messagehub_store::{
    StoreError, Txn, devices, sharing,
    to_device::{self, Kept, NewMessage},
};
use ruma::{
    DeviceId, OwnedServerName, OwnedTransactionId, OwnedUserId, ServerName, UserId,
    api::federation::transactions::edu::{DirectDeviceContent, DirectDeviceMessages, Edu},
    events::{AnyToDeviceEventContent, ToDeviceEventType},
    serde::Raw,
    to_device::DeviceIdOrAllDevices,
};

use crate::{Homeserver, edus, sessions::Session};

/// Largest content of one message, in bytes: an event may have no more, and an EDU carries it whole.
const MAX_CONTENT_BYTES: usize = 60 * 1024;

/// Messages of one EDU in bytes: with what surrounds them below the 64 KiB that an EDU may have.
const MAX_EDU_BYTES: usize = 62 * 1024;

/// Longest event type, in bytes.
///
/// Spec: Client-Server API, "Size limits".
const MAX_TYPE_BYTES: usize = 255;

/// Characters of the id under which another server gets a message.
const MESSAGE_ID_LENGTH: usize = 24;

/// Why messages were not taken.
#[derive(Debug, thiserror::Error)]
pub enum SendToDeviceError {
    /// One of them, or its type, is larger than an event may be.
    #[error("a message is too large")]
    TooLarge,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Messages of one type from a device.
#[derive(Debug)]
pub struct Sending {
    /// Their type.
    pub kind: ToDeviceEventType,
    /// What the client calls the request; a repeated one does nothing.
    pub txn_id: OwnedTransactionId,
    /// User → device, or all of them → content.
    pub messages: DirectDeviceMessages,
}

/// Keeps messages for local devices, and queues those for devices elsewhere.
///
/// # Errors
/// See [`SendToDeviceError`].
pub async fn send(
    hs: &Homeserver,
    session: &Session,
    sending: Sending,
) -> Result<(), SendToDeviceError> {
    let kind = sending.kind.to_string();
    let contents = sending.messages.values().flat_map(BTreeMap::values);
    let fits =
        |content: &Raw<AnyToDeviceEventContent>| content.json().get().len() <= MAX_CONTENT_BYTES;
    if kind.len() > MAX_TYPE_BYTES || !contents.into_iter().all(fits) {
        return Err(SendToDeviceError::TooLarge);
    }
    let (ours, theirs): (DirectDeviceMessages, DirectDeviceMessages) =
        sending.messages.into_iter().partition(|(user_id, _)| hs.identity.is_local(user_id));
    let edus = edus_for(hs, &session.user_id, (&sending.kind, theirs));
    let (us, now, session) = (hs.server_name().to_owned(), hs.clock.now(), session.clone());
    hs.store
        .write(move |txn| {
            let scope = scope(&session.user_id, &session.device_id);
            if !to_device::note_seen(txn, &scope, &format!("{kind} {}", sending.txn_id))? {
                return Ok(());
            }
            let message = Message { origin: &us, sender: &session.user_id, kind: &kind };
            for (user_id, devices) in &ours {
                deliver(txn, message, (user_id, devices))?;
            }
            for (server, edu) in &edus {
                edus::queue(txn, std::slice::from_ref(server), (None, edu), now)?;
            }
            Ok::<_, StoreError>(())
        })
        .await?;
    hs.peers.wake();
    Ok(())
}

/// Takes the messages that another server brings. Ids that came before are passed over.
///
/// # Errors
/// Fails when the database does.
pub(crate) fn ingest(
    txn: &mut Txn<'_>,
    (us, origin): (&ServerName, &ServerName),
    content: &DirectDeviceContent,
) -> Result<(), StoreError> {
    let kind = content.ev_type.to_string();
    let id = content.message_id.as_str();
    let is_legal = content.sender.server_name() == origin
        && kind.len() <= MAX_TYPE_BYTES
        && id.len() <= MAX_TYPE_BYTES;
    if !is_legal {
        return Ok(());
    }
    let ours = content.messages.iter().filter(|(user_id, _)| user_id.server_name() == us);
    let mut known = Vec::new();
    for (user_id, devices) in ours {
        if sharing::is_user_known_to(txn, user_id, origin)? {
            known.push((&**user_id, devices));
        }
    }
    if known.is_empty() || !to_device::note_seen(txn, origin.as_str(), id)? {
        return Ok(());
    }
    let message = Message { origin, sender: &content.sender, kind: &kind };
    for target in known {
        deliver(txn, message, target)?;
    }
    Ok(())
}

/// What the ids of the messages of a local device are unique in.
pub(crate) fn scope(user_id: &UserId, device_id: &DeviceId) -> String {
    format!("{user_id} {device_id}")
}

#[derive(Clone, Copy)]
struct Message<'a> {
    origin: &'a ServerName,
    sender: &'a UserId,
    kind: &'a str,
}

fn deliver(
    txn: &mut Txn<'_>,
    message: Message<'_>,
    (user_id, targets): (&UserId, &BTreeMap<DeviceIdOrAllDevices, Raw<AnyToDeviceEventContent>>),
) -> Result<(), StoreError> {
    let known: Vec<_> =
        devices::list(txn, user_id)?.into_iter().map(|device| device.device_id).collect();
    for (target, content) in targets {
        let chosen = known.iter().filter(|device_id| match target {
            DeviceIdOrAllDevices::AllDevices => true,
            DeviceIdOrAllDevices::DeviceId(wanted) => wanted == *device_id,
        });
        if content.json().get().len() > MAX_CONTENT_BYTES {
            continue;
        }
        for device_id in chosen {
            let new = NewMessage {
                origin: message.origin,
                sender: message.sender,
                kind: message.kind,
                content: content.json(),
            };
            if to_device::insert(txn, (user_id, device_id), new)? == Kept::Full {
                tracing::warn!(%user_id, %device_id, origin = %message.origin,
                    "too much waits for a device; a message to it is lost");
            }
        }
    }
    Ok(())
}

/// The messages for users of other servers, as EDUs that are each small enough.
fn edus_for(
    hs: &Homeserver,
    sender: &UserId,
    (kind, messages): (&ToDeviceEventType, DirectDeviceMessages),
) -> Vec<(OwnedServerName, Edu)> {
    let mut by_server: BTreeMap<OwnedServerName, Vec<(OwnedUserId, _, _)>> = BTreeMap::new();
    for (user_id, devices) in messages {
        let of_server = by_server.entry(user_id.server_name().to_owned()).or_default();
        of_server.extend(
            devices.into_iter().map(|(device, content)| (user_id.clone(), device, content)),
        );
    }
    let mut edus = Vec::new();
    for (server, messages) in by_server {
        let mut size = 0;
        let mut together = DirectDeviceMessages::new();
        for (user_id, device, content) in messages {
            // With the names and the punctuation around it.
            let cost = content.json().get().len() + user_id.as_str().len() + 300;
            if size + cost > MAX_EDU_BYTES && !together.is_empty() {
                edus.push((server.clone(), edu(hs, sender, kind, std::mem::take(&mut together))));
                size = 0;
            }
            size += cost;
            together.entry(user_id).or_default().insert(device, content);
        }
        if !together.is_empty() {
            edus.push((server, edu(hs, sender, kind, together)));
        }
    }
    edus
}

fn edu(
    hs: &Homeserver,
    sender: &UserId,
    kind: &ToDeviceEventType,
    messages: DirectDeviceMessages,
) -> Edu {
    let id = hs.rng.alphanumeric(MESSAGE_ID_LENGTH).into();
    let mut content = DirectDeviceContent::new(sender.to_owned(), kind.clone(), id);
    content.messages = messages;
    Edu::DirectToDevice(content)
}
