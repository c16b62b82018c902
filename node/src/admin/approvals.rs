//! The Approvals service: changes of what is protected are held, shown, and carried out once somebody else has approved.
//! The state decides what is protected, and whose approval counts.

use std::{sync::Arc, time::Duration};

use quorumgate_model::{
    change::{self, Changed},
    command::{Body, ChangeResources, DecideChange, Expect, HoldChange, ResourceChange, Verdict},
    resource::Key,
    state::{PendingChange, State},
};
use quorumgate_proto::admin::v1::{self as admin, approvals_server::Approvals};
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use super::{
    config::{apply, guardrails, messages, places::Places, taken},
    desk::{self, Desk, Read},
    failure,
    gate::Call,
};
use crate::consensus::Consensus;

/// How long a change waits for its approval.
const WAITS_MAX: Duration = Duration::from_secs(24 * 3_600);

pub struct Service {
    desk: Desk,
}

impl Service {
    pub fn new(consensus: Consensus) -> Self {
        Self { desk: Desk { consensus } }
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Approvals for Service {
    async fn list_pending(&self, request: Request<admin::ListPendingRequest>) -> Answer<admin::ListPendingResponse> {
        let (call, _) = taken(request)?;
        let state = self.desk.read(&call, Read::Linear).await?;
        let pending = state.pending.values().map(|it| self.shown(it)).collect();
        Ok(Response::new(admin::ListPendingResponse { header: Some(self.desk.header_at(&state)), pending }))
    }

    async fn get_pending(&self, request: Request<admin::GetPendingRequest>) -> Answer<admin::GetPendingResponse> {
        let (call, request) = taken(request)?;
        let state = self.desk.read(&call, Read::Linear).await?;
        let pending = find(&state, request.id)?;
        let changes = messages::decided(&change::effect(&state.resources, &pending.change.changes));
        let obstacle =
            obstacle(&call, &state, pending).await.err().map(|it| it.message().to_owned()).unwrap_or_default();
        let shown = admin::PendingChange { changes, obstacle, ..self.shown(pending) };
        Ok(Response::new(admin::GetPendingResponse { header: Some(self.desk.header_at(&state)), pending: Some(shown) }))
    }

    async fn approve(&self, request: Request<admin::DecideRequest>) -> Answer<admin::WriteResponse> {
        let (call, request) = taken(request)?;
        let state = self.desk.read(&call, Read::Linear).await?;
        let pending = find(&state, request.id)?;
        // As a fresh apply: by the very checks, and the guardrails of now.
        let mut places = Places::default();
        let changed = apply::checked(&call, &state, &pending.actor, &pending.change, &places)?;
        let (changed, held) = guardrails::hold(&call, &state, changed, &mut places).await?;
        let verdict = Verdict::Approved { guardrails: state.guardrails(), findings: held.findings.into() };
        let body = DecideChange { id: request.id, verdict, reason: request.reason };
        let applied = self.desk.propose_once(&call, Body::DecideChange(body)).await?;
        let written = desk::written(&applied)?;
        let mut response = self.desk.respond(&call, written, messages::changes(&changed), None).await;
        response.trial_until = apply::trial_until(&self.desk.consensus.state(), response.revision);
        response.warnings = held.warnings;
        Ok(Response::new(response))
    }

    async fn reject(&self, request: Request<admin::DecideRequest>) -> Answer<admin::WriteResponse> {
        let (call, request) = taken(request)?;
        let body = DecideChange { id: request.id, verdict: Verdict::Rejected, reason: request.reason };
        self.desk.write_other(&call, Body::DecideChange(body)).await.map(Response::new)
    }
}

impl Service {
    fn shown(&self, it: &PendingChange) -> admin::PendingChange {
        let left_us = it.expires_at_us.saturating_sub(self.desk.consensus.clock_us());
        admin::PendingChange {
            id: it.id,
            actor: it.actor.name.clone(),
            source: it.actor.source.clone(),
            message: it.change.message.clone(),
            time: Some(messages::timestamp_ms(it.wall_ms)),
            expires_in: Some(messages::duration(Duration::from_micros(left_us))),
            revision: it.revision,
            changes: Vec::new(),
            obstacle: String::new(),
            rollback_of: it.change.rollback_of.unwrap_or(0),
            trial: it.change.trial.map(messages::duration),
        }
    }
}

impl Desk {
    /// Asks for the approval of a change that touches `key`. The answer to whoever wants the change is never Ok.
    pub async fn hold(
        &self,
        call: &Call,
        state: &State,
        key: &Key,
        whole: ChangeResources,
        changed: &[Changed],
        request_id: Uuid,
    ) -> Result<Status, Status> {
        let changes = whole.changes.iter().map(|it| as_seen(state, it, changed)).collect();
        // Guardrails are asked again with the approval.
        let change = ChangeResources { changes, guardrails: None, findings: Arc::default(), ..whole };
        let same = |it: &&Arc<PendingChange>| {
            it.actor.name == call.actor.name && it.change == change && state.asker_gone(it).is_none()
        };
        let id = match state.pending.values().find(same) {
            Some(pending) => pending.id,
            None => {
                // Its entry has an id of its own: a repeat of the write must not be told that it was done. It finds what
                // waits, and so may be repeated.
                let body = Body::HoldChange(HoldChange { change, ttl: WAITS_MAX });
                let applied = self.propose_unlike(call, Some(request_id), body).await?;
                desk::written(&applied)?.index
            }
        };
        Ok(failure::held(id, key))
    }
}

/// What the approval is of: the object as it is now becomes what it is to be. What stays the same is held to what was
/// expected of it.
fn as_seen(state: &State, asked: &ResourceChange, changed: &[Changed]) -> ResourceChange {
    match changed.iter().find(|it| it.key == asked.key) {
        Some(changed) => {
            let expect = state.resources.get(&asked.key).map_or(Expect::Missing, |stored| Expect::Etag(stored.etag));
            ResourceChange { key: asked.key.clone(), after: changed.after.clone(), expect }
        }
        None => asked.clone(),
    }
}

/// Whatever would refuse it now, but who approves.
async fn obstacle(call: &Call, state: &Arc<State>, pending: &PendingChange) -> Result<(), Status> {
    if let Some(gone) = state.asker_gone(pending) {
        return Err(failure::status(Code::Aborted, "CONFLICT", gone));
    }
    let mut places = Places::default();
    let changed = state.preview(&pending.actor, &pending.change).map_err(|refused| places.rejected(&refused))?;
    apply::compiled(&changed, &places)?;
    guardrails::hold(call, state, changed, &mut places).await.map(drop)
}

fn find(state: &State, id: u64) -> Result<&Arc<PendingChange>, Status> {
    let unknown = || {
        let message = format!("no change {id} waits for an approval; it may have been decided, or its time is up");
        failure::status(Code::NotFound, "NOT_FOUND", message)
    };
    state.pending.get(&id).ok_or_else(unknown)
}
