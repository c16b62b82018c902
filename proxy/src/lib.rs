//! The data plane: listeners, TLS, HTTP, one exchange, upstreams. Works without the control plane.

pub mod body;
pub mod client_body;
pub mod freshness;
pub mod settings;
pub mod upstream;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use quorumgate_model::ruleset::Ruleset;

pub use freshness::Freshness;
pub use settings::{AccessLog, Listener, Settings, Tls};

/// The running data plane: worker threads that share nothing but the ruleset and their counters.
pub struct Proxy {}

impl Proxy {
    /// Binds every listener on every worker (SO_REUSEPORT) and starts the worker threads.
    pub fn start(_settings: Settings, _rules: Arc<Ruleset>, _freshness: Arc<Freshness>) -> anyhow::Result<Self> {
        todo!("H4")
    }

    /// The addresses that are really bound, in the order of `Settings::listeners` (port 0 is resolved).
    pub fn addresses(&self) -> &[SocketAddr] {
        todo!("H4")
    }

    /// Swaps the ruleset: when this returns, every worker serves it for the next exchange.
    pub fn publish(&self, _ruleset: Arc<Ruleset>) {
        todo!("H4")
    }

    pub fn ruleset(&self) -> Arc<Ruleset> {
        todo!("H4")
    }

    /// Appends the Prometheus text of all `quorumgate_http_*`, `quorumgate_upstream_*` and `quorumgate_rejects_total` families.
    pub fn metrics(&self, _out: &mut String) {
        todo!("H4")
    }

    /// Stops accepting (after emptying the accept queues), asks clients to go (GOAWAY, Connection: close), waits for
    /// exchanges in flight, at most `grace`. Returns how many were cut off.
    pub async fn drain(&self, _grace: Duration) -> usize {
        todo!("H4")
    }
}
