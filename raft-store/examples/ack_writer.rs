//! What `scripts/power-cut` cuts off: appends, applies, takes snapshots and purges, and says what is durable; the
//! second run, on a copy of the disk, checks that all of it is there.
//!
//! `ack_writer write <directory>` prints `acknowledged <index>` and `snapshot <index>` lines until it is stopped;
//! `ack_writer verify <directory> <acknowledged> <snapshot>` fails unless both were kept.

use std::{env, io::Write, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use openraft::{
    EntryPayload,
    storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt, RaftSnapshotBuilder, RaftStateMachine},
};
use quorumgate_model::{
    command::{
        Actor, Body, Bootstrap, ChangeResources, Command, Expect, NodeRecord, ResourceChange, Role, Stamp, Standing,
    },
    convert,
    digest::Digest,
    resource::Resource,
    state::State,
};
use quorumgate_proto::admin::v1 as admin;
use quorumgate_raft_store::{Entry, Identity, LogId, Opened, Options, Vote, open, prepare};

const SNAPSHOT_EVERY: u64 = 300;
const IDENTITY: Identity = Identity { cluster: [1; 16], node: 1, incarnation: [2; 16] };

/// Small enough that segments come and go all the time.
fn options() -> Options {
    Options { segment_bytes: 64 << 10, ..Options::default() }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", dir] => write(Path::new(dir)).await,
        ["verify", dir, acked, snapshot] => verify(Path::new(dir), acked.parse()?, snapshot.parse()?).await,
        _ => bail!("ack_writer write <directory> | ack_writer verify <directory> <acknowledged> <snapshot>"),
    }
}

async fn write(dir: &Path) -> Result<()> {
    prepare(dir, IDENTITY)?;
    let mut opened = open(dir, options())?;
    opened.log.save_vote(&Vote::new_committed(1, 1)).await?;
    let mut index = 0;
    let mut snapshot = 0;
    loop {
        let batch: Vec<_> = (index..index + 1 + mixed(index) % 8).map(entry).collect::<Result<_>>()?;
        index += batch.len() as u64;
        opened.log.blocking_append(batch.clone()).await.map_err(|error| anyhow::anyhow!("{error}"))?;
        say("acknowledged", index - 1)?;
        let last = batch.last().map(|entry| entry.log_id);
        opened.log.save_committed(last).await?;
        opened.machine.apply(futures_util::stream::iter(batch.into_iter().map(|entry| Ok((entry, None))))).await?;
        if index >= snapshot + SNAPSHOT_EVERY {
            opened.machine.get_snapshot_builder().await.build_snapshot().await?;
            snapshot = index - 1;
            say("snapshot", snapshot)?;
            if let Some(upto) = opened.purge_floor.index() {
                opened.log.purge(log_id(upto)).await?;
            }
        }
    }
}

async fn verify(dir: &Path, acked: u64, snapshot: u64) -> Result<()> {
    let mut opened = open(dir, options())?;
    let last = opened.log.get_log_state().await?.last_log_id.context("the log is empty")?.index;
    let applied = opened.machine.applied_state().await?.0.map_or(0, |id| id.index);
    ensure!(last >= acked, "{acked} was acknowledged, the log ends at {last}");
    ensure!(applied >= snapshot, "a snapshot at {snapshot} was told, the newest is at {applied}");
    ensure!(opened.log.read_vote().await? == Some(Vote::new_committed(1, 1)), "the vote is lost");

    let first = if applied == 0 { 0 } else { applied + 1 };
    let entries = opened.log.try_get_log_entries(first..).await?;
    ensure!(entries.len() as u64 == last + 1 - first, "{} entries from {first} to {last}", entries.len());
    for (index, found) in (first..).zip(&entries) {
        ensure!(*found == entry(index)?, "entry {index} is another");
    }
    opened.machine.apply(futures_util::stream::iter(entries.into_iter().map(|entry| Ok((entry, None))))).await?;
    let state = replayed(last)?;
    ensure!(opened.states.borrow().hash() == state.hash(), "the state differs");
    let journal = check_journal(&mut opened, &state, applied).await?;
    println!("good: {last} entries (acknowledged {acked}, snapshot {applied}), {journal}");
    Ok(())
}

