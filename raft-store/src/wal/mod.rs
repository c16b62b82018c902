//! The write-ahead log: vote, entries and marks in one file and one queue, in the order in which they were given.
//!
//! Callers put operations into the queue and see their effect in memory at once; the flusher makes them durable.

mod floor;
mod flusher;
mod memory;
mod read;
pub(crate) mod record;
mod recover;
mod shared;
mod spares;
mod view;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, ensure};
use prost::Message;
use quorumgate_model::mutants::{self, Mutant};

pub use floor::PurgeFloor;
pub(crate) use memory::Memory;
pub use record::RECORD_BYTES_MAX;
use record::{Header, Kind};
use shared::{Op, Ops, Shared};

use crate::{
    Entry, Identity, LogId, Vote,
    disk::{self, Disk},
    due::Due,
    health::Health,
    store::DirLock,
    wire,
};

/// Entries kept in memory for followers that are close behind.
const TAIL_BYTES_MAX: usize = 32 << 20;
/// Bodies waiting for the flusher; `append` waits above it.
const QUEUE_BYTES_MAX: usize = 64 << 20;

pub(crate) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// The open log. Dropping it writes what is queued and ends its threads.
pub(crate) struct Wal {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    _lock: DirLock,
}

pub(crate) struct WalOptions {
    pub dir: PathBuf,
    pub identity: Identity,
    pub segment_bytes: u64,
}

/// Makes the first segment of an empty log.
pub(crate) fn create(disk: &dyn Disk, options: &WalOptions) -> Result<()> {
    check_segment_bytes(options.segment_bytes)?;
    let segment_bytes = options.segment_bytes as u32;
    let header = Header { identity: options.identity, segment_bytes, sequence: 0, first_index: 0 };
    let aside = options.dir.join(format!("first{}", recover::ASIDE_SUFFIX));
    let file = disk.create(&aside)?;
    spares::zero_fill(&*file, 0, options.segment_bytes)?;
    file.write_at(&header.encode(), 0)?;
    file.sync()?;
    disk.rename(&aside, &recover::segment_path(&options.dir, 0))?;
    disk.sync_dir(&options.dir)?;
    Ok(())
}

/// Whether anything but the empty first segment lies there.
pub(crate) fn has_content(disk: &dyn Disk, dir: &Path) -> Result<bool> {
    let sequences = recover::list(disk, dir)?;
    let [0] = sequences[..] else { return Ok(!sequences.is_empty()) };
    let first = disk::read_all(&*disk.open(&recover::segment_path(dir, 0))?, recover::SEGMENT_BYTES_MAX)?;
    Ok(first.get(record::HEADER_BYTES..).is_some_and(|records| records.iter().any(|byte| *byte != 0)))
}

fn check_segment_bytes(bytes: u64) -> Result<()> {
    ensure!((4 << 10..=1 << 30).contains(&bytes), "a segment of {bytes} bytes: 4 KiB to 1 GiB are allowed");
    Ok(())
}

/// The log as it was found, before its threads run.
pub(crate) struct Found {
    recovered: recover::Recovered,
    options: WalOptions,
    disk: Arc<dyn Disk>,
}

impl Found {
    pub fn recover(disk: Arc<dyn Disk>, options: WalOptions) -> Result<Self> {
        check_segment_bytes(options.segment_bytes)?;
        if mutants::is(Mutant::LostLogTakenForNew) && recover::list(&*disk, &options.dir)?.is_empty() {
            create(&*disk, &options)?;
        }
        let recovered = recover::recover(&*disk, &options.dir, options.identity)?;
        Ok(Self { recovered, options, disk })
    }

    pub fn pristine(&self) -> bool {
        self.recovered.pristine
    }

    /// Fits the log to the newest good snapshot: what was purged by a lost one counts again, where it still lies here.
    pub fn fit_to(&mut self, snapshot: Option<LogId>) -> Result<()> {
        let view = &mut self.recovered.view;
        let purged_index = view.purged.map(|id| id.index);
        if purged_index > snapshot.map(|id| id.index) {
            view.purged = snapshot;
        }
        let needed = view.purged.map_or(0, |id| id.index + 1);
        let empty = view.last.is_none_or(|last| last.index < needed);
        let covered = if view.positions.is_empty() { empty } else { view.first <= needed };
        // The first entry of a log that never was purged may have any number.
        let fresh = view.purged.is_none() && purged_index.is_none();
        ensure!(
            covered || fresh,
            "{}: the newest readable snapshot ends at {snapshot:?} and the log begins after it; {}",
            self.options.dir.display(),
            crate::identity::RECOVERY
        );
        Ok(())
    }

    pub fn bytes_after(&self, snapshot: Option<LogId>) -> u64 {
        self.recovered.view.bytes_after(snapshot.map(|id| id.index))
    }

    /// Up to where the entries were known to be committed when that was last written down.
    pub fn committed(&self) -> Option<LogId> {
        self.recovered.view.committed
    }

