//! Who did what: the cluster's chain of mutations, and this node's own of calls that it refused.

use std::{sync::Arc, time::Duration};

use prost::Message;
use quorumgate_model::state::{AuditEntry, AuditHead, ChainKind};
use quorumgate_proto::{admin::v1 as admin, store::v1::Actor};
use quorumgate_raft_store::journal::{Checked, What};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Answers, Service};
use crate::{
    access::Accessed,
    admin::{config::messages, desk::Desk, failure, gate::Call, identity},
    denials::{Denial, Denials},
};

const DEFAULT: u32 = 100;
const MAX: u32 = 10_000;
/// Entries that are looked at for those that a filter takes.
const SCAN_MAX: usize = 50_000;
/// Entries whose changes are shown, and how many bytes of them.
const CHANGES_MAX: usize = 1_000;
const CHANGES_BYTES_MAX: usize = 16 << 20;
const DIFF_WITHIN: Duration = Duration::from_secs(2);
/// Entries that wait for one who follows; and the pause while the journal has not written the newest.
const ROOM: usize = 256;
const JOURNAL_PAUSE: Duration = Duration::from_millis(50);

impl Service {
    pub(super) async fn audit_entries(
        &self,
        call: &Call,
        request: &admin::ListAuditRequest,
    ) -> Result<admin::ListAuditResponse, Status> {
        let filter = Filter::parse(request)?;
        let limit = match request.limit {
            0 => DEFAULT,
            limit => limit.min(MAX),
        } as usize;
        let asked = if filter.takes_all() { limit } else { SCAN_MAX };
        let header = Some(self.desk.header());
        if request.denials {
            let entries = denials(&self.denials, u64::MAX, asked).await;
            let name = self.desk.consensus.view().name;
            let shown = entries.into_iter().map(|it| shown_denial(it, &name));
            let entries = shown.filter(|it| filter.takes(it)).take(limit).collect();
            return Ok(admin::ListAuditResponse { header, entries });
        }
        if request.access {
            let (access, name) = (self.desk.consensus.access().clone(), self.desk.consensus.view().name);
            let read = tokio::task::spawn_blocking(move || access.read(u64::MAX, asked)).await.unwrap_or_default();
            let shown = read.into_iter().map(|it| shown_access(it, &name));
            let entries = shown.filter(|it| filter.takes(it)).take(limit).collect();
            return Ok(admin::ListAuditResponse { header, entries });
        }
        let entries = self.desk.consensus.audit(asked).await;
        let shown = entries.iter().map(shown);
        // Which of them have changed an object is only known with their changes.
        let looked_at = if filter.object.is_some() { CHANGES_MAX } else { limit };
        let mut entries: Vec<_> = shown.filter(|it| filter.takes(it)).take(looked_at).collect();
        if request.changes || filter.object.is_some() {
            self.add_changes(call, &mut entries).await;
        }
        if let Some((kind, name)) = &filter.object {
            let is_it = |change: &admin::Change| change.kind == *kind && change.name == *name;
            entries.retain(|it| it.changes.iter().any(is_it));
            entries.truncate(limit);
            if !request.changes {
                entries.iter_mut().for_each(|it| it.changes.clear());
            }
        }
        Ok(admin::ListAuditResponse { header, entries })
    }

    /// Before and after, as far as nodes in reach hold it and the answer has room.
    async fn add_changes(&self, call: &Call, entries: &mut [admin::AuditEntry]) {
        let mut bytes = 0;
        for entry in entries.iter_mut().filter(|it| it.revision > 0).take(CHANGES_MAX) {
            if bytes > CHANGES_BYTES_MAX || call.left().is_zero() {
                return;
            }
            if let Ok(diff) = self.desk.diff_of(entry.revision, DIFF_WITHIN.min(call.left())).await {
                entry.changes = messages::changes(&diff.changes);
                bytes += entry.changes.iter().map(Message::encoded_len).sum::<usize>();
            }
        }
    }

    pub(super) fn follow_audit(
        &self,
        call: &Call,
        request: &admin::WatchAuditRequest,
        permit: OwnedSemaphorePermit,
    ) -> Answers<admin::AuditEntry> {
        let (entries, received) = mpsc::channel(ROOM);
        let follower = Follower {
            desk: self.desk.clone(),
            denials: self.denials.clone(),
            held: call.held.clone(),
            entries,
            _permit: permit,
        };
        let (since, own) = (request.since, request.denials);
        let stop = self.tasks.stop();
        self.tasks.detach(async move {
            let follow = async {
                match own {
                    true => follower.own(since).await,
                    false => follower.mutations(since).await,
                }
            };
            stop.run_until_cancelled(follow).await;
        });
        Box::pin(ReceiverStream::new(received))
    }

