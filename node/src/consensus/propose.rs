//! One write: to the leader, once; appended or certainly not; applied there and here.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use openraft::errors::{ClientWriteError, RaftError};
use quorumgate_model::{
    NodeId,
    command::{Applied, Body, Command, Role, Standing, UpdateNode},
    convert,
    ledger::command::LedgerCommand,
    membership::{self, Observed},
    state::State,
};
use quorumgate_proto::peer::v1::{self as pb, failure::Reason, request::Call, response::Answer};
use quorumgate_raft_store::{Denied, Departure};
use tokio::time::{timeout, timeout_at};

use super::{Consensus, Draft, ProposeError, drive::draft, member::Member};
use crate::peer::CallError;

/// How often a write that nobody has taken is offered again; a new leader wakes it earlier.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest body of a command: with its frame it must fit into one message to a peer, or it could be appended and never
/// be replicated.
pub const COMMAND_BYTES_MAX: usize = 12 << 20;
const _: () = assert!(COMMAND_BYTES_MAX + (1 << 20) <= crate::peer::frame::FRAME_MAX);
/// The answer's way back from the leader, on top of the deadline it was given.
const ANSWER_SLACK: Duration = Duration::from_millis(100);

/// What came of one try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attempt {
    Done(Applied),
    /// Certainly not appended: another try may do.
    NotAppended(String),
    /// Perhaps appended.
    Unknown(String),
    Refused(String),
    Stopped(String),
}

impl Consensus {
    /// Takes the draft to the leader (forwarded once), waits until it is applied *there* and on this node. While no
    /// leader is known it waits for one: a failover fails no write whose deadline allows it.
    /// A draft without a request id gets one, so that a leader lost in between costs a repeat and not the outcome.
    pub async fn propose(&self, mut draft: Draft, deadline: Duration) -> Result<Applied, ProposeError> {
        let ends = Instant::now() + deadline;
        let bytes = convert::body_bytes(&draft.body);
        if bytes > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes, allowed: COMMAND_BYTES_MAX });
        }
        draft.request_id.get_or_insert_with(|| uuid::Uuid::new_v4().into_bytes());
        let mut perhaps_appended = None;
        loop {
            let outcome = match self.member.try_to_propose(&draft, ends).await {
                Attempt::Done(applied) => {
                    // The outcome is known whether or not this node is there in time.
                    let _ = self.wait_applied(applied.index, ends.saturating_duration_since(Instant::now())).await;
                    return Ok(applied);
                }
                Attempt::Refused(reason) => return Err(refused(perhaps_appended, reason)),
                Attempt::Stopped(reason) if perhaps_appended.is_none() => return Err(ProposeError::Stopped(reason)),
                // A repeat is safe: the state tells repeats apart.
                Attempt::Unknown(reason) => {
                    perhaps_appended = Some(reason.clone());
                    ProposeError::OutcomeUnknown(reason)
                }
                Attempt::NotAppended(reason) | Attempt::Stopped(reason) => match &perhaps_appended {
                    Some(earlier) => ProposeError::OutcomeUnknown(earlier.clone()),
                    None => ProposeError::NoQuorum(reason),
                },
            };
            if Instant::now() + PAUSE >= ends {
                return Err(outcome);
            }
            self.member.pause().await;
        }
    }
}

/// What is refused now says nothing of an earlier try, which may be the very reason: the node that is to go has gone.
fn refused(earlier: Option<String>, reason: String) -> ProposeError {
    match earlier {
        None => ProposeError::Refused(reason),
        Some(earlier) => ProposeError::OutcomeUnknown(format!("{earlier}; tried again, it was refused: {reason}")),
    }
}

impl Consensus {
    /// One try, without a request id: the ledger tells repeats apart by itself, and whoever sends repeats what it must.
    pub async fn propose_for_ledger(&self, command: LedgerCommand, deadline: Duration) -> Result<(), ProposeError> {
        match self.member.try_to_propose(&draft(Body::Ledger(command)), Instant::now() + deadline).await {
            Attempt::Done(_) => Ok(()),
            Attempt::NotAppended(reason) => Err(ProposeError::NoQuorum(reason)),
            Attempt::Unknown(reason) => Err(ProposeError::OutcomeUnknown(reason)),
            Attempt::Refused(reason) => Err(ProposeError::Refused(reason)),
            Attempt::Stopped(reason) => Err(ProposeError::Stopped(reason)),
        }
    }
}

