//! The slots of a lease, wherever they are. Those of a hot key lie in several buckets, so that workers do not meet in one:
//! each is whole in itself, and what is used of it rests and comes back in it. A worker fills up its own from the lease's
//! bucket, 64 at a time, and when nothing is left there the last ones are gathered from all.

use std::iter;

use super::Lease;
use crate::ledger::bucket::{Bucket, Counts, Short, Taken, Used};

/// So many slots go to a worker at a time.
pub(super) const PART_SLOTS: u32 = 64;
/// How many parts a lease may have.
pub const PARTS_MAX: usize = 64;

/// Alone on its cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Part(Bucket);

impl Lease {
    /// From here on each of so many workers has a part of its own. For the holder alone, which also voids them all: their
    /// epochs go in step.
    pub(in crate::ledger) fn split(&self, parts: usize) {
        let epoch = self.bucket.epoch();
        self.beside().parts.get_or_init(|| (0..parts.min(PARTS_MAX)).map(|_| Part(Bucket::of_epoch(epoch))).collect());
    }

    pub fn is_split(&self) -> bool {
        self.parts().is_some()
    }

    pub(super) fn parts(&self) -> Option<&[Part]> {
        self.beside.get()?.parts.get().map(|parts| &**parts)
    }

    /// The lease's bucket first: slots of an earlier epoch find no way from there into a part of a later one.
    fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        iter::once(&self.bucket).chain(self.parts().into_iter().flatten().map(|part| &part.0))
    }

    pub(super) fn take_of_parts(&self, parts: &[Part], worker: usize, cost: u32, now_us: u64) -> Result<Taken, Short> {
        let (rest, home_us) = (&self.terms.rest, self.home_us(now_us));
        let n = worker % parts.len();
        let own = &parts[n].0;
        let left = |taken: Taken| taken.of_part(n, self.bucket.free_now());
        own.want(cost);
        if let Ok(taken) = own.spend(rest, cost, now_us, home_us) {
            return Ok(left(taken));
        }
        self.bucket.move_free(own, rest, cost.max(PART_SLOTS), now_us, home_us);
        if let Ok(taken) = own.spend(rest, cost, now_us, home_us) {
            return Ok(left(taken));
        }
        for part in parts {
            part.0.move_free(&self.bucket, rest, u32::MAX, now_us, home_us);
        }
        self.bucket.spend(rest, cost, now_us, home_us).map_err(|short| {
            let nearest = parts.iter().filter_map(|part| part.0.next_us(rest, home_us)).min();
            Short { next_us: short.next_us.into_iter().chain(nearest).min() }
        })
    }

    pub(super) fn put_back_lent(&self, taken: Taken) {
        match (taken.worker(), self.parts()) {
            (Some(n), Some(parts)) => parts[n].0.put_back(&self.terms.rest, taken),
            _ => self.bucket.put_back(&self.terms.rest, taken),
        }
    }

    pub(super) fn counts_lent(&self, now_us: u64) -> Counts {
        let home_us = self.home_us(now_us);
        let none = Counts { free: 0, used: 0, whole_us: None };
        self.buckets().map(|it| it.counts(&self.terms.rest, home_us)).fold(none, |sum, it| Counts {
            free: sum.free + it.free,
            used: sum.used + it.used,
            whole_us: sum.whole_us.max(it.whole_us),
        })
    }

    // ---- for the holder

    pub(in crate::ledger) fn grant(&self, count: u32, now_us: u64) {
        self.bucket.grant(count, now_us);
    }

    pub(in crate::ledger) fn grant_at(&self, count: u32, reusable_at_us: u64, now_us: u64) -> bool {
        self.bucket.grant_at(&self.terms.rest, count, reusable_at_us, self.home_us(now_us))
    }

    pub(in crate::ledger) fn free_count(&self, now_us: u64) -> u64 {
        let home_us = self.home_us(now_us);
        self.buckets().map(|it| it.free_count(&self.terms.rest, home_us)).sum()
    }

    pub(in crate::ledger) fn release_free(&self, count: u32, now_us: u64) -> u32 {
        let home_us = self.home_us(now_us);
        self.buckets().fold(0, |out, it| out + it.release_free(&self.terms.rest, count - out, home_us))
    }

    pub(in crate::ledger) fn release_used(&self, count: u32, now_us: u64) -> Vec<Used> {
        let home_us = self.home_us(now_us);
        let mut left = count;
        let mut out = Vec::new();
        for bucket in self.buckets() {
            let used = bucket.release_used(&self.terms.rest, left, home_us);
            left -= used.iter().map(|it| it.count).sum::<u32>();
            out.extend(used);
        }
        one_of_each(out)
    }

    /// Soonest first, each instant once: no longer than of one bucket.
    pub(in crate::ledger) fn used(&self, now_us: u64) -> Vec<Used> {
        let home_us = self.home_us(now_us);
        one_of_each(self.buckets().flat_map(|it| it.used(&self.terms.rest, home_us)).collect())
    }

    pub(in crate::ledger) fn demand(&self) -> u32 {
        self.buckets().fold(0, |sum, it| sum.saturating_add(it.demand()))
    }

    pub(in crate::ledger) fn seal(&self, now_us: u64) {
        self.buckets().for_each(|it| it.seal(now_us));
    }

    pub(in crate::ledger) fn void(&self) {
        self.buckets().for_each(Bucket::void);
        if let Some(reserve) = self.reserve() {
            reserve.void();
        }
    }
}

