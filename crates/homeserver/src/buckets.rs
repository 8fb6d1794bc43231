//! Token buckets for whatever has a name, bounded in number.

use std::{collections::HashMap, hash::Hash};

use crate::rate::Limited;

/// How fast something may happen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Tokens that come back in a second.
    pub(crate) per_second: f64,
    /// Tokens at most: what may happen at once after a pause.
    pub(crate) burst: f64,
}

/// A bucket for each key, all of one pace.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    pace: Pace,
    most: usize,
    buckets: HashMap<K, Bucket>,
}

/// Tokens left when last looked at.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    seen_ms: u64,
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    /// No bucket yet, and at most `most` of them: a full one says nothing and is dropped first.
    pub(crate) fn new(pace: Pace, most: usize) -> Self {
        Self { pace, most, buckets: HashMap::new() }
    }

    /// Takes one token, if there is one.
    pub(crate) fn take(&mut self, key: &K, now_ms: u64) -> bool {
        let bucket = self.bucket(key, now_ms);
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }

    /// Whether there is a token.
    pub(crate) fn has(&self, key: &K, now_ms: u64) -> bool {
        self.buckets.get(key).is_none_or(|bucket| bucket.at(self.pace, now_ms).tokens >= 1.0)
    }

    /// Takes one token.
    ///
    /// # Errors
    /// [`Limited`] when there is none.
    pub(crate) fn check(&mut self, key: &K, now_ms: u64) -> Result<(), Limited> {
        match self.take(key, now_ms) {
            true => Ok(()),
            false => Err(Limited { retry_after_ms: self.wait_ms(key, now_ms) }),
        }
    }

    /// Milliseconds until there is a token, rounded up.
    fn wait_ms(&self, key: &K, now_ms: u64) -> u64 {
        let tokens =
            self.buckets.get(key).map_or(1.0, |bucket| bucket.at(self.pace, now_ms).tokens);
        let missing = (1.0 - tokens).max(0.0);
        whole((missing / self.pace.per_second * 1000.0).ceil())
    }

    fn bucket(&mut self, key: &K, now_ms: u64) -> &mut Bucket {
        if self.buckets.len() >= self.most && !self.buckets.contains_key(key) {
            self.make_room(now_ms);
        }
        let full = Bucket { tokens: self.pace.burst, seen_ms: now_ms };
        let bucket = self.buckets.entry(key.clone()).or_insert(full);
        *bucket = bucket.at(self.pace, now_ms);
        bucket
    }

    /// Drops the full ones, and all of them where none is: a flood of keys costs the honest a fresh
    /// bucket, and the node no memory.
    fn make_room(&mut self, now_ms: u64) {
        let pace = self.pace;
        self.buckets.retain(|_, bucket| bucket.at(pace, now_ms).tokens < pace.burst);
        if self.buckets.len() >= self.most {
            self.buckets.clear();
        }
    }
}

impl Bucket {
    fn at(self, pace: Pace, now_ms: u64) -> Self {
        let passed_ms = u32::try_from(now_ms.saturating_sub(self.seen_ms)).unwrap_or(u32::MAX);
        let earned = f64::from(passed_ms) / 1000.0 * pace.per_second;
        Self { tokens: (self.tokens + earned).min(pace.burst), seen_ms: now_ms }
    }
}

/// A number of milliseconds without its fraction.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value is not negative, and one that is too large becomes the largest"
)]
fn whole(ms: f64) -> u64 {
    ms as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { per_second: 2.0, burst: 3.0 };

    #[test]
    fn a_bucket_empties_and_fills_again_for_itself() {
        let mut buckets = Buckets::new(PACE, 10);
        assert!((0..3).all(|_| buckets.take(&"a", 0)));
        assert!(!buckets.take(&"a", 0) && !buckets.has(&"a", 499));
        assert!(buckets.take(&"b", 0));
        assert_eq!(buckets.wait_ms(&"a", 0), 500);
        assert!(buckets.has(&"a", 500) && buckets.take(&"a", 500) && !buckets.take(&"a", 500));
        assert_eq!(buckets.wait_ms(&"c", 0), 0);
    }

    #[test]
    fn their_number_is_bounded_and_full_ones_go_first() {
        let mut buckets = Buckets::new(PACE, 3);
        for _ in 0..3 {
            buckets.take(&0, 0);
        }
        for key in 1..1_000 {
            buckets.take(&key, 1);
            assert!(buckets.buckets.len() <= 3);
        }
        let mut buckets = Buckets::new(PACE, 3);
        for _ in 0..3 {
            buckets.take(&0, 0);
        }
        buckets.take(&1, 0);
        buckets.take(&2, 0);
        // Half a second later only the first is not full.
        buckets.take(&3, 500);
        assert!(buckets.buckets.contains_key(&0) && !buckets.buckets.contains_key(&1));
    }
}
