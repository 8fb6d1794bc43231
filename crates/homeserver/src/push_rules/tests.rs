//! Changing push rules.

use ruma::push::{NewConditionalPushRule, NewPatternedPushRule};

use super::*;
use crate::{accounts, testing::TestServer};

fn word(id: &str) -> NewPushRule {
    let rule = NewPatternedPushRule::new(id.to_owned(), "cake".to_owned(), vec![Action::Notify]);
    NewPushRule::Content(rule)
}

#[tokio::test]
async fn a_rule_of_ones_own_comes_changes_and_goes() {
    let server = TestServer::new(1);
    let hs = &server.hs;
    let user = accounts::create(hs, "ann", None).await.unwrap();
    insert(hs, &user, word("cake"), Placement::default()).await.unwrap();
    let rule = async || get(hs, &user, RuleKind::Content, "cake").await;
    assert!(rule().await.unwrap().enabled());
    let (kind, id) = (RuleKind::Content, "cake".to_owned());
    set_enabled(hs, &user, kind.clone(), id.clone(), Switch::Off).await.unwrap();
    set_actions(hs, &user, kind.clone(), id.clone(), Vec::new()).await.unwrap();
    let changed = rule().await.unwrap();
    assert!(!changed.enabled() && changed.actions().is_empty());
    remove(hs, &user, kind.clone(), id.clone()).await.unwrap();
    assert!(matches!(rule().await, Err(PushRuleError::Unknown)));
    let gone = remove(hs, &user, kind, id).await;
    assert!(matches!(gone, Err(PushRuleError::Unknown)), "{gone:?}");
}

#[tokio::test]
async fn rules_of_the_server_stay() {
    let server = TestServer::new(2);
    let hs = &server.hs;
    let user = accounts::create(hs, "ann", None).await.unwrap();
    let master = ".m.rule.master".to_owned();
    let refused = remove(hs, &user, RuleKind::Override, master.clone()).await;
    assert!(matches!(refused, Err(PushRuleError::Default)), "{refused:?}");
    set_enabled(hs, &user, RuleKind::Override, master.clone(), Switch::On).await.unwrap();
    assert!(get(hs, &user, RuleKind::Override, &master).await.unwrap().enabled());
    let fake = NewConditionalPushRule::new(".m.rule.mine".to_owned(), Vec::new(), Vec::new());
    let refused = insert(hs, &user, NewPushRule::Override(fake), Placement::default()).await;
    assert!(matches!(refused, Err(PushRuleError::Invalid(_))), "{refused:?}");
    let beside = Placement { before: Some("none".to_owned()), after: None };
    let refused = insert(hs, &user, word("x"), beside).await;
    assert!(matches!(refused, Err(PushRuleError::UnknownNeighbor)), "{refused:?}");
}

#[tokio::test]
async fn a_change_shows_in_account_data() {
    let server = TestServer::new(3);
    let hs = &server.hs;
    let user = accounts::create(hs, "ann", None).await.unwrap();
    let before = hs.store.position();
    insert(hs, &user, word("cake"), Placement::default()).await.unwrap();
    let after = hs.store.position();
    let data =
        server.read(move |snap| account_data::list_between(snap, &user, before, after)).await;
    assert_eq!(data.len(), 1);
    assert_eq!(data[0].kind, KIND);
    assert!(data[0].content.get().contains("cake"));
}
