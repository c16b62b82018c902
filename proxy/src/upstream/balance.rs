//! Which target takes the next request: each policy over the targets that are healthy and not tried yet.

use std::{
    cell::{Cell, RefCell},
    collections::hash_map::RandomState,
    hash::BuildHasher,
    time::Instant,
};

use quorumgate_model::resource::BalancePolicy;

use super::local::Slot;

/// Of two sampled targets the second is taken only if it is cheaper by this much; near equals share by weight.
const CLEARLY_CHEAPER: f64 = 0.75;
/// Random draws before the eligible targets are counted instead.
const DRAWS_MAX: usize = 4;

/// The state of one upstream's policy on one worker.
pub(super) struct Balancer {
    policy: BalancePolicy,
    /// `cumulative[i]` is the sum of the weights up to and including target i.
    cumulative: Vec<u64>,
    /// Smooth weighted round robin's running credits.
    credits: RefCell<Vec<i64>>,
}

impl Balancer {
    pub fn new(policy: BalancePolicy, slots: &[Slot]) -> Self {
        let sum = |sum: &mut u64, slot: &Slot| {
            *sum += u64::from(slot.weight);
            Some(*sum)
        };
        let cumulative = slots.iter().scan(0, sum).collect();
        Self { policy, cumulative, credits: RefCell::new(vec![0; slots.len()]) }
    }

    /// An index into `slots` that is healthy and not in `tried`.
    pub fn choose(&self, slots: &[Slot], tried: &[usize], random: &Random) -> Option<usize> {
        let eligible = |i: usize| slots[i].endpoint.is_healthy() && !tried.contains(&i);
        match self.policy {
            BalancePolicy::P2cEwma => self.two_choices(slots, eligible, random),
            BalancePolicy::RoundRobin => self.round_robin(slots, eligible),
            BalancePolicy::LeastRequests => self.least_requests(slots, eligible, random),
            BalancePolicy::Random => self.draw(slots, eligible, random),
        }
    }

    fn two_choices(&self, slots: &[Slot], eligible: impl Fn(usize) -> bool, random: &Random) -> Option<usize> {
        let first = self.draw(slots, &eligible, random)?;
        if slots.len() == 1 {
            return Some(first);
        }
        let Some(second) = self.draw(slots, |i| i != first && eligible(i), random) else {
            return Some(first);
        };
        let now = Instant::now();
        let cheaper = self.cost(slots, second, now) < CLEARLY_CHEAPER * self.cost(slots, first, now);
        Some(if cheaper { second } else { first })
    }

    fn cost(&self, slots: &[Slot], i: usize, now: Instant) -> f64 {
        let mean = self.total() as f64 / slots.len() as f64;
        slots[i].endpoint.cost(now, f64::from(slots[i].weight) / mean)
    }

    /// As nginx does it: everyone earns its weight, the richest is taken and pays the sum.
    fn round_robin(&self, slots: &[Slot], eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let mut credits = self.credits.borrow_mut();
        let mut sum = 0;
        let mut best: Option<usize> = None;
        for (i, slot) in slots.iter().enumerate().filter(|(i, _)| eligible(*i)) {
            credits[i] += i64::from(slot.weight);
            sum += i64::from(slot.weight);
            if best.is_none_or(|best| credits[i] > credits[best]) {
                best = Some(i);
            }
        }
        credits[best?] -= sum;
        best
    }

    /// Ties go by chance: the scan begins anywhere.
    fn least_requests(&self, slots: &[Slot], eligible: impl Fn(usize) -> bool, random: &Random) -> Option<usize> {
        let start = self.draw(slots, &eligible, random)?;
        let load = |i: usize| f64::from(slots[i].endpoint.in_flight() + 1) / f64::from(slots[i].weight);
        (0..slots.len())
            .map(|step| (start + step) % slots.len())
            .filter(|i| eligible(*i))
            .min_by(|a, b| load(*a).total_cmp(&load(*b)))
    }

    /// By weight.
    fn draw(&self, slots: &[Slot], eligible: impl Fn(usize) -> bool, random: &Random) -> Option<usize> {
        if slots.is_empty() {
            return None;
        }
        for _ in 0..DRAWS_MAX {
            let point = random.below(self.total());
            let i = self.cumulative.partition_point(|sum| *sum <= point);
            if eligible(i) {
                return Some(i);
            }
        }
        let weight = |i: &usize| u64::from(slots[*i].weight);
        let among = || (0..slots.len()).filter(|i| eligible(*i));
        let sum: u64 = among().map(|i| weight(&i)).sum();
        let mut point = random.below(sum.max(1));
        let mut last = None;
        for i in among() {
            if point < weight(&i) {
                return Some(i);
            }
            point -= weight(&i);
            last = Some(i);
        }
        last
    }

