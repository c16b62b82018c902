//! What this member answers to its peers.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::BoxStream};
use openraft::async_runtime::watch::WatchReceiver;
use prost::Message;
use quorumgate_model::{
    NodeId,
    command::{Actor, AdmitNode, Body, NodeRecord, Reason as ModelReason, Rejected, Role, Standing},
    convert,
    digest::Digest,
    mutants::{self, Mutant},
    resource::Name,
    state::State,
};
use quorumgate_proto::{
    peer::v1::{self as pb, failure::Reason, request::Call, response::Answer},
    store::v1 as store,
};
use quorumgate_raft_store::{Snapshot, SnapshotFile, wire};

use super::{
    Consensus, Draft, ProposeError, REMOVED, convert as raft_convert,
    member::Member,
    propose::{Attempt, until},
    survey::AUDIT_PAGE,
};
use crate::{
    failures::{FAILURES_MAX, FAILURES_WITHIN, Failures},
    peer::{Inbound, Rights, frame},
    pki::{self, PeerIdentity},
};

/// The longest deadline that a peer may ask for.
const DEADLINE_MAX: Duration = Duration::from_secs(60);
/// Of a frame, what is left for the words around one entry.
const FRAME_SPARE: usize = 1 << 20;
/// How many nodes a joiner is told of.
const PEERS_MAX: usize = 16;
/// How long an admission may take.
const ADMIT_MAX: Duration = Duration::from_secs(15);

impl Inbound for Consensus {
    fn admit(&self, identity: &PeerIdentity, incarnation: &[u8]) -> Result<(), String> {
        let state = self.member.state();
        if identity.cluster != self.member.me.cluster {
            return Err("the certificate is of another cluster".into());
        }
        if state.removed.contains_key(&identity.node) {
            return Err(REMOVED.into());
        }
        match state.nodes.get(&identity.node) {
            Some(node) if node.incarnation != incarnation && !mutants::is(Mutant::WipedNodeLetIn) => {
                Err("its data directory is not the one that this node joined with".into())
            }
            Some(node) if node.spki_sha256 != identity.spki_sha256 => Err("its key is not the node's".into()),
            Some(_) => Ok(()),
            // An id is the index that admitted it: this node has yet to apply that.
            None if identity.node > state.index || state.cluster.is_none() => Ok(()),
            None => Err(REMOVED.into()),
        }
    }

    async fn call(&self, rights: Rights, from: SocketAddr, call: Call) -> Answer {
        let answered = match call {
            Call::Vote(request) => self.member.vote(&request, false).await,
            Call::PreVote(request) => self.member.vote(&request, true).await,
            Call::TransferLeader(request) => self.member.take_over(&request).await,
            Call::Propose(request) => self.member.answer_propose(request).await,
            Call::ReadIndex(request) => self.member.answer_read_index(&request).await,
            Call::Status(_) => Ok(Answer::Status(self.status())),
            Call::AwaitPublished(request) => Ok(self.member.answer_await_published(&request).await),
            Call::Audit(request) => Ok(self.answer_audit(&request).await),
            Call::RevisionDiff(request) => Ok(self.member.answer_revision_diff(request.revision).await),
            Call::StateHash(request) => {
                let within = Duration::from_millis(request.deadline_ms).min(DEADLINE_MAX);
                match self.own_hash(request.index, within).await {
                    Some((index, hash)) => {
                        Ok(Answer::StateHash(pb::StateHashResponse { index, hash: hash.0.to_vec() }))
                    }
                    None => Err((Reason::NoQuorum, format!("{} is not applied here yet", request.index))),
                }
            }
            Call::LimitUsage(request) => Ok(Answer::LimitUsage(self.own_usage(request).await)),
            Call::Exchange(request) => Ok(self.member.answer_exchange(&request).await),
            Call::UpstreamHealth(request) => Ok(self.member.answer_upstream_health(&request)),
            Call::Traffic(request) => Ok(self.member.answer_traffic(&request)),
            Call::Callers(_) => Ok(Answer::Callers(self.member.callers())),
            Call::AiUsage(request) => Ok(Answer::AiUsage(self.member.ai_usage(&request))),
            Call::Anomalies(request) => Ok(Answer::Anomalies(self.own_anomalies(request).await)),
            Call::Report(_) => Ok(Answer::Report(self.member.report().await)),
            Call::Membership(request) => self.answer_membership(&request).await,
            Call::Join(request) => self.answer_join(request, from).await,
            Call::Renew(request) => match rights {
                Rights::Member(identity) | Rights::Renew(identity) => self.member.answer_renew(&request, &identity),
                Rights::Join => Err((Reason::Refused, "not without a certificate".into())),
            },
            Call::Append(_) | Call::Snapshot(_) => Err((Reason::Invalid, "not as a call".into())),
        };
        answered.unwrap_or_else(|(reason, message)| {
            let leader = self.member.glance().leader.unwrap_or(0);
            Answer::Failure(pb::Failure { reason: reason.into(), message, leader, ..Default::default() })
        })
    }

