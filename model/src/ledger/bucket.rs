//! One key's slots on one node, as every worker takes from them: a packed counter and a ring of instants at which used
//! slots may be used again. Lock-free, and written so that a thread may stop for any time between any two instructions:
//! then a slot comes back late, never early, and never twice.

use std::{
    iter,
    sync::{
        OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering, fence},
    },
};

use super::divisor::Divisor;

/// A window is cut into this many grains: a slot comes back at most one of them late (0.5 % of the window).
pub const GRAINS: u64 = 200;
/// How far clocks may drift against real time, in parts per million; a used slot rests for that much longer.
pub const DRIFT_PPM: u64 = 500;
/// Live grains of a key that is hardly used lie within the bucket itself, of which there may be a million.
const FEW: usize = 2;
/// Those of one that is seldom used lie beside it.
const SOME: usize = 5;
/// A used slot lies at most GRAINS + 2 grains ahead.
const MANY: usize = 208;

/// `Taken::place` of what a lease keeps for a time without a quorum.
const RESERVE: u8 = u8::MAX;

/// The grain of what never comes back.
const NEVER: u64 = u64::MAX;

const FREE_BITS: u32 = 48;
const FREE_MASK: u64 = (1 << FREE_BITS) - 1;
const COUNT_BITS: u32 = 28;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const GRAIN_MASK: u64 = (1 << 28) - 1;
/// The most slots that a limit may have: then no count overflows.
pub const SLOTS_MAX: u32 = COUNT_MASK as u32;

/// Slots of one limit and key that this node holds.
#[derive(Debug)]
pub struct Bucket {
    /// {epoch: 16 | free: 48}. A new lease is a new epoch: what was taken under an old one never comes back here.
    word: AtomicU64,
    few: [AtomicU64; FEW],
    more: OnceLock<Box<More>>,
    /// The last grain up to which used slots were brought home.
    swept: AtomicU64,
    /// No slot that is free now was free before this instant: a take that read its clock earlier counts from here.
    floor_us: AtomicU64,
    /// What was asked for, granted or not, since it was last read.
    demand: AtomicU32,
}

/// What a bucket has once it is used more than now and then.
#[derive(Debug, Default)]
struct More {
    some: [AtomicU64; SOME],
    many: OnceLock<Box<[AtomicU64; MANY]>>,
    /// Uses before this instant were reported as certain: they are not undone any more.
    sealed_us: AtomicU64,
}

/// How long a slot rests after its use, and in which grains that is counted. Microseconds; the same for all keys of a
/// limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    grain: Divisor,
    rest_us: u64,
}

/// Proof of a take, for `put_back`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Taken {
    epoch: u16,
    grain: u64,
    cost: u32,
    /// The instant of admission: what `take` was given, or later if the slots came free after that clock was read.
    pub at_us: u64,
    /// Free slots that it left.
    pub left: u64,
    /// Out of which of a lease's buckets: its first, the reserve, or a worker's part, counted from 1.
    place: u8,
}

/// Too few free slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short {
    /// When the next used slot of this node comes back, on the clock that `take` was given; None: no slot is in use.
    pub next_us: Option<u64>,
}

/// A used slot's way out of a bucket, for the release to the cluster's pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    pub reusable_at_us: u64,
    pub count: u32,
}

/// A bucket at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub free: u64,
    pub used: u64,
    /// When all that is in use has come back.
    pub whole_us: Option<u64>,
}

impl Taken {
    /// A part of what was taken, to put back on its own; the rest stays taken.
    pub fn part(&mut self, cost: u32) -> Taken {
        let cost = cost.min(self.cost);
        self.cost -= cost;
        Taken { cost, ..*self }
    }

    pub fn cost(&self) -> u32 {
        self.cost
    }

    pub fn epoch(&self) -> u16 {
        self.epoch
    }

    pub(super) fn of_reserve(self) -> Taken {
        Taken { place: RESERVE, ..self }
    }

    /// Of a worker's part; so many more are free for it beside.
    pub(super) fn of_part(self, n: usize, beside: u64) -> Taken {
        Taken { place: n as u8 + 1, left: self.left + beside, ..self }
    }

    pub(super) fn is_of_reserve(&self) -> bool {
        self.place == RESERVE
    }

    /// Which worker's part it came from.
    pub(super) fn worker(&self) -> Option<usize> {
        (1..RESERVE).contains(&self.place).then(|| usize::from(self.place) - 1)
    }
}

