//! Where requests go: per-worker pools, balancing, health, timeouts and safe retries.

mod body;
mod failure;
mod registry;
mod send;

pub use body::Body;
pub use failure::Failure;
pub use registry::{Registry, TargetHealth};
pub use send::{Call, Pools, Trail};
