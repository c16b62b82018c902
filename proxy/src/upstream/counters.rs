//! What is counted per upstream, in shards so that workers do not contend for a cache line.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

use super::Failure;

/// Workers beyond this many share a shard.
const SHARDS: usize = 16;

/// The label `code` of `quorumgate_upstream_requests_total`.
const CODES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];
/// The index of a call without a response head.
const NO_CODE: usize = 5;

/// The label `reason` of `quorumgate_upstream_refused_total`.
const REFUSALS: [&str; 3] = ["no_healthy_upstream", "circuit_open", "overloaded"];

#[derive(Default)]
pub(super) struct Counters {
    shards: [Shard; SHARDS],
}

#[derive(Default)]
#[repr(align(128))]
struct Shard {
    requests: [AtomicU64; CODES.len()],
    connect_errors: AtomicU64,
    retries: AtomicU64,
    stale_connections: AtomicU64,
    over_budget: AtomicU64,
    hedges: AtomicU64,
    ejections: AtomicU64,
    refused: [AtomicU64; REFUSALS.len()],
    open: AtomicI64,
    idle: AtomicI64,
}

/// One worker's hand on an upstream's counters.
#[derive(Clone)]
pub(super) struct Gauge {
    counters: Arc<Counters>,
    shard: usize,
}

impl Gauge {
    pub fn new(counters: Arc<Counters>, worker: usize) -> Self {
        Self { counters, shard: worker % SHARDS }
    }

    fn shard(&self) -> &Shard {
        &self.counters.shards[self.shard]
    }

    pub fn open(&self, change: i64) {
        self.shard().open.fetch_add(change, Relaxed);
    }

    pub fn idle(&self, change: i64) {
        self.shard().idle.fetch_add(change, Relaxed);
    }

    pub fn answered(&self, status: http::StatusCode) {
        let class = usize::from(status.as_u16() / 100);
        self.shard().requests[class.clamp(1, NO_CODE) - 1].fetch_add(1, Relaxed);
    }

    pub fn unanswered(&self) {
        self.shard().requests[NO_CODE].fetch_add(1, Relaxed);
    }

    pub fn attempt_failed(&self, failure: &Failure) {
        if matches!(failure, Failure::Connect(_) | Failure::ConnectTimeout | Failure::Tls(_)) {
            self.shard().connect_errors.fetch_add(1, Relaxed);
        }
    }

    pub fn retried(&self) {
        self.shard().retries.fetch_add(1, Relaxed);
    }

    /// A retry or hedge that the budget did not allow.
    pub fn over_budget(&self) {
        self.shard().over_budget.fetch_add(1, Relaxed);
    }

    pub fn hedged(&self) {
        self.shard().hedges.fetch_add(1, Relaxed);
    }

    pub fn ejected(&self) {
        self.shard().ejections.fetch_add(1, Relaxed);
    }

    /// Without a target that may be asked.
    pub fn refused(&self, failure: &Failure) {
        let reason = match failure {
            Failure::NoHealthyTarget => 0,
            Failure::CircuitOpen(_) => 1,
            Failure::Overloaded => 2,
            _ => return,
        };
        self.shard().refused[reason].fetch_add(1, Relaxed);
    }

    /// A pooled connection ended under a request, which was sent again if that was safe.
    pub fn stale_connection(&self) {
        self.shard().stale_connections.fetch_add(1, Relaxed);
    }
}

/// The families that `write_family` knows.
pub(super) const FAMILIES: [Family; 9] = [
    Family {
        name: "requests_total",
        kind: "counter",
        help: "Calls by the class of their response; none: no response.",
    },
    Family { name: "connect_errors_total", kind: "counter", help: "Connections that could not be opened in time." },
    Family { name: "retries_total", kind: "counter", help: "Attempts after the first, without stale connections." },
    Family { name: "stale_connections_total", kind: "counter", help: "Pooled connections that ended under a request." },
    Family {
        name: "retries_over_budget_total",
        kind: "counter",
        help: "Retries and hedges that the budget did not allow.",
    },
    Family { name: "hedges_total", kind: "counter", help: "Second attempts because the first was slow." },
    Family { name: "ejections_total", kind: "counter", help: "Times that a target was left alone for its answers." },
    Family { name: "refused_total", kind: "counter", help: "Calls for which no target could be asked." },
    Family { name: "connections", kind: "gauge", help: "Connections now; idle ones are open too." },
];

pub(super) struct Family {
    pub name: &'static str,
    pub kind: &'static str,
    help: &'static str,
}

impl Family {
    pub const HEALTHY: Family =
        Family { name: "healthy", kind: "gauge", help: "1 if any address of the target passes its checks." };
    pub const EJECTED: Family =
        Family { name: "ejected", kind: "gauge", help: "Addresses of the target that are left alone for now." };
    pub const IN_FLIGHT: Family =
        Family { name: "in_flight", kind: "gauge", help: "Requests at the target, with their answers." };
    pub const BREAKER: Family =
        Family { name: "breaker_open", kind: "gauge", help: "1: nothing is sent; 0.5: a few calls try; 0: closed." };
    pub const OPENED: Family =
        Family { name: "breaker_opened_total", kind: "counter", help: "Times that the breaker has opened." };

    pub fn write_head(&self, out: &mut String) {
        let Self { name, kind, help } = self;
        let _ = write!(out, "# HELP quorumgate_upstream_{name} {help}\n# TYPE quorumgate_upstream_{name} {kind}\n");
    }
}

impl Counters {
    /// The lines of one family for one upstream.
    pub fn write(&self, family: &Family, upstream: &str, out: &mut String) {
        let mut line = |labels: &str, value: u64| {
            let name = family.name;
            let _ = writeln!(out, "quorumgate_upstream_{name}{{upstream=\"{upstream}\"{labels}}} {value}");
        };
        match family.name {
            "requests_total" => {
                for (i, code) in CODES.iter().enumerate() {
                    line(&format!(",code=\"{code}\""), self.sum(|shard| &shard.requests[i]));
                }
            }
            "connect_errors_total" => line("", self.sum(|shard| &shard.connect_errors)),
            "retries_total" => line("", self.sum(|shard| &shard.retries)),
            "retries_over_budget_total" => line("", self.sum(|shard| &shard.over_budget)),
            "hedges_total" => line("", self.sum(|shard| &shard.hedges)),
            "ejections_total" => line("", self.sum(|shard| &shard.ejections)),
            "refused_total" => {
                for (i, reason) in REFUSALS.iter().enumerate() {
                    line(&format!(",reason=\"{reason}\""), self.sum(|shard| &shard.refused[i]));
                }
            }
            "stale_connections_total" => line("", self.sum(|shard| &shard.stale_connections)),
            _ => {
                line(",state=\"open\"", self.level(|shard| &shard.open));
                line(",state=\"idle\"", self.level(|shard| &shard.idle));
            }
        }
    }

    fn sum(&self, field: impl Fn(&Shard) -> &AtomicU64) -> u64 {
        self.shards.iter().map(|shard| field(shard).load(Relaxed)).sum()
    }

    fn level(&self, field: impl Fn(&Shard) -> &AtomicI64) -> u64 {
        self.shards.iter().map(|shard| field(shard).load(Relaxed)).sum::<i64>().max(0) as u64
    }
}