    fn append(&self, requests: BoxStream<'static, pb::AppendRequest>) -> BoxStream<'static, pb::AppendResponse> {
        let member = self.member.clone();
        let requests = requests.map(move |request| {
            member.heard_of_leader();
            raft_convert::append_from(request)
        });
        // An entry that cannot be decoded stops consensus here before it: skipping it would be divergence.
        let halted = self.member.clone();
        let requests = requests.scan((), move |(), request| {
            let request = request.map_err(|error| halted.halt(&format!("an entry cannot be read: {error:#}")));
            std::future::ready(request.ok())
        });
        let results = self.member.raft.stream_append(requests);
        results.filter_map(|result| std::future::ready(result.ok().map(|it| raft_convert::appended_to(&it)))).boxed()
    }

    fn snapshot_file(&self) -> PathBuf {
        self.member.snapshots_dir.join(format!("incoming-{}.tmp", uuid::Uuid::new_v4()))
    }

    async fn snapshot(&self, head: pb::SnapshotRequest, file: PathBuf) -> Answer {
        let installed = self.member.install(head, file.clone()).await;
        // It was renamed if it was taken.
        let _ = tokio::fs::remove_file(&file).await;
        installed.unwrap_or_else(|error| {
            let message = format!("{error:#}");
            tracing::warn!(error = message, "refused a snapshot");
            Answer::Failure(pb::Failure { reason: Reason::Refused.into(), message, ..Default::default() })
        })
    }
}

type Answered = Result<Answer, (Reason, String)>;

fn invalid(error: impl std::fmt::Display) -> (Reason, String) {
    (Reason::Invalid, error.to_string())
}

fn fatal(error: impl std::fmt::Display) -> (Reason, String) {
    (Reason::Stopped, error.to_string())
}

fn ends_in(deadline_ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(deadline_ms).min(DEADLINE_MAX)
}

impl Member {
    /// Refuses to vote for one election timeout after the process started: a leader that had this vote's lease before
    /// the restart may still count on it. A leadership transfer is that leader's own wish.
    async fn vote(&self, request: &pb::VoteRequest, only_asked: bool) -> Answered {
        if let Some(reason) = self.stopped() {
            return Err((Reason::Stopped, reason));
        }
        if !request.leadership_transfer && self.started.elapsed() < self.timing.election_max {
            let vote = self.raft.metrics().borrow_watched().vote;
            return Ok(Answer::Vote(pb::VoteResponse {
                vote: Some(wire::vote_to(&vote)),
                granted: false,
                last_log_id: None,
            }));
        }
        let request = raft_convert::vote_request_from(request).map_err(invalid)?;
        let response = match only_asked {
            true => self.raft.pre_vote(request).await,
            false => self.raft.vote(request).await,
        };
        Ok(Answer::Vote(raft_convert::vote_response_to(&response.map_err(fatal)?)))
    }

    async fn take_over(&self, request: &pb::TransferLeaderRequest) -> Answered {
        let request = raft_convert::transfer_from(request).map_err(invalid)?;
        match self.raft.handle_transfer_leader(request).await.map_err(fatal)? {
            Ok(()) => Ok(Answer::TransferLeader(pb::TransferLeaderResponse {})),
            Err(error) => Err((Reason::Refused, error.to_string())),
        }
    }

