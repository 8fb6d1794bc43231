//! What a node does by itself: takes in frames, compares heads, fills gaps, delivers the outbox,
//! renews its keys.
//!
//! One future, which the node spawns and which spawns nothing. Each job exists at most once at a
//! time and knows nothing that is not in the store, so a job that fails is only forgotten until
//! the next sign of life.

mod agenda;
mod nearness;
mod start;

use std::{sync::atomic::Ordering, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use messagehub_store::{
    StoreError, device_lists, memberships, outbox as outbox_rows, peer_book, peer_records::Kept,
    pending,
};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId};
use tokio::{
    sync::{mpsc, oneshot},
    time::MissedTickBehavior,
};

use crate::{
    Homeserver, encryption,
    federation::{keys, route},
    gap, heads, history, ingest, outbox,
    peers::{Acceptance, Inbound},
    presence,
    records::{self, Believed},
    remote_join,
};
use agenda::{Agenda, Job};

/// How often heads are compared with every co-member that is connected (D11).
const HEADS_INTERVAL: Duration = Duration::from_secs(60);

/// How often it is looked whether to try again to deliver something: the first pause after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Frames being taken in at once. The store is what they wait for; more would wait longer, and
/// gossip forgets a frame after some seconds.
const MAX_FRAMES: usize = 128;

/// History fetched without being asked, in batches of 100 events: what somebody who has just
/// joined scrolls through.
const EAGER_BATCHES: usize = 5;

/// Device lists looked at for fetching at one time; the next look finds those that are left.
const MAX_STALE: usize = 1_024;

/// Runs until the transport is gone: until `inbound` closes. Dropping the future stops everything
/// it was doing; nothing that was committed is lost.
pub async fn run(hs: Homeserver, mut inbound: mpsc::Receiver<Inbound>) {
    start::tell_transport(&hs).await;
    let mut agenda = Agenda::new(hs.clone());
    warn_of(nearness::tell_trusted(&hs, agenda.trusted()).await);
    let mut frames: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
    let mut ticks = tokio::time::interval(HEADS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut retries = tokio::time::interval(RETRY_INTERVAL);
    retries.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // In this order, so that a run repeats from its seed.
        tokio::select! {
            biased;
            Some(()) = frames.next(), if !frames.is_empty() => {}
            () = agenda.advance() => {}
            () = hs.peers.woken() => look_around(&hs, &mut agenda).await,
            _ = ticks.tick() => tick(&hs, &mut agenda).await,
            _ = retries.tick() => {
                if hs.peers.retries().is_any_delivery_due(hs.clock.now_ms()) {
                    look_around(&hs, &mut agenda).await;
                }
            }
            report = inbound.recv(), if frames.len() < MAX_FRAMES => match report {
                Some(Inbound::Frame { source, room_id, frame, reply }) => {
                    let delivery = ingest::Delivery { source, room_id, bytes: frame };
                    frames.push(Box::pin(take(hs.clone(), delivery, reply)));
                }
                Some(report) => note(&hs, &mut agenda, report).await,
                None => return,
            },
        }
    }
}

async fn take(hs: Homeserver, delivery: ingest::Delivery, reply: oneshot::Sender<Acceptance>) {
    let acceptance = ingest::frame(&hs, delivery).await;
    if reply.send(acceptance).is_err() {
        tracing::debug!("the transport did not wait for the verdict on a frame");
    }
}

/// A sign of life: what there is to do with that server, or in that room.
async fn note(hs: &Homeserver, agenda: &mut Agenda, report: Inbound) {
    match report {
        Inbound::Connected { server_keys, peer_id, addresses } => {
            let server = server_keys.server_name().to_owned();
            if hs.peers.connected().is_empty() {
                // We were alone; whatever could not be reached then may be reached now.
                hs.peers.retries().forgive_all();
                hs.peers.wake();
            }
            hs.peers.note_connected(&server, &peer_id);
            let now = hs.clock.now();
            let known = server.clone();
            let remembered =
                hs.store.write(move |txn| peer_book::remember(txn, &known, &addresses, now));
            warn_of(remembered.await);
            warn_of(keys::remember(hs, vec![server_keys]).await);
            hs.peers.note_alive(&server);
            agenda.add(Job::Heads(server.clone()));
            agenda.add(Job::Outbox(server));
            agenda.add(agenda.lost_joins());
            look_for_users(hs, agenda).await;
            look_for_gaps(hs, agenda).await;
        }
        Inbound::Disconnected { server } => {
            hs.peers.note_disconnected(&server);
            presence::note_gone(hs, &server);
        }
        // One digest tells whether it is worth a look at any room, however many it subscribes to.
        Inbound::PathLost { server } | Inbound::Subscribed { server: Some(server), .. } => {
            agenda.add(Job::Heads(server));
        }
        // Who it is will be known when it is connected, and then everything is compared.
        Inbound::Subscribed { server: None, .. } => {}
        Inbound::Record { server, peer_id, seq, record, .. } => {
            note_record(hs, agenda, Believed { server, peer_id, seq, record }).await;
        }
        Inbound::Frame { .. } => {}
    }
}

