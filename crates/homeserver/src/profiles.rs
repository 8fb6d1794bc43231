//! Profiles: how users want to be seen.
//!
//! Spec: Client-Server API, "Profiles".

use messagehub_store::{StoreError, profiles, users};
use ruma::{
    OwnedMxcUri, UserId,
    api::federation::query::get_profile_information,
    profile::{AvatarUrl, DisplayName},
};

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
            if !users::exists(snap, &user_id)? {
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
            Ok::<_, StoreError>(profile != before)
        })
        .await?;
    if changed {
        membership::refresh_profile(hs, user_id).await?;
        user_directory::advertise(hs).await?;
    }
    Ok(())
}

fn check(field: &Field) -> Result<(), ProfileError> {
    let valid = match field {
        Field::DisplayName(Some(name)) => {
            name.len() <= MAX_DISPLAYNAME_BYTES && !name.chars().any(char::is_control)
        }
        Field::AvatarUrl(Some(url)) if !url.as_str().is_empty() => {
            url.as_str().len() <= MAX_AVATAR_URL_BYTES && url.is_valid()
        }
        Field::DisplayName(None) | Field::AvatarUrl(_) => true,
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
