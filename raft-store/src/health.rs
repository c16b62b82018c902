//! One word for the store's health, from the several threads that learn of trouble.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::StoreHealth;

/// Who ran out of room: each takes back only its own word.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Writer {
    Wal,
    Snapshots,
}

#[derive(Default)]
struct Troubles {
    full: [bool; 2],
    fsync: Option<String>,
    apply: Option<String>,
}

#[derive(Clone)]
pub(crate) struct Health {
    troubles: Arc<Mutex<Troubles>>,
    word: watch::Sender<StoreHealth>,
}

impl Health {
    pub fn new() -> Self {
        Self { troubles: Arc::default(), word: watch::Sender::new(StoreHealth::Good) }
    }

    pub fn watch(&self) -> watch::Receiver<StoreHealth> {
        self.word.subscribe()
    }

    pub fn disk_full(&self, writer: Writer) {
        self.change(|troubles| troubles.full[writer as usize] = true);
    }

    pub fn has_room(&self, writer: Writer) {
        self.change(|troubles| troubles.full[writer as usize] = false);
    }

    /// Final: only a restart helps.
    pub fn fsync_failed(&self, why: String) {
        self.change(|troubles| {
            troubles.fsync.get_or_insert(why);
        });
    }

    /// Final: this build cannot go on with this log.
    pub fn apply_stopped(&self, why: String) {
        self.change(|troubles| {
            troubles.apply.get_or_insert(why);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Troubles)) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut troubles);
        let word = troubles.word();
        self.word.send_if_modified(|held| {
            let differs = *held != word;
            *held = word;
            differs
        });
    }
}

impl Troubles {
    /// The worst first: what needs an exit, then what needs another build, then what needs room.
    fn word(&self) -> StoreHealth {
        if let Some(why) = &self.fsync {
            StoreHealth::FsyncFailed(why.clone())
        } else if let Some(why) = &self.apply {
            StoreHealth::ApplyStopped(why.clone())
        } else if self.full.contains(&true) {
            StoreHealth::DiskFull
        } else {
            StoreHealth::Good
        }
    }
}
