//! Whom the transport keeps near, and whom we try to reach although there is no connection.

use std::collections::BTreeSet;

use messagehub_store::{StoreError, memberships, outbox, rooms};
use ruma::OwnedServerName;

use crate::{Homeserver, peers::Outbound};

/// Servers without a connection that are tried in one minute, for rooms of which no member is
/// connected. Each costs a look for a path, and a few requests through others.
const MAX_TRIED: usize = 16;

/// Members of one such room that are tried in one minute: one would do.
const MAX_OF_ROOM: usize = 2;

/// Tells the transport who shares a room with us, or waits for something of ours, if that changed
/// since the last time.
pub(super) async fn tell_trusted(
    hs: &Homeserver,
    told: &mut BTreeSet<OwnedServerName>,
) -> Result<(), StoreError> {
    let us = hs.server_name().to_owned();
    let trusted = hs
        .store
        .read(move |snap| {
            let members = memberships::servers_sharing_rooms_with(snap, &us)?;
            // Whom we invited is a contact; who invites us may be anybody.
            let contacts = outbox::destinations(snap)?.into_iter().map(|(server, _)| server);
            let mut trusted: BTreeSet<_> = members.into_iter().chain(contacts).collect();
            trusted.remove(&us);
            Ok::<_, StoreError>(trusted)
        })
        .await?;
    if trusted != *told {
        hs.peers.forget_told();
        // If it is lost now, it is told again in a minute.
        if hs.peers.offer(Outbound::Trusted { servers: trusted.clone() }) {
            *told = trusted;
        }
    }
    Ok(())
}

/// Members to try although they are not connected: of rooms of which no other member is. With the
/// others we come level through those who are. `turn` changes who is tried first.
pub(super) async fn lonely(
    hs: &Homeserver,
    turn: usize,
) -> Result<BTreeSet<OwnedServerName>, StoreError> {
    let (us, now_ms, peers) = (hs.server_name().to_owned(), hs.clock.now_ms(), hs.peers.clone());
    let near: BTreeSet<_> = peers.connected().into_iter().collect();
    let mut due = hs
        .store
        .read(move |snap| {
            let members = memberships::servers_sharing_rooms_with(snap, &us)?;
            let far = |server: &OwnedServerName| {
                !near.contains(server) && peers.retries().is_due(server, 0, now_ms)
            };
            if !members.iter().any(far) {
                return Ok(Vec::new());
            }
            let mut due = Vec::new();
            for room in rooms::list(snap)? {
                let mut servers = memberships::servers_in(snap, room.nid)?;
                let is_ours = servers.contains(&us);
                servers.retain(|server| *server != us);
                if !is_ours || servers.iter().any(|server| near.contains(server)) {
                    continue;
                }
                servers.retain(far);
                if !servers.is_empty() {
                    let first = turn % servers.len();
                    servers.rotate_left(first);
                    due.extend(servers.into_iter().take(MAX_OF_ROOM));
                }
            }
            Ok::<_, StoreError>(due)
        })
        .await?;
    if !due.is_empty() {
        let first = turn.wrapping_mul(MAX_TRIED) % due.len();
        due.rotate_left(first);
    }
    Ok(due.into_iter().take(MAX_TRIED).collect())
}
