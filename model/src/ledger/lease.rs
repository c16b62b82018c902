//! What a worker sees of a holder: one key's slots, and until when the node may spend at all.
//!
//! The contract: a worker reads its clock (CLOCK_BOOTTIME, microseconds), calls `Lease::take` with it and goes by the
//! answer. It never waits. Slots come and go behind its back: the holder grants and removes them in the same bucket.
//! Leases outlive sessions, so a worker may keep its handle as long as it likes; of one that `is_retired` nothing can be
//! taken any more, and a new handle is to be had from the holder.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use super::{
    bucket::{Bucket, Rest, Taken},
    command::Key,
    mutants::{self, Mutant},
};

/// Until when this process may spend what it holds, on its own clock; 0 without a session.
#[derive(Debug, Default)]
pub struct Tenure(AtomicU64);

#[derive(Debug)]
pub struct Lease {
    pub key: Key,
    pub rest: Rest,
    pub bucket: Bucket,
    tenure: Arc<Tenure>,
    /// What was refused for want of slots since the holder last asked.
    short: AtomicU32,
    /// What exchanges wait for at the moment.
    waiting: AtomicU32,
    retired: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The node's session is over: the limit's `on_no_quorum` decides.
    NoSession,
    /// Too few free slots; when the next used one of this node comes back.
    Short { next_us: Option<u64> },
}

impl Tenure {
    pub fn spends_until_us(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn extend(&self, until_us: u64) {
        self.0.fetch_max(until_us, Ordering::AcqRel);
    }

    pub(super) fn end(&self) {
        self.0.store(0, Ordering::Release);
    }

    fn covers(&self, at_us: u64) -> bool {
        at_us < self.spends_until_us() || mutants::is(Mutant::ExpiryIgnored)
    }
}

impl Lease {
    pub(super) fn new(key: Key, window_us: u64, tenure: Arc<Tenure>) -> Self {
        let (short, waiting) = (AtomicU32::new(0), AtomicU32::new(0));
        let (rest, bucket, retired) = (Rest::of_window(window_us), Bucket::default(), AtomicBool::new(false));
        Self { key, rest, bucket, tenure, short, waiting, retired }
    }

    /// Spends `cost` slots at `now_us`, or none.
    pub fn take(&self, cost: u32, now_us: u64) -> Result<Taken, Denied> {
        if !self.tenure.covers(now_us) {
            return Err(Denied::NoSession);
        }
        match self.bucket.take(&self.rest, cost, now_us) {
            // Slots that came free after the session's end are not ours to spend.
            Ok(taken) if !self.tenure.covers(taken.at_us) => {
                self.bucket.put_back(&self.rest, taken);
                Err(Denied::NoSession)
            }
            Ok(taken) => Ok(taken),
            Err(short) => {
                self.note_short(cost);
                Err(Denied::Short { next_us: short.next_us })
            }
        }
    }

    /// An exchange begins to wait for `cost` slots; it takes them itself when they have come.
    pub fn wait(&self, cost: u32) {
        self.waiting.fetch_add(cost, Ordering::Relaxed);
    }

    pub fn wait_over(&self, cost: u32) {
        self.waiting.fetch_sub(cost, Ordering::Relaxed);
    }

    pub fn waiting(&self) -> u64 {
        u64::from(self.waiting.load(Ordering::Relaxed))
    }

    /// The holder keeps no account of it any more, and it is empty for good.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    pub(super) fn short(&self) -> u64 {
        u64::from(self.short.swap(0, Ordering::Relaxed))
    }

    fn note_short(&self, cost: u32) {
        // Two workers at once may lose one: it steers, it decides nothing.
        let short = self.short.load(Ordering::Relaxed);
        self.short.store(short.saturating_add(cost), Ordering::Relaxed);
    }
}
