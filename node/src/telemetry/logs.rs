//! Structured logs on stderr: lines for people on a terminal, JSON otherwise.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// `RUST_LOG` wins over the settings' filter. Libraries are held to warnings: the node says what matters itself. openraft
/// is silent: it repeats each failed attempt at an unreachable peer, where one line at its loss and one at its return do.
pub fn start(filter: &str) -> anyhow::Result<()> {
    let quiet =
        format!("warn,openraft=off,quorumgate_node={filter},quorumgate_proxy={filter},quorumgate_raft_store={filter}");
    let words = match filter.contains(['=', ',']) {
        true => filter,
        false => &quiet,
    };
    let filter = match EnvFilter::try_from_default_env() {
        Ok(filter) => filter,
        Err(_) => EnvFilter::try_new(words)?,
    };
    let subscriber = tracing_subscriber::registry().with(filter);
    match std::io::stderr().is_terminal() {
        true => subscriber.with(fmt::layer().with_writer(std::io::stderr)).try_init()?,
        false => subscriber.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init()?,
    }
    Ok(())
}