    /// Forwarded once: whoever is not the leader any more says so.
    async fn answer_propose(&self, request: pb::ProposeRequest) -> Answered {
        let ends = ends_in(request.deadline_ms);
        let command = request.command.ok_or((Reason::Invalid, "a proposal without its command".into()))?;
        let bytes = command.encoded_len();
        if bytes > frame::FRAME_MAX - FRAME_SPARE {
            return Err((Reason::Refused, format!("the command takes {bytes} bytes, too many for one entry")));
        }
        let command = convert::command_from(command).map_err(invalid)?;
        let draft =
            Draft { request_id: command.request_id, asked: command.asked, actor: command.actor, body: command.body };
        match self.propose_here(&draft, ends).await {
            Attempt::Done(applied) => {
                Ok(Answer::Propose(pb::ProposeResponse { outcome: Some(convert::applied_to(&applied)) }))
            }
            Attempt::NotAppended(reason) => Err((Reason::NotLeader, reason)),
            Attempt::Unknown(reason) => Err((Reason::OutcomeUnknown, reason)),
            Attempt::Refused(reason) => Err((Reason::Refused, reason)),
            Attempt::Stopped(reason) => Err((Reason::Stopped, reason)),
        }
    }

    async fn answer_read_index(&self, request: &pb::ReadIndexRequest) -> Answered {
        match until(ends_in(request.deadline_ms), self.read_index_here()).await {
            Some(Ok(index)) => Ok(Answer::ReadIndex(pb::ReadIndexResponse { index, leader: self.me.node })),
            Some(Err(reason)) => Err((Reason::NotLeader, reason)),
            None => Err((Reason::NoQuorum, "no quorum has answered within the deadline".into())),
        }
    }

    async fn answer_await_published(&self, request: &pb::AwaitPublishedRequest) -> Answer {
        let mut published = self.published.subscribe();
        let wait = published.wait_for(|published| published.index >= request.index);
        let _ = until(ends_in(request.deadline_ms), wait).await;
        let published = *self.published.borrow();
        Answer::AwaitPublished(pb::AwaitPublishedResponse {
            published_index: published.index,
            published_revision: published.revision,
            published_at_ms: published.at_ms,
        })
    }

    async fn answer_revision_diff(&self, revision: u64) -> Answer {
        let diff = self.own_revision_diff(revision).await.map(|diff| convert::diff_to(&diff));
        Answer::RevisionDiff(pb::RevisionDiffResponse { diff })
    }

    fn answer_renew(&self, request: &pb::RenewRequest, identity: &PeerIdentity) -> Answered {
        let refused = |error: anyhow::Error| (Reason::Refused, format!("{error:#}"));
        if !self.state().nodes.contains_key(&identity.node) {
            return Err((Reason::Refused, "this node does not know it yet".into()));
        }
        let is_its = pki::request_spki_sha256(&request.csr).map_err(refused)? == identity.spki_sha256;
        if !is_its && !mutants::is(Mutant::RenewedForAnotherKey) {
            return Err((Reason::Refused, "the request is for another key".into()));
        }
        let certificate = self.sign(&request.csr, identity.node).map_err(refused)?;
        Ok(Answer::Renew(pb::RenewResponse { certificate: certificate.to_vec() }))
    }

    async fn install(&self, head: pb::SnapshotRequest, file: PathBuf) -> anyhow::Result<Answer> {
        self.heard_of_leader();
        let meta = head.meta.as_ref().ok_or_else(|| anyhow::anyhow!("a snapshot without its description"))?;
        let snapshot = Snapshot {
            meta: wire::snapshot_meta_from(meta)?,
            snapshot: SnapshotFile { path: file, length: head.length },
        };
        let vote = raft_convert::vote_from(head.vote.as_ref())?;
        let response = self.raft.install_full_snapshot(vote, snapshot).await?;
        Ok(Answer::Snapshot(pb::SnapshotResponse { vote: Some(wire::vote_to(&response.vote)) }))
    }
}

impl Consensus {
    async fn answer_audit(&self, request: &pb::AuditRequest) -> Answer {
        let entries = self.member.own_audit(request.before, (request.limit as usize).min(AUDIT_PAGE)).await;
        Answer::Audit(pb::AuditResponse { entries: entries.iter().map(convert::audit_to).collect() })
    }

