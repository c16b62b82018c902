//! This node's part in the cluster's budgets: it shows the holder every applied entry and carries what the holder says to
//! the leader. And the leader's part: what the ledger asks of time.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use quorumgate_model::{
    ledger::{
        Ledger,
        command::LedgerCommand,
        holder::{Holder, Outgoing, POLL_EVERY_US},
    },
    resource::{Key, Kind, LimitKind, Resource},
    state::State,
    timing::Timing,
};
use quorumgate_proxy::{Limits, freshness::boottime_ns};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{calendar, consensus::Consensus, telemetry::health::is_draining};

/// How long a session lasts: it must outlast an election.
const SESSION: Duration = Duration::from_secs(5);
/// And where voters are far apart.
const SESSION_FAR: Duration = Duration::from_secs(15);
const FAR: Duration = Duration::from_millis(100);
/// One message to the leader, with its way through the log: an answer that takes longer is not waited for.
const SEND_MAX: Duration = Duration::from_millis(650);
/// Between two looks at the holder, after a signal and without one.
const URGENT_EVERY: Duration = Duration::from_millis(20);
const POLL_EVERY: Duration = Duration::from_micros(POLL_EVERY_US);
/// Between two looks for keys that nobody uses.
const EVICT_EVERY: Duration = Duration::from_millis(500);
/// Between two proposals of another divisor.
const EPOCH_EVERY: Duration = Duration::from_millis(200);
/// How many calendar periods begin at once; the others follow at the next look.
const ROLLS_MAX: usize = 64;
/// How long giving back may take at shutdown.
const GIVE_BACK_MAX: Duration = Duration::from_secs(1);

type States = watch::Receiver<Arc<State>>;

/// Drives `Limits` until `stop`, then gives back what is held.
pub struct Leases {
    pub consensus: Consensus,
    pub limits: Arc<Limits>,
    /// That take from leases.
    pub workers: usize,
}

impl Leases {
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut states = self.consensus.states();
        let Some(()) = stop.run_until_cancelled(self.admitted()).await else { return Ok(()) };
        let boot = uuid::Uuid::new_v4().into_bytes();
        let state = states.borrow_and_update().clone();
        let length_us = session_length(state.timing()).as_micros() as u64;
        let (node, now_us) = (self.consensus.view().id, boottime_ns() / 1_000);
        let holder = Holder::start(node, boot, length_us, &state.ledger, now_us);
        self.limits.attach(holder.for_workers(self.workers));
        self.limits.set_yielding(is_draining(&state, node));

        let mut sending: Option<BoxFuture<'_, ()>> = None;
        let mut looked = Instant::now();
        let mut evicted = Instant::now();
        let mut urgent = false;
        let mut had_session = false;
        loop {
            let next_look = looked + if urgent { URGENT_EVERY } else { POLL_EVERY };
            tokio::select! {
                () = stop.cancelled() => break,
                changed = states.changed() => {
                    changed.context("the state machine is gone")?;
                    let state = states.borrow_and_update().clone();
                    self.limits.set_yielding(is_draining(&state, node));
                    self.limits.applied(&state.ledger);
                }
                () = send(&mut sending) => sending = None,
                () = self.limits.signalled(), if !urgent => urgent = true,
                () = sleep_until(next_look) => {
                    looked = Instant::now();
                    urgent = false;
                    if sending.is_none() && let Some(outgoing) = self.limits.poll() {
                        sending = Some(self.send(outgoing).boxed());
                    }
                    if evicted.elapsed() >= EVICT_EVERY {
                        evicted = looked;
                        self.limits.evict();
                    }
                    let has_session = self.limits.spends_until_us() > boottime_ns() / 1_000;
                    if has_session != had_session {
                        had_session = has_session;
                        match has_session {
                            true => info!("this node has a session and may spend the cluster's budgets"),
                            false => warn!("this node has no session: limits go by their on_no_quorum"),
                        }
                    }
                }
            }
        }
        self.limits.drain();
        if timeout(GIVE_BACK_MAX, self.give_back(&mut states, sending)).await.is_err() {
            info!("not everything that was lent to this node could be given back: it rests until it is nobody's");
        }
        Ok(())
    }

    /// Until the cluster knows this node: before that it would refuse a session.
    async fn admitted(&self) {
        let id = self.consensus.view().id;
        let mut states = self.consensus.states();
        // An error means that the state machine is gone, which ends the process by itself.
        let _ = states.wait_for(|state| state.nodes.contains_key(&id)).await;
    }

    async fn send(&self, outgoing: Outgoing) {
        self.limits.proposed();
        let command = match outgoing {
            Outgoing::Open(open) => LedgerCommand::OpenSession(open),
            Outgoing::Batch(batch) => LedgerCommand::Batches(Arc::new([batch])),
        };
        // What came of it is learned from the log; what did not arrive is sent again.
        if let Err(error) = self.consensus.propose_for_ledger(command, SEND_MAX).await {
            debug!(%error, "a message to the ledger has no answer");
        }
    }

    /// Others may use at once what this node does not need any more. Returns once the log says that they may.
    async fn give_back<'a>(&'a self, states: &mut States, mut sending: Option<BoxFuture<'a, ()>>) {
        loop {
            if sending.is_none()
                && let Some(outgoing) = self.limits.poll()
            {
                sending = Some(self.send(outgoing).boxed());
            }
            if self.limits.has_given_back() {
                return;
            }
            tokio::select! {
                changed = states.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let state = states.borrow_and_update().clone();
                    self.limits.applied(&state.ledger);
                }
                () = send(&mut sending) => sending = None,
                () = sleep(URGENT_EVERY) => {}
            }
        }
    }
}

