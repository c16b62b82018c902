//! Which arm of a split a request goes to: the same on every node for the same key, and with a weight that moves only
//! the requests go elsewhere that must.
//!
//! Weighted rendezvous hashing (Schindelhauer and Schomaker 2005; Resch 2015): each arm draws a number from key and arm,
//! exponentially distributed with its weight as the rate, and the smallest wins. An arm whose weight grows takes from
//! the others and gives nothing, and those of the others that it does not take stay where they are. In integers, so that
//! every machine draws the same.

use crate::{
    digest::Digest,
    resource::{Arm, Ramp, Split},
    state::ClusterFacts,
};

/// What two clusters differ in: the same key meets other arms there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SplitSeed(u64);

/// A split with what its arms draw from.
#[derive(Debug)]
pub struct Arms {
    seed: SplitSeed,
    /// In the order of the route's.
    salts: Vec<u64>,
}

/// Bits behind the point of a logarithm.
const FRACTION_BITS: u32 = 32;

impl SplitSeed {
    /// From what the cluster keeps over a restore and a recovery, so that nobody changes sides by these.
    pub fn of(cluster: Option<&ClusterFacts>) -> Self {
        cluster.map_or(Self::default(), |it| Self(first(&Digest::of(&it.ca_certificate))))
    }
}

impl SplitSeed {
    /// Evenly spread, the same on every node of the cluster, and nothing that somebody outside could aim at.
    pub fn hash(self, text: &[u8]) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"hash").update(&self.0.to_be_bytes()).update(text);
        first(&Digest(*hasher.finalize().as_bytes()))
    }
}

fn first(digest: &Digest) -> u64 {
    u64::from_be_bytes(digest.0[..8].try_into().expect("a digest has more than eight bytes"))
}

impl Arms {
    /// An arm is its upstream: where two routes split between the same two, a key meets the same one on both.
    pub fn new(split: &Split, seed: SplitSeed) -> Self {
        let salt = |arm: &Arm| mix(seed.0 ^ first(&Digest::of(arm.upstream.as_bytes())));
        Self { seed, salts: split.arms.iter().map(salt).collect() }
    }

    /// The place among the split's arms. `now_ms`: since 1970, for the ramp.
    pub fn of_key(&self, split: &Split, key: &[u8], now_ms: u64) -> usize {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.0.to_be_bytes()).update(key);
        self.of_draw(split, first(&Digest(*hasher.finalize().as_bytes())), now_ms)
    }

    /// As `of_key`, of a number that is random or stands for a key.
    pub fn of_draw(&self, split: &Split, draw: u64, now_ms: u64) -> usize {
        let mut best: Option<(usize, u64, u64)> = None;
        for (place, (weight, salt)) in weights(split, now_ms).zip(&self.salts).enumerate() {
            if weight == 0 {
                continue;
            }
            let cost = minus_log2(mix(draw ^ salt));
            // cost / weight < best cost / best weight
            let better = |(_, lowest, of): (usize, u64, u64)| {
                u128::from(cost) * u128::from(of) < u128::from(lowest) * u128::from(weight)
            };
            if best.is_none_or(better) {
                best = Some((place, cost, weight));
            }
        }
        best.map_or(0, |(place, ..)| place)
    }
}

/// The weights that hold at this time, as integers in proportion to them.
pub fn weights(split: &Split, now_ms: u64) -> impl Iterator<Item = u64> {
    let (step, steps) = split.ramp.as_ref().map_or((1, 1), |ramp| step(ramp, now_ms));
    let ends = split.arms.iter().map(|arm| u64::from(arm.weight)).zip(split.begins());
    let (to_sum, from_sum) = match step == steps {
        true => (0, 1),
        false => ends.clone().fold((0, 0), |(to, from), it| (to + it.0, from + it.1)),
    };
    // Both ends are brought to the same sum: at most 10^6 · 64 · 10^6 · 1000, which fits.
    ends.map(move |(to, from)| from * to_sum * (steps - step) + to * from_sum * step)
}

