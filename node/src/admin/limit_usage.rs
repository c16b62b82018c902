//! The LimitUsage service: what is used, over all nodes, and what an operator gives and forgives.

use std::sync::Arc;

use quorumgate_model::{
    command::{Body, GrantBonus, ResetLimit},
    ledger::KEY_BYTES_MAX,
    resource::{Limit, LimitKind, LimitPart, Name, bucket_window_us},
    state::{MESSAGE_BYTES_MAX, State},
};
use quorumgate_proto::admin::v1::{self as admin, limit_usage_server::LimitUsage};
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use super::{
    config::{messages, taken},
    desk::{self, Desk},
    failure,
    gate::Call,
};
use crate::{
    consensus::Consensus,
    usage::{self, KeyReport, LimitReport, Question, Usage},
};

const TOP_DEFAULT: u32 = 20;
/// All limits are asked for at most this many keys each.
const TOP_OF_ALL_MAX: u32 = 100;

pub struct Service {
    desk: Desk,
}

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    pub fn new(consensus: Consensus) -> Self {
        Self { desk: Desk { consensus } }
    }

    /// Proposes, and answers once every node in reach spends by it.
    async fn write(&self, call: &Call, request_id: Uuid, body: Body) -> Result<admin::WriteResponse, Status> {
        let applied = self.desk.propose(call, request_id, body).await?;
        let mut answer = self.desk.respond_other(call, &applied, Some(request_id)).await?;
        let late = Usage::wait_followed(&self.desk.consensus, call.left()).await;
        if !late.is_empty() {
            answer.warnings.push(format!("not yet followed by {}", late.join(", ")));
        }
        Ok(answer)
    }
}

#[tonic::async_trait]
impl LimitUsage for Service {
    async fn get_usage(&self, request: Request<admin::GetUsageRequest>) -> Answer<admin::GetUsageResponse> {
        let (call, request) = taken(request)?;
        let state = self.desk.consensus.state();
        let questions = questions(&state, request)?;
        let usage = Usage::ask(&self.desk.consensus, questions, call.left()).await;
        Ok(Response::new(admin::GetUsageResponse {
            header: Some(self.desk.header()),
            limits: usage.limits.iter().map(report).collect(),
            unanswered: usage.unanswered,
        }))
    }

    async fn reset_usage(&self, request: Request<admin::ResetUsageRequest>) -> Answer<admin::WriteResponse> {
        let (call, request) = taken(request)?;
        let request_id = desk::request_id(&request.request_id)?;
        let limit = name(&request.limit)?;
        let key = request.key.as_deref().map(key).transpose()?;
        let reason = reason(request.message)?;
        let body = Body::ResetLimit(ResetLimit { limit, key, reason });
        self.write(&call, request_id, body).await.map(Response::new)
    }

    async fn grant_bonus(&self, request: Request<admin::GrantBonusRequest>) -> Answer<admin::WriteResponse> {
        let (call, request) = taken(request)?;
        let request_id = desk::request_id(&request.request_id)?;
        let limit = name(&request.limit)?;
        let key = key(&request.key)?;
        let lasts = desk::duration("lasts", request.lasts)?;
        let (amount, reason) = (request.amount, reason(request.message)?);
        let body = Body::GrantBonus(GrantBonus { limit, key, amount, lasts, reason });
        self.write(&call, request_id, body).await.map(Response::new)
    }
}

fn questions(state: &State, request: admin::GetUsageRequest) -> Result<Vec<Question>, Status> {
    let top_max = if request.limit.is_empty() { TOP_OF_ALL_MAX } else { usage::KEYS_MAX as u32 };
    let top = match request.top {
        0 => TOP_DEFAULT,
        top if top <= top_max => top,
        top => return Err(failure::bad_field("top", &format!("found {top}; allowed: 1 to {top_max}"))),
    } as usize;
    if request.limit.is_empty() {
        if request.key.is_some() {
            return Err(failure::bad_field("limit", "found nothing; allowed: the limit that the key is of"));
        }
        let all = usage::limits_of(state);
        return Ok(all.map(|it| Question { limit: it.name.clone(), keys: None, top }).collect());
    }
    let limit = name(&request.limit)?;
    if usage::limit_named(state, &limit).is_none() {
        let why = format!("there is no limit {:?}", &*limit);
        return Err(failure::status(Code::NotFound, "NOT_FOUND", why));
    }
    let keys = request.key.map(|key| vec![key]);
    Ok(vec![Question { limit, keys, top }])
}

