//! What answers cost beyond what was there when they came. It is taken before anything else.

use std::sync::atomic::{AtomicU64, Ordering};

const OWED_BITS: u32 = 48;
const OWED_MASK: u64 = (1 << OWED_BITS) - 1;

/// {epoch: 16 | slots: 48}: what is owed to a period or a lease that is over is owed no more.
#[derive(Debug, Default)]
pub struct Debt(AtomicU64);

impl Debt {
    pub fn is_none(&self) -> bool {
        self.0.load(Ordering::Relaxed) & OWED_MASK == 0
    }

    /// What is owed to the lease of that epoch.
    pub fn left(&self, epoch: u16) -> u64 {
        let owed = self.0.load(Ordering::Acquire);
        if owed >> OWED_BITS == u64::from(epoch) { owed & OWED_MASK } else { 0 }
    }

    /// So much more, up to `most` in all.
    pub fn add(&self, epoch: u16, more: u64, most: u64) {
        let of = u64::from(epoch) << OWED_BITS;
        let add = |owed: u64| {
            let known = if owed & !OWED_MASK == of { owed & OWED_MASK } else { 0 };
            Some(of | known.saturating_add(more).min(most.max(known)).min(OWED_MASK))
        };
        // It always answers something to store.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
    }

    /// So much less, of the lease of that epoch.
    pub fn reduce(&self, epoch: u16, less: u64) {
        let of = u64::from(epoch) << OWED_BITS;
        let reduce = |owed: u64| (owed & !OWED_MASK == of).then(|| of | (owed & OWED_MASK).saturating_sub(less));
        // Of another epoch there is nothing to reduce.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, reduce);
    }

    /// All of it, for another lease of the key.
    pub(super) fn take(&self, epoch: u16) -> u64 {
        let owed = self.0.swap(0, Ordering::AcqRel);
        if owed >> OWED_BITS == u64::from(epoch) { owed & OWED_MASK } else { 0 }
    }

    /// Takes what is owed by `take`, as far as `free` says there is something; what is left of it.
    pub fn pay(&self, epoch: u16, free: impl Fn() -> u64, take: impl Fn(u32) -> bool) -> u64 {
        loop {
            let owed = self.0.load(Ordering::Acquire);
            let left = owed & OWED_MASK;
            if left == 0 {
                return 0;
            }
            if owed >> OWED_BITS != u64::from(epoch) {
                let _ = self.0.compare_exchange(owed, 0, Ordering::AcqRel, Ordering::Acquire);
                return 0;
            }
            let part = left.min(free());
            if part == 0 {
                return left;
            }
            // Claimed first, so that two workers do not pay the same twice.
            if self.0.compare_exchange(owed, owed - part, Ordering::AcqRel, Ordering::Acquire).is_err() {
                continue;
            }
            if !take(part as u32) {
                // Whoever was faster may have moved the rest of it to another lease, and this word is of no epoch then.
                self.add(epoch, part, u64::MAX);
                return left;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker stops between its claim and its take; meanwhile the lease has given way.
    #[test]
    fn what_could_not_be_paid_is_owed_whatever_came_in_between() {
        let debt = Debt::default();
        debt.add(7, 50, 100);
        let moved = std::cell::Cell::new(0);
        let gives_way = |_| {
            moved.set(debt.take(7));
            false
        };
        assert_eq!(debt.pay(7, || 30, gives_way), 50);
        assert_eq!((moved.get(), debt.left(7)), (20, 30));
    }

    #[test]
    fn what_is_owed_is_capped_and_of_another_epoch_is_none() {
        let debt = Debt::default();
        debt.add(1, 90, 100);
        debt.add(1, 90, 100);
        assert_eq!(debt.left(1), 100);
        debt.reduce(2, 50);
        assert_eq!((debt.left(1), debt.left(2)), (100, 0));
        assert_eq!(debt.pay(1, || 60, |part| part == 60), 40);
    }
}
