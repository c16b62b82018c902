//! openraft's type parameters for this cluster. Only this crate and `node::consensus` name openraft.

use std::fmt;

use quorumgate_model::{
    NodeId,
    command::{Applied, Command},
};

openraft::declare_raft_types!(
    pub TypeConfig:
        D = Command,
        R = Option<Applied>,
        NodeId = NodeId,
        Node = RaftNode,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, NodeId>,
);

pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, crate::SnapshotFile>;

/// A member as raft's membership holds it: enough to dial it, and to tell a wiped disk from the node it was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RaftNode {
    pub name: String,
    /// host:port of its peer listener.
    pub address: String,
    pub incarnation: [u8; 16],
}

impl fmt::Display for RaftNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.address)
    }
}
