//! A disk in memory that keeps apart what was written and what is durable. At a cut it loses, per sector and per name,
//! whatever was not synced; it can also run full, write a part and fail, fail a sync, take its time for one, die at a given
//! operation, or lie about syncs.
//!
//! A sync that fails leaves what it was for readable and clean, as Linux does: no later sync makes it durable, and who reads
//! it and does not write it again loses it with the power.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

use super::rng::Rng;
use crate::disk::{Disk, DiskFile};

const SECTOR: usize = 512;
/// How long a sync is held where no time goes by for it: a test that stands still fails.
const HELD_MAX: Duration = Duration::from_secs(120);

#[derive(Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    /// A sync that was held may end.
    released: Arc<Condvar>,
}

/// Names that change together.
type Change = Vec<(PathBuf, Option<usize>)>;

#[derive(Default)]
struct State {
    files: Vec<Contents>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Changes of names that no `sync_dir` has covered, in order.
    name_changes: Vec<Change>,
    operations: u64,
    dies_at: Option<u64>,
    /// The one operation that fails, though the disk goes on.
    fails_at: Option<u64>,
    /// An operation on a segment of the log has failed for good.
    log_failed: bool,
    slow: Slow,
    faults: Faults,
}

/// Syncs of the log's segments wait for so many `tick`s; 0: they do not.
#[derive(Default)]
struct Slow {
    ticks: u64,
    /// Of the sync that is held: how many more.
    left: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Creating and growing files fails for want of room.
    pub full: bool,
    /// Every sync of a file fails.
    pub sync_fails: bool,
    /// Syncs of files return Ok and do nothing.
    pub sync_lies: bool,
    /// Syncs of directories return Ok and do nothing.
    pub sync_dir_lies: bool,
}

#[derive(Default, Clone)]
struct Contents {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Writes since the last sync.
    unsynced: Vec<(usize, Vec<u8>)>,
}

struct SimFile {
    disk: SimDisk,
    number: usize,
}

impl SimDisk {
    /// Holds what the other holds, durably, and dies after so many operations.
    pub fn dying_after(other: &Self, operations: u64) -> Self {
        let disk = other.copied();
        disk.lock().dies_at = Some(operations);
        disk
    }

    /// The operation of this number fails, once; others before it have been counted already.
    pub fn fail_once(&self, operation: u64) {
        self.lock().fails_at = Some(operation);
    }

    /// What a restart finds after the process alone was killed: everything that was written, synced or not.
    pub fn after_kill(&self) -> Self {
        let state = self.lock();
        Self::holding(State {
            files: state.files.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            name_changes: state.name_changes.clone(),
            ..State::default()
        })
    }

    /// It works again, with what was written and with what of it is durable.
    pub fn revive(&self) {
        let mut state = self.lock();
        (state.dies_at, state.fails_at) = (None, None);
    }

    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// What a restart finds after the power went: everything synced, and of the rest whatever chance kept.
    pub fn after_power_cut(&self, rng: &mut Rng) -> Self {
        let state = self.lock();
        let files = state.files.iter().map(|contents| contents.after_power_cut(rng)).collect();
        let mut names = state.durable_names.clone();
        for change in &state.name_changes {
            if rng.chance(2) {
                change.iter().for_each(|(path, number)| set_name(&mut names, path, *number));
            }
        }
        Self::holding(State { files, names: names.clone(), durable_names: names, ..State::default() })
    }

    /// A copy on which everything is durable, with one change to a file.
    pub fn altered(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let copy = self.copied();
        let mut state = copy.lock();
        let number = state.names[path];
        change(&mut state.files[number].now);
        state.files[number].durable = state.files[number].now.clone();
        drop(state);
        copy
    }

    /// What a restart finds after a kill, without any segment of the log.
    pub fn without_log(&self) -> Self {
        let disk = self.after_kill();
        let mut state = disk.lock();
        let State { names, durable_names, name_changes, .. } = &mut *state;
        let is_log = |path: &Path| path.extension().is_some_and(|it| it == "wal");
        names.retain(|path, _| !is_log(path));
        durable_names.retain(|path, _| !is_log(path));
        name_changes.clear();
        drop(state);
        disk
    }

