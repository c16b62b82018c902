//! The Cluster service: the nodes as the asked one sees them, what may be done to them, and the tokens.

use std::time::{Duration, Instant};

use quorumgate_model::{
    NodeId,
    command::{AdminRole, Applied, Body, CreateAdminToken, CreateJoinToken, Role, Standing},
    timing::MAX_RTT_RANGE,
};
use quorumgate_proto::admin::v1::{self as admin, WriteResponse, cluster_server::Cluster};
use tonic::{Code, Request, Response, Status};

use super::{
    config::{messages, taken},
    desk::{self, Desk, Read},
    failure,
    gate::Call,
    identity, nodes,
};
use crate::{
    consensus::{Consensus, ProposeError},
    join,
};

const JOIN_TTL_DEFAULT: Duration = Duration::from_secs(3_600);
const JOIN_TTL_MAX: Duration = Duration::from_secs(30 * 86_400);
const JOIN_USES_MAX: u32 = 1_000;
const ADMIN_TTL_DEFAULT: Duration = Duration::from_secs(90 * 86_400);
const ADMIN_TTL_MAX: Duration = Duration::from_secs(3_650 * 86_400);

pub struct Service {
    desk: Desk,
}

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    pub fn new(consensus: Consensus) -> Self {
        Self { desk: Desk { consensus } }
    }

    async fn set_standing(&self, request: Request<admin::NodeRequest>, standing: Standing) -> Answer<WriteResponse> {
        let (call, request) = taken(request)?;
        let node = nodes::find(&self.desk.consensus.state(), &request.node)?;
        let applied = self.desk.consensus.set_standing(node, standing, call.actor.clone(), call.left()).await;
        self.answer(&call, applied).await
    }

    async fn set_role(&self, request: Request<admin::NodeRequest>, role: Role) -> Answer<WriteResponse> {
        let (call, request) = taken(request)?;
        let node = nodes::find(&self.desk.consensus.state(), &request.node)?;
        let applied = self.desk.consensus.set_role(node, role, call.actor.clone(), call.left()).await;
        self.answer(&call, applied).await
    }

    /// A node that is removed alive goes on serving what it last knew, and its budgets wait in quarantine: that is for
    /// the dead. The asked one could not say what came of it.
    async fn may_remove(&self, call: &Call, node: NodeId, force: bool) -> Result<(), Status> {
        let state = self.desk.consensus.state();
        let name = nodes::name(&state, node);
        if node == self.desk.consensus.view().id {
            let message =
                format!("{name} is the node that is asked: ask another one, or let it go by `node leave {name}`");
            return Err(failure::precondition("ASKED_ITSELF", "node", &message));
        }
        if force {
            return Ok(());
        }
        let seen = nodes::Seen::now(&self.desk.consensus, call.left()).await;
        if seen.answers(node) {
            let message =
                format!("{name} is alive: let it hand over and go by `node leave {name}`, or remove it with --force");
            return Err(failure::precondition("NODE_ALIVE", "node", &message));
        }
        Ok(())
    }

    async fn answer(&self, call: &Call, applied: Result<Applied, ProposeError>) -> Answer<WriteResponse> {
        let applied = applied.map_err(|error| failure::unwritten(error, None))?;
        self.desk.respond_other(call, &applied, None).await.map(Response::new)
    }
}

#[tonic::async_trait]
impl Cluster for Service {
    async fn get_status(&self, request: Request<admin::GetStatusRequest>) -> Answer<admin::GetStatusResponse> {
        let (call, _) = taken(request)?;
        let seen = nodes::Seen::now(&self.desk.consensus, call.left()).await;
        Ok(Response::new(seen.status(self.desk.header_at(&seen.state))))
    }

    async fn list_nodes(&self, request: Request<admin::ListNodesRequest>) -> Answer<admin::ListNodesResponse> {
        let (call, _) = taken(request)?;
        let seen = nodes::Seen::now(&self.desk.consensus, call.left()).await;
        let header = Some(self.desk.header_at(&seen.state));
        Ok(Response::new(admin::ListNodesResponse { header, nodes: seen.nodes() }))
    }

    async fn drain_node(&self, request: Request<admin::NodeRequest>) -> Answer<WriteResponse> {
        self.set_standing(request, Standing::Draining).await
    }

    async fn undrain_node(&self, request: Request<admin::NodeRequest>) -> Answer<WriteResponse> {
        self.set_standing(request, Standing::Active).await
    }

