//! A full disk, a failed sync, an entry that cannot be applied, a directory that is not what it should be.

use std::{fs, path::Path, sync::Arc};

use openraft::storage::{RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine};
use quorumgate_model::{
    digest::Digest,
    state::{AuditEntry, Effects},
};
use tokio::sync::oneshot;

use super::{
    IDENTITY, command, log_id, memory_dir,
    rng::Rng,
    sim_disk::{Faults, SimDisk},
    small,
};
use crate::{
    Opened, SnapshotMeta, StoreHealth, Vote, open, prepare,
    store::{open_on, prepare_on},
};

fn opened_on(disk: &SimDisk, dir: &Path) -> Opened {
    prepare_on(disk, dir, IDENTITY, &small()).unwrap();
    open_on(Arc::new(disk.clone()), dir, small()).unwrap()
}

async fn append(opened: &mut Opened, index: u64) -> oneshot::Receiver<bool> {
    let (told, done) = oneshot::channel();
    let entries = vec![command(log_id(1, index), 500)];
    opened.log.append_with(entries, |outcome| told.send(outcome.is_ok()).unwrap_or_default()).await.unwrap();
    done
}

#[tokio::test]
async fn a_full_disk_holds_the_queue_until_there_is_room() {
    let (dir, disk) = (memory_dir(), SimDisk::default());
    let mut opened = opened_on(&disk, dir.path());
    disk.set_faults(Faults { full: true, ..Faults::default() });
    let mut waiting = Vec::new();
    for index in 0..100 {
        waiting.push(append(&mut opened, index).await);
    }
    opened.health.wait_for(|health| *health == StoreHealth::DiskFull).await.unwrap();
    assert!(waiting.last_mut().unwrap().try_recv().is_err(), "acknowledged without room");

    disk.set_faults(Faults::default());
    for done in waiting {
        assert_eq!(done.await, Ok(true));
    }
    opened.health.wait_for(|health| *health == StoreHealth::Good).await.unwrap();
    drop(opened);
    let mut opened = open_on(Arc::new(disk), dir.path(), small()).unwrap();
    assert_eq!(opened.log.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 99)));
}

#[tokio::test]
async fn a_failed_sync_is_final() {
    let (dir, disk) = (memory_dir(), SimDisk::default());
    let mut opened = opened_on(&disk, dir.path());
    disk.set_faults(Faults { sync_fails: true, ..Faults::default() });
    assert_eq!(append(&mut opened, 0).await.await, Ok(false));
    opened.health.wait_for(|health| matches!(health, StoreHealth::FsyncFailed(_))).await.unwrap();

    // The page cache says it is written: nothing that follows may rely on it.
    disk.set_faults(Faults::default());
    assert!(opened.log.save_vote(&Vote::new(2, 3)).await.is_err());
    assert!(matches!(*opened.health.borrow(), StoreHealth::FsyncFailed(_)));
}

/// After a sync that failed the pages are clean and read as written: whoever starts again reads them, goes on from them, and
/// no sync that follows brings them to the disk.
#[tokio::test]
async fn what_a_failed_sync_has_left_readable_survives_once_it_was_read() {
    let (dir, disk) = (memory_dir(), SimDisk::default());
    let mut opened = opened_on(&disk, dir.path());
    disk.set_faults(Faults { sync_fails: true, ..Faults::default() });
    assert_eq!(append(&mut opened, 0).await.await, Ok(false));
    drop(opened);

    let restarted = disk.after_kill();
    let read = async |disk: &SimDisk| {
        let mut opened = open_on(Arc::new(disk.clone()), dir.path(), small()).unwrap();
        opened.log.get_log_state().await.unwrap().last_log_id
    };
    assert_eq!(read(&restarted).await, Some(log_id(1, 0)));
    let cut = restarted.after_power_cut(&mut Rng(0));
    assert_eq!(read(&cut).await, Some(log_id(1, 0)));
}

#[tokio::test]
async fn an_entry_that_cannot_be_applied_leaves_the_last_good_state() {
    let (dir, disk) = (memory_dir(), SimDisk::default());
    let mut opened = opened_on(&disk, dir.path());
    // The third comes out of order, which the state asserts against.
    let entries = [0, 1, 1, 2].map(|index| Ok((command(log_id(1, index), 1), None)));
    assert!(opened.machine.apply(futures_util::stream::iter(entries)).await.is_err());
    assert_eq!(opened.states.borrow_and_update().index, 1);
    assert_eq!(opened.machine.applied, Some(log_id(1, 1)));
    assert!(matches!(*opened.health.borrow(), StoreHealth::ApplyStopped(_)));
}

