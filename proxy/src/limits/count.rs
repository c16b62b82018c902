//! What admits: a lease of the cluster's budget, or this node's own count of a limit of mode `local`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use quorumgate_model::ledger::{
    bucket::{Bucket, Counts, Rest, Taken},
    lease::{Denied, Lease},
};

/// One key of one limit, as workers find it.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) counter: Counter,
    /// The holder was told that more is wanted, and has not looked yet.
    pub(super) signalled: AtomicBool,
    pub(super) waiters: AtomicU32,
    /// Nothing comes before this instant, as of this version of the ledger: a flood of refusals asks nobody.
    denied_until_us: AtomicU64,
    denied_at: AtomicU64,
}

#[derive(Debug)]
pub(super) enum Counter {
    Leased(Arc<Lease>),
    Local(Box<Local>),
}

/// Each node for itself: all slots are here from the beginning.
#[derive(Debug)]
pub(super) struct Local {
    bucket: Bucket,
    rest: Rest,
    slots: u32,
    retired: AtomicBool,
}

impl Handle {
    pub(super) fn leased(lease: Arc<Lease>) -> Self {
        Self::new(Counter::Leased(lease))
    }

    pub(super) fn local(slots: u32, window_us: u64, now_us: u64) -> Self {
        let local = Local {
            bucket: Bucket::default(),
            rest: Rest::of_window(window_us),
            slots,
            retired: AtomicBool::default(),
        };
        local.bucket.grant(slots, now_us);
        Self::new(Counter::Local(Box::new(local)))
    }

    fn new(counter: Counter) -> Self {
        Self {
            counter,
            signalled: AtomicBool::default(),
            waiters: AtomicU32::default(),
            denied_until_us: AtomicU64::default(),
            denied_at: AtomicU64::new(u64::MAX),
        }
    }

    pub(super) fn take(&self, cost: u32, now_us: u64) -> Result<Taken, Denied> {
        match &self.counter {
            Counter::Leased(lease) => lease.take(cost, now_us),
            Counter::Local(local) => {
                local.bucket.take(&local.rest, cost, now_us).map_err(|short| Denied::Short { next_us: short.next_us })
            }
        }
    }

    pub(super) fn put_back(&self, taken: Taken) {
        match &self.counter {
            Counter::Leased(lease) => lease.bucket.put_back(&lease.rest, taken),
            Counter::Local(local) => local.bucket.put_back(&local.rest, taken),
        }
    }

    pub(super) fn counts(&self, now_us: u64) -> Counts {
        match &self.counter {
            Counter::Leased(lease) => lease.bucket.counts(&lease.rest, now_us),
            Counter::Local(local) => local.bucket.counts(&local.rest, now_us),
        }
    }

    pub(super) fn holds_any(&self, now_us: u64) -> bool {
        let counts = self.counts(now_us);
        counts.free + counts.used > 0
    }

    /// Nothing can be taken of it any more: another has taken its place, or will.
    pub(super) fn is_retired(&self) -> bool {
        match &self.counter {
            Counter::Leased(lease) => lease.is_retired(),
            Counter::Local(local) => local.retired.load(Ordering::Acquire),
        }
    }

    /// Whether nobody uses this local count; then it is empty for good. `demand` of the bucket tells of two looks apart.
    pub(super) fn retire_local(&self, now_us: u64) -> bool {
        let Counter::Local(local) = &self.counter else { return false };
        if local.bucket.demand() > 0 {
            return false;
        }
        let home = local.bucket.release_free(&local.rest, local.slots, now_us);
        if home < local.slots {
            local.bucket.grant(home, now_us);
            return false;
        }
        local.retired.store(true, Ordering::Release);
        true
    }

    pub(super) fn denied_until(&self, version: u64, now_us: u64) -> Option<u64> {
        let until_us = self.denied_until_us.load(Ordering::Relaxed);
        (self.denied_at.load(Ordering::Acquire) == version && now_us < until_us).then_some(until_us)
    }

    pub(super) fn deny_until(&self, version: u64, until_us: u64) {
        self.denied_until_us.store(until_us, Ordering::Relaxed);
        self.denied_at.store(version, Ordering::Release);
    }
}