impl Rest {
    /// `window_us` is 1 or more.
    pub fn of_window(window_us: u64) -> Self {
        let rest_us = window_us + (window_us * DRIFT_PPM).div_ceil(1_000_000);
        Self { grain: Divisor::new(window_us.div_ceil(GRAINS)), rest_us }
    }

    /// What is used never comes back of itself: a chunk of a calendar period.
    pub fn spent() -> Self {
        Self { grain: Divisor::new(NEVER), rest_us: 0 }
    }

    pub(super) fn us(&self) -> u64 {
        self.rest_us
    }

    fn comes_back(&self) -> bool {
        self.grain.by() != NEVER
    }

    /// The first grain that begins when a slot used at `now_us` has rested.
    fn grain_after(&self, now_us: u64) -> u64 {
        if self.comes_back() { self.grain.ceil(now_us + self.rest_us) } else { NEVER }
    }

    /// The first grain that begins at `at_us` or later.
    fn grain_from(&self, at_us: u64) -> u64 {
        self.grain.ceil(at_us)
    }

    fn grain_at(&self, now_us: u64) -> u64 {
        self.grain.floor(now_us)
    }
}

/// {epoch: 8 | grain: 28 | count: 28}: slots that come back when their grain begins.
#[derive(Clone, Copy)]
struct Entry(u64);

impl Entry {
    fn new(epoch: u16, grain: u64, count: u32) -> Self {
        Self(u64::from(epoch as u8) << 56 | (grain & GRAIN_MASK) << COUNT_BITS | u64::from(count))
    }

    fn count(self) -> u32 {
        (self.0 & COUNT_MASK) as u32
    }

    /// Whether slots of this epoch are in it.
    fn is_live(self, epoch: u16) -> bool {
        self.count() > 0 && (self.0 >> 56) as u8 == epoch as u8
    }

    /// Grains from `grain` to its own; 0 or less: it has begun. Right within half the circle, which is 2 million windows.
    fn ahead_of(self, grain: u64) -> i64 {
        let circle = (self.0 >> COUNT_BITS).wrapping_sub(grain) & GRAIN_MASK;
        if circle > GRAIN_MASK / 2 { circle as i64 - (GRAIN_MASK as i64 + 1) } else { circle as i64 }
    }
}

impl Default for Bucket {
    fn default() -> Self {
        Self {
            word: AtomicU64::new(0),
            few: [const { AtomicU64::new(0) }; FEW],
            more: OnceLock::new(),
            swept: AtomicU64::new(0),
            floor_us: AtomicU64::new(0),
            demand: AtomicU32::new(0),
        }
    }
}

impl Bucket {
    /// Uses `cost` slots from `now_us` on, or none. The caller has checked that the session lasted at that instant. A
    /// thread that stops between reading its clock and here may find slots that came free meanwhile: then the instant
    /// of admission is when they did, which is before the answer.
    pub fn take(&self, rest: &Rest, cost: u32, now_us: u64) -> Result<Taken, Short> {
        self.take_of(rest, cost, now_us, now_us)
    }

    /// The same, of what has come free by `home_us`, which is `now_us` or before; every other call goes by that instant then.
    pub(super) fn take_of(&self, rest: &Rest, cost: u32, now_us: u64, home_us: u64) -> Result<Taken, Short> {
        self.want(cost);
        self.spend(rest, cost, now_us, home_us)
    }