/// A member is somewhere else: what waits for it, and the rooms of which nobody else is near, have
/// a new chance. Our own new record goes to those who are connected.
async fn note_record(hs: &Homeserver, agenda: &mut Agenda, believed: Believed) {
    let server = believed.server.clone();
    match records::keep(hs, believed).await {
        Ok(Kept::Newer) if server == hs.server_name() => {
            // We are somewhere else, and what could not be reached from there may be from here.
            hs.peers.retries().forgive_all();
            compare_with_connected(hs, agenda).await;
            look_around(hs, agenda).await;
        }
        Ok(Kept::Newer) => {
            hs.peers.note_alive(&server);
            if !hs.peers.is_connected(&server) {
                try_lonely(hs, agenda).await;
            }
        }
        Ok(Kept::No) => {}
        Err(error) => tracing::error!(%error, "an address record could not be kept"),
    }
}

async fn try_lonely(hs: &Homeserver, agenda: &mut Agenda) {
    let turn = agenda.next_turn();
    match nearness::lonely(hs, turn).await {
        Ok(servers) => servers.into_iter().for_each(|server| agenda.add(Job::Heads(server))),
        Err(error) => tracing::error!(%error, "rooms without a path could not be read"),
    }
}

/// Once a minute: whatever signs of life did not bring about.
async fn tick(hs: &Homeserver, agenda: &mut Agenda) {
    renew_keys(hs).await;
    warn_of(keys::forget_strangers(hs).await);
    hs.peers.room_keys().sweep(hs.clock.now_ms());
    agenda.add(agenda.lost_joins());
    let now = hs.clock.now();
    let expired = hs.store.read(move |snap| outbox_rows::has_expired(snap, now)).await;
    if matches!(expired, Ok(true)) {
        let dropped = hs.store.write(move |txn| outbox_rows::drop_expired(txn, now));
        warn_of(dropped.await.map(drop));
    }
    warn_of(nearness::tell_trusted(hs, agenda.trusted()).await);
    warn_of(presence::pass(hs).await);
    compare_with_connected(hs, agenda).await;
    try_lonely(hs, agenda).await;
    look_around(hs, agenda).await;
}

async fn compare_with_connected(hs: &Homeserver, agenda: &mut Agenda) {
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
}

