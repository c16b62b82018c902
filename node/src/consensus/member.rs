//! What the parts of `consensus` share: the raft member, the peers, and one look at raft's metrics.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use openraft::{Instant as _, async_runtime::watch::WatchReceiver};
use quorumgate_model::{NodeId, state::State, timing::Timing};
use quorumgate_proto::peer::v1 as pb;
use quorumgate_proxy::{Freshness, Proxy, freshness::boottime_ns};
use quorumgate_raft_store::{Departures, Journal, LogId, Machine, RaftNode, StoreHealth, Syncs, TypeConfig};
use tokio::sync::watch;

use super::{Consensus, Published, View, clock::LogClock, gather::Gather, survey::Spent};
use crate::{
    access::Access,
    anomaly::Anomalies,
    denials::Denials,
    failures::Failures,
    keyring::Keyring,
    peer::{Peers, Target, hello::Me},
    pki::Held,
    settings::Settings,
    telemetry::{histogram::Histogram, lately::Lately, otlp::Progress},
};

pub(super) type Raft = openraft::Raft<TypeConfig, Machine>;

pub(super) struct Member {
    pub me: Me,
    pub dir: PathBuf,
    pub settings: Settings,
    pub raft: Raft,
    pub peers: Peers,
    pub peer_address: std::net::SocketAddr,
    /// Those that a joiner was told of.
    pub first_peers: Vec<pb::PeerAddress>,
    pub held: Arc<Held>,
    pub keyring: Arc<Keyring>,
    pub states: watch::Receiver<Arc<State>>,
    pub health: watch::Receiver<StoreHealth>,
    pub published: watch::Sender<Published>,
    /// Why this node may not take part any more: it was removed, or cannot read what the others write.
    pub halted: watch::Sender<Option<String>>,
    /// Set by the network when a peer says that this node was removed.
    pub refused: watch::Sender<Option<String>>,
    pub ready: AtomicBool,
    /// What does not stand on this node, in words.
    pub problems: watch::Sender<Vec<String>>,
    pub clock: LogClock,
    pub journal: Journal,
    pub snapshots_dir: PathBuf,
    pub freshness: Arc<Freshness>,
    /// Raft's timers do not change while the process lives.
    pub timing: Timing,
    pub started: Instant,
    /// CLOCK_BOOTTIME of the last append of a leader.
    pub heard_ns: AtomicU64,
    /// Set by boot: who knows what this node has spent of limits.
    pub spent: OnceLock<Spent>,
    /// On the leader: what nodes have said to the ledger since the last entry.
    pub gather: Gather,
    /// On the leader: writes by which it loses voters, until what came of them is known.
    pub departures: Departures,
    /// Once it runs.
    pub proxy: OnceLock<Arc<Proxy>>,
    pub syncs: Arc<Syncs>,
    /// Admin calls that this node has refused.
    pub denials: Arc<Denials>,
    /// Joins that it has refused lately.
    pub refused_joins: Mutex<Failures>,
    /// Those that it let in.
    pub access: Arc<Access>,
    /// From the leader's stamp of a revocation to its being looked up here.
    pub propagation: Histogram,
    /// Once the proxy runs: what it has counted lately.
    pub lately: OnceLock<Arc<Lately>>,
    /// Once the proxy runs: what callers it has seen.
    pub anomalies: OnceLock<Arc<Anomalies>>,
    /// Where audit trails are sent to a collector.
    pub audit_export: OnceLock<Arc<Progress>>,
}

/// Raft's metrics at one moment, copied: a reference to them must not be held across an await.
#[derive(Debug, Clone, Default)]
pub(super) struct Glance {
    pub leader: Option<NodeId>,
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
    pub applied: u64,
    /// The term of the last applied entry: once it is ours, all of earlier terms has been applied.
    pub applied_term: u64,
    pub snapshot: Option<u64>,
    /// On the leader: since a quorum last answered.
    pub quorum_age: Option<Duration>,
    /// On the leader: since each peer last answered.
    pub answered: BTreeMap<NodeId, Duration>,
    /// On the leader: how far each peer's log is.
    pub matched: BTreeMap<NodeId, u64>,
}

impl Member {
    pub(super) fn state(&self) -> Arc<State> {
        self.states.borrow().clone()
    }