    fn total(&self) -> u64 {
        self.cumulative.last().copied().unwrap_or_default()
    }
}

/// xorshift64*: for spreading load, not for secrets.
pub(super) struct Random(Cell<u64>);

impl Random {
    pub fn new() -> Self {
        Self(Cell::new(RandomState::new().hash_one(0) | 1))
    }

    /// `0..limit`; `limit` is at least 1.
    pub fn below(&self, limit: u64) -> u64 {
        let mut x = self.0.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.0.set(x);
        let word = x.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((u128::from(word) * u128::from(limit)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::{rc::Rc, sync::Arc, time::Duration};

    use super::*;
    use crate::upstream::{counters::Gauge, endpoint::Endpoint, pool::Pool};

    /// One slot per weight.
    fn slots(weights: &[u32]) -> Vec<Slot> {
        let slot = |(i, weight): (usize, &u32)| {
            let address = ([127, 0, 0, 1], 9000 + i as u16).into();
            let endpoint = Arc::new(Endpoint::new(address, address.to_string().into()));
            let pool = Rc::new(Pool::new(endpoint.clone(), Gauge::new(Arc::default(), 0)));
            Slot { endpoint, weight: *weight, pool }
        };
        weights.iter().enumerate().map(slot).collect()
    }

    const ROUNDS: usize = 10_000;
    const POLICIES: [BalancePolicy; 4] =
        [BalancePolicy::P2cEwma, BalancePolicy::RoundRobin, BalancePolicy::LeastRequests, BalancePolicy::Random];

    /// In percent.
    fn shares(policy: BalancePolicy, slots: &[Slot], tried: &[usize]) -> Vec<usize> {
        let (balancer, random) = (Balancer::new(policy, slots), Random::new());
        let mut counts = vec![0; slots.len()];
        for _ in 0..ROUNDS {
            counts[balancer.choose(slots, tried, &random).unwrap()] += 1;
        }
        counts.iter().map(|count| (count * 100 + ROUNDS / 2) / ROUNDS).collect()
    }

    fn answers_in(slot: &Slot, ms: u64) {
        slot.endpoint.answered(Instant::now(), Duration::from_millis(ms));
    }

    #[test]
    fn equally_fast_targets_share_by_weight() {
        let slots = slots(&[6, 3, 1]);
        slots.iter().for_each(|slot| answers_in(slot, 10));
        for policy in [BalancePolicy::P2cEwma, BalancePolicy::RoundRobin, BalancePolicy::Random] {
            let shares = shares(policy, &slots, &[]);
            let near = shares.iter().zip([60usize, 30, 10]).all(|(share, weight)| share.abs_diff(weight) <= 3);
            assert!(near, "{policy:?}: {shares:?}");
        }
    }

    #[test]
    fn two_choices_take_the_clearly_faster_one() {
        let slots = slots(&[1, 1]);
        answers_in(&slots[0], 10);
        answers_in(&slots[1], 100);
        assert_eq!(shares(BalancePolicy::P2cEwma, &slots, &[]), [100, 0]);
        // Until so many wait for it that the slower one would be done first.
        (0..20).for_each(|_| slots[0].endpoint.begin());
        assert_eq!(shares(BalancePolicy::P2cEwma, &slots, &[]), [0, 100]);
    }

    #[test]
    fn least_requests_counts_by_weight() {
        let slots = slots(&[4, 1]);
        (0..2).for_each(|_| slots[0].endpoint.begin());
        slots[1].endpoint.begin();
        assert_eq!(shares(BalancePolicy::LeastRequests, &slots, &[]), [100, 0]);
    }

    #[test]
    fn neither_the_unhealthy_nor_the_tried_are_chosen() {
        let slots = slots(&[1, 1000, 1]);
        slots[1].endpoint.set_healthy(false);
        for policy in POLICIES {
            assert_eq!(shares(policy, &slots, &[0]), [0, 0, 100], "{policy:?}");
            assert_eq!(Balancer::new(policy, &slots).choose(&slots, &[0, 2], &Random::new()), None, "{policy:?}");
            assert_eq!(Balancer::new(policy, &[]).choose(&[], &[], &Random::new()), None, "{policy:?}");
        }
    }
}
