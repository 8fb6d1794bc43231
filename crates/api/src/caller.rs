//! Who asks: from the authentication scheme that an endpoint declares to the type its handler
//! gets. A scheme without an implementation here does not compile.

use std::future::Future;

use bytes::Bytes;
use messagehub_homeserver::{
    Homeserver,
    sessions::{self, Session},
};
use ruma::api::auth_scheme::{
    AccessToken, AccessTokenOptional, AppserviceTokenOptional, AuthScheme, NoAccessToken,
    NoAuthentication,
};

use crate::ApiError;

/// An authentication scheme, and who is behind a request that satisfies it.
pub(crate) trait Scheme: AuthScheme {
    /// What a handler learns of the caller.
    type Caller: Send;

    /// Whether the body is signed, so that it is read before the caller is known. Where it is
    /// not, a stranger is refused before they cost a body's memory.
    const BODY_BEFORE_CALLER: bool = false;

    /// Finds the caller, or says in the specification's words why there is none.
    fn identify(
        hs: &Homeserver,
        request: &http::Request<Bytes>,
    ) -> impl Future<Output = Result<Self::Caller, ApiError>> + Send;
}

impl Scheme for NoAuthentication {
    type Caller = ();

    async fn identify(_: &Homeserver, _: &http::Request<Bytes>) -> Result<(), ApiError> {
        Ok(())
    }
}

impl Scheme for NoAccessToken {
    type Caller = ();

    async fn identify(_: &Homeserver, _: &http::Request<Bytes>) -> Result<(), ApiError> {
        Ok(())
    }
}

impl Scheme for AccessToken {
    type Caller = Session;

    async fn identify(
        hs: &Homeserver,
        request: &http::Request<Bytes>,
    ) -> Result<Session, ApiError> {
        let token = Self::extract_authentication(request).map_err(|_| ApiError::missing_token())?;
        Ok(sessions::authenticate(hs, &token).await?)
    }
}

impl Scheme for AccessTokenOptional {
    type Caller = Option<Session>;

    async fn identify(
        hs: &Homeserver,
        request: &http::Request<Bytes>,
    ) -> Result<Option<Session>, ApiError> {
        match Self::extract_authentication(request).map_err(|_| ApiError::missing_token())? {
            Some(token) => Ok(Some(sessions::authenticate(hs, &token).await?)),
            None => Ok(None),
        }
    }
}

impl Scheme for AppserviceTokenOptional {
    /// There are no application services: whoever logs in or registers is a client.
    type Caller = ();

    async fn identify(_: &Homeserver, _: &http::Request<Bytes>) -> Result<(), ApiError> {
        Ok(())
    }
}