/// What comes back at the same instant is one.
fn one_of_each(mut used: Vec<Used>) -> Vec<Used> {
    used.sort_by_key(|it| it.reusable_at_us);
    used.dedup_by(|later, kept| {
        let same = later.reusable_at_us == kept.reusable_at_us;
        kept.count += if same { later.count } else { 0 };
        same
    });
    used
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::ledger::lease::{Tenure, Terms};

    const WINDOW: u64 = 1_000_000;

    fn lease(parts: usize) -> Lease {
        let tenure = Arc::new(Tenure::default());
        tenure.extend(u64::MAX, 0);
        let terms = Terms::of_window(1, WINDOW, tenure);
        let lease = Lease::new("k".into(), Arc::new(terms));
        lease.split(parts);
        lease
    }

    #[test]
    fn a_worker_fills_up_its_own_part_and_gets_the_last_slots_of_others() {
        let lease = lease(2);
        lease.grant(130, 0);
        for _ in 0..65 {
            assert!(lease.take_on(0, 1, 5).is_ok());
        }
        assert_eq!(lease.bucket.free_now(), 2, "two times 64 were fetched");
        assert!(lease.take_on(1, 65, 5).is_ok());
        assert!(lease.take_on(1, 1, 5).is_err());
        assert_eq!(lease.counts(5).used, 130);
    }

    #[test]
    fn what_is_put_back_goes_where_it_came_from_and_nothing_outlives_a_lease() {
        let lease = lease(3);
        lease.grant(200, 0);
        let taken = lease.take_on(2, 3, 0).unwrap();
        lease.put_back(taken);
        assert_eq!(lease.counts(0).free, 200);
        let before = lease.take_on(1, 1, 0).unwrap();
        lease.void();
        lease.put_back(before);
        assert_eq!(lease.counts(0), Counts { free: 0, used: 0, whole_us: None });
        lease.grant(70, 1);
        assert!(lease.take_on(1, 70, 1).is_ok());
    }

    #[test]
    fn what_parts_have_in_use_is_told_as_of_one_bucket() {
        let lease = lease(4);
        lease.grant(400, 0);
        for worker in 0..4 {
            let _ = lease.take_on(worker, 10, 7).unwrap();
        }
        let used = lease.used(7);
        assert_eq!((used.len(), used[0].count), (1, 40));
        assert_eq!(lease.release_used(25, 7).iter().map(|it| it.count).collect::<Vec<_>>(), [25]);
        assert_eq!(lease.counts(7).used, 15);
    }

    proptest! {
        /// As of one bucket: no window holds more than was granted, and slots are neither lost nor made.
        #[test]
        fn no_window_of_a_split_lease_holds_more_than_was_granted(steps in prop::collection::vec((0..9u8, 0..WINDOW / 4, 1..90u32), 1..200)) {
            let lease = lease(3);
            let (mut now, mut held, mut uses) = (0, 200, Vec::new());
            lease.grant(200, 0);
            for (step, wait, count) in steps {
                match step {
                    0..=2 => now += wait,
                    3..=6 => if lease.take_on(usize::from(step), count % 7 + 1, now).is_ok() { uses.push((now, count % 7 + 1)) },
                    7 => held -= lease.release_free(count, now),
                    _ => held -= lease.release_used(count, now).iter().map(|it| it.count).sum::<u32>(),
                }
                let counts = lease.counts(now);
                prop_assert_eq!(counts.free + counts.used, u64::from(held));
            }
            for (from, _) in &uses {
                let within = uses.iter().filter(|(at, _)| (*from..from + WINDOW).contains(at));
                prop_assert!(within.map(|(_, cost)| cost).sum::<u32>() <= 200);
            }
        }
    }
}