    /// Every entry that lies in the segments.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        read::all(&self.recovered.view)
    }

    /// The vote, and every entry that lies in the segments.
    #[cfg(test)]
    pub fn contents(&self) -> io::Result<(Option<Vote>, Vec<Entry>)> {
        let view = &self.recovered.view;
        Ok((view.vote, read::all(view)?))
    }

    /// Starts the threads.
    pub fn start(self, health: Health, floor: PurgeFloor, due: Arc<Due>, lock: DirLock) -> Result<Wal> {
        let Self { recovered, options, disk } = self;
        let segment = recovered.view.segments.back().context("a log without segments")?;
        let current = flusher::Current {
            sequence: segment.sequence,
            file: segment.file.clone(),
            salt: segment.salt,
            offset: recovered.offset,
            synced: recovered.offset,
            bytes: recovered.segment_bytes,
        };
        let shared = Arc::new(Shared::new(recovered.view, health, floor, due));
        let spares = Arc::new(spares::Spares::new(disk.clone(), options.dir.clone(), options.segment_bytes));
        let flusher = flusher::Flusher {
            shared: shared.clone(),
            spares: spares.clone(),
            disk,
            dir: options.dir,
            identity: options.identity,
            current,
        };
        let threads = vec![
            thread::Builder::new().name("wal-flush".into()).spawn(move || flusher.run())?,
            thread::Builder::new().name("wal-spares".into()).spawn(move || spares.run())?,
        ];
        Ok(Wal { shared, threads, _lock: lock })
    }
}

impl Wal {
    pub fn syncs(&self) -> Arc<crate::Syncs> {
        self.shared.syncs.clone()
    }

    /// Readable when this returns, durable when `done` is called. Waits while the queue is full.
    pub async fn append(&self, entries: Vec<Entry>, done: Done) -> io::Result<()> {
        let mut records = Vec::with_capacity(entries.len());
        for entry in &entries {
            let body = wire::entry_to(entry).encode_to_vec();
            if body.len() > RECORD_BYTES_MAX {
                return Err(io::Error::other(format!("entry {} has {} bytes", entry.log_id, body.len())));
            }
            records.push((Kind::Entry, body));
        }
        self.shared.wait_for_room().await;
        let sizes: Vec<_> = records.iter().map(|(_, body)| body.len() as u32).collect();
        self.shared.push(Op::new(records, Some(done)), |memory, ticket| {
            for (entry, bytes) in entries.into_iter().zip(sizes) {
                memory.append(entry, bytes, ticket);
            }
        })
    }

    /// Durable when `done` is called.
    pub fn save_vote(&self, vote: Vote, done: Done) -> io::Result<()> {
        let body = wire::vote_to(&vote).encode_to_vec();
        self.shared.push(Op::new(vec![(Kind::Vote, body)], Some(done)), |memory, _| memory.vote = Some(vote))
    }

    /// Rides along with the next write.
    pub fn save_committed(&self, committed: Option<LogId>) -> io::Result<()> {
        let op = Op::lazy(Kind::Committed, view::point_to(committed));
        self.shared.push(op, |memory, _| memory.committed = committed)
    }

    pub fn truncate_after(&self, last: Option<LogId>) -> io::Result<()> {
        let next = last.map_or(0, |id| id.index + 1);
        if self.memory(|memory| memory.last.map_or(0, |id| id.index + 1)) <= next {
            return Ok(());
        }
        let op = Op::new(vec![(Kind::Truncate, view::point_to(last))], None);
        self.shared.push(op, |memory, _| memory.truncate_after(last))
    }

    /// Segments go once `PurgeFloor` allows it.
    pub fn purge(&self, upto: LogId) -> io::Result<()> {
        let op = Op::new(vec![(Kind::Purge, view::point_to(Some(upto)))], None);
        self.shared.push(op, |memory, _| memory.purge(upto))
    }

    #[cfg(all(test, feature = "simulation"))]
    pub fn is_idle(&self) -> bool {
        self.shared.is_idle()
    }

    pub fn memory<T>(&self, look: impl FnOnce(&Memory) -> T) -> T {
        self.shared.memory(look)
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.shared.close();
        for thread in self.threads.drain(..) {
            // A panic there was told where it happened.
            let _ = thread.join();
        }
    }
}

/// One record of each kind that is a mark, for the golden bytes.
#[cfg(test)]
pub(crate) fn marks() -> Vec<u8> {
    let mut bytes = Vec::new();
    let at = Some(LogId { leader_id: 2.into(), index: 300 });
    for kind in [Kind::Committed, Kind::Purge, Kind::Truncate, Kind::Last] {
        record::Record::new(kind, 80, &view::point_to(at)).encode(7, &mut bytes);
        record::Record::new(kind, 80, &view::point_to(None)).encode(7, &mut bytes);
    }
    record::Record::new(Kind::Synced, 96, &[]).encode(7, &mut bytes);
    bytes
}
