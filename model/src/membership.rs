//! Who should vote: the plan that the leader carries out step by step, and the phases of a join.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    NodeId,
    command::{NodeRecord, Role, Standing},
    mutants::{self, Mutant},
    state::State,
};

/// At most this many voters; further voters-to-be stay replicas.
pub const VOTERS_MAX: usize = 7;

/// A learner is caught up when it lags at most this many entries.
pub const CAUGHT_UP_LAG_MAX: u64 = 100;

/// How many voters one step adds at most.
const PROMOTED_AT_ONCE: usize = 2;

/// What the leader knows of the membership beyond the state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// The planner itself.
    pub leader: NodeId,
    /// The committed voters; two sets only while a joint change is under way, and then nothing is planned.
    pub voters: BTreeSet<NodeId>,
    pub learners: BTreeSet<NodeId>,
    /// Log entries behind the leader, for those that answer.
    pub lag: BTreeMap<NodeId, u64>,
    /// Those that answered within the last few heartbeats; the leader itself included.
    pub reachable: BTreeSet<NodeId>,
}

/// The next membership step, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    AddLearner(NodeId),
    /// The leader is to stop voting: this voter takes over first.
    TransferLeader(NodeId),
    /// The new set of voters, whole; the old voters that are not in it stay as learners.
    SetVoters(BTreeSet<NodeId>),
    RemoveLearner(NodeId),
}

/// The next step from what is to what the state asks for; carried out one at a time until there is none.
///
/// - An admitted node becomes a learner first. Caught-up learners that are to vote are promoted two at a time, in one
///   joint change, so that the number of voters is odd (1 → 3 → 5 → 7); the last of an even count waits as a replica.
/// - Voters that were removed, are leaving or were demoted go. Waiting learners take their places in the same change.
///   Without any, the rest is made odd: two voters are worse than one, since either's loss stops both. The leader
///   stays, then the reachable and most caught-up. A voter is never dropped merely for being unreachable.
/// - A leader that is to go hands over first. Where no other voter is left to take over, caught-up learners vote
///   beside it until one has.
/// - Draining nodes keep voting. A leaving node stays a learner until its record is gone, then the learner goes.
/// - No step is planned unless a majority of the old voters, and of the new, is reachable.
pub fn next_step(state: &State, observed: &Observed) -> Option<Step> {
    let members = || observed.voters.iter().chain(&observed.learners);
    // A node's id is the index that admitted it: this state has yet to apply that.
    let behind = members().any(|id| *id > state.index);
    if state.cluster.is_none() || behind || !observed.voters.contains(&observed.leader) {
        return None;
    }
    if !observed.has_majority(&observed.voters) && !mutants::is(Mutant::PlansWithoutMajority) {
        return None;
    }
    let outside = |node: &&Arc<NodeRecord>| node.standing != Standing::Leaving && !members().any(|id| *id == node.id);
    if let Some(node) = state.nodes.values().find(outside) {
        return Some(Step::AddLearner(node.id));
    }
    let gone = || observed.learners.iter().find(|id| !state.nodes.contains_key(*id));
    next_voters(state, observed).or_else(|| gone().copied().map(Step::RemoveLearner))
}

fn next_voters(state: &State, observed: &Observed) -> Option<Step> {
    let mut staying: Vec<NodeId> = observed.voters.iter().copied().filter(|id| is_to_vote(state, *id)).collect();
    let lag = |id: &NodeId| observed.lag.get(id).copied().unwrap_or(u64::MAX);
    staying.sort_by_key(|id| (*id != observed.leader, !observed.reachable.contains(id), lag(id), *id));
    let waiting = waiting(state, observed);
    if !is_to_vote(state, observed.leader) {
        let ready = |id: &&NodeId| observed.is_caught_up(**id);
        return match staying.iter().find(ready) {
            Some(successor) => Some(Step::TransferLeader(*successor)),
            None => bridge(observed, &staying, &waiting),
        };
    }
    let pool = staying.into_iter().chain(waiting.into_iter().take(PROMOTED_AT_ONCE));
    let mut voters: Vec<NodeId> = pool.take(VOTERS_MAX).collect();
    if voters.len().is_multiple_of(2) && !mutants::is(Mutant::EvenVoters) {
        voters.pop();
    }
    observed.set_voters(voters.into_iter().collect())
}

