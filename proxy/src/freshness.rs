//! Until when this node may trust what it knows: set by the control plane's probes, read by every exchange on a route
//! with `on_stale: deny`.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use quorumgate_model::mutants::{self, Mutant};

/// A deadline on CLOCK_BOOTTIME, in nanoseconds. Starts stale.
#[derive(Debug, Default)]
pub struct Freshness {
    until_ns: AtomicU64,
}

impl Freshness {
    /// Only ever moves forward.
    pub fn extend(&self, until_ns: u64) {
        self.until_ns.fetch_max(until_ns, Ordering::Release);
    }

    pub fn is_fresh(&self) -> bool {
        self.is_fresh_at(boottime_ns())
    }

    /// At an instant of this node's CLOCK_BOOTTIME, nanoseconds.
    pub fn is_fresh_at(&self, now_ns: u64) -> bool {
        now_ns < self.until_ns.load(Ordering::Acquire)
    }
}

/// A question to the leader that is under way. It counts from the moment it was *sent*, which makes the bound true
/// whatever the network does: what was committed before that moment is in the index that answers it.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    sent_ns: u64,
}

impl Probe {
    pub fn sent_at(now_ns: u64) -> Self {
        Self { sent_ns: now_ns }
    }

    /// The index of the answer is visible to every look-up now.
    pub fn served(self, freshness: &Freshness, max_staleness: Duration) {
        let length_ns = u64::try_from(max_staleness.as_nanos()).unwrap_or(u64::MAX);
        let from_ns = if mutants::is(Mutant::FreshFromReceipt) { boottime_ns() } else { self.sent_ns };
        freshness.extend(from_ns.saturating_add(length_ns));
    }
}

/// CLOCK_BOOTTIME: goes on while the machine sleeps, never steps.
pub fn boottime_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).expect("Linux has CLOCK_BOOTTIME");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_from_when_it_was_sent() {
        let freshness = Freshness::default();
        assert!(!freshness.is_fresh_at(0), "it starts stale");
        Probe::sent_at(1_000).served(&freshness, Duration::from_nanos(50));
        assert!(freshness.is_fresh_at(1_049) && !freshness.is_fresh_at(1_050));
        // One that was sent before it, and is answered after it.
        Probe::sent_at(900).served(&freshness, Duration::from_nanos(50));
        assert!(freshness.is_fresh_at(1_049));
    }
}
