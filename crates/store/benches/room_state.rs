//! What a room state costs in rooms of several sizes.
//!
//! `cargo bench -p messagehub-store --bench room_state`

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use std::time::{Duration, Instant};

use messagehub_store::{EventNid, Mode, Snapshot, StateNid, Store, StoreError, Txn, room_state};
use ruma::events::StateEventType;

const MEMBER: StateEventType = StateEventType::RoomMember;
/// Other state of an ordinary room.
const OTHERS: usize = 12;
const CHANGES: usize = 2_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    println!(
        "members  built    bytes/event  set µs  get µs  all ms (cold)  all ms  but members µs  diff µs"
    );
    for members in [10, 100, 1_000, 10_000, 100_000] {
        runtime.block_on(run(members, Build::AtOnce));
        runtime.block_on(run(members, Build::OneByOne));
    }
}

#[derive(Clone, Copy, Debug)]
enum Build {
    /// As by joining a room of that size.
    AtOnce,
    /// As by being there from the start.
    OneByOne,
}

async fn run(members: usize, build: Build) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Mode::Threaded).unwrap();
    let root = store.write(move |txn| fill(txn, members, build)).await.unwrap();
    let before = store.read(bytes).await.unwrap();
    let (set, changed) = store.write(move |txn| change(txn, root, members)).await.unwrap();
    let grown = store.read(bytes).await.unwrap() - before;
    drop(store);
    let store = Store::open(dir.path(), Mode::Threaded).unwrap();
    store
        .read(move |snap| {
            let (cold, _) = time(1, || room_state::all(snap, root).unwrap());
            let (warm, _) = time(10, || room_state::all(snap, root).unwrap());
            let mut n = 0;
            let (get, _) = time(CHANGES, || {
                n = (n + 7919) % members;
                room_state::get(snap, root, &MEMBER, &user(n)).unwrap()
            });
            let (others, rest) = time(100, || room_state::all_but_members(snap, root).unwrap());
            assert_eq!(rest.len(), OTHERS);
            let (diff, changes) = time(100, || room_state::diff(snap, root, changed).unwrap());
            assert_eq!(changes.len(), 1);
            println!(
                "{members:7}  {build:8?} {:11}  {:6.1}  {:6.2}  {:13.2}  {:6.2}  {:14.1}  {:7.1}",
                grown / CHANGES as i64,
                micros(set),
                micros(get),
                micros(cold) / 1e3,
                micros(warm) / 1e3,
                micros(others),
                micros(diff),
            );
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}

fn fill(txn: &mut Txn<'_>, members: usize, build: Build) -> Result<StateNid, StoreError> {
    let users: Vec<_> = (0..members).map(user).collect();
    let kinds: Vec<_> =
        (0..OTHERS).map(|n| StateEventType::from(format!("m.room.kind{n}"))).collect();
    let members = users.iter().map(|user| (&MEMBER, user.as_str()));
    let all = kinds.iter().map(|kind| (kind, "")).chain(members);
    let all = all.enumerate().map(|(n, (kind, key))| (kind, key, EventNid(n as i64 + 1)));
    match build {
        Build::AtOnce => {
            let changes = all.map(|(kind, key, event)| (kind, key, Some(event)));
            room_state::apply(txn, room_state::EMPTY, changes)
        }
        Build::OneByOne => {
            let mut all = all;
            all.try_fold(room_state::EMPTY, |root, (kind, key, event)| {
                room_state::set(txn, root, kind, key, event)
            })
        }
    }
}

/// Sets members one after the other. Returns the time for one, and a root with one change.
fn change(
    txn: &mut Txn<'_>,
    root: StateNid,
    members: usize,
) -> Result<(Duration, StateNid), StoreError> {
    let one = room_state::set(txn, root, &MEMBER, &user(0), EventNid(900_000))?;
    let (mut root, mut n) = (root, 0);
    let (each, ()) = time(CHANGES, || {
        n += 1;
        let event = EventNid(1_000_000 + n);
        root =
            room_state::set(txn, root, &MEMBER, &user(n as usize * 7919 % members), event).unwrap();
    });
    Ok((each, one))
}

fn user(n: usize) -> String {
    format!("@user{n}:bahwqcabaaoqqpp7tzyil4hlq3umoos6atft6jvrqtosq2xy53sdgiesvgg4a")
}

fn bytes(snap: &Snapshot<'_>) -> Result<i64, StoreError> {
    let sum = "SELECT coalesce(sum(length(data)), 0) FROM state_nodes";
    Ok(snap.conn().query_row(sum, [], |row| row.get(0))?)
}

/// The mean time of a call, and what the last one returned.
fn time<T>(calls: usize, mut call: impl FnMut() -> T) -> (Duration, T) {
    let started = Instant::now();
    for _ in 1..calls {
        std::hint::black_box(call());
    }
    let last = call();
    (started.elapsed() / calls as u32, last)
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