impl Member {
    async fn try_to_propose(&self, draft: &Draft, ends: Instant) -> Attempt {
        if let Some(reason) = self.stopped() {
            return Attempt::Stopped(reason);
        }
        match self.leader(&self.glance()) {
            Some(leader) if leader == self.me.node => self.propose_here(draft, ends).await,
            Some(leader) => self.propose_there(leader, draft, ends).await,
            None => Attempt::NotAppended("no leader is known".into()),
        }
    }

    /// On the leader. What nodes say to the ledger is gathered first.
    pub(super) async fn propose_here(&self, draft: &Draft, ends: Instant) -> Attempt {
        match self.gather.submit(&draft.body, ends).await {
            Some(attempt) => attempt,
            None => self.append(draft, ends).await,
        }
    }

    /// Stamps and appends. raft refuses it before it is appended when a quorum has not answered lately.
    pub(super) async fn append(&self, draft: &Draft, ends: Instant) -> Attempt {
        let mut departure = match self.departure(&draft.body) {
            Ok(departure) => departure,
            Err(Denied::Refused(reason)) => return Attempt::Refused(reason),
            Err(Denied::UnderWay) => return Attempt::NotAppended("what the node was asked before is under way".into()),
        };
        let body = draft.body.for_level(self.states.borrow().common_level());
        if let Some(reason) = self.too_new(&body) {
            return Attempt::Refused(reason);
        }
        let glance = self.glance();
        if glance.applied_term != glance.term {
            return Attempt::NotAppended("the new leader has yet to apply what was decided before it".into());
        }
        // raft says so too, but in its turn: what waits for that may have to be told that its outcome is unknown.
        if !self.is_heard(&glance) {
            return Attempt::NotAppended("the leader has no quorum".into());
        }
        let command = Command {
            min_level: body.min_level(),
            request_id: draft.request_id,
            asked: draft.asked,
            stamp: self.clock.stamp(glance.term, self.states.borrow().clock_us),
            actor: draft.actor.clone(),
            body: body.into_owned(),
        };
        let raft = self.raft.clone();
        let write = async move { raft.client_write(command).await };
        let written = match &mut departure {
            Some(departure) => timeout_at(ends.into(), departure.carry_out(write)).await,
            None => timeout_at(ends.into(), write).await,
        };
        match written {
            Err(_) => Attempt::Unknown("no quorum has confirmed it within the deadline".into()),
            Ok(Ok(response)) => match response.data {
                Some(applied) => Attempt::Done(applied),
                None => Attempt::Unknown("apply gave no answer".into()),
            },
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                Attempt::NotAppended(match forward.leader_id {
                    Some(leader) => format!("leadership has moved to node {leader}"),
                    None => "the leader has no quorum".into(),
                })
            }
            Ok(Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)))) => {
                Attempt::Unknown("leadership was lost before a quorum had confirmed it".into())
            }
            Ok(Err(RaftError::APIError(error))) => Attempt::Refused(error.to_string()),
            Ok(Err(RaftError::Fatal(error))) => Attempt::Stopped(error.to_string()),
        }
    }

    /// A node that does not understand a command stops before it: nobody proposes one while such a node is there.
    fn too_new(&self, body: &Body) -> Option<String> {
        let (state, needs) = (self.states.borrow().clone(), body.min_level());
        let behind = state.nodes.values().find(|node| node.level < needs)?;
        let what = body.word();
        Some(format!(
            "{what} needs level {needs} of every node; {} has {}: upgrade it first",
            behind.name, behind.level
        ))
    }

    async fn propose_there(&self, leader: NodeId, draft: &Draft, ends: Instant) -> Attempt {
        let Some(target) = self.target(leader) else {
            return Attempt::NotAppended(format!("the address of the leader, node {leader}, is not known yet"));
        };
        let body = draft.body.for_level(self.states.borrow().common_level());
        let command = Command {
            min_level: body.min_level(),
            request_id: draft.request_id,
            asked: draft.asked,
            stamp: Default::default(),
            actor: draft.actor.clone(),
            body: body.into_owned(),
        };
        let left = ends.saturating_duration_since(Instant::now());
        let request = pb::ProposeRequest {
            command: Some(convert::command_to(&command)),
            deadline_ms: left.saturating_sub(self.timing.max_rtt / 2).as_millis() as u64,
        };
        let called = self.call_leader(&target, Call::Propose(request), left + ANSWER_SLACK).await;
        let answer = match called {
            Ok(answer) => answer,
            Err(CallError::Unreachable(reason) | CallError::Refused(reason)) => {
                return Attempt::NotAppended(format!("the leader, node {leader}, is unreachable: {reason}"));
            }
            Err(error) => return Attempt::Unknown(format!("the leader, node {leader}: {error}")),
        };
        match answer {
            Answer::Propose(response) => match response.outcome.map(convert::applied_from) {
                Some(Ok(applied)) => Attempt::Done(applied),
                _ => Attempt::Unknown(format!("node {leader} gave an answer that cannot be read")),
            },
            Answer::Failure(failure) => match failure.reason() {
                Reason::NotLeader | Reason::NoQuorum | Reason::Stopped => Attempt::NotAppended(failure.message),
                Reason::Refused | Reason::Invalid => Attempt::Refused(failure.message),
                Reason::OutcomeUnknown | Reason::Unspecified => Attempt::Unknown(failure.message),
            },
            _ => Attempt::Unknown(format!("node {leader} gave an answer of another kind")),
        }
    }

    /// Calls the leader, and gives up early once this node no longer takes it for the leader and nothing has come.
    pub(super) async fn call_leader(
        &self,
        target: &crate::peer::Target,
        call: Call,
        deadline: Duration,
    ) -> Result<Answer, CallError> {
        tokio::select! {
            answer = self.peers.call(target, call, deadline) => answer,
            () = self.until_deposed(target.id) => Err(CallError::Lost("it is the leader no more".into())),
        }
    }

    /// Until this node takes another for the leader, or none.
    async fn until_deposed(&self, leader: NodeId) {
        use openraft::async_runtime::watch::WatchReceiver;
        let mut metrics = self.raft.server_metrics();
        loop {
            let _ = metrics.borrow_and_update();
            if self.leader(&self.glance()) != Some(leader) {
                return;
            }
            let _ = timeout(self.timing.heartbeat, metrics.changed()).await;
        }
    }

    /// Until raft's leader changes, at most `PAUSE`.
    pub(super) async fn pause(&self) {
        use openraft::async_runtime::watch::WatchReceiver;
        let mut metrics = self.raft.server_metrics();
        let _ = metrics.borrow_and_update();
        let _ = timeout(PAUSE, metrics.changed()).await;
    }

    /// Whatever would lose the quorum is refused, by what the leader observes and by who else is about to go.
    fn departure(&self, body: &Body) -> Result<Option<Departure<'_>>, Denied> {
        type Judge = fn(&State, &Observed, NodeId) -> Result<(), String>;
        let (node, judge): (NodeId, Judge) = match body {
            Body::RemoveNode { id } | Body::UpdateNode(UpdateNode { id, standing: Some(Standing::Draining), .. }) => {
                (*id, membership::may_lose)
            }
            Body::UpdateNode(UpdateNode { id, standing: Some(Standing::Leaving), .. })
            | Body::UpdateNode(UpdateNode { id, wanted_role: Some(Role::Replica), .. }) => {
                (*id, membership::may_hand_over)
            }
            _ => return Ok(None),
        };
        let departure = self.departures.begin(node, |going| {
            let mut observed = self.observed(&self.glance());
            observed.reachable.retain(|id| !going.contains(id));
            judge(&self.state(), &observed, node)
        });
        departure.map(Some)
    }
}

/// Runs `wait` for at most what is left until `ends`.
pub(super) async fn until<T>(ends: Instant, wait: impl Future<Output = T>) -> Option<T> {
    timeout_at(ends.into(), wait).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_behind_a_try_that_may_count_leaves_the_outcome_open() {
        let error = refused(None, "no such node".into());
        assert!(matches!(&error, ProposeError::Refused(reason) if reason == "no such node"), "{error:?}");
        let error = refused(Some("the leader is gone".into()), "no such node".into());
        let told = "the leader is gone; tried again, it was refused: no such node";
        assert!(matches!(&error, ProposeError::OutcomeUnknown(reason) if reason == told), "{error:?}");
    }
}
