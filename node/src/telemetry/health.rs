//! Whether this node wants traffic: /livez, /readyz and /startupz answer from here.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use quorumgate_model::{
    NodeId,
    command::Standing,
    membership::{JoinEvent, JoinPhase},
    state::State,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{consensus::Consensus, settings::BOOT_GRACE};

/// How often a starting node looks whether it has caught up.
const LOOK: std::time::Duration = std::time::Duration::from_millis(50);

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

    /// Follows the join phases until the node is ready, and the operator's drain for as long as it runs.
    pub async fn run(self: Arc<Self>, consensus: Consensus, stop: CancellationToken) -> anyhow::Result<()> {
        let id = consensus.view().id;
        let mut states = consensus.states();
        let mut phase = JoinPhase::Starting;
        let grace = tokio::time::sleep(BOOT_GRACE);
        tokio::pin!(grace);
        let mut looks = tokio::time::interval(LOOK);
        loop {
            self.draining.store(is_draining(&states.borrow_and_update(), id), Ordering::Relaxed);
            let view = consensus.view();
            if view.leader.is_some() {
                phase = phase.after(JoinEvent::LeaderSeen { commit: view.committed });
            }
            phase = phase.after(JoinEvent::Published { index: consensus.published().borrow().index });
            if phase == JoinPhase::Ready && !self.started.swap(true, Ordering::Relaxed) {
                info!(applied = view.applied, "ready");
            }
            consensus.set_ready(self.is_ready());
            self.ready.send_replace(self.is_ready());
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = &mut grace, if phase != JoinPhase::Ready => phase = phase.after(JoinEvent::GraceOver),
                changed = states.changed() => changed?,
                _ = looks.tick(), if phase != JoinPhase::Ready => {}
            }
        }
    }
}

fn is_draining(state: &State, id: NodeId) -> bool {
    state.nodes.get(&id).is_some_and(|node| node.standing != Standing::Active)
}
