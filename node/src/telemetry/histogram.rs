//! A histogram of seconds, for what happens too seldom to be worth a shard per thread; and its text.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds, microseconds.
static BOUNDS_US: [u64; 11] =
    [1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000, 10_000_000];

#[derive(Debug, Default)]
pub struct Histogram {
    /// Not cumulative; the last counts what is above all bounds.
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub fn observe(&self, took: Duration) {
        let micros = took.as_micros() as u64;
        let slot = BOUNDS_US.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS_US.len());
        self.counts[slot].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(micros, Relaxed);
    }

    /// Upper bounds in microseconds, and the counts: one more, not cumulative.
    pub fn counts(&self) -> (&'static [u64], Vec<u64>) {
        (&BOUNDS_US, self.counts.iter().map(|count| count.load(Relaxed)).collect())
    }

    pub fn write(&self, name: &str, out: &mut String) {
        write(name, &BOUNDS_US, &self.counts().1, self.sum_us.load(Relaxed), out);
    }
}

/// `counts` has one more than there are bounds, and is not cumulative.
pub fn write(name: &str, bounds_us: &[u64], counts: &[u64], sum_us: u64, out: &mut String) {
    let mut count = 0;
    for (bound, here) in bounds_us.iter().zip(counts) {
        count += here;
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name}_bucket{{le=\"{}\"}} {count}", Duration::from_micros(*bound).as_secs_f64());
    }
    count += counts.last().copied().unwrap_or_default();
    let sum = Duration::from_micros(sum_us).as_secs_f64();
    let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let histogram = Histogram::default();
        [1, 3, 20_000].into_iter().for_each(|millis| histogram.observe(Duration::from_millis(millis)));
        let mut out = String::new();
        histogram.write("x_seconds", &mut out);
        for line in ["{le=\"0.001\"} 1", "{le=\"0.005\"} 2", "{le=\"10\"} 2", "{le=\"+Inf\"} 3"] {
            assert!(out.contains(&format!("x_seconds_bucket{line}\n")), "{line}: {out}");
        }
        assert!(out.ends_with("x_seconds_sum 20.004\nx_seconds_count 3\n"), "{out}");
    }
}
