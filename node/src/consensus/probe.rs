//! Freshness: until when this node may trust what it knows of revocations and routes (data-plane.md, "Bound").

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use quorumgate_proxy::freshness::boottime_ns;
use tokio_util::sync::CancellationToken;

use super::{member::Member, propose::until};

const EVERY: Duration = Duration::from_millis(500);

/// Counting from the moment the probe is *sent* makes the bound true whatever the network does: what was committed
/// before that moment is served here once the read index is published.
pub(super) async fn run(member: Arc<Member>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        stop.run_until_cancelled(probe(&member)).await;
    }
    Ok(())
}

async fn probe(member: &Member) {
    let sent_ns = boottime_ns();
    // It may have changed since the process started: the operator's promise follows at once.
    let max_staleness = member.state().timing().max_staleness;
    let ends = Instant::now() + max_staleness;
    let Ok(index) = member.read_index(ends).await else { return };
    let mut published = member.published.subscribe();
    let Some(Ok(_)) = until(ends, published.wait_for(|published| published.index >= index)).await else { return };
    member.freshness.extend(sent_ns + max_staleness.as_nanos() as u64);
}