    pub(super) fn status(&self) -> pb::StatusResponse {
        let view = self.view();
        let published = *self.member.published.borrow();
        let state = self.member.state();
        let draining = state.nodes.get(&view.id).is_some_and(|node| node.standing != Standing::Active);
        pb::StatusResponse {
            applied_index: state.index,
            published_index: published.index,
            published_revision: published.revision,
            published_at_ms: published.at_ms,
            term: view.term,
            leader: view.leader.unwrap_or(0),
            version: crate::VERSION.into(),
            ready: self.member.ready.load(Ordering::Relaxed),
            draining,
            certificate_not_after: self.certificate_not_after(),
            last_log_index: view.last_log_index,
            problems: self.member.problems.borrow().clone(),
            round_trips: self.member.round_trips(),
            sealing_keys: self.member.keyring.on_disk(),
        }
    }

    async fn answer_membership(&self, request: &pb::MembershipRequest) -> Answered {
        let deadline = Duration::from_millis(request.deadline_ms).min(DEADLINE_MAX);
        let to = (request.node_id != 0).then_some(request.node_id);
        match request.act() {
            pb::membership_request::Act::TransferLeader => match self.member.hand_over(to, deadline).await {
                Ok((leader, term)) => Ok(Answer::Membership(pb::MembershipResponse { leader, term })),
                Err(error) => Err((reason(&error), error.to_string())),
            },
            pb::membership_request::Act::Unspecified => Err((Reason::Invalid, "an unknown act".into())),
        }
    }

    /// Any node may let a joiner in: the token is checked here and by apply, which consumes it; the certificate is signed
    /// from the CA key in this node's own state.
    async fn answer_join(&self, request: pb::JoinRequest, from: SocketAddr) -> Answered {
        let csr = request.csr.clone();
        let actor = Arc::new(Actor {
            name: format!("join token {}", request.token_id),
            source: from.to_string(),
            rpc: "Join".into(),
            ..Default::default()
        });
        // Who shows a good token is not held up by the failures of others at the address.
        let are_too_many = self.locked_refused_joins().are_too_many(from.ip(), Instant::now());
        if are_too_many && let Err(rejected) = judge(&self.member.state(), &request) {
            return Ok(self.refuse_join(&actor, from, rejected));
        }
        let state = self.linearize(ADMIT_MAX).await.map_err(|error| (reason(&error), error.to_string()))?;
        let admit = match judge(&state, &request) {
            Ok(Judged::IsIn(id)) => {
                return self.welcome(id, &csr).map_err(|error| (Reason::Refused, format!("{error:#}")));
            }
            Ok(Judged::MayComeIn(admit)) => *admit,
            Err(rejected) => return Ok(self.refuse_join(&actor, from, rejected)),
        };
        let draft = Draft { request_id: None, asked: None, actor: actor.clone(), body: Body::AdmitNode(admit) };
        let applied = self.propose(draft, ADMIT_MAX).await.map_err(|error| (reason(&error), error.to_string()))?;
        let outcome = match applied.outcome {
            Ok(outcome) => outcome,
            Err(rejected) => return Ok(self.refuse_join(&actor, from, rejected)),
        };
        let node_id = outcome.node_id.ok_or((Reason::Refused, "it was admitted without an id".into()))?;
        self.welcome(node_id, &csr).map_err(|error| (Reason::Refused, format!("{error:#}")))
    }

