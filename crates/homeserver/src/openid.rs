//! Tokens with which a local user proves to a third party who they are.
//!
//! Spec: Client-Server API, "OpenID"; Server-Server API, "OpenID".

use std::time::Duration;

use messagehub_store::{StoreError, openid, users};
use ruma::{OwnedUserId, UserId};

use crate::{
    Homeserver,
    clock::timestamp,
    sessions::{self, Token},
};

/// How long a token is good for: a third party asks at once, and may ask again. Synapse gives an
/// hour.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// Why there is no token, or it proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum OpenIdError {
    /// Nobody gets a token in the name of somebody else.
    #[error("the token would be another user's")]
    NotYours,
    /// It was never given out, or it has expired.
    #[error("the token is unknown or has expired")]
    Unknown,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a token for a user, good for [`TOKEN_LIFETIME`].
///
/// # Errors
/// See [`OpenIdError`].
pub async fn grant(
    hs: &Homeserver,
    caller: &UserId,
    user_id: &UserId,
) -> Result<Token, OpenIdError> {
    if caller != user_id {
        return Err(OpenIdError::NotYours);
    }
    let token = Token::new(&hs.rng);
    let lifetime_ms = u64::try_from(TOKEN_LIFETIME.as_millis()).unwrap_or(u64::MAX);
    let now = hs.clock.now();
    let expires_ts = timestamp(hs.clock.now_ms().saturating_add(lifetime_ms));
    let (hash, user_id) = (token.hash(), user_id.to_owned());
    hs.store.write(move |txn| openid::insert(txn, &hash, &user_id, (now, expires_ts))).await?;
    Ok(token)
}

/// Who a token stands for.
///
/// # Errors
/// See [`OpenIdError`].
pub async fn owner(hs: &Homeserver, token: &str) -> Result<OwnedUserId, OpenIdError> {
    let (hash, now) = (sessions::hash(token), hs.clock.now());
    let found = hs.store.read(move |snap| {
        let Some(user_id) = openid::find(snap, &hash, now)? else { return Ok(None) };
        let active = users::is_active(snap, &user_id)?;
        Ok::<_, StoreError>(Some(user_id).filter(|_| active))
    });
    found.await?.ok_or(OpenIdError::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestServer;

    #[tokio::test]
    async fn a_token_stands_for_its_user_until_it_expires() {
        let server = TestServer::new(1);
        let ann = server.user("ann").await;
        let hs = &server.hs;
        let stranger = grant(hs, &server.user_id("bob"), &ann.user_id).await;
        assert!(matches!(stranger, Err(OpenIdError::NotYours)), "{stranger:?}");
        let token = grant(hs, &ann.user_id, &ann.user_id).await.unwrap().into_text();
        assert_eq!(owner(hs, &token).await.unwrap(), ann.user_id);
        assert!(matches!(owner(hs, "guess").await, Err(OpenIdError::Unknown)));
        server.clock.advance(60 * 60 * 1000);
        assert!(matches!(owner(hs, &token).await, Err(OpenIdError::Unknown)));
    }

    #[tokio::test]
    async fn the_oldest_token_gives_way() {
        let server = TestServer::new(2);
        let ann = server.user("ann").await;
        let hs = &server.hs;
        let first = grant(hs, &ann.user_id, &ann.user_id).await.unwrap().into_text();
        for _ in 0..openid::MAX_TOKENS_PER_USER {
            server.clock.advance(1);
            grant(hs, &ann.user_id, &ann.user_id).await.unwrap();
        }
        assert!(matches!(owner(hs, &first).await, Err(OpenIdError::Unknown)));
    }
}
