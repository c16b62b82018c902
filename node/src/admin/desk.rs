//! Reads and writes as every service does them: linearizable unless asked otherwise, with receipts.

use std::{sync::Arc, time::Duration};

use quorumgate_model::{
    NodeId,
    command::{Applied, Body, Outcome},
    digest::Digest,
    state::State,
};
use quorumgate_proto::admin::v1::{ChangeCounts, NodeReceipt, ResponseHeader, WriteResponse};
use tonic::{Code, Status};
use uuid::Uuid;

use super::{
    config::messages,
    failure,
    gate::Call,
    identity::{self, Held},
};
use crate::consensus::{Consensus, Draft, ProposeError, Receipt};

/// How long a write waits for the nodes to serve it; then it answers with the older number of those that lag.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(5);

/// For rows of the other nodes, on top of a round trip of the cluster.
pub const ROWS_WITHIN: Duration = Duration::from_millis(400);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Sees everything that was committed before the call.
    Linear,
    /// What this node has applied.
    Stale,
}

impl Read {
    pub fn stale(stale: bool) -> Self {
        if stale { Self::Stale } else { Self::Linear }
    }
}

/// A write that was applied and not refused.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    pub index: u64,
    pub revision: u64,
    pub outcome: Outcome,
}

#[derive(Clone)]
pub struct Desk {
    pub consensus: Consensus,
}

impl Desk {
    /// The last word of a call that goes on for long, once what its caller has shown stands no more.
    pub fn ended(&self, held: Option<&Held>) -> Option<Status> {
        let (state, now_us) = (self.consensus.state(), self.consensus.clock_us());
        let gone = identity::ended(&state, held?, now_us)?;
        Some(failure::status(Code::Unauthenticated, gone.reason(), gone.message()))
    }

    /// As of this node's newest state.
    pub fn header(&self) -> ResponseHeader {
        self.header_at(&self.consensus.state())
    }

    /// As of the state that the response was made from.
    pub fn header_at(&self, state: &State) -> ResponseHeader {
        let view = self.consensus.view();
        let id = state.cluster.as_ref().map(|facts| Uuid::from_bytes(facts.id).to_string());
        ResponseHeader {
            cluster_id: id.unwrap_or_default(),
            node: view.name,
            revision: state.revision,
            term: view.term,
            index: state.index,
        }
    }

    pub async fn read(&self, call: &Call, read: Read) -> Result<Arc<State>, Status> {
        match read {
            Read::Linear => self.consensus.linearize(call.left()).await.map_err(failure::unread),
            Read::Stale => Ok(self.consensus.state()),
        }
    }

    /// Until this node has applied `index` and its proxy goes by it: its tables follow its state.
    pub async fn served(&self, call: &Call, index: u64) -> Result<(), Status> {
        let applied = self.consensus.wait_applied(index, call.left()).await;
        applied.map_err(|error| failure::unapplied(index, error))?;
        let mut published = self.consensus.published();
        match tokio::time::timeout(call.left(), published.wait_for(|it| it.index >= index)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(failure::unserved(index)),
        }
    }

    /// The state, once this node knows its cluster: one that has just been begun elects its first leader meanwhile.
    pub async fn state_of_cluster(&self, call: &Call) -> Result<Arc<State>, Status> {
        let mut states = self.consensus.states();
        let known = tokio::time::timeout(call.left(), states.wait_for(|state| state.cluster.is_some())).await;
        match known {
            Ok(Ok(state)) => Ok(state.clone()),
            _ => Err(failure::status(Code::Unavailable, "NOT_BOOTSTRAPPED", "this node does not know its cluster yet")),
        }
    }

    /// Proposes and waits until it is applied here.
    pub async fn propose(&self, call: &Call, request_id: Uuid, body: Body) -> Result<Applied, Status> {
        self.propose_asked(call, request_id, None, body).await
    }

    /// For a request without an id of its own: nobody could repeat it under the one that its entry gets.
    pub async fn propose_once(&self, call: &Call, body: Body) -> Result<Applied, Status> {
        self.propose_unlike(call, None, body).await
    }

    /// Under an id of its own, for a request that may be repeated under another.
    pub async fn propose_unlike(&self, call: &Call, repeat: Option<Uuid>, body: Body) -> Result<Applied, Status> {
        let request_id = Some(Uuid::new_v4().into_bytes());
        self.put(call, Draft { request_id, asked: None, actor: call.actor.clone(), body }, repeat).await
    }

