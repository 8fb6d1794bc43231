//! Push rules: which events a user is told about. Kept as account data `m.push_rules`.
//!
//! Spec: Client-Server API, "Push Rules".

use messagehub_store::{Snapshot, StoreError, Txn, account_data, account_data::Scope};
use ruma::{
    UserId,
    push::{
        Action, AnyPushRule, InsertPushRuleError, NewPushRule, RemovePushRuleError, RuleKind,
        Ruleset,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::Homeserver;

/// The type of the account data that holds them.
pub const KIND: &str = "m.push_rules";
/// Rules of one user; every event is matched against all of them.
pub const MAX_RULES: usize = 1000;

#[derive(Serialize, Deserialize)]
struct Content {
    global: Ruleset,
}

/// Why push rules could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum PushRuleError {
    /// There is no such rule, or no such kind of rules.
    #[error("there is no such push rule")]
    Unknown,
    /// The rule's id or place is not allowed.
    #[error("the push rule is invalid: {0}")]
    Invalid(String),
    /// The rule to be placed before or after does not exist.
    #[error("the push rule to be placed beside does not exist")]
    UnknownNeighbor,
    /// A rule of the server can be changed, not removed.
    #[error("a default rule cannot be removed")]
    Default,
    /// The user has [`MAX_RULES`] rules.
    #[error("the user has too many push rules")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The rules of a new account.
pub fn defaults(user_id: &UserId) -> Ruleset {
    Ruleset::server_default(user_id)
}

/// The rules of a user. Account data that cannot be read counts as the defaults.
///
/// # Errors
/// The store failed.
pub fn load(snap: &Snapshot<'_>, user_id: &UserId) -> Result<Ruleset, StoreError> {
    let stored = account_data::find(snap, user_id, Scope::Global, KIND)?;
    Ok(stored
        .and_then(|content| serde_json::from_str::<Content>(content.get()).ok())
        .map_or_else(|| defaults(user_id), |content| content.global))
}

/// The content of the account data for a set of rules.
#[expect(clippy::expect_used, reason = "a ruleset has string keys and no number but integers")]
pub(crate) fn to_content(rules: &Ruleset) -> Box<RawValue> {
    to_raw_value(&Content { global: rules.clone() }).expect("a ruleset serializes")
}

/// All rules of a user.
///
/// # Errors
/// The store failed.
pub async fn get_all(hs: &Homeserver, user_id: &UserId) -> Result<Ruleset, StoreError> {
    let user_id = user_id.to_owned();
    hs.store.read(move |snap| load(snap, &user_id)).await
}

/// One rule of a user.
///
/// # Errors
/// See [`PushRuleError`].
pub async fn get(
    hs: &Homeserver,
    user_id: &UserId,
    kind: RuleKind,
    rule_id: &str,
) -> Result<AnyPushRule, PushRuleError> {
    let rules = get_all(hs, user_id).await?;
    rules.get(kind, rule_id).map(|rule| rule.to_owned()).ok_or(PushRuleError::Unknown)
}

/// Where a new rule goes among its kind.
#[derive(Debug, Clone, Default)]
pub struct Placement {
    /// Just above this rule.
    pub before: Option<String>,
    /// Just below this rule.
    pub after: Option<String>,
}

/// Adds a rule of the user's own, or replaces the one of that id.
///
/// # Errors
/// See [`PushRuleError`].
pub async fn insert(
    hs: &Homeserver,
    user_id: &UserId,
    rule: NewPushRule,
    place: Placement,
) -> Result<(), PushRuleError> {
    change(hs, user_id, move |rules| {
        if rules.iter().count() >= MAX_RULES {
            return Err(PushRuleError::TooMany);
        }
        rules
            .insert(rule, place.after.as_deref(), place.before.as_deref())
            .map_err(PushRuleError::from)
    })
    .await
}

/// Removes a rule of the user's own.
///
/// # Errors
/// See [`PushRuleError`].
pub async fn remove(
    hs: &Homeserver,
    user_id: &UserId,
    kind: RuleKind,
    rule_id: String,
) -> Result<(), PushRuleError> {
    change(hs, user_id, move |rules| rules.remove(kind, rule_id).map_err(PushRuleError::from)).await
}

/// Whether a rule takes part in the matching.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// It does.
    On,
    /// It is kept and passed over.
    Off,
}

/// Switches a rule on or off.
///
/// # Errors
/// See [`PushRuleError`].
pub async fn set_enabled(
    hs: &Homeserver,
    user_id: &UserId,
    kind: RuleKind,
    rule_id: String,
    switch: Switch,
) -> Result<(), PushRuleError> {
    change(hs, user_id, move |rules| {
        rules.set_enabled(kind, rule_id, switch == Switch::On).map_err(|_| PushRuleError::Unknown)
    })
    .await
}

/// Replaces what a rule does.
///
/// # Errors
/// See [`PushRuleError`].
pub async fn set_actions(
    hs: &Homeserver,
    user_id: &UserId,
    kind: RuleKind,
    rule_id: String,
    actions: Vec<Action>,
) -> Result<(), PushRuleError> {
    change(hs, user_id, move |rules| {
        rules.set_actions(kind, rule_id, actions).map_err(|_| PushRuleError::Unknown)
    })
    .await
}

async fn change(
    hs: &Homeserver,
    user_id: &UserId,
    change: impl FnOnce(&mut Ruleset) -> Result<(), PushRuleError> + Send + 'static,
) -> Result<(), PushRuleError> {
    let user_id = user_id.to_owned();
    hs.store
        .write(move |txn: &mut Txn<'_>| {
            let mut rules = load(txn, &user_id)?;
            change(&mut rules)?;
            account_data::set(txn, &user_id, Scope::Global, KIND, &to_content(&rules))?;
            Ok(())
        })
        .await
}

impl From<InsertPushRuleError> for PushRuleError {
    fn from(error: InsertPushRuleError) -> Self {
        match error {
            InsertPushRuleError::UnknownRuleId => Self::UnknownNeighbor,
            error => Self::Invalid(error.to_string()),
        }
    }
}

impl From<RemovePushRuleError> for PushRuleError {
    fn from(error: RemovePushRuleError) -> Self {
        match error {
            RemovePushRuleError::ServerDefault => Self::Default,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;