/// How many of the ramp's steps are done.
pub fn step(ramp: &Ramp, now_ms: u64) -> (u64, u64) {
    let steps = u64::from(ramp.steps);
    let gone = now_ms.saturating_sub(ramp.start.0);
    let whole = ramp.duration.0.as_millis().max(1);
    let done = u128::from(gone) * u128::from(steps) / whole;
    (u64::try_from(done).unwrap_or(steps).min(steps), steps)
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014).
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// -log2(word / 2^64) with `FRACTION_BITS` behind the point, by repeated squaring.
fn minus_log2(word: u64) -> u64 {
    let word = word.max(1);
    let zeros = word.leading_zeros();
    let mut mantissa = word << zeros;
    let mut fraction = 0;
    for _ in 0..FRACTION_BITS {
        let square = u128::from(mantissa) * u128::from(mantissa);
        let carries = square >> 127 == 1;
        mantissa = if carries { (square >> 64) as u64 } else { (square >> 63) as u64 };
        fraction = fraction << 1 | u64::from(carries);
    }
    ((u64::from(zeros) + 1) << FRACTION_BITS) - fraction
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KEYS: u64 = 20_000;
    const SEED: SplitSeed = SplitSeed(7);

    fn split(weights: &[(&str, u32)]) -> Split {
        let arms: Vec<_> = weights.iter().map(|(name, weight)| json!({ "upstream": name, "weight": weight })).collect();
        Split { arms: serde_json::from_value(json!(arms)).unwrap(), on: None, ramp: None }
    }

    fn places(split: &Split, now_ms: u64) -> Vec<usize> {
        let arms = Arms::new(split, SEED);
        (0..KEYS).map(|key| arms.of_key(split, format!("user-{key}").as_bytes(), now_ms)).collect()
    }

    fn share(places: &[usize], place: usize) -> u64 {
        places.iter().filter(|it| **it == place).count() as u64 * 1000 / KEYS
    }

    #[test]
    fn logarithms_are_exact_where_they_are_whole() {
        assert_eq!(minus_log2(1 << 63), 1 << FRACTION_BITS);
        assert_eq!(minus_log2(1 << 60), 4 << FRACTION_BITS);
        assert_eq!(minus_log2(1), 64 << FRACTION_BITS);
        // -log2(0.75) is 0.41503749927884376; the last bit is that of a fraction cut off.
        assert_eq!(minus_log2(3 << 62), 1_782_572_487);
    }

    #[test]
    fn arms_get_their_shares() {
        let places = places(&split(&[("a", 950), ("b", 49), ("c", 1), ("d", 0)]), 0);
        assert!(share(&places, 0).abs_diff(950) <= 6, "{}", share(&places, 0));
        assert!(share(&places, 1).abs_diff(49) <= 6, "{}", share(&places, 1));
        assert_eq!(places.iter().filter(|it| **it == 3).count(), 0, "no weight, no request");
    }

    #[test]
    fn a_weight_that_moves_moves_only_what_it_must() {
        let before = places(&split(&[("a", 60), ("b", 30), ("c", 10)]), 0);
        let after = places(&split(&[("a", 60), ("b", 30), ("c", 30)]), 0);
        let moved: Vec<_> = before.iter().zip(&after).filter(|(old, new)| old != new).collect();
        assert!(moved.iter().all(|(_, new)| **new == 2), "only to the arm that grew");
        // From a tenth to a quarter.
        assert!((moved.len() as u64 * 1000 / KEYS).abs_diff(150) <= 8, "{}", moved.len());
    }

    #[test]
    fn the_order_of_arms_and_the_scale_of_weights_mean_nothing() {
        let one = split(&[("a", 2), ("b", 1)]);
        let two = split(&[("b", 1000), ("a", 2000)]);
        for (one, two) in places(&one, 0).into_iter().zip(places(&two, 0)) {
            assert_eq!(one, 1 - two);
        }
    }

    #[test]
    fn clusters_differ_and_nodes_do_not() {
        let split = split(&[("a", 1), ("b", 1)]);
        let of = |seed| {
            let arms = Arms::new(&split, SplitSeed(seed));
            (0..64).map(|key: u64| arms.of_key(&split, &key.to_be_bytes(), 0)).collect::<Vec<_>>()
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        // The very arms, so that no later build may deal out anew.
        let arms = Arms::new(&split, SplitSeed(7));
        let dealt: String = (0..32u8).map(|key| char::from(b'a' + arms.of_key(&split, &[key], 0) as u8)).collect();
        assert_eq!(dealt, "aaababbabaaabbbabbbbaaabaabbabbb");
    }

    #[test]
    fn a_ramp_goes_in_steps_from_the_first_arm_to_the_weights() {
        let mut split = split(&[("a", 0), ("b", 100)]);
        let ramp = json!({ "start": "1970-01-01T00:00:10Z", "duration": "100s", "steps": 4 });
        split.ramp = Some(serde_json::from_value(ramp).unwrap());
        let at = |s: u64| weights(&split, s * 1000).collect::<Vec<_>>();
        let share_of_b = |weights: Vec<u64>| weights[1] * 100 / (weights[0] + weights[1]);
        let shares: Vec<u64> = [0, 10, 34, 35, 60, 85, 109, 110, 9999].into_iter().map(at).map(share_of_b).collect();
        assert_eq!(shares, [0, 0, 0, 25, 50, 75, 75, 100, 100]);
        let mut on_b = 0;
        for s in [0, 35, 60, 85, 110] {
            let places = places(&split, s * 1000);
            let now = places.iter().filter(|it| **it == 1).count();
            assert!(now >= on_b, "a ramp only moves forward");
            on_b = now;
        }
        assert_eq!(on_b as u64, KEYS);
    }

    #[test]
    fn a_ramp_may_begin_anywhere() {
        let arms = json!([{ "upstream": "a", "weight": 50, "from": 9 }, { "upstream": "b", "weight": 50, "from": 1 }]);
        let ramp = json!({ "start": "1970-01-01T00:00:00Z", "duration": "10s", "steps": 10 });
        let split = Split {
            arms: serde_json::from_value(arms).unwrap(),
            on: None,
            ramp: Some(serde_json::from_value(ramp).unwrap()),
        };
        let share_of_b = |s: u64| {
            let weights: Vec<u64> = weights(&split, s * 1000).collect();
            weights[1] * 100 / (weights[0] + weights[1])
        };
        assert_eq!([0, 5, 10].map(share_of_b), [10, 30, 50]);
    }
}
