//! How many callers there was no room to tell of, for as long as somebody may want to know it.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

const LATELY: Duration = Duration::from_secs(600);

/// The most of late. Whoever reads it between two stores reads a number that was true a moment ago.
#[derive(Debug, Default)]
pub struct LeftOut {
    most: AtomicU64,
    /// When there were any, on the clock of the boot; 0: never.
    at_ns: AtomicU64,
}

impl LeftOut {
    pub fn note(&self, count: usize, now_ns: u64) {
        if count == 0 {
            return;
        }
        let before = self.lately(now_ns);
        self.most.store(before.max(count as u64), Relaxed);
        self.at_ns.store(now_ns.max(1), Relaxed);
    }

    pub fn lately(&self, now_ns: u64) -> u64 {
        let at_ns = self.at_ns.load(Relaxed);
        let is_late = at_ns > 0 && Duration::from_nanos(now_ns.saturating_sub(at_ns)) < LATELY;
        if is_late { self.most.load(Relaxed) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_of_the_last_ten_minutes_is_told() {
        let it = LeftOut::default();
        let at = |seconds: u64| seconds * 1_000_000_000;
        assert_eq!(it.lately(at(0)), 0);
        it.note(7, at(0));
        it.note(0, at(1));
        it.note(3, at(2));
        assert_eq!((it.lately(at(3)), it.lately(at(601)), it.lately(at(602))), (7, 7, 0));
        it.note(2, at(700));
        assert_eq!(it.lately(at(700)), 2, "what was before is over");
    }
}
