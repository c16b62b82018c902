//! Questions to every node: what it serves, how it stands, what it remembers of a revision.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::{BoxFuture, join_all};
use quorumgate_model::{
    NodeId,
    command::NodeRecord,
    convert,
    digest::Digest,
    state::{AuditEntry, AuditHead, RevisionDiff, State},
};
use quorumgate_proto::{
    admin::v1::{NodeTraffic, NodeUpstreamHealth},
    peer::v1::{self as pb, StatusResponse, request::Call, response::Answer},
};
use quorumgate_raft_store::backup::Past;
use tokio::time::timeout;

use super::{Consensus, Published, Receipt, member::Member, propose::until};
use crate::peer::Target;

/// One question of a series: a peer that lets it pass is taken for unreachable.
const SLICE: Duration = Duration::from_millis(500);
/// Audit entries that a peer gives at a time.
pub(super) const AUDIT_PAGE: usize = 500;
/// How often all nodes are asked again while the log moves on, and for how long in all.
const HASH_ROUNDS_MAX: usize = 20;
const HASHES_MAX: Duration = Duration::from_secs(8);
/// For a peer to give the diff of a revision.
const DIFF_MAX: Duration = Duration::from_secs(2);

impl Consensus {
    /// Every node of the state with its own answer; None for those that gave none in time.
    pub async fn statuses(&self, deadline: Duration) -> Vec<(NodeId, Option<StatusResponse>)> {
        let state = self.state();
        let asked = state.nodes.values().map(|node| async move {
            if node.id == self.member.me.node {
                return (node.id, Some(self.status()));
            }
            let target = Target { id: node.id, address: node.peer_address.clone() };
            let answer = self.member.peers.call(&target, Call::Status(pb::StatusRequest {}), deadline).await;
            let status = match answer {
                Ok(Answer::Status(status)) => Some(status),
                _ => None,
            };
            (node.id, status)
        });
        join_all(asked).await
    }

    /// Waits until every reachable node serves `index`, at most `deadline`; never an error.
    pub async fn await_published(&self, index: u64, deadline: Duration) -> Vec<Receipt> {
        let ends = Instant::now() + deadline;
        let state = self.state();
        let asked = state.nodes.values().map(|node| async move {
            let published = match node.id == self.member.me.node {
                true => Some(self.member.await_own(index, ends).await),
                false => {
                    let target = Target { id: node.id, address: node.peer_address.clone() };
                    self.member.await_peer(&target, index, ends).await
                }
            };
            let known = published.unwrap_or_default();
            Receipt {
                name: node.name.to_string(),
                published_index: known.index,
                published_revision: known.revision,
                published_at_ms: known.at_ms,
                unreachable: published.is_none(),
            }
        });
        join_all(asked).await
    }

    /// What this node's journal adds to the state. Blocks on the disk.
    pub fn past(&self, state: &State) -> Past {
        Past::of(&self.member.journal, state)
    }

    /// Every node's hash of its state, at one index if the log stands still long enough.
    pub async fn state_hashes(&self, deadline: Duration) -> Vec<NodeHash> {
        let ends = Instant::now() + deadline.min(HASHES_MAX);
        let state = self.state();
        let mut index = state.index;
        let mut hashes: Vec<NodeHash> = Vec::new();
        for _ in 0..HASH_ROUNDS_MAX {
            let asked = state.nodes.values().map(|node| async move {
                let left = ends.saturating_duration_since(Instant::now());
                let at = match node.id == self.member.me.node {
                    true => self.own_hash(index, left).await,
                    false => self.member.peer_hash(node, index, left).await,
                };
                NodeHash { node: node.name.to_string(), at }
            });
            hashes = join_all(asked).await;
            let newest = hashes.iter().filter_map(|it| it.at).map(|(at, _)| at).max().unwrap_or(index);
            if hashes.iter().all(|it| it.at.is_none_or(|(at, _)| at == newest)) || Instant::now() >= ends {
                break;
            }
            index = newest;
        }
        hashes
    }

    /// Once that index is applied here; None if it is not in time.
    pub(super) async fn own_hash(&self, index: u64, within: Duration) -> Option<(u64, Digest)> {
        let state = self.wait_applied(index, within).await.ok()?;
        // Over a large state this takes longer than a heartbeat may wait.
        tokio::task::spawn_blocking(move || (state.index, state.hash())).await.ok()
    }

