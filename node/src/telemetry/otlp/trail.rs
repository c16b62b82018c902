//! Audit trails for the collector: each entry at least once. The queue is what lies on the disk anyway (the journal, the own
//! chain), and how far it was taken is written down: neither a collector that is away nor a restart loses an entry.
//!
//! Every node that is set to sends the cluster's whole trail, and its own denials. Sending by the leader alone would lose what
//! a new leader cannot know was not sent, or need a place that is agreed on: a write to the log for each batch. A collector
//! drops what comes twice by its `log.record.uid`.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use prost::Message;
use quorumgate_model::state::{AuditEntry, AuditHead};
use quorumgate_proto::telemetry::v1 as otlp;
use tokio_util::sync::CancellationToken;

use super::{
    collector::{Collector, Reply},
    place::Place,
    progress::Progress,
    records, resource, scope,
};
use crate::consensus::Consensus;

/// Entries of one request, and bytes of them unless one alone has more.
const BATCH_ENTRIES_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// How long an entry may wait for others.
const BATCH_EVERY: Duration = Duration::from_secs(1);
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// For other nodes to come back that may hold entries which this one lacks.
const GAP_PATIENCE: Duration = Duration::from_secs(60);
/// For the changes of a batch, as far as other nodes must be asked.
const DIFFS_WITHIN: Duration = Duration::from_secs(5);

pub struct Trail {
    pub consensus: Consensus,
    pub collector: Collector,
    pub dir: PathBuf,
    pub progress: Arc<Progress>,
}

/// What goes in one request, and where the trails delivered once it is taken.
struct Batch {
    records: Vec<otlp::LogRecord>,
    place: Place,
    /// Entries before these that nobody keeps any more.
    missing: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// All but so many, which it will never take, and why.
    Taken {
        refused: u64,
        why: String,
    },
    /// Something in it, or its size.
    Unfit(String),
    Later {
        after: Option<Duration>,
        why: String,
    },
}

