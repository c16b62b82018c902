//! sled as the node's journal: audit entries and the diffs of revisions, rebuilt from elsewhere when lost.
//!
//! Nothing waits for it: what it has not synced, replaying the log after the last snapshot writes again.

mod books;
mod check;
mod meta;
mod raw;
mod shelf;
mod writer;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Result;
use books::{Books, file_of, guarded, set_aside};
pub use check::{Checked, Flaw, What};
use meta::Meta;
use quorumgate_model::state::{AuditEntry, Effects, RevisionDiff, State};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use writer::{Gathered, Item, Records, Writer};

use crate::{backup::Past, store::DirLock, wal::PurgeFloor};

/// Batches of applied entries that wait to be written.
const QUEUE_MAX: usize = 1024;
/// How long apply or a snapshot waits for the journal before it goes on without.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Cheap to clone. Reads block on disk: call them off the async threads.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    books: Option<Books>,
    items: Option<mpsc::Sender<Item>>,
    thread: Option<JoinHandle<()>>,
    gathered: Gathered,
    trouble: Trouble,
    _lock: DirLock,
}

/// Why the journal cannot be relied on; the first reason stays.
#[derive(Clone)]
struct Trouble {
    why: Arc<Mutex<Option<String>>>,
    floor: PurgeFloor,
}

impl Trouble {
    fn degrade(&self, why: String) {
        let mut held = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            tracing::error!(why, "the journal is degraded: audit entries and old revisions are not kept here");
            *held = Some(why);
        }
        self.floor.forget_journal();
    }

    fn why(&self) -> Option<String> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Journal {
    /// Never fails: a node without its journal still serves.
    pub(crate) fn open(dir: &Path, state: &State, floor: PurgeFloor, lock: DirLock) -> Self {
        let trouble = Trouble { why: Arc::default(), floor: floor.clone() };
        let mut inner = Inner {
            dir: dir.to_owned(),
            books: None,
            items: None,
            thread: None,
            gathered: Gathered::default(),
            trouble,
            _lock: lock,
        };
        if let Err(error) = inner.start(dir, state, floor) {
            inner.trouble.degrade(format!("it cannot be opened: {error:#}"));
        }
        Self { inner: Arc::new(inner) }
    }

    /// Effects of applied entries, which readers find from here on: they are gathered before anybody learns of the state
    /// that they led to. `record` follows, which bounds them.
    pub(crate) fn gather(&self, effects: Vec<Effects>) {
        if self.usable().is_some() {
            self.inner.gathered.add(effects);
        }
    }

    /// Everything up to this index was gathered.
    pub(crate) async fn record(&self, index: u64) {
        self.send(Item::Recorded(index)).await;
    }

    /// Returns once everything recorded before is durable, or the journal is degraded.
    pub(crate) async fn sync(&self) {
        let (told, synced) = oneshot::channel();
        self.send(Item::Sync(told)).await;
        // An error means the writer is gone, and it said why.
        if let Err(_late) = timeout(WAIT_MAX, synced).await {
            self.inner.trouble.degrade(format!("a sync took longer than {WAIT_MAX:?}"));
        }
    }

    /// None when this node does not hold it (compacted, lost, or before it joined).
    pub fn revision_diff(&self, revision: u64) -> Option<RevisionDiff> {
        let gathered = self.inner.gathered.lock().diffs.get(&revision).cloned();
        gathered.or_else(|| self.read(|books| books.diff(revision)).flatten())
    }

    /// A diff fetched from a peer, checked by the caller against the state's history.
    pub fn store_diff(&self, diff: &RevisionDiff) {
        if let Some(items) = self.usable() {
            // With a full queue it is not kept, and fetched again when next asked for.
            let _ = items.try_send(Item::Diff(diff.clone()));
        }
    }

    /// Newest first, below that sequence number.
    pub fn audit(&self, before: u64, limit: usize) -> Vec<AuditEntry> {
        let mut entries = self.inner.gathered.lock().audit.clone();
        entries.retain(|sequence, _| *sequence < before);
        let written = self.read(|books| {
            let sequences = books.audit.numbers_below(before).take(limit);
            sequences.map(|sequence| books.entry(sequence?)).filter_map(Result::transpose).collect::<Result<Vec<_>>>()
        });
        entries.extend(written.unwrap_or_default().into_iter().map(|entry| (entry.sequence, entry)));
        entries.into_values().rev().take(limit).collect()
    }

    /// Oldest first, from that sequence number on.
    pub fn audit_from(&self, first: u64, limit: usize) -> Vec<AuditEntry> {
        // The gathered ones are read first: what is written meanwhile is found in the books.
        let mut entries = self.inner.gathered.lock().audit.clone();
        entries.retain(|sequence, _| *sequence >= first);
        let written = self.read(|books| {
            let sequences = books.audit.numbers_from(first).take(limit);
            sequences.map(|sequence| books.entry(sequence?)).filter_map(Result::transpose).collect::<Result<Vec<_>>>()
        });
        entries.extend(written.unwrap_or_default().into_iter().map(|entry| (entry.sequence, entry)));
        entries.into_values().take(limit).collect()
    }

    /// The reason why the journal cannot be trusted or written, if any.
    pub fn degraded(&self) -> Option<String> {
        self.inner.trouble.why()
    }

    fn usable(&self) -> Option<&mpsc::Sender<Item>> {
        self.inner.items.as_ref().filter(|_| self.inner.trouble.why().is_none())
    }

    async fn send(&self, item: Item) {
        let Some(items) = self.usable() else { return };
        match timeout(WAIT_MAX, items.send(item)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => self.inner.trouble.degrade("its writer has ended".into()),
            Err(_late) => self.inner.trouble.degrade(format!("it took nothing for {WAIT_MAX:?}")),
        }
    }

    fn read<T>(&self, look: impl FnOnce(&Books) -> Result<T>) -> Option<T> {
        let books = self.inner.books.as_ref()?;
        let found = guarded(|| look(books));
        if let Err(error) = &found {
            tracing::warn!("the journal cannot be read: {error:#}");
        }
        found.ok()
    }
}

