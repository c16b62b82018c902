//! The cluster as the rest of the process sees it: propose, read, wait, and who is where.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use quorumgate_model::{
    NodeId,
    command::{Actor, Applied, Body, RequestId},
    state::{AuditEntry, RevisionDiff, State},
};
use quorumgate_proto::peer::v1::StatusResponse;
use tokio::sync::watch;

/// A handle to this node's raft member and its peers; cheap to clone.
#[derive(Clone)]
pub struct Consensus {}

/// A command before the leader has stamped it.
#[derive(Debug, Clone)]
pub struct Draft {
    /// With one, a repeat answers with the first one's outcome.
    pub request_id: Option<RequestId>,
    pub actor: Arc<Actor>,
    pub body: Body,
}

/// The cluster could not say. A timeout is *unknown*, never "failed".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Certainly not appended.
    #[error("no quorum: {0}")]
    NoQuorum(String),
    /// Perhaps appended; repeat with the same request id.
    #[error("the outcome is unknown: {0}")]
    OutcomeUnknown(String),
    /// Consensus has stopped on this node.
    #[error("consensus has stopped on this node: {0}")]
    Stopped(String),
    /// The leader refused to take it (membership operations).
    #[error("{0}")]
    Refused(String),
}

/// This node's own view of raft, without asking anybody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    pub id: NodeId,
    pub name: String,
    pub leader: Option<NodeId>,
    pub term: u64,
    /// The committed membership; both sets of a joint one.
    pub voters: BTreeSet<NodeId>,
    pub learners: BTreeSet<NodeId>,
    pub last_log_index: u64,
    pub committed: u64,
    pub applied: u64,
    /// Why consensus has stopped here, if it has.
    pub stopped: Option<String>,
    /// At least a majority of the voters answered within the election timeout, as far as this node can tell.
    pub quorum: bool,
}

/// What a node serves, as the write receipts show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub name: String,
    pub published_index: u64,
    pub published_revision: u64,
    pub published_at_ms: u64,
    pub unreachable: bool,
}

/// What this node's proxy serves: set by `publish` once every worker has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Published {
    pub index: u64,
    pub revision: u64,
    pub at_ms: u64,
}

impl Consensus {
    /// Takes the draft to the leader (forwarded once), waits until it is applied *there* and on this node.
    pub async fn propose(&self, _draft: Draft, _deadline: Duration) -> Result<Applied, ProposeError> {
        todo!("H6")
    }

    /// ReadIndex: everything committed before the call is applied on this node when it returns.
    pub async fn linearize(&self, _deadline: Duration) -> Result<Arc<State>, ProposeError> {
        todo!("H6")
    }

    pub async fn wait_applied(&self, _index: u64, _deadline: Duration) -> Result<Arc<State>, ProposeError> {
        todo!("H6")
    }

    pub fn state(&self) -> Arc<State> {
        todo!("H6")
    }

    pub fn states(&self) -> watch::Receiver<Arc<State>> {
        todo!("H6")
    }

    pub fn view(&self) -> View {
        todo!("H6")
    }

    /// Moves leadership to that voter, or to the best one; returns the new leader and its term.
    pub async fn transfer_leader(
        &self,
        _to: Option<NodeId>,
        _deadline: Duration,
    ) -> Result<(NodeId, u64), ProposeError> {
        todo!("H6")
    }

    /// Every node of the state with its own answer; None for those that gave none in time.
    pub async fn statuses(&self, _deadline: Duration) -> Vec<(NodeId, Option<StatusResponse>)> {
        todo!("H6")
    }

    /// Waits until every reachable node serves `index`, at most `deadline`; never an error.
    pub async fn await_published(&self, _index: u64, _deadline: Duration) -> Vec<Receipt> {
        todo!("H6")
    }

    /// From this node's journal, or from a peer's; checked against nothing: the caller compares hashes.
    pub async fn revision_diff(&self, _revision: u64) -> Option<RevisionDiff> {
        todo!("H6")
    }

    pub async fn audit(&self, _limit: usize) -> Vec<AuditEntry> {
        todo!("H6")
    }

    pub fn set_published(&self, _published: Published) {
        todo!("H6")
    }

    pub fn published(&self) -> watch::Receiver<Published> {
        todo!("H6")
    }

    pub fn cluster_ca_pem(&self) -> String {
        todo!("H6")
    }
}
