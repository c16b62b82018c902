//! A process that runs, and one look at what raft says of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use openraft::{Instant as _, ServerState, async_runtime::watch::WatchReceiver};
use quorumgate_model::{
    NodeId,
    command::{Actor, Body, Command, Stamp},
    membership::Observed,
    state::State,
};
use tokio::{sync::watch, time::Instant};

use super::{ELECTION_MAX, Raft, clock::Clock};
use crate::{Departures, LogId, RaftNode, StoreHealth, tests::sim_disk::SimDisk};

#[derive(Clone)]
pub struct Host {
    pub id: NodeId,
    pub raft: Raft,
    pub disk: SimDisk,
    pub snapshots: PathBuf,
    pub started: Instant,
    pub states: watch::Receiver<Arc<State>>,
    pub health: watch::Receiver<StoreHealth>,
    pub clock: Clock,
    pub departures: Arc<Departures>,
}

/// As `node` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glance {
    pub leads: bool,
    pub term: u64,
    /// Both sets of a joint membership.
    pub voters: BTreeSet<NodeId>,
    pub nodes: BTreeMap<NodeId, RaftNode>,
    pub joint: bool,
    /// The membership in force is committed.
    pub settled: bool,
    pub membership_log_id: Option<LogId>,
    pub last_log_index: u64,
    pub committed: u64,
    /// The term of the last applied entry: once it is ours, all of earlier terms has been applied.
    pub applied_term: u64,
    pub answered: BTreeMap<NodeId, Duration>,
    pub matched: BTreeMap<NodeId, u64>,
}

impl Host {
    pub fn state(&self) -> Arc<State> {
        self.states.borrow().clone()
    }

    pub fn leads(&self) -> bool {
        self.raft.metrics().borrow_watched().state == ServerState::Leader
    }

    pub fn glance(&self) -> Glance {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let index = |id: &Option<LogId>| id.as_ref().map_or(0, |id| id.index);
        let membership = metrics.membership_config.membership();
        let answered = metrics.heartbeat.iter().flatten();
        let matched = metrics.replication.iter().flatten();
        Glance {
            leads: metrics.state == ServerState::Leader,
            term: metrics.current_term,
            voters: membership.voter_ids().collect(),
            nodes: membership.nodes().map(|(id, node)| (*id, node.clone())).collect(),
            joint: membership.get_joint_config().len() > 1,
            settled: metrics.membership_config.log_id() == metrics.committed_membership_config.log_id(),
            membership_log_id: *metrics.membership_config.log_id(),
            last_log_index: metrics.last_log_index.unwrap_or(0),
            committed: index(&metrics.local_committed),
            applied_term: metrics.last_applied.map_or(0, |id| id.leader_id.term),
            answered: answered.filter_map(|(id, at)| Some((*id, at.as_ref()?.into_inner().elapsed()))).collect(),
            matched: matched.map(|(id, at)| (*id, index(at))).collect(),
        }
    }

    /// What a leader stamps entries with; None before it has applied all of earlier terms.
    pub fn stamp(&self) -> Option<Stamp> {
        let (term, applied_term) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.current_term, metrics.last_applied.map_or(0, |id| id.leader_id.term))
        };
        (self.leads() && term == applied_term).then(|| self.clock.stamp(term, self.states.borrow().clock_us))
    }

    pub fn observed(&self, glance: &Glance) -> Observed {
        let answered = glance.answered.iter().filter(|(_, age)| **age <= ELECTION_MAX).map(|(id, _)| *id);
        let reachable: BTreeSet<NodeId> = answered.chain([self.id]).collect();
        let behind = |matched: &u64| glance.last_log_index.saturating_sub(*matched);
        let lag = glance.matched.iter().filter(|(id, _)| reachable.contains(id));
        let mut lag: BTreeMap<NodeId, u64> = lag.map(|(id, matched)| (*id, behind(matched))).collect();
        lag.insert(self.id, 0);
        let learners = glance.nodes.keys().filter(|id| !glance.voters.contains(id)).copied().collect();
        Observed { leader: self.id, voters: glance.voters.clone(), learners, lag, reachable }
    }
}

pub fn command(stamp: Stamp, body: Body) -> Command {
    Command { min_level: 1, request_id: None, asked: None, stamp, actor: Arc::new(Actor::default()), body }
}
