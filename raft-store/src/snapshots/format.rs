//! The bytes of a snapshot file: magic 8, format 4, meta length 4, meta; records of length 4 and bytes; length 0; the
//! number of records 8; BLAKE3 of all before it 32. Little-endian.

use std::{io, path::Path, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use quorumgate_model::{
    mutants::{self, Mutant},
    snapshot::{Rebuild, records},
    state::State,
};
use quorumgate_proto::store::v1 as store;

use crate::{
    SnapshotMeta,
    disk::{Disk, DiskFile},
    wire,
};

/// The longest snapshot that is received or read.
pub const SNAPSHOT_BYTES_MAX: u64 = 8 << 30;
/// The longest record in one.
const RECORD_BYTES_MAX: usize = 64 << 20;
const BUFFER_BYTES: usize = 1 << 20;
const MAGIC: [u8; 8] = *b"QGATESNP";
const FORMAT: u32 = 1;

/// Writes and syncs it; the length.
pub(crate) fn write(disk: &dyn Disk, path: &Path, meta: &SnapshotMeta, state: &State) -> io::Result<u64> {
    let mut sink = Sink::new(disk.create(path)?);
    let meta = wire::snapshot_meta_to(meta).encode_to_vec();
    sink.put(&MAGIC)?;
    sink.put(&FORMAT.to_le_bytes())?;
    sink.put(&(meta.len() as u32).to_le_bytes())?;
    sink.put(&meta)?;
    let mut count = 0u64;
    for record in records(state) {
        let bytes = record.encode_to_vec();
        if bytes.is_empty() || bytes.len() > RECORD_BYTES_MAX {
            return Err(io::Error::other(format!("a snapshot record of {} bytes", bytes.len())));
        }
        sink.put(&(bytes.len() as u32).to_le_bytes())?;
        sink.put(&bytes)?;
        count += 1;
    }
    sink.put(&0u32.to_le_bytes())?;
    sink.put(&count.to_le_bytes())?;
    sink.finish()
}

/// Reads all of it and checks its checksum; nothing of it counts otherwise.
pub(crate) fn read(disk: &dyn Disk, path: &Path) -> Result<(SnapshotMeta, State)> {
    let mut rebuild = Rebuild::default();
    let meta = scan(disk, path, |record| {
        let record = store::SnapshotRecord::decode(record)?;
        rebuild.push(record)?;
        Ok(())
    })?;
    let state = rebuild.finish().with_context(|| path.display().to_string())?;
    let index = meta.last_log_id.map_or(0, |id| id.index);
    ensure!(index == state.index, "{}: its state ends at {}, its head says {index}", path.display(), state.index);
    Ok((meta, state))
}

/// Reads all of it and checks its checksum alone.
pub(crate) fn verify(disk: &dyn Disk, path: &Path) -> Result<SnapshotMeta> {
    scan(disk, path, |_| Ok(()))
}

fn scan(disk: &dyn Disk, path: &Path, record: impl FnMut(&[u8]) -> Result<()>) -> Result<SnapshotMeta> {
    let scanned = disk.open(path).map_err(Into::into).and_then(|file| {
        file.forget_cached();
        Source::new(file)?.scan(record)
    });
    scanned.with_context(|| format!("the snapshot {} is not readable", path.display()))
}

struct Sink {
    file: Arc<dyn DiskFile>,
    buffer: Vec<u8>,
    written: u64,
    hasher: blake3::Hasher,
}

impl Sink {
    fn new(file: Arc<dyn DiskFile>) -> Self {
        Self { file, buffer: Vec::with_capacity(BUFFER_BYTES), written: 0, hasher: blake3::Hasher::new() }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.buffer.extend(bytes);
        if self.buffer.len() >= BUFFER_BYTES { self.write_out() } else { Ok(()) }
    }

    fn write_out(&mut self) -> io::Result<()> {
        self.file.write_at(&self.buffer, self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<u64> {
        let digest = self.hasher.finalize();
        self.buffer.extend(digest.as_bytes());
        self.write_out()?;
        mutants::unless(Mutant::SnapshotUnsynced, || self.file.sync())?;
        Ok(self.written)
    }
}

struct Source {
    file: Arc<dyn DiskFile>,
    length: u64,
    at: u64,
    buffer: Vec<u8>,
    used: usize,
    hasher: blake3::Hasher,
}

impl Source {
    fn new(file: Arc<dyn DiskFile>) -> Result<Self> {
        let length = file.length()?;
        ensure!(length <= SNAPSHOT_BYTES_MAX, "{length} bytes, at most {SNAPSHOT_BYTES_MAX} are allowed");
        Ok(Self { file, length, at: 0, buffer: Vec::new(), used: 0, hasher: blake3::Hasher::new() })
    }

    fn scan(mut self, mut record: impl FnMut(&[u8]) -> Result<()>) -> Result<SnapshotMeta> {
        ensure!(self.take(8)? == MAGIC, "it is not a snapshot");
        let format = self.take_u32()?;
        ensure!(format == FORMAT, "its format is {format}, this build reads {FORMAT}");
        let meta_bytes = self.take_u32()? as usize;
        let meta = wire::snapshot_meta_from(&store::SnapshotMeta::decode(&*self.take(meta_bytes)?)?)?;
        let mut count = 0u64;
        loop {
            let bytes = self.take_u32()? as usize;
            if bytes == 0 {
                break;
            }
            record(&self.take(bytes)?)?;
            count += 1;
        }
        let told = u64::from_le_bytes(self.take(8)?.as_slice().try_into()?);
        let digest = self.hasher.finalize();
        let matches = self.take(blake3::OUT_LEN)? == digest.as_bytes();
        ensure!(matches || mutants::is(Mutant::SnapshotUnchecked), "its checksum does not match");
        ensure!(told == count, "it holds {count} records and tells of {told}");
        ensure!(self.used == self.buffer.len() && self.at == self.length, "bytes follow its end");
        Ok(meta)
    }

    fn take_u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.as_slice().try_into()?))
    }

    /// A length that is wrong is found out before memory is taken for it.
    fn take(&mut self, bytes: usize) -> Result<Vec<u8>> {
        let left = self.length - self.at + (self.buffer.len() - self.used) as u64;
        if bytes > RECORD_BYTES_MAX || bytes as u64 > left {
            bail!("it is cut short or damaged at byte {}", self.length - left);
        }
        if self.buffer.len() - self.used < bytes {
            self.buffer.drain(..self.used);
            self.used = 0;
            let held = self.buffer.len();
            let more = (bytes - held).max(BUFFER_BYTES).min(usize::try_from(self.length - self.at)?);
            self.buffer.resize(held + more, 0);
            self.file.read_at(&mut self.buffer[held..], self.at)?;
            self.at += more as u64;
        }
        let taken = self.buffer[self.used..self.used + bytes].to_vec();
        self.used += bytes;
        self.hasher.update(&taken);
        Ok(taken)
    }
}
