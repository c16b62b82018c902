//! How long the answers of one upstream take, as one worker sees it: only kept where slow ones are asked for twice.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

/// Four to each doubling, from a microsecond on.
const BUCKETS: usize = 128;
/// Fewer say nothing.
const ANSWERS_MIN: u32 = 20;
/// Then all counts are halved, so that old answers fade.
const ANSWERS_MAX: u32 = 1_000;

pub(super) struct Latencies {
    counts: RefCell<[u32; BUCKETS]>,
    answers: Cell<u32>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: RefCell::new([0; BUCKETS]), answers: Cell::new(0) }
    }
}

impl Latencies {
    pub fn observe(&self, took: Duration) {
        let mut counts = self.counts.borrow_mut();
        counts[bucket(took)] += 1;
        self.answers.set(self.answers.get() + 1);
        if self.answers.get() >= ANSWERS_MAX {
            counts.iter_mut().for_each(|count| *count /= 2);
            self.answers.set(counts.iter().sum());
        }
    }

    /// What 19 of 20 answers stay below; None: not enough is known.
    pub fn p95(&self) -> Option<Duration> {
        let all = self.answers.get();
        if all < ANSWERS_MIN {
            return None;
        }
        let mut slower = all / 20;
        for (i, count) in self.counts.borrow().iter().enumerate().rev() {
            if *count > slower {
                return Some(upper(i));
            }
            slower -= count;
        }
        None
    }
}

fn bucket(took: Duration) -> usize {
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let octave = us.ilog2() as usize;
    let quarter = if octave < 2 { 0 } else { (us >> (octave - 2) & 3) as usize };
    (octave * 4 + quarter).min(BUCKETS - 1)
}

fn upper(bucket: usize) -> Duration {
    let (octave, quarter) = (bucket / 4, bucket as u64 % 4);
    Duration::from_micros(((5 + quarter) << octave) / 4 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_above_19_of_20_and_near() {
        let it = Latencies::default();
        (0..19).for_each(|_| it.observe(Duration::from_millis(10)));
        assert_eq!(it.p95(), None, "nineteen say nothing");
        it.observe(Duration::from_secs(5));
        let p95 = it.p95().unwrap();
        assert!((10..13).contains(&p95.as_millis()), "{p95:?}");
        (0..3).for_each(|_| it.observe(Duration::from_secs(5)));
        assert!(it.p95().unwrap() > Duration::from_secs(4));
    }

    #[test]
    fn old_answers_fade() {
        let it = Latencies::default();
        (0..500).for_each(|_| it.observe(Duration::from_secs(1)));
        (0..20_000).for_each(|_| it.observe(Duration::from_millis(1)));
        assert!(it.p95().unwrap() < Duration::from_millis(2));
        assert!(it.answers.get() < ANSWERS_MAX);
    }

    #[test]
    fn every_length_has_its_bucket() {
        for us in [0, 1, 2, 3, 4, 7, 8, 1000, 65_537, 30_000_000, u64::MAX] {
            let took = Duration::from_micros(us);
            assert!(bucket(took) < BUCKETS);
            assert!(us > 1 << 31 || upper(bucket(took)) >= took, "{us}");
        }
    }
}