/// What others of this node left to do: entries in the outbox, gaps, rooms that are behind.
async fn look_around(hs: &Homeserver, agenda: &mut Agenda) {
    let outbox = hs.store.read(|snap| {
        Ok::<_, StoreError>((outbox_rows::destinations(snap)?, outbox_rows::totals(snap)?))
    });
    match outbox.await {
        Ok((destinations, totals)) => {
            hs.peers.counters().outbox_waiting.store(totals.entries, Ordering::Relaxed);
            hs.peers
                .retries()
                .keep_deliveries(&destinations.iter().map(|(to, _)| to.clone()).collect());
            for (to, newest) in destinations {
                if hs.peers.retries().is_due(&to, newest, hs.clock.now_ms()) {
                    agenda.add_unless_busy(Job::Outbox(to));
                }
            }
        }
        Err(error) => tracing::error!(%error, "the outbox could not be read"),
    }
    for server in hs.peers.retries().take_alive() {
        agenda.add(Job::Heads(server));
    }
    for server in hs.peers.comparing().servers_ahead() {
        agenda.add(Job::Ahead(server));
    }
    look_for_users(hs, agenda).await;
    look_for_gaps(hs, agenda).await;
    for room_id in hs.peers.take_history() {
        agenda.add(Job::History(room_id));
        // We came into a room: its members are near now.
        warn_of(nearness::tell_trusted(hs, agenda.trusted()).await);
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
    for room_id in hs.peers.take_disputed() {
        match route::former(hs, &room_id).await {
            Ok(former) => former
                .into_iter()
                .for_each(|server| agenda.add(Job::RoomHeads(server, room_id.clone()))),
            Err(error) => tracing::error!(%error, "who was in a room could not be read"),
        }
    }
}

/// Whose devices are to be fetched, and who is to be told who is here.
async fn look_for_users(hs: &Homeserver, agenda: &mut Agenda) {
    warn_of(presence::settle(hs).await);
    for server in hs.peers.connected() {
        if presence::is_untold(hs, &server) {
            agenda.add(Job::Presence(server));
        }
    }
    match hs.store.read(|snap| device_lists::list_stale(snap, MAX_STALE)).await {
        Ok(users) => {
            let near = |user_id: &OwnedUserId| hs.peers.is_connected(user_id.server_name());
            let near = users.into_iter().filter(near);
            near.for_each(|user_id| agenda.add(Job::Devices(user_id)));
        }
        Err(error) => tracing::error!(%error, "the device lists could not be read"),
    }
}

async fn look_for_gaps(hs: &Homeserver, agenda: &mut Agenda) {
    match hs.store.read(pending::list_rooms).await {
        Ok(rooms) => rooms.into_iter().for_each(|room_id| agenda.add(Job::Gap(room_id))),
        Err(error) => tracing::error!(%error, "the parked events could not be read"),
    }
}

async fn renew_keys(hs: &Homeserver) {
    if let Some(renewed) = hs.identity.renew(hs.clock.now()) {
        tracing::info!("server_keys were renewed");
        warn_of(start::keep_own(hs, renewed).await);
    }
}

/// Does one job. Gives the servers that may want to know what it brought.
async fn perform(hs: Homeserver, job: &Job) -> Vec<OwnedServerName> {
    let mut news_for = Vec::new();
    let outcome: Result<(), StoreError> = match job {
        Job::Heads(server) => quiet(&hs, server, heads::compare(&hs, server).await),
        Job::RoomHeads(server, room_id) => {
            quiet(&hs, server, heads::compare_room(&hs, server, room_id).await)
        }
        Job::Ahead(server) => {
            let rooms = hs.peers.comparing().take_ahead(server);
            quiet(&hs, server, heads::compare_rooms(&hs, server, rooms).await)
        }
        Job::Gap(room_id) => fill(&hs, room_id).await.map(|near| news_for = near),
        Job::Outbox(server) => outbox::deliver(&hs, server).await.map(drop),
        Job::LostJoins(started) => remote_join::finish_lost(&hs, *started).await,
        Job::Devices(user_id) => encryption::device_lists::refresh(&hs, user_id).await,
        Job::Presence(server) => presence::tell(&hs, server).await,
        Job::History(room_id) => fetch_history(&hs, room_id).await,
    };
    warn_of(outcome);
    news_for
}

/// Fills the gaps of a room. What that brought, neighbours may lack too: they are told at once and
/// not in a minute, so that news passes along a chain of members.
async fn fill(hs: &Homeserver, room_id: &OwnedRoomId) -> Result<Vec<OwnedServerName>, StoreError> {
    if gap::fill(hs, room_id, None).await?.taken == 0 {
        return Ok(Vec::new());
    }
    let mut near = route::members(hs, room_id, None).await?;
    near.retain(|server| hs.peers.is_connected(server));
    Ok(near)
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
fn quiet(
    hs: &Homeserver,
    server: &OwnedServerName,
    outcome: Result<(), heads::HeadsError>,
) -> Result<(), StoreError> {
    match outcome {
        Ok(()) => {
            hs.peers.retries().note_reached(server);
            Ok(())
        }
        Err(heads::HeadsError::Store(error)) => Err(error),
        Err(heads::HeadsError::Federation(error)) => {
            tracing::debug!(%server, %error, "heads were not compared");
            hs.peers.retries().note_failed(server, (0, hs.clock.now_ms()), &error);
            Ok(())
        }
    }
}

fn warn_of(outcome: Result<(), StoreError>) {
    if let Err(error) = outcome {
        tracing::error!(%error, "the store failed in the background");
    }
}
