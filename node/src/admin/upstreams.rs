//! The Upstreams service: what this node knows of the servers behind it. Other nodes see them from elsewhere and may
//! know better or worse; each is asked for itself.

use std::sync::Arc;

use quorumgate_proto::admin::v1::{self as admin, upstreams_server::Upstreams};
use quorumgate_proxy::upstream::{BreakerState, Registry, TargetHealth};
use tonic::{Code, Request, Response, Status};

use super::{config::taken, desk::Desk, failure};
use crate::consensus::Consensus;

pub struct Service {
    desk: Desk,
    registry: Arc<Registry>,
}

impl Service {
    pub fn new(consensus: Consensus, registry: Arc<Registry>) -> Self {
        Self { desk: Desk { consensus }, registry }
    }
}

#[tonic::async_trait]
impl Upstreams for Service {
    async fn get_upstream_health(
        &self,
        request: Request<admin::GetUpstreamHealthRequest>,
    ) -> Result<Response<admin::GetUpstreamHealthResponse>, Status> {
        let (_, request) = taken(request)?;
        let state = self.registry.state(&request.name);
        let state = state.ok_or_else(|| {
            let message = format!("this node serves no upstream {:?}", request.name);
            failure::status(Code::NotFound, "NOT_FOUND", message)
        })?;
        let breaker = match state.breaker {
            None => "",
            Some(BreakerState::Closed) => "closed",
            Some(BreakerState::Open) => "open",
            Some(BreakerState::HalfOpen) => "half_open",
        };
        Ok(Response::new(admin::GetUpstreamHealthResponse {
            header: Some(self.desk.header()),
            name: request.name,
            targets: state.targets.into_iter().map(target).collect(),
            breaker: breaker.to_owned(),
            breaker_opened: state.breaker_opened,
            retries_running: state.retries_running,
        }))
    }
}

fn target(it: TargetHealth) -> admin::UpstreamTargetHealth {
    let ejected_for =
        prost_types::Duration { seconds: it.ejected_for.as_secs() as i64, nanos: it.ejected_for.subsec_nanos() as i32 };
    admin::UpstreamTargetHealth {
        address: it.target,
        addresses: it.addresses as u32,
        healthy: it.healthy as u32,
        ejected: it.ejected as u32,
        ejected_for: (it.ejected > 0).then_some(ejected_for),
        in_flight: it.in_flight,
        priority: it.priority,
        zone: it.zone.unwrap_or_default(),
    }
}