    pub(super) fn glance(&self) -> Glance {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let index = |id: &Option<LogId>| id.as_ref().map_or(0, |id| id.index);
        let membership = metrics.membership_config.membership();
        let answered = metrics.heartbeat.iter().flatten();
        let matched = metrics.replication.iter().flatten();
        Glance {
            leader: metrics.current_leader,
            term: metrics.current_term,
            voters: membership.voter_ids().collect(),
            nodes: membership.nodes().map(|(id, node)| (*id, node.clone())).collect(),
            joint: membership.get_joint_config().len() > 1,
            settled: metrics.membership_config.log_id() == metrics.committed_membership_config.log_id(),
            membership_log_id: *metrics.membership_config.log_id(),
            last_log_index: metrics.last_log_index.unwrap_or(0),
            committed: index(&metrics.local_committed),
            applied: index(&metrics.last_applied),
            applied_term: metrics.last_applied.map_or(0, |id| id.leader_id.term),
            snapshot: metrics.snapshot.as_ref().map(|id| id.index),
            quorum_age: metrics.last_quorum_acked.map(|at| at.into_inner().elapsed()),
            answered: answered.filter_map(|(id, at)| Some((*id, at.as_ref()?.into_inner().elapsed()))).collect(),
            matched: matched.map(|(id, at)| (*id, index(at))).collect(),
        }
    }

    /// Whether a quorum has answered this leader lately.
    pub(super) fn is_heard(&self, glance: &Glance) -> bool {
        glance.voters.len() == 1 || glance.quorum_age.is_some_and(|age| age <= self.timing.election_max)
    }

    /// The leader, as far as it has been heard of lately; raft alone remembers a dead one until the next is elected.
    pub(super) fn leader(&self, glance: &Glance) -> Option<NodeId> {
        let silence = Duration::from_nanos(boottime_ns().saturating_sub(self.heard_ns.load(Ordering::Relaxed)));
        glance.leader.filter(|leader| *leader == self.me.node || silence <= 2 * self.timing.election_max)
    }

    pub(super) fn heard_of_leader(&self) {
        self.heard_ns.store(boottime_ns(), Ordering::Relaxed);
    }

    /// Why consensus has stopped on this node.
    pub(super) fn stopped(&self) -> Option<String> {
        if let Some(reason) = &*self.halted.borrow() {
            return Some(reason.clone());
        }
        match &*self.health.borrow() {
            StoreHealth::Good => {}
            StoreHealth::DiskFull => return Some("the disk is full".into()),
            StoreHealth::FsyncFailed(error) => return Some(format!("writing to the disk failed: {error}")),
            StoreHealth::ApplyStopped(reason) => return Some(reason.clone()),
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.running_state.as_ref().err().map(ToString::to_string)
    }

    /// No votes, no acknowledgements, no writes from here on; the proxy goes on with what it last knew.
    pub(super) fn halt(&self, reason: &str) {
        let first = self.halted.send_if_modified(|halted| {
            let first = halted.is_none();
            halted.get_or_insert_with(|| reason.to_owned());
            first
        });
        if first {
            tracing::error!(reason, "consensus has stopped on this node; the proxy goes on");
        }
        self.raft.runtime_config().elect(false);
    }

    /// Where a node is: as the state has it, or before that as raft's membership has it.
    pub(super) fn target(&self, id: NodeId) -> Option<Target> {
        if let Some(node) = self.state().nodes.get(&id) {
            return Some(Target { id, address: node.peer_address.clone() });
        }
        let address = self.glance().nodes.remove(&id)?.address;
        Some(Target { id, address })
    }

    /// Every other node that the state or raft's membership knows.
    pub(super) fn others(&self) -> Vec<Target> {
        let state = self.state();
        let mut others: BTreeMap<NodeId, String> =
            self.glance().nodes.into_iter().map(|(id, node)| (id, node.address)).collect();
        others.extend(state.nodes.values().map(|node| (node.id, node.peer_address.clone())));
        if others.is_empty() {
            others.extend(self.first_peers.iter().map(|peer| (peer.node_id, peer.address.clone())));
        }
        others.retain(|id, _| *id != self.me.node && !state.removed.contains_key(id));
        others.into_iter().map(|(id, address)| Target { id, address }).collect()
    }

    pub(super) fn name(&self) -> String {
        self.settings.node.name.to_string()
    }
}

impl Consensus {
    /// Whether this node is the leader, as far as it knows.
    pub fn leads(&self) -> bool {
        self.member.raft.metrics().borrow_watched().current_leader == Some(self.member.me.node)
    }

    /// Up to where the log is gone: what is older comes by snapshot.
    pub fn purged(&self) -> Option<u64> {
        self.member.raft.metrics().borrow_watched().purged.as_ref().map(|id| id.index)
    }

    /// This node's own view of raft, without asking anybody.
    pub fn view(&self) -> View {
        let member = &self.member;
        let glance = member.glance();
        let leader = member.leader(&glance);
        let quorum = match leader {
            Some(leader) if leader == member.me.node => member.is_heard(&glance),
            leader => leader.is_some(),
        };
        let learners = glance.nodes.keys().filter(|id| !glance.voters.contains(id)).copied().collect();
        View {
            id: member.me.node,
            name: member.name(),
            leader,
            term: glance.term,
            voters: glance.voters,
            learners,
            last_log_index: glance.last_log_index,
            committed: glance.committed,
            applied: glance.applied,
            stopped: member.stopped(),
            quorum,
        }
    }
}
