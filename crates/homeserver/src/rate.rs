//! How fast clients may act, and servers may invite: token buckets, bounded in number.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use ruma::{MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedServerName, OwnedUserId};

use crate::RateLimits;

/// Buckets kept at once. A full bucket says nothing and is dropped first; a household needs
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
    buckets: Mutex<HashMap<RateKey, Bucket>>,
}

/// Tokens left when last looked at.
#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    seen_ms: u64,
}

/// Tokens a second, and how many at most.
#[derive(Clone, Copy)]
struct Pace {
    per_second: f64,
    full: f64,
}

impl RateLimiter {
    /// A limiter with these limits; `None` lets everything pass that clients do.
    pub fn new(limits: Option<RateLimits>) -> Self {
        Self { limits, buckets: Mutex::default() }
    }

    /// Takes one token.
    ///
    /// # Errors
    ///
    /// [`Limited`] when there is none.
    pub fn check(&self, key: RateKey, now: MilliSecondsSinceUnixEpoch) -> Result<(), Limited> {
        let limits = match self.limits {
            Some(limits) => limits,
            // The configuration is about our own clients; what others may do does not depend on it.
            None if key.is_of_a_client() => return Ok(()),
            None => RateLimits::default(),
        };
        let pace = Pace::of(&key, limits);
        let now_ms = u64::from(now.get());
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_BUCKETS && !buckets.contains_key(&key) {
            make_room(&mut buckets, limits, now_ms);
        }
        let bucket = buckets.entry(key).or_insert(Bucket { tokens: pace.full, seen_ms: now_ms });
        bucket.fill(pace, now_ms);
        if bucket.tokens < 1.0 {
            let wait_ms = (1.0 - bucket.tokens) / pace.per_second * 1000.0;
            return Err(Limited { retry_after_ms: whole(wait_ms.ceil()) });
        }
        bucket.tokens -= 1.0;
        Ok(())
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

impl Pace {
    fn of(key: &RateKey, limits: RateLimits) -> Self {
        match key {
            RateKey::Login(_) => {
                let per_minute = f64::from(limits.logins_per_minute);
                Self { per_second: per_minute / 60.0, full: per_minute }
            }
            RateKey::Message(_) => {
                let per_second = f64::from(limits.messages_per_second);
                Self { per_second, full: per_second * BURST_SECONDS }
            }
            RateKey::Invite(_) => Self { per_second: 1.0 / SECONDS_PER_INVITE, full: INVITES },
            RateKey::StrangeInvite => {
                Self { per_second: 1.0 / SECONDS_PER_STRANGE_INVITE, full: STRANGE_INVITES }
            }
            RateKey::Policy(_) => Self { per_second: POLICY_PER_SECOND, full: POLICIES },
            RateKey::Knock(_) => Self { per_second: 1.0 / SECONDS_PER_KNOCK, full: KNOCKS },
        }
    }
}

impl Bucket {
    fn fill(&mut self, pace: Pace, now_ms: u64) {
        let passed_ms = u32::try_from(now_ms.saturating_sub(self.seen_ms)).unwrap_or(u32::MAX);
        let earned = f64::from(passed_ms) / 1000.0 * pace.per_second;
        self.tokens = (self.tokens + earned).min(pace.full);
        self.seen_ms = now_ms;
    }
}

/// Drops the buckets that are full again, and all of them when none is: a flood of invented keys
/// costs the honest a fresh bucket and the node no memory.
fn make_room(buckets: &mut HashMap<RateKey, Bucket>, limits: RateLimits, now_ms: u64) {
    buckets.retain(|key, bucket| {
        let pace = Pace::of(key, limits);
        bucket.fill(pace, now_ms);
        bucket.tokens < pace.full
    });
    if buckets.len() >= MAX_BUCKETS {
        buckets.clear();
    }
}

/// A non-negative number of milliseconds without its fraction.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value is a wait of at most a minute"
)]
fn whole(ms: f64) -> u64 {
    ms as u64
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

    #[test]
    fn memory_is_bounded() {
        let limiter = RateLimiter::new(Some(LIMITS));
        for i in 0..3 * MAX_BUCKETS {
            limiter.check(RateKey::Login(i.to_string()), timestamp(0)).unwrap();
        }
        assert!(limiter.buckets.lock().unwrap().len() <= MAX_BUCKETS);
    }
}
