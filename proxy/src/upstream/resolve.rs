//! DNS: names of targets are looked up when they are new and again every `INTERVAL`.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Registry;

/// How often known names are looked up again.
const INTERVAL: Duration = Duration::from_secs(30);
/// How soon after a failed first look-up it is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
const LOOKUPS_AT_ONCE_MAX: usize = 32;
/// Addresses kept of one name.
const ADDRESSES_MAX: usize = 64;

/// A look-up that fails keeps the last good addresses; one that never succeeded leaves the target without any.
pub(super) async fn run(registry: Arc<Registry>, stop: CancellationToken) {
    let mut changes = registry.changes();
    let mut next_round = Instant::now();
    loop {
        changes.mark_unchanged();
        let all = next_round <= Instant::now();
        let names = registry.names();
        let wanted = names.into_iter().filter(|(_, known)| all || known.is_none());
        let lookups = stream::iter(wanted).map(|(name, known)| look_up(name, known.unwrap_or_default()));
        let round = lookups.buffer_unordered(LOOKUPS_AT_ONCE_MAX).collect::<Vec<_>>();
        let Some(found) = stop.run_until_cancelled(round).await else { return };
        let failed = found.iter().any(|(_, addresses)| addresses.is_empty());
        registry.resolved(found);
        if all {
            next_round = Instant::now() + if failed { RETRY_INTERVAL } else { INTERVAL };
        } else if failed {
            next_round = next_round.min(Instant::now() + RETRY_INTERVAL);
        }
        let Some(_) = stop.run_until_cancelled(timeout_at(next_round, changes.changed())).await else { return };
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
