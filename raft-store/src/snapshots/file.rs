//! A snapshot as openraft moves it between nodes: a file with a length.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use super::{ASIDE_SUFFIX, format::SNAPSHOT_BYTES_MAX};

/// A snapshot on disk: what openraft moves between nodes. Received ones are complete files that were not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    pub path: PathBuf,
    pub length: u64,
}

impl SnapshotFile {
    /// Keeps its bytes readable even when a newer snapshot takes its place meanwhile.
    pub fn reader(&self) -> io::Result<File> {
        File::open(&self.path)
    }
}

/// A snapshot that is being received. Dropped unfinished, it leaves nothing behind.
pub struct Receiving {
    path: PathBuf,
    file: File,
    length: u64,
    received: u64,
    finished: bool,
}

static RECEIVED: AtomicU64 = AtomicU64::new(0);

impl Receiving {
    /// `length` is what the sender told; more than `SNAPSHOT_BYTES_MAX` is refused.
    pub fn begin(snapshots_dir: &Path, length: u64) -> io::Result<Self> {
        if length > SNAPSHOT_BYTES_MAX {
            let told = format!("a snapshot of {length} bytes, at most {SNAPSHOT_BYTES_MAX} are allowed");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, told));
        }
        let number = RECEIVED.fetch_add(1, Ordering::Relaxed);
        let path = snapshots_dir.join(format!("receive-{}-{number}{ASIDE_SUFFIX}", std::process::id()));
        let file = File::create(&path)?;
        Ok(Self { path, file, length, received: 0, finished: false })
    }

    /// Blocks on the disk.
    pub fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.received += chunk.len() as u64;
        if self.received > self.length {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a snapshot that is longer than told"));
        }
        self.file.write_all(chunk)
    }

    /// Syncs it; blocks on the disk.
    pub fn finish(mut self) -> io::Result<SnapshotFile> {
        if self.received != self.length {
            let told = format!("{} of {} bytes of a snapshot came", self.received, self.length);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, told));
        }
        self.file.sync_all()?;
        self.finished = true;
        Ok(SnapshotFile { path: self.path.clone(), length: self.length })
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_file(&self.path);
        }
    }
}
