//! What no single module can promise by itself: openraft's own suite, crashes, damage and power cuts.

mod damage;
mod golden;
mod kill;
mod power_cut;
mod rng;
mod sim_disk;
#[cfg(feature = "simulation")]
mod simulation;
mod suite;
mod trouble;

use std::{io, sync::Arc};

use openraft::EntryPayload;
use quorumgate_model::command::{Actor, Body, Command, Stamp};

use crate::{Entry, Identity, LogId, LogStore, Options};

pub(crate) const IDENTITY: Identity = Identity { cluster: [7; 16], node: 3, incarnation: [9; 16] };

/// Segments so small that every test rolls over them.
pub(crate) fn small() -> Options {
    Options { segment_bytes: 4096, ..Options::default() }
}

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: term.into(), index }
}

/// An entry whose command has about so many bytes.
pub(crate) fn command(log_id: LogId, bytes: usize) -> Entry {
    if log_id.index == 0 {
        // openraft begins with a membership there; no command ever has this index.
        return Entry { log_id, payload: EntryPayload::Blank };
    }
    let stamp = Stamp { clock_us: log_id.index, wall_ms: log_id.index };
    let actor = Arc::new(Actor { name: "a".repeat(bytes), ..Actor::default() });
    let command = Command { min_level: 1, request_id: None, asked: None, stamp, actor, body: Body::Tick };
    Entry { log_id, payload: EntryPayload::Normal(command) }
}

impl LogStore {
    pub(crate) async fn append_with(
        &mut self,
        entries: Vec<Entry>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> io::Result<()> {
        self.wal.append(entries, Box::new(done)).await
    }
}

/// For what a test opens hundreds of times and no disk need hold: the lock and the journal beside a simulated disk.
pub(crate) fn memory_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
