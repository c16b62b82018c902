//! The only place that spawns: every long-lived task has a name, and one that ends unexpectedly ends the process.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Owns every control task; a clone is a handle to the same set.
#[derive(Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    ended: mpsc::UnboundedSender<Ended>,
}

/// A task that ended although nobody had asked it to.
#[derive(Debug)]
pub struct Ended {
    pub name: Arc<str>,
    pub why: String,
}

impl Tasks {
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Ended>) {
        let (ended, endings) = mpsc::unbounded_channel();
        (Self { tracker: TaskTracker::new(), stop: CancellationToken::new(), ended }, endings)
    }

    /// Cancelled once, at shutdown.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// A task that lives until `stop`: its end or panic before that is reported as `Ended`.
    pub fn start<F>(&self, name: &str, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let name: Arc<str> = name.into();
        let ended = self.ended.clone();
        let stop = self.stop.clone();
        #[expect(clippy::disallowed_methods, reason = "the one place")]
        let running = tokio::spawn(task);
        self.tracker.spawn(async move {
            let why = match running.await {
                Ok(Ok(())) => "it returned".to_owned(),
                Ok(Err(error)) => format!("{error:#}"),
                Err(panic) => format!("it panicked: {panic}"),
            };
            if !stop.is_cancelled() {
                // The receiver is gone only while the process is ending.
                let _ = ended.send(Ended { name, why });
            }
        });
    }

    /// A task that may end whenever it is done: one connection, one call.
    pub fn detach<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(task);
    }

    /// Asks every task to stop and waits for them, at most `patience`; false when some had to be left.
    pub async fn shut_down(&self, patience: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(patience, self.tracker.wait()).await.is_ok()
    }
}
