//! Which target takes the next request: each policy over the targets that may be asked and were not tried yet, those
//! of the first rank before those of the next.

use std::{
    cell::{Cell, RefCell},
    collections::hash_map::RandomState,
    hash::BuildHasher,
    sync::Arc,
    time::Instant,
};

use quorumgate_model::resource::BalancePolicy;

use super::{endpoint::nanos, local::Slot, maglev::Table, origin::Origin};

/// Of two sampled targets the second is taken only if it is cheaper by this much; near equals share by weight.
const CLEARLY_CHEAPER: f64 = 0.75;
/// Random draws before the eligible targets are counted instead.
const DRAWS_MAX: usize = 4;
/// Turns a key into that of its second choice.
const SECOND_CHOICE: u32 = 32;
/// Steps in which a growing share is drawn.
const SHARE_STEPS: u64 = 1 << 16;

/// The state of one upstream's policy on one worker.
pub(super) struct Balancer {
    policy: BalancePolicy,
    ranks: Vec<Rank>,
}

/// Targets that are alike in priority and nearness, by their places among the slots.
struct Rank {
    members: Vec<usize>,
    /// `cumulative[i]` is the sum of the weights up to and including member i.
    cumulative: Vec<u64>,
    /// Smooth weighted round robin's running credits.
    credits: RefCell<Vec<i64>>,
    table: Option<Arc<Table>>,
}

/// What one choice is made by.
pub(super) struct Choice<'a> {
    pub slots: &'a [Slot],
    pub origin: &'a Origin,
    pub tried: &'a [usize],
    pub now: Instant,
    /// Of the key that keeps a caller with its target.
    pub key: Option<u64>,
    pub random: &'a Random,
}

/// What is asked of a target beside its turn.
#[derive(Clone, Copy)]
struct Filter {
    now_ns: u64,
    /// Leave out those that are ejected.
    ejected: bool,
    /// Leave out those that are just back, by chance; the length of slow start.
    slow_start_ns: Option<u64>,
    in_flight_max: u32,
}

impl Choice<'_> {
    fn filter(&self) -> Filter {
        let now_ns = nanos(self.now);
        Filter {
            now_ns,
            ejected: self.origin.standing.outliers.count(&self.origin.members, now_ns),
            slow_start_ns: self.origin.slow_start_ns(now_ns),
            in_flight_max: self.origin.in_flight_max(),
        }
    }

    fn may(&self, filter: &Filter, i: usize) -> bool {
        let endpoint = &self.slots[i].endpoint;
        endpoint.is_healthy()
            && !self.tried.contains(&i)
            && !(filter.ejected && endpoint.is_ejected(filter.now_ns))
            && (filter.in_flight_max == 0 || endpoint.in_flight() < filter.in_flight_max)
            && filter.slow_start_ns.is_none_or(|window| self.is_up_to_it(i, filter.now_ns, window))
    }

    fn is_up_to_it(&self, i: usize, now_ns: u64, window_ns: u64) -> bool {
        let share = self.slots[i].endpoint.share(now_ns, window_ns);
        share >= 1.0 || (self.random.below(SHARE_STEPS) as f64) < share * SHARE_STEPS as f64
    }
}

impl Balancer {
    pub fn new(origin: &Origin, slots: &[Slot]) -> Self {
        let ranks = origin.ranks.iter().map(|rank| Rank::new(rank.members.clone(), rank.table.clone(), slots));
        Self { policy: origin.config.balance.policy, ranks: ranks.collect() }
    }

    /// An index into `slots` that may be asked and is not in `tried`.
    pub fn choose(&self, it: &Choice<'_>) -> Option<usize> {
        let filter = it.filter();
        self.among(it, &filter).or_else(|| {
            // Chance has left out all of them.
            let filter = Filter { slow_start_ns: filter.slow_start_ns.map(|_| None)?, ..filter };
            self.among(it, &filter)
        })
    }

    fn among(&self, it: &Choice<'_>, filter: &Filter) -> Option<usize> {
        self.ranks.iter().find_map(|rank| rank.choose(self.policy, it, filter))
    }

    /// Whether more room at the targets, and nothing else, would have made a choice possible.
    pub fn is_full(&self, it: &Choice<'_>) -> bool {
        let filter = Filter { slow_start_ns: None, ..it.filter() };
        let roomy = Filter { in_flight_max: 0, ..filter };
        filter.in_flight_max > 0 && (0..it.slots.len()).any(|i| it.may(&roomy, i))
    }
}

