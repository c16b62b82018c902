//! Every consensus timer of the cluster, derived from one replicated value: the longest round trip between voters.

use std::time::Duration;

const HEARTBEAT_MIN: Duration = Duration::from_millis(100);
const STALENESS_MIN: Duration = Duration::from_secs(5);

/// The default of `init --max-rtt`.
pub const MAX_RTT_DEFAULT: Duration = Duration::from_millis(5);
/// What `max_rtt` may be: above, elections would take longer than an operator would wait.
pub const MAX_RTT_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(2);

/// See the table in docs/ARCHITECTURE.md; every field follows from `max_rtt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    pub max_rtt: Duration,
    pub heartbeat: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
    /// How long an unplanned leader change may take.
    pub failover_budget: Duration,
    /// How old a node's knowledge of revocations may grow before it calls itself stale.
    pub max_staleness: Duration,
}

impl Timing {
    pub fn from_max_rtt(max_rtt: Duration) -> Self {
        let heartbeat = HEARTBEAT_MIN.max(2 * max_rtt);
        let election_max = 5 * heartbeat;
        let failover_budget = 2 * election_max + 4 * max_rtt;
        Self {
            max_rtt,
            heartbeat,
            election_min: 3 * heartbeat,
            election_max,
            failover_budget,
            max_staleness: STALENESS_MIN.max(failover_budget + Duration::from_secs(3)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_follow_the_longest_round_trip() {
        let lan = Timing::from_max_rtt(Duration::from_millis(5));
        assert_eq!(lan.heartbeat, Duration::from_millis(100));
        assert_eq!(lan.failover_budget, Duration::from_millis(1020));
        assert_eq!(lan.max_staleness, Duration::from_secs(5));

        let wan = Timing::from_max_rtt(Duration::from_millis(250));
        assert_eq!(wan.heartbeat, Duration::from_millis(500));
        assert_eq!(wan.failover_budget, Duration::from_secs(6));
        assert_eq!(wan.max_staleness, Duration::from_secs(9));
    }
}
