//! The cluster as the rest of the process sees it: propose, read, wait, and who is where.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use quorumgate_model::{
    NodeId,
    command::{Actor, Applied, Body, RequestId},
    state::{AuditEntry, RevisionDiff, State},
};
use quorumgate_proto::peer::v1::StatusResponse;
use tokio::sync::watch;

use crate::{settings::Settings, tasks::Tasks};

/// A handle to this node's raft member and its peers; cheap to clone.
#[derive(Clone)]
pub struct Consensus {}

/// What a member is started from. Call `Consensus::start` on the control runtime.
pub struct StartOptions {
    pub dir: std::path::PathBuf,
    pub settings: Settings,
    /// From `raft_store::open` on the same directory.
    pub opened: quorumgate_raft_store::Opened,
    pub tasks: Tasks,
    /// Extended by the freshness probes.
    pub freshness: Arc<quorumgate_proxy::Freshness>,
}

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
    /// Binds the peer listener, starts raft, the peers' server, the membership driver, the probes and the renewal of
    /// certificates. A founder initializes its cluster.
    pub async fn start(_options: StartOptions) -> anyhow::Result<Self> {
        todo!("H6")
    }

    /// Of the peer listener (port 0 is resolved).
    pub fn peer_address(&self) -> std::net::SocketAddr {
        todo!("H6")
    }

    /// This node's certificate for the admin listener's TLS: always the newest.
    pub fn certificate_resolver(&self) -> Arc<dyn rustls::server::ResolvesServerCert> {
        todo!("H6")
    }

    /// Seconds since 1970 at which this node's certificate ends.
    pub fn certificate_not_after(&self) -> i64 {
        todo!("H6")
    }

    /// Drains the node (its proxy says so by readiness), or takes that back.
    pub async fn set_standing(
        &self,
        _node: NodeId,
        _standing: quorumgate_model::command::Standing,
        _actor: Arc<Actor>,
        _deadline: Duration,
    ) -> Result<Applied, ProposeError> {
        todo!("H6")
    }

    /// Promotes or demotes; refused when it would lose the quorum.
    pub async fn set_role(
        &self,
        _node: NodeId,
        _role: quorumgate_model::command::Role,
        _actor: Arc<Actor>,
        _deadline: Duration,
    ) -> Result<Applied, ProposeError> {
        todo!("H6")
    }

    /// Removes a dead node; refused when it would lose the quorum.
    pub async fn remove_node(
        &self,
        _node: NodeId,
        _actor: Arc<Actor>,
        _deadline: Duration,
    ) -> Result<Applied, ProposeError> {
        todo!("H6")
    }

    /// Set by boot: what `StatusResponse` says of this node.
    pub fn set_ready(&self, _ready: bool) {
        todo!("H6")
    }

    /// Hands leadership over if this node leads and another voter can take it; stops raft and closes the peers.
    pub async fn shut_down(&self, _deadline: Duration) {
        todo!("H6")
    }

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