    async fn leave_node(&self, request: Request<admin::NodeRequest>) -> Answer<WriteResponse> {
        self.set_standing(request, Standing::Leaving).await
    }

    async fn promote_node(&self, request: Request<admin::NodeRequest>) -> Answer<WriteResponse> {
        self.set_role(request, Role::Voter).await
    }

    async fn demote_node(&self, request: Request<admin::NodeRequest>) -> Answer<WriteResponse> {
        self.set_role(request, Role::Replica).await
    }

    async fn remove_node(&self, request: Request<admin::NodeRequest>) -> Answer<WriteResponse> {
        let (call, request) = taken(request)?;
        let node = nodes::find(&self.desk.consensus.state(), &request.node)?;
        self.may_remove(&call, node, request.force).await?;
        let applied = self.desk.consensus.remove_node(node, call.actor.clone(), call.left()).await;
        self.answer(&call, applied).await
    }

    async fn transfer_leader(
        &self,
        request: Request<admin::TransferLeaderRequest>,
    ) -> Answer<admin::TransferLeaderResponse> {
        let (call, request) = taken(request)?;
        let state = self.desk.consensus.state();
        let to = match request.to.as_str() {
            "" => None,
            name => Some(nodes::find(&state, name)?),
        };
        let began = Instant::now();
        let moved = self.desk.consensus.transfer_leader(to, call.left()).await;
        let (leader, term) = moved.map_err(|error| failure::unwritten(error, None))?;
        Ok(Response::new(admin::TransferLeaderResponse {
            header: Some(self.desk.header()),
            leader: nodes::name(&state, leader),
            term,
            took: Some(messages::duration(began.elapsed())),
        }))
    }

    async fn set_max_rtt(&self, request: Request<admin::SetMaxRttRequest>) -> Answer<WriteResponse> {
        let (call, request) = taken(request)?;
        let max_rtt = desk::duration("max_rtt", request.max_rtt)?.unwrap_or_default();
        if !MAX_RTT_RANGE.contains(&max_rtt) {
            return Err(failure::bad_field("max_rtt", &format!("found {max_rtt:?}; allowed: 1ms to 2s")));
        }
        let mut response = self.desk.write_other(&call, Body::SetMaxRtt { max_rtt }).await?;
        if !response.noop {
            let follows = "max_staleness follows at once; each node's heartbeats and elections at its next start: restart \
                           the nodes one at a time";
            response.warnings.push(follows.into());
        }
        Ok(Response::new(response))
    }

    async fn create_join_token(
        &self,
        request: Request<admin::CreateJoinTokenRequest>,
    ) -> Answer<admin::CreateJoinTokenResponse> {
        let (call, request) = taken(request)?;
        let role = match request.role.as_str() {
            "" | "voter" => Role::Voter,
            "replica" => Role::Replica,
            other => return Err(failure::bad_field("role", &format!("found {other:?}; allowed: voter, replica"))),
        };
        let ttl = ttl(request.ttl, JOIN_TTL_DEFAULT, JOIN_TTL_MAX)?;
        let uses = request.uses.max(1);
        if uses > JOIN_USES_MAX {
            return Err(failure::bad_field("uses", &format!("found {uses}; allowed: 1 to {JOIN_USES_MAX}")));
        }
        let state = self.desk.state_of_cluster(&call).await?;
        let facts = state.cluster.as_ref().ok_or_else(|| Status::internal("a cluster without its facts"))?;
        let token = join::JoinToken::generate(&facts.ca_certificate).map_err(internal)?;
        let secret_hash = token.secret_hash();
        let create = CreateJoinToken { id: token.id.clone(), secret_hash, role, ttl, uses };
        let applied = self.desk.propose_once(&call, Body::CreateJoinToken(create)).await?;
        let written = desk::written(&applied)?;
        Ok(Response::new(admin::CreateJoinTokenResponse {
            header: Some(self.desk.header()),
            id: token.id.clone(),
            token: token.to_string(),
            ttl: Some(messages::duration(ttl)),
            revision: written.index,
        }))
    }

