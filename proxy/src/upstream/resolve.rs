//! DNS: names of targets are looked up when they are new and again every `INTERVAL`.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Registry;

/// How often known names are looked up again.
const INTERVAL: Duration = Duration::from_secs(30);
/// How often names that have no address are.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
const LOOKUPS_AT_ONCE_MAX: usize = 32;
/// Addresses kept of one name.
const ADDRESSES_MAX: usize = 64;

/// A look-up that fails keeps the last good addresses; one that never succeeded leaves the target without any.
pub(super) async fn run(registry: Arc<Registry>, stop: CancellationToken) {
    let mut changes = registry.changes();
    let (mut next_round, mut next_retry) = (Instant::now(), Instant::now());
    loop {
        changes.mark_unchanged();
        let now = Instant::now();
        let (all, again) = (next_round <= now, next_retry <= now);
        let names = registry.names();
        let due = |known: &Option<Vec<IpAddr>>| match known {
            None => true,
            Some(addresses) => all || (again && addresses.is_empty()),
        };
        let wanted = names.into_iter().filter(|(_, known)| due(known));
        let lookups = stream::iter(wanted).map(|(name, known)| look_up(name, known.unwrap_or_default()));
        let round = lookups.buffer_unordered(LOOKUPS_AT_ONCE_MAX).collect::<Vec<_>>();
        let Some(found) = stop.run_until_cancelled(round).await else { return };
        registry.resolved(found);
        if all {
            next_round = now + INTERVAL;
        }
        if all || again {
            next_retry = now + RETRY_INTERVAL;
        }
        let wake = next_round.min(next_retry);
        let Some(_) = stop.run_until_cancelled(timeout_at(wake, changes.changed())).await else { return };
    }
}

/// The addresses in a fixed order, so that a mere rotation changes nothing.
async fn look_up(name: String, known: Vec<IpAddr>) -> (String, Vec<IpAddr>) {
    let found = timeout(LOOKUP_TIMEOUT, ips(&name)).await;
    let mut addresses = match found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(name, %error, kept = known.len(), "name not resolved");
            known
        }
    };
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    (name, addresses)
}

async fn ips(name: &str) -> io::Result<Vec<IpAddr>> {
    let found = tokio::net::lookup_host((name, 0)).await?;
    Ok(found.map(|address| address.ip()).collect())
}
