//! The journal by itself: what it keeps, what it drops after a crash, and that a node lives without it.

use std::{fs, path::Path};

use quorumgate_model::state::{AuditHead, HISTORY_MAX};
use tempfile::TempDir;

use super::*;
use crate::{store::lock, tests::memory_dir};

struct Kept {
    dir: TempDir,
    floor: PurgeFloor,
    state: State,
}

impl Kept {
    fn new() -> Self {
        Self { dir: memory_dir(), floor: PurgeFloor::new(), state: State::default() }
    }

    fn open(&self, name: &str) -> Journal {
        let lock = lock(self.dir.path()).unwrap();
        Journal::open(&self.dir.path().join(name), &self.state, self.floor.clone(), lock)
    }

    /// The next link of the chain, and a revision.
    fn effects(&mut self) -> Effects {
        let (sequence, previous) = (self.state.audit.count + 1, self.state.audit.hash);
        let audit = AuditEntry {
            sequence,
            index: sequence,
            revision: sequence,
            wall_ms: 0,
            actor: Arc::default(),
            message: format!("{sequence}"),
            summary: "x".repeat(40_000),
            previous,
        };
        self.state.audit = AuditHead { count: sequence, hash: audit.hash() };
        self.state.index = sequence;
        let diff = RevisionDiff { revision: sequence, previous: sequence - 1, changes: Arc::new([]) };
        Effects { diff: Some(diff), audit: Some(audit) }
    }

    async fn record(&mut self, journal: &Journal, count: u64) {
        for _ in 0..count {
            let effects = self.effects();
            journal.gather(vec![effects]);
            journal.record(self.state.index).await;
        }
        journal.sync().await;
        assert_eq!(journal.degraded(), None);
    }

    /// What a crash leaves.
    fn copy(&self, from: &str, to: &str) {
        let to = self.dir.path().join(to);
        fs::create_dir_all(to.join("blobs")).unwrap();
        let from = self.dir.path().join(from);
        // sled never syncs what it puts there.
        assert_eq!(fs::read_dir(from.join("blobs")).unwrap().count(), 0);
        for file in fs::read_dir(from).unwrap().map(Result::unwrap) {
            if file.file_type().unwrap().is_file() {
                fs::copy(file.path(), to.join(file.file_name())).unwrap();
            }
        }
    }
}

fn sequences(journal: &Journal) -> Vec<u64> {
    journal.audit(u64::MAX, usize::MAX).iter().map(|entry| entry.sequence).collect()
}

/// Who has been told that a write was applied may ask for its entry at once.
#[tokio::test]
async fn what_was_gathered_is_read_at_once() {
    let mut it = Kept::new();
    let journal = it.open("journal");
    it.record(&journal, 1).await;
    for sequence in 2..100 {
        journal.gather(vec![it.effects()]);
        assert_eq!(sequences(&journal)[0], sequence);
        assert!(journal.revision_diff(sequence).is_some());
        if sequence % 7 == 0 {
            journal.record(sequence).await;
        }
    }
    journal.record(99).await;
    journal.sync().await;
    assert_eq!(sequences(&journal).len(), 99);
}

#[tokio::test]
async fn keeps_what_was_recorded() {
    let mut it = Kept::new();
    it.floor.set_snapshot(Some(100));
    let journal = it.open("journal");
    it.record(&journal, 5).await;
    assert_eq!(it.floor.index(), Some(5), "the log may go as far as the journal has synced");
    drop(journal);

    let journal = it.open("journal");
    assert_eq!(sequences(&journal), [5, 4, 3, 2, 1]);
    assert_eq!(journal.audit(u64::MAX, 2)[1].message, "4");
    assert_eq!(journal.audit(4, 2)[0].message, "3");
    let from = |first, limit| journal.audit_from(first, limit).iter().map(|it| it.sequence).collect::<Vec<_>>();
    assert_eq!((from(0, 2), from(4, 10), from(6, 10)), (vec![1, 2], vec![4, 5], vec![]));
    assert_eq!(journal.revision_diff(3).unwrap().previous, 2);
    assert_eq!(journal.revision_diff(6), None);
}

#[tokio::test]
async fn after_a_crash_it_keeps_what_meets_the_state() {
    let mut it = Kept::new();
    let journal = it.open("journal");
    it.record(&journal, 5).await;
    it.copy("journal", "crashed");
    it.copy("journal", "foreign");
    drop(journal);
    let journal = it.open("crashed");
    assert_eq!(sequences(&journal), [5, 4, 3, 2, 1]);
    drop(journal);

    it.state.audit.hash = Default::default();
    let journal = it.open("foreign");
    assert_eq!(sequences(&journal), [0; 0]);
    assert_eq!(journal.degraded(), None);
}

#[tokio::test]
async fn a_changed_entry_breaks_the_chain_below_it() {
    let mut it = Kept::new();
    let journal = it.open("journal");
    it.record(&journal, 5).await;
    let mut forged = journal.audit(u64::MAX, usize::MAX)[3].clone();
    assert_eq!(forged.sequence, 2);
    forged.message = "something else".into();
    journal.gather(vec![Effects { diff: None, audit: Some(forged) }]);
    journal.record(5).await;
    journal.sync().await;
    it.copy("journal", "crashed");
    drop(journal);
    assert_eq!(sequences(&it.open("crashed")), [5, 4, 3]);
}

