//! How long the syncs of the log took, counted by one thread and read by any.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds, microseconds.
pub const SYNC_BOUNDS_US: [u64; 12] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_000_000];

#[derive(Debug, Default)]
pub struct Syncs {
    /// Not cumulative; the last counts what is above all bounds.
    counts: [AtomicU64; SYNC_BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Syncs {
    pub fn observe(&self, took: Duration) {
        let micros = took.as_micros() as u64;
        let slot = SYNC_BOUNDS_US.iter().position(|bound| micros <= *bound).unwrap_or(SYNC_BOUNDS_US.len());
        self.counts[slot].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(micros, Relaxed);
    }

    /// Counts by bound, not cumulative, and the sum in microseconds.
    pub fn counts(&self) -> ([u64; SYNC_BOUNDS_US.len() + 1], u64) {
        (self.counts.each_ref().map(|count| count.load(Relaxed)), self.sum_us.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lies_under_its_bound() {
        let syncs = Syncs::default();
        [50, 100, 101, 3_000_000].into_iter().for_each(|micros| syncs.observe(Duration::from_micros(micros)));
        let (counts, sum) = syncs.counts();
        assert_eq!((counts[0], counts[1], counts[12], sum), (2, 1, 1, 3_000_251));
    }
}
