//! The one thread that writes to the journal.

use std::{
    fs::File,
    time::{Duration, Instant},
};

use anyhow::Result;
use quorumgate_model::state::{Effects, RevisionDiff};
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

/// What was written is synced at least so often; the log holds it meanwhile.
const SYNC_EVERY: Duration = Duration::from_secs(1);

pub(super) enum Item {
    Record { index: u64, effects: Vec<Effects> },
    Diff(RevisionDiff),
    Sync(oneshot::Sender<()>),
}

pub(super) struct Writer {
    pub books: Books,
    pub file: File,
    pub meta: Meta,
    pub queue: mpsc::Receiver<Item>,
    pub floor: PurgeFloor,
    pub trouble: Trouble,
}

impl Writer {
    /// Ends when the journal is dropped, or cannot be written.
    pub fn run(mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let outcome = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(self.write_all()));
        let closed = outcome.and_then(|()| guarded(|| self.books.sync(Meta { clean: true, ..self.meta }, &self.file)));
        if let Err(error) = closed {
            self.trouble.degrade(format!("it cannot be written: {error:#}"));
        }
    }

    async fn write_all(&mut self) -> Result<()> {
        let mut unsynced: Option<Instant> = None;
        loop {
            let item = match unsynced {
                None => self.queue.recv().await,
                Some(since) => match timeout_at((since + SYNC_EVERY).into(), self.queue.recv()).await {
                    Ok(item) => item,
                    Err(_due) => {
                        self.sync()?;
                        unsynced = None;
                        continue;
                    }
                },
            };
            let Some(item) = item else { return Ok(()) };
            match item {
                Item::Sync(told) => {
                    self.sync()?;
                    unsynced = None;
                    // Nobody waits any more: fine.
                    let _ = told.send(());
                }
                item => {
                    guarded(|| write(&self.books, &mut self.meta, item))?;
                    unsynced = unsynced.or(Some(Instant::now()));
                }
            }
        }
    }

    fn sync(&mut self) -> Result<()> {
        guarded(|| {
            self.books.trim(&mut self.meta)?;
            self.books.sync(self.meta, &self.file)
        })?;
        self.floor.set_journal(Some(self.meta.synced_index));
        Ok(())
    }
}

fn write(books: &Books, meta: &mut Meta, item: Item) -> Result<()> {
    match item {
        Item::Record { index, effects } => {
            for effects in &effects {
                books.record(effects, meta)?;
            }
            meta.synced_index = meta.synced_index.max(index);
            Ok(())
        }
        Item::Diff(diff) => books.put_diff(&diff),
        Item::Sync(_) => Ok(()),
    }
}
