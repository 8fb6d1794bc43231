//! How many events a second the store makes durable, by writers and by one.
//!
//! Each write does what sending a message does, but for building and judging the event,
//! which are measured in the protocol crate: look for the transaction id, read room,
//! extremities and auth state, append, move the extremities, note the transaction id.
//!
//! `cargo bench -p messagehub-store --bench append`

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use messagehub_protocol::receive::Judged;
use messagehub_store::{
    Mode, Room, Store, StoreError, Txn, rooms,
    txn_ids::{self, TxnKey},
};
use ruma::{DeviceId, OwnedUserId, TransactionId};
use tokio::task::JoinSet;

#[path = "../tests/it/support.rs"]
#[expect(dead_code, reason = "shared with the tests")]
mod events;

use events::{Gathered, Server, at, gather, message};

/// In all, so that every run writes the same amount.
const EVENTS: usize = 24_000;

/// About what a short message has in real rooms.
const BODY: &str = "The quick brown fox jumps over the lazy dog, and then it rests for a while.";

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    println!("writers   events/s   µs CPU/event   p50 ms   p99 ms   events/commit   bytes/event");
    for writers in [1, 2, 4, 8, 32] {
        runtime.block_on(run(writers));
    }
}

async fn run(writers: usize) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Mode::Threaded).unwrap();
    let mut chains = Vec::new();
    for n in 0..writers {
        chains.push(prepare(&store, n, EVENTS / writers).await);
    }
    let (started, cpu) = (Instant::now(), cpu_time());
    let mut tasks = JoinSet::new();
    for (user, room, events) in chains {
        tasks.spawn(send_all(store.clone(), user, room, events));
    }
    let mut latencies: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    let (elapsed, cpu) = (started.elapsed(), cpu_time() - cpu);
    latencies.sort_unstable();
    let count = latencies.len() as u32;
    let size = |name: &str| dir.path().join(name).metadata().map_or(0, |file| file.len());
    println!(
        "{writers:7} {:10.0} {:14.1} {:8.2} {:8.2} {:15.1} {:13}",
        f64::from(count) / elapsed.as_secs_f64(),
        (cpu / count).as_secs_f64() * 1e6,
        latencies[latencies.len() / 2].as_secs_f64() * 1e3,
        latencies[latencies.len() * 99 / 100].as_secs_f64() * 1e3,
        f64::from(count) / store.counts().commits as f64,
        size("messagehub.db") / u64::from(count),
    );
}

async fn send_all(
    store: Store,
    user: OwnedUserId,
    room: Room,
    events: Vec<Arc<Judged>>,
) -> Vec<Duration> {
    let mut latencies = Vec::with_capacity(events.len());
    for (n, judged) in events.into_iter().enumerate() {
        let (user, room_id, started) = (user.clone(), room.room_id.clone(), Instant::now());
        store
            .write(move |txn| {
                let txn_id = n.to_string();
                let key = TxnKey {
                    user_id: &user,
                    device_id: <&DeviceId>::from("DEVICE"),
                    scope: room_id.as_str(),
                    txn_id: <&TransactionId>::from(txn_id.as_str()),
                };
                if txn_ids::find(txn, key, at(1))?.is_some() {
                    return Err(StoreError::Closed);
                }
                let mut room = rooms::find(txn, &room_id)?.ok_or(StoreError::Closed)?;
                std::hint::black_box(gather(txn, &room, &message(&user, BODY))?);
                let appended = events::apply(txn, &mut room, &judged)?;
                txn_ids::set(txn, key, appended.nid)
            })
            .await
            .unwrap();
        latencies.push(started.elapsed());
    }
    latencies
}

/// A room of its own for each writer, and a chain of messages for it, built beforehand.
async fn prepare(store: &Store, n: usize, count: usize) -> (OwnedUserId, Room, Vec<Arc<Judged>>) {
    let server = Server::new(1);
    let user = server.user(&format!("user{n}"));
    let (creator, writer) = (user.clone(), server.clone());
    let (room, mut gathered): (Room, Gathered) = store
        .write(move |txn: &mut Txn<'_>| {
            let room = writer.create_room(txn, &creator)?;
            let gathered = gather(txn, &room, &message(&creator, BODY))?;
            Ok::<_, StoreError>((room, gathered))
        })
        .await
        .unwrap();
    let mut events = Vec::with_capacity(count);
    for _ in 0..count {
        let judged = server.decide(&room, message(&user, BODY), gathered.clone());
        gathered.prev_events = vec![Arc::clone(judged.pdu())];
        events.push(Arc::new(judged));
    }
    (user, room, events)
}

/// The processor time this process has used, from the kernel's count of hundredths of a second.
fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in the second field may hold spaces; it ends with the last parenthesis.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
