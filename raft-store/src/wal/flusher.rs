//! The one thread that writes to the log: takes everything that is queued, writes it, syncs once, and answers.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use quorumgate_model::mutants::{self, Mutant};

use super::{
    Op, Ops, Shared,
    record::{FRAME_BYTES, HEADER_BYTES, Header, Kind, Record, framed_bytes},
    recover::segment_path,
    spares::{Spare, Spares},
    view::{Position, Segment},
};
use crate::{
    Identity,
    disk::{self, Disk, DiskFile},
    health::Writer,
};

/// How often a full disk is tried again; in tests time does not wait for it.
const ROOM_POLL: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 250 });

pub(super) struct Flusher {
    pub shared: Arc<Shared>,
    pub spares: Arc<Spares>,
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub identity: Identity,
    pub current: Current,
}

/// The segment that is written to.
pub(super) struct Current {
    pub sequence: u64,
    pub file: Arc<dyn DiskFile>,
    pub salt: u32,
    pub offset: u32,
    /// Everything before this offset is durable.
    pub synced: u32,
    pub bytes: u32,
}

/// What is framed but not yet written, and what the view learns once it is.
#[derive(Default)]
struct Pending {
    framed: Vec<u8>,
    records: Vec<(Kind, Position, Vec<u8>)>,
    needs_sync: bool,
}

impl Flusher {
    /// The body of the thread; ends when the log is closed and everything queued was written, or a sync failed.
    pub fn run(mut self) {
        let (shared, spares) = (self.shared.clone(), self.spares.clone());
        let ended = catch_unwind(AssertUnwindSafe(|| {
            while let Some(ops) = self.shared.next_ops() {
                self.write(ops)?;
            }
            Ok(())
        }));
        if let Err(error) = ended.unwrap_or_else(|_| Err(io::Error::other("the thread that writes it panicked"))) {
            shared.fail(&error);
        }
        spares.stop();
    }

    fn write(&mut self, mut ops: Ops) -> io::Result<()> {
        let outcome = self.write_all(&mut ops);
        if let Err(error) = &outcome {
            ops.answer_all(Err(error));
        }
        outcome
    }

    fn write_all(&mut self, ops: &mut Ops) -> io::Result<()> {
        let mut pending = Pending::default();
        let mut written = 0;
        for at in 0..ops.list.len() {
            let records = std::mem::take(&mut ops.list[at].records);
            let needs_sync = ops.list[at].needs_sync;
            for (kind, body) in records {
                if !self.fits(&pending, body.len()) {
                    pending.needs_sync = true;
                    self.flush(&mut pending)?;
                    self.roll(body.len())?;
                }
                self.frame(&mut pending, kind, body);
                // After a roll too: an operation may lie in two segments, and each must be synced.
                pending.needs_sync |= needs_sync;
            }
            written = ops.list[at].ticket;
        }
        let synced = pending.needs_sync;
        self.flush(&mut pending)?;
        if synced {
            self.mark_synced()?;
        }
        self.shared.settled(written);
        ops.answer_all(Ok(()));
        self.remove_purged()
    }

    fn fits(&self, pending: &Pending, body_bytes: usize) -> bool {
        let end = self.current.offset as usize + pending.framed.len() + framed_bytes(body_bytes);
        end <= self.current.bytes as usize
    }

    fn frame(&self, pending: &mut Pending, kind: Kind, body: Vec<u8>) {
        let offset = self.current.offset + pending.framed.len() as u32;
        let position = Position { segment: self.current.sequence, offset, body_bytes: body.len() as u32 };
        Record::new(kind, self.current.synced, &body).encode(self.current.salt, &mut pending.framed);
        pending.records.push((kind, position, body));
    }

    fn flush(&mut self, pending: &mut Pending) -> io::Result<()> {
        let Pending { framed, records, needs_sync } = std::mem::take(pending);
        if !framed.is_empty() {
            mutants::unless(Mutant::ShortWritePassed, || self.write_out(&framed))?;
            self.current.offset += framed.len() as u32;
            self.shared.grew(framed.len() as u64);
        }
        if needs_sync && !mutants::is(Mutant::LogSyncSkipped) {
            let started = Instant::now();
            let mut synced = self.current.file.sync();
            if mutants::is(Mutant::FailedSyncRetried) && synced.is_err() {
                synced = self.current.file.sync();
            }
            mutants::unless(Mutant::FailedSyncPassed, || synced)?;
            self.shared.syncs.observe(started.elapsed());
            self.current.synced = self.current.offset;
        }
        self.shared.replay(records)
    }