    async fn list_join_tokens(
        &self,
        request: Request<admin::ListJoinTokensRequest>,
    ) -> Answer<admin::ListJoinTokensResponse> {
        let (call, _) = taken(request)?;
        let state = self.desk.read(&call, Read::Linear).await?;
        let now_us = self.desk.consensus.clock_us();
        let tokens = state.join_tokens.iter().map(|(id, token)| admin::JoinToken {
            id: id.clone(),
            role: token.role.word().to_owned(),
            uses_left: token.uses_left,
            expires_in: Some(expires_in(now_us, token.expires_at_us)),
            state: match (token.uses_left, token.expires_at_us <= now_us) {
                (0, _) => "used".to_owned(),
                (_, true) => "expired".to_owned(),
                (_, false) => "active".to_owned(),
            },
        });
        let tokens = tokens.collect();
        Ok(Response::new(admin::ListJoinTokensResponse { header: Some(self.desk.header_at(&state)), tokens }))
    }

    async fn remove_join_token(&self, request: Request<admin::RemoveJoinTokenRequest>) -> Answer<WriteResponse> {
        let (call, request) = taken(request)?;
        self.desk.write_other(&call, Body::RemoveJoinToken { id: request.id }).await.map(Response::new)
    }

    async fn create_admin_token(
        &self,
        request: Request<admin::CreateAdminTokenRequest>,
    ) -> Answer<admin::CreateAdminTokenResponse> {
        let (call, request) = taken(request)?;
        let name = request.name.parse().map_err(|why: String| failure::bad_field("name", &why))?;
        let role = match request.role.as_str() {
            "viewer" => AdminRole::Viewer,
            "operator" => AdminRole::Operator,
            "admin" => AdminRole::Admin,
            other => {
                return Err(failure::bad_field("role", &format!("found {other:?}; allowed: viewer, operator, admin")));
            }
        };
        let ttl = ttl(request.ttl, ADMIN_TTL_DEFAULT, ADMIN_TTL_MAX)?;
        let token = identity::new_token().map_err(internal)?;
        let secret_hash = identity::token_hash(&token);
        let create = CreateAdminToken { name, secret_hash, role, owner: request.owner, ttl };
        let applied = self.desk.propose_once(&call, Body::CreateAdminToken(create)).await?;
        let written = desk::written(&applied)?;
        Ok(Response::new(admin::CreateAdminTokenResponse {
            header: Some(self.desk.header()),
            name: request.name,
            token,
            revision: written.index,
        }))
    }

    async fn list_admin_tokens(
        &self,
        request: Request<admin::ListAdminTokensRequest>,
    ) -> Answer<admin::ListAdminTokensResponse> {
        let (call, _) = taken(request)?;
        let state = self.desk.read(&call, Read::Linear).await?;
        let now_us = self.desk.consensus.clock_us();
        let tokens = state.admin_tokens.iter().map(|(name, token)| admin::AdminToken {
            name: name.to_string(),
            role: token.role.word().to_owned(),
            owner: token.owner.clone(),
            expires_in: Some(expires_in(now_us, token.expires_at_us)),
            state: match token.expires_at_us <= now_us {
                true => "expired".to_owned(),
                false => "active".to_owned(),
            },
        });
        let tokens = tokens.collect();
        Ok(Response::new(admin::ListAdminTokensResponse { header: Some(self.desk.header_at(&state)), tokens }))
    }

    async fn remove_admin_token(&self, request: Request<admin::RemoveAdminTokenRequest>) -> Answer<WriteResponse> {
        let (call, request) = taken(request)?;
        let name = request.name.parse().map_err(|why: String| failure::bad_field("name", &why))?;
        self.desk.write_other(&call, Body::RemoveAdminToken { name }).await.map(Response::new)
    }
}

/// A token that has ended when it is shown is of no use to anybody.
const TTL_MIN: Duration = Duration::from_millis(1);

fn ttl(given: Option<prost_types::Duration>, default: Duration, max: Duration) -> Result<Duration, Status> {
    let ttl = desk::duration("ttl", given)?.unwrap_or(default);
    match (TTL_MIN..=max).contains(&ttl) {
        true => Ok(ttl),
        false => Err(failure::bad_field("ttl", &format!("found {ttl:?}; allowed: {TTL_MIN:?} to {max:?}"))),
    }
}

fn expires_in(now_us: u64, expires_at_us: u64) -> prost_types::Duration {
    messages::duration(Duration::from_micros(expires_at_us.saturating_sub(now_us)))
}

fn internal(error: anyhow::Error) -> Status {
    failure::status(Code::Internal, "INTERNAL", format!("{error:#}"))
}
