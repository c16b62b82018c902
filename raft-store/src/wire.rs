//! Between openraft's types and our own prost messages; openraft's serde forms never leave the process.

use anyhow::Result;
use quorumgate_proto::store::v1 as store;

use crate::{Entry, LogId, SnapshotMeta, StoredMembership, Vote};

pub fn log_id_to(_id: &LogId) -> store::LogId {
    todo!("H3")
}
pub fn log_id_from(_id: &store::LogId) -> LogId {
    todo!("H3")
}
pub fn vote_to(_vote: &Vote) -> store::Vote {
    todo!("H3")
}
pub fn vote_from(_vote: &store::Vote) -> Result<Vote> {
    todo!("H3")
}
pub fn entry_to(_entry: &Entry) -> store::RaftEntry {
    todo!("H3")
}
pub fn entry_from(_entry: store::RaftEntry) -> Result<Entry> {
    todo!("H3")
}
pub fn stored_membership_to(_membership: &StoredMembership) -> store::StoredMembership {
    todo!("H3")
}
pub fn stored_membership_from(_membership: &store::StoredMembership) -> Result<StoredMembership> {
    todo!("H3")
}
pub fn snapshot_meta_to(_meta: &SnapshotMeta) -> store::SnapshotMeta {
    todo!("H3")
}
pub fn snapshot_meta_from(_meta: &store::SnapshotMeta) -> Result<SnapshotMeta> {
    todo!("H3")
}
