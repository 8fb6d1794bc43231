//! Registration by clients, for each setting.

use std::sync::Arc;

use super::*;
use crate::{Limits, rate::RateLimiter, testing::TestServer, uia::Stage};

fn server(seed: u64, registration: Registration) -> TestServer {
    let mut server = TestServer::new(seed);
    let rates = RateLimiter::new(None);
    server.hs.limits = Arc::new(Limits { registration, rates, ..Limits::default() });
    server
}

fn account(username: Option<&str>, proof: Option<Proof>) -> NewAccount {
    NewAccount {
        username: username.map(ToOwned::to_owned),
        password: Some(Password::new("secret".to_owned()).unwrap()),
        device: Some(NewDevice::default()),
        proof,
    }
}

#[tokio::test]
async fn closed_means_closed() {
    let server = server(1, Registration::Closed);
    for proof in [None, Some(Proof::Dummy)] {
        let refused = register(&server.hs, account(Some("ann"), proof)).await;
        assert!(matches!(refused, Err(RegisterError::Closed)), "{refused:?}");
    }
    assert!(matches!(available(&server.hs, "ann").await, Err(RegisterError::Closed)));
}

#[tokio::test]
async fn open_asks_for_the_dummy_stage_and_logs_in() {
    let server = server(2, Registration::Open);
    let asked = register(&server.hs, account(Some("Ann"), None)).await;
    let Err(RegisterError::Challenge(challenge)) = asked else { panic!("{asked:?}") };
    assert_eq!((challenge.stage, challenge.refused), (Stage::Dummy, false));
    let done = register(&server.hs, account(Some("Ann"), Some(Proof::Dummy))).await.unwrap();
    let Registered::LoggedIn(done) = done else { panic!("{done:?}") };
    assert_eq!(done.session.user_id, server.user_id("ann"));
    sessions::authenticate(&server.hs, &done.access_token.into_text()).await.unwrap();

    let taken = register(&server.hs, account(Some("ann"), None)).await;
    assert!(matches!(taken, Err(RegisterError::Create(CreateError::Taken))), "{taken:?}");
}

#[tokio::test]
async fn a_token_is_asked_for_and_checked() {
    let server = server(3, Registration::Token("let me in".to_owned()));
    let token = |text: &str| Some(Proof::RegistrationToken(text.to_owned()));
    for wrong in [token("let me"), Some(Proof::Dummy)] {
        let refused = register(&server.hs, account(Some("ann"), wrong)).await;
        let Err(RegisterError::Challenge(challenge)) = refused else { panic!("{refused:?}") };
        assert_eq!((challenge.stage, challenge.refused), (Stage::RegistrationToken, true));
    }
    assert!(!is_token_valid(&server.hs, "let me").unwrap());
    assert!(is_token_valid(&server.hs, "let me in").unwrap());
    register(&server.hs, account(Some("ann"), token("let me in"))).await.unwrap();
}

#[tokio::test]
async fn bad_names_are_refused_and_missing_ones_made() {
    let server = server(4, Registration::Open);
    for name in ["", "a b", "ä", "a:b", "a@b", "a#", &"x".repeat(255)] {
        let refused = register(&server.hs, account(Some(name), Some(Proof::Dummy))).await;
        let is_name = matches!(refused, Err(RegisterError::Create(CreateError::InvalidName)));
        assert!(is_name, "{name}: {refused:?}");
    }
    let made = register(&server.hs, account(None, Some(Proof::Dummy))).await.unwrap();
    assert!(matches!(made, Registered::LoggedIn(_)));
    let mut without = account(Some("bob"), Some(Proof::Dummy));
    without.password = None;
    let refused = register(&server.hs, without).await;
    assert!(matches!(refused, Err(RegisterError::PasswordMissing)), "{refused:?}");
}

#[tokio::test]
async fn a_new_account_has_push_rules_and_a_profile() {
    let server = server(5, Registration::Open);
    let mut new = account(Some("ann"), Some(Proof::Dummy));
    new.device = None;
    let done = register(&server.hs, new).await.unwrap();
    let Registered::Account(user_id) = done else { panic!("{done:?}") };
    let profile = crate::profiles::get(&server.hs, &user_id).await.unwrap();
    assert_eq!(profile.displayname.as_deref(), Some("ann"));
    let rules = crate::push_rules::get_all(&server.hs, &user_id).await.unwrap();
    assert!(rules.get(ruma::push::RuleKind::Override, ".m.rule.master").is_some());
}