    /// The same, which is not counted as asked for.
    pub(super) fn spend(&self, rest: &Rest, cost: u32, now_us: u64, home_us: u64) -> Result<Taken, Short> {
        let grain = rest.grain_at(home_us);
        self.sweep_until(rest, grain);
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            if word & FREE_MASK < u64::from(cost) {
                return Err(Short { next_us: self.next(rest, epoch_of(word), grain) });
            }
            match self.word.compare_exchange_weak(word, word - u64::from(cost), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(newer) => word = newer,
            }
        }
        // Raised before any slot became free that the exchange above may have got.
        let at_us = now_us.max(self.floor_us.load(Ordering::Acquire));
        let left = (word & FREE_MASK) - u64::from(cost);
        let (epoch, grain) = (epoch_of(word), rest.grain_after(at_us));
        let taken = Taken { epoch, grain, cost, at_us, left, place: 0 };
        if rest.comes_back() {
            self.record(rest, taken.epoch, taken.grain, cost);
        }
        Ok(taken)
    }

    /// Undoes a take whose request was not let in after all.
    pub fn put_back(&self, rest: &Rest, taken: Taken) {
        if taken.grain == NEVER {
            return self.free(taken.epoch, taken.cost);
        }
        for cells in self.rings() {
            let cell = &cells[(taken.grain % cells.len() as u64) as usize];
            let mut entry = Entry(cell.load(Ordering::Acquire));
            // Only out of its own grain: in exchange for another's a slot would come back early.
            while entry.is_live(taken.epoch) && entry.ahead_of(taken.grain) == 0 && entry.count() >= taken.cost {
                match self.swap(cell, entry, Entry(entry.0 - u64::from(taken.cost))) {
                    Ok(()) if self.sealed_us() > taken.at_us => {
                        return self.record(rest, taken.epoch, taken.grain, taken.cost);
                    }
                    Ok(()) => return self.free(taken.epoch, taken.cost),
                    Err(newer) => entry = newer,
                }
            }
        }
        // Not found: it comes back by itself.
    }

    /// What was used up to `now_us` is about to be told to the ledger as certain: it rests from here on, also where a
    /// request is not let in after all. To be called before the slots in use are read for that.
    pub fn seal(&self, now_us: u64) {
        self.more.get_or_init(Box::default).sealed_us.fetch_max(now_us + 1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// To be looked at after a slot was taken out of its cell: whoever seals reads the cells afterwards, so one of the two
    /// sees the other.
    fn sealed_us(&self) -> u64 {
        fence(Ordering::SeqCst);
        self.more.get().map_or(0, |more| more.sealed_us.load(Ordering::SeqCst))
    }

    /// Of which lease it is: another one is another number.
    pub fn epoch(&self) -> u16 {
        epoch_of(self.word.load(Ordering::Acquire))
    }

    /// Whether it still is the lease that was taken from: if not, what was taken is void.
    pub fn is_of(&self, taken: &Taken) -> bool {
        self.epoch() == taken.epoch
    }

    /// Slots that the ledger granted, free from `now_us` on.
    pub fn grant(&self, count: u32, now_us: u64) {
        self.floor_us.fetch_max(now_us, Ordering::AcqRel);
        let epoch = epoch_of(self.word.load(Ordering::Acquire));
        self.free(epoch, count);
    }

    /// Slots that the ledger granted for later, as another node used them last. False, and nothing is granted, if that
    /// is further ahead than the ring reaches, which is a rest and a little more: then ask again later.
    pub fn grant_at(&self, rest: &Rest, count: u32, reusable_at_us: u64, now_us: u64) -> bool {
        let epoch = epoch_of(self.word.load(Ordering::Acquire));
        let (now, due) = (rest.grain_at(now_us), rest.grain_from(reusable_at_us));
        let reaches = due < now + MANY as u64;
        if reaches {
            self.sweep(rest, now);
            self.record(rest, epoch, due, count);
        }
        reaches
    }

    /// Takes up to `count` free slots out for good; how many.
    pub fn release_free(&self, rest: &Rest, count: u32, now_us: u64) -> u32 {
        self.sweep(rest, rest.grain_at(now_us));
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let out = (word & FREE_MASK).min(u64::from(count));
            match self.word.compare_exchange_weak(word, word - out, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return out as u32,
                Err(newer) => word = newer,
            }
        }
    }

    /// Takes up to `count` resting slots out for good, those first that come back last.
    pub fn release_used(&self, rest: &Rest, count: u32, now_us: u64) -> Vec<Used> {
        let (epoch, grain) = (epoch_of(self.word.load(Ordering::Acquire)), rest.grain_at(now_us));
        let mut cells: Vec<_> = self.cells().map(|cell| (Entry(cell.load(Ordering::Acquire)), cell)).collect();
        cells.retain(|(entry, _)| entry.is_live(epoch) && entry.ahead_of(grain) > 0);
        cells.sort_by_key(|(entry, _)| std::cmp::Reverse(entry.ahead_of(grain)));
        let mut left = count;
        let mut out = Vec::new();
        for (mut entry, cell) in cells {
            while left > 0 && entry.is_live(epoch) && entry.ahead_of(grain) > 0 {
                let gone = left.min(entry.count());
                match self.swap(cell, entry, Entry(entry.0 - u64::from(gone))) {
                    Ok(()) => {
                        left -= gone;
                        let at = grain.saturating_add_signed(entry.ahead_of(grain)) * rest.grain.by();
                        out.push(Used { reusable_at_us: at, count: gone });
                        break;
                    }
                    Err(newer) => entry = newer,
                }
            }
        }
        out
    }

    /// Moves up to `count` free slots to another bucket of the same lease, if both are of one epoch. They are voided together,
    /// so what belongs to an earlier epoch arrives nowhere.
    pub(super) fn move_free(&self, to: &Bucket, rest: &Rest, count: u32, now_us: u64, home_us: u64) {
        self.sweep_until(rest, rest.grain_at(home_us));
        let epoch = to.epoch();
        let mut word = self.word.load(Ordering::Acquire);
        let out = loop {
            let out = (word & FREE_MASK).min(u64::from(count));
            if out == 0 || epoch_of(word) != epoch {
                return;
            }
            match self.word.compare_exchange_weak(word, word - out, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break out as u32,
                Err(newer) => word = newer,
            }
        };
        // They were free here since then, and are free there no sooner.
        let floor_us = self.floor_us.load(Ordering::Acquire).max(now_us);
        to.floor_us.fetch_max(floor_us, Ordering::AcqRel);
        to.free(epoch, out);
    }

    /// What is free without a look at what has rested since.
    pub(super) fn free_now(&self) -> u64 {
        self.word.load(Ordering::Relaxed) & FREE_MASK
    }

    /// When the next used slot comes back.
    pub(super) fn next_us(&self, rest: &Rest, home_us: u64) -> Option<u64> {
        self.next(rest, self.epoch(), rest.grain_at(home_us))
    }

    pub(super) fn of_epoch(epoch: u16) -> Self {
        Self { word: AtomicU64::new(u64::from(epoch) << FREE_BITS), ..Self::default() }
    }

    /// A new lease: whatever was held is gone, and takes that are under way under the old one leave no trace.
    pub fn void(&self) {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let next = u64::from(epoch_of(word).wrapping_add(1)) << FREE_BITS;
            match self.word.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(newer) => word = newer,
            }
        }
    }

    /// Free slots, those included that have rested by `now_us`.
    pub fn free_count(&self, rest: &Rest, now_us: u64) -> u64 {
        self.sweep(rest, rest.grain_at(now_us));
        self.word.load(Ordering::Acquire) & FREE_MASK
    }

    /// What a client is told of: allocates nothing.
    pub fn counts(&self, rest: &Rest, now_us: u64) -> Counts {
        let grain = rest.grain_at(now_us);
        self.sweep_until(rest, grain);
        let word = self.word.load(Ordering::Acquire);
        let (free, epoch) = (word & FREE_MASK, epoch_of(word));
        let (mut used, mut last) = (0, None);
        for entry in self.cells().map(|cell| Entry(cell.load(Ordering::Acquire))).filter(|it| it.is_live(epoch)) {
            used += u64::from(entry.count());
            last = last.max(Some(grain.saturating_add_signed(entry.ahead_of(grain))));
        }
        Counts { free, used, whole_us: last.map(|grain| grain * rest.grain.by()) }
    }

    /// Resting slots, soonest first.
    pub fn used(&self, rest: &Rest, now_us: u64) -> Vec<Used> {
        let (epoch, grain) = (epoch_of(self.word.load(Ordering::Acquire)), rest.grain_at(now_us));
        let entries = self.cells().map(|cell| Entry(cell.load(Ordering::Acquire)));
        let mut used: Vec<_> = entries
            .filter(|entry| entry.is_live(epoch))
            .map(|entry| (grain.saturating_add_signed(entry.ahead_of(grain)), entry.count()))
            .map(|(grain, count)| Used { reusable_at_us: grain * rest.grain.by(), count })
            .collect();
        used.sort_by_key(|used| used.reusable_at_us);
        used
    }

    /// What was asked for since the last call, granted or not.
    pub fn demand(&self) -> u32 {
        self.demand.swap(0, Ordering::Relaxed)
    }

    /// Bytes on the heap and in place.
    pub fn bytes(&self) -> usize {
        let many = |more: &More| if more.many.get().is_some() { size_of::<[AtomicU64; MANY]>() } else { 0 };
        size_of::<Self>() + self.more.get().map_or(0, |more| size_of::<More>() + many(more))
    }

    pub(super) fn want(&self, cost: u32) {
        // Two workers at once may lose one: demand steers shares, it decides nothing.
        let demand = self.demand.load(Ordering::Relaxed);
        self.demand.store(demand.saturating_add(cost), Ordering::Relaxed);
    }

    fn cells(&self) -> impl Iterator<Item = &AtomicU64> {
        self.rings().flatten()
    }

    fn rings(&self) -> impl Iterator<Item = &[AtomicU64]> {
        let beside = self.more.get().into_iter();
        let beside = beside.flat_map(|more| iter::once(&more.some[..]).chain(more.many.get().map(|many| &many[..])));
        iter::once(&self.few[..]).chain(beside)
    }

    /// Brings home what has rested by the begin of `grain`, if nobody did so yet.
    fn sweep_until(&self, rest: &Rest, grain: u64) {
        if self.swept.load(Ordering::Relaxed) < grain {
            self.sweep(rest, grain);
        }
    }

    /// Brings home what has rested by the begin of `grain`.
    #[cold]
    fn sweep(&self, rest: &Rest, grain: u64) {
        self.floor_us.fetch_max(grain * rest.grain.by(), Ordering::AcqRel);
        let epoch = epoch_of(self.word.load(Ordering::Acquire));
        for cell in self.cells() {
            let mut entry = Entry(cell.load(Ordering::Acquire));
            while entry.is_live(epoch) && entry.ahead_of(grain) <= 0 {
                match self.swap(cell, entry, Entry(0)) {
                    Ok(()) => {
                        self.free(epoch, entry.count());
                        break;
                    }
                    Err(newer) => entry = newer,
                }
            }
        }
        self.swept.fetch_max(grain, Ordering::AcqRel);
    }

    /// Adds free slots, unless the lease they belong to is over. Beyond what a bucket may have they are lost, which lets in fewer
    /// and never more: budgets by the calendar may be larger, and limits that were stored before larger ones were refused.
    fn free(&self, epoch: u16, count: u32) {
        let mut word = self.word.load(Ordering::Acquire);
        while epoch_of(word) == epoch {
            let room = u64::from(SLOTS_MAX).saturating_sub(word & FREE_MASK);
            let next = word + u64::from(count).min(room);
            match self.word.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(newer) => word = newer,
            }
        }
    }

    /// Notes that `count` slots come back when grain `due` begins. Used slots were brought home before.
    fn record(&self, rest: &Rest, epoch: u16, due: u64, count: u32) {
        let more = match self.more.get() {
            None if self.record_in(&self.few, rest, epoch, due, count, false) => return,
            None => self.more.get_or_init(Box::default),
            Some(more) => more,
        };
        if more.many.get().is_none() && self.record_in(&more.some, rest, epoch, due, count, false) {
            return;
        }
        let many = more.many.get_or_init(|| Box::new([const { AtomicU64::new(0) }; MANY]));
        self.record_in(many, rest, epoch, due, count, true);
    }

    /// False: its place is taken by another grain that is yet to come. In the last place there is, which reaches further than a
    /// rest, those are slots that have rested and may not come home yet: they come with the new ones, and late is safe.
    fn record_in<const N: usize>(
        &self,
        cells: &[AtomicU64; N],
        rest: &Rest,
        epoch: u16,
        due: u64,
        count: u32,
        last: bool,
    ) -> bool {
        let cell = &cells[(due % N as u64) as usize];
        let mut entry = Entry(cell.load(Ordering::Acquire));
        loop {
            if epoch_of(self.word.load(Ordering::Acquire)) != epoch {
                return true;
            }
            // In the last place a later lap's entry takes ours along: late is safe.
            let ahead = entry.ahead_of(due);
            let joins = entry.is_live(epoch) && (ahead == 0 || ahead > 0 && last);
            let before = entry.is_live(epoch) && !joins;
            let home = self.swept.load(Ordering::Acquire);
            let old = before && entry.ahead_of(home) <= 0;
            if before && !old && !last {
                return false;
            }
            let more = if joins || before && !old { entry.count() + count } else { count };
            // Beyond what an entry holds they are lost, as in `free`.
            let more = more.min(SLOTS_MAX);
            let added = u64::from(more.saturating_sub(entry.count()));
            let next = if joins { Entry(entry.0 + added) } else { Entry::new(epoch, due, more) };
            match self.swap(cell, entry, next) {
                Ok(()) => {
                    if old {
                        self.floor_us.fetch_max(home * rest.grain.by(), Ordering::AcqRel);
                        self.free(epoch, entry.count());
                    }
                    return true;
                }
                Err(newer) => entry = newer,
            }
        }
    }

    fn swap(&self, cell: &AtomicU64, from: Entry, to: Entry) -> Result<(), Entry> {
        cell.compare_exchange_weak(from.0, to.0, Ordering::AcqRel, Ordering::Acquire).map(drop).map_err(Entry)
    }

    #[cold]
    fn next(&self, rest: &Rest, epoch: u16, grain: u64) -> Option<u64> {
        let entries = self.cells().map(|cell| Entry(cell.load(Ordering::Acquire)));
        let ahead = entries.filter(|entry| entry.is_live(epoch)).map(|entry| entry.ahead_of(grain).max(1));
        ahead.min().map(|ahead| grain.saturating_add_signed(ahead) * rest.grain.by())
    }
}

fn epoch_of(word: u64) -> u16 {
    (word >> FREE_BITS) as u16
}

#[cfg(test)]
mod tests;
