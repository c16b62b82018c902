//! What a worker sees of a holder: one key's slots, and until when the node may spend at all.
//!
//! The contract: a worker reads its clock (CLOCK_BOOTTIME, microseconds), calls `Lease::take` with it and goes by the
//! answer. It never waits. Slots come and go behind its back: the holder grants and removes them in the same bucket.
//! Leases outlive sessions, so a worker may keep its handle as long as it likes; of one that `is_retired` nothing can be
//! taken any more, and a new handle is to be had from the holder.

mod parts;

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

pub use self::parts::PARTS_MAX;
use self::parts::Part;
use super::{
    bucket::{Bucket, Counts, Rest, Taken},
    command::Key,
    mutants::{self, Mutant},
    time,
};

/// Until when this process may spend what it holds, on its own clock; 0: it may not.
#[derive(Debug, Default)]
pub struct Tenure {
    spends_us: AtomicU64,
    /// Until when it uses again what has come free; 0: this does not hold it back.
    reuses_us: AtomicU64,
}

/// Until when the period of a calendar limit is spent, and when it ends, on this process's own clock; 0: none is known.
#[derive(Debug)]
pub struct PeriodEnd {
    pub(super) until_us: AtomicU64,
    pub(super) ends_us: AtomicU64,
}

#[derive(Debug)]
pub struct Lease {
    pub key: Key,
    pub rest: Rest,
    pub bucket: Bucket,
    tenure: Arc<Tenure>,
    /// Of a hot key, one for each worker.
    parts: OnceLock<Box<[Part]>>,
    /// What was refused for want of slots since the holder last asked.
    short: AtomicU32,
    /// What exchanges wait for at the moment.
    waiting: AtomicU32,
    retired: AtomicBool,
    /// What is kept for a time without a quorum, where the limit says so.
    pub(super) reserve: Option<Box<Reserve>>,
    /// Of a calendar limit: until when its period is spent.
    ends: Option<Arc<PeriodEnd>>,
    /// Whether what rests longer than `time::reuses_for` is told to the ledger as certain, and kept to.
    is_certain: bool,
    /// Fewer free slots than this: more are wanted soon.
    low: AtomicU64,
    /// What was free in the cluster's pool when the holder last looked.
    beside: AtomicU64,
}

/// A part of the slots that outlasts the session; used with the others while that lasts.
#[derive(Debug)]
pub(super) struct Reserve {
    pub bucket: Bucket,
    tenure: Arc<Tenure>,
}

impl Reserve {
    pub fn new(tenure: Arc<Tenure>) -> Self {
        Self { bucket: Bucket::default(), tenure }
    }
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
        self.spends_us.load(Ordering::Acquire)
    }

    pub(super) fn extend(&self, until_us: u64, reuses_us: u64) {
        self.spends_us.fetch_max(until_us, Ordering::AcqRel);
        self.reuses_us.fetch_max(reuses_us, Ordering::AcqRel);
    }

    /// In this order: what comes home afterwards is not spent.
    pub(super) fn end(&self) {
        self.spends_us.store(0, Ordering::SeqCst);
        self.reuses_us.store(0, Ordering::SeqCst);
    }

    fn covers(&self, at_us: u64) -> bool {
        at_us < self.spends_until_us() || mutants::is(Mutant::ExpiryIgnored)
    }
}

impl Lease {
    pub(super) fn new(key: Key, rest: Rest, tenure: Arc<Tenure>, ends: Option<Arc<PeriodEnd>>) -> Self {
        let (short, waiting) = (AtomicU32::new(0), AtomicU32::new(0));
        let (bucket, retired) = (Bucket::default(), AtomicBool::new(false));
        let (low, beside) = (AtomicU64::new(0), AtomicU64::new(0));
        let parts = OnceLock::new();
        Self {
            key,
            rest,
            bucket,
            tenure,
            parts,
            short,
            waiting,
            retired,
            reserve: None,
            ends,
            is_certain: false,
            low,
            beside,
        }
    }

    pub(super) fn with_certainty(self, is_certain: bool) -> Self {
        Self { is_certain, ..self }
    }

    /// In how long a slot comes free at the soonest that is certain to rest until the session is over, or is renewed.
    pub(super) fn certain_in_us(&self, length_us: u64) -> u64 {
        if self.is_certain { time::certain_in(length_us) } else { length_us }
    }

