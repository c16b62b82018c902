//! The log clock, by this node's own CLOCK_BOOTTIME, so that it may lag and never runs fast, whatever the wall clocks do.
//!
//! What is *read* goes on from the last stamp that was applied, by this node's own time since it saw that. A new leader may
//! lag behind the one before it, by all the time of an outage if it learned only then what was committed; so the reading
//! follows its first stamp back. Held ahead of the stamps, it would count what they give a length to (a revocation, a ban,
//! a key's life) as over before it began.
//!
//! What entries are *stamped* with goes on, in each term, from the last stamp of earlier terms: a leader that went on from
//! its own earlier reading would jump ahead of a leader in between that lagged, and log time between two entries would be
//! longer than real time.

use std::{
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use quorumgate_model::{command::Stamp, ledger};
use quorumgate_proxy::freshness::boottime_ns;

pub(super) struct LogClock {
    /// The last stamp that was applied, and when that was seen.
    last: Mutex<Last>,
    /// The term that this node leads or led, and the clock of it.
    leading: Mutex<Option<(u64, ledger::time::LogClock)>>,
}

struct Last {
    clock_us: u64,
    boottime_ns: u64,
}

impl LogClock {
    pub(super) fn starting_at(clock_us: u64) -> Self {
        let last = Last { clock_us, boottime_ns: boottime_ns() };
        Self { last: Mutex::new(last), leading: Mutex::new(None) }
    }

    /// An entry with this stamp has been applied.
    pub(super) fn applied(&self, clock_us: u64) {
        self.applied_at(clock_us, boottime_ns());
    }

    pub(super) fn now_us(&self) -> u64 {
        self.at(boottime_ns())
    }

    /// For an entry of this term, whose leader has applied all of earlier terms; `applied_us` is the state's clock.
    pub(super) fn stamp(&self, term: u64, applied_us: u64) -> Stamp {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Stamp { clock_us: self.stamp_us(term, applied_us, boottime_ns()), wall_ms: wall.as_millis() as u64 }
    }

    fn stamp_us(&self, term: u64, applied_us: u64, now_ns: u64) -> u64 {
        let mut leading = self.leading.lock().unwrap_or_else(PoisonError::into_inner);
        let clock = match *leading {
            Some((led, clock)) if led == term => clock,
            _ => {
                let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                // Time that passed without entries counts from when the last one was seen.
                let since_ns = if last.clock_us == applied_us { last.boottime_ns } else { now_ns };
                ledger::time::LogClock::lead(applied_us, since_ns / 1_000)
            }
        };
        *leading = Some((term, clock));
        clock.stamp(now_ns / 1_000)
    }

    fn applied_at(&self, clock_us: u64, now_ns: u64) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // The same stamp seen again, later, is no news.
        if clock_us > last.clock_us {
            *last = Last { clock_us, boottime_ns: now_ns };
        }
    }

    fn at(&self, now_ns: u64) -> u64 {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).at(now_ns)
    }
}

impl Last {
    fn at(&self, now_ns: u64) -> u64 {
        self.clock_us + now_ns.saturating_sub(self.boottime_ns) / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl LogClock {
        fn at_zero(clock_us: u64) -> Self {
            Self { last: Mutex::new(Last { clock_us, boottime_ns: 0 }), leading: Mutex::new(None) }
        }
    }

    #[test]
    fn it_goes_on_from_the_last_stamp_by_its_own_time() {
        let clock = LogClock::at_zero(100);
        assert_eq!(clock.at(5_000), 105);
        clock.applied_at(100, 5_000);
        assert_eq!(clock.at(5_000), 105, "the same stamp again does not turn it back");
        clock.applied_at(500, 6_000);
        assert_eq!(clock.at(8_000), 502);
    }

    #[test]
    fn it_is_never_ahead_of_a_leader_that_lags() {
        let second = 1_000_000_000;
        let clock = LogClock::at_zero(10_000_000);
        assert_eq!(clock.at(22 * second), 32_000_000);
        // After an outage of 22 s another leads, which had not known before that the last entry was committed.
        clock.applied_at(10_100_000, 22 * second);
        assert_eq!(clock.at(22 * second), 10_100_000, "what is given 20 s now holds for 20 s");
        assert_eq!(clock.at(42 * second), 30_100_000);
    }

    #[test]
    fn a_leader_that_leads_again_does_not_jump_ahead_of_the_one_between() {
        let clock = LogClock::at_zero(0);
        let second = 1_000_000_000;
        assert_eq!(clock.stamp_us(1, 0, second), 1_000_000, "idle time counts");
        assert_eq!(clock.stamp_us(1, 7, 3 * second), 3_000_000, "within a term by its own time alone");
        // Another led in term 2, lagged, and stamped 500 ms last.
        assert_eq!(clock.stamp_us(3, 2_500_000, 9 * second), 2_500_000);
        assert_eq!(clock.stamp_us(3, 2_500_000, 10 * second), 3_500_000);
    }
}