    pub(super) async fn check_audit(&self) -> Result<admin::VerifyAuditResponse, Status> {
        let (consensus, denials) = (self.desk.consensus.clone(), self.denials.clone());
        let header = Some(self.desk.header());
        let [noted, let_in] = [ChainKind::Denials, ChainKind::Access].map(|kind| consensus.noted_chain(kind));
        let access = consensus.access().clone();
        let checked =
            tokio::task::spawn_blocking(move || (consensus.check_audit(), denials.check(noted), access.check(let_in)));
        let internal = |error: String| failure::status(tonic::Code::Internal, "INTERNAL", error);
        let (mutations, own, let_in) = checked.await.map_err(|error| internal(error.to_string()))?;
        // Nothing was ever refused, or let in, and so nothing written.
        let [own, let_in] = [own, let_in].map(Result::unwrap_or_default);
        let any =
            |what: What| [&mutations, &own, &let_in].iter().any(|it| it.flaws.iter().any(|flaw| flaw.what == what));
        let verdict = match () {
            () if any(What::Altered) || any(What::Unreadable) => "altered",
            () if any(What::Missing) => "incomplete",
            () => "whole",
        };
        let chains = vec![chain("mutations", mutations), chain("denials", own), chain("access", let_in)];
        Ok(admin::VerifyAuditResponse { header, verdict: verdict.into(), chains })
    }
}

fn chain(name: &str, checked: Checked) -> admin::verify_audit_response::Chain {
    let altered = checked.flaws.into_iter().map(|flaw| admin::verify_audit_response::Altered {
        sequence: flaw.sequence,
        until: flaw.until,
        what: flaw.what.word().into(),
        why: flaw.why,
    });
    admin::verify_audit_response::Chain {
        name: name.into(),
        checked: checked.checked,
        first: checked.first,
        last: checked.last,
        altered: altered.collect(),
    }
}

/// One who follows either chain, until it hangs up or its token is gone.
struct Follower {
    desk: Desk,
    denials: Arc<Denials>,
    held: Option<identity::Held>,
    entries: mpsc::Sender<Result<admin::AuditEntry, Status>>,
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    async fn mutations(&self, since: Option<u64>) {
        let mut states = self.desk.consensus.states();
        // The hash of an entry is known once one was read: before that, peers cannot prove what follows it.
        let since = since.map(|count| AuditHead { count, ..AuditHead::default() });
        let mut last = since.unwrap_or_else(|| states.borrow().audit);
        loop {
            let count = states.borrow_and_update().audit.count;
            while last.count < count {
                let found = self.after(last, count - last.count).await;
                // Nothing yet: what was applied a moment ago is on its way to the journal.
                if found.is_empty() && self.pause().await.is_none() {
                    return;
                }
                for entry in &found {
                    last = AuditHead { count: entry.sequence, hash: entry.hash() };
                    if self.send(shown(entry)).await.is_none() {
                        return;
                    }
                }
            }
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                () = self.entries.closed() => return,
            }
            if self.is_over().await {
                return;
            }
        }
    }

    /// Oldest first.
    async fn after(&self, last: AuditHead, behind: u64) -> Vec<AuditEntry> {
        if behind > u64::from(MAX) {
            let found = self.desk.consensus.audit_after(last, MAX as usize).await;
            if !found.is_empty() {
                return found;
            }
        }
        let mut found = self.desk.consensus.audit(behind.min(u64::from(MAX)) as usize).await;
        found.retain(|it| it.sequence > last.count);
        found.reverse();
        found
    }

    async fn own(&self, since: Option<u64>) {
        let mut written = self.denials.written();
        let name = self.desk.consensus.view().name;
        let mut last = since.unwrap_or_else(|| *written.borrow());
        loop {
            let count = *written.borrow_and_update();
            while last < count {
                let (denials, first) = (self.denials.clone(), last + 1);
                let read = tokio::task::spawn_blocking(move || denials.read_from(first, MAX as usize)).await;
                let found = read.unwrap_or_default();
                // None where they are kept no longer, or cannot be read.
                last = found.last().map_or(count, |it| it.sequence);
                for entry in found {
                    if self.send(shown_denial(entry, &name)).await.is_none() {
                        return;
                    }
                }
            }
            tokio::select! {
                changed = written.changed() => if changed.is_err() { return },
                () = self.entries.closed() => return,
            }
            if self.is_over().await {
                return;
            }
        }
    }

    async fn send(&self, entry: admin::AuditEntry) -> Option<()> {
        let entry = admin::AuditEntry { header: Some(self.desk.header()), ..entry };
        self.entries.send(Ok(entry)).await.ok()
    }

    async fn pause(&self) -> Option<()> {
        tokio::time::sleep(JOURNAL_PAUSE).await;
        (!self.entries.is_closed()).then_some(())
    }

    /// The caller's token is gone.
    async fn is_over(&self) -> bool {
        let Some(gone) = self.desk.ended(self.held.as_ref()) else { return false };
        super::last_word(&self.entries, gone).await;
        true
    }
}

