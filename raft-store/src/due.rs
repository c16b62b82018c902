//! When a snapshot is due: once the log since the last one outgrows it.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

pub(crate) struct Due {
    /// Bytes written to the log since it was opened, plus what lay after the last snapshot then.
    written: AtomicU64,
    /// `written` when the last snapshot was begun.
    base: AtomicU64,
    threshold: AtomicU64,
    threshold_min: u64,
    word: watch::Sender<bool>,
}

impl Due {
    pub fn new(threshold_min: u64, snapshot_bytes: u64, written: u64) -> Self {
        let due = Self {
            written: AtomicU64::new(written),
            base: AtomicU64::new(0),
            threshold: AtomicU64::new(threshold_min.max(snapshot_bytes)),
            threshold_min,
            word: watch::Sender::new(false),
        };
        due.tell();
        due
    }

    pub fn watch(&self) -> watch::Receiver<bool> {
        self.word.subscribe()
    }

    pub fn grew(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
        self.tell();
    }

    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// A snapshot of so many bytes holds all that was written when `written` had this value.
    pub fn snapshot(&self, written: u64, bytes: u64) {
        self.base.store(written, Ordering::Relaxed);
        self.threshold.store(self.threshold_min.max(bytes), Ordering::Relaxed);
        self.tell();
    }

    fn tell(&self) {
        let since = self.written().saturating_sub(self.base.load(Ordering::Relaxed));
        let due = since > self.threshold.load(Ordering::Relaxed);
        self.word.send_if_modified(|held| std::mem::replace(held, due) != due);
    }
}
