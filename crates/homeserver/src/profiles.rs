//! Profiles: how users want to be seen.
//!
//! Spec: Client-Server API, "Profiles".

use std::collections::BTreeMap;

use messagehub_store::{Snapshot, StoreError, Txn, profiles, users};
use ruma::{
    OwnedMxcUri, UserId,
    api::federation::query::get_profile_information,
    profile::{AvatarUrl, DisplayName},
};

use serde_json::{Value, value::to_raw_value};

use crate::{
    Homeserver,
    federation::{self, FederationError},
    rooms::membership,
    user_directory,
};

pub use messagehub_store::profiles::Profile;

/// Longest display name, in bytes: it stands in an event in every room of its user.
pub const MAX_DISPLAYNAME_BYTES: usize = 256;
/// Longest avatar URL, in bytes.
pub const MAX_AVATAR_URL_BYTES: usize = 1024;
/// Longest name of a field, in bytes.
///
/// Spec: Client-Server API, "PUT /profile/{userId}/{keyName}".
pub const MAX_FIELD_NAME_BYTES: usize = 255;
/// Largest whole profile as JSON, in bytes.
///
/// Spec: Client-Server API, "PUT /profile/{userId}/{keyName}".
pub const MAX_PROFILE_BYTES: usize = 64 * 1024;

/// The field of the display name.
const DISPLAYNAME: &str = "displayname";
/// The field of the avatar.
const AVATAR_URL: &str = "avatar_url";

/// Why a profile could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// There is no such user.
    #[error("there is no such user")]
    Unknown,
    /// The node of the user cannot be asked.
    #[error("the user's node cannot be reached")]
    Unreachable,
    /// Only the user may change it.
    #[error("the profile belongs to another user")]
    NotYours,
    /// The name or the URL is too long, or is no `mxc://` URL.
    #[error("the display name or avatar is invalid")]
    Invalid,
    /// The user has no such field.
    #[error("the user has no such profile field")]
    UnknownField,
    /// A field cannot have that name.
    #[error("a profile field cannot have that name")]
    InvalidFieldName,
    /// A field's name is too long.
    #[error("the name of a profile field has at most {MAX_FIELD_NAME_BYTES} bytes")]
    FieldNameTooLong,
    /// The request does not say what the field is to be.
    #[error("the value of the profile field is missing")]
    ValueMissing,
    /// The profile would be too large.
    #[error("a profile has at most {MAX_PROFILE_BYTES} bytes")]
    TooLarge,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One field of a profile, with its new value; `None` clears it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// The display name.
    DisplayName(Option<String>),
    /// The avatar.
    AvatarUrl(Option<OwnedMxcUri>),
    /// Any other, by its name.
    Other(String, Option<Value>),
}

impl Field {
    /// The field of a name, with a new value or none.
    ///
    /// # Errors
    /// [`ProfileError::Invalid`] where the value is not what the field takes, or what is wrong with
    /// the name.
    pub fn of(name: String, value: Option<Value>) -> Result<Self, ProfileError> {
        let text = |value: Option<Value>| match value {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(ProfileError::Invalid),
        };
        match name.as_str() {
            DISPLAYNAME => Ok(Self::DisplayName(text(value)?)),
            AVATAR_URL => Ok(Self::AvatarUrl(text(value)?.map(Into::into))),
            _ if name.len() > MAX_FIELD_NAME_BYTES => Err(ProfileError::FieldNameTooLong),
            _ if !is_field_name(&name) => Err(ProfileError::InvalidFieldName),
            _ => Ok(Self::Other(name, value)),
        }
    }
}

/// All fields of a profile.
pub type Fields = BTreeMap<String, Value>;