    /// For a body that follows from the request and the state: `asked` tells a repeat from another request.
    pub async fn propose_asked(
        &self,
        call: &Call,
        request_id: Uuid,
        asked: Option<Digest>,
        body: Body,
    ) -> Result<Applied, Status> {
        let asked = asked.map(|asked| self.veiled(asked));
        let draft = Draft { request_id: Some(request_id.into_bytes()), asked, actor: call.actor.clone(), body };
        self.put(call, draft, Some(request_id)).await
    }

    /// `repeat` is what the request may be repeated under.
    async fn put(&self, call: &Call, draft: Draft, repeat: Option<Uuid>) -> Result<Applied, Status> {
        self.state_of_cluster(call).await?;
        let left = call.left();
        if left.is_zero() {
            return Err(failure::unwritten(ProposeError::NoQuorum("the deadline has passed".into()), repeat));
        }
        self.consensus.propose(draft, left).await.map_err(|error| failure::unwritten(error, repeat))
    }

    /// A write that changes no resource, of a request without an id: its receipts count log indexes.
    pub async fn write_other(&self, call: &Call, body: Body) -> Result<WriteResponse, Status> {
        let applied = self.propose_once(call, body).await?;
        self.respond_other(call, &applied, None).await
    }

    pub async fn respond_other(
        &self,
        call: &Call,
        applied: &Applied,
        request_id: Option<Uuid>,
    ) -> Result<WriteResponse, Status> {
        let written = written(applied)?;
        let receipts = self.receipts(call, written.index).await;
        Ok(WriteResponse {
            header: Some(self.header()),
            revision: written.index,
            noop: written.outcome.noop,
            counts: Some(ChangeCounts::default()),
            nodes: receipts.into_iter().map(|it| receipt(&it, it.published_index)).collect(),
            request_id: request_id.map(|it| it.to_string()).unwrap_or_default(),
            ..WriteResponse::default()
        })
    }

    /// Who serves the entry at `index` by now.
    pub async fn receipts(&self, call: &Call, index: u64) -> Vec<Receipt> {
        self.consensus.await_published(index, PUBLISHED_WITHIN.min(call.left())).await
    }
}

/// What nodes have answered. The names of those that gave no answer go to `unanswered`, in order; one that was removed meanwhile
/// is missed by nobody.
pub fn heard<T>(state: &State, answers: Vec<(NodeId, Option<T>)>, unanswered: &mut Vec<String>) -> Vec<T> {
    let known = answers.into_iter().filter_map(|(id, answer)| Some((&state.nodes.get(&id)?.name, answer)));
    let (given, missing): (Vec<_>, Vec<_>) = known.partition(|(_, answer)| answer.is_some());
    unanswered.extend(missing.into_iter().map(|(name, _)| name.to_string()));
    unanswered.sort();
    given.into_iter().filter_map(|(_, answer)| answer).collect()
}

pub fn written(applied: &Applied) -> Result<Written, Status> {
    match &applied.outcome {
        Ok(outcome) => Ok(Written { index: applied.index, revision: applied.revision, outcome: *outcome }),
        Err(rejected) => Err(failure::rejected(rejected)),
    }
}

pub fn receipt(receipt: &Receipt, served: u64) -> NodeReceipt {
    NodeReceipt {
        name: receipt.name.clone(),
        applied_revision: served,
        applied_at: (receipt.published_at_ms > 0).then(|| messages::timestamp_ms(receipt.published_at_ms)),
        unreachable: receipt.unreachable,
    }
}

/// "" makes a new one.
pub fn request_id(text: &str) -> Result<Uuid, Status> {
    if text.is_empty() {
        return Ok(Uuid::new_v4());
    }
    Uuid::parse_str(text).map_err(|_| failure::bad_field("request_id", &format!("found {text:?}; allowed: a UUID")))
}

impl Desk {
    /// Requests hold secrets, and the log remembers their digests: nobody who reads one there can try guesses on it.
    pub fn veiled(&self, asked: Digest) -> Digest {
        Digest(self.consensus.keys().hash("quorumgate 2026 digest of a request", &asked.0))
    }
}

/// What a call asks for: what must be equal for a repeated request id to be a repeat.
pub fn asked(call: &Call, parts: &[&[u8]]) -> Digest {
    let mut bytes = Vec::new();
    for part in [call.actor.rpc.as_bytes()].iter().chain(parts) {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(*part);
    }
    Digest::of(&bytes)
}

/// A protobuf duration that must not be negative; None when it is absent.
pub fn duration(field: &str, given: Option<prost_types::Duration>) -> Result<Option<Duration>, Status> {
    let Some(given) = given else { return Ok(None) };
    let negative = |_| failure::bad_field(field, "found less than 0s; allowed: 0s or more");
    Duration::try_from(given).map(Some).map_err(negative)
}
