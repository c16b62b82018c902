//! What the leader does by itself, one step at a time: carries out the membership plan, ends trials that are over,
//! carries the log clock forward. And what every member does: takes snapshots, shuts removed nodes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use openraft::{ChangeMembers, Precondition, async_runtime::watch::WatchReceiver};
use quorumgate_model::{
    NodeId,
    command::{Actor, Body, Standing, TrialEnd},
    membership::{self, Observed, Step},
    state::State,
};
use quorumgate_raft_store::{PurgeFloor, RaftNode, StoreHealth};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Draft, REMOVED,
    member::{Glance, Member},
    propose::Attempt,
};
use crate::secrets;

/// For one membership step; a change that was left half-way is finished by the next round.
const STEP_MAX: Duration = Duration::from_secs(10);
const LET_KNOW_MAX: Duration = Duration::from_secs(3);
const PROPOSE_MAX: Duration = Duration::from_secs(5);
/// Between two looks at the peers' connections.
const PEERS_EVERY: Duration = Duration::from_millis(500);
/// How far the log clock may fall behind while tokens, credentials or revocations wait for it.
const TICK_EVERY_US: u64 = 60_000_000;
/// Between two attempts at the same failing snapshot.
const SNAPSHOT_RETRY: Duration = Duration::from_secs(10);

/// The leader's round; on the others it only looks.
pub(super) async fn run(member: Arc<Member>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut states = member.states.clone();
    let mut metrics = member.raft.server_metrics();
    loop {
        let state = states.borrow_and_update().clone();
        let _ = metrics.borrow_and_update();
        member.clock.applied(state.clock_us);
        let glance = member.glance();
        // The members of the cluster that this one goes on from are not led.
        let ours = state.cluster.as_ref().is_none_or(|facts| facts.id == member.me.cluster);
        if ours && glance.leader == Some(member.me.node) && member.stopped().is_none() {
            stop.run_until_cancelled(member.lead(&state, &glance)).await;
        }
        // Lag and reach change without notice: a look each heartbeat is as often as they do.
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = states.changed() => {}
            _ = metrics.changed() => {}
            () = tokio::time::sleep(member.timing.heartbeat) => {}
        }
    }
}

