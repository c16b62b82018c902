//! The one thread that writes to the journal. It gathers in memory and writes in one go, followed at once by a sync:
//! what sled has written and not synced is what a power cut breaks it by.

use std::{
    collections::BTreeMap,
    fs::File,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;
use quorumgate_model::state::{AuditEntry, Effects, RevisionDiff};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout_at,
};

use super::{
    Trouble,
    books::{Books, guarded},
    meta::Meta,
};
use crate::wal::PurgeFloor;

/// What was gathered is written at least so often; the log holds it meanwhile.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Records gathered before they are written at once.
const GATHERED_MAX: usize = 4096;

pub(super) enum Item {
    /// What was gathered so far is all up to this index, at least.
    Recorded(u64),
    Diff(RevisionDiff),
    Sync(oneshot::Sender<()>),
}

/// What is gathered and not yet written, for readers.
#[derive(Clone, Default)]
pub(super) struct Gathered {
    records: Arc<Mutex<Records>>,
}

#[derive(Clone, Default)]
pub(super) struct Records {
    pub audit: BTreeMap<u64, AuditEntry>,
    pub diffs: BTreeMap<u64, RevisionDiff>,
}

impl Records {
    fn is_empty(&self) -> bool {
        self.audit.is_empty() && self.diffs.is_empty()
    }
}

impl Gathered {
    pub fn add(&self, effects: Vec<Effects>) {
        let mut records = self.lock();
        for Effects { diff, audit } in effects {
            records.diffs.extend(diff.map(|diff| (diff.revision, diff)));
            records.audit.extend(audit.map(|entry| (entry.sequence, entry)));
        }
    }

    fn remove(&self, written: &Records) {
        let mut records = self.lock();
        records.audit.retain(|sequence, _| !written.audit.contains_key(sequence));
        records.diffs.retain(|revision, _| !written.diffs.contains_key(revision));
    }

    pub fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Writer {
    pub books: Books,
    pub file: File,
    pub meta: Meta,
    pub queue: mpsc::Receiver<Item>,
    pub gathered: Gathered,
    pub floor: PurgeFloor,
    pub trouble: Trouble,
}

impl Writer {
    /// Ends when the journal is dropped, or cannot be written.
    pub fn run(mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let outcome = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(self.write_all()));
        let closed = outcome.and_then(|()| {
            self.meta.clean = true;
            self.sync()
        });
        if let Err(error) = closed {
            self.trouble.degrade(format!("it cannot be written: {error:#}"));
        }
    }

    async fn write_all(&mut self) -> Result<()> {
        let mut since: Option<Instant> = None;
        loop {
            let item = match since {
                None => self.queue.recv().await,
                Some(first) => match timeout_at((first + SYNC_EVERY).into(), self.queue.recv()).await {
                    Ok(item) => item,
                    Err(_due) => {
                        self.sync()?;
                        since = None;
                        continue;
                    }
                },
            };
            let Some(item) = item else { return Ok(()) };
            let full = match item {
                Item::Sync(told) => {
                    self.sync()?;
                    since = None;
                    // Nobody waits any more: fine.
                    let _ = told.send(());
                    continue;
                }
                item => self.gather(item),
            };
            if full {
                self.sync()?;
                since = None;
            } else if self.gathered.lock().is_empty() {
                // Entries without effects need no write.
                self.floor.set_journal(Some(self.meta.synced_index));
            } else {
                since = since.or(Some(Instant::now()));
            }
        }
    }

    /// Whether there is enough to be written.
    fn gather(&mut self, item: Item) -> bool {
        let mut records = self.gathered.lock();
        match item {
            Item::Recorded(index) => self.meta.synced_index = self.meta.synced_index.max(index),
            Item::Diff(diff) => drop(records.diffs.insert(diff.revision, diff)),
            Item::Sync(_) => {}
        }
        records.audit.len() + records.diffs.len() >= GATHERED_MAX
    }

    fn sync(&mut self) -> Result<()> {
        let records = self.gathered.lock().clone();
        guarded(|| {
            self.books.write(&records, &mut self.meta)?;
            self.books.trim(&mut self.meta)?;
            self.books.sync(self.meta, &self.file)
        })?;
        // Readers find all of it in the books now.
        self.gathered.remove(&records);
        self.floor.set_journal(Some(self.meta.synced_index));
        Ok(())
    }
}
