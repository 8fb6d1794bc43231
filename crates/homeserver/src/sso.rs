//! "Continue with MessageHub": logging in on the node's own machine without a password (D17).
//!
//! Whoever sits at the machine may log in; a web page that happens to be open there may not.
//! So the page that asks for consent is shown on the loopback address only, cannot be framed
//! or read by another page, and its answer counts only when the browser says that it comes
//! from that very page. A consent is good for one use and one redirect URL.
//!
//! Spec: Client-Server API, "SSO client login/authentication".

mod page;
mod redirect;
mod visit;

use messagehub_store::{
    StoreError, profiles,
    tokens::{self, Grant, Purpose},
    users,
};
use ruma::{OwnedUserId, UserId};

use crate::{
    Homeserver, accounts,
    clock::timestamp,
    passwords::{Password, PasswordError},
    rate::{Limited, RateKey},
    sessions::{self, Token},
};

pub use redirect::RedirectUrl;
pub use visit::Visit;

/// The id of our identity provider, which stands in the redirect path.
pub const PROVIDER_ID: &str = "messagehub";
/// Its name: clients write "Continue with MessageHub" on the button.
pub const PROVIDER_NAME: &str = "MessageHub";
/// Where the consent is sent; a path of ours, outside the specification's.
pub const CONFIRM_PATH: &str = "/_messagehub/sso/confirm";
/// How long a consent page may stay open before it is answered.
const CONSENT_TTL_MS: u64 = 10 * 60 * 1000;
/// Users that the page offers; a node serves a household.
const MAX_OFFERED: usize = 100;

