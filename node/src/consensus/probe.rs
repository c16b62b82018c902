//! Freshness: until when this node may trust what it knows of revocations and routes (data-plane.md, "Bound").

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use quorumgate_proxy::freshness::{Probe, boottime_ns};
use tokio_util::sync::CancellationToken;

use super::{member::Member, propose::until};

const EVERY: Duration = Duration::from_millis(500);

pub(super) async fn run(member: Arc<Member>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        stop.run_until_cancelled(probe(&member)).await;
    }
    Ok(())
}

async fn probe(member: &Member) {
    let probe = Probe::sent_at(boottime_ns());
    // It may have changed since the process started: the operator's promise follows at once.
    let max_staleness = member.state().timing().max_staleness;
    let ends = Instant::now() + max_staleness;
    let Ok(index) = member.read_index(ends).await else { return };
    let mut published = member.published.subscribe();
    let Some(Ok(_)) = until(ends, published.wait_for(|published| published.index >= index)).await else { return };
    // `publish` sets the index only after the tables show it.
    probe.served(&member.freshness, max_staleness);
}
