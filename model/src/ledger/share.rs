//! How a budget is shared: by what nodes ask for, and what is left over beside it.

/// What one holder is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Target {
    /// What it cannot do without: taken from others for it.
    pub need: u64,
    /// With its part of the slack: given from what is free.
    pub target: u64,
}

/// Of the slack, this many hundredths are shared evenly, the rest by demand.
const EVEN_PERCENT: u128 = 30;

/// Targets in slots for demands in thousandths of slots. They sum to at most `capacity`, but for rounding up of needs.
///
/// Where nodes ask for more than there is, each request is worth the same wherever it arrives, as it would be with one
/// counter for all: max-min weighted by demand, which is in proportion to it. Max-min with equal weights was tried: it
/// leaves those who ask for little with slots that chance keeps idle, 2 % of a limit of 1,000 over five nodes.
pub fn targets(demands: &[u64], capacity: u64) -> Vec<Target> {
    let capacity_milli = u128::from(capacity) * 1_000;
    let sum: u128 = demands.iter().map(|demand| u128::from(*demand)).sum();
    if demands.is_empty() {
        return Vec::new();
    }
    if sum > capacity_milli {
        let part = |demand: &u64| (u128::from(*demand) * u128::from(capacity)).div_ceil(sum) as u64;
        return demands.iter().map(part).map(|slots| Target { need: slots, target: slots }).collect();
    }
    let slack = capacity_milli - sum;
    let even = slack * EVEN_PERCENT / 100 / demands.len() as u128;
    let by_demand = |demand: u128| match sum {
        0 => 0,
        _ => slack * (100 - EVEN_PERCENT) / 100 * demand / sum,
    };
    let part = |demand: &u64| {
        let demand = u128::from(*demand);
        let target = ((demand + even + by_demand(demand)) / 1_000) as u64;
        let need = demand.div_ceil(1_000) as u64;
        Target { need, target: target.max(need) }
    };
    demands.iter().map(part).collect()
}

/// `count` split by weights, none above its weight; all of it where the weights allow.
pub fn split(count: u64, weights: &[u64]) -> Vec<u64> {
    let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    if sum <= u128::from(count) {
        return weights.to_vec();
    }
    let part = |weight: &u64| (u128::from(count) * u128::from(*weight) / sum) as u64;
    let mut parts: Vec<u64> = weights.iter().map(part).collect();
    let mut left = count - parts.iter().sum::<u64>();
    for (part, weight) in parts.iter_mut().zip(weights) {
        if left > 0 && *part < *weight {
            *part += 1;
            left -= 1;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(demands: &[u64], capacity: u64, expected: &[(u64, u64)]) {
        let targets: Vec<_> = targets(demands, capacity).iter().map(|it| (it.need, it.target)).collect();
        assert_eq!(targets, expected, "{demands:?} of {capacity}");
    }

    #[test]
    fn what_is_short_is_shared_in_proportion() {
        check(&[100_000, 500_000, 400_000], 100, &[(10, 10), (50, 50), (40, 40)]);
        check(&[300_000], 100, &[(100, 100)]);
        check(&[], 100, &[]);
    }

    #[test]
    fn slack_goes_by_demand_and_a_third_evenly() {
        check(&[10_000, 30_000], 100, &[(10, 29), (30, 70)]);
        check(&[0, 0], 100, &[(0, 15), (0, 15)]);
    }

    #[test]
    fn a_split_gives_all_and_nobody_more_than_asked() {
        assert_eq!(split(10, &[1, 2, 30]), [1, 0, 9]);
        assert_eq!(split(10, &[3, 3]), [3, 3]);
        assert_eq!(split(1, &[5, 5, 5]), [1, 0, 0]);
    }
}
