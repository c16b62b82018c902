//! What callers, readers and the flusher share: the log in memory, its positions on disk, and the queue between.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quorumgate_model::mutants::{self, Mutant};
use tokio::sync::Notify;

use super::{
    Done, QUEUE_BYTES_MAX, TAIL_BYTES_MAX,
    floor::PurgeFloor,
    memory::Memory,
    record::Kind,
    view::{Position, Segment, View},
};
use crate::{Syncs, due::Due, health::Health};

/// How long a lazy record waits for another write to ride along with.
const LAZY_WAIT: Duration = Duration::from_millis(50);

pub(super) struct Op {
    pub ticket: u64,
    pub records: Vec<(Kind, Vec<u8>)>,
    pub needs_sync: bool,
    pub done: Option<Done>,
}

impl Op {
    pub fn new(records: Vec<(Kind, Vec<u8>)>, done: Option<Done>) -> Self {
        Self { ticket: 0, records, needs_sync: true, done }
    }

    /// Neither synced by itself nor waited for.
    pub fn lazy(kind: Kind, body: Vec<u8>) -> Self {
        Self { ticket: 0, records: vec![(kind, body)], needs_sync: false, done: None }
    }

    fn is_lazy(&self) -> bool {
        !self.needs_sync
    }
}

/// What the flusher took in one go.
pub(super) struct Ops {
    pub list: Vec<Op>,
}

pub(super) struct Shared {
    inner: Mutex<Inner>,
    /// There is something to write, or the log is closing.
    work: Condvar,
    /// The queue was taken.
    room: Notify,
    pub health: Health,
    floor: PurgeFloor,
    due: Arc<Due>,
    pub syncs: Arc<Syncs>,
}

struct Inner {
    memory: Memory,
    view: View,
    queue: Vec<Op>,
    queue_bytes: usize,
    next_ticket: u64,
    closing: bool,
    /// What was taken from the queue is not written yet.
    writing: bool,
    failed: Option<String>,
}

impl Shared {
    pub fn new(view: View, health: Health, floor: PurgeFloor, due: Arc<Due>) -> Self {
        let memory = Memory::found(&view);
        let inner = Inner {
            memory,
            view,
            queue: Vec::new(),
            queue_bytes: 0,
            next_ticket: 1,
            closing: false,
            writing: false,
            failed: None,
        };
        Self {
            inner: Mutex::new(inner),
            work: Condvar::new(),
            room: Notify::new(),
            health,
            floor,
            due,
            syncs: Arc::default(),
        }
    }

    pub fn memory<T>(&self, look: impl FnOnce(&Memory) -> T) -> T {
        look(&self.lock().memory)
    }

    pub(super) fn memory_and_view<T>(&self, look: impl FnOnce(&Memory, &View) -> T) -> T {
        let inner = self.lock();
        look(&inner.memory, &inner.view)
    }

    /// Queues an operation and lets it count in memory, both or neither.
    pub fn push(&self, mut op: Op, change: impl FnOnce(&mut Memory, u64)) -> io::Result<()> {
        let mut inner = self.lock();
        if let Some(why) = &inner.failed {
            return Err(io::Error::other(why.clone()));
        }
        op.ticket = inner.next_ticket;
        inner.next_ticket += 1;
        change(&mut inner.memory, op.ticket);
        inner.queue_bytes += op.records.iter().map(|(_, body)| body.len()).sum::<usize>();
        let wakes = op.needs_sync || inner.queue.is_empty();
        match inner.queue.last_mut() {
            // Only the newest of several matters.
            Some(last) if last.is_lazy() && op.is_lazy() => *last = op,
            _ => inner.queue.push(op),
        }
        drop(inner);
        if wakes {
            self.work.notify_one();
        }
        Ok(())
    }

    pub async fn wait_for_room(&self) {
        loop {
            let taken = self.room.notified();
            tokio::pin!(taken);
            taken.as_mut().enable();
            if self.lock().queue_bytes < QUEUE_BYTES_MAX {
                return;
            }
            taken.await;
        }
    }

    /// Everything that is queued; None once the log is closed and the queue is empty.
    pub fn next_ops(&self) -> Option<Ops> {
        let mut inner = self.lock();
        inner.writing = false;
        while inner.queue.is_empty() && !inner.closing {
            inner = self.work.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        if !inner.closing && inner.queue.iter().all(Op::is_lazy) {
            inner = self.work.wait_timeout(inner, LAZY_WAIT).unwrap_or_else(PoisonError::into_inner).0;
        }
        let list = std::mem::take(&mut inner.queue);
        inner.queue_bytes = 0;
        inner.writing = true;
        drop(inner);
        self.room.notify_waiters();
        (!list.is_empty()).then_some(Ops { list })
    }

    pub fn has_ops(&self) -> bool {
        !self.lock().queue.is_empty()
    }

    /// All that anybody waits for is written, or never will be.
    #[cfg(all(test, feature = "simulation"))]
    pub fn is_idle(&self) -> bool {
        let inner = self.lock();
        inner.failed.is_some() || !inner.writing && inner.queue.iter().all(Op::is_lazy)
    }

    pub fn is_closing(&self) -> bool {
        self.lock().closing
    }

    pub fn close(&self) {
        self.lock().closing = true;
        self.work.notify_all();
    }

    /// Waits, at most so long, unless the log is closing.
    pub fn pause(&self, time: Duration) {
        let inner = self.lock();
        if !inner.closing {
            drop(self.work.wait_timeout(inner, time).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Written: the view takes it in.
    pub fn replay(&self, records: Vec<(Kind, Position, Vec<u8>)>) -> io::Result<()> {
        let mut inner = self.lock();
        for (kind, position, body) in records {
            let taken = inner.view.replay(kind, position, &body);
            taken.map_err(|error| io::Error::other(format!("the log was given out of order: {error:#}")))?;
        }
        Ok(())
    }

    /// Every operation up to this one is durable: its entries may leave memory.
    pub fn settled(&self, ticket: u64) {
        self.lock().memory.evict(ticket, TAIL_BYTES_MAX);
    }

    pub fn grew(&self, bytes: u64) {
        self.due.grew(bytes);
    }

    /// The records and the first index that a new segment begins with.
    pub fn head(&self) -> (Vec<(Kind, Vec<u8>)>, u64) {
        let inner = self.lock();
        (inner.view.head_records(), inner.view.next_index().unwrap_or(0))
    }

    pub fn began(&self, segment: Segment) {
        self.lock().view.segments.push_back(segment);
    }

    /// The oldest segment, if all of it is purged and may go.
    pub fn take_purged(&self) -> Option<Segment> {
        let mut inner = self.lock();
        let purged = inner.view.purged?.index;
        let floor = self.floor.index()?;
        inner.view.take_oldest(if mutants::is(Mutant::PurgedPastSnapshot) { purged } else { purged.min(floor) })
    }

    /// Nothing is written any more; everything queued and to come fails.
    pub fn fail(&self, error: &io::Error) {
        let why = format!("the log cannot be written: {error}");
        tracing::error!(%error, "the log cannot be written any more");
        let mut inner = self.lock();
        inner.failed = Some(why.clone());
        let mut left = Ops { list: std::mem::take(&mut inner.queue) };
        inner.queue_bytes = 0;
        drop(inner);
        self.room.notify_waiters();
        left.answer_all(Err(error));
        self.health.fsync_failed(why);
    }

    /// An entry that lies here damaged, or that this build does not know, can never be applied.
    pub fn unreadable(&self, error: &io::Error) {
        tracing::error!(%error, "the log cannot be read");
        self.health.apply_stopped(error.to_string());
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
