//! What the cluster has used of its limits: the ledger knows what it lent, each node what it spent of that and of its
//! standing shares. Whoever is asked adds both up, and names the nodes that did not answer.

pub mod metrics;
mod report;
pub mod watch;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::FutureExt;
use quorumgate_model::{
    NodeId,
    ledger::command::LimitId,
    resource::{self, Key, Kind, Limit, Name, Resource},
    state::State,
};
use quorumgate_proto::peer::v1 as pb;
use quorumgate_proxy::{Limits, limits::Keys};
use tokio::time::timeout;

pub use self::report::{KeyReport, LimitReport, NodeReport};
use crate::consensus::{Consensus, Spent};

/// For the answers of the other nodes, on top of a round trip of the cluster.
const ANSWERS_WITHIN: Duration = Duration::from_millis(400);
/// How many keys of one limit are asked for at a time.
pub const KEYS_MAX: usize = 1_000;
/// How many limits are asked for at a time.
const LIMITS_MAX: usize = 1_000;
/// The longest that a node waits for its ledger.
const VERSION_WAIT_MAX: Duration = Duration::from_secs(2);

/// What is asked of one limit.
#[derive(Debug, Clone)]
pub struct Question {
    pub limit: Name,
    /// None: those of which most is used.
    pub keys: Option<Vec<String>>,
    pub top: usize,
}

/// The answers put together.
#[derive(Debug, Default)]
pub struct Usage {
    pub limits: Vec<LimitReport>,
    /// Names of nodes.
    pub unanswered: Vec<String>,
}

/// One node's answer.
struct Heard {
    id: NodeId,
    answer: pb::LimitUsageResponse,
}

/// What this node says when it is asked.
pub fn spent(limits: Arc<Limits>) -> Spent {
    Arc::new(move |request| own(limits.clone(), request).boxed())
}

async fn own(limits: Arc<Limits>, request: pb::LimitUsageRequest) -> pb::LimitUsageResponse {
    let wait = Duration::from_millis(request.deadline_ms).min(VERSION_WAIT_MAX);
    // What is not there in time shows in the answer's version.
    let _ = timeout(wait, limits.wait_applied(request.version)).await;
    // A million keys take longer than a heartbeat may wait.
    let read = tokio::task::spawn_blocking(move || {
        let (session, flight) = limits.flight();
        let version = limits.version();
        let known = request.limits.iter().take(LIMITS_MAX).filter_map(|it| own_of(&limits, it)).collect();
        pb::LimitUsageResponse { version, session, flight, limits: known }
    });
    read.await.unwrap_or_default()
}

fn own_of(limits: &Limits, it: &pb::LimitQuestion) -> Option<pb::UsedLimit> {
    let these = &it.keys[..it.keys.len().min(KEYS_MAX)];
    let keys = match these.is_empty() {
        true => Keys::Top((it.top as usize).min(KEYS_MAX)),
        false => Keys::These(these),
    };
    let used = limits.usage(&it.limit, keys)?;
    let key = |it: quorumgate_proxy::limits::KeyUse| pb::UsedKey {
        key: it.key.to_string(),
        used: it.used,
        free: it.free,
        on_their_way: it.on_their_way,
        whole_in_us: it.whole_in_us,
    };
    let decisions = used.decisions;
    Some(pb::UsedLimit {
        limit: it.limit.clone(),
        keys: used.keys.into_iter().map(key).collect(),
        keys_known: used.keys_known,
        admitted: decisions.admitted,
        refused: decisions.refused,
        let_through: decisions.let_through,
        unavailable: decisions.unavailable,
        waited: decisions.waited,
    })
}

