//! What surrounds the node: its logs, its health and its metrics.

pub mod health;
pub mod listener;
pub mod logs;
mod metrics;
