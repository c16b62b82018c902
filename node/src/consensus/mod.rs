//! The cluster as the rest of the process sees it: propose, read, wait, and who is where. The only module of this crate
//! that names openraft.

mod authority;
mod clock;
pub(crate) mod convert;
mod drive;
mod gather;
mod inbound;
mod member;
mod network;
mod probe;
mod propose;
mod read;
mod renew;
mod report;
mod sealing;
mod start;
mod survey;
mod tell;
mod verbs;

pub use self::{
    authority::{CaProgress, may_go_on},
    renew::CA_KEY_PURPOSE,
    report::Reported,
    sealing::SealingProgress,
    start::{write_bootstrap, write_refound, write_welcome},
    survey::{NodeHash, Spent},
};

use std::{collections::BTreeSet, sync::Arc};

use quorumgate_model::{
    NodeId,
    command::{Actor, Body, RequestId},
    digest::Digest,
    state::State,
};
use quorumgate_raft_store::StoreHealth;
use tokio::sync::watch;

use self::member::Member;
use crate::{keyring::Keyring, pki::Keys, settings::Settings, tasks::Tasks};

/// A handle to this node's raft member and its peers; cheap to clone.
#[derive(Clone)]
pub struct Consensus {
    member: Arc<Member>,
}

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
    /// A repeat under the same id answers with the first one's outcome. None: `propose` makes one up.
    pub request_id: Option<RequestId>,
    /// As `Command::asked`.
    pub asked: Option<Digest>,
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
    /// It would not fit into one message between nodes; never appended.
    #[error("the command takes {bytes} bytes; allowed: {allowed}")]
    TooLarge { bytes: usize, allowed: usize },
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

/// What a node that was removed is told, and says of itself.
const REMOVED: &str = "this node was removed from the cluster";

impl Consensus {
    /// The last state that was applied here.
    pub fn state(&self) -> Arc<State> {
        self.member.state()
    }

    /// The log clock now: it may lag behind, it never runs fast, and it goes on while nothing is written.
    pub fn clock_us(&self) -> u64 {
        self.member.clock.now_us()
    }

    pub fn states(&self) -> watch::Receiver<Arc<State>> {
        self.member.states.clone()
    }

    pub fn set_published(&self, published: Published) {
        self.member.published.send_replace(published);
    }

    /// What does not stand on this node, in words: shown with its state.
    pub fn set_problems(&self, problems: Vec<String>) {
        self.member.problems.send_replace(problems);
    }

    pub fn published(&self) -> watch::Receiver<Published> {
        self.member.published.subscribe()
    }

    /// Set by boot: what this node answers to `StatusRequest`.
    pub fn set_ready(&self, ready: bool) {
        self.member.ready.store(ready, std::sync::atomic::Ordering::Relaxed);
    }

    pub fn cluster_ca_pem(&self) -> String {
        self.member.held.ca_pem()
    }

    /// This node's certificate for the admin listener's TLS: always the newest.
    pub fn certificate_resolver(&self) -> Arc<dyn rustls::server::ResolvesServerCert> {
        self.member.held.clone()
    }

    /// Seconds since 1970 at which this node's certificate ends.
    pub fn certificate_not_after(&self) -> i64 {
        self.member.held.not_after()
    }

    /// Opens and seals what the state holds sealed.
    pub fn keys(&self) -> Keys {
        self.member.keyring.at(&self.state())
    }

    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.member.keyring
    }

    /// Of the peer listener (port 0 is resolved).
    pub fn peer_address(&self) -> std::net::SocketAddr {
        self.member.peer_address
    }

    /// Whether the disk and apply still work.
    pub fn health(&self) -> watch::Receiver<StoreHealth> {
        self.member.health.clone()
    }
}