async fn denials(denials: &Arc<Denials>, before: u64, limit: usize) -> Vec<Denial> {
    let denials = denials.clone();
    tokio::task::spawn_blocking(move || denials.read(before, limit)).await.unwrap_or_default()
}

fn shown(entry: &AuditEntry) -> admin::AuditEntry {
    admin::AuditEntry {
        index: entry.index,
        revision: entry.revision,
        time: Some(messages::timestamp_ms(entry.wall_ms)),
        actor: entry.actor.name.clone(),
        source: entry.actor.source.clone(),
        rpc: entry.actor.rpc.clone(),
        message: entry.message.clone(),
        summary: entry.summary.clone(),
        hash: entry.hash().to_string(),
        sequence: entry.sequence,
        result: "ok".into(),
        node: String::new(),
        count: 1,
        changes: Vec::new(),
        header: None,
    }
}

fn shown_access(it: Accessed, node: &str) -> admin::AuditEntry {
    let actor = it.actor.unwrap_or_else(|| Actor {
        name: format!("erased/{}", it.pseudonym.get(..8).unwrap_or_default()),
        ..Actor::default()
    });
    admin::AuditEntry {
        time: Some(messages::timestamp_ms(it.wall_ms)),
        actor: actor.name,
        source: actor.source,
        rpc: it.rpc,
        summary: "let in".into(),
        hash: it.hash,
        sequence: it.sequence,
        result: it.result,
        node: node.to_owned(),
        count: it.count,
        ..Default::default()
    }
}

fn shown_denial(denial: Denial, node: &str) -> admin::AuditEntry {
    let record = denial.record;
    let actor = record.actor.unwrap_or_default();
    admin::AuditEntry {
        index: 0,
        revision: 0,
        time: Some(messages::timestamp_ms(record.wall_ms)),
        actor: actor.name,
        source: actor.source,
        rpc: actor.rpc,
        message: record.message,
        summary: record.reason.to_ascii_lowercase(),
        hash: denial.hash,
        sequence: denial.sequence,
        result: "denied".into(),
        node: node.to_owned(),
        count: record.count,
        changes: Vec::new(),
        header: None,
    }
}

/// Which entries are asked for.
struct Filter {
    actor: String,
    rpc: String,
    object: Option<(i32, String)>,
    since: Option<(i64, i32)>,
    until: Option<(i64, i32)>,
}

impl Filter {
    fn parse(request: &admin::ListAuditRequest) -> Result<Self, Status> {
        let at = |it: &Option<prost_types::Timestamp>| it.as_ref().map(|it| (it.seconds, it.nanos));
        let object = match request.object.as_str() {
            "" => None,
            text => Some(object(text).ok_or_else(|| {
                failure::bad_field(
                    "object",
                    &format!("found {text:?}; allowed: a kind and a name, such as route/orders"),
                )
            })?),
        };
        let (actor, rpc) = (request.actor.clone(), request.rpc.clone());
        Ok(Self { actor, rpc, object, since: at(&request.since), until: at(&request.until) })
    }

    fn takes_all(&self) -> bool {
        self.actor.is_empty()
            && self.rpc.is_empty()
            && self.object.is_none()
            && self.since.is_none()
            && self.until.is_none()
    }

    /// All but the object, which takes the changes to tell.
    fn takes(&self, it: &admin::AuditEntry) -> bool {
        let at = it.time.as_ref().map_or((0, 0), |it| (it.seconds, it.nanos));
        it.actor.ends_with(&self.actor)
            && it.rpc.contains(&self.rpc)
            && self.since.is_none_or(|since| at >= since)
            && self.until.is_none_or(|until| at <= until)
            && (self.object.is_none() || it.revision > 0)
    }
}

fn object(text: &str) -> Option<(i32, String)> {
    let (kind, name) = text.split_once('/')?;
    let kind = admin::Kind::from_str_name(&format!("KIND_{}", kind.to_ascii_uppercase().replace('-', "_")))?;
    Some((kind.into(), name.to_owned()))
}
