//! Who guesses passwords is slowed down: wrong ones are counted by user and by client address, in a bounded table.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
};

/// Wrong passwords in one window after which no more are looked at.
const PER_USER_MAX: u32 = 10;
const PER_ADDRESS_MAX: u32 = 30;
const WINDOW_S: u64 = 60;
/// Users and addresses that are remembered, in two generations.
const ENTRIES_MAX: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Guard {
    /// Keyed anew in each process: nobody can aim at another's count.
    hasher: RandomState,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    young: HashMap<u64, Count>,
    old: HashMap<u64, Count>,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    wrong: u32,
    since_s: u64,
}

impl Guard {
    /// Counts a guess at the user for wrong until it turns out right: those that are looked at at the same time are no
    /// more than so many. An address counts when it was wrong, since many may share one. Err: seconds until the next
    /// guess is looked at.
    pub(crate) fn admit(&self, user: &str, ip: IpAddr, now_s: u64) -> Result<(), u64> {
        let of_user = self.of_user(user);
        let mut counts = self.counts();
        for (key, max) in [(of_user, PER_USER_MAX), (self.of_address(ip), PER_ADDRESS_MAX)] {
            if let Some(count) = counts.find(key, now_s).filter(|count| count.wrong >= max) {
                return Err((count.since_s + WINDOW_S).saturating_sub(now_s).max(1));
            }
        }
        counts.add(of_user, now_s);
        Ok(())
    }

    /// Of a guess that was admitted.
    pub(crate) fn was_right(&self, user: &str, now_s: u64) {
        self.counts().take_back(self.of_user(user), now_s);
    }

    /// Of a guess that was admitted.
    pub(crate) fn was_wrong(&self, ip: IpAddr, now_s: u64) {
        self.counts().add(self.of_address(ip), now_s);
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of_user(&self, user: &str) -> u64 {
        self.hasher.hash_one(('u', user))
    }

    /// Whoever has one address of a /64 has them all.
    fn of_address(&self, ip: IpAddr) -> u64 {
        let network = match ip {
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
            v4 => v4,
        };
        self.hasher.hash_one(('a', network))
    }
}

impl Counts {
    fn find(&self, key: u64, now_s: u64) -> Option<Count> {
        let count = self.young.get(&key).or_else(|| self.old.get(&key)).copied()?;
        (now_s < count.since_s + WINDOW_S).then_some(count)
    }

    fn add(&mut self, key: u64, now_s: u64) {
        let count = self.find(key, now_s).unwrap_or(Count { wrong: 0, since_s: now_s });
        self.put(key, Count { wrong: count.wrong + 1, ..count });
    }

    fn take_back(&mut self, key: u64, now_s: u64) {
        if let Some(count) = self.find(key, now_s) {
            self.put(key, Count { wrong: count.wrong.saturating_sub(1), ..count });
        }
    }

    fn put(&mut self, key: u64, count: Count) {
        if self.young.len() >= ENTRIES_MAX / 2 && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_and_an_address_have_so_many_guesses() {
        let guard = Guard::default();
        let ip = |n: u32| IpAddr::from(n.to_be_bytes());
        for n in 0..PER_USER_MAX {
            // Whoever is right is not counted.
            assert_eq!(guard.admit("ann", ip(98), 100), Ok(()));
            guard.was_right("ann", 100);
            assert_eq!(guard.admit("ann", ip(n), 100), Ok(()));
            guard.was_wrong(ip(n), 100);
        }
        assert_eq!(guard.admit("ann", ip(99), 100), Err(60));
        assert_eq!(guard.admit("ann", ip(99), 159), Err(1));
        assert_eq!(guard.admit("bob", ip(1), 100), Ok(()));
        assert_eq!(guard.admit("ann", ip(99), 160), Ok(()));
        for n in 0..PER_ADDRESS_MAX {
            assert_eq!(guard.admit(&format!("user-{n}"), ip(7), 200), Ok(()));
            guard.was_wrong(ip(7), 200);
        }
        assert_eq!(guard.admit("carol", ip(7), 230), Err(30));
        let of_v6 = |text: &str| text.parse::<IpAddr>().unwrap();
        for n in 0..PER_ADDRESS_MAX {
            guard.was_wrong(of_v6(&format!("2001:db8::{n:x}")), 300);
        }
        assert!(guard.admit("carol", of_v6("2001:db8::ffff"), 300).is_err());
        assert!(guard.admit("carol", of_v6("2001:db8:0:1::1"), 300).is_ok());
    }

    #[test]
    fn the_table_is_bounded() {
        let mut counts = Counts::default();
        for key in 0..3 * ENTRIES_MAX as u64 {
            counts.put(key, Count { wrong: 1, since_s: 0 });
        }
        assert!(counts.young.len() + counts.old.len() <= ENTRIES_MAX);
    }
}
