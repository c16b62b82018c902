//! Where requests go: per-worker pools, balancing, health, timeouts and safe retries.
