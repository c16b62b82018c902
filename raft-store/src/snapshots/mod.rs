//! The snapshots of a data directory: two are kept, each verified before anything relies on it.

mod file;
pub(crate) mod format;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
pub use file::{Receiving, SnapshotFile};
pub use format::SNAPSHOT_BYTES_MAX;
use quorumgate_model::{
    mutants::{self, Mutant},
    state::State,
};

use crate::{
    LogId, SnapshotMeta,
    disk::{Disk, is_full},
    due::Due,
    health::{Health, Writer},
    wal::PurgeFloor,
};

const SUFFIX: &str = ".snap";
const ASIDE_SUFFIX: &str = ".tmp";
const DAMAGED_SUFFIX: &str = ".damaged";
const KEPT: usize = 2;
/// How often a full disk is tried again; in tests time does not wait for it.
const ROOM_POLL: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 250 });

#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub meta: SnapshotMeta,
    pub file: SnapshotFile,
}

pub(crate) struct Snapshots {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Oldest first; all of them verified.
    kept: Mutex<Vec<Kept>>,
    floor: PurgeFloor,
    health: Health,
    closing: AtomicBool,
}

impl Snapshots {
    /// Finds what is there: the newest good one and its state. Damaged ones are set aside, leftovers removed.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        floor: PurgeFloor,
        health: Health,
    ) -> Result<(Self, Option<(SnapshotMeta, State)>)> {
        let mut names = Vec::new();
        for name in disk.list(&dir)? {
            if name.ends_with(ASIDE_SUFFIX) {
                disk.remove(&dir.join(&name))?;
            } else if name.ends_with(SUFFIX) {
                names.push(name);
            }
        }
        let mut kept = Vec::new();
        let mut newest = None;
        for path in names.iter().rev().map(|name| dir.join(name)) {
            let read = match newest {
                None => format::read(&*disk, &path).map(|(meta, state)| (meta, Some(state))),
                Some(_) => format::verify(&*disk, &path).map(|meta| (meta, None)),
            };
            match read {
                Ok((meta, state)) => {
                    let length = disk.open(&path)?.length()?;
                    newest = newest.or(state.map(|state| (meta.clone(), state)));
                    kept.insert(0, Kept { meta, file: SnapshotFile { path, length } });
                }
                Err(error) => {
                    tracing::error!(snapshot = %path.display(), "set aside, since it is damaged: {error:#}");
                    disk.rename(&path, &path.with_extension(&DAMAGED_SUFFIX[1..]))?;
                }
            }
        }
        disk.sync_dir(&dir)?;
        let snapshots = Self { disk, dir, kept: Mutex::new(kept), floor, health, closing: AtomicBool::new(false) };
        snapshots.keep_two(&mut snapshots.lock())?;
        Ok((snapshots, newest))
    }

    pub fn newest(&self) -> Option<Kept> {
        self.lock().last().cloned()
    }

    /// Writes a snapshot of this frozen state. Waits while the disk is full: the log keeps what the snapshot would hold.
    pub fn build(&self, meta: SnapshotMeta, state: &State, due: &Due, written: u64) -> io::Result<Kept> {
        let at = meta.last_log_id;
        if let Some(same) = self.newest().filter(|kept| kept.meta.last_log_id == at) {
            return Ok(same);
        }
        let aside = self.dir.join(format!("build-{:016x}{ASIDE_SUFFIX}", next_index(at)));
        let length = self.when_there_is_room(|| {
            let length = format::write(&*self.disk, &aside, &meta, state);
            if length.is_err() {
                let _ = self.disk.remove(&aside);
            }
            length
        })?;
        let kept = self.adopt(&aside, at, meta, length)?;
        due.snapshot(written, length);
        Ok(kept)
    }

    /// Takes over a file that came from elsewhere, once all of it was read and checked; before that nothing changes.
    pub fn install(&self, meta: &SnapshotMeta, file: &SnapshotFile) -> Result<State> {
        let read = format::read(&*self.disk, &file.path).and_then(|(found, state)| {
            ensure!(
                found == *meta || mutants::is(Mutant::OtherSnapshotTaken),
                "the snapshot {} holds {found:?}, told was {meta:?}",
                file.path.display()
            );
            Ok((found, state))
        });
        let received = file.path.to_string_lossy().ends_with(ASIDE_SUFFIX);
        let (found, state) = read.inspect_err(|_| {
            if received {
                let _ = self.disk.remove(&file.path);
            }
        })?;
        let at = found.last_log_id;
        if file.path == self.path(at) {
            return Ok(state);
        }
        let aside = if file.path.parent() == Some(&self.dir) {
            file.path.clone()
        } else {
            let aside = self.dir.join(format!("install-{:016x}{ASIDE_SUFFIX}", next_index(at)));
            self.when_there_is_room(|| format::write(&*self.disk, &aside, &found, &state))?;
            aside
        };
        self.disk.open(&aside)?.sync()?;
        self.adopt(&aside, at, found, file.length)?;
        Ok(state)
    }

    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Gives a complete, synced file its name and checks it once more, from the medium, before an older one may go.
    fn adopt(&self, aside: &Path, at: Option<LogId>, meta: SnapshotMeta, length: u64) -> io::Result<Kept> {
        let path = self.path(at);
        if let Err(error) = format::verify(&*self.disk, aside) {
            let _ = self.disk.remove(aside);
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{error:#}")));
        }
        self.disk.rename(aside, &path)?;
        mutants::unless(Mutant::SnapshotNameUnsynced, || self.disk.sync_dir(&self.dir))?;
        let added = Kept { meta, file: SnapshotFile { path, length } };
        let mut kept = self.lock();
        // One that was being built while a newer one was installed comes late.
        kept.retain(|other| next_index(other.meta.last_log_id) != next_index(at));
        kept.push(added.clone());
        kept.sort_by_key(|kept| next_index(kept.meta.last_log_id));
        self.keep_two(&mut kept)?;
        Ok(added)
    }

    fn keep_two(&self, kept: &mut Vec<Kept>) -> io::Result<()> {
        let beyond = kept.len().saturating_sub(KEPT);
        for gone in kept.drain(..beyond) {
            self.disk.remove(&gone.file.path)?;
        }
        let older = (kept.len() == KEPT)
            .then(|| kept[usize::from(mutants::is(Mutant::NewestSnapshotAlone))].meta.last_log_id.map(|id| id.index))
            .flatten();
        self.floor.set_snapshot(older);
        Ok(())
    }

    fn path(&self, at: Option<LogId>) -> PathBuf {
        file_name(&self.dir, at)
    }

    fn when_there_is_room<T>(&self, attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
        loop {
            match attempt() {
                Err(error) if is_full(&error) && !self.closing.load(Ordering::Acquire) => {
                    self.health.disk_full(Writer::Snapshots);
                    thread::sleep(ROOM_POLL);
                }
                outcome => {
                    self.health.has_room(Writer::Snapshots);
                    return outcome;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first snapshot of a directory that goes on from another's state.
pub(crate) fn plant(disk: &dyn Disk, dir: &Path, meta: &SnapshotMeta, state: &State) -> Result<()> {
    let path = file_name(dir, meta.last_log_id);
    format::write(disk, &path, meta, state)?;
    disk.sync_dir(dir)?;
    format::verify(disk, &path)?;
    Ok(())
}

fn file_name(dir: &Path, at: Option<LogId>) -> PathBuf {
    let term = at.map_or(0, |id| id.leader_id.term);
    dir.join(format!("{:016x}-{term:016x}{SUFFIX}", next_index(at)))
}

/// Files are named by the entry that follows, since a snapshot may hold none at all.
fn next_index(at: Option<LogId>) -> u64 {
    at.map_or(0, |id| id.index + 1)
}