    /// From this node's journal, or from a peer's; checked against nothing: the caller compares hashes.
    pub async fn revision_diff(&self, revision: u64) -> Option<RevisionDiff> {
        if let Some(diff) = self.member.own_revision_diff(revision).await {
            return Some(diff);
        }
        for target in self.member.others() {
            let call = Call::RevisionDiff(pb::RevisionDiffRequest { revision });
            let Ok(Answer::RevisionDiff(answer)) = self.member.peers.call(&target, call, DIFF_MAX).await else {
                continue;
            };
            if let Some(Ok(diff)) = answer.diff.map(convert::diff_from) {
                return Some(diff);
            }
        }
        None
    }

    /// Newest first: of this node's journal, and of peers' where it has gaps, as behind a snapshot. What a peer gives is
    /// taken only as far as the chain proves it.
    pub async fn audit(&self, limit: usize) -> Vec<AuditEntry> {
        let head = self.member.state().audit;
        let mut chain = Chain { next: head.count, hash: head.hash, entries: Vec::new(), limit };
        chain.extend(self.member.own_audit(u64::MAX, limit).await);
        for target in self.member.others() {
            while chain.wants() {
                let request = pb::AuditRequest { before: chain.next + 1, limit: AUDIT_PAGE.min(limit) as u32 };
                let asked = self.member.peers.call(&target, Call::Audit(request), DIFF_MAX).await;
                let Ok(Answer::Audit(answer)) = asked else { break };
                let given: Vec<_> = answer.entries.into_iter().filter_map(|it| convert::audit_from(it).ok()).collect();
                if !chain.extend(given) {
                    break;
                }
            }
        }
        // This node's own entries may go on below a gap.
        chain.extend(self.member.own_audit(chain.next + 1, limit).await);
        chain.entries
    }
}

impl Consensus {
    /// What follows that entry, oldest first and without a gap: of this node's journal, or of a peer's as far as the chain
    /// proves it. Where nobody in reach holds the next one, what this node holds behind it, if anything.
    pub async fn audit_after(&self, last: AuditHead, limit: usize) -> Vec<AuditEntry> {
        let limit = limit.min(AUDIT_PAGE);
        let journal = self.member.journal.clone();
        let read = tokio::task::spawn_blocking(move || journal.audit_from(last.count + 1, limit)).await;
        let mut own = read.unwrap_or_default();
        let unbroken = own.windows(2).take_while(|pair| pair[1].sequence == pair[0].sequence + 1).count() + 1;
        own.truncate(unbroken);
        if own.first().is_some_and(|it| it.sequence == last.count + 1) {
            return own;
        }
        for target in self.member.others() {
            let request = pb::AuditRequest { before: last.count + 1 + limit as u64, limit: limit as u32 };
            let asked = self.member.peers.call(&target, Call::Audit(request), DIFF_MAX).await;
            let Ok(Answer::Audit(answer)) = asked else { continue };
            let given = answer.entries.into_iter().rev().filter_map(|it| convert::audit_from(it).ok());
            let proven = proven_after(last, given);
            if !proven.is_empty() {
                return proven;
            }
        }
        own
    }
}

/// Those that follow the head, each by the hash of the one before it.
fn proven_after(mut head: AuditHead, oldest_first: impl Iterator<Item = AuditEntry>) -> Vec<AuditEntry> {
    let mut proven = Vec::new();
    let begins = head.count;
    for entry in oldest_first.skip_while(|it| it.sequence <= begins) {
        if entry.sequence != head.count + 1 || entry.previous != head.hash {
            break;
        }
        head = AuditHead { count: entry.sequence, hash: entry.hash() };
        proven.push(entry);
    }
    proven
}

/// Answers what this node has spent of limits.
pub type Spent = Arc<dyn Fn(pb::LimitUsageRequest) -> BoxFuture<'static, pb::LimitUsageResponse> + Send + Sync>;

impl Consensus {
    /// To be called once, before anybody asks.
    pub fn answer_spent_with(&self, spent: Spent) {
        // A second one would change nothing.
        let _ = self.member.spent.set(spent);
    }

    /// Every node of the state with what it has spent of limits; None for those that gave no answer in time.
    pub async fn limit_usage(
        &self,
        request: &pb::LimitUsageRequest,
        deadline: Duration,
    ) -> Vec<(NodeId, Option<pb::LimitUsageResponse>)> {
        let own = async { Answer::LimitUsage(self.own_usage(request.clone()).await) };
        self.ask_all(Call::LimitUsage(request.clone()), own, deadline, |it| match it {
            Answer::LimitUsage(answer) => Some(answer),
            _ => None,
        })
        .await
    }

