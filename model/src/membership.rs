//! Who should vote: the plan that the leader carries out step by step, and the phases of a join.

use std::collections::{BTreeMap, BTreeSet};

use crate::{NodeId, state::State};

/// At most this many voters; further voters-to-be stay replicas.
pub const VOTERS_MAX: usize = 7;

/// What the leader knows of the membership beyond the state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// The committed voters; two sets only while a joint change is under way, and then nothing is planned.
    pub voters: BTreeSet<NodeId>,
    pub learners: BTreeSet<NodeId>,
    /// Log entries behind the leader, for those that answer.
    pub lag: BTreeMap<NodeId, u64>,
    /// Those that answered within the last few heartbeats; the leader itself included.
    pub reachable: BTreeSet<NodeId>,
}

/// A learner is caught up when it lags at most this many entries.
pub const CAUGHT_UP_LAG_MAX: u64 = 100;

/// The next membership step, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    AddLearner(NodeId),
    /// The new set of voters, whole; the old voters that are not in it stay as learners.
    SetVoters(BTreeSet<NodeId>),
    RemoveLearner(NodeId),
}

/// The next step from what is to what the state asks for. Rules: an admitted node becomes a learner first; caught-up
/// nodes that want to vote are promoted so that the number of voters is odd (1 → 3 → 5 → 7, two at a time by joint
/// change; the last of an even count stays a replica until its pair comes); leaving and removed nodes go; nothing that
/// would leave fewer reachable voters than a majority is ever planned.
pub fn next_step(_state: &State, _observed: &Observed) -> Option<Step> {
    todo!("H2")
}

/// Whether removing, demoting or draining `node` leaves a majority of reachable voters; the reason if not.
pub fn may_lose(_observed: &Observed, _node: NodeId) -> Result<(), String> {
    todo!("H2")
}

/// Where a starting node stands; drives readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JoinPhase {
    /// No contact with a leader since start.
    Starting,
    /// In contact; must apply up to this index first.
    CatchingUp {
        target: u64,
    },
    Ready,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinEvent {
    /// First contact with a leader, whose commit index is this.
    LeaderSeen { commit: u64 },
    /// The ruleset of this index is served by every worker.
    Published { index: u64 },
    /// `boot_grace` has passed.
    GraceOver,
}

impl JoinPhase {
    /// Never goes back from `Ready`.
    pub fn after(self, _event: JoinEvent) -> Self {
        todo!("H2")
    }
}