fn name(text: &str) -> Result<Name, Status> {
    text.parse().map_err(|why: String| failure::bad_field("limit", &why))
}

fn key(text: &str) -> Result<Arc<str>, Status> {
    match text.len() > KEY_BYTES_MAX {
        true => Err(failure::bad_field("key", &format!("found {} bytes; allowed: {KEY_BYTES_MAX}", text.len()))),
        false => Ok(text.into()),
    }
}

fn reason(text: String) -> Result<String, Status> {
    match text.len() > MESSAGE_BYTES_MAX {
        true => {
            let why = format!("found {} bytes; allowed: at most {MESSAGE_BYTES_MAX}", text.len());
            Err(failure::bad_field("message", &why))
        }
        false => Ok(text),
    }
}

fn report(it: &LimitReport) -> admin::LimitReport {
    let decisions = |(node, it): &(String, quorumgate_proto::peer::v1::UsedLimit)| admin::NodeDecisions {
        node: node.clone(),
        admitted: it.admitted,
        refused: it.refused,
        let_through: it.let_through,
        unavailable: it.unavailable,
        waited: it.waited,
    };
    admin::LimitReport {
        limit: it.limit.name.to_string(),
        kind: kind(&it.limit.kind).to_owned(),
        mode: it.limit.mode.word().to_owned(),
        soft: it.limit.soft,
        broken: it.broken.clone().unwrap_or_default(),
        budget: it.budget,
        window: window(&it.limit),
        keys: it.keys.iter().map(key_usage).collect(),
        ledger_keys: it.ledger_keys,
        decisions: it.decisions.iter().map(decisions).collect(),
        per: it.limit.per.iter().map(part).collect(),
    }
}

fn key_usage(it: &KeyReport) -> admin::KeyUsage {
    let span = |us: Option<u64>| us.map(|us| messages::duration(std::time::Duration::from_micros(us)));
    let node = |it: &usage::NodeReport| admin::NodeUsage {
        node: it.node.clone(),
        region: it.region.clone(),
        held: it.held,
        used: it.used,
        demand: it.demand as f64 / 1_000.0,
    };
    admin::KeyUsage {
        key: it.key.clone(),
        used: it.used,
        limit: it.limit,
        held: it.nodes.iter().map(|it| (it.node.clone(), it.held)).collect(),
        resets_in: span(it.resets_in_us),
        bonus: it.bonus,
        bonus_ends_in: span(it.bonus_ends_in_us),
        quarantined: it.quarantined,
        coming_home: it.coming_home,
        free: it.free,
        nodes: it.nodes.iter().map(node).collect(),
        in_ledger: it.in_ledger,
    }
}

fn kind(kind: &LimitKind) -> &'static str {
    match kind {
        LimitKind::Sliding { .. } => "sliding",
        LimitKind::Bucket { .. } => "bucket",
        LimitKind::Calendar { .. } => "calendar",
        LimitKind::Concurrency { .. } => "concurrency",
    }
}

fn window(limit: &Limit) -> Option<prost_types::Duration> {
    let length = match &limit.kind {
        LimitKind::Sliding { window, .. } => window.0,
        LimitKind::Bucket { rate, window, burst } => {
            std::time::Duration::from_micros(bucket_window_us(*rate, window.0.as_micros() as u64, *burst))
        }
        LimitKind::Calendar { .. } | LimitKind::Concurrency { .. } => return None,
    };
    Some(messages::duration(length))
}

fn part(part: &LimitPart) -> String {
    match part {
        LimitPart::Consumer => "consumer".into(),
        LimitPart::Credential => "credential".into(),
        LimitPart::Route => "route".into(),
        LimitPart::Tenant => "tenant".into(),
        LimitPart::Global => "global".into(),
        LimitPart::Ip { v4, v6 } => format!("ip:{v4},{v6}"),
        LimitPart::Header(name) => format!("header:{name}"),
        LimitPart::Claim(name) => format!("claim:{name}"),
    }
}