    /// Counts, logs and notes a refusal, as the admin API does.
    fn refuse_join(&self, actor: &Actor, from: SocketAddr, rejected: Rejected) -> Answer {
        let count = self.locked_refused_joins().count(from.ip(), Instant::now());
        let (word, why) = (rejected.reason.word(), &rejected.message);
        self.member.denials.note(from.ip(), word, convert::actor_to(actor), why, count < FAILURES_MAX);
        if count < FAILURES_MAX {
            tracing::info!(%from, actor = actor.name, why, "refused a join");
        } else if count == FAILURES_MAX {
            tracing::warn!(address = %from.ip(), "many joins refused; the next ones within a minute are not logged");
        }
        let (message, rejection) = match count < FAILURES_MAX {
            true => (rejected.message, word),
            false => (format!("too many joins of this address were refused; again in {FAILURES_WITHIN:?}"), ""),
        };
        let (reason, rejection) = (Reason::Refused.into(), rejection.into());
        Answer::Failure(pb::Failure { reason, message, leader: 0, rejection })
    }

    fn locked_refused_joins(&self) -> MutexGuard<'_, Failures> {
        self.member.refused_joins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn welcome(&self, node_id: u64, csr: &[u8]) -> anyhow::Result<Answer> {
        let state = self.member.state();
        let facts = state.cluster.as_ref().ok_or_else(|| anyhow::anyhow!("this node does not know the cluster yet"))?;
        Ok(Answer::Join(pb::JoinResponse {
            node_id,
            cluster_id: facts.id.to_vec(),
            cluster_name: facts.name.clone(),
            ca_certificate: facts.ca_certificate.clone(),
            certificate: self.member.sign(csr, node_id)?.to_vec(),
            cluster_key: self.member.keyring.at(&state).to_bytes(),
            max_rtt_us: facts.max_rtt.as_micros() as u64,
            peers: state.nodes.values().filter(|node| node.id != node_id).take(PEERS_MAX).map(address).collect(),
        }))
    }
}

fn address(node: &Arc<NodeRecord>) -> pb::PeerAddress {
    pb::PeerAddress { node_id: node.id, address: node.peer_address.clone() }
}

enum Judged {
    /// A repeat: the request is signed by the key that was let in, and uses up no second token.
    IsIn(NodeId),
    MayComeIn(Box<AdmitNode>),
}

/// What apply would refuse is refused here already: whoever reaches the peer port could have the cluster write.
fn judge(state: &State, request: &pb::JoinRequest) -> Result<Judged, Rejected> {
    let node = joiner(state, request).map_err(|message| ModelReason::Invalid.because(message))?;
    let same = |it: &NodeRecord| (it.incarnation, it.spki_sha256) == (node.incarnation, node.spki_sha256);
    if let Some(admitted) = state.nodes.values().find(|it| same(it)) {
        return Ok(Judged::IsIn(admitted.id));
    }
    let token_secret_hash = Digest::of(&request.token_secret);
    let admit = AdmitNode { token_id: request.token_id.clone(), token_secret_hash, node };
    state.check_admission(&admit)?;
    Ok(Judged::MayComeIn(Box::new(admit)))
}

fn joiner(state: &State, request: &pb::JoinRequest) -> Result<NodeRecord, String> {
    let wanted_role = match request.role() {
        store::Role::Voter => Role::Voter,
        store::Role::Replica => Role::Replica,
        // An unknown token is refused with its reason.
        store::Role::Unspecified => state.join_tokens.get(&request.token_id).map_or(Role::Voter, |token| token.role),
    };
    Ok(NodeRecord {
        id: 0,
        name: request.name.parse::<Name>().map_err(|error| error.to_string())?,
        region: request.region.clone(),
        peer_address: request.peer_address.clone(),
        incarnation: request.incarnation[..].try_into().map_err(|_| "an incarnation has 16 bytes")?,
        spki_sha256: pki::request_spki_sha256(&request.csr).map_err(|error| format!("{error:#}"))?,
        wanted_role,
        standing: Standing::Active,
        level: request.level,
        version: request.version.clone(),
    })
}

fn reason(error: &ProposeError) -> Reason {
    match error {
        ProposeError::NoQuorum(_) => Reason::NoQuorum,
        ProposeError::OutcomeUnknown(_) => Reason::OutcomeUnknown,
        ProposeError::Stopped(_) => Reason::Stopped,
        ProposeError::Refused(_) | ProposeError::TooLarge { .. } => Reason::Refused,
    }
}
