//! The log as callers see it: every operation counts from the moment it was queued.

use std::collections::VecDeque;

use super::view::View;
use crate::{Entry, LogId, Vote};

#[derive(Default)]
pub(crate) struct Memory {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    /// The lowest index that can be read.
    pub first: u64,
    /// The newest entries; the last of them is `last`.
    pub(super) tail: VecDeque<Tailed>,
    tail_bytes: usize,
}

pub(super) struct Tailed {
    pub entry: Entry,
    pub bytes: u32,
    /// The operation that brought it.
    ticket: u64,
}

impl Memory {
    pub(super) fn found(view: &View) -> Self {
        Self {
            vote: view.vote,
            committed: view.committed,
            purged: view.purged,
            last: view.last,
            first: view.purged.map_or(view.first, |id| id.index + 1),
            ..Self::default()
        }
    }

    pub(super) fn append(&mut self, entry: Entry, bytes: u32, ticket: u64) {
        if self.last.is_none() {
            self.first = entry.log_id.index;
        }
        self.last = Some(entry.log_id);
        self.tail_bytes += bytes as usize;
        self.tail.push_back(Tailed { entry, bytes, ticket });
    }

    pub(super) fn truncate_after(&mut self, last: Option<LogId>) {
        let next = last.map_or(0, |id| id.index + 1);
        while self.tail.back().is_some_and(|it| it.entry.log_id.index >= next) {
            self.tail_bytes -= self.tail.pop_back().map_or(0, |it| it.bytes as usize);
        }
        self.last = last;
    }

    pub(super) fn purge(&mut self, upto: LogId) {
        while self.tail.front().is_some_and(|it| it.entry.log_id.index <= upto.index) {
            self.tail_bytes -= self.tail.pop_front().map_or(0, |it| it.bytes as usize);
        }
        self.purged = self.purged.max(Some(upto));
        self.first = self.first.max(upto.index + 1);
        if self.last.is_none_or(|last| last.index < upto.index) {
            self.last = Some(upto);
        }
    }

    pub(super) fn evict(&mut self, ticket: u64, bytes_max: usize) {
        while self.tail_bytes > bytes_max && self.tail.front().is_some_and(|it| it.ticket <= ticket) {
            self.tail_bytes -= self.tail.pop_front().map_or(0, |it| it.bytes as usize);
        }
    }
}
