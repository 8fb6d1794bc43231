//! What a node does by itself: takes in frames, compares heads, fills gaps, delivers the outbox,
//! renews its keys.
//!
//! One future, which the node spawns and which spawns nothing. Each job exists at most once at a
//! time and knows nothing that is not in the store, so a job that fails is only forgotten until
//! the next sign of life.

mod agenda;
mod start;

use std::time::Duration;

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use messagehub_store::{
    StoreError, memberships, outbox as outbox_rows, peer_book, pending, txn_ids,
};
use ruma::OwnedRoomId;
use tokio::{
    sync::{mpsc, oneshot},
    time::MissedTickBehavior,
};

use crate::{
    Homeserver,
    clock::timestamp,
    federation::{keys, route},
    gap, heads, history, ingest, outbox,
    peers::{Acceptance, Inbound},
    remote_join,
};
use agenda::{Agenda, Job};

/// How often heads are compared with every co-member that is connected (D11).
const HEADS_INTERVAL: Duration = Duration::from_secs(60);

/// Frames being taken in at once. The store is what they wait for; more would wait longer, and
/// gossip forgets a frame after some seconds.
const MAX_FRAMES: usize = 128;

/// History fetched without being asked, in batches of 100 events: what somebody who has just
/// joined scrolls through.
const EAGER_BATCHES: usize = 5;

/// How long a repeated request gets the event of the first: Synapse keeps a day, and a client that
/// was off for longer asks what happened before it sends again.
const TXN_IDS_KEPT_MS: u64 = 24 * HOUR_MS;

const HOUR_MS: u64 = 60 * 60 * 1_000;

/// Transaction ids forgotten in an hour: more than people make, and a short transaction.
const MAX_FORGOTTEN: usize = 50_000;

/// Runs until the transport is gone: until `inbound` closes. Dropping the future stops everything
/// it was doing; nothing that was committed is lost.
pub async fn run(hs: Homeserver, mut inbound: mpsc::Receiver<Inbound>) {
    start::tell_transport(&hs).await;
    let mut agenda = Agenda::new(hs.clone());
    let mut frames: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
    let mut ticks = tokio::time::interval(HEADS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // In this order, so that a run repeats from its seed.
        tokio::select! {
            biased;
            Some(()) = frames.next(), if !frames.is_empty() => {}
            () = agenda.advance() => {}
            () = hs.peers.woken() => look_around(&hs, &mut agenda).await,
            _ = ticks.tick() => tick(&hs, &mut agenda).await,
            report = inbound.recv(), if frames.len() < MAX_FRAMES => match report {
                Some(Inbound::Frame { room_id, frame, reply, .. }) => {
                    frames.push(Box::pin(take(hs.clone(), room_id, frame, reply)));
                }
                Some(report) => note(&hs, &mut agenda, report).await,
                None => return,
            },
        }
    }
}

async fn take(
    hs: Homeserver,
    room_id: OwnedRoomId,
    frame: bytes::Bytes,
    reply: oneshot::Sender<Acceptance>,
) {
    let acceptance = ingest::frame(&hs, room_id, frame).await;
    if reply.send(acceptance).is_err() {
        tracing::debug!("the transport did not wait for the verdict on a frame");
    }
}

/// A sign of life: what there is to do with that server, or in that room.
async fn note(hs: &Homeserver, agenda: &mut Agenda, report: Inbound) {
    match report {
        Inbound::Connected { server_keys, peer_id, addresses } => {
            let server = server_keys.server_name().to_owned();
            hs.peers.note_connected(&server, &peer_id);
            let now = hs.clock.now();
            let known = server.clone();
            let remembered =
                hs.store.write(move |txn| peer_book::remember(txn, &known, &addresses, now));
            warn_of(remembered.await);
            warn_of(keys::remember(hs, vec![server_keys]).await);
            agenda.add(Job::Heads(server.clone()));
            agenda.add(Job::Outbox(server));
            look_for_gaps(hs, agenda).await;
        }
        Inbound::Disconnected { server } => hs.peers.note_disconnected(&server),
        // One digest tells whether it is worth a look at any room, however many it subscribes to.
        Inbound::Subscribed { server: Some(server), .. } => agenda.add(Job::Heads(server)),
        // Who it is will be known when it is connected, and then everything is compared.
        Inbound::Subscribed { server: None, .. } => {}
        Inbound::Frame { .. } => {}
    }
}

