//! `model::State` behind openraft's state machine trait: applies, publishes, answers, and builds snapshots beside.

use std::{
    any::Any,
    io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use futures_util::{Stream, StreamExt};
use openraft::{
    EntryPayload, OptionalSend,
    storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine},
};
use quorumgate_model::{
    command::Applied,
    mutants::{self, Mutant},
    state::{Effects, State},
};
use tokio::{sync::watch, task::spawn_blocking};

use crate::{
    Entry, Journal, LogId, Snapshot, SnapshotFile, SnapshotMeta, StoredMembership, TypeConfig, due::Due,
    health::Health, snapshots::Snapshots,
};

/// Effects that go to the journal at a time.
const JOURNALED_MAX: usize = 1024;

pub struct Machine {
    pub(crate) state: State,
    pub(crate) applied: Option<LogId>,
    pub(crate) membership: StoredMembership,
    pub(crate) states: watch::Sender<Arc<State>>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) due: Arc<Due>,
    pub(crate) journal: Journal,
    pub(crate) health: Health,
}

/// A frozen view of the machine, written in a thread of its own while the machine goes on.
pub struct Builder {
    state: State,
    meta: SnapshotMeta,
    snapshots: Arc<Snapshots>,
    due: Arc<Due>,
    journal: Journal,
    /// Bytes of log when the view was taken.
    written: u64,
}

/// Answers are given once the state that they speak of can be seen.
type Answers = Vec<(ApplyResponder<TypeConfig>, Option<Applied>)>;

impl Machine {
    /// The failing entry leaves no trace; what was applied before it stays.
    fn apply_one(&mut self, entry: &Entry) -> Result<(Option<Applied>, Effects), String> {
        let index = entry.log_id.index;
        let mut next = self.state.clone();
        let applied = catch_unwind(AssertUnwindSafe(|| match &entry.payload {
            EntryPayload::Normal(command) => {
                let (applied, effects) = next.apply(index, command);
                (Some(applied), effects)
            }
            EntryPayload::Blank | EntryPayload::Membership(_) => {
                next.skip(index);
                (None, Effects::default())
            }
        }));
        let applied = applied.map_err(|panic| format!("entry {}: {}", entry.log_id, panic_text(&*panic)))?;
        self.state = next;
        self.applied = Some(entry.log_id);
        if let EntryPayload::Membership(membership) = &entry.payload
            && !mutants::is(Mutant::MembershipLeftBehind)
        {
            self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
        }
        Ok(applied)
    }

    fn publish(&self, answers: Answers) {
        self.states.send_replace(Arc::new(self.state.clone()));
        for (responder, applied) in answers {
            responder.send(applied);
        }
    }

    fn builder(&self) -> Builder {
        let meta = SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() };
        Builder {
            state: self.state.clone(),
            meta,
            snapshots: self.snapshots.clone(),
            due: self.due.clone(),
            journal: self.journal.clone(),
            written: self.due.written(),
        }
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Builder;
    type SnapshotData = SnapshotFile;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut answers = Answers::new();
        let mut journaled = Vec::new();
        let mut outcome = Ok(());
        while let Some(next) = entries.next().await {
            let applied = next.and_then(|(entry, responder)| {
                let applied = self.apply_one(&entry).map_err(|why| {
                    tracing::error!(why, "consensus stops on this node: an entry could not be applied");
                    self.health.apply_stopped(why.clone());
                    io::Error::other(why)
                })?;
                Ok((responder, applied))
            });
            match applied {
                Ok((responder, (applied, effects))) => {
                    answers.extend(responder.map(|responder| (responder, applied)));
                    journaled.extend(Some(effects).filter(|effects| *effects != Effects::default()));
                    if journaled.len() >= JOURNALED_MAX {
                        self.journal.gather(mem::take(&mut journaled));
                        self.journal.record(self.state.index).await;
                    }
                }
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        self.journal.gather(journaled);
        self.publish(answers);
        self.journal.record(self.state.index).await;
        outcome
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        (force || self.applied.is_some()).then(|| self.builder())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.builder()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotFile) -> io::Result<()> {
        let (snapshots, told) = (self.snapshots.clone(), meta.clone());
        let installed = spawn_blocking(move || snapshots.install(&told, &snapshot)).await.map_err(io::Error::other)?;
        let state = installed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{error:#}")))?;
        // What the snapshot skips, peers still hold.
        self.journal.record(state.index).await;
        self.state = match mutants::is(Mutant::InstalledKeepsLedger) {
            true => State { ledger: self.state.ledger.clone(), ..state },
            false => state,
        };
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.publish(Answers::new());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.snapshots.newest().map(|kept| Snapshot { meta: kept.meta, snapshot: kept.file }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        // Entries below a snapshot are not replayed: their effects must be durable before it is.
        if !mutants::is(Mutant::JournalBehindSnapshot) {
            self.journal.sync().await;
        }
        let (snapshots, due, written) = (self.snapshots.clone(), self.due.clone(), self.written);
        let (state, meta) = (self.state.clone(), self.meta.clone());
        let built = spawn_blocking(move || snapshots.build(meta, &state, &due, written)).await;
        let kept = built.map_err(io::Error::other)??;
        Ok(Snapshot { meta: kept.meta, snapshot: kept.file })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.snapshots.close();
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}
