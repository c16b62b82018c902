//! What was asked for lately, by a SHA-256: bounded in entries and weight, without bookkeeping on a hit.

use std::collections::HashMap;

/// Two generations: when the young one is full it becomes the old one, and what was not asked for since is gone.
pub(super) struct Recent<V> {
    young: HashMap<[u8; 32], Weighed<V>>,
    old: HashMap<[u8; 32], Weighed<V>>,
    young_weight: usize,
    /// Of one generation.
    entries_max: usize,
    weight_max: usize,
}

#[derive(Clone)]
struct Weighed<V> {
    value: V,
    weight: usize,
}

impl<V: Clone> Recent<V> {
    /// `entries_max` and `weight_max` are of the whole.
    pub(super) fn new(entries_max: usize, weight_max: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            young_weight: 0,
            entries_max: entries_max / 2,
            weight_max: weight_max / 2,
        }
    }

    pub(super) fn get(&mut self, key: &[u8; 32]) -> Option<V> {
        if let Some(found) = self.young.get(key) {
            return Some(found.value.clone());
        }
        let Weighed { value, weight } = self.old.remove(key)?;
        self.insert(*key, value.clone(), weight);
        Some(value)
    }

    pub(super) fn insert(&mut self, key: [u8; 32], value: V, weight: usize) {
        self.remove(&key);
        if self.young.len() >= self.entries_max || self.young_weight + weight > self.weight_max {
            self.old = std::mem::take(&mut self.young);
            self.young_weight = 0;
        }
        self.young_weight += weight;
        self.young.insert(key, Weighed { value, weight });
    }

    pub(super) fn remove(&mut self, key: &[u8; 32]) {
        if let Some(removed) = self.young.remove(key) {
            self.young_weight -= removed.weight;
        }
        self.old.remove(key);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: usize) -> [u8; 32] {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&(id as u64).to_be_bytes());
        key
    }

    #[test]
    fn many_and_heavy_entries_stay_within_the_bounds() {
        let check = |weight: usize, expected: std::ops::RangeInclusive<usize>| {
            let mut recent = Recent::new(100, 10_000);
            for id in 0..1000 {
                recent.insert(key(id), (), weight);
                // The same again takes no more room.
                recent.insert(key(id), (), weight);
            }
            assert!(expected.contains(&recent.len()), "{weight}: {}", recent.len());
        };
        check(1, 50..=100);
        check(1000, 5..=10);
    }

    #[test]
    fn who_is_asked_for_often_enough_stays() {
        let mut recent = Recent::new(100, 10_000);
        recent.insert(key(0), 7, 1);
        for id in 1..1000 {
            recent.insert(key(id), 0, 1);
            if id % 40 == 0 {
                assert_eq!(recent.get(&key(0)), Some(7));
            }
        }
        assert_eq!(recent.get(&key(1)), None);
        recent.remove(&key(0));
        assert_eq!(recent.get(&key(0)), None);
    }
}
