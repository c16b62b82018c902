//! The log clock as the request path reads it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Goes on from the last stamp that was published, by this node's own time, while nothing is written; so it follows a leader
/// that lags behind the one before it back, and what entries give a length to lasts for as long. One publisher tells it,
/// readers lock nothing. Microseconds.
#[derive(Debug, Default)]
pub(super) struct LogClock {
    /// One more than the last stamp; 0: none was told.
    told: AtomicU64,
    /// The clock's lead over CLOCK_BOOTTIME, wrapping.
    lead: AtomicU64,
}

impl LogClock {
    /// The state has this stamp; `now_us` is CLOCK_BOOTTIME.
    pub(super) fn told(&self, stamp_us: u64, now_us: u64) {
        // The same state told again, later, would turn the clock back.
        if stamp_us >= self.told.load(Ordering::Relaxed) {
            self.lead.store(stamp_us.wrapping_sub(now_us), Ordering::Release);
            self.told.store(stamp_us + 1, Ordering::Relaxed);
        }
    }

    pub(super) fn at(&self, now_us: u64) -> u64 {
        now_us.wrapping_add(self.lead.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_from_the_last_stamp_even_where_that_lags() {
        let clock = LogClock::default();
        clock.told(100, 1_000);
        assert_eq!(clock.at(1_005), 105);
        clock.told(100, 1_005);
        assert_eq!(clock.at(1_005), 105, "the same state again");
        // An outage: the next leader goes on from what it had applied, as if no time had passed.
        clock.told(110, 23_000);
        assert_eq!(clock.at(23_001), 111);
    }
}
