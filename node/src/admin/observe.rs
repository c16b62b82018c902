//! The Observe service: what the gateway would do with a request, and what the nodes hold.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use quorumgate_proto::admin::v1::{self as admin, observe_server::Observe};
use tonic::{Request, Response, Status};

use super::{
    Serving,
    config::{messages, taken},
    desk::Desk,
    explain::{self, Counted},
    failure,
};
use crate::{
    consensus::Consensus,
    usage::{Question, Usage},
};

const AUDIT_DEFAULT: u32 = 100;
const AUDIT_MAX: u32 = 10_000;

pub struct Service {
    desk: Desk,
    serving: Serving,
}

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    pub fn new(consensus: Consensus, serving: Serving) -> Self {
        Self { desk: Desk { consensus }, serving }
    }

    /// How much is used of each limit that would count the request, and who holds what of it.
    async fn tell_usage(&self, explained: &mut admin::ExplainMatchResponse, counted: &[Counted], left: Duration) {
        if counted.is_empty() {
            return;
        }
        let question = |it: &Counted| Question { limit: it.limit.clone(), keys: Some(vec![it.key.clone()]), top: 1 };
        let usage = Usage::ask(&self.desk.consensus, counted.iter().map(question).collect(), left).await;
        for it in counted {
            let limit = usage.limits.iter().find(|limit| limit.limit.name == it.limit);
            let key = limit.and_then(|limit| limit.keys.iter().find(|key| key.key == it.key));
            if let (Some(key), Some(phase)) = (key, explained.phases.get_mut(it.phase)) {
                phase.decision += &format!("; {key}");
                if !usage.unanswered.is_empty() {
                    phase.decision += &format!("; no answer from {}", usage.unanswered.join(", "));
                }
            }
        }
    }
}

#[tonic::async_trait]
impl Observe for Service {
    /// By the rules that this node serves right now.
    async fn explain_match(&self, request: Request<admin::ExplainMatchRequest>) -> Answer<admin::ExplainMatchResponse> {
        let (call, request) = taken(request)?;
        let client_ip = match request.client_ip.as_str() {
            "" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            text => text
                .parse()
                .map_err(|_| failure::bad_field("client_ip", &format!("found {text:?}; allowed: an IP address")))?,
        };
        let asked = explain::Asked::parse(&request, client_ip)?;
        let rules = (self.serving)();
        let (mut explained, counted) = asked.explain(&rules, &self.desk.consensus.state().resources);
        self.tell_usage(&mut explained, &counted, call.left()).await;
        let explained = admin::ExplainMatchResponse { header: Some(self.desk.header()), ..explained };
        Ok(Response::new(explained))
    }

    async fn state_hash(&self, request: Request<admin::StateHashRequest>) -> Answer<admin::StateHashResponse> {
        let (call, request) = taken(request)?;
        let consensus = &self.desk.consensus;
        let state = match request.index {
            0 => consensus.state(),
            index => {
                let applied = consensus.wait_applied(index, call.left()).await;
                applied.map_err(|error| failure::unapplied(index, error))?
            }
        };
        let header = Some(self.desk.header_at(&state));
        let index = state.index;
        // Over a large state this takes longer than a heartbeat may wait.
        let hash = tokio::task::spawn_blocking(move || state.hash()).await;
        let hash = hash.map_err(|error| failure::status(tonic::Code::Internal, "INTERNAL", error.to_string()))?;
        Ok(Response::new(admin::StateHashResponse { header, index, hash: hash.to_string() }))
    }

    async fn list_audit(&self, request: Request<admin::ListAuditRequest>) -> Answer<admin::ListAuditResponse> {
        let (_, request) = taken(request)?;
        let limit = match request.limit {
            0 => AUDIT_DEFAULT,
            limit => limit.min(AUDIT_MAX),
        };
        let entries = self.desk.consensus.audit(limit as usize).await;
        let entries = entries.into_iter().map(|entry| admin::AuditEntry {
            index: entry.index,
            revision: entry.revision,
            time: Some(messages::timestamp_ms(entry.wall_ms)),
            actor: entry.actor.name.clone(),
            source: entry.actor.source.clone(),
            rpc: entry.actor.rpc.clone(),
            message: entry.message.clone(),
            summary: entry.summary.clone(),
            hash: entry.hash().to_string(),
        });
        let entries = entries.collect();
        Ok(Response::new(admin::ListAuditResponse { header: Some(self.desk.header()), entries }))
    }
}
