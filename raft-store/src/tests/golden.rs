//! The bytes on disk, which later builds must still read. `GOLDEN=write` writes them anew, for a new format alone.

use std::{env, fs, io::Write, path::Path, sync::Arc};

use openraft::{
    EntryPayload, Membership,
    storage::{RaftLogReader, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine},
};

use super::{IDENTITY, command, log_id, memory_dir, sim_disk::SimDisk, small};
use crate::{
    Entry, RaftNode, Vote,
    disk::Disk,
    store::{open_on, prepare_on},
};

fn check(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if env::var_os("GOLDEN").is_some_and(|it| it == "write") {
        fs::File::create(&path).unwrap().write_all(bytes).unwrap();
    }
    let golden = fs::read(&path).unwrap();
    let first = golden.iter().zip(bytes).position(|(a, b)| a != b);
    assert!(golden == bytes, "{name}: {} bytes became {}, the first other one is {first:?}", golden.len(), bytes.len());
}

#[tokio::test]
async fn the_bytes_on_disk_are_those_of_format_1() {
    let (dir, disk) = (memory_dir(), SimDisk::default());
    prepare_on(&disk, dir.path(), IDENTITY, &small()).unwrap();
    let mut opened = open_on(Arc::new(disk.clone()), dir.path(), small()).unwrap();
    let node = RaftNode { name: "a".into(), address: "a.example:7000".into(), incarnation: [9; 16] };
    let membership =
        Membership::new(vec![[3].into()], [(3, node)].into_iter().collect::<std::collections::BTreeMap<_, _>>());
    let entries = [
        Entry { log_id: log_id(0, 0), payload: EntryPayload::Membership(membership.unwrap()) },
        Entry { log_id: log_id(1, 1), payload: EntryPayload::Blank },
        command(log_id(1, 2), 5),
        command(log_id(1, 3), 5),
    ];
    opened.log.save_vote(&Vote::new_committed(1, 3)).await.unwrap();
    for entry in entries {
        let (told, done) = tokio::sync::oneshot::channel();
        let append = opened.log.append_with(vec![entry.clone()], |outcome| told.send(outcome.is_ok()).unwrap());
        append.await.unwrap();
        assert_eq!(done.await, Ok(true));
        if entry.log_id.index < 3 {
            opened.machine.apply(futures_util::stream::iter([Ok((entry, None))])).await.unwrap();
        }
    }
    let built = opened.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    check("snapshot.snap", &disk.bytes(&built.snapshot.path));
    drop(opened);
    check("identity", &disk.bytes(&dir.path().join("identity")));
    check("marks", &crate::wal::marks());
    check("segment.wal", &disk.bytes(&dir.path().join("wal/0000000000000000.wal")));
}

#[tokio::test]
async fn a_directory_of_format_1_is_read() {
    let (dir, disk) = (memory_dir(), SimDisk::default());
    for (golden, name) in [
        ("identity", "identity"),
        ("segment.wal", "wal/0000000000000000.wal"),
        ("snapshot.snap", "snapshots/0000000000000003-0000000000000001.snap"),
    ] {
        let bytes = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(golden)).unwrap();
        disk.create(&dir.path().join(name)).unwrap().write_at(&bytes, 0).unwrap();
    }
    let mut opened = open_on(Arc::new(disk), dir.path(), small()).unwrap();
    assert_eq!(opened.identity, IDENTITY);
    assert_eq!(opened.log.read_vote().await.unwrap(), Some(Vote::new_committed(1, 3)));
    assert_eq!(opened.machine.applied_state().await.unwrap().0, Some(log_id(1, 2)));
    let entries = opened.log.try_get_log_entries(0..).await.unwrap();
    assert_eq!(entries[2..], [command(log_id(1, 2), 5), command(log_id(1, 3), 5)]);
}
