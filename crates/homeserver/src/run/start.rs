//! What the transport is told when it starts: whom we know, which rooms we listen to, and under
//! which names we may be found.

use std::collections::BTreeMap;

use bytes::Bytes;
use messagehub_protocol::server_keys::ServerKeys;
use messagehub_store::{Snapshot, StoreError, memberships, peer_book, rooms, server_keys};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedServerName, ServerName};

use crate::{Homeserver, peers::Outbound, records, user_directory};

/// Servers told to the transport at the start: more than it connects to.
const MAX_KNOWN: usize = 4_096;

/// What is remembered.
struct Memory {
    servers: Vec<(ServerKeys, Vec<String>)>,
    rooms: Vec<OwnedRoomId>,
    records: Vec<Bytes>,
}

/// Tells the transport everything it needs to begin with. Waits while its queue is full.
pub(super) async fn tell_transport(hs: &Homeserver) {
    if let Err(error) = keep_own(hs, hs.identity.server_keys()).await {
        tracing::error!(%error, "our own keys could not be kept");
    }
    let (us, now) = (hs.server_name().to_owned(), hs.clock.now());
    match hs.store.read(move |snap| remembered(snap, &us, now)).await {
        Ok(memory) => {
            for room_id in memory.rooms {
                hs.peers.tell(Outbound::Join { room_id }).await;
            }
            for (server_keys, addresses) in memory.servers {
                hs.peers.tell(Outbound::Learn { server_keys, addresses }).await;
            }
            // After the keys, which say whose peers these are.
            if !memory.records.is_empty() {
                hs.peers.tell(Outbound::Records { records: memory.records }).await;
            }
        }
        Err(error) => tracing::error!(%error, "what is known of other servers could not be read"),
    }
    if let Err(error) = user_directory::advertise(hs).await {
        tracing::error!(%error, "the names of this node could not be read");
    }
}

/// Keeps our own keys with those of all others: what others have of us is checked like the rest.
pub(super) async fn keep_own(hs: &Homeserver, own: ServerKeys) -> Result<(), StoreError> {
    hs.store.write(move |txn| server_keys::put_if_newer(txn, &own)).await.map(drop)
}

fn remembered(
    snap: &Snapshot<'_>,
    us: &ServerName,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<Memory, StoreError> {
    let mut rooms_joined = Vec::new();
    for room in rooms::list(snap)? {
        if memberships::is_server_in(snap, room.nid, us)? {
            rooms_joined.push(room.room_id);
        }
    }
    let mut addresses: BTreeMap<OwnedServerName, Vec<String>> =
        peer_book::list(snap)?.into_iter().map(|entry| (entry.server, entry.addresses)).collect();
    let mut wanted = memberships::servers_sharing_rooms_with(snap, us)?;
    wanted.extend(addresses.keys().cloned());
    wanted.extend(server_keys::list_valid_at(snap, now, MAX_KNOWN)?);
    let mut seen = std::collections::BTreeSet::new();
    wanted.retain(|server| server != us && seen.insert(server.clone()));
    wanted.truncate(MAX_KNOWN);
    let mut servers = Vec::with_capacity(wanted.len());
    for server in wanted {
        if let Some(keys) = server_keys::find(snap, &server)? {
            servers.push((keys, addresses.remove(&server).unwrap_or_default()));
        }
    }
    let records = records::remembered(snap, us)?;
    Ok(Memory { servers, rooms: rooms_joined, records })
}
