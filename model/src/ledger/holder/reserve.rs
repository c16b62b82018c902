//! What a holder keeps of a limit for a time without a quorum: a fifth of its slots, which the ledger knows of and
//! counts as in use for longer than the session.
//!
//! The ledger is told how many before any of them is put aside, and hears of fewer only after they were brought back.

use super::Account;

/// One slot of so many.
const PART: u64 = 5;

impl Account {
    /// How many are to be put aside once the ledger knows.
    pub(super) fn reserve(&self) -> u64 {
        if self.lease.reserve().is_some() { self.slots / PART } else { 0 }
    }

    /// The ledger knows of `count`: as many are put aside, those in use that come back last before all others.
    pub(super) fn fill_reserve(&mut self, count: u64, now_us: u64) {
        let lease = self.lease.clone();
        let Some(reserve) = lease.reserve() else { return };
        let more = count.saturating_sub(self.reserved());
        let mut moved = 0;
        let used = lease.release_used(super::small(more), now_us);
        let left = more - used.iter().map(|it| u64::from(it.count)).sum::<u64>();
        for it in used {
            match reserve.grant_at(&lease.terms().rest, it.count, it.reusable_at_us, now_us) {
                true => moved += u64::from(it.count),
                false => self.slots -= u64::from(it.count),
            }
        }
        let free = lease.release_free(super::small(left), now_us);
        reserve.grant(free, now_us);
        self.books().reserved += moved + u64::from(free);
    }

    /// Back to the others, so that what is given back is taken from all.
    pub(super) fn empty_reserve(&mut self, now_us: u64) {
        let lease = self.lease.clone();
        let Some(reserve) = lease.reserve() else { return };
        let rest = &lease.terms().rest;
        lease.grant(reserve.release_free(rest, super::small(u64::MAX), now_us), now_us);
        for it in reserve.release_used(rest, super::small(u64::MAX), now_us) {
            // What rests longer than the ring reaches stays unused until the session ends.
            if !lease.grant_at(it.count, it.reusable_at_us, now_us) {
                self.slots -= u64::from(it.count);
            }
        }
        self.forget_reserve();
    }

    fn forget_reserve(&mut self) {
        if let Some(books) = &mut self.books {
            books.reserved = 0;
        }
    }

    /// Whatever was held is not ours any more.
    pub(super) fn void(&mut self) {
        self.forget_reserve();
        for old in self.books.iter_mut().flat_map(|it| it.before.drain(..)) {
            old.void();
        }
        self.lease.void();
    }
}
