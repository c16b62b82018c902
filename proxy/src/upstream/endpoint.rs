//! One address of one target: what every worker knows of its health and load.

use std::{
    net::SocketAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// How fast old latencies are forgotten.
const EWMA_TAU: Duration = Duration::from_secs(10);
/// A failed attempt counts as at least this slow: a target that fails at once must not look fast.
const FAILURE_LATENCY: Duration = Duration::from_secs(1);
/// The cost of a target that has requests in flight and has never answered one: it gets the first, then others go first.
const UNKNOWN_COST_NS: f64 = 1e12;

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Padded so that two targets' counters never share a cache line.
#[repr(align(128))]
pub(super) struct Endpoint {
    pub address: SocketAddr,
    /// As configured: `host:port`.
    pub target: Arc<str>,
    healthy: AtomicBool,
    in_flight: AtomicU32,
    /// The peak EWMA of the time to the response head, in nanoseconds (f64 bits), and when it was written. The two are
    /// stored apart: a lost update costs one sample.
    latency_ns: AtomicU64,
    stamp_ns: AtomicU64,
}

impl Endpoint {
    pub fn new(address: SocketAddr, target: Arc<str>) -> Self {
        Self {
            address,
            target,
            healthy: AtomicBool::new(true),
            in_flight: AtomicU32::new(0),
            latency_ns: AtomicU64::new(0),
            stamp_ns: AtomicU64::new(0),
        }
    }

    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Relaxed)
    }

    pub fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Relaxed);
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Expected time to an answer: the peak EWMA, decayed to `now`, times the requests before it in the line.
    /// `share` is the target's weight relative to the mean: a target of twice the weight bears twice the line.
    pub fn cost(&self, now: Instant, share: f64) -> f64 {
        let in_flight = f64::from(self.in_flight());
        let latency = self.decayed(nanos(now));
        match latency == 0.0 && in_flight > 0.0 {
            true => UNKNOWN_COST_NS + in_flight,
            false => latency * (1.0 + in_flight / share),
        }
    }

    pub fn answered(&self, now: Instant, took: Duration) {
        self.observe(now, took);
    }

    pub fn failed(&self, now: Instant, took: Duration) {
        self.observe(now, took.max(FAILURE_LATENCY));
    }

    /// It is another process now, or another state of it: what it did before says nothing.
    pub fn forget(&self) {
        self.latency_ns.store(0f64.to_bits(), Relaxed);
    }

    pub fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    pub fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// Jumps up to a peak at once and forgets it slowly.
    fn observe(&self, now: Instant, took: Duration) {
        let now = nanos(now);
        let sample = took.as_nanos() as f64;
        let old = f64::from_bits(self.latency_ns.load(Relaxed));
        let kept = kept(now.saturating_sub(self.stamp_ns.load(Relaxed)));
        let latency = if sample > old { sample } else { old * kept + sample * (1.0 - kept) };
        self.latency_ns.store(latency.to_bits(), Relaxed);
        self.stamp_ns.store(now, Relaxed);
    }

    fn decayed(&self, now: u64) -> f64 {
        let latency = f64::from_bits(self.latency_ns.load(Relaxed));
        latency * kept(now.saturating_sub(self.stamp_ns.load(Relaxed)))
    }
}

fn nanos(now: Instant) -> u64 {
    now.saturating_duration_since(*EPOCH).as_nanos() as u64
}

fn kept(elapsed_ns: u64) -> f64 {
    (-(elapsed_ns as f64) / EWMA_TAU.as_nanos() as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint::new("127.0.0.1:1".parse().unwrap(), "127.0.0.1:1".into())
    }

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let it = endpoint();
        let start = *EPOCH + Duration::from_secs(100);
        it.observe(start, Duration::from_millis(1));
        it.observe(start, Duration::from_millis(50));
        assert_eq!(it.cost(start, 1.0).round(), 50e6);
        it.observe(start + Duration::from_millis(10), Duration::from_millis(1));
        assert!(it.cost(start + Duration::from_millis(10), 1.0) > 45e6);
        let later = it.cost(start + EWMA_TAU, 1.0);
        assert!((18e6..20e6).contains(&later), "{later}");
    }

    #[test]
    fn requests_in_flight_cost_by_weight() {
        let it = endpoint();
        let now = *EPOCH + Duration::from_secs(100);
        it.observe(now, Duration::from_millis(10));
        (0..4).for_each(|_| it.begin());
        assert_eq!(it.cost(now, 1.0).round(), 50e6);
        assert_eq!(it.cost(now, 2.0).round(), 30e6);
    }

    #[test]
    fn an_unknown_target_gets_one_request_first() {
        let it = endpoint();
        let now = Instant::now();
        assert_eq!(it.cost(now, 1.0), 0.0);
        it.begin();
        assert!(it.cost(now, 1.0) >= UNKNOWN_COST_NS);
        it.end();
        assert_eq!(it.in_flight(), 0);
    }
}