/// The audit entries must be linked from the state's head down, at least to the snapshot that was opened.
async fn check_journal(opened: &mut Opened, state: &State, snapshot: u64) -> Result<String> {
    // A snapshot waits until the journal has everything.
    opened.machine.get_snapshot_builder().await.build_snapshot().await?;
    ensure!(opened.journal.degraded().is_none(), "the journal is degraded: {:?}", opened.journal.degraded());
    let audit = opened.journal.audit(u64::MAX, usize::MAX);
    let mut link = (state.audit.count, state.audit.hash);
    for entry in &audit {
        ensure!((entry.sequence, entry.hash()) == link, "audit entry {} does not link", entry.sequence);
        link = (entry.sequence - 1, entry.previous);
    }
    // A journal that sled lost is begun anew at the snapshot; what lies before, peers still hold.
    ensure!(link.0 <= snapshot, "audit entries from {} to {snapshot} are lost", link.0);
    let kept = state.history.iter().filter(|facts| opened.journal.revision_diff(facts.revision).is_some()).count();
    let rebuilt = link.0 > 0 || kept < state.history.len();
    let word = if rebuilt { "rebuilt from the snapshot" } else { "whole" };
    Ok(format!("journal {word}: {} audit entries, {kept} diffs", audit.len()))
}

fn say(word: &str, index: u64) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{word} {index}")?;
    Ok(out.flush()?)
}

fn replayed(last: u64) -> Result<State> {
    let mut state = State::default();
    for index in 0..=last {
        match entry(index)?.payload {
            EntryPayload::Normal(command) => drop(state.apply(index, &command)),
            _ => state.skip(index),
        }
    }
    Ok(state)
}

fn log_id(index: u64) -> LogId {
    LogId { leader_id: 1.into(), index }
}

/// The entry of this index, always the same one.
fn entry(index: u64) -> Result<Entry> {
    let body = match index {
        0 => return Ok(Entry { log_id: log_id(0), payload: EntryPayload::Blank }),
        1 => Body::Bootstrap(Arc::new(bootstrap()?)),
        _ => Body::ChangeResources(change(index)?),
    };
    let stamp = Stamp { clock_us: index * 1000, wall_ms: index };
    let actor = Arc::new(Actor { name: "writer".into(), ..Actor::default() });
    let command = Command { min_level: 1, request_id: None, asked: None, stamp, actor, body };
    Ok(Entry { log_id: log_id(index), payload: EntryPayload::Normal(command) })
}

fn change(index: u64) -> Result<ChangeResources> {
    let description = format!("{index} {}", "x".repeat((mixed(index) % 900) as usize));
    let upstream = admin::Upstream {
        name: format!("u{}", mixed(index) % 40),
        meta: Some(admin::Meta { description, ..admin::Meta::default() }),
        targets: vec![admin::Target { address: "a.example:80".into(), weight: 1, ..Default::default() }],
        ..admin::Upstream::default()
    };
    let resource = admin::Resource { kind: Some(admin::resource::Kind::Upstream(upstream)) };
    let after: Resource = convert::resource_from(resource)?;
    let change = ResourceChange { key: after.key(), after: Some(after), expect: Expect::Anything };
    Ok(ChangeResources { changes: Arc::new([change]), ..ChangeResources::default() })
}

fn bootstrap() -> Result<Bootstrap> {
    let node = NodeRecord {
        id: 1,
        name: "a".parse().map_err(|error| anyhow::anyhow!("{error}"))?,
        region: String::new(),
        peer_address: "127.0.0.1:7000".into(),
        incarnation: IDENTITY.incarnation,
        spki_sha256: [3; 32],
        wanted_role: Role::Voter,
        standing: Standing::Active,
        level: 1,
        version: "0".into(),
    };
    Ok(Bootstrap {
        cluster_id: IDENTITY.cluster,
        cluster_name: "power-cut".into(),
        max_rtt: Duration::from_millis(5),
        ca_certificate: vec![4; 400],
        sealed_ca_key: vec![5; 200],
        node,
    })
}

/// Spread over all numbers, and the same in every run.
fn mixed(index: u64) -> u64 {
    u64::from_le_bytes(Digest::of(&index.to_le_bytes()).0[..8].try_into().expect("eight of 32 bytes"))
}
