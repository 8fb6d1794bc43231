//! Logging in and out.

use super::*;
use crate::testing::TestServer;

fn password(text: &str) -> Password {
    Password::new(text.to_owned()).unwrap()
}

fn by_password(user: &str, text: &str) -> Credentials {
    Credentials::Password { user: user.to_owned(), password: password(text) }
}

fn device(id: &str) -> NewDevice {
    NewDevice { device_id: Some(id.into()), display_name: Some("Phone".to_owned()) }
}

async fn ann(server: &TestServer) -> OwnedUserId {
    accounts::create(&server.hs, "ann", Some(password("secret"))).await.unwrap()
}

async fn token(server: &TestServer, id: &str) -> String {
    let credentials = by_password("ann", "secret");
    log_in(&server.hs, credentials, device(id)).await.unwrap().access_token.into_text()
}

#[tokio::test]
async fn a_name_or_a_user_id_and_the_password_log_in() {
    let server = TestServer::new(1);
    let user = ann(&server).await;
    for name in ["ann", "Ann", user.as_str()] {
        let done = log_in(&server.hs, by_password(name, "secret"), NewDevice::default()).await;
        assert_eq!(done.unwrap().session.user_id, user);
    }
    for (name, text) in [("ann", "wrong"), ("bob", "secret"), ("@ann:elsewhere.example", "secret")]
    {
        let refused = log_in(&server.hs, by_password(name, text), NewDevice::default()).await;
        assert!(matches!(refused, Err(LoginError::WrongCredentials)), "{name}: {refused:?}");
    }
}

#[tokio::test]
async fn a_device_has_one_token_at_a_time() {
    let server = TestServer::new(2);
    ann(&server).await;
    let first = token(&server, "PHONE").await;
    let second = token(&server, "PHONE").await;
    let replaced = authenticate(&server.hs, &first).await;
    assert!(matches!(replaced, Err(AuthenticateError::UnknownToken)), "{replaced:?}");
    assert_eq!(authenticate(&server.hs, &second).await.unwrap().device_id, "PHONE");
}

#[tokio::test]
async fn the_database_knows_no_token() {
    let server = TestServer::new(3);
    ann(&server).await;
    let token = token(&server, "PHONE").await;
    let stored: Vec<u8> = server
        .read(|snap| {
            Ok(snap.conn().query_row("SELECT hash FROM access_tokens", [], |row| row.get(0))?)
        })
        .await;
    assert_eq!(stored.len(), 32);
    assert_ne!(stored, token.as_bytes());
    assert_eq!(TokenHash(stored.try_into().unwrap()), hash(&token));
}

#[tokio::test]
async fn logging_out_ends_one_device_or_all() {
    let server = TestServer::new(4);
    let user = ann(&server).await;
    let tokens = [token(&server, "A").await, token(&server, "B").await, token(&server, "C").await];
    let a = authenticate(&server.hs, &tokens[0]).await.unwrap();
    log_out(&server.hs, &a).await.unwrap();
    assert!(authenticate(&server.hs, &tokens[0]).await.is_err());
    log_out_all(&server.hs, &user, Some("B".into())).await.unwrap();
    assert!(authenticate(&server.hs, &tokens[1]).await.is_ok());
    assert!(authenticate(&server.hs, &tokens[2]).await.is_err());
    let left = list_devices(&server.hs, &user).await.unwrap();
    assert_eq!(left.iter().map(|d| d.device_id.as_str()).collect::<Vec<_>>(), ["B"]);
}

#[tokio::test]
async fn a_device_is_seen_now_and_then() {
    let server = TestServer::new(5);
    let user = ann(&server).await;
    let token = token(&server, "A").await;
    let seen = async || get_device(&server.hs, &user, "A".into()).await.unwrap().last_seen_ts;
    let first = seen().await;
    server.clock.advance(SEEN_RESOLUTION_MS - 1);
    authenticate(&server.hs, &token).await.unwrap();
    assert_eq!(seen().await, first);
    server.clock.advance(1);
    authenticate(&server.hs, &token).await.unwrap();
    assert_eq!(seen().await, server.hs.clock.now());
}

#[tokio::test]
async fn devices_are_renamed_and_removed() {
    let server = TestServer::new(6);
    let user = ann(&server).await;
    token(&server, "A").await;
    let id: &DeviceId = "A".into();
    rename_device(&server.hs, &user, id, Some("Desk".to_owned())).await.unwrap();
    let device = get_device(&server.hs, &user, id).await.unwrap();
    assert_eq!(device.display_name.as_deref(), Some("Desk"));
    let long = rename_device(&server.hs, &user, id, Some("x".repeat(256))).await;
    assert!(matches!(long, Err(DeviceError::NameTooLong)), "{long:?}");
    remove_devices(&server.hs, &user, vec!["A".into(), "NONE".into()]).await.unwrap();
    let gone = get_device(&server.hs, &user, id).await;
    assert!(matches!(gone, Err(DeviceError::Unknown)), "{gone:?}");
}

#[tokio::test]
async fn an_overlong_device_is_refused_before_the_password_is_hashed() {
    let server = TestServer::new(7);
    let refused = log_in(&server.hs, by_password("ann", "secret"), device(&"D".repeat(256))).await;
    assert!(matches!(refused, Err(LoginError::InvalidDevice)), "{refused:?}");
}
