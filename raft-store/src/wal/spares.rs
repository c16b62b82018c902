//! Zero-filled segments made ahead of need by a thread of their own, from purged segments where there are some, so that
//! the flusher neither waits for allocation nor meets a full disk in the middle of a write.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use super::recover::ASIDE_SUFFIX;
use crate::disk::{Disk, DiskFile};

const ZEROS: usize = 1 << 20;

pub(super) struct Spare {
    pub path: PathBuf,
    pub file: Arc<dyn DiskFile>,
    pub bytes: u64,
}

pub(super) struct Spares {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    ready: Option<Spare>,
    recycled: Option<(PathBuf, Arc<dyn DiskFile>)>,
    failed: Option<io::Error>,
    made: u64,
    stopping: bool,
}

impl Spares {
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, segment_bytes: u64) -> Self {
        Self { disk, dir, segment_bytes, state: Mutex::default(), changed: Condvar::new() }
    }

    /// A segment of at least `bytes`. A failure is told once; the next call tries again.
    pub fn take(&self, bytes: u64) -> io::Result<Spare> {
        let mut state = self.lock();
        loop {
            if let Some(spare) = state.ready.take() {
                self.changed.notify_all();
                drop(state);
                return self.grown(spare, bytes);
            }
            if let Some(error) = state.failed.take() {
                self.changed.notify_all();
                return Err(error);
            }
            if state.stopping {
                return Err(io::Error::other("the log is being closed"));
            }
            state = self.wait(state);
        }
    }

    /// Offers a purged segment's file for another life. Its name must be gone from the directory, durably, before its
    /// bytes go. True when it was taken.
    pub fn recycle(&self, path: PathBuf, file: Arc<dyn DiskFile>) -> bool {
        let mut state = self.lock();
        if state.recycled.is_some() {
            return false;
        }
        state.recycled = Some((path, file));
        self.changed.notify_all();
        true
    }

    pub fn next_path(&self) -> PathBuf {
        let mut state = self.lock();
        state.made += 1;
        self.dir.join(format!("spare-{}{ASIDE_SUFFIX}", state.made))
    }

    pub fn stop(&self) {
        self.lock().stopping = true;
        self.changed.notify_all();
    }

    /// The body of the thread.
    pub fn run(&self) {
        loop {
            let mut state = self.lock();
            while !state.stopping && (state.ready.is_some() || state.failed.is_some()) {
                state = self.wait(state);
            }
            if state.stopping {
                return;
            }
            let recycled = state.recycled.take();
            drop(state);
            let made = self.make(recycled);
            let mut state = self.lock();
            match made {
                Ok(spare) => state.ready = Some(spare),
                Err(error) => state.failed = Some(error),
            }
            self.changed.notify_all();
        }
    }

    fn make(&self, recycled: Option<(PathBuf, Arc<dyn DiskFile>)>) -> io::Result<Spare> {
        let (path, file) = match recycled {
            Some(recycled) => recycled,
            None => {
                let path = self.next_path();
                let file = self.disk.create(&path)?;
                (path, file)
            }
        };
        let bytes = self.segment_bytes.max(file.length()?);
        let filled = zero_fill(&*file, 0, bytes).and_then(|()| file.sync());
        if let Err(error) = filled {
            let _ = self.disk.remove(&path);
            return Err(error);
        }
        Ok(Spare { path, file, bytes })
    }

    fn grown(&self, mut spare: Spare, bytes: u64) -> io::Result<Spare> {
        if spare.bytes < bytes {
            let filled = zero_fill(&*spare.file, spare.bytes, bytes).and_then(|()| spare.file.sync());
            if let Err(error) = filled {
                let _ = self.disk.remove(&spare.path);
                return Err(error);
            }
            spare.bytes = bytes;
        }
        Ok(spare)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'g>(&self, state: MutexGuard<'g, State>) -> MutexGuard<'g, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn zero_fill(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS];
    let mut at = from;
    while at < to {
        let bytes = (to - at).min(ZEROS as u64);
        file.write_at(&zeros[..bytes as usize], at)?;
        at += bytes;
    }
    Ok(())
}