    /// What has rested by this instant may be used again at `now_us`.
    pub(super) fn home_us(&self, now_us: u64) -> u64 {
        match self.tenure.reuses_us.load(Ordering::Acquire) {
            until_us if self.is_certain && until_us > 0 && !mutants::is(Mutant::ReusesTooLate) => now_us.min(until_us),
            _ => now_us,
        }
    }

    pub(super) fn with_reserve(self, tenure: Arc<Tenure>) -> Self {
        Self { reserve: Some(Box::new(Reserve::new(tenure))), ..self }
    }

    /// Spends `cost` slots at `now_us`, or none.
    pub fn take(&self, cost: u32, now_us: u64) -> Result<Taken, Denied> {
        self.take_on(0, cost, now_us)
    }

    /// The same on one of several workers, each of which has a number of its own: those of a hot key do not meet.
    pub fn take_on(&self, worker: usize, cost: u32, now_us: u64) -> Result<Taken, Denied> {
        match (self.take_lent(worker, cost, now_us), &self.reserve) {
            (Err(denied), Some(reserve)) => self.take_reserve(reserve, cost, now_us).ok_or(denied),
            (taken, _) => taken,
        }
    }

    /// Undoes a take, or a part of one.
    pub fn put_back(&self, taken: Taken) {
        match &self.reserve {
            Some(reserve) if taken.is_of_reserve() => reserve.bucket.put_back(&self.rest, taken),
            _ => self.put_back_lent(taken),
        }
    }

    /// What a client is told of: allocates nothing.
    pub fn counts(&self, now_us: u64) -> Counts {
        let lent = self.counts_lent(now_us);
        let Some(reserve) = &self.reserve else { return lent };
        let beside = reserve.bucket.counts(&self.rest, now_us);
        let whole_us = lent.whole_us.max(beside.whole_us);
        Counts { free: lent.free + beside.free, used: lent.used + beside.used, whole_us }
    }

    #[cold]
    fn take_reserve(&self, reserve: &Reserve, cost: u32, now_us: u64) -> Option<Taken> {
        if !reserve.tenure.covers(now_us) {
            return None;
        }
        let taken = reserve.bucket.take(&self.rest, cost, now_us).ok()?;
        if !reserve.tenure.covers(taken.at_us) {
            reserve.bucket.put_back(&self.rest, taken);
            return None;
        }
        Some(taken.of_reserve())
    }

    fn take_lent(&self, worker: usize, cost: u32, now_us: u64) -> Result<Taken, Denied> {
        if !self.tenure.covers(now_us) {
            return Err(Denied::NoSession);
        }
        let taken = match self.parts.get() {
            None => self.bucket.take_of(&self.rest, cost, now_us, self.home_us(now_us)),
            Some(parts) => self.take_of_parts(parts, worker, cost, now_us),
        };
        match taken {
            // Slots that came free after the session's end are not ours to spend.
            Ok(taken) if !self.tenure.covers(taken.at_us) => {
                self.put_back_lent(taken);
                Err(Denied::NoSession)
            }
            Ok(taken) if !self.is_within_period(&taken) => {
                self.put_back_lent(taken);
                Err(Denied::Short { next_us: None })
            }
            Ok(taken) => Ok(taken),
            Err(short) => {
                self.note_short(cost);
                Err(Denied::Short { next_us: short.next_us })
            }
        }
    }

    /// Asked after the take: a period that began in between has voided it.
    fn is_within_period(&self, taken: &Taken) -> bool {
        let Some(ends) = &self.ends else { return true };
        let runs = taken.at_us < ends.spends_until_us() || mutants::is(Mutant::SpendsPastPeriod);
        runs && self.bucket.is_of(taken)
    }

    /// When the period ends, of a calendar limit.
    pub fn ends_us(&self) -> Option<u64> {
        self.ends.as_ref().map(|ends| ends.ends_us())
    }

    pub fn low(&self) -> u64 {
        self.low.load(Ordering::Relaxed)
    }

    /// What is free in the cluster's pool, as far as this node has heard.
    pub fn beside(&self) -> u64 {
        self.beside.load(Ordering::Relaxed)
    }

    pub(super) fn tell(&self, low: u64, beside: u64) {
        self.low.store(low, Ordering::Relaxed);
        self.beside.store(beside, Ordering::Relaxed);
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
