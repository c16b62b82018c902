//! A small log and a small snapshot, cut and flipped at every byte: opening gives all that was acknowledged, or names
//! the file that is damaged.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use openraft::storage::{RaftLogReader, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine};
use quorumgate_model::state::State;
use tempfile::TempDir;

use super::{IDENTITY, command, log_id, memory_dir, sim_disk::SimDisk, small};
use crate::{
    Entry, Identity, SnapshotMeta, Vote,
    health::Health,
    snapshots::Snapshots,
    store::{open_on, prepare_on},
    wal::{Found, PurgeFloor, WalOptions},
};

const FLIPS: [u8; 2] = [0x01, 0xff];

/// A directory with three segments and two snapshots, the newer of index 12; everything in it was acknowledged.
struct Directory {
    dir: TempDir,
    disk: SimDisk,
    vote: Vote,
    entries: Vec<Entry>,
}

impl Directory {
    async fn filled() -> Self {
        let dir = memory_dir();
        let disk = SimDisk::default();
        prepare_on(&disk, dir.path(), IDENTITY, &small()).unwrap();
        let mut opened = open_on(Arc::new(disk.clone()), dir.path(), small()).unwrap();
        let vote = Vote::new_committed(1, 3);
        opened.log.save_vote(&vote).await.unwrap();
        let mut entries = Vec::new();
        for index in 0..20 {
            let entry = command(log_id(1, index), 500);
            entries.push(entry.clone());
            let (told, done) = tokio::sync::oneshot::channel();
            opened.log.append_with(vec![entry.clone()], |outcome| drop(told.send(outcome))).await.unwrap();
            done.await.unwrap().unwrap();
            if index <= 12 {
                let items = futures_util::stream::iter([Ok((entry, None))]);
                opened.machine.apply(items).await.unwrap();
            }
            if index == 6 || index == 12 {
                opened.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
            }
        }
        drop(opened);
        Self { dir, disk, vote, entries }
    }

    fn paths(&self, suffix: &str) -> Vec<PathBuf> {
        self.disk.paths().into_iter().filter(|path| path.to_string_lossy().ends_with(suffix)).collect()
    }

    fn recover(&self, disk: SimDisk) -> Result<(Option<Vote>, Vec<Entry>), String> {
        let options = WalOptions { dir: self.dir.path().join("wal"), identity: IDENTITY, segment_bytes: 4096 };
        let found = Found::recover(Arc::new(disk), options).map_err(|error| format!("{error:#}"))?;
        Ok(found.contents().unwrap())
    }

    fn snapshots(&self, disk: SimDisk) -> Option<(SnapshotMeta, State)> {
        let dir = self.dir.path().join("snapshots");
        Snapshots::open(Arc::new(disk), dir, PurgeFloor::new(), Health::new()).unwrap().1
    }
}

fn names(error: &str, path: &Path) -> bool {
    error.contains(&path.display().to_string()) && error.contains("remove this node from the cluster")
}

#[tokio::test]
async fn a_flipped_byte_of_the_log_is_told_or_means_nothing() {
    let it = Directory::filled().await;
    let segments = it.paths(".wal");
    assert_eq!(segments.len(), 3);
    for path in &segments {
        for at in 0..it.disk.bytes(path).len() {
            for flip in FLIPS {
                let found = it.recover(it.disk.altered(path, |bytes| bytes[at] ^= flip));
                match found {
                    Ok(found) => assert_eq!(found, (Some(it.vote), it.entries.clone()), "{path:?} byte {at}"),
                    Err(error) => assert!(names(&error, path), "{path:?} byte {at}: {error}"),
                }
            }
        }
    }
}

/// Segments are allocated in full, so that a crash leaves zeros where nothing was written yet.
#[tokio::test]
async fn a_write_cut_at_any_byte_leaves_a_prefix() {
    let it = Directory::filled().await;
    let path = it.paths(".wal").pop().unwrap();
    let before: usize = it.recover(it.disk.altered(&path, |bytes| bytes[160..].fill(0))).unwrap().1.len();
    for filler in [0x00, 0xa5] {
        let mut longest = before;
        for at in 160..it.disk.bytes(&path).len() {
            let (vote, entries) = it.recover(it.disk.altered(&path, |bytes| bytes[at..].fill(filler))).unwrap();
            assert_eq!(vote, Some(it.vote));
            assert!(entries.len() >= longest, "byte {at}");
            assert_eq!(entries, it.entries[..entries.len()], "byte {at}");
            longest = entries.len();
        }
        assert_eq!(longest, it.entries.len());
    }
}

