//! The Config service: one write path for everything that operators write, its history, trials and the watch.

mod apply;
mod history;
pub mod messages;
mod places;
mod typed;
mod watch;

use std::sync::Arc;

use prost::Message;
use quorumgate_model::{
    command::{Body, TrialEnd},
    resource::{Kind, Resource},
};
use quorumgate_proto::admin::v1::{self as admin, config_server::Config, resource};
use tokio::sync::Semaphore;
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use self::{
    apply::Mode,
    typed::{Existing, WriteObject},
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
        let request_id = Uuid::new_v4();
        let applied = self.desk.propose(&call, request_id, Body::EndTrial { revision, end }).await?;
        let written = desk::written(&applied)?;
        let changes = match written.revision == written.index {
            true => self.desk.changes_of(&call, written.revision).await,
            // Confirmed: the resources stay as they are.
            false => Vec::new(),
        };
        Ok(Response::new(self.desk.respond(&call, written, changes, request_id).await))
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

    async fn get_route(&self, request: Request<admin::GetObjectRequest>) -> Answer<admin::GetRouteResponse> {
        let (call, request) = taken(request)?;
        let (header, stored) = self.desk.get(&call, Kind::Route, &request).await?;
        let etag = stored.etag.to_string();
        let route = route_of(&stored.resource);
        Ok(Response::new(admin::GetRouteResponse { header: Some(header), route, etag }))
    }

    async fn list_routes(&self, request: Request<admin::ListObjectsRequest>) -> Answer<admin::ListRoutesResponse> {
        let (call, request) = taken(request)?;
        let (header, config, etags) = self.desk.list(&call, Kind::Route, &request).await?;
        Ok(Response::new(admin::ListRoutesResponse { header: Some(header), routes: config.routes, etags }))
    }

    async fn create_route(&self, request: Request<admin::WriteRouteRequest>) -> Answer<admin::WriteResponse> {
        let (call, request) = taken(request)?;
        self.desk.write_object(&call, request.into(), Existing::Never).await.map(Response::new)
    }

    async fn update_route(&self, request: Request<admin::WriteRouteRequest>) -> Answer<admin::WriteResponse> {
        let (call, request) = taken(request)?;
        self.desk.write_object(&call, request.into(), Existing::Always).await.map(Response::new)
    }

    async fn delete_route(&self, request: Request<admin::DeleteObjectRequest>) -> Answer<admin::WriteResponse> {
        let (call, request) = taken(request)?;
        self.desk.delete_object(&call, Kind::Route, request).await.map(Response::new)
    }

    async fn get_upstream(&self, request: Request<admin::GetObjectRequest>) -> Answer<admin::GetUpstreamResponse> {
        let (call, request) = taken(request)?;
        let (header, stored) = self.desk.get(&call, Kind::Upstream, &request).await?;
        let etag = stored.etag.to_string();
        let upstream = upstream_of(&stored.resource);
        Ok(Response::new(admin::GetUpstreamResponse { header: Some(header), upstream, etag }))
    }

    async fn list_upstreams(
        &self,
        request: Request<admin::ListObjectsRequest>,
    ) -> Answer<admin::ListUpstreamsResponse> {
        let (call, request) = taken(request)?;
        let (header, config, etags) = self.desk.list(&call, Kind::Upstream, &request).await?;
        Ok(Response::new(admin::ListUpstreamsResponse { header: Some(header), upstreams: config.upstreams, etags }))
    }

    async fn create_upstream(&self, request: Request<admin::WriteUpstreamRequest>) -> Answer<admin::WriteResponse> {
        let (call, request) = taken(request)?;
        self.desk.write_object(&call, request.into(), Existing::Never).await.map(Response::new)
    }

    async fn update_upstream(&self, request: Request<admin::WriteUpstreamRequest>) -> Answer<admin::WriteResponse> {
        let (call, request) = taken(request)?;
        self.desk.write_object(&call, request.into(), Existing::Always).await.map(Response::new)
    }

    async fn delete_upstream(&self, request: Request<admin::DeleteObjectRequest>) -> Answer<admin::WriteResponse> {
        let (call, request) = taken(request)?;
        self.desk.delete_object(&call, Kind::Upstream, request).await.map(Response::new)
    }
}

/// The call that the gate let in, and its message.
pub fn taken<T>(request: Request<T>) -> Result<(Call, T), Status> {
    Ok((Call::of(&request)?, request.into_inner()))
}

fn route_of(resource: &Resource) -> Option<admin::Route> {
    match quorumgate_model::convert::resource_to(resource).kind {
        Some(resource::Kind::Route(route)) => Some(route),
        _ => None,
    }
}

fn upstream_of(resource: &Resource) -> Option<admin::Upstream> {
    match quorumgate_model::convert::resource_to(resource).kind {
        Some(resource::Kind::Upstream(upstream)) => Some(upstream),
        _ => None,
    }
}

impl From<admin::WriteRouteRequest> for WriteObject {
    fn from(it: admin::WriteRouteRequest) -> Self {
        let admin::WriteRouteRequest { route, etag, request_id, message, validate_only } = it;
        let resource = route.map(resource::Kind::Route);
        Self { resource, field: "route", etag, request_id, message, validate_only }
    }
}

impl From<admin::WriteUpstreamRequest> for WriteObject {
    fn from(it: admin::WriteUpstreamRequest) -> Self {
        let admin::WriteUpstreamRequest { upstream, etag, request_id, message, validate_only } = it;
        let resource = upstream.map(resource::Kind::Upstream);
        Self { resource, field: "upstream", etag, request_id, message, validate_only }
    }
}