/// Once a minute: whatever signs of life did not bring about.
async fn tick(hs: &Homeserver, agenda: &mut Agenda) {
    renew_keys(hs).await;
    forget_txn_ids(hs).await;
    agenda.add(Job::LostJoins);
    agenda.forget_attempts();
    let us = hs.server_name().to_owned();
    let co_members =
        hs.store.read(move |snap| memberships::servers_sharing_rooms_with(snap, &us)).await;
    match co_members {
        Ok(co_members) => {
            for server in co_members.into_iter().filter(|server| hs.peers.is_connected(server)) {
                agenda.add(Job::Heads(server));
            }
        }
        Err(error) => tracing::error!(%error, "co-members could not be read"),
    }
    look_around(hs, agenda).await;
}

/// What others of this node left to do: entries in the outbox, gaps, rooms that are behind.
async fn look_around(hs: &Homeserver, agenda: &mut Agenda) {
    match hs.store.read(outbox_rows::destinations).await {
        Ok(destinations) => {
            for (to, newest) in destinations {
                // Whoever is not there is tried once for each new entry, and once a minute.
                if agenda.is_newer(&to, newest) || hs.peers.is_connected(&to) {
                    agenda.add(Job::Outbox(to));
                }
            }
        }
        Err(error) => tracing::error!(%error, "the outbox could not be read"),
    }
    look_for_gaps(hs, agenda).await;
    for room_id in hs.peers.take_history() {
        agenda.add(Job::History(room_id));
    }
    for room_id in hs.peers.take_behind() {
        match route::members(hs, &room_id, None).await {
            Ok(members) => {
                let near = members.into_iter().filter(|server| hs.peers.is_connected(server));
                near.for_each(|server| agenda.add(Job::RoomHeads(server, room_id.clone())));
            }
            Err(error) => tracing::error!(%error, "the members of a room could not be read"),
        }
    }
}

async fn look_for_gaps(hs: &Homeserver, agenda: &mut Agenda) {
    match hs.store.read(pending::list_rooms).await {
        Ok(rooms) => rooms.into_iter().for_each(|room_id| agenda.add(Job::Gap(room_id))),
        Err(error) => tracing::error!(%error, "the parked events could not be read"),
    }
}

/// Once an hour, since it reads the whole table: forgets transaction ids that no client repeats any
/// more.
async fn forget_txn_ids(hs: &Homeserver) {
    if Duration::from_millis(hs.clock.now_ms() % HOUR_MS) >= HEADS_INTERVAL {
        return;
    }
    let before = timestamp(hs.clock.now_ms().saturating_sub(TXN_IDS_KEPT_MS));
    let forgotten = hs.store.write(move |txn| txn_ids::remove_before(txn, before, MAX_FORGOTTEN));
    warn_of(forgotten.await.map(drop));
}

async fn renew_keys(hs: &Homeserver) {
    if let Some(renewed) = hs.identity.renew(hs.clock.now()) {
        tracing::info!("server_keys were renewed");
        warn_of(start::keep_own(hs, renewed).await);
    }
}

/// Does one job.
async fn perform(hs: Homeserver, job: &Job) {
    let outcome: Result<(), StoreError> = match job {
        Job::Heads(server) => quiet(heads::compare(&hs, server).await),
        Job::RoomHeads(server, room_id) => quiet(heads::compare_room(&hs, server, room_id).await),
        Job::Gap(room_id) => gap::fill(&hs, room_id, None).await.map(drop),
        Job::Outbox(server) => outbox::deliver(&hs, server).await.map(drop),
        Job::LostJoins => remote_join::finish_lost(&hs).await,
        Job::History(room_id) => fetch_history(&hs, room_id).await,
    };
    warn_of(outcome);
}

async fn fetch_history(hs: &Homeserver, room_id: &OwnedRoomId) -> Result<(), StoreError> {
    for _ in 0..EAGER_BATCHES {
        if history::more(hs, room_id).await? != history::Progress::More {
            break;
        }
    }
    Ok(())
}

/// A server that does not answer is everyday; a database that does not is not.
fn quiet(outcome: Result<(), heads::HeadsError>) -> Result<(), StoreError> {
    match outcome {
        Ok(()) => Ok(()),
        Err(heads::HeadsError::Store(error)) => Err(error),
        Err(heads::HeadsError::Federation(error)) => {
            tracing::debug!(%error, "heads were not compared");
            Ok(())
        }
    }
}

fn warn_of(outcome: Result<(), StoreError>) {
    if let Err(error) = outcome {
        tracing::error!(%error, "the store failed in the background");
    }
}