#[tokio::test]
async fn damaged_files_are_set_aside() {
    let mut it = Kept::new();
    let journal = it.open("journal");
    it.record(&journal, 5).await;
    drop(journal);
    for file in fs::read_dir(it.dir.path().join("journal")).unwrap().map(Result::unwrap) {
        if file.file_type().unwrap().is_file() {
            let bytes = fs::read(file.path()).unwrap();
            disk_write(&file.path(), &bytes.iter().map(|byte| byte ^ 0x5a).collect::<Vec<_>>());
        }
    }
    let journal = it.open("journal");
    assert_eq!(journal.degraded(), None);
    assert_eq!(sequences(&journal), [0; 0]);
    it.record(&journal, 1).await;
    assert_eq!(sequences(&journal), [6]);
}

#[tokio::test]
async fn a_node_lives_without_it() {
    let mut it = Kept::new();
    it.floor.set_snapshot(Some(100));
    disk_write(&it.dir.path().join("file"), b"where a directory should be");
    let journal = it.open("file/journal");
    assert!(journal.degraded().unwrap().starts_with("it cannot be opened"));
    let effects = it.effects();
    journal.gather(vec![effects]);
    journal.record(1).await;
    journal.sync().await;
    assert_eq!(sequences(&journal), [0; 0]);
    assert_eq!(it.floor.index(), Some(100), "it holds nothing back");
}

#[tokio::test]
async fn it_keeps_as_many_diffs_as_the_state_remembers() {
    let it = Kept::new();
    let journal = it.open("journal");
    for revision in 1..=HISTORY_MAX as u64 + 7 {
        let diff = RevisionDiff { revision, previous: revision - 1, changes: Arc::new([]) };
        journal.gather(vec![Effects { diff: Some(diff), audit: None }]);
        journal.record(revision).await;
    }
    journal.sync().await;
    assert_eq!(journal.revision_diff(7), None);
    assert_eq!(journal.revision_diff(8).unwrap().revision, 8);
}

/// One byte of entry 17's message, in sled's own file.
fn flip(dir: &Path) {
    let file = dir.join("db");
    let bytes = fs::read(&file).unwrap();
    let word = b"the message of entry 17,";
    let places: Vec<usize> =
        bytes.windows(word.len()).enumerate().filter(|(_, it)| it == word).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "sled keeps values as they are");
    let mut changed = bytes;
    places.iter().for_each(|at| changed[at + 4] ^= 0x01);
    disk_write(&file, &changed);
}

async fn spoken(it: &mut Kept, journal: &Journal, count: u64) {
    for _ in 0..count {
        let Effects { audit, .. } = it.effects();
        let mut entry = audit.unwrap();
        entry.message = format!("the message of entry {},", entry.sequence);
        entry.summary = "upserts route/orders".into();
        it.state.audit.hash = entry.hash();
        journal.gather(vec![Effects { diff: None, audit: Some(entry) }]);
        journal.record(it.state.index).await;
    }
    journal.sync().await;
}

#[tokio::test]
async fn a_byte_changed_in_the_file_names_its_entry() {
    let mut it = Kept::new();
    let journal = it.open("journal");
    spoken(&mut it, &journal, 40).await;
    let whole = journal.check_audit(it.state.audit);
    assert_eq!((whole.checked, whole.first, whole.last, whole.flaws), (40, 1, 40, vec![]));
    it.copy("journal", "crashed");
    drop(journal);
    it.copy("journal", "closed");
    for name in ["crashed", "closed"] {
        flip(&it.dir.path().join(name));
        let journal = it.open(name);
        let flaws = journal.check_audit(it.state.audit).flaws;
        let altered: Vec<_> = flaws.iter().filter(|it| it.what == What::Altered).map(|it| it.sequence).collect();
        assert_eq!(altered, [17], "{name}: {flaws:?}");
        drop(journal);
        let again = it.open(name).check_audit(it.state.audit).flaws;
        assert!(again.iter().any(|it| it.what == What::Altered && it.sequence == 17), "{name}, again: {again:?}");
    }
}

#[tokio::test]
async fn an_entry_written_over_with_a_right_checksum_is_named() {
    let mut it = Kept::new();
    let journal = it.open("journal");
    spoken(&mut it, &journal, 5).await;
    let mut forged = journal.audit(u64::MAX, usize::MAX)[3].clone();
    forged.message = "something else".into();
    journal.gather(vec![Effects { diff: None, audit: Some(forged) }]);
    journal.record(5).await;
    journal.sync().await;
    let flaws = journal.check_audit(it.state.audit).flaws;
    assert_eq!(flaws.iter().map(|it| (it.sequence, it.what)).collect::<Vec<_>>(), [(2, What::Altered)]);
}

fn disk_write(path: &Path, bytes: &[u8]) {
    crate::disk::Disk::create(&crate::disk::RealDisk, path).unwrap().write_at(bytes, 0).unwrap();
}
