//! sled as the node's journal: audit entries and the diffs of revisions, rebuilt from elsewhere when lost.

use std::path::Path;

use quorumgate_model::state::{AuditEntry, Effects, RevisionDiff, State};

use crate::{store::DirLock, wal::PurgeFloor};

/// Cheap to clone. Reads block on disk: call them off the async threads.
#[derive(Clone)]
pub struct Journal {}

impl Journal {
    pub(crate) fn open(_dir: &Path, _state: &State, _floor: PurgeFloor, _lock: DirLock) -> Self {
        Self {}
    }

    pub(crate) async fn record(&self, _index: u64, _effects: Effects) {}

    pub(crate) fn snapshot_installed(&self, _state: &State) {}

    /// None when this node does not hold it (compacted, lost, or before it joined).
    pub fn revision_diff(&self, _revision: u64) -> Option<RevisionDiff> {
        None
    }

    /// A diff fetched from a peer, checked by the caller against the state's history.
    pub fn store_diff(&self, _diff: &RevisionDiff) {}

    /// Newest first.
    pub fn audit(&self, _limit: usize) -> Vec<AuditEntry> {
        Vec::new()
    }

    /// The reason why the journal cannot be trusted or written, if any.
    pub fn degraded(&self) -> Option<String> {
        Some("the journal is not written yet".into())
    }
}