/// Why there is no single sign-on.
#[derive(Debug, thiserror::Error)]
pub enum SsoError {
    /// The request does not come from this machine, or the browser says that another page sent it.
    #[error("single sign-on works only on the machine that runs this node: {0}")]
    NotHere(&'static str),
    /// The redirect URL is not one that a login token may be sent to.
    #[error("the redirect URL is not allowed")]
    BadRedirect,
    /// The consent is unknown, used or expired.
    #[error("this page has expired; start the log-in again")]
    Expired,
    /// Too many attempts.
    #[error(transparent)]
    Limited(#[from] Limited),
    /// Too many log-ins at once.
    #[error("too many log-ins at once")]
    Busy,
    /// The stored password hash is damaged.
    #[error("the password could not be checked: {0}")]
    Hashing(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the browser gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// A page to show: HTML.
    Page(String),
    /// The address to go to, with the login token in it.
    Redirect(String),
}

/// What the consent page sends.
#[derive(Debug)]
pub struct Consent {
    /// The token of the page.
    pub token: String,
    /// The user to log in.
    pub user: String,
    /// The password, where the account has one.
    pub password: Option<Password>,
}

/// An account that the page offers.
struct Offer {
    user_id: OwnedUserId,
    displayname: Option<String>,
    has_password: bool,
}

/// Whether this node offers single sign-on at all: not when it is published under an address
/// of its own, since a proxy on this machine makes everybody look local.
pub fn is_offered(hs: &Homeserver) -> bool {
    hs.limits.public_base_url.as_deref().is_none_or(visit::is_loopback_url)
}

/// The page that asks whether to log in, for a client that waits at `redirect_url`.
///
/// Spec: Client-Server API, "GET /login/sso/redirect".
///
/// # Errors
/// See [`SsoError`].
pub async fn ask(hs: &Homeserver, visit: &Visit, redirect_url: &str) -> Result<Answer, SsoError> {
    check_offered(hs)?;
    visit.check_navigation().map_err(SsoError::NotHere)?;
    let redirect_url = RedirectUrl::parse(redirect_url).ok_or(SsoError::BadRedirect)?;
    Ok(Answer::Page(new_page(hs, redirect_url, page::Notice::None).await?))
}

/// Takes the answer to the page, and sends the browser back to the client with a login token.
///
/// # Errors
/// See [`SsoError`].
pub async fn confirm(hs: &Homeserver, visit: &Visit, consent: Consent) -> Result<Answer, SsoError> {
    check_offered(hs)?;
    visit.check_same_origin().map_err(SsoError::NotHere)?;
    let (hash, now) = (sessions::hash(&consent.token), hs.clock.now());
    let subject = hs
        .store
        .write(move |txn| tokens::take_one_time(txn, &hash, Purpose::Consent, now))
        .await?
        .ok_or(SsoError::Expired)?;
    let redirect_url = RedirectUrl::parse(&subject).ok_or(SsoError::BadRedirect)?;
    let Some(user_id) = prove(hs, &consent.user, consent.password).await? else {
        let again = new_page(hs, redirect_url, page::Notice::WrongPassword).await?;
        return Ok(Answer::Page(again));
    };
    let token = Token::new(&hs.rng);
    let (hash, now) = (token.hash(), hs.clock.now());
    hs.store.write(move |txn| sessions::grant_login(txn, &hash, &user_id, now)).await?;
    Ok(Answer::Redirect(redirect_url.with_login_token(&token.into_text())))
}

fn check_offered(hs: &Homeserver) -> Result<(), SsoError> {
    if is_offered(hs) { Ok(()) } else { Err(SsoError::NotHere("this node has a public address")) }
}

async fn new_page(
    hs: &Homeserver,
    redirect_url: RedirectUrl,
    notice: page::Notice,
) -> Result<String, SsoError> {
    let token = Token::new(&hs.rng);
    let (hash, now) = (token.hash(), hs.clock.now());
    let subject = redirect_url.as_str().to_owned();
    hs.store
        .write(move |txn| {
            let expires_ts = timestamp(u64::from(now.get()) + CONSENT_TTL_MS);
            let grant = Grant { purpose: Purpose::Consent, subject: &subject, expires_ts };
            tokens::insert_one_time(txn, &hash, grant, now)
        })
        .await?;
    let offers = offers(hs).await?;
    Ok(page::render(&offers, &redirect_url, &token.into_text(), notice))
}

async fn offers(hs: &Homeserver) -> Result<Vec<Offer>, StoreError> {
    hs.store
        .read(|snap| {
            let mut offers = Vec::new();
            let active = users::list(snap)?.into_iter().filter(|user| !user.is_deactivated);
            for user in active.take(MAX_OFFERED) {
                let displayname = profiles::get(snap, &user.user_id)?.displayname;
                let has_password = user.password_hash.is_some();
                offers.push(Offer { user_id: user.user_id, displayname, has_password });
            }
            Ok(offers)
        })
        .await
}

/// The user, if there is such an account and it has no password or this one.
async fn prove(
    hs: &Homeserver,
    user: &str,
    password: Option<Password>,
) -> Result<Option<OwnedUserId>, SsoError> {
    let Ok(user_id) = UserId::parse(user) else { return Ok(None) };
    hs.limits.rates.check(RateKey::Login(user_id.to_string()), hs.clock.now())?;
    let known = user_id.clone();
    let Some(account) = hs.store.read(move |snap| users::find(snap, &known)).await? else {
        return Ok(None);
    };
    if account.password_hash.is_none() {
        return Ok(Some(user_id));
    }
    let Some(password) = password else { return Ok(None) };
    let right = accounts::check_password(hs, &user_id, password).await?;
    Ok(right.then_some(user_id))
}

impl From<accounts::SetPasswordError> for SsoError {
    fn from(error: accounts::SetPasswordError) -> Self {
        match error {
            accounts::SetPasswordError::UnknownUser => Self::Expired,
            accounts::SetPasswordError::Password(PasswordError::Busy) => Self::Busy,
            accounts::SetPasswordError::Password(error) => Self::Hashing(error.to_string()),
            accounts::SetPasswordError::Store(error) => Self::Store(error),
        }
    }
}

#[cfg(test)]
mod tests;