impl Trail {
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        stop.run_until_cancelled(self.send_all()).await;
        Ok(())
    }

    async fn send_all(self) {
        let mut sender = Sender { place: self.start().await, limit: BATCH_ENTRIES_MAX, pause: RETRY_MIN, gap: None };
        let mut states = self.consensus.states();
        let mut denied = self.consensus.denials().written();
        loop {
            let heads = (states.borrow_and_update().audit.count, *denied.borrow_and_update());
            if heads.0 <= sender.place.mutations.count && heads.1 <= sender.place.denials {
                let changed = tokio::select! { it = states.changed() => it, it = denied.changed() => it };
                if changed.is_err() {
                    // Both end with the process: nothing to wait for.
                    std::future::pending::<()>().await;
                }
                continue;
            }
            if sender.pause == RETRY_MIN {
                self.progress.woke();
                tokio::time::sleep(BATCH_EVERY).await;
            }
            self.catch_up(&mut sender, heads).await;
        }
    }

    async fn start(&self) -> Place {
        let dir = self.dir.clone();
        let read = tokio::task::spawn_blocking(move || Place::read(&dir)).await.unwrap_or_else(|it| Err(it.into()));
        let place = read.unwrap_or_else(|error| {
            let error = format!("{error:#}");
            tracing::warn!(error, "what the collector has of the audit trail is not known: it is sent from its start");
            Place::default()
        });
        self.progress.moved(place, 0, 0);
        place
    }

    /// One batch after the other until the collector has all, or an attempt has failed and its pause is over.
    async fn catch_up(&self, sender: &mut Sender, heads: (u64, u64)) {
        while let Some(batch) = self.next(sender, heads).await {
            let count = batch.records.len() as u64;
            let mut verdict = verdict(self.post(batch.records.clone()).await);
            if let (Verdict::Unfit(why), 1) = (&verdict, count)
                && !self.takes_anything().await
            {
                verdict = Verdict::Later { after: None, why: why.clone() };
            }
            match verdict {
                Verdict::Taken { refused, why } => {
                    if refused > 0 {
                        tracing::warn!(refused, why, "the collector refuses audit entries for good");
                    }
                    self.taken(sender, &batch, count.saturating_sub(refused), refused).await;
                    sender.limit = (2 * sender.limit).min(BATCH_ENTRIES_MAX);
                }
                Verdict::Unfit(_) if count > 1 => sender.limit = (count / 2) as usize,
                Verdict::Unfit(why) => {
                    let sequence = (batch.place.mutations.count, batch.place.denials);
                    tracing::warn!(why, ?sequence, "the collector refuses an audit entry for good");
                    self.taken(sender, &batch, 0, 1).await;
                }
                Verdict::Later { after, why } => {
                    if self.progress.failed(&why) {
                        tracing::warn!(why, "the collector does not take the audit trail: it is tried again");
                    }
                    tokio::time::sleep(after.unwrap_or(sender.pause).clamp(RETRY_MIN, RETRY_MAX)).await;
                    sender.pause = (2 * sender.pause).min(RETRY_MAX);
                    return;
                }
            }
        }
        if sender.is_behind(heads) {
            // On its way to the journal, or with a node that is away.
            tokio::time::sleep(sender.pause).await;
            sender.pause = (2 * sender.pause).min(RETRY_MAX);
        } else {
            sender.pause = RETRY_MIN;
        }
    }

    async fn post(&self, log_records: Vec<otlp::LogRecord>) -> anyhow::Result<Reply> {
        let scope_logs = vec![otlp::ScopeLogs { scope: Some(scope()), log_records }];
        let resource_logs = vec![otlp::ResourceLogs { resource: Some(resource(&self.consensus)), scope_logs }];
        self.collector.post("/v1/logs", &otlp::LogsRequest { resource_logs }).await
    }

    /// Something that says no to a request without entries too is no collector, or not ready: the trail waits for one.
    async fn takes_anything(&self) -> bool {
        self.post(Vec::new()).await.is_ok_and(|reply| reply.status.is_success())
    }

    async fn taken(&self, sender: &mut Sender, batch: &Batch, sent: u64, refused: u64) {
        if batch.missing > 0 {
            tracing::warn!(missing = batch.missing, "audit entries were not kept long enough for the collector");
        }
        let (place, dir) = (batch.place, self.dir.clone());
        let written = tokio::task::spawn_blocking(move || place.write(&dir)).await.unwrap_or_else(|it| Err(it.into()));
        if let Err(error) = written {
            // Sent again after a restart: no reason to hold back the rest.
            tracing::warn!(error = format!("{error:#}"), "what the collector has taken is not written down");
        }
        (sender.place, sender.pause, sender.gap) = (place, RETRY_MIN, None);
        self.progress.moved(place, sent, refused + batch.missing);
    }

    async fn next(&self, sender: &mut Sender, heads: (u64, u64)) -> Option<Batch> {
        let place = sender.place;
        if heads.0 > place.mutations.count {
            let entries = self.consensus.audit_after(place.mutations, sender.limit).await;
            let missing = entries.first().map_or(0, |it| it.sequence - place.mutations.count - 1);
            if !entries.is_empty() && sender.may_leave_out(missing) {
                return Some(self.mutations(place, &entries, missing).await);
            }
        }
        if heads.1 > place.denials {
            let denials = self.consensus.denials().clone();
            let limit = sender.limit;
            let read = tokio::task::spawn_blocking(move || denials.read_from(place.denials + 1, limit)).await;
            let denials = read.unwrap_or_default();
            let missing = denials.first().map_or(0, |it| it.sequence - place.denials - 1);
            let node = self.consensus.view().name;
            let last = denials.last()?.sequence;
            let records = denials.iter().map(|it| records::denial(it, &node)).collect();
            return Some(Batch { records, place: Place { denials: last, ..place }, missing });
        }
        None
    }

    async fn mutations(&self, mut place: Place, entries: &[AuditEntry], missing: u64) -> Batch {
        let mut records = Vec::new();
        let mut bytes = 0;
        let oldest = self.consensus.state().history.front().map(|it| it.revision);
        let ends = Instant::now() + DIFFS_WITHIN;
        for entry in entries {
            // Nodes keep the changes of revisions that the state remembers, and of no others.
            let diff = match oldest.is_some_and(|oldest| oldest <= entry.revision) {
                true => {
                    let left = ends.saturating_duration_since(Instant::now());
                    tokio::time::timeout(left, self.consensus.revision_diff(entry.revision)).await.ok().flatten()
                }
                false => None,
            };
            let record = records::mutation(entry, diff.as_ref());
            bytes += record.encoded_len();
            if bytes > BATCH_BYTES_MAX && !records.is_empty() {
                break;
            }
            place.mutations = AuditHead { count: entry.sequence, hash: entry.hash() };
            records.push(record);
        }
        Batch { records, place, missing }
    }
}

