//! What the segments hold, as their records say in order. Recovery fills it and the flusher keeps it.

use std::{collections::VecDeque, path::PathBuf, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use quorumgate_model::mutants::{self, Mutant};
use quorumgate_proto::store::v1 as store;

use super::record::{Kind, framed_bytes};
use crate::{LogId, Vote, disk::DiskFile, wire};

/// Where an entry's record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub segment: u64,
    pub offset: u32,
    pub body_bytes: u32,
}

pub(super) struct Segment {
    pub sequence: u64,
    pub path: PathBuf,
    pub file: Arc<dyn DiskFile>,
    pub salt: u32,
    /// The highest index of any entry in it, truncated ones included.
    pub index_max: Option<u64>,
}

/// The log as it lies on disk. Purging is a mark alone: positions go when their segment goes.
#[derive(Default)]
pub(super) struct View {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    /// The index of the first position.
    pub first: u64,
    pub positions: VecDeque<Position>,
    /// Oldest first; the last one is written to.
    pub segments: VecDeque<Segment>,
}

/// Reads an entry's log id and leaves the rest alone: what the entry means matters only once it is applied.
#[derive(Clone, PartialEq, Message)]
struct EntryHead {
    #[prost(message, optional, tag = "1")]
    log_id: Option<store::LogId>,
}

impl View {
    /// Takes in one record, in order of writing.
    pub fn replay(&mut self, kind: Kind, position: Position, body: &[u8]) -> Result<()> {
        match kind {
            Kind::Entry => {
                let head = EntryHead::decode(body)?;
                let log_id = head.log_id.context("an entry without its log id")?;
                self.entry(wire::log_id_from(&log_id), position)?;
            }
            Kind::Vote if self.vote.is_some() && mutants::is(Mutant::StaleVote) => {}
            Kind::Vote => self.vote = Some(wire::vote_from(&store::Vote::decode(body)?)?),
            Kind::Committed => self.committed = point_from(body)?,
            Kind::Purge => self.purge(point_from(body)?.context("a purge up to nothing")?),
            Kind::Truncate => self.truncate(point_from(body)?)?,
            Kind::Synced => {}
            Kind::Last => self.continue_from(point_from(body)?)?,
        }
        Ok(())
    }

    /// The index that the next entry must have; None when any will do.
    pub fn next_index(&self) -> Option<u64> {
        self.last.map(|last| last.index + 1)
    }

    pub fn entry(&mut self, log_id: LogId, position: Position) -> Result<()> {
        if let Some(next) = self.next_index() {
            ensure!(log_id.index == next, "entry {log_id} where {next} must follow");
        }
        if self.positions.is_empty() {
            self.first = log_id.index;
        }
        self.positions.push_back(position);
        self.last = Some(log_id);
        if let Some(segment) = self.segments.back_mut() {
            segment.index_max = segment.index_max.max(Some(log_id.index));
        }
        Ok(())
    }

    /// Only the oldest segment of a purged log tells something new by this; in all others it must agree.
    fn continue_from(&mut self, last: Option<LogId>) -> Result<()> {
        let oldest = self.segments.len() == 1 && self.positions.is_empty() && self.last.is_none();
        ensure!(oldest || last == self.last, "it continues after {last:?}, the log ended at {:?}", self.last);
        self.last = last;
        Ok(())
    }

    fn purge(&mut self, upto: LogId) {
        self.purged = self.purged.max(Some(upto));
        if self.last.is_none_or(|last| last.index < upto.index) {
            // A snapshot took the log's place: what lies before it does not connect with what will follow.
            self.positions.clear();
            self.last = Some(upto);
        }
    }

    fn truncate(&mut self, after: Option<LogId>) -> Result<()> {
        let next = after.map_or(0, |id| id.index + 1);
        if next > self.next_index().unwrap_or(0) {
            bail!("truncated after {after:?}, beyond the last entry {:?}", self.last);
        }
        let kept = usize::try_from(next.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.positions.truncate(if mutants::is(Mutant::TruncatedComesBack) { usize::MAX } else { kept });
        self.last = after;
        Ok(())
    }

    pub fn position(&self, index: u64) -> Option<Position> {
        self.positions.get(usize::try_from(index.checked_sub(self.first)?).ok()?).copied()
    }

    pub fn segment(&self, sequence: u64) -> Option<&Segment> {
        let oldest = self.segments.front()?.sequence;
        self.segments.get(usize::try_from(sequence.checked_sub(oldest)?).ok()?)
    }

    /// Takes out the oldest segment if nothing in it is above `index` and it is not the one being written.
    pub fn take_oldest(&mut self, index: u64) -> Option<Segment> {
        let oldest = self.segments.front()?;
        if self.segments.len() < 2 || oldest.index_max.is_some_and(|max| max > index) {
            return None;
        }
        let gone = self.segments.pop_front()?;
        while self.positions.front().is_some_and(|position| position.segment <= gone.sequence) {
            self.positions.pop_front();
            self.first += 1;
        }
        Some(gone)
    }

    /// Framed bytes of the entries after `index`.
    pub fn bytes_after(&self, index: Option<u64>) -> u64 {
        let skip = index.map_or(0, |index| (index + 1).saturating_sub(self.first));
        let after = self.positions.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX));
        after.map(|position| framed_bytes(position.body_bytes as usize) as u64).sum()
    }

    /// The records that a new segment begins with, so that no older one is needed for them.
    pub fn head_records(&self) -> Vec<(Kind, Vec<u8>)> {
        let vote = self.vote.as_ref().map(|vote| (Kind::Vote, wire::vote_to(vote).encode_to_vec()));
        let last = Some((Kind::Last, point_to(self.last)));
        let purged = self.purged.map(|id| (Kind::Purge, point_to(Some(id))));
        let committed = self.committed.map(|id| (Kind::Committed, point_to(Some(id))));
        [vote, last, purged, committed].into_iter().flatten().collect()
    }
}

pub(super) fn point_to(at: Option<LogId>) -> Vec<u8> {
    store::LogPoint { at: at.as_ref().map(wire::log_id_to) }.encode_to_vec()
}

fn point_from(body: &[u8]) -> Result<Option<LogId>> {
    Ok(store::LogPoint::decode(body)?.at.as_ref().map(wire::log_id_from))
}