/// Learners vote beside a leader that is to go and has no successor among the voters. An odd set is preferred, two
/// voters are taken for the moment where there is no other way.
fn bridge(observed: &Observed, staying: &[NodeId], waiting: &[NodeId]) -> Option<Step> {
    let beside = |n: usize| -> BTreeSet<NodeId> {
        let learners = waiting.iter().take(n);
        staying.iter().chain(learners).chain([&observed.leader]).copied().collect()
    };
    let most = waiting.len().min(PROMOTED_AT_ONCE);
    let mut sets: Vec<_> = (1..=most).rev().map(beside).filter(|set| set.len() <= VOTERS_MAX).collect();
    sets.sort_by_key(|set| set.len().is_multiple_of(2));
    sets.into_iter().find_map(|set| observed.set_voters(set))
}

/// Learners that may vote at once, the oldest first.
fn waiting(state: &State, observed: &Observed) -> Vec<NodeId> {
    let ready = |id: &NodeId| is_to_vote(state, *id) && observed.is_caught_up(*id);
    observed.learners.iter().copied().filter(ready).collect()
}

fn is_to_vote(state: &State, id: NodeId) -> bool {
    let to_vote = |node: &Arc<NodeRecord>| node.wanted_role == Role::Voter && node.standing != Standing::Leaving;
    state.nodes.get(&id).is_some_and(to_vote)
}

impl Observed {
    fn has_majority(&self, voters: &BTreeSet<NodeId>) -> bool {
        voters.intersection(&self.reachable).count() > voters.len() / 2
    }

    fn is_caught_up(&self, id: NodeId) -> bool {
        let near = |lag: &u64| *lag <= CAUGHT_UP_LAG_MAX || mutants::is(Mutant::LaggardVotes);
        self.reachable.contains(&id) && self.lag.get(&id).is_some_and(near)
    }

    fn set_voters(&self, voters: BTreeSet<NodeId>) -> Option<Step> {
        (voters != self.voters && self.has_majority(&voters)).then_some(Step::SetVoters(voters))
    }
}

/// Whether the voters that stay are a majority in reach without `node`, which is to be removed or drained; the reason
/// if not. Those that are going already do not count: a removed node is shut out at once.
pub fn may_lose(state: &State, observed: &Observed, node: NodeId) -> Result<(), String> {
    if !observed.voters.contains(&node) || mutants::is(Mutant::LossUnasked) {
        return Ok(());
    }
    let needed = observed.voters.len() / 2 + 1;
    let stays = |id: &&NodeId| **id != node && is_to_vote(state, **id);
    let rest = observed.voters.intersection(&observed.reachable).filter(stays).count();
    match rest >= needed {
        true => Ok(()),
        false => {
            let voters = observed.voters.len();
            Err(format!("{rest} of {voters} voters would be left in reach without it, a quorum needs {needed}"))
        }
    }
}

/// As `may_lose`, for a node that leaves or is demoted: it works on until it is replaced, so the only voter may go
/// where a learner is ready to take its place.
pub fn may_hand_over(state: &State, observed: &Observed, node: NodeId) -> Result<(), String> {
    let alone = observed.voters.len() == 1;
    match alone && waiting(state, observed).iter().any(|id| *id != node) {
        true => Ok(()),
        false => may_lose(state, observed, node),
    }
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
    /// Never goes back from `Ready`. What was published before the leader was seen counts when it is told again
    /// after: tell `Published` at least once after each event. Grace is for a node without a leader only.
    pub fn after(self, event: JoinEvent) -> Self {
        match (self, event) {
            (Self::Starting, JoinEvent::LeaderSeen { commit }) => Self::CatchingUp { target: commit },
            (Self::Starting, JoinEvent::GraceOver) => Self::Ready,
            (Self::CatchingUp { target }, JoinEvent::Published { index })
                if index >= target || mutants::is(Mutant::ReadyTooEarly) =>
            {
                Self::Ready
            }
            (phase, _) => phase,
        }
    }
}
