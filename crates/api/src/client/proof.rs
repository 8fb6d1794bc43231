//! User-Interactive Authentication between ruma's types and ours.

use messagehub_homeserver::{
    passwords::Password,
    uia::{Challenge, Proof, Stage},
};
use ruma::api::client::uiaa::{AuthData, UserIdentifier};
use serde_json::{Map, Value, json};

use crate::ApiError;

/// What a client proves with its `auth` object.
pub(super) fn from_auth(auth: Option<AuthData>) -> Option<Proof> {
    Some(match auth? {
        AuthData::Dummy(_) => Proof::Dummy,
        AuthData::RegistrationToken(data) => Proof::RegistrationToken(data.token),
        AuthData::Password(data) => match (user(data.identifier), Password::new(data.password)) {
            (Some(user), Ok(password)) => Proof::Password { user, password },
            _ => Proof::Other,
        },
        // A client that only names its session asks for the flows again.
        AuthData::FallbackAcknowledgement(_) => return None,
        _ => Proof::Other,
    })
}

/// The user that an identifier names; `None` for e-mail addresses and telephone numbers, which
/// this node does not know.
pub(super) fn user(identifier: UserIdentifier) -> Option<String> {
    match identifier {
        UserIdentifier::Matrix(matrix) => Some(matrix.user),
        _ => None,
    }
}

/// The 401 that asks for a proof.
pub(crate) fn demand(challenge: &Challenge) -> ApiError {
    let stage = match challenge.stage {
        Stage::Dummy => "m.login.dummy",
        Stage::Password => "m.login.password",
        Stage::RegistrationToken => "m.login.registration_token",
    };
    let mut body = Map::new();
    body.insert("flows".to_owned(), json!([{ "stages": [stage] }]));
    body.insert("params".to_owned(), json!({}));
    body.insert("completed".to_owned(), json!([]));
    body.insert("session".to_owned(), Value::from(challenge.session.as_str()));
    if challenge.refused {
        body.insert("errcode".to_owned(), json!("M_FORBIDDEN"));
        body.insert("error".to_owned(), json!("The proof is wrong or of another kind."));
    }
    ApiError::interactive_auth(body)
}
