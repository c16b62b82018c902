//! What writes a node's own chains (`denials`, `access`): opens one, counts up what came within a minute, and writes what
//! waits. A disk that cannot be written is told once, and ends nothing.

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

    /// Blocks on the disk. After an error nothing more is written.
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
    loop {
        let is_over = tokio::select! {
            () = stop.cancelled() => true,
            _ = write.tick() => false,
            _ = minute.tick() => {
                trail.minute_over();
                false
            }
        };
        if is_over {
            trail.minute_over();
        }
        // Taken in any case: what cannot be written must not pile up.
        if let Some(batch) = trail.take_due()
            && let Some(mut open) = pen.take()
        {
            let wrote = tokio::task::spawn_blocking(move || T::write(&mut open, batch).map(|()| open));
            pen = wrote.await.unwrap_or_else(|panic| Err(panic.into())).map_err(told).ok();
            trail.wrote(pen.as_ref());
        }
        if is_over {
            return Ok(());
        }
    }
}
