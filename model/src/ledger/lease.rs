//! What a worker sees of a holder: one key's slots, and until when the node may spend at all.
//!
//! The contract: a worker reads its clock (CLOCK_BOOTTIME, microseconds), calls `Lease::take` with it and goes by the
//! answer. It never waits. Slots come and go behind its back: the holder grants and removes them in the same bucket.
//! Leases outlive sessions, so a worker may keep its handle as long as it likes; of one that `is_retired` nothing can be
//! taken any more, and a new handle is to be had from the holder.

mod debt;
mod parts;

use std::sync::{
    Arc, OnceLock, Weak,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use self::parts::Part;
pub use self::{debt::Debt, parts::PARTS_MAX};
use super::{
    bucket::{Bucket, Counts, Rest, Taken},
    command::{Key, LimitId},
    time,
};
use crate::mutants::{self, Mutant};

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

/// One key's. There may be a million of them, so what few keys have lies beside it, and what all keys of a limit have in
/// common is there once.
#[derive(Debug)]
pub struct Lease {
    who: Arc<str>,
    terms: Arc<Terms>,
    bucket: Bucket,
    /// What was refused for want of slots since the holder last asked.
    short: AtomicU32,
    retired: AtomicBool,
    signalled: AtomicBool,
    beside: OnceLock<Box<Beside>>,
}

/// Of all keys of a limit.
#[derive(Debug)]
pub(super) struct Terms {
    pub limit: LimitId,
    pub rest: Rest,
    pub window_us: u64,
    pub tenure: Arc<Tenure>,
    /// Until when may be spent what is kept for a time without a quorum, where the limit says so.
    pub longer: Option<Arc<Tenure>>,
    /// Of a calendar limit: until when its period is spent.
    pub ends: Option<Arc<PeriodEnd>>,
    /// Whether what rests longer than `time::reuses_for` is told to the ledger as certain, and kept to.
    pub is_certain: bool,
    /// Into how many parts a lease is split once it is hot; 1: never.
    pub parts: usize,
    pub hot: Hot,
}

/// A key is hot that is asked for so often a second and has so many slots here: its workers would meet in one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hot {
    pub per_s: u64,
    pub slots: u64,
}

impl Default for Hot {
    fn default() -> Self {
        Self { per_s: 10_000, slots: 4_096 }
    }
}

/// What some keys have.
#[derive(Debug, Default)]
struct Beside {
    /// Of a hot key, one for each worker.
    parts: OnceLock<Box<[Part]>>,
    /// What is kept for a time without a quorum.
    reserve: OnceLock<Box<Bucket>>,
    /// What exchanges wait for at the moment, and how many they are.
    waiting: AtomicU64,
    waiters: AtomicU32,
    /// Fewer free slots than this: more are wanted soon.
    low: AtomicU64,
    /// What was free in the cluster's pool when the holder last looked, and one more; 0: it has not.
    pool_free: AtomicU64,
    /// Nothing comes before this instant, as of this version of the ledger and one more: a flood of refusals asks nobody.
    denied_until_us: AtomicU64,
    denied_at: AtomicU64,
    owed: Debt,
    /// Exchanges whose answers have yet to say what they cost.
    unsettled: AtomicU32,
    /// Those that gave way to this one with something in use, as long as the holder keeps them.
    before: OnceLock<Box<[Weak<Lease>]>>,
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

impl Terms {
    #[cfg(test)]
    pub(super) fn of_window(limit: LimitId, window_us: u64, tenure: Arc<Tenure>) -> Self {
        let (rest, hot) = (Rest::of_window(window_us), Hot::default());
        Self { limit, rest, window_us, tenure, longer: None, ends: None, is_certain: false, parts: 1, hot }
    }