impl Rank {
    fn new(members: Vec<usize>, table: Option<Arc<Table>>, slots: &[Slot]) -> Self {
        let sum = |sum: &mut u64, i: &usize| {
            *sum += u64::from(slots[*i].weight);
            Some(*sum)
        };
        let cumulative = members.iter().scan(0, sum).collect();
        Self { cumulative, credits: RefCell::new(vec![0; members.len()]), members, table }
    }

    fn choose(&self, policy: BalancePolicy, it: &Choice<'_>, filter: &Filter) -> Option<usize> {
        let eligible = |place: usize| it.may(filter, self.members[place]);
        let weight = |place: usize| it.slots[self.members[place]].weight;
        let place = match policy {
            BalancePolicy::P2cEwma => self.two_choices(it, eligible),
            BalancePolicy::RoundRobin => self.round_robin(weight, eligible),
            BalancePolicy::LeastRequests => self.least_requests(it, eligible),
            BalancePolicy::Maglev => {
                // Whose home it is does not change with how long a target has been here.
                let filter = Filter { slow_start_ns: None, ..*filter };
                let key = it.key.unwrap_or_else(|| it.random.next());
                self.table.as_ref()?.find(key, |place| it.may(&filter, self.members[place]))
            }
            BalancePolicy::Random => self.draw(it, eligible),
        };
        place.map(|place| self.members[place])
    }

    fn two_choices(&self, it: &Choice<'_>, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let (first, second) = match (&self.table, it.key) {
            (Some(table), Some(key)) => {
                let first = table.find(key, &eligible)?;
                (first, table.find(key.rotate_left(SECOND_CHOICE), |i| i != first && eligible(i)))
            }
            _ => {
                let first = self.draw(it, &eligible)?;
                if self.members.len() == 1 {
                    return Some(first);
                }
                (first, self.draw(it, |i| i != first && eligible(i)))
            }
        };
        let Some(second) = second else { return Some(first) };
        let cheaper = self.cost(it, second) < CLEARLY_CHEAPER * self.cost(it, first);
        Some(if cheaper { second } else { first })
    }

    fn cost(&self, it: &Choice<'_>, place: usize) -> f64 {
        let mean = self.total() as f64 / self.members.len() as f64;
        let slot = &it.slots[self.members[place]];
        slot.endpoint.cost(it.now, f64::from(slot.weight) / mean)
    }

    /// As nginx does it: everyone earns its weight, the richest is taken and pays the sum.
    fn round_robin(&self, weight: impl Fn(usize) -> u32, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let mut credits = self.credits.borrow_mut();
        let mut sum = 0;
        let mut best: Option<usize> = None;
        for i in (0..self.members.len()).filter(|i| eligible(*i)) {
            credits[i] += i64::from(weight(i));
            sum += i64::from(weight(i));
            if best.is_none_or(|best| credits[i] > credits[best]) {
                best = Some(i);
            }
        }
        credits[best?] -= sum;
        best
    }

    /// Ties go by chance: the scan begins anywhere.
    fn least_requests(&self, it: &Choice<'_>, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let start = self.draw(it, &eligible)?;
        let load = |place: usize| {
            let slot = &it.slots[self.members[place]];
            f64::from(slot.endpoint.in_flight() + 1) / f64::from(slot.weight)
        };
        // `start` was eligible just now; where chance decides about that it is not asked again.
        (1..self.members.len())
            .map(|step| (start + step) % self.members.len())
            .filter(|i| eligible(*i))
            .fold(start, |best, i| if load(i) < load(best) { i } else { best })
            .into()
    }

    /// By weight.
    fn draw(&self, it: &Choice<'_>, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        if self.members.is_empty() {
            return None;
        }
        for _ in 0..DRAWS_MAX {
            let point = it.random.below(self.total());
            let i = self.cumulative.partition_point(|sum| *sum <= point);
            if eligible(i) {
                return Some(i);
            }
        }
        // The last one is by chance too: a reservoir of one, so that nobody is asked twice.
        let (mut sum, mut drawn) = (0, None);
        for i in (0..self.members.len()).filter(|i| eligible(*i)) {
            let weight = u64::from(it.slots[self.members[i]].weight);
            sum += weight;
            if it.random.below(sum) < weight {
                drawn = Some(i);
            }
        }
        drawn
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

    pub fn next(&self) -> u64 {
        let mut x = self.0.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.0.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// `0..limit`; `limit` is at least 1.
    pub fn below(&self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests;