    /// Every other node with what it knows of an upstream's servers: None for those that gave no answer in time, None within
    /// for those that serve no such upstream.
    pub async fn upstream_healths(
        &self,
        upstream: &str,
        deadline: Duration,
    ) -> Vec<(NodeId, Option<Option<NodeUpstreamHealth>>)> {
        let call = Call::UpstreamHealth(pb::UpstreamHealthRequest { name: upstream.to_owned() });
        self.ask_others(&self.state(), call, deadline, |it| match it {
            Answer::UpstreamHealth(answer) => Some(answer.health),
            _ => None,
        })
        .await
    }

    /// Every node of the state with what it has counted lately; None for those that gave no answer in time.
    pub async fn traffic(
        &self,
        request: &pb::TrafficRequest,
        deadline: Duration,
    ) -> Vec<(NodeId, Option<NodeTraffic>)> {
        let own = async { self.member.answer_traffic(request) };
        self.ask_all(Call::Traffic(request.clone()), own, deadline, |it| match it {
            Answer::Traffic(answer) => answer.traffic,
            _ => None,
        })
        .await
    }

    /// Every node of the state with who called versions that are on their way out; None for those that gave no answer in time.
    pub async fn callers(&self, deadline: Duration) -> Vec<(NodeId, Option<pb::CallersResponse>)> {
        let own = async { Answer::Callers(self.member.callers()) };
        self.ask_all(Call::Callers(pb::CallersRequest {}), own, deadline, |it| match it {
            Answer::Callers(answer) => Some(answer),
            _ => None,
        })
        .await
    }

    /// Every node of the state with what it has had of models; None for those that gave no answer in time.
    pub async fn ai_usage(
        &self,
        request: &pb::AiUsageRequest,
        deadline: Duration,
    ) -> Vec<(NodeId, Option<pb::AiUsageResponse>)> {
        let own = async { Answer::AiUsage(self.member.ai_usage(request)) };
        self.ask_all(Call::AiUsage(request.clone()), own, deadline, |it| match it {
            Answer::AiUsage(answer) => Some(answer),
            _ => None,
        })
        .await
    }

    /// Every node of the state with the callers that it has seen; None for those that gave no answer in time.
    pub async fn anomalies(
        &self,
        request: &pb::AnomaliesRequest,
        deadline: Duration,
    ) -> Vec<(NodeId, Option<pb::AnomaliesResponse>)> {
        let own = async { Answer::Anomalies(self.own_anomalies(request.clone()).await) };
        self.ask_all(Call::Anomalies(request.clone()), own, deadline, |it| match it {
            Answer::Anomalies(answer) => Some(answer),
            _ => None,
        })
        .await
    }

    /// Every node of the state with what is taken of its answer, this one's its own; None for those that gave none in time.
    async fn ask_all<T>(
        &self,
        call: Call,
        own: impl Future<Output = Answer>,
        deadline: Duration,
        taken: fn(Answer) -> Option<T>,
    ) -> Vec<(NodeId, Option<T>)> {
        let (state, me) = (self.state(), self.member.me.node);
        let own = async { if state.nodes.contains_key(&me) { Some((me, taken(own.await))) } else { None } };
        let (mut answers, own) = tokio::join!(self.ask_others(&state, call, deadline, taken), own);
        answers.extend(own);
        answers.sort_by_key(|(id, _)| *id);
        answers
    }

    /// Those known to be out of reach are not waited for.
    async fn ask_others<T>(
        &self,
        state: &State,
        call: Call,
        deadline: Duration,
        taken: fn(Answer) -> Option<T>,
    ) -> Vec<(NodeId, Option<T>)> {
        let call = &call;
        let others = state.nodes.values().filter(|node| node.id != self.member.me.node);
        let asked = others.map(|node| async move {
            if self.member.peers.is_silent(node.id) {
                return (node.id, None);
            }
            let target = Target { id: node.id, address: node.peer_address.clone() };
            let answer = self.member.peers.call(&target, call.clone(), deadline).await;
            (node.id, answer.ok().and_then(taken))
        });
        join_all(asked).await
    }

    pub(super) async fn own_anomalies(&self, request: pb::AnomaliesRequest) -> pb::AnomaliesResponse {
        match self.member.anomalies.get() {
            Some(anomalies) => anomalies.answer(request).await,
            None => pb::AnomaliesResponse::default(),
        }
    }

    pub(super) async fn own_usage(&self, request: pb::LimitUsageRequest) -> pb::LimitUsageResponse {
        match self.member.spent.get() {
            Some(spent) => spent(request).await,
            None => pb::LimitUsageResponse::default(),
        }
    }
}

/// One node's state; None if it gave no answer.
pub struct NodeHash {
    pub node: String,
    pub at: Option<(u64, Digest)>,
}