/// Where the sending stands.
struct Sender {
    place: Place,
    /// Entries of the next batch: fewer while the collector calls them unfit.
    limit: usize,
    pause: Duration,
    /// Since when the next entry has been found nowhere.
    gap: Option<Instant>,
}

impl Sender {
    fn is_behind(&self, heads: (u64, u64)) -> bool {
        heads.0 > self.place.mutations.count || heads.1 > self.place.denials
    }

    /// Entries that no node in reach holds are left out once others have had time to come back.
    fn may_leave_out(&mut self, missing: u64) -> bool {
        missing == 0 || self.gap.get_or_insert_with(Instant::now).elapsed() >= GAP_PATIENCE
    }
}

/// OTLP 1.x, "OTLP/HTTP Response". Of what must not be sent again by it, only what is said of the data itself is given up:
/// a wrong path or a missing right is mended at the collector, and an audit trail waits for that.
fn verdict(reply: anyhow::Result<Reply>) -> Verdict {
    let reply = match reply {
        Ok(reply) => reply,
        Err(error) => return Verdict::Later { after: None, why: format!("{error:#}") },
    };
    let why = format!("it answers {}", reply.status);
    match reply.status.as_u16() {
        200..=299 => {
            let partial = otlp::LogsResponse::decode(reply.body).ok().and_then(|it| it.partial_success);
            let partial = partial.unwrap_or_default();
            Verdict::Taken { refused: partial.rejected_log_records.max(0) as u64, why: partial.error_message }
        }
        400 | 413 | 422 => Verdict::Unfit(why),
        _ => Verdict::Later { after: reply.retry_after, why },
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[track_caller]
    fn check(status: u16, retry_after: Option<u64>, body: &otlp::LogsResponse, expected: Verdict) {
        let retry_after = retry_after.map(Duration::from_secs);
        let reply =
            Reply { status: StatusCode::from_u16(status).unwrap(), retry_after, body: body.encode_to_vec().into() };
        assert_eq!(verdict(Ok(reply)), expected, "{status}");
    }

    #[test]
    fn only_what_is_said_of_the_entries_themselves_gives_them_up() {
        let none = otlp::LogsResponse::default();
        check(200, None, &none, Verdict::Taken { refused: 0, why: String::new() });
        let (rejected_log_records, error_message) = (2, "too old".to_owned());
        let some = Some(otlp::LogsPartialSuccess { rejected_log_records, error_message });
        let refused = Verdict::Taken { refused: 2, why: "too old".into() };
        check(200, None, &otlp::LogsResponse { partial_success: some }, refused);
        for status in [400, 413, 422] {
            let why = format!("it answers {}", StatusCode::from_u16(status).unwrap());
            check(status, None, &none, Verdict::Unfit(why));
        }
        for status in [301, 401, 403, 404, 429, 500, 503] {
            let why = format!("it answers {}", StatusCode::from_u16(status).unwrap());
            check(status, Some(7), &none, Verdict::Later { after: Some(Duration::from_secs(7)), why });
        }
        assert_eq!(verdict(Err(anyhow::anyhow!("away"))), Verdict::Later { after: None, why: "away".into() });
    }

    #[test]
    fn entries_that_nobody_holds_are_waited_for() {
        let mut sender = Sender { place: Place::default(), limit: 1, pause: RETRY_MIN, gap: None };
        assert!(sender.may_leave_out(0) && sender.gap.is_none());
        assert!(!sender.may_leave_out(3));
        sender.gap = Instant::now().checked_sub(GAP_PATIENCE);
        assert!(sender.may_leave_out(3));
    }
}
