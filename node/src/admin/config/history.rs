//! Older revisions: read back from the diffs in the journals, proven by the hashes in the state.

use std::{sync::Arc, time::Duration};

use prost::Message;
use quorumgate_model::{
    change::{self, Changed},
    command::{Expect, ResourceChange},
    digest::Digest,
    resource::Resources,
    state::{RevisionDiff, RevisionFacts, State},
};
use quorumgate_proto::admin::v1::{
    DiffRevisionsRequest, DiffRevisionsResponse, GetConfigRequest, GetConfigResponse, ListRevisionsRequest,
    ListRevisionsResponse, RollbackRequest, rollback_request::Target,
};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Status};
use uuid::Uuid;

use super::{
    apply::{Intent, Mode},
    messages,
    places::Places,
};
use crate::admin::{
    MESSAGE_BYTES_MAX,
    desk::{Desk, Read},
    failure,
    gate::Call,
};

/// For one diff, from this node's journal or a peer's.
const DIFF_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks for a diff that is not there yet.
const JOURNAL_PAUSE: Duration = Duration::from_millis(10);

impl Desk {
    pub async fn config(&self, call: &Call, request: &GetConfigRequest) -> Result<GetConfigResponse, Status> {
        let state = self.read(call, Read::stale(request.stale)).await?;
        let revision = request.revision.unwrap_or(state.revision);
        let resources = self.resources_at(call, &state, revision).await?;
        let header = Some(self.header_at(&state));
        let response = GetConfigResponse { header, revision, config: Some(messages::config(&resources)) };
        match response.encoded_len() {
            bytes if bytes > MESSAGE_BYTES_MAX => Err(failure::too_large(bytes)),
            _ => Ok(response),
        }
    }

    pub async fn revisions(
        &self,
        call: &Call,
        request: &ListRevisionsRequest,
    ) -> Result<ListRevisionsResponse, Status> {
        let state = self.read(call, Read::stale(request.stale)).await?;
        let limit = match request.limit {
            0 => usize::MAX,
            limit => limit as usize,
        };
        let revisions = state.history.iter().rev().take(limit).map(|facts| messages::revision(facts)).collect();
        Ok(ListRevisionsResponse { header: Some(self.header_at(&state)), revisions })
    }

    pub async fn diff(&self, call: &Call, request: &DiffRevisionsRequest) -> Result<DiffRevisionsResponse, Status> {
        let state = self.read(call, Read::Linear).await?;
        let (from, to) = (request.from, request.to.unwrap_or(state.revision));
        let before = self.resources_at(call, &state, from).await?;
        let after = self.resources_at(call, &state, to).await?;
        let changes = messages::changes(&change::between(&before, &after));
        Ok(DiffRevisionsResponse { header: Some(self.header_at(&state)), from, to, changes })
    }

    /// The changes between now and then, to be proposed like any others. Nothing may come between: what stands
    /// afterwards is what stood then, byte for byte.
    pub async fn rollback_intent(
        &self,
        call: &Call,
        state: &State,
        request_id: Uuid,
        asked: Digest,
        request: RollbackRequest,
    ) -> Result<Intent, Status> {
        let target = match request.target {
            Some(Target::Revision(revision)) => revision,
            Some(Target::Previous(true)) => previous(state)?,
            Some(Target::Previous(false)) | None => {
                return Err(failure::bad_field("target", "found nothing; allowed: `revision`, or `previous: true`"));
            }
        };
        let then = self.resources_at(call, state, target).await?;
        let changed = change::between(&state.resources, &then);
        let message = match request.message.is_empty() {
            true => format!("rollback to revision {target}"),
            false => request.message,
        };
        Ok(Intent {
            changes: changed.into_iter().map(restore).collect(),
            places: Places::default(),
            expected_revision: request.expected_revision.or(Some(state.revision)),
            request_id,
            asked,
            message,
            trial: None,
            rollback_of: Some(target),
            mode: Mode::validate_only(request.validate_only),
            warnings: Vec::new(),
        })
    }

    /// What that revision changed. A journal is written behind apply: a revision that is not there may be on its way.
    pub async fn diff_of(&self, revision: u64, left: Duration) -> Result<RevisionDiff, Status> {
        let ends = Instant::now() + left.min(DIFF_WITHIN);
        loop {
            let found = timeout_at(ends, self.consensus.revision_diff(revision)).await;
            if let Ok(Some(diff)) = found {
                return Ok(diff);
            }
            if Instant::now() + JOURNAL_PAUSE >= ends {
                let message = format!("no node in reach holds the diff of revision {revision}");
                return Err(failure::status(Code::Unavailable, "DIFF_UNAVAILABLE", message));
            }
            sleep(JOURNAL_PAUSE).await;
        }
    }

    /// The resources as they were at that revision: the newer diffs undone, and the result proven by its hash.
    pub async fn resources_at(&self, call: &Call, state: &State, revision: u64) -> Result<Resources, Status> {
        if revision == state.revision {
            return Ok(state.resources.clone());
        }
        let (expected, newer) = expected_at(state, revision)?;
        let mut resources = state.resources.clone();
        for facts in newer {
            let diff = self.diff_of(facts.revision, call.left()).await?;
            resources = change::undo(&resources, &diff.changes);
        }
        match change::hash_of(&resources) == expected {
            true => Ok(resources),
            false => Err(failure::status(
                Code::DataLoss,
                "HISTORY_DAMAGED",
                format!("the diffs that lead back to revision {revision} do not give the resources it had"),
            )),
        }
    }
}

/// The hash at that revision, and the revisions above it, newest first.
fn expected_at(state: &State, revision: u64) -> Result<(Digest, Vec<Arc<RevisionFacts>>), Status> {
    let newer: Vec<_> = state.history.iter().rev().take_while(|facts| facts.revision > revision).cloned().collect();
    if let Some(facts) = state.history.iter().rev().nth(newer.len()).filter(|facts| facts.revision == revision) {
        return Ok((facts.hash, newer));
    }
    // Before the first revision there was nothing.
    if revision == 0 && newer.last().is_some_and(|oldest| oldest.previous == 0) {
        return Ok((Digest::default(), newer));
    }
    match state.history.front() {
        Some(oldest) if oldest.previous != 0 && revision < oldest.revision => {
            let message = format!("revision {revision} is not kept any more; the oldest is {}", oldest.revision);
            Err(failure::status(Code::NotFound, "COMPACTED", message))
        }
        _ => Err(failure::status(Code::NotFound, "NOT_FOUND", format!("there is no revision {revision}"))),
    }
}

fn previous(state: &State) -> Result<u64, Status> {
    match state.history.back() {
        Some(newest) => Ok(newest.previous),
        None => Err(failure::status(Code::NotFound, "NOT_FOUND", "there is no revision yet")),
    }
}

fn restore(changed: Changed) -> ResourceChange {
    ResourceChange { key: changed.key, after: changed.after, expect: Expect::Anything }
}
