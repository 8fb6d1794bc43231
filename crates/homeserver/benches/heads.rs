//! What a comparison of heads costs the one who answers, by the number of shared rooms.
//! `cargo bench -p messagehub-homeserver --features test-support --bench heads`
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(clippy::expect_used, reason = "a benchmark that fails has no figures")]

use std::time::{Duration, Instant};

use messagehub_homeserver::{
    Homeserver,
    send::{self, NewMessage},
    server::heads,
    sessions::Session,
    testing::{TestServer, content},
};
use messagehub_protocol::{
    keys::IdentityKey,
    wire::heads::{HeadsDigest, HeadsRequest, HeadsResponse},
};
use messagehub_store::{
    StoreError,
    memberships::{self, NewMembership},
    rooms,
};
use ruma::{OwnedRoomId, OwnedServerName, UserId, events::room::member::MembershipState};
use serde_json::json;

/// Comparisons that are measured.
const TIMES: u32 = 20;

fn main() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for rooms in [100, 1_000, 5_000] {
        runtime.block_on(measure(rooms));
    }
}

async fn measure(count: usize) {
    let mut server = TestServer::new(1);
    let friend = IdentityKey::from_seed(&[9; 32]).server_name().to_owned();
    let alice = server.user("alice").await;
    let mut ids = Vec::with_capacity(count);
    for _ in 0..count {
        ids.push(server.room(&alice, None).await);
        server.clock.advance(1_000);
        while server.outbound.try_recv().is_ok() {}
    }
    share(&server.hs, &friend).await;

    let asked = |digest| HeadsRequest { digest, ..HeadsRequest::default() };
    let strange = messagehub_protocol::wire::heads::total_digest([]);
    let first = Instant::now();
    let told = compare(&server.hs, &friend, asked(Some(strange))).await;
    let first = first.elapsed();
    let total = told.digest;
    assert!(!told.parts.is_empty() || told.rooms.len() == count);

    let same = average(&server.hs, &friend, total, None).await;
    let changed = average(&server.hs, &friend, total, Some((&alice, &ids))).await;
    println!(
        "{count} rooms: first {first:.1?}, nothing changed {same:.1?}, \
         one room changed {changed:.1?}"
    );
}

/// Makes a user of another server a member of every room.
async fn share(hs: &Homeserver, friend: &OwnedServerName) {
    let bob = UserId::parse(format!("@bob:{friend}")).expect("a user");
    let shared = hs.store.write(move |txn| {
        for room in rooms::list(txn)? {
            let pos = txn.next_pos();
            let membership = &MembershipState::Join;
            let new = NewMembership { membership, event: None, pos, stripped: None };
            memberships::set(txn, room.nid, &bob, new)?;
        }
        Ok::<_, StoreError>(())
    });
    shared.await.expect("the store");
}

async fn compare(hs: &Homeserver, friend: &OwnedServerName, asked: HeadsRequest) -> HeadsResponse {
    heads::compare(hs, friend.clone(), asked).await.expect("the store")
}

async fn average(
    hs: &Homeserver,
    friend: &OwnedServerName,
    total: Option<HeadsDigest>,
    talk: Option<(&Session, &[OwnedRoomId])>,
) -> Duration {
    let mut spent = Duration::ZERO;
    for n in 0..TIMES {
        if let Some((alice, ids)) = talk {
            let message = NewMessage {
                room_id: ids[n as usize % ids.len()].clone(),
                kind: ruma::events::TimelineEventType::RoomMessage,
                content: content(&json!({ "msgtype": "m.text", "body": "hi" })),
                txn_id: n.to_string().into(),
            };
            send::message(hs, alice, message).await.expect("sent");
        }
        let start = Instant::now();
        let asked = HeadsRequest { digest: total, ..HeadsRequest::default() };
        compare(hs, friend, asked).await;
        spent += start.elapsed();
    }
    spent / TIMES
}
