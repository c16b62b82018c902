//! Division of instants by a length that is known long before, without a division instruction.

/// Exact for every dividend. Below 2^53, which in microseconds is 285 years, it is one multiplication (Granlund and
/// Montgomery 1994, "Division by Invariant Integers using Multiplication", theorem 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Divisor {
    by: u64,
    /// 2^shift / by, rounded up.
    multiplier: u64,
    shift: u32,
}

/// Of the dividends that are multiplied.
const BITS: u32 = 53;

impl Divisor {
    /// `by` is 1 or more.
    pub(super) fn new(by: u64) -> Self {
        // The bits of by - 1: the least power of two that is not below `by`.
        let shift = BITS + u64::BITS - (by - 1).leading_zeros();
        // At most 2^54: `by` is above a half of that power.
        let multiplier = (1u128 << shift).div_ceil(u128::from(by)) as u64;
        Self { by, multiplier, shift }
    }

    pub(super) fn by(self) -> u64 {
        self.by
    }

    /// n / by, rounded down.
    pub(super) fn floor(self, n: u64) -> u64 {
        match n >> BITS {
            0 => ((u128::from(n) * u128::from(self.multiplier)) >> self.shift) as u64,
            _ => n / self.by,
        }
    }

    /// n / by, rounded up.
    pub(super) fn ceil(self, n: u64) -> u64 {
        let floor = self.floor(n);
        floor + u64::from(floor * self.by < n)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn same_as_the_instruction(n: u64, by: u64) {
        let divisor = Divisor::new(by);
        assert_eq!((divisor.floor(n), divisor.ceil(n)), (n / by, n.div_ceil(by)), "{n} by {by}");
    }

    /// Dividends beside multiples are those that a multiplier which is off by one gets wrong.
    #[test]
    fn beside_multiples_at_the_ends_of_the_range() {
        let powers = (0..u64::BITS).map(|bit| 1 << bit);
        let divisors = powers.flat_map(|power: u64| [power - 1, power, power + 1, power.saturating_mul(3)]);
        for by in divisors.chain([600_000, 10_000, u64::MAX]).filter(|by| *by > 0) {
            for near in [0, by, 1 << BITS, 1 << 40, u64::MAX] {
                let multiple = near / by * by;
                for n in [multiple.saturating_sub(1), multiple, multiple.saturating_add(1), near - near.min(1), near] {
                    same_as_the_instruction(n, by);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_by_any(n: u64, by in 1u64.., few in 1u64..1 << 20, below in 0u64..1 << BITS) {
            same_as_the_instruction(n, by);
            same_as_the_instruction(n, few);
            same_as_the_instruction(below, by);
            same_as_the_instruction(below, few);
            same_as_the_instruction((below / few * few).saturating_sub(1), few);
        }
    }
}
