//! What admits: a lease of the cluster's budget, or this node's own count of a limit of mode `local`.

use std::{
    borrow::Borrow,
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use quorumgate_model::ledger::{
    bucket::{Bucket, Counts, Rest, Taken},
    lease::{Debt, Denied, Lease},
};

thread_local! {
    /// This worker's number: those of a hot key do not meet in one bucket.
    static WORKER: usize = WORKERS.fetch_add(1, Ordering::Relaxed);
}

static WORKERS: AtomicUsize = AtomicUsize::new(0);

/// One key of one limit, as workers find it: by its name.
#[derive(Debug, Clone)]
pub(super) enum Handle {
    Leased(Arc<Lease>),
    Local(Arc<Local>),
}

/// Each node for itself: all slots are here from the beginning.
#[derive(Debug)]
pub(super) struct Local {
    who: Arc<str>,
    bucket: Bucket,
    terms: Arc<LocalTerms>,
    owed: Debt,
    retired: AtomicBool,
}

/// Of all keys of a limit.
#[derive(Debug)]
pub(super) struct LocalTerms {
    rest: Rest,
    slots: u32,
}

impl LocalTerms {
    pub(super) fn new(slots: u32, window_us: u64) -> Self {
        Self { rest: Rest::of_window(window_us), slots }
    }
}

impl Borrow<str> for Handle {
    fn borrow(&self) -> &str {
        self.who()
    }
}

/// As of its name, by which it is looked up.
impl Hash for Handle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        str::hash(self.who(), state);
    }
}

impl PartialEq for Handle {
    fn eq(&self, other: &Self) -> bool {
        self.who() == other.who()
    }
}

impl Eq for Handle {}

impl Handle {
    pub(super) fn local(who: Arc<str>, terms: Arc<LocalTerms>, now_us: u64) -> Self {
        let (owed, retired) = (Debt::default(), AtomicBool::new(false));
        let local = Local { who, bucket: Bucket::default(), terms, owed, retired };
        local.bucket.grant(local.terms.slots, now_us);
        Self::Local(Arc::new(local))
    }

    pub(super) fn who(&self) -> &Arc<str> {
        match self {
            Self::Leased(lease) => lease.who(),
            Self::Local(local) => &local.who,
        }
    }

    pub(super) fn lease(&self) -> Option<&Arc<Lease>> {
        match self {
            Self::Leased(lease) => Some(lease),
            Self::Local(_) => None,
        }
    }

    /// Not only of the same name.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Leased(one), Self::Leased(two)) => Arc::ptr_eq(one, two),
            (Self::Local(one), Self::Local(two)) => Arc::ptr_eq(one, two),
            _ => false,
        }
    }

    pub(super) fn take(&self, cost: u32, now_us: u64) -> Result<Taken, Denied> {
        if self.pay(now_us) > 0 {
            // Nobody is let in on what is owed.
            return self.take_owed(cost, now_us).and_then(|taken| {
                self.put_back(taken);
                Err(Denied::Short { next_us: None })
            });
        }
        self.take_owed(cost, now_us)
    }

    fn take_owed(&self, cost: u32, now_us: u64) -> Result<Taken, Denied> {
        match self {
            Self::Leased(lease) => lease.take_on(WORKER.with(|worker| *worker), cost, now_us),
            Self::Local(local) => {
                let taken = local.bucket.take(&local.terms.rest, cost, now_us);
                taken.map_err(|short| Denied::Short { next_us: short.next_us })
            }
        }
    }

    /// The answer to what was `taken` cost `more` than that: taken as far as there is something, and owed beyond, up to
    /// `most` in all. What is left of that. Of a period or a lease that is over nothing is.
    pub(super) fn owe(&self, taken: &Taken, more: u64, most: u64, now_us: u64) -> u64 {
        match self {
            Self::Leased(lease) if lease.is_of(taken) => lease.owe(more, most),
            Self::Local(local) if local.bucket.is_of(taken) => local.owed.add(taken.epoch(), more, most),
            _ => return 0,
        }
        self.pay(now_us)
    }

    /// Takes what is owed, as far as there is something; what is left of it.
    fn pay(&self, now_us: u64) -> u64 {
        match self {
            Self::Leased(lease) => lease.pay(now_us),
            Self::Local(local) if local.owed.is_none() => 0,
            Self::Local(local) => {
                let free = || self.counts(now_us).free;
                local.owed.pay(local.bucket.epoch(), free, |part| self.take_owed(part, now_us).is_ok())
            }
        }
    }

    pub(super) fn put_back(&self, taken: Taken) {
        match self {
            Self::Leased(lease) => lease.put_back(taken),
            Self::Local(local) => local.bucket.put_back(&local.terms.rest, taken),
        }
    }

    pub(super) fn counts(&self, now_us: u64) -> Counts {
        match self {
            Self::Leased(lease) => lease.counts(now_us),
            Self::Local(local) => local.bucket.counts(&local.terms.rest, now_us),
        }
    }

    pub(super) fn holds_any(&self, now_us: u64) -> bool {
        let counts = self.counts(now_us);
        counts.free + counts.used > 0
    }

    /// Of a calendar limit: when its period ends, and what is free for whoever asks for it, as far as is known.
    pub(super) fn of_period(&self) -> Option<(u64, Option<u64>)> {
        match self {
            Self::Leased(lease) => Some((lease.ends_us()?, lease.pool_free())),
            Self::Local(_) => None,
        }
    }

    /// What is free in the cluster's pool, as this node last heard; None: it has heard nothing.
    pub(super) fn of_pool(&self) -> Option<u64> {
        self.lease().and_then(|lease| lease.pool_free())
    }

    /// Nothing can be taken of it any more: another has taken its place, or will.
    pub(super) fn is_retired(&self) -> bool {
        match self {
            Self::Leased(lease) => lease.is_retired(),
            Self::Local(local) => local.retired.load(Ordering::Acquire),
        }
    }

    /// Whether nobody uses this local count; then it is empty for good. `demand` of the bucket tells of two looks apart.
    pub(super) fn retire_local(&self, now_us: u64) -> bool {
        let Self::Local(local) = self else { return false };
        if local.bucket.demand() > 0 {
            return false;
        }
        let home = local.bucket.release_free(&local.terms.rest, local.terms.slots, now_us);
        if home < local.terms.slots {
            local.bucket.grant(home, now_us);
            return false;
        }
        local.retired.store(true, Ordering::Release);
        true
    }
}