/// The leader's part; on the others it only looks. Periods come first: a key that is looked at afterwards has its new one.
pub struct Timekeeper {
    pub consensus: Consensus,
}

impl Timekeeper {
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut epoch_asked: Option<Instant> = None;
        while stop.run_until_cancelled(sleep(POLL_EVERY)).await.is_some() {
            if !self.consensus.leads() {
                continue;
            }
            let state = self.consensus.state();
            let rolls: Vec<_> = rolls(&state, self.consensus.clock_us()).take(ROLLS_MAX).collect();
            if !rolls.is_empty() {
                let proposed = rolls.into_iter().map(|it| self.consensus.propose_for_ledger(it, SEND_MAX));
                let Some(outcomes) = stop.run_until_cancelled(join_all(proposed)).await else { return Ok(()) };
                if let Some(Err(error)) = outcomes.into_iter().find(Result::is_err) {
                    debug!(%error, "a calendar period did not begin");
                }
                continue;
            }
            let may_ask = epoch_asked.is_none_or(|at| at.elapsed() >= EPOCH_EVERY);
            let Some(command) = due(&state.ledger, self.consensus.clock_us(), may_ask) else { continue };
            if matches!(command, LedgerCommand::ShareEpoch { .. }) {
                epoch_asked = Some(Instant::now());
            }
            let proposed = self.consensus.propose_for_ledger(command, SEND_MAX);
            if let Some(Err(error)) = stop.run_until_cancelled(proposed).await {
                debug!(%error, "the ledger's time was not kept");
            }
        }
        Ok(())
    }
}

/// The calendar periods that are to begin. One begins where the one before has ended, also where its zone is another now.
fn rolls(state: &State, clock_us: u64) -> impl Iterator<Item = LedgerCommand> {
    let wall_us = state.ledger.wall.map_or(0, |wall| wall.ahead_us.saturating_add(clock_us));
    state.ledger.ended_periods(wall_us).filter_map(move |limit| {
        let key = Key { kind: Kind::Limit, name: limit.rule.name.clone() };
        let Resource::Limit(words) = &state.resources.get(&key)?.resource else { return None };
        let LimitKind::Calendar { every, zone, .. } = &words.kind else { return None };
        let found = calendar::period(*every, zone, wall_us)?;
        let runs = limit.period.is_some_and(|it| it.ends_us > wall_us);
        if runs && !state.ledger.may_recycle(limit, found.ends_us) {
            return None;
        }
        let number = found.number.max(limit.period.map_or(0, |before| before.ends_us / 1_000_000));
        Some(LedgerCommand::RollPeriod { limit: limit.id, period: number, ends_us: found.ends_us })
    })
}

/// What time, and nobody else, asks of the ledger.
fn due(ledger: &Ledger, clock_us: u64, may_ask: bool) -> Option<LedgerCommand> {
    let divisor = ledger.wanted_divisor();
    if may_ask && divisor != ledger.epoch.divisor {
        return Some(LedgerCommand::ShareEpoch { divisor });
    }
    ledger.due_us().is_some_and(|at| at <= clock_us).then_some(LedgerCommand::Tick)
}

fn session_length(timing: Timing) -> Duration {
    if timing.max_rtt >= FAR { SESSION_FAR } else { SESSION }
}

/// Never ends while nothing is on its way.
async fn send(sending: &mut Option<BoxFuture<'_, ()>>) {
    match sending {
        Some(sending) => sending.await,
        None => std::future::pending().await,
    }
}