    fn copied(&self) -> Self {
        let state = self.lock();
        let files = state.files.iter().map(|it| Contents::whole(it.now.clone())).collect();
        let (names, durable_names) = (state.names.clone(), state.names.clone());
        Self::holding(State { files, names, durable_names, ..State::default() })
    }

    fn holding(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)), released: Arc::default() }
    }

    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        let state = self.lock();
        state.files[state.names[path]].now.clone()
    }

    pub fn paths(&self) -> Vec<PathBuf> {
        self.lock().names.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn step(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        match state.count()? {
            Went::Well => Ok(state),
            Went::Wrong => Err(failure()),
        }
    }

    fn file(&self, number: usize) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.clone(), number })
    }
}

/// What whole clusters in virtual time need beyond that.
#[cfg(feature = "simulation")]
impl SimDisk {
    /// The power goes now: nothing more is done on it, and a restart finds the disk that this returns.
    pub fn cut(&self, rng: &mut Rng) -> Self {
        self.die();
        self.after_power_cut(rng)
    }

    /// The process is killed now.
    pub fn kill(&self) -> Self {
        self.die();
        self.after_kill()
    }

    /// Whoever waits for it hears that it is gone.
    pub fn die(&self) {
        let mut state = self.lock();
        state.dies_at = Some(0);
        state.slow = Slow::default();
        self.released.notify_all();
    }

    /// From here on a sync of the log takes so many ticks.
    pub fn slow_down(&self, ticks: u64) {
        self.lock().slow.ticks = ticks;
    }

    /// Time goes by for a sync that is under way.
    pub fn tick(&self) {
        let mut state = self.lock();
        state.slow.left = state.slow.left.and_then(|left| left.checked_sub(1));
        if state.slow.left.is_none() {
            self.released.notify_all();
        }
    }

    /// Nothing happens on it before more time goes by: a sync is under way, or there is no room.
    pub fn is_waiting(&self) -> bool {
        let state = self.lock();
        state.slow.left.is_some() || state.faults.full
    }

    /// Whoever writes the log was told that it failed, and not for want of room.
    pub fn log_has_failed(&self) -> bool {
        self.lock().log_failed
    }

    /// One of the next operations fails, once.
    pub fn fail_soon(&self, within: u64) {
        let mut state = self.lock();
        state.fails_at = Some(state.operations + within);
    }

    /// The bytes of a file, if it is there.
    pub fn find(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.lock();
        state.names.get(path).map(|number| state.files[*number].now.clone())
    }
}

/// Of an operation on a disk that lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Went {
    Well,
    Wrong,
}

fn failure() -> io::Error {
    io::Error::other("an operation failed")
}

impl State {
    /// One more operation.
    fn count(&mut self) -> io::Result<Went> {
        self.operations += 1;
        if self.dies_at.is_some_and(|at| self.operations > at) {
            return Err(io::Error::other("the power is gone"));
        }
        Ok(if self.fails_at == Some(self.operations) { Went::Wrong } else { Went::Well })
    }

    fn is_segment(&self, number: usize) -> bool {
        let is_log = |path: &PathBuf| path.extension().is_some_and(|it| it == "wal");
        self.names.iter().any(|(path, held)| *held == number && is_log(path))
    }

    fn failed(&mut self, number: usize) -> io::Error {
        self.log_failed |= self.is_segment(number);
        failure()
    }

    fn change_names(&mut self, change: Change) {
        change.iter().for_each(|(path, number)| set_name(&mut self.names, path, *number));
        self.name_changes.push(change);
    }
}

