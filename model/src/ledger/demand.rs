//! What a node's clients ask of a key: an average that moves slowly, and jumps only where chance cannot explain it.

/// A sample is this long, or a quarter of a short window.
const SAMPLE_US: u64 = 1_400_000;
/// After this part of a sample a change may be seen that is large.
const EARLY_PART: u64 = 7;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    window_us: u64,
    since_us: u64,
    count: u64,
    /// Thousandths of slots per window.
    milli: u64,
}

impl Demand {
    pub fn new(window_us: u64, now_us: u64) -> Self {
        Self { window_us, since_us: now_us, count: 0, milli: 0 }
    }

    /// `count` more were asked for, up to now.
    pub fn add(&mut self, count: u64, now_us: u64) {
        self.count += count;
        let past_us = now_us.saturating_sub(self.since_us);
        let sample_us = SAMPLE_US.min(self.window_us / 4).max(1);
        if past_us < (sample_us / EARLY_PART).max(1) {
            return;
        }
        let per_window = |n: u64| (u128::from(n) * 1_000 * u128::from(self.window_us) / u128::from(past_us)) as u64;
        if past_us < sample_us {
            // Looked at often, so it has to be beyond doubt: twice the deviation, and the sample goes on.
            let deviation = (16 * self.count).isqrt() + 4;
            let (at_least, at_most) = (self.count.saturating_sub(deviation), self.count + deviation);
            match (per_window(at_least), per_window(at_most)) {
                (at_least, _) if at_least > self.milli.saturating_mul(5) / 4 => self.milli = at_least,
                (_, at_most) if at_most < self.milli / 4 * 3 => self.milli = at_most,
                _ => {}
            }
            return;
        }
        let seen = per_window(self.count);
        // Two standard deviations of a count below it and above it.
        let deviation = (4 * self.count).isqrt() + 1;
        let at_least = per_window(self.count.saturating_sub(deviation));
        let at_most = per_window(self.count + deviation);
        if at_least > self.milli.saturating_mul(5) / 4 {
            self.milli = at_least;
        } else if at_most < self.milli / 4 * 3 {
            self.milli = at_most;
        } else {
            let tau_us = self.window_us / 6;
            let step = |far: u64| (u128::from(far) * u128::from(past_us) / u128::from(tau_us + past_us)) as u64;
            match seen >= self.milli {
                true => self.milli += step(seen - self.milli),
                false => self.milli -= step(self.milli - seen).max(1).min(self.milli),
            }
        }
        (self.since_us, self.count) = (now_us, 0);
    }

    /// The same of another window.
    pub fn over(self, window_us: u64) -> Self {
        let scaled = u128::from(self.milli) * u128::from(window_us) / u128::from(self.window_us.max(1));
        Self { window_us, milli: u64::try_from(scaled).unwrap_or(u64::MAX), ..self }
    }

    /// It is known to be at least this.
    pub fn at_least(&mut self, milli: u64) {
        self.milli = self.milli.max(milli);
    }

    pub fn milli(&self) -> u64 {
        self.milli
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    #[test]
    fn a_flood_is_seen_at_once_and_noise_is_not() {
        let mut demand = Demand::new(60 * S, 0);
        for n in 1..=60 {
            demand.add(14, n * 14 * S / 10);
        }
        let calm = demand.milli();
        assert!((550_000..=605_000).contains(&calm), "{calm}");
        demand.add(19, 61 * 14 * S / 10);
        assert!(demand.milli() < calm * 6 / 5);
        demand.add(280, 62 * 14 * S / 10);
        assert!(demand.milli() > 10_000_000, "{}", demand.milli());
    }

    #[test]
    fn silence_brings_it_to_nothing() {
        let mut demand = Demand::new(S, 0);
        demand.at_least(9_000);
        for n in 1..200 {
            demand.add(0, n * S / 4);
        }
        assert_eq!(demand.milli(), 0);
    }
}