/// Two entries were in flight; the first was lost and the second was not. What follows later takes the place of both.
#[tokio::test]
async fn what_was_torn_off_never_comes_back() {
    let it = Directory::filled().await;
    let used = |disk: &SimDisk, path: &Path| {
        let bytes = disk.bytes(path);
        bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| (at + 1).next_multiple_of(8))
    };
    let path = it.paths(".wal").pop().unwrap();
    let before = used(&it.disk, &path);
    let append = async |disk: &SimDisk, entries: Vec<Entry>| {
        let mut opened = open_on(Arc::new(disk.clone()), it.dir.path(), small()).unwrap();
        let (told, done) = tokio::sync::oneshot::channel();
        opened.log.append_with(entries, |outcome| drop(told.send(outcome))).await.unwrap();
        done.await.unwrap().unwrap();
    };
    append(&it.disk, vec![command(log_id(1, 20), 50), command(log_id(1, 21), 50)]).await;
    let (first, marker) = ((used(&it.disk, &path) - before - 16) / 2, 16);
    let torn = it.disk.altered(&path, |bytes| {
        let end = before + 2 * first + marker;
        bytes[before..before + first].fill(0);
        bytes[end - marker..end].fill(0);
    });
    assert_eq!(it.recover(torn.altered(&path, |_| ())).unwrap().1, it.entries);

    drop(open_on(Arc::new(torn.clone()), it.dir.path(), small()).unwrap());
    let cleaned = torn.bytes(&path);
    append(&torn, vec![command(log_id(2, 20), 50)]).await;
    // The marker that follows it may not have made it: then nothing stands where the second of those two began.
    let behind = before + first;
    let unmarked = torn.altered(&path, |bytes| bytes[behind..].copy_from_slice(&cleaned[behind..]));
    for disk in [torn, unmarked] {
        let (_, entries) = it.recover(disk).unwrap();
        assert_eq!(entries[20..], [command(log_id(2, 20), 50)]);
    }
}

#[tokio::test]
async fn a_shortened_segment_is_refused() {
    let it = Directory::filled().await;
    for path in it.paths(".wal") {
        for length in 0..it.disk.bytes(&path).len() {
            let error = it.recover(it.disk.altered(&path, |bytes| bytes.truncate(length))).unwrap_err();
            assert!(names(&error, &path), "{path:?} of {length} bytes: {error}");
        }
    }
}

#[tokio::test]
async fn a_damaged_snapshot_gives_way_to_the_older_one() {
    let it = Directory::filled().await;
    let [older, newer] = it.paths(".snap").try_into().unwrap();
    let index = |found: Option<(SnapshotMeta, State)>| found.map(|(meta, _)| meta.last_log_id.unwrap().index);
    assert_eq!(index(it.snapshots(it.disk.altered(&newer, |_| ()))), Some(12));
    let length = it.disk.bytes(&newer).len();
    for at in 0..length {
        for flip in FLIPS {
            assert_eq!(index(it.snapshots(it.disk.altered(&newer, |bytes| bytes[at] ^= flip))), Some(6), "byte {at}");
        }
        assert_eq!(index(it.snapshots(it.disk.altered(&newer, |bytes| bytes.truncate(at)))), Some(6), "cut at {at}");
    }
    let both = it.disk.altered(&newer, |bytes| bytes[40] ^= 1).altered(&older, |bytes| bytes[40] ^= 1);
    assert_eq!(index(it.snapshots(both)), None);
}

/// The newest snapshot is lost, and what was purged since the older one counts again.
#[tokio::test]
async fn the_log_covers_what_a_damaged_snapshot_held() {
    let it = Directory::filled().await;
    let mut opened = open_on(Arc::new(it.disk.clone()), it.dir.path(), small()).unwrap();
    opened.log.purge(log_id(1, 12)).await.unwrap();
    let state = opened.machine.state.clone();
    drop(opened);

    let newer = it.paths(".snap").pop().unwrap();
    let damaged = it.disk.altered(&newer, |bytes| bytes[99] ^= 1);
    let mut opened = open_on(Arc::new(damaged), it.dir.path(), small()).unwrap();
    assert_eq!(opened.machine.applied, Some(log_id(1, 6)));
    assert_eq!(opened.log.get_log_state().await.unwrap().last_purged_log_id, Some(log_id(1, 6)));
    for entry in opened.log.try_get_log_entries(7..13).await.unwrap() {
        opened.machine.apply(futures_util::stream::iter([Ok((entry, None))])).await.unwrap();
    }
    assert_eq!(opened.machine.state, state);
}

#[tokio::test]
async fn a_snapshot_that_nothing_covers_is_told() {
    let it = Directory::filled().await;
    let mut opened = open_on(Arc::new(it.disk.clone()), it.dir.path(), small()).unwrap();
    // As after a snapshot from the leader: the log begins anew far above.
    opened.log.purge(log_id(1, 50)).await.unwrap();
    drop(opened);
    let error = open_on(Arc::new(it.disk.clone()), it.dir.path(), small()).err().unwrap();
    assert!(format!("{error:#}").contains("the log begins after it; recover from the quorum"), "{error:#}");
}

#[test]
fn a_flipped_byte_of_the_identity_is_told() {
    let bytes = IDENTITY.encode();
    assert_eq!(Identity::decode(&bytes).unwrap(), IDENTITY);
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        assert!(Identity::decode(&flipped).is_err(), "byte {at}");
        assert!(Identity::decode(&bytes[..at]).is_err(), "cut at {at}");
    }
}

#[tokio::test]
async fn a_foreign_log_is_refused() {
    let it = Directory::filled().await;
    let foreign = Identity { incarnation: [8; 16], ..IDENTITY };
    let path = it.dir.path().join("identity");
    let disk = it.disk.altered(&path, |bytes| *bytes = foreign.encode());
    let error = open_on(Arc::new(disk), it.dir.path(), small()).err().unwrap();
    assert!(format!("{error:#}").contains("under another identity"), "{error:#}");
}

/// Begun anew, a member that has voted would vote again in the same term.
#[tokio::test]
async fn a_log_that_is_lost_is_not_begun_anew() {
    let it = Directory::filled().await;
    let error = open_on(Arc::new(it.disk.without_log()), it.dir.path(), small()).err().unwrap();
    assert!(format!("{error:#}").contains("has an identity but no log"), "{error:#}");
}
