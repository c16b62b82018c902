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