/// A stamp counts from when it was applied, whatever the leader's round is waiting for.
pub(super) async fn watch_clock(member: Arc<Member>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut states = member.states.clone();
    loop {
        let clock_us = states.borrow_and_update().clock_us;
        member.clock.applied(clock_us);
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = states.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

/// Keeps an eye on every other node's connection.
pub(super) async fn watch_peers(member: Arc<Member>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(PEERS_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        member.peers.look_after(&member.others());
    }
    Ok(())
}

/// Follows the state: shuts removed nodes out, and stops this node if it is one of them.
pub(super) async fn watch_removals(member: Arc<Member>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut states = member.states.clone();
    let mut metrics = member.raft.server_metrics();
    let mut refused = member.refused.subscribe();
    loop {
        let state = states.borrow_and_update().clone();
        let _ = metrics.borrow_and_update();
        if !state.removed.is_empty() {
            member.peers.shut_out(|id| state.removed.contains_key(&id));
            // Until raft has dropped it, it is still told that it was removed.
            let members = member.glance().nodes;
            member.peers.hang_up(|id| state.removed.contains_key(&id) && !members.contains_key(&id));
        }
        if state.removed.contains_key(&member.me.node) {
            member.halt(REMOVED);
        }
        if let Some(reason) = &*refused.borrow_and_update() {
            member.halt(reason);
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = states.changed() => {}
            _ = metrics.changed() => {}
            _ = refused.changed() => {}
        }
    }
}

/// Stops raft where the disk or apply no longer work.
pub(super) async fn watch_health(member: Arc<Member>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut health = member.health.clone();
    loop {
        match health.borrow_and_update().clone() {
            StoreHealth::Good => member.raft.runtime_config().elect(member.halted.borrow().is_none()),
            StoreHealth::DiskFull => {
                tracing::error!("the disk is full: nothing is acknowledged until there is room");
                member.raft.runtime_config().elect(false);
            }
            StoreHealth::ApplyStopped(reason) => member.halt(&reason),
            // The page cache is marked clean already: only a restart tells what is on the disk.
            StoreHealth::FsyncFailed(error) => anyhow::bail!("writing to the disk failed: {error}"),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = health.changed() => if changed.is_err() {
                stop.cancelled().await;
                return Ok(());
            },
        }
    }
}

/// Takes a snapshot when one is due, then purges what neither the older snapshot nor the journal needs.
pub(super) async fn take_snapshots(
    member: Arc<Member>,
    mut due: watch::Receiver<bool>,
    purge_floor: PurgeFloor,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    while let Some(Ok(true)) = stop.run_until_cancelled(async { due.wait_for(|due| *due).await.map(|due| *due) }).await
    {
        let before = member.glance().snapshot;
        member.raft.trigger().snapshot().await?;
        let mut metrics = member.raft.metrics();
        let taken = metrics.wait_until(|metrics| metrics.snapshot.as_ref().map(|id| id.index) > before);
        match stop.run_until_cancelled(timeout(SNAPSHOT_RETRY, taken)).await {
            Some(Ok(Ok(_))) => {
                tracing::info!(index = member.glance().snapshot, "took a snapshot");
                if let Some(upto) = purge_floor.index() {
                    member.raft.trigger().purge_log(upto).await?;
                }
            }
            Some(Ok(Err(_))) | None => return stop_then_end(stop).await,
            Some(Err(_)) => tracing::warn!("a snapshot is due and was not taken in time; trying again"),
        }
    }
    stop_then_end(stop).await
}

/// Ends only with the process: an early end would end it.
async fn stop_then_end(stop: CancellationToken) -> anyhow::Result<()> {
    stop.cancelled().await;
    Ok(())
}

impl Member {
    async fn lead(&self, state: &State, glance: &Glance) {
        if let Some(body) = self.due(state, glance) {
            let what = body.word();
            match self.propose_here(&draft(body), Instant::now() + PROPOSE_MAX).await {
                Attempt::Done(applied) => tracing::debug!(what, index = applied.index, "proposed by the leader"),
                other => tracing::debug!(what, ?other, "the leader's own proposal was not taken"),
            }
        }
        if glance.joint || !glance.settled {
            return self.finish_change(glance).await;
        }
        let observed = self.observed(glance);
        if let Some(step) = membership::next_step(state, &observed) {
            self.step(step, state, glance).await;
        }
    }

    /// A command that time, and nobody else, asks for.
    fn due(&self, state: &State, glance: &Glance) -> Option<Body> {
        let now_us = self.clock.now_us();
        if let Some(trial) = &state.trial
            && trial.ends_at_us <= now_us
        {
            return Some(Body::EndTrial { revision: trial.revision, end: TrialEnd::Expire });
        }
        let gone = |node: &NodeId| !glance.voters.contains(node);
        if let Some(node) = state.nodes.values().find(|node| node.standing == Standing::Leaving && gone(&node.id)) {
            return Some(Body::RemoveNode { id: node.id });
        }
        let keys = self.keyring.at(state);
        if let Some(body) = secrets::missing(state, &keys) {
            return Some(body);
        }
        if let Some(body) = secrets::rotated(state, &keys, now_us) {
            return Some(body);
        }
        let tokens = !state.join_tokens.is_empty() || !state.admin_tokens.is_empty();
        let waits = tokens || !state.credentials.is_empty() || !state.revocations.is_empty() || !state.bans.is_empty();
        let waits = waits || !state.pending.is_empty();
        (waits && state.clock_us + TICK_EVERY_US <= now_us).then_some(Body::Tick)
    }

    /// A leader that died in a joint change has left its second half to do.
    async fn finish_change(&self, glance: &Glance) {
        if glance.joint && glance.settled {
            self.change(ChangeMembers::AddVoterIds(BTreeSet::new()), glance).await;
        }
    }

    async fn step(&self, step: Step, state: &State, glance: &Glance) {
        tracing::info!(?step, "changing the membership");
        match step {
            Step::AddLearner(id) => {
                let Some(node) = state.nodes.get(&id) else { return };
                let node = RaftNode {
                    name: node.name.to_string(),
                    address: node.peer_address.clone(),
                    incarnation: node.incarnation,
                };
                self.change(ChangeMembers::AddNodes(BTreeMap::from([(id, node)])), glance).await;
            }
            Step::SetVoters(voters) => self.change(ChangeMembers::ReplaceAllVoters(voters), glance).await,
            Step::RemoveLearner(id) => {
                self.let_know(id).await;
                self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id])), &self.glance()).await;
            }
            Step::TransferLeader(id) => {
                if let Err(error) = self.hand_over(Some(id), STEP_MAX).await {
                    tracing::debug!(%error, "leadership was not handed over");
                }
            }
        }
    }

    /// A removed node that is still in reach hears of its removal before raft drops it.
    async fn let_know(&self, id: NodeId) {
        let told = async {
            let committed = self.glance().committed;
            while self.glance().matched.get(&id).is_some_and(|matched| *matched < committed) {
                tokio::time::sleep(self.timing.heartbeat).await;
            }
            // It has the entry; the next heartbeat says that it is committed.
            tokio::time::sleep(2 * self.timing.heartbeat).await;
        };
        if self.observed(&self.glance()).reachable.contains(&id) {
            let _ = timeout(LET_KNOW_MAX, told).await;
        }
    }

    async fn change(&self, change: ChangeMembers<NodeId, RaftNode>, glance: &Glance) {
        let unless_changed = Precondition::LastMembershipLogId { last_membership_log_id: glance.membership_log_id };
        let changed = timeout(STEP_MAX, self.raft.change_membership_if(change, true, [unless_changed])).await;
        match changed {
            Ok(Ok(response)) => {
                let voters: Vec<NodeId> = response.membership.iter().flat_map(|it| it.voter_ids()).collect();
                let learners: Vec<NodeId> = response.membership.iter().flat_map(|it| it.learner_ids()).collect();
                tracing::info!(?voters, ?learners, "the membership has changed");
            }
            Ok(Err(error)) => tracing::info!(%error, "the membership has not changed yet"),
            Err(_) => tracing::info!("the membership change is not confirmed yet"),
        }
    }

    /// What the leader sees of the members.
    pub(super) fn observed(&self, glance: &Glance) -> Observed {
        let within = self.timing.election_max;
        let answered = glance.answered.iter().filter(|(_, age)| **age <= within).map(|(id, _)| *id);
        let reachable: BTreeSet<NodeId> = answered.chain([self.me.node]).collect();
        let mut lag: BTreeMap<NodeId, u64> = glance
            .matched
            .iter()
            .filter(|(id, _)| reachable.contains(id))
            .map(|(id, matched)| (*id, glance.last_log_index.saturating_sub(*matched)))
            .collect();
        lag.insert(self.me.node, 0);
        let learners = glance.nodes.keys().filter(|id| !glance.voters.contains(id)).copied().collect();
        Observed { leader: self.me.node, voters: glance.voters.clone(), learners, lag, reachable }
    }
}

/// A proposal of the node itself: repeated by the next round if need be.
pub(super) fn draft(body: Body) -> Draft {
    let actor =
        Actor { name: "cluster".into(), source: "leader".into(), rpc: String::new(), owner_scope: String::new() };
    Draft { request_id: None, asked: None, actor: Arc::new(actor), body }
}
