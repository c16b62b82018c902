//! The Upstreams service: what the nodes know of the servers behind them. Each sees them from elsewhere and may know better
//! or worse, so all are asked.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use quorumgate_proto::admin::v1::{self as admin, upstreams_server::Upstreams};
use quorumgate_proxy::upstream::Registry;
use tonic::{Code, Request, Response, Status};

use super::{config::taken, desk::Desk, failure};
use crate::{consensus::Consensus, telemetry::upstream};

/// For the answers of the other nodes, on top of a round trip of the cluster.
const ANSWERS_WITHIN: Duration = Duration::from_millis(400);

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
        let consensus = &self.desk.consensus;
        let own = upstream::shown(&self.registry, &request.name, &consensus.view().name, consensus.region());
        let own = own.ok_or_else(|| {
            let message = format!("this node serves no upstream {:?}", request.name);
            failure::status(Code::NotFound, "NOT_FOUND", message)
        })?;
        let state = consensus.state();
        let within = ANSWERS_WITHIN + 2 * state.timing().max_rtt;
        let mut nodes = BTreeMap::from([(own.node.clone(), own.clone())]);
        let mut unanswered = Vec::new();
        for (id, answer) in consensus.upstream_healths(&request.name, within).await {
            // One that was removed meanwhile is asked no more.
            let Some(node) = state.nodes.get(&id) else { continue };
            let name = node.name.to_string();
            match answer {
                Some(known) => {
                    let nothing = || admin::NodeUpstreamHealth {
                        node: name.clone(),
                        region: node.region.clone(),
                        ..Default::default()
                    };
                    nodes.insert(name.clone(), known.unwrap_or_else(nothing));
                }
                None => unanswered.push(name),
            }
        }
        unanswered.sort();
        Ok(Response::new(admin::GetUpstreamHealthResponse {
            header: Some(self.desk.header()),
            name: request.name,
            targets: own.targets,
            breaker: own.breaker,
            breaker_opened: own.breaker_opened,
            retries_running: own.retries_running,
            nodes: nodes.into_values().collect(),
            unanswered,
        }))
    }
}
