//! How far the log may be purged.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// How far segments may go: what the older of two good snapshots holds, and what the journal has synced.
#[derive(Clone)]
pub struct PurgeFloor {
    snapshot: Arc<AtomicU64>,
    journal: Arc<AtomicU64>,
}

/// One more than the index, so that 0 is "nothing".
impl PurgeFloor {
    pub(crate) fn new() -> Self {
        Self { snapshot: Arc::default(), journal: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// Up to which index, inclusive, the log may be purged; None while nothing may go.
    pub fn index(&self) -> Option<u64> {
        self.snapshot.load(Ordering::Acquire).min(self.journal.load(Ordering::Acquire)).checked_sub(1)
    }

    pub(crate) fn set_snapshot(&self, index: Option<u64>) {
        self.snapshot.store(index.map_or(0, |index| index + 1), Ordering::Release);
    }

    pub(crate) fn set_journal(&self, index: Option<u64>) {
        self.journal.store(index.map_or(0, |index| index + 1), Ordering::Release);
    }

    /// A degraded journal holds nothing back: it is rebuilt from elsewhere.
    pub(crate) fn forget_journal(&self) {
        self.journal.store(u64::MAX, Ordering::Release);
    }
}