fn set_name(names: &mut BTreeMap<PathBuf, usize>, path: &Path, number: Option<usize>) {
    match number {
        Some(number) => names.insert(path.to_owned(), number),
        None => names.remove(path),
    };
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.step()?;
        if state.faults.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let number = state.files.len();
        state.files.push(Contents::default());
        state.change_names(vec![(path.to_owned(), Some(number))]);
        Ok(self.file(number))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.step()?;
        let number = state.names.get(path).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(number))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        let number = state.names.get(from).copied().ok_or(io::ErrorKind::NotFound)?;
        state.change_names(vec![(from.to_owned(), None), (to.to_owned(), Some(number))]);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        state.change_names(vec![(path.to_owned(), None)]);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        if state.faults.sync_dir_lies {
            return Ok(());
        }
        let state = &mut *state;
        let inside = |change: &Change| change.iter().all(|(path, _)| path.parent() == Some(dir));
        let (covered, left): (Vec<_>, Vec<_>) = std::mem::take(&mut state.name_changes).into_iter().partition(inside);
        state.name_changes = left;
        for (path, number) in covered.concat() {
            set_name(&mut state.durable_names, &path, number);
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.step()?;
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }
}

impl DiskFile for SimFile {
    /// One that fails has written a part.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        let went = state.count()?;
        let offset = offset as usize;
        let length = state.files[self.number].now.len();
        let room = if state.faults.full { length.saturating_sub(offset) } else { bytes.len() };
        let part = if went == Went::Wrong { bytes.len() / 2 } else { bytes.len() }.min(room);
        let contents = &mut state.files[self.number];
        put(&mut contents.now, offset, &bytes[..part]);
        contents.unsynced.push((offset, bytes[..part].to_vec()));
        match went {
            Went::Wrong => Err(state.failed(self.number)),
            Went::Well if part < bytes.len() => Err(io::ErrorKind::StorageFull.into()),
            Went::Well => Ok(()),
        }
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.step()?;
        let offset = offset as usize;
        let now = &state.files[self.number].now;
        bytes.copy_from_slice(now.get(offset..offset + bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        let went = state.count()?;
        if state.slow.ticks > 0 && state.is_segment(self.number) {
            state.slow.left = Some(state.slow.ticks);
            while state.slow.left.is_some() {
                let (held, waited) = self.disk.released.wait_timeout(state, HELD_MAX).unwrap();
                state = held;
                if waited.timed_out() && state.slow.left.take().is_some() {
                    return Err(io::Error::other("nobody lets time go by for a sync that is held"));
                }
            }
            if state.dies_at == Some(0) {
                return Err(io::Error::other("the power is gone"));
            }
        }
        if state.faults.sync_fails || went == Went::Wrong {
            state.files[self.number].unsynced.clear();
            return Err(state.failed(self.number));
        }
        if state.faults.sync_lies {
            return Ok(());
        }
        let contents = &mut state.files[self.number];
        for (offset, bytes) in std::mem::take(&mut contents.unsynced) {
            put(&mut contents.durable, offset, &bytes);
        }
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.step()?.files[self.number].now.len() as u64)
    }

    fn forget_cached(&self) {
        let mut state = self.disk.lock();
        let contents = &mut state.files[self.number];
        contents.now = contents.durable.clone();
        for (offset, bytes) in &contents.unsynced {
            put(&mut contents.now, *offset, bytes);
        }
    }
}

impl Contents {
    fn whole(bytes: Vec<u8>) -> Self {
        Self { now: bytes.clone(), durable: bytes, unsynced: Vec::new() }
    }

    fn after_power_cut(&self, rng: &mut Rng) -> Self {
        let mut survived = self.durable.clone();
        for (offset, bytes) in &self.unsynced {
            // Whole writes lost, whole writes kept, or each sector by chance.
            let fate = rng.below(3);
            let mut at = 0;
            while at < bytes.len() {
                let end = bytes.len().min((offset + at) / SECTOR * SECTOR + SECTOR - offset);
                if fate == 1 || fate == 2 && rng.chance(2) {
                    put(&mut survived, offset + at, &bytes[at..end]);
                }
                at = end;
            }
        }
        Self::whole(survived)
    }
}

fn put(into: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if into.len() < offset + bytes.len() {
        into.resize(offset + bytes.len(), 0);
    }
    into[offset..offset + bytes.len()].copy_from_slice(bytes);
}
