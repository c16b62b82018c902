//! What writes a node's own chains (`denials`, `access`): opens one, counts up what came within a minute, and writes what
//! waits. A disk that cannot be written is told once, and ends nothing: each minute it is tried again.

use std::time::Duration;

use anyhow::Context;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

const MINUTE: Duration = Duration::from_secs(60);

pub trait OwnTrail: Send + Sync + 'static {
    /// The chain, and what goes with it.
    type Pen: Send + 'static;
    type Batch: Send + 'static;
    /// What is written, for the log.
    const WHAT: &str;
    /// How long what was noted may wait for the disk.
    const WRITE_EVERY: Duration;

    /// Blocks on the disk when it is called.
    fn opener(&self) -> impl FnOnce() -> anyhow::Result<Self::Pen> + Send + 'static;

    /// What was only counted is to be noted now.
    fn minute_over(&self);

    fn take_due(&mut self) -> Option<Self::Batch>;

    /// How many it tells of.
    fn size(batch: &Self::Batch) -> u64;

    /// So many were not written down: to be noted, now that there is a chain again.
    fn lost(&mut self, count: u64);

    /// Blocks on the disk. After an error the chain is opened anew.
    fn write(pen: &mut Self::Pen, batch: Self::Batch) -> anyhow::Result<()>;

    /// After the opening and each write; None where it failed.
    fn wrote(&self, pen: Option<&Self::Pen>);
}

/// Until `stop`, and then what waits.
pub async fn keep<T: OwnTrail>(mut trail: T, stop: CancellationToken) -> anyhow::Result<()> {
    let opened = tokio::task::spawn_blocking(trail.opener()).await.context("opening a node's own chain")?;
    let told =
        |error: anyhow::Error| tracing::error!(what = T::WHAT, error = format!("{error:#}"), "cannot be written down");
    let mut pen = opened.map_err(told).ok();
    trail.wrote(pen.as_ref());
    let mut minute = tokio::time::interval(MINUTE);
    let mut write = tokio::time::interval(T::WRITE_EVERY);
    minute.set_missed_tick_behavior(MissedTickBehavior::Delay);
    write.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lost: Option<u64> = None;
    loop {
        let (is_over, is_minute) = tokio::select! {
            () = stop.cancelled() => (true, true),
            _ = write.tick() => (false, false),
            _ = minute.tick() => (false, true),
        };
        if is_minute {
            trail.minute_over();
            if pen.is_none() {
                let opened = tokio::task::spawn_blocking(trail.opener()).await;
                pen = opened.unwrap_or_else(|panic| Err(panic.into())).ok();
                if pen.is_some() {
                    trail.wrote(pen.as_ref());
                }
            }
            if pen.is_some()
                && let Some(lost) = lost.take()
            {
                tracing::warn!(what = T::WHAT, lost, "are written down again");
                trail.lost(lost);
            }
        }
        // Taken in any case: what cannot be written must not pile up.
        if let Some(batch) = trail.take_due() {
            let size = T::size(&batch);
            if let Some(mut open) = pen.take() {
                let wrote = tokio::task::spawn_blocking(move || T::write(&mut open, batch).map(|()| open));
                pen = wrote.await.unwrap_or_else(|panic| Err(panic.into())).map_err(told).ok();
                trail.wrote(pen.as_ref());
            }
            if pen.is_none() {
                lost = Some(lost.unwrap_or(0) + size);
            }
        }
        if is_over {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    };

    use super::*;

    struct Trail {
        is_full: Arc<AtomicBool>,
        waiting: Option<u64>,
        written: Arc<Mutex<Vec<u64>>>,
        stop: CancellationToken,
    }

    impl OwnTrail for Trail {
        type Pen = Arc<Mutex<Vec<u64>>>;
        type Batch = u64;
        const WHAT: &str = "tests";
        const WRITE_EVERY: Duration = Duration::from_millis(1);

        fn opener(&self) -> impl FnOnce() -> anyhow::Result<Self::Pen> + Send + 'static {
            let (is_full, written) = (self.is_full.clone(), self.written.clone());
            move || {
                anyhow::ensure!(!is_full.load(Relaxed), "the disk is full");
                Ok(written)
            }
        }

        fn minute_over(&self) {}

        /// From the first time on there is room again, and the end has come.
        fn take_due(&mut self) -> Option<u64> {
            self.is_full.store(false, Relaxed);
            self.stop.cancel();
            self.waiting.take()
        }

        fn size(batch: &u64) -> u64 {
            *batch
        }

        fn lost(&mut self, count: u64) {
            self.waiting = Some(count * 100);
        }

        fn write(pen: &mut Self::Pen, batch: u64) -> anyhow::Result<()> {
            pen.lock().unwrap().push(batch);
            Ok(())
        }

        fn wrote(&self, _: Option<&Self::Pen>) {}
    }

    #[tokio::test]
    async fn a_disk_with_room_again_is_written_and_what_was_lost_is_told() {
        let (is_full, written) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(Vec::new())));
        let stop = CancellationToken::new();
        let trail = Trail { is_full, waiting: Some(3), written: written.clone(), stop: stop.clone() };
        keep(trail, stop).await.unwrap();
        assert_eq!(*written.lock().unwrap(), [300]);
    }
}
