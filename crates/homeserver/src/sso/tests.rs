//! The whole way of single sign-on: page, consent, token, session.

use std::net::IpAddr;

use super::*;
use crate::{
    sessions::{Credentials, LoginError, NewDevice, log_in},
    testing::TestServer,
};

const CLIENT: &str = "http://127.84.48.1/?x=1";

fn visit() -> Visit {
    Visit {
        peer: Some(IpAddr::from([127, 0, 0, 1])),
        host: Some("127.84.48.2".to_owned()),
        origin: Some("http://127.84.48.2".to_owned()),
        ..Visit::default()
    }
}

/// The token that a consent page carries.
fn token_of(answer: &Answer) -> String {
    let Answer::Page(html) = answer else { panic!("{answer:?}") };
    let (_, rest) = html.split_once("name=\"token\" value=\"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

fn consent(token: &str, user: &OwnedUserId, password: Option<&str>) -> Consent {
    let password = password.map(|text| Password::new(text.to_owned()).unwrap());
    Consent { token: token.to_owned(), user: user.to_string(), password }
}

fn login_token(answer: &Answer) -> String {
    let Answer::Redirect(url) = answer else { panic!("{answer:?}") };
    url.strip_prefix("http://127.84.48.1/?x=1&loginToken=").unwrap().to_owned()
}

#[tokio::test]
async fn a_consent_logs_in_once() {
    let server = TestServer::new(1);
    let hs = &server.hs;
    let user = accounts::create(hs, "p2p", None).await.unwrap();
    let token = token_of(&ask(hs, &visit(), CLIENT).await.unwrap());
    let answer = confirm(hs, &visit(), consent(&token, &user, None)).await.unwrap();
    let login = login_token(&answer);

    // The consent is used.
    let again = confirm(hs, &visit(), consent(&token, &user, None)).await;
    assert!(matches!(again, Err(SsoError::Expired)), "{again:?}");

    let done = log_in(hs, Credentials::Token(login.clone()), NewDevice::default()).await.unwrap();
    assert_eq!(done.session.user_id, user);
    let proved = sessions::authenticate(hs, &done.access_token.into_text()).await.unwrap();
    assert_eq!(proved, done.session);

    // So is the login token.
    let again = log_in(hs, Credentials::Token(login), NewDevice::default()).await;
    assert!(matches!(again, Err(LoginError::WrongCredentials)), "{again:?}");
}

#[tokio::test]
async fn tokens_expire() {
    let server = TestServer::new(2);
    let hs = &server.hs;
    let user = accounts::create(hs, "p2p", None).await.unwrap();
    let stale = token_of(&ask(hs, &visit(), CLIENT).await.unwrap());
    server.clock.advance(CONSENT_TTL_MS);
    let late = confirm(hs, &visit(), consent(&stale, &user, None)).await;
    assert!(matches!(late, Err(SsoError::Expired)), "{late:?}");

    let token = token_of(&ask(hs, &visit(), CLIENT).await.unwrap());
    let answer = confirm(hs, &visit(), consent(&token, &user, None)).await.unwrap();
    server.clock.advance(sessions::LOGIN_TOKEN_TTL_MS);
    let login = Credentials::Token(login_token(&answer));
    let late = log_in(hs, login, NewDevice::default()).await;
    assert!(matches!(late, Err(LoginError::WrongCredentials)), "{late:?}");
}

#[tokio::test]
async fn an_account_with_a_password_must_give_it() {
    let server = TestServer::new(3);
    let hs = &server.hs;
    let secret = Password::new("open sesame".to_owned()).unwrap();
    let user = accounts::create(hs, "ann", Some(secret)).await.unwrap();
    let mut token = token_of(&ask(hs, &visit(), CLIENT).await.unwrap());
    for wrong in [None, Some("guess")] {
        let again = confirm(hs, &visit(), consent(&token, &user, wrong)).await.unwrap();
        // The page comes again, with a new token.
        assert_ne!(token_of(&again), token);
        token = token_of(&again);
    }
    let right = consent(&token, &user, Some("open sesame"));
    login_token(&confirm(hs, &visit(), right).await.unwrap());
}

#[tokio::test]
async fn another_page_or_machine_gets_nothing_and_uses_nothing_up() {
    let server = TestServer::new(4);
    let hs = &server.hs;
    let user = accounts::create(hs, "p2p", None).await.unwrap();
    let token = token_of(&ask(hs, &visit(), CLIENT).await.unwrap());
    for visit in [
        Visit { origin: Some("https://evil.example".to_owned()), ..visit() },
        Visit { origin: None, ..visit() },
        Visit { peer: Some(IpAddr::from([192, 168, 0, 9])), ..visit() },
        Visit { host: Some("evil.example".to_owned()), ..visit() },
    ] {
        let refused = confirm(hs, &visit, consent(&token, &user, None)).await;
        assert!(matches!(refused, Err(SsoError::NotHere(_))), "{refused:?}");
    }
    login_token(&confirm(hs, &visit(), consent(&token, &user, None)).await.unwrap());
}

#[tokio::test]
async fn a_user_of_another_server_is_nobody_here() {
    let server = TestServer::new(5);
    let hs = &server.hs;
    accounts::create(hs, "p2p", None).await.unwrap();
    let token = token_of(&ask(hs, &visit(), CLIENT).await.unwrap());
    let stranger = OwnedUserId::try_from("@p2p:elsewhere.example").unwrap();
    let answer = confirm(hs, &visit(), consent(&token, &stranger, None)).await.unwrap();
    assert!(matches!(answer, Answer::Page(_)));
    let bad = ask(hs, &visit(), "javascript:alert(1)").await;
    assert!(matches!(bad, Err(SsoError::BadRedirect)), "{bad:?}");
}
