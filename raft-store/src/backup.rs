//! A backup: one state, and the newest of its history, in one file that says of itself whether it is whole.
//!
//! Bytes: magic 8, format 4, head length 4, head; records of length 4 and bytes; length 0; the number of records 8;
//! BLAKE3 of all before it 32. Little-endian. Readers get the state only once the checksum was found good.

use std::{
    io::{self, Read, Write},
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use quorumgate_model::{
    convert,
    snapshot::{Rebuild, records},
    state::{AuditEntry, RevisionDiff, State},
};
use quorumgate_proto::store::v1::{self as store, backup_record::Record};

use crate::Journal;

/// The longest record in one.
const RECORD_BYTES_MAX: usize = 64 << 20;
const HEAD_BYTES_MAX: usize = 64 << 10;
const MAGIC: [u8; 8] = *b"QGATEBAK";
const FORMAT: u32 = 1;
/// So many of the newest audit entries go along.
pub const AUDIT_MAX: usize = 10_000;

pub use store::BackupHead;

/// What a node's journal adds to its state: the newest audit entries, and what old revisions changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Past {
    /// Newest first.
    pub audit: Vec<AuditEntry>,
    pub diffs: Vec<RevisionDiff>,
}

impl Past {
    /// What the journal holds of this state's past. Blocks on the disk.
    pub fn of(journal: &Journal, state: &State) -> Self {
        let audit = journal.audit(state.audit.count + 1, AUDIT_MAX);
        let diffs = state.history.iter().filter_map(|facts| journal.revision_diff(facts.revision)).collect();
        Self { audit, diffs }
    }
}

/// All of a backup, checked.
#[derive(Debug)]
pub struct Backup {
    pub head: BackupHead,
    pub state: State,
    pub past: Past,
    pub records: u64,
    pub bytes: u64,
}

/// What comes before the head: a file's own words.
pub fn preamble(head: &BackupHead) -> Vec<u8> {
    let head = head.encode_to_vec();
    let mut bytes = MAGIC.to_vec();
    bytes.extend(FORMAT.to_le_bytes());
    bytes.extend((head.len() as u32).to_le_bytes());
    bytes.extend(head);
    bytes
}

/// The records, their end and their number; what calls it writes the checksum.
pub fn write_records(state: &State, past: &Past, sink: &mut impl Write) -> io::Result<()> {
    let audit = past.audit.iter().map(|it| Record::Audit(convert::audit_to(it)));
    let diffs = past.diffs.iter().map(|it| Record::Diff(convert::diff_to(it)));
    let mut count = 0u64;
    for record in records(state).map(Record::State).chain(audit).chain(diffs) {
        let bytes = store::BackupRecord { record: Some(record) }.encode_to_vec();
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(io::Error::other(format!("a backup's record of {} bytes", bytes.len())));
        }
        sink.write_all(&(bytes.len() as u32).to_le_bytes())?;
        sink.write_all(&bytes)?;
        count += 1;
    }
    sink.write_all(&0u32.to_le_bytes())?;
    sink.write_all(&count.to_le_bytes())
}

/// Reads all of it and checks its checksum, its state and what the head says of that.
pub fn read(path: &Path) -> Result<Backup> {
    let shown = path.display();
    let file = std::fs::File::open(path).with_context(|| format!("{shown} cannot be opened"))?;
    let backup = Source { from: io::BufReader::new(file), hasher: blake3::Hasher::new(), at: 0 }.read();
    backup.with_context(|| format!("{shown} is not a good backup"))
}

struct Source<R> {
    from: R,
    hasher: blake3::Hasher,
    at: u64,
}

impl<R: Read> Source<R> {
    fn read(mut self) -> Result<Backup> {
        ensure!(self.take(8)? == MAGIC, "it is not a backup");
        let format = self.number()?;
        ensure!(format == FORMAT, "its format is {format}, this build reads {FORMAT}");
        let head_bytes = self.number()? as usize;
        ensure!(head_bytes <= HEAD_BYTES_MAX, "its head has {head_bytes} bytes, at most {HEAD_BYTES_MAX} are allowed");
        let head = BackupHead::decode(&*self.take(head_bytes)?)?;
        let mut rebuild = Rebuild::default();
        let mut past = Past::default();
        let mut records = 0u64;
        loop {
            let bytes = self.number()? as usize;
            if bytes == 0 {
                break;
            }
            ensure!(bytes <= RECORD_BYTES_MAX, "it is damaged before byte {}", self.at);
            let at = self.at;
            let place = || format!("the record at byte {at}");
            match store::BackupRecord::decode(&*self.take(bytes)?).with_context(place)?.record {
                Some(Record::State(record)) => rebuild.push(record).with_context(place)?,
                Some(Record::Audit(entry)) => past.audit.push(convert::audit_from(entry).with_context(place)?),
                Some(Record::Diff(diff)) => past.diffs.push(convert::diff_from(diff).with_context(place)?),
                None => bail!("{} is of a kind that a newer build wrote", place()),
            }
            records += 1;
        }
        let told = u64::from_le_bytes(self.take(8)?.as_slice().try_into()?);
        let digest = self.hasher.finalize();
        ensure!(self.take(blake3::OUT_LEN)? == digest.as_bytes(), "its checksum does not match");
        ensure!(told == records, "it holds {records} records and tells of {told}");
        ensure!(self.from.read(&mut [0])? == 0, "bytes follow its end");
        let state = rebuild.finish()?;
        ensure!(state.index == head.index, "its state ends at {}, its head says {}", state.index, head.index);
        ensure!(state.hash().0.as_slice() == head.state_hash, "its state has another hash than its head says");
        Ok(Backup { head, state, past, records, bytes: self.at })
    }

    fn number(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.as_slice().try_into()?))
    }

    /// Memory is taken as bytes come: a wrong length finds the file's end.
    fn take(&mut self, bytes: usize) -> Result<Vec<u8>> {
        let mut taken = Vec::new();
        (&mut self.from).take(bytes as u64).read_to_end(&mut taken)?;
        ensure!(taken.len() == bytes, "it is cut short at byte {}", self.at + taken.len() as u64);
        self.hasher.update(&taken);
        self.at += bytes as u64;
        Ok(taken)
    }
}
