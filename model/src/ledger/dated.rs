//! Slots that come free at instants of the log clock: a short sorted list, in grains so that it stays short.

use super::command::Dated;

/// A window is cut into this many grains; instants are rounded up to them.
const GRAINS: u64 = 256;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Schedule {
    /// (instant, slots), soonest first, no instant twice.
    entries: Vec<(u64, u64)>,
}

impl Schedule {
    pub fn add(&mut self, at_us: u64, count: u64, window_us: u64) {
        if count == 0 {
            return;
        }
        let grain = window_us.div_ceil(GRAINS).max(1);
        let at_us = at_us.div_ceil(grain) * grain;
        match self.entries.binary_search_by_key(&at_us, |(at, _)| *at) {
            Ok(n) => self.entries[n].1 += count,
            Err(n) => self.entries.insert(n, (at_us, count)),
        }
    }

    /// As it was stored: for records that are read back.
    pub fn push(&mut self, at_us: u64, count: u64) {
        self.add(at_us, count, 1);
    }

    /// What has come free by now.
    pub fn take_due(&mut self, now_us: u64) -> u64 {
        let due = self.entries.partition_point(|(at, _)| *at <= now_us);
        self.entries.drain(..due).map(|(_, count)| count).sum()
    }

    /// The soonest `count` of them, or all.
    pub fn take_soonest(&mut self, count: u64, now_us: u64) -> Vec<Dated> {
        let mut left = count;
        let mut taken = Vec::new();
        for (at, n) in &mut self.entries {
            let part = left.min(*n);
            if part == 0 {
                break;
            }
            *n -= part;
            left -= part;
            taken.push(Dated { in_us: at.saturating_sub(now_us), count: part });
        }
        self.entries.retain(|(_, n)| *n > 0);
        taken
    }

    /// The latest `count` of them, or all: instants and slots.
    pub fn take_latest(&mut self, count: u64) -> Vec<(u64, u64)> {
        let mut left = count;
        let mut taken = Vec::new();
        while let Some((at_us, n)) = self.entries.last_mut().filter(|_| left > 0) {
            let part = left.min(*n);
            *n -= part;
            left -= part;
            taken.push((*at_us, part));
            if *n == 0 {
                self.entries.pop();
            }
        }
        taken
    }

    /// All of them so much later, but none is put off beyond `latest_us`.
    pub(super) fn delay(&mut self, by_us: u64, latest_us: u64) {
        for (at_us, count) in std::mem::take(&mut self.entries) {
            self.push(at_us.max(at_us.saturating_add(by_us).min(latest_us)), count);
        }
    }

    /// How many come free by then.
    pub(super) fn count_until(&self, until_us: u64) -> u64 {
        self.entries.iter().take_while(|(at, _)| *at <= until_us).map(|(_, count)| count).sum()
    }

    pub fn total(&self) -> u64 {
        self.entries.iter().map(|(_, count)| count).sum()
    }

    pub fn first_us(&self) -> Option<u64> {
        self.entries.first().map(|(at, _)| *at)
    }

    pub fn last_us(&self) -> Option<u64> {
        self.entries.last().map(|(at, _)| *at)
    }

    pub fn entries(&self) -> &[(u64, u64)] {
        &self.entries
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
