//! Opens a data directory: WAL, snapshots and journal, as openraft's log store and state machine.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use quorumgate_model::state::State;
use tokio::sync::watch;

use crate::{Identity, Journal};

#[derive(Debug, Clone)]
pub struct Options {
    /// A snapshot is due when the WAL since the last one exceeds max(this, the last snapshot's size).
    pub snapshot_after_bytes: u64,
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { snapshot_after_bytes: 64 << 20, segment_bytes: 16 << 20 }
    }
}

/// Whether the disk and apply still work; a control task watches it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StoreHealth {
    #[default]
    Good,
    /// No room: nothing is acknowledged until there is.
    DiskFull,
    /// An fsync failed: drain and exit.
    FsyncFailed(String),
    /// An entry could not be decoded or an assertion in apply failed: consensus stops here, the proxy goes on.
    ApplyStopped(String),
}

pub struct LogStore {}
pub struct Machine {}

/// Everything `node` needs of a data directory.
pub struct Opened {
    pub identity: Identity,
    pub log: LogStore,
    pub machine: Machine,
    /// The last applied state; changes after every batch of applied entries.
    pub states: watch::Receiver<Arc<State>>,
    pub health: watch::Receiver<StoreHealth>,
    /// Bytes of WAL since the last snapshot against the threshold: true when a snapshot is due.
    pub snapshot_due: watch::Receiver<bool>,
    pub journal: Journal,
    pub snapshots_dir: PathBuf,
    /// True when neither an entry nor a vote was ever written.
    pub pristine: bool,
}

/// A snapshot on disk: what openraft moves between nodes. Received ones are complete files that were not yet verified.
#[derive(Debug, Clone)]
pub struct SnapshotFile {
    pub path: PathBuf,
    pub length: u64,
}

/// Prepares an empty directory for this identity: identity file, empty WAL, directories. Refuses one that is in use.
pub fn prepare(_dir: &Path, _identity: Identity) -> anyhow::Result<()> {
    todo!("H3")
}

/// Recovers everything; errors say what is damaged and how to recover.
pub fn open(_dir: &Path, _options: Options) -> anyhow::Result<Opened> {
    todo!("H3")
}
