//! Where requests go: per-worker pools, balancing, health, timeouts and safe retries.
//!
//! `Registry` is what the process knows of the upstreams, `Pools` is one worker's connections to them. A call goes
//! `send` → `balance` (which target) → `pool` (which connection) → `body` (which gives the connection back).

mod affinity;
mod balance;
mod body;
mod breaker;
mod budget;
mod counters;
mod dialer;
mod endpoint;
mod failure;
mod head;
mod health;
mod interim;
mod latencies;
mod local;
mod maglev;
mod names;
mod origin;
mod outgoing;
mod outlier;
mod pool;
pub(crate) mod proxy_header;
mod raw;
mod registry;
mod resolve;
mod send;
mod socket;
mod tls;
mod tunnel;
mod wire;

pub use body::Body;
pub(crate) use body::STREAM_IDLE;
pub use breaker::BreakerState;
pub use failure::Failure;
pub use interim::INTERIM_ANSWERS_MAX;
pub use origin::{TargetHealth, UpstreamHealth};
pub use registry::Registry;
pub use send::{Asks, Call, Caller, Pools, Trail};
pub use tunnel::{Tunnel, Way};
pub use wire::Wire;
