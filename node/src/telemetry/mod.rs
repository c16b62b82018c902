//! What surrounds the node: its logs, its health and its metrics.

pub mod exchange;
pub mod health;
pub mod histogram;
pub mod lately;
pub mod listener;
pub mod logs;
mod metrics;
pub mod otlp;
pub mod upstream;
