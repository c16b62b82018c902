//! The write-ahead log behind openraft's log traits. Clones are readers of the same log.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, Range, RangeBounds},
    sync::Arc,
};

use futures_util::{Stream, StreamExt, stream};
use openraft::{
    OptionalSend,
    storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage},
};
use quorumgate_model::mutants::{self, Mutant};
use tokio::sync::oneshot;

use crate::{Entry, LogId, Syncs, TypeConfig, Vote, wal::Wal};

/// What one read for a follower holds at most, in bytes of entries; one entry is always read.
const READ_BYTES_MAX: usize = 4 << 20;
/// How many entries are read at a time to be applied.
const APPLY_CHUNK: u64 = 1024;

#[derive(Clone)]
pub struct LogStore {
    pub(crate) wal: Arc<Wal>,
}

impl LogStore {
    pub(crate) fn new(wal: Arc<Wal>) -> Self {
        Self { wal }
    }

    /// What the log's syncs took.
    pub fn syncs(&self) -> Arc<Syncs> {
        self.wal.syncs()
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        self.wal.read(range_of(&range), usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.wal.read(start..end, READ_BYTES_MAX).await
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let wal = self.wal.clone();
        let last = wal.memory(|memory| memory.last.map_or(0, |id| id.index + 1));
        let Range { start, end } = range_of(&range);
        let chunks = stream::unfold((wal, start, end.min(last)), |(wal, start, end)| async move {
            if start >= end {
                return None;
            }
            let read = wal.read(start..end.min(start + APPLY_CHUNK), READ_BYTES_MAX).await;
            let next = match &read {
                Ok(entries) => entries.last().map_or(end, |entry| entry.log_id.index + 1),
                Err(_) => end,
            };
            let entries = read.map_or_else(|error| vec![Err(error)], |entries| entries.into_iter().map(Ok).collect());
            Some((stream::iter(entries), (wal, next, end)))
        });
        chunks.flatten()
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.wal.memory(|memory| memory.vote))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        Ok(self.wal.memory(|memory| LogState { last_purged_log_id: memory.purged, last_log_id: memory.last }))
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (told, durable) = oneshot::channel();
        self.wal.save_vote(*vote, Box::new(|outcome| drop(told.send(outcome))))?;
        if mutants::is(Mutant::VoteBeforeSync) {
            return Ok(());
        }
        durable.await.map_err(|_| io::Error::other("the log was closed before the vote was durable"))?
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.wal.save_committed(committed)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.wal.memory(|memory| memory.committed))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().collect();
        self.wal.append(entries, Box::new(|outcome| callback.io_completed(outcome))).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        self.wal.truncate_after(last_log_id)
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        self.wal.purge(log_id)
    }
}

fn range_of(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(index) => index + 1,
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}
