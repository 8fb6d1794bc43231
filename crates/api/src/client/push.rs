//! Push rules.
//!
//! Spec: Client-Server API, "Push Notifications".

use axum::Router;
use messagehub_homeserver::{
    Homeserver,
    push_rules::{self, Placement, Switch},
    sessions::Session,
};
use ruma::api::client::push::{
    delete_pushrule, get_pushrule, get_pushrule_actions, get_pushrule_enabled, get_pushrules_all,
    get_pushrules_global_scope, set_pushrule, set_pushrule_actions, set_pushrule_enabled,
};

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new()
        .ruma(get_all)
        .ruma(get_global)
        .ruma(get_one)
        .ruma(set_one)
        .ruma(remove_one)
        .ruma(is_enabled)
        .ruma(set_enabled)
        .ruma(get_actions)
        .ruma(set_actions)
}

/// `GET /_matrix/client/v3/pushrules/`
async fn get_all(
    hs: Homeserver,
    caller: Session,
    _: get_pushrules_all::v3::Request,
) -> Result<get_pushrules_all::v3::Response, ApiError> {
    let rules = push_rules::get_all(&hs, &caller.user_id).await?;
    Ok(get_pushrules_all::v3::Response::new(rules))
}

/// `GET /_matrix/client/v3/pushrules/global/`
async fn get_global(
    hs: Homeserver,
    caller: Session,
    _: get_pushrules_global_scope::v3::Request,
) -> Result<get_pushrules_global_scope::v3::Response, ApiError> {
    let rules = push_rules::get_all(&hs, &caller.user_id).await?;
    Ok(get_pushrules_global_scope::v3::Response::new(rules))
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
async fn get_one(
    hs: Homeserver,
    caller: Session,
    req: get_pushrule::v3::Request,
) -> Result<get_pushrule::v3::Response, ApiError> {
    let rule = push_rules::get(&hs, &caller.user_id, req.kind, &req.rule_id).await?;
    Ok(get_pushrule::v3::Response::new(rule.into()))
}

/// `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
async fn set_one(
    hs: Homeserver,
    caller: Session,
    req: set_pushrule::v3::Request,
) -> Result<set_pushrule::v3::Response, ApiError> {
    let place = Placement { before: req.before, after: req.after };
    push_rules::insert(&hs, &caller.user_id, req.rule, place).await?;
    Ok(set_pushrule::v3::Response::new())
}

/// `DELETE /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
async fn remove_one(
    hs: Homeserver,
    caller: Session,
    req: delete_pushrule::v3::Request,
) -> Result<delete_pushrule::v3::Response, ApiError> {
    push_rules::remove(&hs, &caller.user_id, req.kind, req.rule_id).await?;
    Ok(delete_pushrule::v3::Response::new())
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled`
async fn is_enabled(
    hs: Homeserver,
    caller: Session,
    req: get_pushrule_enabled::v3::Request,
) -> Result<get_pushrule_enabled::v3::Response, ApiError> {
    let rule = push_rules::get(&hs, &caller.user_id, req.kind, &req.rule_id).await?;
    Ok(get_pushrule_enabled::v3::Response::new(rule.enabled()))
}

/// `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled`
async fn set_enabled(
    hs: Homeserver,
    caller: Session,
    req: set_pushrule_enabled::v3::Request,
) -> Result<set_pushrule_enabled::v3::Response, ApiError> {
    let switch = if req.enabled { Switch::On } else { Switch::Off };
    push_rules::set_enabled(&hs, &caller.user_id, req.kind, req.rule_id, switch).await?;
    Ok(set_pushrule_enabled::v3::Response::new())
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions`
async fn get_actions(
    hs: Homeserver,
    caller: Session,
    req: get_pushrule_actions::v3::Request,
) -> Result<get_pushrule_actions::v3::Response, ApiError> {
    let rule = push_rules::get(&hs, &caller.user_id, req.kind, &req.rule_id).await?;
    Ok(get_pushrule_actions::v3::Response::new(rule.actions().to_vec()))
}

/// `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions`
async fn set_actions(
    hs: Homeserver,
    caller: Session,
    req: set_pushrule_actions::v3::Request,
) -> Result<set_pushrule_actions::v3::Response, ApiError> {
    push_rules::set_actions(&hs, &caller.user_id, req.kind, req.rule_id, req.actions).await?;
    Ok(set_pushrule_actions::v3::Response::new())
}