impl Inner {
    fn start(&mut self, dir: &Path, state: &State, floor: PurgeFloor) -> Result<()> {
        let scan = raw::scan(dir);
        let opened = checked(dir, state);
        let was_closed = opened.as_ref().is_ok_and(|(.., was_closed)| *was_closed);
        raw::note(dir, scan.altered(was_closed, state.audit.count));
        let (books, file, meta, _) = opened.or_else(|error| {
            tracing::warn!("the journal cannot be opened and is set aside: {error:#}");
            set_aside(dir)?;
            checked(dir, state)
        })?;
        floor.set_journal(Some(meta.synced_index.max(state.index)));
        let (items, queue) = mpsc::channel(QUEUE_MAX);
        let writer = Writer {
            books: books.clone(),
            file,
            meta,
            queue,
            gathered: self.gathered.clone(),
            floor,
            trouble: self.trouble.clone(),
        };
        self.thread = Some(thread::Builder::new().name("journal".into()).spawn(move || writer.run())?);
        self.items = Some(items);
        self.books = Some(books);
        Ok(())
    }
}

/// A journal with this past, as one that was closed in good order.
pub(crate) fn plant(dir: &Path, synced_index: u64, past: Past) -> Result<()> {
    fs::create_dir_all(dir)?;
    let books = Books::open(dir)?;
    let file = file_of(dir)?;
    guarded(|| {
        let mut meta = Meta { synced_index, clean: true, ..Meta::default() };
        let audit = past.audit.into_iter().map(|entry| (entry.sequence, entry)).collect();
        let diffs = past.diffs.into_iter().map(|diff| (diff.revision, diff)).collect();
        books.write(&Records { audit, diffs }, &mut meta)?;
        books.trim(&mut meta)?;
        books.sync(meta, &file)
    })
}

/// Opened, and either closed in good order before, which is told, or checked against the state.
fn checked(dir: &Path, state: &State) -> Result<(Books, File, Meta, bool)> {
    fs::create_dir_all(dir)?;
    let books = Books::open(dir)?;
    let file = file_of(dir)?;
    let (meta, was_closed) = guarded(|| {
        let found = books.meta();
        let meta = if found.clean { found } else { Meta { synced_index: state.index, ..books.verify(state)? } };
        // From now on an end that is not in good order is one after which nothing is trusted.
        let meta = Meta { clean: false, ..meta };
        books.sync(meta, &file)?;
        Ok((meta, found.clean))
    })?;
    Ok((books, file, meta, was_closed))
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.items = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was told where it happened.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
