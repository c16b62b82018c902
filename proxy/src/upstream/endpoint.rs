//! One address of one target: what every worker knows of its health and load.

use std::{
    net::SocketAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::outlier::EJECTION_FACTOR_MAX;

/// How fast old latencies are forgotten.
const EWMA_TAU: Duration = Duration::from_secs(10);
/// A failed attempt counts as at least this slow: a target that fails at once must not look fast.
const FAILURE_LATENCY: Duration = Duration::from_secs(1);
/// The share that a target starts with.
const SLOW_START_SHARE_MIN: f64 = 0.1;
/// The cost of a target that has requests in flight and has never answered one: it gets the first, then others go first.
const UNKNOWN_COST_NS: f64 = 1e12;

/// A little before the first look at it, so that no time is 0.
static EPOCH: LazyLock<Instant> = LazyLock::new(|| {
    let now = Instant::now();
    now.checked_sub(Duration::from_secs(1)).unwrap_or(now)
});

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
    /// Failed answers since the last good one.
    errors: AtomicU32,
    /// How often it was ejected, less what it has made good since.
    ejections: AtomicU32,
    ejected_until_ns: AtomicU64,
    /// When it came, or came back; 0: it has been here for as long as all.
    here_since_ns: AtomicU64,
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
            errors: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until_ns: AtomicU64::new(0),
            here_since_ns: AtomicU64::new(0),
        }
    }

    /// Of the target, without the brackets of IPv6.
    pub fn host(&self) -> &str {
        let host = self.target.rsplit_once(':').map_or(&*self.target, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Relaxed)
    }

    pub fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Relaxed);
    }

    /// None has failed since the last good one.
    pub fn is_in_good_standing(&self) -> bool {
        self.errors.load(Relaxed) == 0
    }

    /// A good answer. (Written only where something changes: this line of memory is every worker's.)
    pub fn went_well(&self) {
        if self.errors.load(Relaxed) != 0 {
            self.errors.store(0, Relaxed);
        }
    }

    /// Returns how many in a row that makes.
    pub fn erred(&self) -> u32 {
        self.errors.fetch_add(1, Relaxed).saturating_add(1)
    }

    pub fn is_ejected(&self, now_ns: u64) -> bool {
        self.ejected_until_ns.load(Relaxed) > now_ns
    }

    /// None: it is not.
    pub fn ejected_for(&self, now_ns: u64) -> Option<Duration> {
        let left = self.ejected_until_ns.load(Relaxed).saturating_sub(now_ns);
        (left > 0).then(|| Duration::from_nanos(left))
    }

    /// For `base` the first time, and for as much longer each further time; each `base` in between without an ejection
    /// makes one good. Returns how long.
    pub fn eject(&self, now_ns: u64, base_ns: u64) -> u64 {
        let good = now_ns.saturating_sub(self.ejected_until_ns.load(Relaxed)) / base_ns.max(1);
        let before = u64::from(self.ejections.load(Relaxed)).saturating_sub(good);
        let times = (before + 1).min(EJECTION_FACTOR_MAX);
        self.ejections.store(times as u32, Relaxed);
        self.errors.store(0, Relaxed);
        let until = now_ns + base_ns * times;
        self.ejected_until_ns.store(until, Relaxed);
        // Then it starts anew, and slowly.
        self.here_since_ns.store(until, Relaxed);
        base_ns * times
    }

    pub fn is_here_since(&self, now_ns: u64) {
        self.here_since_ns.store(now_ns, Relaxed);
    }

    /// What part of its share it gets, `window_ns` long growing evenly.
    pub fn share(&self, now_ns: u64, window_ns: u64) -> f64 {
        let since = self.here_since_ns.load(Relaxed);
        if since == 0 || window_ns == 0 {
            return 1.0;
        }
        let grown = now_ns.saturating_sub(since) as f64 / window_ns as f64;
        grown.clamp(SLOW_START_SHARE_MIN, 1.0)
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

    /// As `begin`, unless there are so many already.
    pub fn begin_below(&self, max: u32) -> bool {
        let begun = self.in_flight.fetch_add(1, Relaxed) < max;
        if !begun {
            self.end();
        }
        begun
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

/// Since this process began to count; 0 is before all.
pub(super) fn nanos(now: Instant) -> u64 {
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
    fn the_share_of_a_target_that_is_back_grows() {
        let it = endpoint();
        assert_eq!(it.share(5, 100), 1.0, "at the start all are alike");
        it.eject(100, 50);
        for (now, share) in [(150, 0.1), (170, 0.2), (200, 0.5), (250, 1.0), (900, 1.0)] {
            assert_eq!(it.share(now, 100), share, "at {now}");
        }
        assert_eq!(it.share(170, 0), 1.0, "switched off");
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