    pub(super) fn is_like(&self, other: &Terms) -> bool {
        let same = |one: &Option<Arc<Tenure>>, two: &Option<Arc<Tenure>>| match (one, two) {
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            (one, two) => one.is_none() && two.is_none(),
        };
        let ends = match (&self.ends, &other.ends) {
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            (one, two) => one.is_none() && two.is_none(),
        };
        let numbers = |it: &Terms| (it.limit, it.rest, it.window_us, it.is_certain, it.parts, it.hot);
        numbers(self) == numbers(other)
            && Arc::ptr_eq(&self.tenure, &other.tenure)
            && same(&self.longer, &other.longer)
            && ends
    }
}

impl Lease {
    pub(super) fn new(who: Arc<str>, terms: Arc<Terms>) -> Self {
        let (short, bucket, beside) = (AtomicU32::new(0), Bucket::default(), OnceLock::new());
        let lease = Self {
            who,
            terms,
            bucket,
            short,
            retired: AtomicBool::new(false),
            signalled: AtomicBool::new(false),
            beside,
        };
        if lease.keeps_reserve() {
            lease.beside().reserve.get_or_init(Box::default);
        }
        lease
    }

    pub fn limit(&self) -> LimitId {
        self.terms.limit
    }

    pub fn who(&self) -> &Arc<str> {
        &self.who
    }

