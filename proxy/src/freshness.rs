//! Until when this node may trust what it knows: set by the control plane's probes, read by every exchange on a route
//! with `on_stale: deny`.

use std::sync::atomic::{AtomicU64, Ordering};

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
        boottime_ns() < self.until_ns.load(Ordering::Acquire)
    }
}

/// CLOCK_BOOTTIME: goes on while the machine sleeps, never steps.
pub fn boottime_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).expect("Linux has CLOCK_BOOTTIME");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}
