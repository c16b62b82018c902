//! The log clock: what the leader stamps entries with. Goes on from the last applied stamp by this node's own
//! CLOCK_BOOTTIME, so that it may lag and never runs fast, whatever the wall clocks do.

use std::{
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use quorumgate_model::command::Stamp;
use quorumgate_proxy::freshness::boottime_ns;

pub(super) struct LogClock {
    base: Mutex<Base>,
}

struct Base {
    clock_us: u64,
    boottime_ns: u64,
}

impl LogClock {
    pub(super) fn starting_at(clock_us: u64) -> Self {
        Self { base: Mutex::new(Base { clock_us, boottime_ns: boottime_ns() }) }
    }

    /// An entry with this stamp has been applied.
    pub(super) fn applied(&self, clock_us: u64) {
        self.applied_at(clock_us, boottime_ns());
    }

    pub(super) fn now_us(&self) -> u64 {
        self.at(boottime_ns())
    }

    pub(super) fn stamp(&self) -> Stamp {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Stamp { clock_us: self.now_us(), wall_ms: wall.as_millis() as u64 }
    }

    fn applied_at(&self, clock_us: u64, now_ns: u64) {
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        if clock_us > base.at(now_ns) {
            *base = Base { clock_us, boottime_ns: now_ns };
        }
    }

    fn at(&self, now_ns: u64) -> u64 {
        self.base.lock().unwrap_or_else(PoisonError::into_inner).at(now_ns)
    }
}

impl Base {
    fn at(&self, now_ns: u64) -> u64 {
        self.clock_us + now_ns.saturating_sub(self.boottime_ns) / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_furthest_stamp_and_its_own_time() {
        let clock = LogClock { base: Mutex::new(Base { clock_us: 100, boottime_ns: 0 }) };
        assert_eq!(clock.at(5_000), 105);
        clock.applied_at(103, 5_000);
        assert_eq!(clock.at(5_000), 105, "an old stamp does not turn it back");
        clock.applied_at(500, 6_000);
        assert_eq!(clock.at(8_000), 502);
    }
}