/// Audit entries from the newest down, each proven by the hash that the one above it holds.
struct Chain {
    /// The sequence number that comes next, 0 at the end, and its hash.
    next: u64,
    hash: Digest,
    entries: Vec<AuditEntry>,
    limit: usize,
}

impl Chain {
    fn wants(&self) -> bool {
        self.next > 0 && self.entries.len() < self.limit
    }

    /// Takes what fits; false if nothing did.
    fn extend(&mut self, newest_first: Vec<AuditEntry>) -> bool {
        let before = self.entries.len();
        for entry in newest_first {
            if self.wants() && entry.sequence == self.next && entry.hash() == self.hash {
                (self.next, self.hash) = (entry.sequence - 1, entry.previous);
                self.entries.push(entry);
            }
        }
        self.entries.len() > before
    }
}

impl Member {
    async fn peer_hash(&self, node: &NodeRecord, index: u64, within: Duration) -> Option<(u64, Digest)> {
        let target = Target { id: node.id, address: node.peer_address.clone() };
        let request = pb::StateHashRequest { index, deadline_ms: within.as_millis() as u64 };
        match self.peers.call(&target, Call::StateHash(request), within).await {
            Ok(Answer::StateHash(answer)) => Some((answer.index, Digest(answer.hash.try_into().ok()?))),
            _ => None,
        }
    }

    /// Of this node's journal, newest first, below that sequence number.
    pub(super) async fn own_audit(&self, before: u64, limit: usize) -> Vec<AuditEntry> {
        let journal = self.journal.clone();
        tokio::task::spawn_blocking(move || journal.audit(before, limit)).await.unwrap_or_default()
    }

    pub(super) async fn own_revision_diff(&self, revision: u64) -> Option<RevisionDiff> {
        let journal = self.journal.clone();
        tokio::task::spawn_blocking(move || journal.revision_diff(revision)).await.ok().flatten()
    }

    async fn await_own(&self, index: u64, ends: Instant) -> Published {
        let mut published = self.published.subscribe();
        let _ = until(ends, published.wait_for(|published| published.index >= index)).await;
        *self.published.borrow()
    }

    /// Asks in slices, so that a peer that has died is told from one that is slow. None: it does not answer.
    async fn await_peer(self: &Member, target: &Target, index: u64, ends: Instant) -> Option<Published> {
        let mut last = None;
        loop {
            let left = ends.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return last;
            }
            // Known to be out of reach: waiting for it tells nothing new.
            if self.peers.is_silent(target.id) {
                return None;
            }
            let slice = left.min(SLICE);
            let request = pb::AwaitPublishedRequest { index, deadline_ms: slice.as_millis() as u64 };
            let patience = slice + SLICE.min(left) + 4 * self.timing.max_rtt;
            let answer = timeout(patience, self.peers.call(target, Call::AwaitPublished(request), patience)).await;
            let Ok(Ok(Answer::AwaitPublished(answer))) = answer else { return None };
            let published = Published {
                index: answer.published_index,
                revision: answer.published_revision,
                at_ms: answer.published_at_ms,
            };
            if published.index >= index {
                return Some(published);
            }
            last = Some(published);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(head: AuditHead) -> (AuditEntry, AuditHead) {
        let entry = AuditEntry {
            sequence: head.count + 1,
            index: head.count + 1,
            revision: 0,
            wall_ms: 0,
            actor: Arc::default(),
            message: String::new(),
            summary: "something".into(),
            previous: head.hash,
        };
        let after = AuditHead { count: entry.sequence, hash: entry.hash() };
        (entry, after)
    }

    #[test]
    fn what_a_peer_gives_is_taken_as_far_as_the_chain_proves_it() {
        let (first, after_first) = entry(AuditHead::default());
        let (second, after_second) = entry(after_first);
        let (third, _) = entry(after_second);
        let check = |head, given: &[&AuditEntry], expected: &[u64]| {
            let proven = proven_after(head, given.iter().map(|it| (*it).clone()));
            assert_eq!(proven.iter().map(|it| it.sequence).collect::<Vec<_>>(), expected);
        };
        check(AuditHead::default(), &[&first, &second, &third], &[1, 2, 3]);
        check(after_first, &[&first, &second, &third], &[2, 3]);
        check(after_first, &[&third], &[]);
        check(after_first, &[], &[]);
        let forged = AuditEntry { message: "not so".into(), ..second.clone() };
        check(after_first, &[&forged, &third], &[2]);
        check(AuditHead { hash: Digest::default(), ..after_first }, &[&second, &third], &[]);
    }
}
