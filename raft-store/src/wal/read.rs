//! Reading entries: from memory where they are, else from the segments, without holding up the writer.

use std::{io, ops::Range, sync::Arc};

use prost::Message;
use quorumgate_proto::store::v1 as store;

use super::{
    Wal,
    record::{Record, framed_bytes},
    view::Position,
};
use crate::{Entry, disk::DiskFile, wire};

/// Neighbouring records are read together up to this size.
const RUN_BYTES_MAX: usize = 1 << 20;

/// Records that lie side by side in one segment.
struct Run {
    file: Arc<dyn DiskFile>,
    salt: u32,
    offset: u64,
    bytes: usize,
    first: u64,
}

/// What was in memory, and where the rest lies.
struct Found {
    runs: Vec<Run>,
    tail: Vec<Entry>,
}

impl Wal {
    /// The entries of this range that the log holds, the first always and then no more than `bytes_max`.
    pub async fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let Found { runs, tail } = self.find(range, bytes_max)?;
        if runs.is_empty() {
            return Ok(tail);
        }
        let shared = self.shared.clone();
        let read = move || {
            let mut entries = Vec::new();
            for run in runs {
                run.read(&mut entries).inspect_err(|error| shared.unreadable(error))?;
            }
            Ok::<_, io::Error>(entries)
        };
        let mut entries = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
        entries.extend(tail);
        Ok(entries)
    }

    fn find(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Found> {
        self.shared.memory_and_view(|memory, view| {
            let mut found = Found { runs: Vec::new(), tail: Vec::new() };
            let Some(last) = memory.last else { return Ok(found) };
            let tail_first = last.index + 1 - memory.tail.len() as u64;
            let end = range.end.min(last.index + 1);
            let mut bytes = 0;
            let mut fits = |more: u32| {
                let first = bytes == 0;
                bytes += more as usize;
                first || bytes <= bytes_max
            };
            let mut index = range.start.max(memory.first);
            while index < end.min(tail_first) {
                let lost = || io::Error::other(format!("entry {index} is neither in memory nor in a segment"));
                let position = view.position(index).ok_or_else(lost)?;
                if !fits(position.body_bytes) {
                    return Ok(found);
                }
                if !found.runs.last_mut().is_some_and(|run| run.take(position, view)) {
                    let segment = view.segment(position.segment).ok_or_else(lost)?;
                    found.runs.push(Run::new(segment.file.clone(), segment.salt, index, position));
                }
                index += 1;
            }
            let skip = index.saturating_sub(tail_first) as usize;
            let count = end.saturating_sub(index) as usize;
            let tail = memory.tail.iter().skip(skip).take(count).take_while(|it| fits(it.bytes));
            found.tail = tail.map(|it| it.entry.clone()).collect();
            Ok(found)
        })
    }
}

impl Run {
    fn new(file: Arc<dyn DiskFile>, salt: u32, first: u64, position: Position) -> Self {
        let bytes = framed_bytes(position.body_bytes as usize);
        Self { file, salt, offset: u64::from(position.offset), bytes, first }
    }

    /// Whether the record at this position joins the run.
    fn take(&mut self, position: Position, view: &super::view::View) -> bool {
        let bytes = framed_bytes(position.body_bytes as usize);
        let same = view.segment(position.segment).is_some_and(|segment| Arc::ptr_eq(&segment.file, &self.file));
        let joins = same
            && u64::from(position.offset) == self.offset + self.bytes as u64
            && self.bytes + bytes <= RUN_BYTES_MAX;
        if joins {
            self.bytes += bytes;
        }
        joins
    }

    fn read(&self, into: &mut Vec<Entry>) -> io::Result<()> {
        let mut bytes = vec![0; self.bytes];
        self.file.read_at(&mut bytes, self.offset)?;
        let mut at = 0;
        let mut index = self.first;
        while at < bytes.len() {
            let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, format!("entry {index}: {what}"));
            let record = Record::decode(&bytes[at..], self.salt).ok_or_else(|| bad("its checksum fails".into()))?;
            let message = store::RaftEntry::decode(record.body).map_err(|error| bad(error.to_string()))?;
            let entry = wire::entry_from(message).map_err(|error| bad(format!("{error:#}")))?;
            if entry.log_id.index != index {
                return Err(bad(format!("{} lies in its place", entry.log_id)));
            }
            into.push(entry);
            at += record.framed_bytes();
            index += 1;
        }
        Ok(())
    }
}

pub(super) fn all(view: &super::view::View) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for (index, position) in (view.first..).zip(&view.positions) {
        let lost = || io::Error::other(format!("entry {index} lies in no segment"));
        let segment = view.segment(position.segment).ok_or_else(lost)?;
        Run::new(segment.file.clone(), segment.salt, index, *position).read(&mut entries)?;
    }
    Ok(entries)
}
