use ruma::device_id;

use super::*;
use crate::testing::TestServer;

fn seen(active_ms: u64, devices: &[(State, u64)]) -> Seen {
    let devices = devices.iter().enumerate();
    let devices = devices.map(|(n, device)| (format!("D{n}").into(), *device)).collect();
    Seen { active_ms, devices, is_news: false }
}

fn presence(state: State, active_ms: u64) -> Presence {
    Presence {
        user_id: ruma::user_id!("@a:b.example").to_owned(),
        state,
        status_msg: None,
        last_active_ts: timestamp(active_ms),
        currently_active: false,
    }
}

#[test]
fn what_follows_from_what() {
    use State::{Offline, Online, Unavailable};
    let now = 10_000_000;
    let recent = now - 1_000;
    let (idle, gone) = (now - IDLE_AFTER_MS, now - GONE_AFTER_MS);
    for (n, (before, seen, cause, expected)) in [
        (presence(Offline, 0), seen(0, &[(Online, now)]), Cause::Synced, Online),
        (presence(Offline, 0), seen(0, &[(Unavailable, now)]), Cause::Synced, Unavailable),
        (presence(Online, now), seen(now, &[(Offline, now)]), Cause::Synced, Offline),
        (
            presence(Unavailable, 0),
            seen(0, &[(Unavailable, recent), (Online, recent)]),
            Cause::Synced,
            Online,
        ),
        (presence(Online, now), seen(now, &[(Online, gone)]), Cause::Passed, Offline),
        (presence(Online, idle), seen(idle, &[(Online, recent)]), Cause::Passed, Unavailable),
        (presence(Online, now), seen(now, &[(Online, recent)]), Cause::Passed, Online),
        (presence(Unavailable, now), seen(now, &[(Online, recent)]), Cause::Passed, Unavailable),
        (presence(Unavailable, idle), seen(now, &[(Online, recent)]), Cause::Active, Online),
        (presence(Online, now), seen(now, &[(Online, now)]), Cause::Set(Offline, None), Offline),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(after(&before, &seen, cause, now).state, expected, "case {n}");
    }
}

#[tokio::test]
async fn a_user_comes_goes_idle_and_is_gone() {
    let server = TestServer::new(1);
    let (ann, hs) = (server.user("ann").await, &server.hs);
    let look = || async { get(hs, &ann.user_id, &ann.user_id).await.unwrap() };
    assert_eq!(look().await.presence, PresenceState::Offline);
    syncing(hs, &ann, &PresenceState::Online).await.unwrap();
    assert_eq!(look().await.presence, PresenceState::Online);
    assert!(look().await.currently_active);

    let writes = hs.store.counts().writes;
    syncing(hs, &ann, &PresenceState::Online).await.unwrap();
    assert_eq!(hs.store.counts().writes, writes, "nothing changed, nothing is written");

    for _ in 0..6 {
        server.clock.advance(60_000);
        syncing(hs, &ann, &PresenceState::Online).await.unwrap();
        pass(hs).await.unwrap();
    }
    assert_eq!(look().await.presence, PresenceState::Unavailable);
    assert_eq!(look().await.last_active_ago, Some(Duration::from_secs(360)));

    note_active(hs, &ann.user_id);
    settle(hs).await.unwrap();
    assert_eq!(look().await.presence, PresenceState::Online);

    server.clock.advance(GONE_AFTER_MS);
    pass(hs).await.unwrap();
    assert_eq!(look().await.presence, PresenceState::Offline);
}

#[tokio::test]
async fn only_the_user_sets_it_and_only_people_who_meet_see_it() {
    let server = TestServer::new(2);
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let hs = &server.hs;
    let new = || (PresenceState::Online, Some("Tea".to_owned()));
    let foreign = set(hs, &ann, &bob.user_id, new()).await;
    assert!(matches!(foreign, Err(PresenceError::NotYours)), "{foreign:?}");
    let long = (PresenceState::Online, Some("x".repeat(MAX_STATUS_BYTES + 1)));
    let long = set(hs, &ann, &ann.user_id, long).await;
    assert!(matches!(long, Err(PresenceError::Invalid)), "{long:?}");
    set(hs, &ann, &ann.user_id, new()).await.unwrap();
    let unseen = get(hs, &bob.user_id, &ann.user_id).await;
    assert!(matches!(unseen, Err(PresenceError::NotVisible)), "{unseen:?}");
    let own = get(hs, &ann.user_id, &ann.user_id).await.unwrap();
    assert_eq!(own.status_msg.as_deref(), Some("Tea"));
}

#[tokio::test]
async fn who_does_not_sync_is_not_there_however_much_they_say() {
    let server = TestServer::new(3);
    let (ann, hs) = (server.user("ann").await, &server.hs);
    note_active(hs, &ann.user_id);
    settle(hs).await.unwrap();
    let status = get(hs, &ann.user_id, &ann.user_id).await.unwrap();
    assert_eq!(status.presence, PresenceState::Offline);
    let other = Session { device_id: device_id!("BOT").to_owned(), ..ann.clone() };
    syncing(hs, &other, &PresenceState::Offline).await.unwrap();
    note_active(hs, &ann.user_id);
    settle(hs).await.unwrap();
    let status = get(hs, &ann.user_id, &ann.user_id).await.unwrap();
    assert_eq!(status.presence, PresenceState::Offline, "a client may hide its user");
}
