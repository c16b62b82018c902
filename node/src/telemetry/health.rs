//! Whether this node wants traffic: /livez, /readyz and /startupz answer from here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quorumgate_model::{
    NodeId,
    command::Standing,
    membership::{JoinEvent, JoinPhase},
    state::State,
};
use quorumgate_proxy::{Limits, freshness::boottime_ns};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{consensus::Consensus, settings::BOOT_GRACE};

/// One attempt to reach the leader, and the pause before the next.
const CONTACT_MAX: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(50);

/// Shared between the telemetry listener, the peers' status answers and shutdown.
#[derive(Debug, Default)]
pub struct Health {
    started: AtomicBool,
    draining: AtomicBool,
    stopping: AtomicBool,
    ready: watch::Sender<bool>,
}

impl Health {
    pub fn is_started(&self) -> bool {
        self.started.load(Ordering::Relaxed)
    }

    /// `is_ready`, for those who wait for it to change.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    pub fn is_ready(&self) -> bool {
        self.is_started() && !self.is_draining()
    }

    /// Drained by an operator, or on the way out.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed) || self.stopping.load(Ordering::Relaxed)
    }

    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.ready.send_replace(false);
    }

    /// Follows the join phases until the node is ready, and the operator's drain for as long as it runs. What the cluster lends
    /// is waited for too, but no longer than for a leader: requests of limited routes would be refused until it is there.
    pub async fn run(
        self: Arc<Self>,
        consensus: Consensus,
        limits: Arc<Limits>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let id = consensus.view().id;
        let mut states = consensus.states();
        let mut published = consensus.published();
        let mut phase = JoinPhase::Starting;
        let grace = tokio::time::sleep(BOOT_GRACE);
        tokio::pin!(grace);
        let mut grace_over = false;
        let contact = first_contact(&consensus);
        tokio::pin!(contact);
        loop {
            self.draining.store(is_draining(&states.borrow_and_update(), id), Ordering::Relaxed);
            phase = phase.after(JoinEvent::Published { index: published.borrow_and_update().index });
            let may_spend = grace_over || self.is_draining() || limits.spends_until_us() > boottime_ns() / 1_000;
            if phase == JoinPhase::Ready && may_spend && !self.started.swap(true, Ordering::Relaxed) {
                info!(index = published.borrow().index, "ready");
            }
            consensus.set_ready(self.is_ready());
            self.ready.send_replace(self.is_ready());
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = &mut grace, if !grace_over => {
                    grace_over = true;
                    phase = phase.after(JoinEvent::GraceOver);
                }
                () = tokio::time::sleep(LOOK), if phase == JoinPhase::Ready && !self.is_started() => {}
                commit = &mut contact, if phase == JoinPhase::Starting => phase = phase.after(JoinEvent::LeaderSeen { commit }),
                changed = states.changed() => changed?,
                changed = published.changed(), if phase != JoinPhase::Ready => changed?,
            }
        }
    }
}

/// What the leader had committed when it was first reached. A cluster that has just been begun is empty until its facts
/// are written, and of no use to anybody before.
async fn first_contact(consensus: &Consensus) -> u64 {
    loop {
        match consensus.linearize(CONTACT_MAX).await {
            Ok(state) if state.cluster.is_some() => return state.index,
            Ok(_) | Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

pub fn is_draining(state: &State, id: NodeId) -> bool {
    state.nodes.get(&id).is_some_and(|node| node.standing != Standing::Active)
}
