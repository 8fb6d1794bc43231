//! Events that one server places and another signs: joins, leaves and knocks over federation.
//!
//! Spec: Server-Server API, "Joining Rooms" and "Leaving Rooms".

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, MilliSecondsSinceUnixEpoch, OwnedEventId,
    room_version_rules::RoomVersionRules,
};
use serde_json::value::RawValue;

use super::{
    BuildError, NewEvent, Place, Position, Signer, add_redacts, check_limits, content_of, finish,
    raw, unsigned_object,
};
use crate::{
    canonical,
    limits::{MAX_AUTH_EVENTS, MAX_PREV_EVENTS},
    pdu::{FormatError, SignedPdu, format},
};

/// An event without hashes and signatures, for the server that asked for it to sign.
///
/// # Errors
///
/// `Content` or `Format`.
pub fn template(
    new: &NewEvent,
    place: &Place,
    now: MilliSecondsSinceUnixEpoch,
    rules: &RoomVersionRules,
) -> Result<Box<RawValue>, BuildError> {
    let position = Position::of(place, rules)?;
    check_limits(new, &position)?;
    let mut object = unsigned_object(new, content_of(new, rules)?, &position, now);
    add_redacts(&mut object, new, rules);
    Ok(raw(&object))
}

/// Signs what another server placed. Only the place is taken from the template, and from its
/// content who let us in; what the event *says* is `new`, so that a template cannot make us sign
/// anything else.
///
/// # Errors
///
/// `Template` when it is of no use; else as [`super::event`].
pub fn complete(
    template: &RawValue,
    mut new: NewEvent,
    now: MilliSecondsSinceUnixEpoch,
    signer: Signer<'_>,
    rules: &'static RoomVersionRules,
) -> Result<SignedPdu, BuildError> {
    let template = canonical::parse_object(template.get().as_bytes())
        .map_err(|_| BuildError::Template("it is not canonical JSON"))?;
    if let Some(user) = authorising_user(&template) {
        let mut content = canonical::parse_object(new.content.get().as_bytes())?;
        content.insert(AUTHORISING_USER.to_owned(), user.clone());
        new.content = raw(&content);
    }
    finish(new, position_in(template, rules)?, now, signer, rules)
}

const AUTHORISING_USER: &str = "join_authorised_via_users_server";

fn authorising_user(template: &CanonicalJsonObject) -> Option<&CanonicalJsonValue> {
    template.get("content")?.as_object()?.get(AUTHORISING_USER).filter(|user| user.is_string())
}

fn position_in(
    mut template: CanonicalJsonObject,
    rules: &RoomVersionRules,
) -> Result<Position, BuildError> {
    let depth = template
        .get("depth")
        .and_then(CanonicalJsonValue::as_integer)
        .and_then(|depth| u64::try_from(i64::from(depth)).ok())
        .ok_or(BuildError::Template("`depth` is not a natural number"))?;
    let mut list = |field: &'static str, limit: usize| {
        let list = format::references(&template, field, limit, rules)?;
        let ids = list.iter().map(id_of).collect::<Option<Vec<_>>>();
        let ids = ids.ok_or(FormatError::Identifier(field))?;
        Ok::<_, FormatError>((ids, template.remove(field).unwrap_or_default()))
    };
    let (prev_events, prev_json) = list("prev_events", MAX_PREV_EVENTS)?;
    let (auth_events, auth_json) = list("auth_events", MAX_AUTH_EVENTS)?;
    Ok(Position { prev_events, prev_json, auth_events, auth_json, depth })
}

fn id_of(reference: &CanonicalJsonValue) -> Option<OwnedEventId> {
    let id = match reference {
        CanonicalJsonValue::Array(pair) => pair.first()?,
        id => id,
    };
    id.as_str()?.try_into().ok()
}
