//! sled as the node's journal: audit entries and the diffs of revisions, rebuilt from elsewhere when lost.

use quorumgate_model::state::{AuditEntry, RevisionDiff};

/// Cheap to clone. Reads block on disk: call them off the async threads.
#[derive(Clone)]
pub struct Journal {}

impl Journal {
    /// None when this node does not hold it (compacted, lost, or before it joined).
    pub fn revision_diff(&self, _revision: u64) -> Option<RevisionDiff> {
        todo!("H3")
    }

    /// A diff fetched from a peer, checked by the caller against the state's history.
    pub fn store_diff(&self, _diff: &RevisionDiff) {
        todo!("H3")
    }

    /// Newest first.
    pub fn audit(&self, _limit: usize) -> Vec<AuditEntry> {
        todo!("H3")
    }

    /// The reason why the journal cannot be trusted or written, if any.
    pub fn degraded(&self) -> Option<String> {
        todo!("H3")
    }
}