    /// Where segments are filled ahead this never runs out of room; where it does, nothing of it counts until all of it
    /// is written, and writing the same bytes again is harmless.
    fn write_out(&self, framed: &[u8]) -> io::Result<()> {
        self.when_there_is_room(|| self.current.file.write_at(framed, u64::from(self.current.offset)))
    }

    /// Written and not synced: if it survives, a broken byte before it is known to be damage.
    fn mark_synced(&mut self) -> io::Result<()> {
        if self.shared.has_ops() || (self.current.offset as usize) + FRAME_BYTES > self.current.bytes as usize {
            return Ok(());
        }
        let mut framed = Vec::with_capacity(FRAME_BYTES);
        Record::new(Kind::Synced, self.current.synced, &[]).encode(self.current.salt, &mut framed);
        self.write_out(&framed)?;
        self.current.offset += framed.len() as u32;
        Ok(())
    }

    /// Goes on in a new segment. The old one is synced by now; the new one gets its name only when it is complete.
    fn roll(&mut self, body_bytes: usize) -> io::Result<()> {
        let (heads, first_index) = self.shared.head();
        let head_bytes: usize = heads.iter().map(|(_, body)| framed_bytes(body.len())).sum();
        let bytes_min = HEADER_BYTES + head_bytes + framed_bytes(body_bytes);
        let Spare { path: aside, file, bytes } = self.when_there_is_room(|| self.spares.take(bytes_min as u64))?;

        let sequence = self.current.sequence + 1;
        let header = Header { identity: self.identity, segment_bytes: bytes as u32, sequence, first_index };
        let salt = header.salt();
        let mut framed = header.encode();
        for (kind, body) in heads {
            Record::new(kind, 0, &body).encode(salt, &mut framed);
        }
        self.when_there_is_room(|| file.write_at(&framed, 0))?;
        mutants::unless(Mutant::SegmentHeadUnsynced, || file.sync())?;
        let path = segment_path(&self.dir, sequence);
        self.when_there_is_room(|| self.disk.rename(&aside, &path))?;
        mutants::unless(Mutant::SegmentNameUnsynced, || self.disk.sync_dir(&self.dir))?;

        let offset = framed.len() as u32;
        self.current = Current { sequence, file: file.clone(), salt, offset, synced: offset, bytes: bytes as u32 };
        self.shared.began(Segment { sequence, path, file, salt, index_max: None });
        Ok(())
    }

    /// The purge record is durable and a snapshot stands for what goes: oldest first, each name durably gone before the
    /// next, so that no crash leaves a hole.
    fn remove_purged(&mut self) -> io::Result<()> {
        while let Some(segment) = self.shared.take_purged() {
            let Segment { path, mut file, .. } = segment;
            let unread = Arc::get_mut(&mut file).is_some();
            let aside = self.spares.next_path();
            self.disk.rename(&path, &aside)?;
            mutants::unless(Mutant::PurgedNameUnsynced, || self.disk.sync_dir(&self.dir))?;
            // A reader that still holds it must not see it change.
            if !unread || !self.spares.recycle(aside.clone(), file) {
                self.disk.remove(&aside)?;
            }
        }
        Ok(())
    }

    fn when_there_is_room<T>(&self, attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let mut waited = false;
        loop {
            match attempt() {
                Err(error) if disk::is_full(&error) && !self.shared.is_closing() => {
                    if !waited {
                        tracing::error!(%error, "the log has no room: nothing is acknowledged until there is");
                    }
                    waited = true;
                    self.shared.health.disk_full(Writer::Wal);
                    self.shared.pause(ROOM_POLL);
                }
                outcome => {
                    if waited && outcome.is_ok() {
                        tracing::info!("the log has room again");
                        self.shared.health.has_room(Writer::Wal);
                    }
                    return outcome;
                }
            }
        }
    }
}

impl Op {
    fn answer(&mut self, outcome: Result<(), &io::Error>) {
        if let Some(done) = self.done.take() {
            done(outcome.map_err(|error| io::Error::new(error.kind(), error.to_string())));
        }
    }
}

impl Ops {
    pub fn answer_all(&mut self, outcome: Result<(), &io::Error>) {
        for op in &mut self.list {
            op.answer(outcome);
        }
    }
}
