//! A room of many members, made in the database without a network.

use std::sync::Arc;

use messagehub_protocol::{
    build::Signer,
    keys::{IdentityKey, VerifyKey},
    receive,
    server_keys::{ServerKeys, ServerKeysTerms},
};
use messagehub_store::{Store, StoreError, extremities, rooms, server_keys};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, ServerName, UserId};
use serde_json::json;

use super::dag::{self, Step};
use crate::{
    append,
    view::{self, ViewError},
};

/// Members that join in one transaction.
const BATCH: usize = 500;

/// Lets `members` users of `servers` servers join a public room, one after the other, as if all
/// of it had been received: the servers exist by their keys and signatures only. `us` is the
/// server whose database it is.
///
/// # Errors
/// Fails when the database does, or an event cannot be placed.
///
/// # Panics
/// When there is no such room, when `servers` is zero, or when the room does not let them in.
#[expect(clippy::expect_used, reason = "a test without its room has failed")]
pub async fn join(
    store: &Store,
    us: &ServerName,
    room_id: &RoomId,
    (members, servers): (usize, usize),
    now: MilliSecondsSinceUnixEpoch,
) -> Result<(), ViewError> {
    let keys: Arc<Vec<_>> = Arc::new((0..servers).map(|number| keys_of(number, now)).collect());
    let known = Arc::clone(&keys);
    store
        .write(move |txn| {
            known
                .iter()
                .try_for_each(|(keys, _)| server_keys::put_if_newer(txn, keys).map(drop))?;
            Ok::<_, StoreError>(())
        })
        .await?;
    for first in (0..members).step_by(BATCH) {
        let (us, room_id, keys) = (us.to_owned(), room_id.to_owned(), Arc::clone(&keys));
        let batch = first..members.min(first + BATCH);
        store
            .write(move |txn| {
                let mut room = rooms::find(txn, &room_id)?.expect("the room");
                let heads = extremities::list(txn, room.nid)?;
                let heads = heads.into_iter().map(|nid| messagehub_store::events::id(txn, nid));
                let mut after = heads.collect::<Result<Vec<OwnedEventId>, _>>()?;
                for number in batch {
                    let (server, key) = &keys[number % keys.len()];
                    let server = server.server_name();
                    let user = UserId::parse(format!("@member{number}:{server}")).expect("a user");
                    let content = json!({
                        "membership": "join", "displayname": format!("Member {number}"),
                    });
                    let step =
                        Step::state(&after, &user, ("m.room.member", user.as_str()), content);
                    let signed = dag::signed(txn, &room_id, step, (Signer { server, key }, now))?;
                    let gathered = view::for_event(txn, &room, signed.pdu())?;
                    let judged = receive::check(signed, &gathered.view);
                    let before = gathered.state_before;
                    let placed = append::event(txn, &us, &mut room, &judged, before)?;
                    assert!(!placed.members.is_empty(), "the room lets nobody in");
                    after = vec![placed.pdu.event_id().to_owned()];
                }
                Ok::<_, ViewError>(())
            })
            .await?;
    }
    Ok(())
}

/// The keys of a server that is nowhere.
fn keys_of(number: usize, now: MilliSecondsSinceUnixEpoch) -> (ServerKeys, VerifyKey) {
    let mut seed = [0xcd; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    let identity = IdentityKey::from_seed(&seed);
    seed[31] = 0;
    let key = VerifyKey::from_seed(&seed);
    let terms =
        ServerKeysTerms { old_verify_keys: Vec::new(), peer_ids: Vec::new(), issued_ts: now };
    (ServerKeys::make(&identity, &key, terms), key)
}
