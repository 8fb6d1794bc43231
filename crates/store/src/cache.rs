//! A bounded map for what is immutable and cheaper to keep than to read again.

use std::{
    collections::HashMap,
    hash::Hash,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Keeps what was used lately, up to a total weight.
///
/// Two generations: a full young one replaces the old one, and what is read from
/// the old one moves to the young one. So an entry that is used stays, nothing is
/// ordered, and each operation is one or two hash look-ups.
pub(crate) struct Cache<K, V> {
    /// Of each generation; both together are twice that.
    max_weight: usize,
    generations: Mutex<Generations<K, V>>,
}

struct Generations<K, V> {
    young: HashMap<K, (V, usize)>,
    old: HashMap<K, (V, usize)>,
    young_weight: usize,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    /// A cache that holds at most `max_weight`, in whatever unit `insert` uses.
    pub(crate) fn new(max_weight: usize) -> Self {
        let generations =
            Generations { young: HashMap::new(), old: HashMap::new(), young_weight: 0 };
        Self { max_weight: max_weight / 2, generations: Mutex::new(generations) }
    }

    /// The value, if it is still here.
    pub(crate) fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let mut generations = self.lock();
        if let Some((value, _)) = generations.young.get(key) {
            return Some(value.clone());
        }
        let (key, (value, weight)) = generations.old.remove_entry(key)?;
        self.put(&mut generations, key, value.clone(), weight);
        Some(value)
    }

    /// Adds or replaces a value. What weighs more than a generation is not kept.
    pub(crate) fn insert(&self, key: K, value: V, weight: usize) {
        self.put(&mut self.lock(), key, value, weight);
    }

    fn put(&self, generations: &mut Generations<K, V>, key: K, value: V, weight: usize) {
        if weight > self.max_weight {
            return;
        }
        if generations.young_weight + weight > self.max_weight {
            generations.old = mem::take(&mut generations.young);
            generations.young_weight = 0;
        }
        generations.young_weight += weight;
        if let Some((_, replaced)) = generations.young.insert(key, (value, weight)) {
            generations.young_weight -= replaced;
        }
    }

    /// A panic elsewhere cannot leave a map of immutable values half-changed in a way that matters.
    fn lock(&self) -> MutexGuard<'_, Generations<K, V>> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Cache;

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let cache = Cache::new(100);
        cache.insert(0, "used", 1);
        for key in 1..10_000 {
            cache.insert(key, "once", 1);
            assert_eq!(cache.get(&0), Some("used"));
        }
        let kept = (0..10_000).filter(|key| cache.get(key).is_some()).count();
        assert!(kept <= 100, "{kept}");
    }

    #[test]
    fn what_is_too_heavy_is_not_kept() {
        let cache = Cache::new(100);
        cache.insert(1, "heavy", 51);
        assert_eq!(cache.get(&1), None);
    }
}
