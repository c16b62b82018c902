//! How many different things there were, in bounded room: a sample of them by their hashes (adaptive sampling: Wegman; Flajolet
//! 1990). While they are few it has them all and the count is exact; each time they are too many, those stay whose hash is in the
//! lower half of what was taken so far. Two samples make one, whoever has seen what, and in any order.

use std::collections::BTreeMap;

use super::SLOTS;

/// How many of them are kept. The standard error of a count beyond it is about 1.2 through its square root: 5.3 %.
pub const SAMPLE_MAX: usize = 512;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sample {
    /// One of two to this power is kept.
    level: u8,
    marks: BTreeMap<u64, Mark>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Mark {
    /// When it was there last.
    slot: u64,
    /// What of it was there since `turned`: a block of numbers has 64.
    bits: u64,
    /// And in the half window before that.
    before: u64,
    turned: u64,
}

/// After so many slots, half a window, what was there goes to `before`: it counts for two windows at most.
const TURNS_AFTER: u64 = SLOTS as u64 / 2;

impl Mark {
    fn all(&self) -> u64 {
        self.bits | self.before
    }
}

fn scaled(count: u64, level: u8) -> u64 {
    count.saturating_mul(1 << level.min(63))
}

impl Sample {
    /// One more, perhaps not for the first time. Hashes must be spread evenly, and the same everywhere.
    pub fn note(&mut self, hash: u64, bits: u64, slot: u64) {
        if hash > self.highest() {
            return;
        }
        let mark = self.marks.entry(hash).or_default();
        mark.slot = mark.slot.max(slot);
        if slot >= mark.turned + TURNS_AFTER {
            (mark.before, mark.bits, mark.turned) = (mark.bits, 0, slot);
        }
        mark.bits |= bits;
        self.thin();
    }

    pub fn merge(&mut self, other: &Self) {
        if other.level > self.level {
            self.level = other.level;
            self.cut();
        }
        let highest = self.highest();
        for (hash, mark) in other.marks.range(..=highest) {
            let known = self.marks.entry(*hash).or_default();
            known.slot = known.slot.max(mark.slot);
            known.bits |= mark.all();
        }
        self.thin();
    }

    /// Forgets what was there last before that slot.
    pub fn forget(&mut self, before: u64) {
        self.marks.retain(|_, mark| mark.slot >= before);
        for mark in self.marks.values_mut().filter(|mark| mark.turned <= before) {
            mark.before = 0;
        }
        if self.marks.is_empty() {
            self.level = 0;
        }
    }

    /// How many different ones there were.
    pub fn count(&self) -> u64 {
        scaled(self.marks.len() as u64, self.level)
    }

    /// How many bits there were of all of them.
    pub fn bits(&self) -> u64 {
        self.sum(Mark::all)
    }

    /// How many pairs of bits side by side.
    pub fn neighbours(&self) -> u64 {
        self.sum(|mark| mark.all() & (mark.all() >> 1))
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    pub fn level(&self) -> u8 {
        self.level
    }

    /// Hashes in their order, each with its bits.
    pub fn kept(&self) -> impl Iterator<Item = (u64, u64)> {
        self.marks.iter().map(|(hash, mark)| (*hash, mark.all()))
    }

    /// From what another node says that it keeps; what cannot be is left out.
    pub fn of(level: u8, kept: impl Iterator<Item = (u64, u64)>) -> Self {
        let mut it = Self { level: level.min(63), marks: BTreeMap::new() };
        for (hash, bits) in kept.take(SAMPLE_MAX) {
            it.note(hash, bits, 0);
        }
        it
    }

    fn sum(&self, bits: impl Fn(&Mark) -> u64) -> u64 {
        scaled(self.marks.values().map(|mark| u64::from(bits(mark).count_ones())).sum(), self.level)
    }

    fn highest(&self) -> u64 {
        u64::MAX >> self.level
    }

    fn thin(&mut self) {
        while self.marks.len() > SAMPLE_MAX && self.level < 63 {
            self.level += 1;
            self.cut();
        }
    }

    fn cut(&mut self) {
        let highest = self.highest();
        drop(self.marks.split_off(&(highest.saturating_add(1))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Different numbers for different seeds, spread evenly (splitmix64).
    fn hash(seed: u64, number: u64) -> u64 {
        let mut x = seed.wrapping_mul(0xa076_1d64_78bd_642f).wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn sample(hashes: impl Iterator<Item = u64>) -> Sample {
        let mut it = Sample::default();
        hashes.for_each(|hash| it.note(hash, 0, 1));
        it
    }

    #[test]
    fn a_few_are_counted_exactly_and_many_within_their_error() {
        for count in [0, 1, 20, 511, 512] {
            let twice = (0..count).chain(0..count).map(|number| hash(7, number));
            assert_eq!(sample(twice).count(), count);
        }
        // Four standard errors of one, over fixed seeds; their mean is nearer.
        for count in [1_000u64, 10_000, 100_000] {
            let mut sum = 0;
            for seed in 1..=20 {
                let it = sample((0..count).map(|number| hash(seed, number)));
                assert!(it.len() <= SAMPLE_MAX);
                assert!(it.count().abs_diff(count) * 100 <= count * 22, "{count}: {} by seed {seed}", it.count());
                sum += it.count();
            }
            assert!((sum / 20).abs_diff(count) * 100 <= count * 5, "{count}: {} on average", sum / 20);
        }
    }

    #[test]
    fn parts_make_what_one_would_have_seen() {
        for count in [30u64, 600, 5_000] {
            let all = sample((0..count).map(|number| hash(3, number)));
            // Each is seen by one or two of three.
            let part =
                |of: u64| sample((0..count).filter(|n| n % 3 == of || n % 5 == of).map(|number| hash(3, number)));
            for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
                let mut merged = Sample::default();
                order.iter().for_each(|of| merged.merge(&part(*of)));
                assert_eq!(
                    (merged.count(), merged.level()),
                    (all.count(), all.level()),
                    "{count} in the order {order:?}"
                );
            }
        }
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let mut it = Sample::default();
        (0..2_000).for_each(|number| it.note(hash(1, number), 0, 1));
        assert!(it.level() > 0);
        it.note(hash(1, 0) >> 8, 0, 5);
        it.forget(2);
        assert_eq!((it.len(), it.level() > 0), (1, true));
        it.forget(6);
        assert_eq!(it, Sample::default(), "it is exact again");
    }

    #[test]
    fn neighbours_are_pairs_of_bits() {
        let mut it = Sample::default();
        for (block, bits, pairs) in [(0, 0b1011, 1), (0, 0b0100, 3), (1, u64::MAX, 66), (2, 0b1010_1010, 66)] {
            it.note(hash(1, block), bits, 0);
            assert_eq!(it.neighbours(), pairs);
        }
        assert_eq!(it.bits(), 4 + 64 + 4);
    }

    #[test]
    fn neighbours_that_were_not_asked_for_in_one_window_are_none() {
        let mut it = Sample::default();
        // One number all the time, and each of its neighbours once an hour.
        for hour in 0..60 {
            let slot = 1 + hour * 10 * SLOTS as u64;
            it.forget((slot + 1).saturating_sub(SLOTS as u64));
            it.note(hash(1, 0), 1 << hour, slot);
            (0..10 * SLOTS as u64).for_each(|later| {
                it.forget((slot + later + 1).saturating_sub(SLOTS as u64));
                it.note(hash(1, 0), 1, slot + later);
            });
            assert!(it.neighbours() <= 1, "{} in hour {hour}", it.neighbours());
        }
    }

    #[test]
    fn what_another_says_is_bounded() {
        let kept = Sample::of(200, (0..10_000).map(|number| (number, 1)));
        assert_eq!((kept.level(), kept.len() <= SAMPLE_MAX), (63, true));
        let it = sample((0..3_000).map(|number| hash(9, number)));
        let back = Sample::of(it.level(), it.kept());
        assert_eq!((back.count(), back.level()), (it.count(), it.level()));
        assert_eq!(Sample::of(2, [(u64::MAX, 0)].into_iter()).len(), 0, "of no such level");
    }
}
