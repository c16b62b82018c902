//! Durable batches a second through the log, one after the other: `wal_bench <directory on the disk to measure>`.

use std::{
    env,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use openraft::{EntryPayload, storage::RaftLogStorageExt};
use quorumgate_model::command::{Actor, Body, Command, Stamp};
use quorumgate_raft_store::{Entry, Identity, LogId, Options, open, prepare};

const TIME: Duration = Duration::from_secs(3);
const ENTRY_BYTES: usize = 128;

#[tokio::main]
async fn main() -> Result<()> {
    let dir = env::args().nth(1).context("wal_bench <directory on the disk to measure>")?;
    for batch in [1, 8, 64] {
        let dir = Path::new(&dir).join(format!("batch-{batch}"));
        prepare(&dir, Identity { cluster: [1; 16], node: 1, incarnation: [2; 16] })?;
        let mut log = open(&dir, Options::default())?.log;
        let (start, mut index, mut batches) = (Instant::now(), 0, 0);
        while start.elapsed() < TIME {
            let entries: Vec<_> = (index..index + batch).map(entry).collect();
            index += batch;
            batches += 1;
            log.blocking_append(entries).await.map_err(|error| anyhow::anyhow!("{error}"))?;
        }
        let rate = f64::from(batches) / start.elapsed().as_secs_f64();
        println!("{batch:>3} entries a batch: {rate:.0} durable batches/s");
        drop(log);
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

fn entry(index: u64) -> Entry {
    let actor = Actor { name: "b".repeat(ENTRY_BYTES), ..Actor::default() };
    let command = Command {
        min_level: 1,
        request_id: None,
        asked: None,
        stamp: Stamp::default(),
        actor: actor.into(),
        body: Body::Tick,
    };
    Entry { log_id: LogId { leader_id: 1.into(), index }, payload: EntryPayload::Normal(command) }
}
