//! How often each address, or known caller, was refused lately, by the admin API or as a joiner: who guesses is slowed down,
//! and nobody fills the log or the trail of denials.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Refused calls, or joins, of one address within `FAILURES_WITHIN`; beyond, they are neither explained nor logged one by one.
pub const FAILURES_MAX: u32 = 20;
pub const FAILURES_WITHIN: Duration = Duration::from_secs(60);
const KEYS_MAX: usize = 1024;

/// How often calls of an address, or of whatever `K` names, were refused lately.
pub struct Failures<K = IpAddr> {
    by_key: HashMap<K, (Instant, u32)>,
}

impl<K> Default for Failures<K> {
    fn default() -> Self {
        Self { by_key: HashMap::new() }
    }
}

impl<K: Eq + Hash> Failures<K> {
    /// Counts one more; returns how many there were before within the window.
    pub fn count(&mut self, key: K, now: Instant) -> u32 {
        let over = |since: Instant| now.saturating_duration_since(since) >= FAILURES_WITHIN;
        if self.by_key.len() >= KEYS_MAX && !self.by_key.contains_key(&key) {
            self.by_key.retain(|_, (since, _)| !over(*since));
            // Still full: this one counts as refused too often, the table does not grow.
            if self.by_key.len() >= KEYS_MAX {
                return FAILURES_MAX + 1;
            }
        }
        let entry = self.by_key.entry(key).or_insert((now, 0));
        if over(entry.0) {
            *entry = (now, 0);
        }
        entry.1 += 1;
        entry.1 - 1
    }

    /// Whether the next refusal of a key is one too many, without counting one.
    pub fn are_too_many(&self, key: K, now: Instant) -> bool {
        match self.by_key.get(&key) {
            Some((since, count)) => now.saturating_duration_since(*since) < FAILURES_WITHIN && *count >= FAILURES_MAX,
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn failures_are_counted_per_address_and_forgotten_after_a_minute() {
        let mut failures = Failures::default();
        let now = Instant::now();
        let [a, b] = [1, 2].map(|last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)));
        assert_eq!([failures.count(a, now), failures.count(a, now), failures.count(b, now)], [0, 1, 0]);
        (2..FAILURES_MAX).for_each(|before| assert_eq!(failures.count(a, now), before));
        let later = now + FAILURES_WITHIN;
        assert_eq!(
            [(a, now), (b, now), (a, later)].map(|(it, at)| failures.are_too_many(it, at)),
            [true, false, false]
        );
        assert_eq!(failures.count(a, later), 0);
    }

    #[test]
    fn the_table_of_failures_does_not_grow_without_end() {
        let mut failures = Failures::default();
        let now = Instant::now();
        for number in 0..2000u32 {
            failures.count(IpAddr::V4(Ipv4Addr::from_bits(number)), now);
        }
        assert_eq!(failures.by_key.len(), KEYS_MAX);
    }
}
