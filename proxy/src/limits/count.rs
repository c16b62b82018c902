//! What admits: a lease of the cluster's budget, or this node's own count of a limit of mode `local`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

use quorumgate_model::ledger::{
    bucket::{Bucket, Counts, Rest, SLOTS_MAX, Taken},
    lease::{Denied, Lease},
};

thread_local! {
    /// This worker's number: those of a hot key do not meet in one bucket.
    static WORKER: usize = WORKERS.fetch_add(1, Ordering::Relaxed);
}

static WORKERS: AtomicUsize = AtomicUsize::new(0);

const OWED_BITS: u32 = 48;
const OWED_MASK: u64 = (1 << OWED_BITS) - 1;

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
    /// {epoch: 16 | slots: 48}: what answers cost beyond what was there when they came. It is taken before anything else.
    owed: AtomicU64,
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
            owed: AtomicU64::default(),
        }
    }

    pub(super) fn take(&self, cost: u32, now_us: u64) -> Result<Taken, Denied> {
        if self.owed.load(Ordering::Relaxed) != 0 && self.pay(now_us) > 0 {
            // Nobody is let in on what is owed.
            return self.take_owed(cost, now_us).and_then(|taken| {
                self.put_back(taken);
                Err(Denied::Short { next_us: None })
            });
        }
        self.take_owed(cost, now_us)
    }

    fn take_owed(&self, cost: u32, now_us: u64) -> Result<Taken, Denied> {
        match &self.counter {
            Counter::Leased(lease) => lease.take_on(WORKER.with(|worker| *worker), cost, now_us),
            Counter::Local(local) => {
                local.bucket.take(&local.rest, cost, now_us).map_err(|short| Denied::Short { next_us: short.next_us })
            }
        }
    }

    /// The answer to what was `taken` cost `more` than that: taken as far as there is something, and owed beyond.
    pub(super) fn owe(&self, taken: &Taken, more: u64, now_us: u64) {
        let bucket = self.bucket();
        if !bucket.is_of(taken) {
            // Of a period or a lease that is over.
            return;
        }
        let epoch = u64::from(taken.epoch()) << OWED_BITS;
        let add = |owed: u64| {
            let known = if owed & !OWED_MASK == epoch { owed & OWED_MASK } else { 0 };
            Some(epoch | known.saturating_add(more).min(u64::from(SLOTS_MAX)))
        };
        // It always answers something to store.
        let _ = self.owed.fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
        self.pay(now_us);
    }

    /// Takes what is owed, as far as there is something; what is left of it.
    fn pay(&self, now_us: u64) -> u64 {
        loop {
            let owed = self.owed.load(Ordering::Acquire);
            let left = owed & OWED_MASK;
            if left == 0 {
                return 0;
            }
            if owed >> OWED_BITS != u64::from(self.bucket().epoch()) {
                // What is owed to a period or a lease that is over is owed no more.
                let _ = self.owed.compare_exchange(owed, 0, Ordering::AcqRel, Ordering::Acquire);
                return 0;
            }
            let part = left.min(self.counts(now_us).free);
            if part == 0 {
                return left;
            }
            // Claimed first, so that two workers do not pay the same twice.
            if self.owed.compare_exchange(owed, owed - part, Ordering::AcqRel, Ordering::Acquire).is_err() {
                continue;
            }
            if self.take_owed(part as u32, now_us).is_err() {
                self.owed.fetch_add(part, Ordering::AcqRel);
                return left;
            }
        }
    }

    fn bucket(&self) -> &Bucket {
        match &self.counter {
            Counter::Leased(lease) => &lease.bucket,
            Counter::Local(local) => &local.bucket,
        }
    }

    pub(super) fn put_back(&self, taken: Taken) {
        match &self.counter {
            Counter::Leased(lease) => lease.put_back(taken),
            Counter::Local(local) => local.bucket.put_back(&local.rest, taken),
        }
    }

    pub(super) fn counts(&self, now_us: u64) -> Counts {
        match &self.counter {
            Counter::Leased(lease) => lease.counts(now_us),
            Counter::Local(local) => local.bucket.counts(&local.rest, now_us),
        }
    }

    pub(super) fn holds_any(&self, now_us: u64) -> bool {
        let counts = self.counts(now_us);
        counts.free + counts.used > 0
    }

    /// Of a calendar limit: when its period ends, and what is free for whoever asks for it.
    pub(super) fn of_period(&self) -> Option<(u64, u64)> {
        match &self.counter {
            Counter::Leased(lease) => Some((lease.ends_us()?, lease.beside())),
            Counter::Local(_) => None,
        }
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
