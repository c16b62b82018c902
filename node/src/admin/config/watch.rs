//! The stream of revisions as this node applies them: first what is missing since `since`, from the journal, then live.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream};
use quorumgate_model::{
    change,
    state::{RevisionFacts, State},
};
use quorumgate_proto::admin::v1::{
    Change, WatchConfigResponse,
    watch_config_response::{Changed, Compacted, Event, Progress},
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::messages;
use crate::admin::{desk::Desk, failure, gate::Call, identity::Held};

/// Streams at once.
pub const WATCHERS_MAX: usize = 256;
/// Events that wait for a watcher.
const BUFFER: usize = 16;
/// With a full buffer for this long a watcher is ended.
const SLOW_AFTER: Duration = Duration::from_secs(10);
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// For one diff, from the journal or from a peer.
const DIFF_WITHIN: Duration = Duration::from_secs(2);

/// One watcher: it sends until its stream is dropped, ends by itself, or is ended with `last_word`.
pub struct Watcher {
    desk: Desk,
    states: watch::Receiver<Arc<State>>,
    /// The last revision sent, or skipped by `since`.
    at: u64,
    /// The state that was caught up with last.
    seen: Option<Arc<State>>,
    /// The watcher's admin token or session: once it is gone, so is the stream.
    held: Option<Held>,
    events: mpsc::Sender<Result<WatchConfigResponse, Status>>,
    last_word: Arc<OnceLock<Status>>,
    _permit: OwnedSemaphorePermit,
}

/// Why a watcher ends. None: the stream was dropped, or it has said everything.
type End = Option<Status>;

pub type Events = std::pin::Pin<Box<dyn Stream<Item = Result<WatchConfigResponse, Status>> + Send>>;

impl Watcher {
    pub fn new(desk: Desk, call: &Call, since: Option<u64>, permit: OwnedSemaphorePermit) -> (Self, Events) {
        let states = desk.consensus.states();
        let at = since.unwrap_or_else(|| states.borrow().revision);
        let (events, received) = mpsc::channel(BUFFER);
        let last_word = Arc::new(OnceLock::<Status>::new());
        let ending = last_word.clone();
        // Said even when the buffer is full: it comes from beside the buffer.
        let ending = stream::once(async move { ending.get().cloned().map(Err) }).filter_map(std::future::ready);
        let stream = ReceiverStream::new(received).chain(ending);
        (
            Self { desk, states, at, seen: None, held: call.held.clone(), events, last_word, _permit: permit },
            Box::pin(stream),
        )
    }

    pub async fn run(mut self, stop: tokio_util::sync::CancellationToken) {
        let ended = stop.run_until_cancelled(self.follow()).await;
        let end = ended.unwrap_or_else(|| {
            Some(failure::status(Code::Unavailable, "SHUTTING_DOWN", "this node is shutting down; watch another"))
        });
        if let Some(status) = end {
            let _ = self.last_word.set(status);
        }
    }

    async fn follow(&mut self) -> End {
        let mut progress_at = Instant::now();
        loop {
            let state = self.states.borrow_and_update().clone();
            if let Some(gone) = self.desk.ended(self.held.as_ref()) {
                return Some(gone);
            }
            if let Err(end) = self.catch_up(&state).await {
                return end;
            }
            self.seen = Some(state.clone());
            if progress_at <= Instant::now() {
                let progress = Event::Progress(Progress { revision: state.revision });
                if let Err(end) = self.send(&state, progress).await {
                    return end;
                }
                progress_at = Instant::now() + PROGRESS_EVERY;
            }
            tokio::select! {
                changed = self.states.changed() => {
                    if changed.is_err() {
                        let why = "consensus has stopped on this node; watch another";
                        return Some(failure::status(Code::Unavailable, "CONSENSUS_STOPPED", why));
                    }
                }
                () = sleep_until(progress_at) => {}
                () = self.events.closed() => return None,
            }
        }
    }

    /// Sends every revision above `at`, in order.
    async fn catch_up(&mut self, state: &State) -> Result<(), End> {
        if state.revision <= self.at {
            return Ok(());
        }
        let missing = state.history.iter().rev().take_while(|facts| facts.revision > self.at).count();
        let first = state.history.len() - missing;
        // The step from `at` to the oldest revision that is kept must be a single one.
        if let Some(oldest) = state.history.get(first).filter(|oldest| first == 0 && oldest.previous > self.at) {
            self.send(state, Event::Compacted(Compacted { oldest: oldest.revision })).await?;
            return Err(None);
        }
        for facts in state.history.iter().skip(first) {
            let changes = self.changes(state, facts).await.map_err(Some)?;
            let revision = Some(messages::revision(facts));
            self.send(state, Event::Changed(Changed { revision, changes })).await?;
            self.at = facts.revision;
        }
        Ok(())
    }

    /// By comparison where the states before and after are at hand; else from the journal.
    async fn changes(&self, state: &State, facts: &RevisionFacts) -> Result<Vec<Change>, Status> {
        match &self.seen {
            Some(seen) if seen.revision == facts.previous && state.revision == facts.revision => {
                Ok(messages::changes(&change::between(&seen.resources, &state.resources)))
            }
            _ => {
                let diff = self.desk.diff_of(facts.revision, DIFF_WITHIN).await?;
                Ok(messages::changes(&diff.changes))
            }
        }
    }

    async fn send(&self, state: &State, event: Event) -> Result<(), End> {
        let response = WatchConfigResponse { header: Some(self.desk.header_at(state)), event: Some(event) };
        match self.events.send_timeout(Ok(response), SLOW_AFTER).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(None),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                let message = format!("the watcher did not keep up: {BUFFER} events waited for {SLOW_AFTER:?}");
                Err(Some(failure::status(Code::ResourceExhausted, "SLOW_WATCHER", message)))
            }
        }
    }
}