    pub fn key(&self) -> Key {
        Key { limit: self.terms.limit, who: self.who.clone() }
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    fn beside(&self) -> &Beside {
        self.beside.get_or_init(Box::default)
    }

    /// Whether a part of its slots outlasts the session. What is prepaid is never lent again: all of it may.
    fn keeps_reserve(&self) -> bool {
        self.terms.longer.is_some() && self.terms.ends.is_none()
    }

    /// Used with the others while the session lasts.
    pub(super) fn reserve(&self) -> Option<&Bucket> {
        if !self.keeps_reserve() {
            return None;
        }
        self.beside.get()?.reserve.get().map(|bucket| &**bucket)
    }

    /// What all of it but the reserve is spent by.
    fn tenure(&self) -> &Tenure {
        match (&self.terms.longer, &self.terms.ends) {
            (Some(longer), Some(_)) => longer,
            _ => &self.terms.tenure,
        }
    }

    /// Another lease of the same key is another number.
    pub fn is_of(&self, taken: &Taken) -> bool {
        self.bucket.is_of(taken)
    }

    pub fn epoch(&self) -> u16 {
        self.bucket.epoch()
    }

    /// In how long a slot comes free at the soonest that is certain to rest until the session is over, or is renewed.
    pub(super) fn certain_in_us(&self, length_us: u64) -> u64 {
        if self.terms.is_certain { time::certain_in(length_us) } else { length_us }
    }

    /// What has rested by this instant may be used again at `now_us`.
    pub(super) fn home_us(&self, now_us: u64) -> u64 {
        match self.tenure().reuses_us.load(Ordering::Acquire) {
            until_us if self.terms.is_certain && until_us > 0 && !mutants::is(Mutant::ReusesTooLate) => {
                now_us.min(until_us)
            }
            _ => now_us,
        }
    }

    /// Whether the node may spend at that instant, if there is something.
    pub fn is_covered(&self, now_us: u64) -> bool {
        self.tenure().covers(now_us)
    }

    /// Spends `cost` slots at `now_us`, or none.
    pub fn take(&self, cost: u32, now_us: u64) -> Result<Taken, Denied> {
        self.take_on(0, cost, now_us)
    }

    /// The same on one of several workers, each of which has a number of its own: those of a hot key do not meet.
    pub fn take_on(&self, worker: usize, cost: u32, now_us: u64) -> Result<Taken, Denied> {
        if self.is_retired() {
            return Err(Denied::Short { next_us: None });
        }
        let taken = self.take_lent(worker, cost, now_us);
        match taken {
            Err(denied) => self.take_reserve(cost, now_us).ok_or(denied),
            taken => taken,
        }
    }

    /// Undoes a take, or a part of one.
    pub fn put_back(&self, taken: Taken) {
        match self.reserve() {
            Some(reserve) if taken.is_of_reserve() => reserve.put_back(&self.terms.rest, taken),
            _ => self.put_back_lent(taken),
        }
    }

    /// What a client is told of, with what is in use under definitions before an edit: allocates nothing.
    pub fn counts(&self, now_us: u64) -> Counts {
        let reserve = self.reserve().map(|it| it.counts(&self.terms.rest, now_us));
        let before = self.before().map(|old| old.counts_lent(now_us));
        reserve.into_iter().chain(before).fold(self.counts_lent(now_us), |sum, it| Counts {
            free: sum.free + it.free,
            used: sum.used + it.used,
            whole_us: sum.whole_us.max(it.whole_us),
        })
    }

    fn before(&self) -> impl Iterator<Item = Arc<Lease>> {
        let all = self.beside.get().and_then(|it| it.before.get()).filter(|_| !mutants::is(Mutant::UsedBeforeUntold));
        all.into_iter().flat_map(|it| it.iter()).filter_map(Weak::upgrade)
    }

    /// What is in use of these counts as used of this one. For a lease that nobody has yet.
    pub(super) fn follow(&self, before: &[Arc<Lease>], now_us: u64) {
        let in_use: Box<[_]> = before.iter().filter(|it| it.is_in_use(now_us)).map(Arc::downgrade).collect();
        if !in_use.is_empty() {
            self.beside().before.get_or_init(|| in_use);
        }
    }

    #[cold]
    fn take_reserve(&self, cost: u32, now_us: u64) -> Option<Taken> {
        let (reserve, longer) = (self.reserve()?, self.terms.longer.as_ref()?);
        if !longer.covers(now_us) {
            return None;
        }
        let taken = reserve.take(&self.terms.rest, cost, now_us).ok()?;
        if !longer.covers(taken.at_us) {
            reserve.put_back(&self.terms.rest, taken);
            return None;
        }
        Some(taken.of_reserve())
    }

    fn take_lent(&self, worker: usize, cost: u32, now_us: u64) -> Result<Taken, Denied> {
        if !self.tenure().covers(now_us) {
            return Err(Denied::NoSession);
        }
        let taken = match self.parts() {
            None => self.bucket.take_of(&self.terms.rest, cost, now_us, self.home_us(now_us)),
            Some(parts) => self.take_of_parts(parts, worker, cost, now_us),
        };
        match taken {
            // Slots that came free after the session's end are not ours to spend.
            Ok(taken) if !self.tenure().covers(taken.at_us) => {
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
                let before = self.before().filter_map(|old| Some(old.used(now_us).first()?.reusable_at_us));
                Err(Denied::Short { next_us: short.next_us.into_iter().chain(before).min() })
            }
        }
    }

    /// Asked after the take: a period that began in between has voided it.
    fn is_within_period(&self, taken: &Taken) -> bool {
        let Some(ends) = &self.terms.ends else { return true };
        let runs = taken.at_us < ends.spends_until_us() || mutants::is(Mutant::SpendsPastPeriod);
        runs && self.bucket.is_of(taken)
    }

    /// When the period ends, of a calendar limit.
    pub fn ends_us(&self) -> Option<u64> {
        self.terms.ends.as_ref().map(|ends| ends.ends_us())
    }

    pub fn low(&self) -> u64 {
        self.beside.get().map_or(0, |it| it.low.load(Ordering::Relaxed))
    }

    /// What is free in the cluster's pool, as far as this node has heard; None: it has heard nothing.
    pub fn pool_free(&self) -> Option<u64> {
        self.beside.get()?.pool_free.load(Ordering::Relaxed).checked_sub(1)
    }

    pub(super) fn tell(&self, low: u64, pool_free: u64) {
        let beside = self.beside();
        beside.low.store(low, Ordering::Relaxed);
        beside.pool_free.store(pool_free.saturating_add(1), Ordering::Relaxed);
    }

    /// An exchange begins to wait for `cost` slots; it takes them itself when they have come. False: as many wait as may.
    pub fn wait(&self, cost: u32, most: u32) -> bool {
        let beside = self.beside();
        if beside.waiters.fetch_add(1, Ordering::Relaxed) >= most {
            beside.waiters.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        beside.waiting.fetch_add(u64::from(cost), Ordering::Relaxed);
        true
    }

    pub fn wait_over(&self, cost: u32) {
        let beside = self.beside();
        beside.waiting.fetch_sub(u64::from(cost), Ordering::Relaxed);
        beside.waiters.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn waiting(&self) -> u64 {
        self.beside.get().map_or(0, |it| it.waiting.load(Ordering::Relaxed))
    }

    /// What answers cost beyond what was here.
    pub fn owed(&self) -> u64 {
        self.beside.get().map_or(0, |it| it.owed.left(self.epoch()))
    }

    /// An exchange is about to take, and its answer may give some of that back: until it is `settled` nothing in use leaves the
    /// node or is told as certain.
    pub fn unsettled(&self) {
        self.beside().unsettled.fetch_add(1, Ordering::SeqCst);
    }

    pub fn settled(&self) {
        self.beside().unsettled.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn is_unsettled(&self) -> bool {
        self.beside.get().is_some_and(|it| it.unsettled.load(Ordering::SeqCst) > 0)
    }

    /// So much more is owed, up to `most` in all.
    pub fn owe(&self, more: u64, most: u64) {
        self.beside().owed.add(self.epoch(), more, most);
    }

    /// So much less is owed.
    pub fn owe_less(&self, less: u64) {
        if let Some(beside) = self.beside.get() {
            beside.owed.reduce(self.epoch(), less);
        }
    }

    /// Takes what is owed, as far as there is something; what is left of it.
    pub fn pay(&self, now_us: u64) -> u64 {
        let Some(beside) = self.beside.get().filter(|it| !it.owed.is_none()) else { return 0 };
        beside.owed.pay(self.epoch(), || self.free_at_once(now_us), |part| self.take(part, now_us).is_ok())
    }

    /// The most that one take finds: of what is lent, or of what is kept for a time without a quorum, and of both never.
    fn free_at_once(&self, now_us: u64) -> u64 {
        let lent = if self.is_covered(now_us) { self.counts_lent(now_us).free } else { 0 };
        self.reserve().map_or(lent, |reserve| lent.max(reserve.counts(&self.terms.rest, now_us).free))
    }

    /// The holder is to look at the key. False: it was told already, and has not looked yet.
    pub fn signal(&self) -> bool {
        !self.signalled.swap(true, Ordering::Relaxed)
    }

    pub fn signal_seen(&self) {
        self.signalled.store(false, Ordering::Relaxed);
    }

    /// What `deny_until` was told, if the ledger's version is still the same.
    pub fn denied_until(&self, version: u64, now_us: u64) -> Option<u64> {
        let beside = self.beside.get()?;
        let until_us = beside.denied_until_us.load(Ordering::Relaxed);
        (beside.denied_at.load(Ordering::Acquire) == version + 1 && now_us < until_us).then_some(until_us)
    }

    pub fn deny_until(&self, version: u64, until_us: u64) {
        let beside = self.beside();
        beside.denied_until_us.store(until_us, Ordering::Relaxed);
        beside.denied_at.store(version + 1, Ordering::Release);
    }

    /// The holder keeps no account of it any more, and it is empty for good.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Another lease of the key takes this one's place: nothing is taken of it from here on, and what comes free goes there.
    /// So does what is owed, up to `most` in all.
    pub(super) fn give_way(&self, to: &Lease, most: u64) {
        self.retire();
        // Before what is owed is looked at: whoever owes more is heard again.
        self.signal_seen();
        to.short.fetch_add(self.short.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        let owes = self.beside.get().filter(|it| !it.owed.is_none());
        if let Some(beside) = owes.filter(|_| !mutants::is(Mutant::DebtLeftBehind)) {
            to.owe(beside.owed.take(self.epoch()), most);
        }
    }

    /// Another one of the key for slots that come free further ahead than this one's ring reaches. Nobody takes of it.
    pub(super) fn reaching(&self, ahead_us: u64) -> Lease {
        let window_us = 2 * ahead_us.max(self.terms.window_us);
        let terms = Terms {
            limit: self.terms.limit,
            rest: Rest::of_window(window_us),
            window_us,
            tenure: self.terms.tenure.clone(),
            longer: None,
            ends: None,
            is_certain: false,
            parts: 1,
            hot: self.terms.hot,
        };
        let lease = Lease::new(self.who.clone(), Arc::new(terms));
        lease.retire();
        lease
    }

    pub(super) fn is_in_use(&self, now_us: u64) -> bool {
        let counts = self.counts_lent(now_us);
        counts.free + counts.used > 0
    }

    /// How long what is taken of it may be held or rests, less drift.
    pub fn window_us(&self) -> u64 {
        self.terms.window_us
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
