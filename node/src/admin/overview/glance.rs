//! The cluster at a glance: taken once for all who watch, each second and soon after a change, and not at all while nobody does.

use std::{sync::Arc, time::Duration};

use quorumgate_model::state::State;
use quorumgate_proto::admin::v1 as admin;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{config::messages, desk::Desk, nodes::Seen},
    publish::wall_ms,
};

const EVERY: Duration = Duration::from_secs(1);
/// Between two of them at least, however fast the log moves on.
const PAUSE: Duration = Duration::from_millis(250);
/// For the nodes' answers.
const ANSWERS_WITHIN: Duration = Duration::from_millis(500);

pub type Glance = Arc<admin::WatchOverviewResponse>;

/// The last one, for those who watch.
pub struct Glances {
    latest: watch::Sender<Option<Glance>>,
    wanted: Notify,
}

impl Glances {
    pub fn new() -> Self {
        Self { latest: watch::Sender::new(None), wanted: Notify::new() }
    }

    /// Each new one from now on; what is left of the last watcher's time is none.
    pub fn watch(&self) -> watch::Receiver<Option<Glance>> {
        let watched = self.latest.subscribe();
        self.wanted.notify_one();
        watched
    }

    pub async fn run(self: Arc<Self>, desk: Desk, stop: CancellationToken) -> anyhow::Result<()> {
        // Ends with the process.
        stop.run_until_cancelled(self.look(&desk)).await;
        Ok(())
    }

    async fn look(&self, desk: &Desk) {
        let mut states = desk.consensus.states();
        loop {
            if self.latest.receiver_count() == 0 {
                self.latest.send_replace(None);
                self.wanted.notified().await;
                continue;
            }
            let next = Instant::now() + EVERY;
            let seen = states.borrow_and_update().clone();
            self.latest.send_replace(Some(Arc::new(glance(desk).await)));
            sleep(PAUSE).await;
            tokio::select! {
                () = sleep_until(next) => {}
                () = written(&mut states, &seen) => {}
            }
        }
    }
}

/// The log moves on with limits too, ten times a second: only what somebody has written is worth a look out of turn.
async fn written(states: &mut watch::Receiver<Arc<State>>, seen: &State) {
    let moved = states.wait_for(|state| state.audit.count != seen.audit.count || state.revision != seen.revision);
    if moved.await.is_err() {
        // Consensus has stopped: the next second's look says so.
        std::future::pending::<()>().await;
    }
}

async fn glance(desk: &Desk) -> admin::WatchOverviewResponse {
    let seen = Seen::now(&desk.consensus, ANSWERS_WITHIN).await;
    let header = desk.header_at(&seen.state);
    let state = &seen.state;
    let (bounds_us, counts) = desk.consensus.propagation().counts();
    let clock_us = desk.consensus.clock_us();
    let trial = state.trial.as_ref().map(|trial| admin::OpenTrial {
        revision: trial.revision,
        ends_in: Some(messages::duration(Duration::from_micros(trial.ends_at_us.saturating_sub(clock_us)))),
        prior_revision: trial.prior_revision,
    });
    admin::WatchOverviewResponse {
        time: Some(messages::timestamp_ms(wall_ms())),
        cluster: Some(seen.status(header.clone())),
        header: Some(header),
        nodes: seen.nodes(),
        answered: seen.answered() as u32,
        round_trips: seen.round_trips(),
        election_timeout: Some(messages::duration(state.timing().election_min)),
        trial,
        written: state.audit.count,
        keys: state.credentials.len() as u64,
        revocations: state.revocations.len() as u64,
        propagation: Some(admin::Propagation { bounds_us: bounds_us.to_vec(), counts }),
    }
}
