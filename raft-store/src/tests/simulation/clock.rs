//! A member's own clock, and the log's as it goes on while this member leads. All clocks show something else, and none runs
//! exactly as the others do.

use std::sync::{Arc, Mutex};

use quorumgate_model::{NodeId, command::Stamp, ledger::time::LogClock};
use tokio::time::Instant;

const MILLION: u64 = 1_000_000;
/// How much faster one clock runs than the next slower one, of a million; of `SPEEDS` speeds none is 500 ppm off another.
const DRIFT_PPM: u64 = 100;
const SPEEDS: u64 = 5;

#[derive(Clone)]
pub struct Clock {
    node: NodeId,
    begun: Instant,
    /// The term that the member led last, and the log's clock in it.
    leading: Arc<Mutex<Option<(u64, LogClock)>>>,
}

impl Clock {
    pub fn of(node: NodeId, begun: Instant) -> Self {
        Self { node, begun, leading: Arc::default() }
    }

    /// Microseconds since this clock began, which is another moment for each.
    pub fn now_us(&self) -> u64 {
        let real_us = self.real_us();
        let fast_us = real_us * (self.node % SPEEDS) * DRIFT_PPM / MILLION;
        real_us + fast_us + (100 + self.node % 50 * 7) * MILLION
    }

    /// Microseconds since the world began.
    pub fn real_us(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    /// For an entry of this term, whose leader has applied all of earlier terms; `applied_us` is the state's clock.
    pub fn stamp(&self, term: u64, applied_us: u64) -> Stamp {
        let now_us = self.now_us();
        let mut leading = self.leading.lock().unwrap();
        let clock = match *leading {
            Some((led, clock)) if led == term => clock,
            _ => LogClock::lead(applied_us, now_us),
        };
        *leading = Some((term, clock));
        Stamp { clock_us: clock.stamp(now_us), wall_ms: 0 }
    }
}
