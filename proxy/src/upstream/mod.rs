//! Where requests go: per-worker pools, balancing, health, timeouts and safe retries.
//!
//! `Registry` is what the process knows of the upstreams, `Pools` is one worker's connections to them. A call goes
//! `send` → `balance` (which target) → `pool` (which connection) → `body` (which gives the connection back).

mod balance;
mod body;
mod budget;
mod counters;
mod endpoint;
mod failure;
mod head;
mod health;
mod local;
mod outgoing;
mod pool;
mod registry;
mod resolve;
mod send;
mod socket;
mod tunnel;

pub use body::Body;
pub use failure::Failure;
pub use registry::{Registry, TargetHealth};
pub use send::{Asks, Call, Pools, Trail};
pub use tunnel::Tunnel;