/// The whole profile of any user: from here, or from the user's own node.
///
/// # Errors
/// See [`ProfileError`].
pub async fn fields(hs: &Homeserver, user_id: &UserId) -> Result<Fields, ProfileError> {
    if hs.identity.is_local(user_id) {
        return local_fields(hs, user_id).await;
    }
    let request = get_profile_information::v1::Request::new(user_id.to_owned());
    let answer =
        federation::ask(hs, user_id.server_name(), request, federation::ASK_TIMEOUT).await?;
    Ok(answer.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// The whole profile of a user of this node.
///
/// # Errors
/// [`ProfileError::Unknown`], or the store failed.
pub async fn local_fields(hs: &Homeserver, user_id: &UserId) -> Result<Fields, ProfileError> {
    let user_id = user_id.to_owned();
    hs.store
        .read(move |snap| {
            if !users::is_active(snap, &user_id)? {
                return Err(ProfileError::Unknown);
            }
            Ok(all_fields(snap, &user_id)?)
        })
        .await
}

fn all_fields(snap: &Snapshot<'_>, user_id: &UserId) -> Result<Fields, StoreError> {
    let damaged = |error: serde_json::Error| StoreError::Damaged(error.to_string());
    let mut fields = Fields::new();
    for (name, value) in profiles::list_fields(snap, user_id)? {
        fields.insert(name, serde_json::from_str(value.get()).map_err(damaged)?);
    }
    let profile = profiles::get(snap, user_id)?;
    fields.extend(profile.displayname.map(|name| (DISPLAYNAME.to_owned(), name.into())));
    let avatar_url = profile.avatar_url.map(|url| url.as_str().into());
    fields.extend(avatar_url.map(|url| (AVATAR_URL.to_owned(), url)));
    Ok(fields)
}

/// One field of the profile of any user.
///
/// # Errors
/// See [`ProfileError`].
pub async fn field(hs: &Homeserver, user_id: &UserId, name: &str) -> Result<Value, ProfileError> {
    fields(hs, user_id).await?.remove(name).ok_or(ProfileError::UnknownField)
}

/// Whether a name follows the grammar that further fields have.
///
/// Spec: Appendices, "Common Namespaced Identifier Grammar".
fn is_field_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.contains('.')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
}

/// The profile of any user: from here, or from the user's own node.
///
/// # Errors
/// See [`ProfileError`].
pub async fn get(hs: &Homeserver, user_id: &UserId) -> Result<Profile, ProfileError> {
    if hs.identity.is_local(user_id) {
        return local(hs, user_id).await;
    }
    let request = get_profile_information::v1::Request::new(user_id.to_owned());
    let answer =
        federation::ask(hs, user_id.server_name(), request, federation::ASK_TIMEOUT).await?;
    let field_is_bad = |_| ProfileError::Unknown;
    Ok(Profile {
        displayname: answer.get_static::<DisplayName>().map_err(field_is_bad)?,
        avatar_url: answer.get_static::<AvatarUrl>().map_err(field_is_bad)?,
    })
}

/// The profile of a user of this node.
///
/// # Errors
/// [`ProfileError::Unknown`], or the store failed.
pub async fn local(hs: &Homeserver, user_id: &UserId) -> Result<Profile, ProfileError> {
    let user_id = user_id.to_owned();
    hs.store
        .read(move |snap| {
            if !users::is_active(snap, &user_id)? {
                return Err(ProfileError::Unknown);
            }
            Ok(profiles::get(snap, &user_id)?)
        })
        .await
}

/// Changes one field of one's own profile, here, in every joined room, and in the directory.
///
/// # Errors
/// See [`ProfileError`].
pub async fn set(
    hs: &Homeserver,
    caller: &UserId,
    user_id: &UserId,
    field: Field,
) -> Result<(), ProfileError> {
    if caller != user_id {
        return Err(ProfileError::NotYours);
    }
    check(&field)?;
    let user = user_id.to_owned();
    let changed = hs
        .store
        .write(move |txn| {
            let before = profiles::get(txn, &user)?;
            let mut profile = before.clone();
            match field {
                Field::Other(name, value) => {
                    set_other(txn, &user, (&name, value))?;
                    return Ok(false);
                }
                Field::DisplayName(name) => {
                    profile.displayname = name.filter(|name| !name.is_empty());
                }
                Field::AvatarUrl(url) => {
                    profile.avatar_url = url.filter(|url| !url.as_str().is_empty());
                }
            }
            if profile != before {
                profiles::set(txn, &user, &profile)?;
            }
            Ok::<_, ProfileError>(profile != before)
        })
        .await?;
    if changed {
        membership::refresh_profile(hs, user_id).await?;
        user_directory::advertise(hs).await?;
    }
    Ok(())
}

/// Writes a field that no room shows.
fn set_other(
    txn: &mut Txn<'_>,
    user_id: &UserId,
    (name, value): (&str, Option<Value>),
) -> Result<(), ProfileError> {
    let damaged = |error: serde_json::Error| StoreError::Damaged(error.to_string());
    let value = value.map(|value| to_raw_value(&value)).transpose().map_err(damaged)?;
    profiles::set_field(txn, user_id, name, value.as_deref())?;
    let whole = serde_json::to_vec(&all_fields(txn, user_id)?).map_err(damaged)?;
    if whole.len() > MAX_PROFILE_BYTES { Err(ProfileError::TooLarge) } else { Ok(()) }
}

fn check(field: &Field) -> Result<(), ProfileError> {
    let valid = match field {
        Field::DisplayName(Some(name)) => {
            name.len() <= MAX_DISPLAYNAME_BYTES && !name.chars().any(char::is_control)
        }
        Field::AvatarUrl(Some(url)) if !url.as_str().is_empty() => {
            url.as_str().len() <= MAX_AVATAR_URL_BYTES && url.is_valid()
        }
        Field::DisplayName(None) | Field::AvatarUrl(_) | Field::Other(..) => true,
    };
    if valid { Ok(()) } else { Err(ProfileError::Invalid) }
}

impl From<FederationError> for ProfileError {
    fn from(error: FederationError) -> Self {
        match error {
            FederationError::Transport(_) => Self::Unreachable,
            FederationError::Refused { status: 404, .. } => Self::Unknown,
            FederationError::Refused { .. } => Self::Unreachable,
            FederationError::BadAnswer(_) | FederationError::BadRequest(_) => Self::Unknown,
            FederationError::Store(error) => Self::Store(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{accounts, testing::TestServer};

    #[tokio::test]
    async fn a_profile_is_changed_by_its_user_only() {
        let server = TestServer::new(1);
        let hs = &server.hs;
        let ann = accounts::create(hs, "ann", None).await.unwrap();
        let name = |text: &str| Field::DisplayName(Some(text.to_owned()));
        let stranger = set(hs, &server.user_id("bob"), &ann, name("Eve")).await;
        assert!(matches!(stranger, Err(ProfileError::NotYours)), "{stranger:?}");
        for bad in [
            name(&"x".repeat(MAX_DISPLAYNAME_BYTES + 1)),
            name("a\u{202e}b\n"),
            Field::AvatarUrl(Some("https://evil.example/a".into())),
        ] {
            let refused = set(hs, &ann, &ann, bad).await;
            assert!(matches!(refused, Err(ProfileError::Invalid)), "{refused:?}");
        }
        set(hs, &ann, &ann, name("Ann")).await.unwrap();
        set(hs, &ann, &ann, Field::AvatarUrl(Some("mxc://a.example/b".into()))).await.unwrap();
        let profile = get(hs, &ann).await.unwrap();
        assert_eq!(profile.displayname.as_deref(), Some("Ann"));
        set(hs, &ann, &ann, Field::DisplayName(None)).await.unwrap();
        set(hs, &ann, &ann, Field::AvatarUrl(Some("".into()))).await.unwrap();
        assert_eq!(get(hs, &ann).await.unwrap(), Profile::default());
        let nobody = get(hs, &server.user_id("nobody")).await;
        assert!(matches!(nobody, Err(ProfileError::Unknown)), "{nobody:?}");
    }

    #[tokio::test]
    async fn further_fields_are_kept_within_bounds() {
        let server = TestServer::new(3);
        let hs = &server.hs;
        let ann = accounts::create(hs, "ann", None).await.unwrap();
        let zone = || Some(Value::from("Europe/Berlin"));
        let field = Field::of("m.tz".to_owned(), zone()).unwrap();
        set(hs, &ann, &ann, field).await.unwrap();
        assert_eq!(super::field(hs, &ann, "m.tz").await.unwrap(), zone().unwrap());
        let all = fields(hs, &ann).await.unwrap();
        assert_eq!(all.keys().map(String::as_str).collect::<Vec<_>>(), ["displayname", "m.tz"]);
        for bad in ["", "Tz", "tz", "m.tz ", "1.a"] {
            let refused = Field::of(bad.to_owned(), zone());
            assert!(matches!(refused, Err(ProfileError::InvalidFieldName)), "{bad}");
        }
        let long = Field::of(format!("m.{}", "x".repeat(300)), zone());
        assert!(matches!(long, Err(ProfileError::FieldNameTooLong)));
        let large = Value::from("x".repeat(MAX_PROFILE_BYTES));
        let large = Field::of("org.example.x".to_owned(), Some(large)).unwrap();
        let refused = set(hs, &ann, &ann, large).await;
        assert!(matches!(refused, Err(ProfileError::TooLarge)), "{refused:?}");
        set(hs, &ann, &ann, Field::of("m.tz".to_owned(), None).unwrap()).await.unwrap();
        let gone = super::field(hs, &ann, "m.tz").await;
        assert!(matches!(gone, Err(ProfileError::UnknownField)), "{gone:?}");
    }

    #[tokio::test]
    async fn a_change_reaches_the_rooms() {
        let server = TestServer::new(2);
        let ann = server.user("ann").await;
        let room = server.room(&ann, None).await;
        let name = Field::DisplayName(Some("Annabel".to_owned()));
        set(&server.hs, &ann.user_id, &ann.user_id, name).await.unwrap();
        let shown = server
            .read(move |snap| {
                let room = messagehub_store::rooms::find(snap, &room)?.unwrap();
                let member = messagehub_store::memberships::find(snap, room.nid, &ann.user_id)?;
                messagehub_store::events::pdu(snap, member.unwrap().event.unwrap())
            })
            .await;
        assert!(shown.content().get().contains("Annabel"), "{}", shown.content());
    }
}
