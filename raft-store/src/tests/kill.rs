//! A process that is killed while it appends: everything that it acknowledged is there.

use std::{
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use openraft::storage::{RaftLogReader, RaftLogStorage};

use super::{IDENTITY, command, log_id, rng::Rng, small};
use crate::{disk::RealDisk, open, store::prepare_on};

const DIR: &str = "QUORUMGATE_KILL_DIR";

#[tokio::test]
async fn a_killed_process_loses_nothing_that_it_acknowledged() {
    if let Some(dir) = env::var_os(DIR) {
        return appends_until_killed(Path::new(&dir)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    prepare_on(&RealDisk, dir.path(), IDENTITY, &small()).unwrap();
    let mut rng = Rng(7);
    let mut least = 0;
    for _ in 0..4 {
        let acked = killed_after(dir.path(), 1 + rng.below(40));
        assert!(acked > least, "it went on from {least} to {acked}");
        least = acked;
        let mut opened = open(dir.path(), small()).unwrap();
        let entries = opened.log.try_get_log_entries(0..).await.unwrap();
        assert!(entries.len() as u64 > acked, "{acked} was acknowledged, {} entries are there", entries.len());
        for (index, entry) in (0..).zip(entries) {
            assert_eq!(entry, command(log_id(1, index), index as usize % 700));
        }
    }
}

/// The last index that it acknowledged.
fn killed_after(dir: &Path, acks: u64) -> u64 {
    let test = "tests::kill::a_killed_process_loses_nothing_that_it_acknowledged";
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut indexes = lines.filter_map(|line| line.unwrap().strip_prefix("acknowledged ")?.parse().ok());
    let last = indexes.by_ref().nth(acks as usize).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    // What was still in the pipe counts too.
    indexes.last().unwrap_or(last)
}

async fn appends_until_killed(dir: &Path) {
    let mut opened = open(dir, small()).unwrap();
    let next = opened.log.get_log_state().await.unwrap().last_log_id.map_or(0, |id| id.index + 1);
    for index in next.. {
        let entries = vec![command(log_id(1, index), index as usize % 700)];
        let acknowledge = move |outcome: std::io::Result<()>| {
            outcome.unwrap();
            println!("acknowledged {index}");
        };
        opened.log.append_with(entries, acknowledge).await.unwrap();
    }
}
