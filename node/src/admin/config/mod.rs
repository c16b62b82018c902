//! The Config service: one write path for everything that operators write, its history, trials and the watch.

pub mod apply;
pub mod guardrails;
mod history;
pub mod messages;
pub mod places;
mod typed;
mod watch;

use std::sync::Arc;

use prost::Message;
use quorumgate_model::{
    change,
    command::{Body, TrialEnd},
    convert,
    resource::Kind,
};
use quorumgate_proto::admin::v1::{self as admin, config_server::Config, resource};
use tokio::sync::Semaphore;
use tonic::{Code, Request, Response, Status};

use self::{
    apply::Mode,
    typed::{Existing, WriteObject, typed},
};
use super::{
    desk::{self, Desk, Read},
    failure,
    gate::Call,
};
use crate::{consensus::Consensus, tasks::Tasks};

pub struct Service {
    desk: Desk,
    tasks: Tasks,
    watchers: Arc<Semaphore>,
}

impl Service {
    pub fn new(consensus: Consensus, tasks: Tasks) -> Self {
        Self { desk: Desk { consensus }, tasks, watchers: Arc::new(Semaphore::new(watch::WATCHERS_MAX)) }
    }

    async fn end_trial(&self, call: Call, revision: u64, end: TrialEnd) -> Answer<admin::WriteResponse> {
        let state = self.desk.read(&call, Read::Linear).await?;
        if let Some(trial) = &state.trial {
            // Either end decides about what the trial changed.
            let changed = change::between(&state.resources, &trial.prior);
            changed.iter().filter(|it| apply::governs(it)).try_for_each(|it| call.may_govern(&it.key))?;
        }
        let applied = self.desk.propose_once(&call, Body::EndTrial { revision, end }).await?;
        let written = desk::written(&applied)?;
        let changes = match written.revision == written.index {
            true => self.desk.changes_of(&call, written.revision).await,
            // Confirmed: the resources stay as they are.
            false => Vec::new(),
        };
        Ok(Response::new(self.desk.respond(&call, written, changes, None).await))
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Config for Service {
    type WatchConfigStream = watch::Events;

    async fn apply_config(&self, request: Request<admin::ApplyConfigRequest>) -> Answer<admin::WriteResponse> {
        let (call, mut request) = taken(request)?;
        let request_id = desk::request_id(&std::mem::take(&mut request.request_id))?;
        let asked = desk::asked(&call, &[&request.encode_to_vec()]);
        let mode = Mode::validate_only(request.validate_only);
        if mode == Mode::Write {
            call.may_write()?;
        }
        let state = self.desk.read(&call, Read::Linear).await?;
        if let Some(answer) = self.desk.repeated(&call, &state, request_id, asked, mode).await {
            return answer.map(Response::new);
        }
        let intent = apply::intent(request, request_id, asked, &state)?;
        self.desk.carry_out(&call, &state, intent).await.map(Response::new)
    }

    async fn get_config(&self, request: Request<admin::GetConfigRequest>) -> Answer<admin::GetConfigResponse> {
        let (call, request) = taken(request)?;
        self.desk.config(&call, &request).await.map(Response::new)
    }

    async fn list_revisions(
        &self,
        request: Request<admin::ListRevisionsRequest>,
    ) -> Answer<admin::ListRevisionsResponse> {
        let (call, request) = taken(request)?;
        self.desk.revisions(&call, &request).await.map(Response::new)
    }

    async fn diff_revisions(
        &self,
        request: Request<admin::DiffRevisionsRequest>,
    ) -> Answer<admin::DiffRevisionsResponse> {
        let (call, request) = taken(request)?;
        self.desk.diff(&call, &request).await.map(Response::new)
    }

    async fn rollback(&self, request: Request<admin::RollbackRequest>) -> Answer<admin::WriteResponse> {
        let (call, mut request) = taken(request)?;
        let request_id = desk::request_id(&std::mem::take(&mut request.request_id))?;
        let asked = desk::asked(&call, &[&request.encode_to_vec()]);
        let mode = Mode::validate_only(request.validate_only);
        if mode == Mode::Write {
            call.may_write()?;
        }
        let state = self.desk.read(&call, Read::Linear).await?;
        if let Some(answer) = self.desk.repeated(&call, &state, request_id, asked, mode).await {
            return answer.map(Response::new);
        }
        let intent = self.desk.rollback_intent(&call, &state, request_id, asked, request).await?;
        self.desk.carry_out(&call, &state, intent).await.map(Response::new)
    }

    async fn confirm_trial(&self, request: Request<admin::ConfirmTrialRequest>) -> Answer<admin::WriteResponse> {
        let (call, request) = taken(request)?;
        self.end_trial(call, request.revision, TrialEnd::Confirm).await
    }

    async fn abort_trial(&self, request: Request<admin::AbortTrialRequest>) -> Answer<admin::WriteResponse> {
        let (call, request) = taken(request)?;
        self.end_trial(call, request.revision, TrialEnd::Abort).await
    }

    async fn watch_config(&self, request: Request<admin::WatchConfigRequest>) -> Answer<Self::WatchConfigStream> {
        let (call, request) = taken(request)?;
        self.desk.read(&call, Read::Stale).await?;
        let permit = self.watchers.clone().try_acquire_owned().map_err(|_| {
            let message = format!("{} streams watch already, the most there may be", watch::WATCHERS_MAX);
            failure::status(Code::ResourceExhausted, "TOO_MANY_WATCHERS", message)
        })?;
        let (watcher, events) = watch::Watcher::new(self.desk.clone(), &call, request.since, permit);
        self.tasks.detach(watcher.run(self.tasks.stop()));
        Ok(Response::new(events))
    }

    typed!(
        Route: get_route -> GetRouteResponse { route }, list_routes -> ListRoutesResponse { routes },
        create_route, update_route <- WriteRouteRequest, delete_route
    );
    typed!(
        Upstream: get_upstream -> GetUpstreamResponse { upstream }, list_upstreams -> ListUpstreamsResponse { upstreams },
        create_upstream, update_upstream <- WriteUpstreamRequest, delete_upstream
    );
    typed!(
        Consumer: get_consumer -> GetConsumerResponse { consumer }, list_consumers -> ListConsumersResponse { consumers },
        create_consumer, update_consumer <- WriteConsumerRequest, delete_consumer
    );
    typed!(
        Auth: get_auth -> GetAuthResponse { auth }, list_auths -> ListAuthsResponse { auth },
        create_auth, update_auth <- WriteAuthRequest, delete_auth
    );
    typed!(
        CertificateAuthority:
        get_certificate_authority -> GetCertificateAuthorityResponse { certificate_authority },
        list_certificate_authorities -> ListCertificateAuthoritiesResponse { certificate_authorities },
        create_certificate_authority, update_certificate_authority <- WriteCertificateAuthorityRequest,
        delete_certificate_authority
    );
    typed!(
        Limit: get_limit -> GetLimitResponse { limit }, list_limits -> ListLimitsResponse { limits },
        create_limit, update_limit <- WriteLimitRequest, delete_limit
    );
    typed!(
        Certificate:
        get_certificate -> GetCertificateResponse { certificate },
        list_certificates -> ListCertificatesResponse { certificates },
        create_certificate, update_certificate <- WriteCertificateRequest, delete_certificate
    );
    typed!(
        Listener: get_listener -> GetListenerResponse { listener }, list_listeners -> ListListenersResponse { listeners },
        create_listener, update_listener <- WriteListenerRequest, delete_listener
    );
    typed!(
        Policy: get_policy -> GetPolicyResponse { policy }, list_policies -> ListPoliciesResponse { policies },
        create_policy, update_policy <- WritePolicyRequest, delete_policy
    );
    typed!(
        Tenant: get_tenant -> GetTenantResponse { tenant }, list_tenants -> ListTenantsResponse { tenants },
        create_tenant, update_tenant <- WriteTenantRequest, delete_tenant
    );
    typed!(
        Guardrail: get_guardrail -> GetGuardrailResponse { guardrail },
        list_guardrails -> ListGuardrailsResponse { guardrails },
        create_guardrail, update_guardrail <- WriteGuardrailRequest, delete_guardrail
    );
}

/// The call that the gate let in, and its message.
pub fn taken<T>(request: Request<T>) -> Result<(Call, T), Status> {
    Ok((Call::of(&request)?, request.into_inner()))
}
