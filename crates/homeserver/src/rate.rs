//! How fast clients may act, and servers may invite: token buckets, bounded in number.

use std::{
    fmt,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

use ruma::{MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedServerName, OwnedUserId};

use crate::{
    RateLimits,
    buckets::{Buckets, Pace},
};

/// Buckets of one kind kept at once. A full bucket says nothing and is dropped first; a household needs
/// tens, and 10,000 cost about 2 MB.
const MAX_BUCKETS: usize = 10_000;

/// Seconds' worth of tokens that a full bucket holds: a burst after a pause is ordinary.
const BURST_SECONDS: f64 = 10.0;

/// Invites of one server at once, and how long one more takes: somebody brings a friend into all of
/// their rooms. Each may leave 128 KiB behind.
const INVITES: f64 = 100.0;
const SECONDS_PER_INVITE: f64 = 5.0;

/// The same for all servers together that share no room with us: identities cost nothing, so only
/// their sum can be bounded. At most 180 MiB a day stay.
const STRANGE_INVITES: f64 = 60.0;
const SECONDS_PER_STRANGE_INVITE: f64 = 60.0;

/// Knocks on one room at once, and how long one more takes: each is an event that stays in the room,
/// and whoever knocks needs no more than a name of their own making.
const KNOCKS: f64 = 60.0;
const SECONDS_PER_KNOCK: f64 = 30.0;

/// Events of one sender, or asked for by one server, that are recommended at once, and how many more
/// in a second: a busy bridge sends some, a flood many more.
const POLICIES: f64 = 100.0;
const POLICY_PER_SECOND: f64 = 10.0;

/// Who acts, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RateKey {
    /// A log-in or a registration; the text is the account or the client's address.
    Login(String),
    /// An event sent by a user.
    Message(OwnedUserId),
    /// An invite by a server that shares a room with us.
    Invite(OwnedServerName),
    /// An invite by any other server.
    StrangeInvite,
    /// A knock on a room from outside.
    Knock(OwnedRoomId),
    /// An event that this server is to recommend as a policy server; the text is its sender, or the
    /// server that asks.
    Policy(String),
}

/// Too fast: the time after which one more is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests; try again in {retry_after_ms} ms")]
pub struct Limited {
    /// Milliseconds to wait.
    pub retry_after_ms: u64,
}

/// Token buckets for everybody.
pub struct RateLimiter {
    limits: Option<RateLimits>,
    kinds: Mutex<Kinds>,
}

/// The buckets, by what is done.
struct Kinds {
    logins: Buckets<String>,
    messages: Buckets<OwnedUserId>,
    invites: Buckets<OwnedServerName>,
    strange_invites: Buckets<()>,
    knocks: Buckets<OwnedRoomId>,
    policies: Buckets<String>,
}

impl RateLimiter {
    /// A limiter with these limits; `None` lets everything pass that clients do.
    pub fn new(limits: Option<RateLimits>) -> Self {
        Self { limits, kinds: Mutex::new(Kinds::new(limits.unwrap_or_default())) }
    }

    /// Takes one token.
    ///
    /// # Errors
    ///
    /// [`Limited`] when there is none.
    pub fn check(&self, key: RateKey, now: MilliSecondsSinceUnixEpoch) -> Result<(), Limited> {
        // The configuration is about our own clients; what others may do does not depend on it.
        if self.limits.is_none() && key.is_of_a_client() {
            return Ok(());
        }
        let now_ms = u64::from(now.get());
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        match key {
            RateKey::Login(who) => kinds.logins.check(&who, now_ms),
            RateKey::Message(user_id) => kinds.messages.check(&user_id, now_ms),
            RateKey::Invite(server) => kinds.invites.check(&server, now_ms),
            RateKey::StrangeInvite => kinds.strange_invites.check(&(), now_ms),
            RateKey::Knock(room_id) => kinds.knocks.check(&room_id, now_ms),
            RateKey::Policy(who) => kinds.policies.check(&who, now_ms),
        }
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl RateKey {
    /// Whether a client of this node acts, and no other server.
    fn is_of_a_client(&self) -> bool {
        matches!(self, Self::Login(_) | Self::Message(_))
    }
}

impl Kinds {
    fn new(limits: RateLimits) -> Self {
        let (logins, messages) =
            (f64::from(limits.logins_per_minute), f64::from(limits.messages_per_second));
        Self {
            logins: buckets(logins / 60.0, logins),
            messages: buckets(messages, messages * BURST_SECONDS),
            invites: buckets(1.0 / SECONDS_PER_INVITE, INVITES),
            strange_invites: buckets(1.0 / SECONDS_PER_STRANGE_INVITE, STRANGE_INVITES),
            knocks: buckets(1.0 / SECONDS_PER_KNOCK, KNOCKS),
            policies: buckets(POLICY_PER_SECOND, POLICIES),
        }
    }
}

fn buckets<K: Hash + Eq + Clone>(per_second: f64, burst: f64) -> Buckets<K> {
    Buckets::new(Pace { per_second, burst }, MAX_BUCKETS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::timestamp;

    const LIMITS: RateLimits = RateLimits { logins_per_minute: 2, messages_per_second: 1 };

    fn login() -> RateKey {
        RateKey::Login("anna".to_owned())
    }

    #[test]
    fn a_bucket_empties_and_fills_again() {
        let limiter = RateLimiter::new(Some(LIMITS));
        assert_eq!(limiter.check(login(), timestamp(0)), Ok(()));
        assert_eq!(limiter.check(login(), timestamp(0)), Ok(()));
        let limited = limiter.check(login(), timestamp(0)).unwrap_err();
        assert_eq!(limited.retry_after_ms, 30_000);
        assert!(limiter.check(login(), timestamp(29_000)).is_err());
        assert_eq!(limiter.check(login(), timestamp(30_000)), Ok(()));
    }

    #[test]
    fn one_does_not_pay_for_another() {
        let limiter = RateLimiter::new(Some(LIMITS));
        for _ in 0..2 {
            limiter.check(login(), timestamp(0)).unwrap();
        }
        assert_eq!(limiter.check(RateKey::Login("bob".to_owned()), timestamp(0)), Ok(()));
    }

    #[test]
    fn strangers_together_invite_slowly() {
        let limiter = RateLimiter::new(Some(LIMITS));
        for _ in 0..60 {
            limiter.check(RateKey::StrangeInvite, timestamp(0)).unwrap();
        }
        let limited = limiter.check(RateKey::StrangeInvite, timestamp(0)).unwrap_err();
        assert_eq!(limited.retry_after_ms, 60_000);
    }

    #[test]
    fn without_limits_everything_passes() {
        let limiter = RateLimiter::new(None);
        for _ in 0..10_000 {
            limiter.check(login(), timestamp(0)).unwrap();
        }
    }
}
