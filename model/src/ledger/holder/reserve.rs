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
        if self.lease.reserve.is_some() { self.slots / PART } else { 0 }
    }

    /// The ledger knows of `count`: as many are put aside, those in use that come back last before all others.
    pub(super) fn fill_reserve(&mut self, count: u64, now_us: u64) {
        let Some(reserve) = &self.lease.reserve else { return };
        let (bucket, rest, home_us) = (&self.lease.bucket, &self.lease.rest, self.lease.home_us(now_us));
        let more = count.saturating_sub(self.reserved);
        let used = bucket.release_used(rest, super::small(more), home_us);
        let moved: u64 = used.iter().map(|it| u64::from(it.count)).sum();
        self.reserved += moved;
        for it in used {
            if !reserve.bucket.grant_at(rest, it.count, it.reusable_at_us, now_us) {
                (self.slots, self.reserved) = (self.slots - u64::from(it.count), self.reserved - u64::from(it.count));
            }
        }
        let free = bucket.release_free(rest, super::small(more - moved), home_us);
        reserve.bucket.grant(free, now_us);
        self.reserved += u64::from(free);
    }

    /// Back to the others, so that what is given back is taken from all.
    pub(super) fn empty_reserve(&mut self, now_us: u64) {
        let Some(reserve) = &self.lease.reserve else { return };
        let (bucket, rest) = (&self.lease.bucket, &self.lease.rest);
        let free = reserve.bucket.release_free(rest, super::small(u64::MAX), now_us);
        bucket.grant(free, now_us);
        for it in reserve.bucket.release_used(rest, super::small(u64::MAX), now_us) {
            // What rests longer than the ring reaches stays unused until the session ends.
            if !bucket.grant_at(rest, it.count, it.reusable_at_us, self.lease.home_us(now_us)) {
                self.slots -= u64::from(it.count);
            }
        }
        self.reserved = 0;
    }

    /// Whatever was held is not ours any more.
    pub(super) fn void(&mut self) {
        self.reserved = 0;
        self.lease.void();
    }
}