#[tokio::test]
async fn purged_segments_go_only_below_the_older_snapshot() {
    let (dir, disk) = (memory_dir(), SimDisk::default());
    let mut opened = opened_on(&disk, dir.path());
    let segments = || disk.paths().iter().filter(|path| path.extension().is_some_and(|it| it == "wal")).count();
    for index in 0..60 {
        append(&mut opened, index).await.await.unwrap();
        let items = futures_util::stream::iter([Ok((command(log_id(1, index), 500), None))]);
        opened.machine.apply(items).await.unwrap();
        if index == 20 || index == 50 {
            opened.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        }
    }
    let before = segments();
    assert_eq!(opened.purge_floor.index(), Some(20));
    opened.log.purge(log_id(1, 50)).await.unwrap();
    append(&mut opened, 60).await.await.unwrap();
    drop(opened);
    // About six entries lie in a segment.
    assert!((before - 4..=before - 2).contains(&segments()), "{before} before, {} after", segments());
}

async fn apply(opened: &mut Opened, index: u64) {
    let items = futures_util::stream::iter([Ok((command(log_id(1, index), 1), None))]);
    opened.machine.apply(items).await.unwrap();
}

/// Entries below a snapshot are not replayed: what they leave for the journal must be in it.
#[tokio::test]
async fn a_snapshot_waits_for_the_journal() {
    let (dir, disk) = (memory_dir(), SimDisk::default());
    let mut opened = opened_on(&disk, dir.path());
    let audit = AuditEntry {
        sequence: 1,
        index: 1,
        revision: 0,
        wall_ms: 0,
        actor: Arc::default(),
        message: String::new(),
        summary: String::new(),
        previous: Digest::default(),
    };
    opened.journal.gather(vec![Effects { diff: None, audit: Some(audit) }]);
    opened.journal.record(1).await;
    for index in 1..=6 {
        apply(&mut opened, index).await;
        if index % 3 == 0 {
            opened.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        }
    }
    assert_eq!(opened.purge_floor.index(), Some(3), "what the older snapshot holds, and the journal has");
}

#[tokio::test]
async fn a_snapshot_that_is_not_the_one_that_was_announced_changes_nothing() {
    let (dir, disk) = (memory_dir(), SimDisk::default());
    let mut opened = opened_on(&disk, dir.path());
    apply(&mut opened, 1).await;
    let built = opened.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    apply(&mut opened, 2).await;
    let announced = SnapshotMeta { last_log_id: Some(log_id(1, 9)), ..built.meta };
    assert!(opened.machine.install_snapshot(&announced, built.snapshot).await.is_err());
    assert_eq!(opened.machine.applied, Some(log_id(1, 2)));
}

#[test]
fn directories_that_are_not_what_they_should_be_are_refused() {
    let dir = memory_dir();
    let refusal = |outcome: anyhow::Result<Opened>| format!("{:#}", outcome.err().unwrap());
    assert!(refusal(open(dir.path(), small())).contains("was not prepared"));

    prepare(dir.path(), IDENTITY).unwrap();
    assert!(prepare(dir.path(), IDENTITY).unwrap_err().to_string().contains("already belongs to node 3"));

    let opened = open(dir.path(), small()).unwrap();
    assert!(opened.pristine);
    assert!(refusal(open(dir.path(), small())).contains("in use by another process"));
    drop(opened);

    let log = dir.path().join("wal");
    let aside = dir.path().join("aside");
    fs::rename(&log, &aside).unwrap();
    fs::create_dir(&log).unwrap();
    assert!(refusal(open(dir.path(), small())).contains("an identity but no log"));
    fs::remove_dir(&log).unwrap();
    fs::rename(&aside, &log).unwrap();

    // A crash in the middle of preparing leaves no identity: it may be done again while the log is empty.
    fs::remove_file(dir.path().join("identity")).unwrap();
    prepare(dir.path(), IDENTITY).unwrap();
    assert!(open(dir.path(), small()).unwrap().pristine);
}
