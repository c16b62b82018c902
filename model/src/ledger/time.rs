//! Lengths of time as clocks of different nodes measure them, and the clock that the log itself keeps.
//!
//! Why sums of readings work: if every clock is at most ρ fast, then x µs read on one clock and later y µs read on
//! another are at least (x + y) / (1 + ρ) of real time, however the two parts follow each other. So a rest of W(1 + ρ)
//! may be begun on a node's clock, go on in the log's and end on another node's.

use super::bucket::DRIFT_PPM;

const MILLION: u64 = 1_000_000;

/// W(1 + ρ), rounded up: as long as this has passed on any clock, W has passed.
pub fn rested(window_us: u64) -> u64 {
    window_us + (window_us * DRIFT_PPM).div_ceil(MILLION)
}

/// When the log declares a session over: h(1 + 2ρ) after the stamp of its last renewal.
pub fn session_end(renewed_us: u64, length_us: u64) -> u64 {
    renewed_us + length_us + (2 * length_us * DRIFT_PPM).div_ceil(MILLION)
}

/// How long a holder spends after it *sent* a renewal that was applied: h(1 − ρ). It stops before `session_end`.
pub fn spends_for(length_us: u64) -> u64 {
    length_us - (length_us * DRIFT_PPM).div_ceil(MILLION)
}

/// How long after it sent a renewal a holder uses again what has come free: seven tenths of what `spends_for` says. What
/// rests longer than that is certain not to be used again before the session ends, so a dead node takes less with it; and it
/// is longer than an election takes.
pub fn reuses_for(length_us: u64) -> u64 {
    spends_for(length_us) / 10 * 7
}

/// A slot that rests so long from the sending of a renewal on is not used again under it.
pub fn certain_in(length_us: u64) -> u64 {
    length_us / 10 * 7
}

/// The log clock of one leadership. It goes on from the last stamp that was applied before, by the leader's own
/// monotonic time, so it may lag and never runs fast.
///
/// Both its rules matter. It begins when the leader has applied *everything* of earlier terms, at the last applied
/// stamp even where its own earlier reading was further ahead: another leader may have lagged since, and a jump back to
/// the old reading would make log time run faster than real time. And a stamp is good in its own term only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogClock {
    stamp_us: u64,
    at_us: u64,
}

impl LogClock {
    /// The leader has applied all of earlier terms; `applied_us` is the last stamp there, and at `at_us` of its own clock,
    /// or before, it had applied that.
    pub fn lead(applied_us: u64, at_us: u64) -> Self {
        Self { stamp_us: applied_us, at_us }
    }

    pub fn stamp(&self, now_us: u64) -> u64 {
        self.stamp_us + now_us.saturating_sub(self.at_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_stops_before_the_log_says_so() {
        let (h, rho) = (5_000_000u64, DRIFT_PPM);
        // The slowest clock of a holder against the fastest log clock, in real time.
        let holder = spends_for(h) * MILLION / (MILLION - rho);
        let log = session_end(0, h) * MILLION / (MILLION + rho);
        assert!(holder < log, "{holder} {log}");
    }

    #[test]
    fn a_new_leader_goes_on_from_the_last_stamp_whatever_it_read_before() {
        let first = LogClock::lead(0, 1_000);
        assert_eq!(first.stamp(1_500), 500);
        let again = LogClock::lead(200, 1_500);
        assert_eq!(again.stamp(1_600), 300);
    }
}
