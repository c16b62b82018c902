//! What all workers share about the upstreams: targets, their health and load, and the counters.

use std::sync::Arc;

use quorumgate_model::ruleset::Ruleset;
use tokio_util::sync::CancellationToken;

/// Process-wide. Rebuilt on publish; a target that did not change keeps its health, load and counters.
#[derive(Debug, Default)]
pub struct Registry {}

/// One configured target as `upstream ls` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetHealth {
    /// As configured: `host:port`.
    pub target: String,
    /// How many addresses it stands for now, and how many of those are healthy.
    pub addresses: usize,
    pub healthy: usize,
}

impl Registry {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn publish(&self, _ruleset: &Arc<Ruleset>) {
        todo!("H5")
    }

    /// Appends the Prometheus text of the `quorumgate_upstream_*` families.
    pub fn metrics(&self, _out: &mut String) {
        todo!("H5")
    }

    /// Empty for an unknown upstream.
    pub fn health(&self, _upstream: &str) -> Vec<TargetHealth> {
        todo!("H5")
    }

    /// Active checks and DNS, on the control runtime. Names are only resolved while this runs.
    pub async fn run_health_checks(self: Arc<Self>, _stop: CancellationToken) {
        todo!("H5")
    }
}