impl Usage {
    /// Never an error: what is not known is missing, and `unanswered` says whose.
    pub async fn ask(consensus: &Consensus, questions: Vec<Question>, patience: Duration) -> Self {
        let state = consensus.state();
        let patience = patience.min(ANSWERS_WITHIN + 2 * state.timing().max_rtt);
        let first = heard(consensus, request(&questions), patience).await;
        // Where no node has left keys out, the first answers say all there is to say.
        let questions = questions.into_iter().map(|it| settled(it, &state, &first)).collect::<Vec<_>>();
        let open: Vec<_> = questions.iter().filter(|(_, whole)| !whole).map(|(it, _)| it.clone()).collect();
        let second = match open.is_empty() {
            true => Vec::new(),
            false => heard(consensus, request(&open), patience).await,
        };
        let state = consensus.state();
        let clock_us = consensus.clock_us();
        let merged = |(question, whole): &(Question, bool)| {
            let answers = if *whole { &first } else { &second };
            report::merge(question, &state, clock_us, answers)
        };
        let limits = questions.iter().filter_map(merged).collect();
        let last = if open.is_empty() { &first } else { &second };
        let answered: BTreeSet<NodeId> = last.iter().map(|it| it.id).collect();
        let silent = state.nodes.values().filter(|node| !answered.contains(&node.id));
        Self { limits, unanswered: silent.map(|node| node.name.to_string()).collect() }
    }

    /// Until what every node spends follows the ledger as it is here now; the names of those that did not get there.
    pub async fn wait_followed(consensus: &Consensus, patience: Duration) -> Vec<String> {
        let state = consensus.state();
        let version = state.ledger.version;
        let patience = patience.min(VERSION_WAIT_MAX);
        let ask = pb::LimitUsageRequest { limits: Vec::new(), version, deadline_ms: patience.as_millis() as u64 };
        let heard = heard(consensus, ask, patience + ANSWERS_WITHIN).await;
        let there: BTreeSet<NodeId> = heard.iter().filter(|it| it.answer.version >= version).map(|it| it.id).collect();
        let late = state.nodes.values().filter(|node| !there.contains(&node.id));
        late.map(|node| node.name.to_string()).collect()
    }
}

async fn heard(consensus: &Consensus, request: pb::LimitUsageRequest, patience: Duration) -> Vec<Heard> {
    let answers = consensus.limit_usage(&request, patience).await;
    answers.into_iter().filter_map(|(id, answer)| Some(Heard { id, answer: answer? })).collect()
}

fn request(questions: &[Question]) -> pb::LimitUsageRequest {
    let question = |it: &Question| pb::LimitQuestion {
        limit: it.limit.to_string(),
        keys: it.keys.clone().unwrap_or_default(),
        top: it.top as u32,
    };
    let limits = questions.iter().take(LIMITS_MAX).map(question).collect();
    pb::LimitUsageRequest { limits, version: 0, deadline_ms: 0 }
}

/// The keys that one node or the ledger puts among the first, and whether the first answers have all of each of them.
fn settled(question: Question, state: &State, first: &[Heard]) -> (Question, bool) {
    if question.keys.is_some() {
        return (question, true);
    }
    let mut keys = BTreeSet::new();
    let mut whole = true;
    for used in first.iter().flat_map(|it| &it.answer.limits).filter(|it| it.limit == *question.limit) {
        whole &= used.keys_known <= used.keys.len() as u64;
        keys.extend(used.keys.iter().map(|it| it.key.clone()));
    }
    if let Some(id) = state.ledger.names.get(&question.limit) {
        keys.extend(report::most_out(state, *id, question.top));
    }
    let keys: Vec<String> = keys.into_iter().take(KEYS_MAX).collect();
    // Nobody knows a key: there is nothing to ask for.
    let whole = whole || keys.is_empty();
    (Question { keys: Some(keys), ..question }, whole)
}

/// In the order of their names.
pub fn limits_of(state: &State) -> impl Iterator<Item = &Arc<Limit>> {
    let first: Name = "0".parse().expect("the first of all names");
    let all = state.resources.range(Key { kind: Kind::Limit, name: first }..);
    all.map_while(|(_, stored)| match &stored.resource {
        Resource::Limit(limit) => Some(limit),
        _ => None,
    })
}

pub fn limit_named<'a>(state: &'a State, name: &Name) -> Option<&'a Arc<Limit>> {
    let key = resource::Key { kind: Kind::Limit, name: name.clone() };
    match &state.resources.get(&key)?.resource {
        Resource::Limit(limit) => Some(limit),
        _ => None,
    }
}

fn id_of(state: &State, limit: &Limit) -> Option<LimitId> {
    state.ledger.names.get(&limit.name).copied().filter(|_| limit.mode != resource::LimitMode::Local)
}
