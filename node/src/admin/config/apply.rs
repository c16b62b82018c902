//! The one write path of resources: a request becomes a set of changes, which is checked as a whole, proposed, and
//! answered with what it did. `validate_only` stops before the proposal, so that the two cannot disagree.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use prost::Message;
use quorumgate_model::{
    change::{self, Changed},
    command::{Actor, Body, ChangeResources, Expect, Outcome, Reason, Rejected, ResourceChange},
    convert,
    digest::Digest,
    invalid::Invalid,
    resource::{Key, Kind, Limit, LimitKind, LimitMode, Resource},
    state::State,
};
use quorumgate_proto::admin::v1::{self as admin, ApplyConfigRequest, WriteResponse};
use tonic::Status;
use uuid::Uuid;

use super::{guardrails, messages, places::Places};
use crate::{
    admin::{
        desk::{self, Desk, Written},
        failure,
        gate::Call,
    },
    compile, sealed,
};

/// The changes of one log entry, encoded.
pub const ENTRY_BYTES_MAX: usize = 8 << 20;
const TRIAL_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

/// What a request asks for, whichever call it came by.
pub struct Intent {
    pub changes: Vec<ResourceChange>,
    /// Where each object stands in the request, for field paths.
    pub places: Places,
    pub expected_revision: Option<u64>,
    pub request_id: Uuid,
    /// From `desk::asked`.
    pub asked: Digest,
    pub message: String,
    pub trial: Option<Duration>,
    pub rollback_of: Option<u64>,
    pub mode: Mode,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Write,
    /// The diff and every check; nothing is written.
    Validate,
}

impl Mode {
    pub fn validate_only(validate_only: bool) -> Self {
        if validate_only { Self::Validate } else { Self::Write }
    }
}

impl Intent {
    fn change(&self, actor: &Actor) -> ChangeResources {
        ChangeResources {
            changes: self.changes.as_slice().into(),
            expected_revision: self.expected_revision,
            message: self.message.clone(),
            trial: self.trial,
            rollback_of: self.rollback_of,
            bounded: !actor.owner_scope.is_empty(),
            ..ChangeResources::default()
        }
    }
}

/// The intent of an ApplyConfig, against the state that it will be compared with.
pub fn intent(request: ApplyConfigRequest, request_id: Uuid, asked: Digest, state: &State) -> Result<Intent, Status> {
    let config = request.config.unwrap_or_default();
    let places = Places::of(&config, &request.delete);
    let mut changes = BTreeMap::new();
    for resource in convert::config_from(config).map_err(|wrong| failure::invalid(&wrong))? {
        changes.insert(resource.key(), upsert(resource));
    }
    let mut warnings: Vec<String> = changes.values().filter_map(|change| doubt(change.after.as_ref()?)).collect();
    warnings.extend(changes.values().filter_map(|change| begins_anew(change.after.as_ref()?, state)));
    if request.prune {
        prune(&request.owner, state, &mut changes, &mut warnings)?;
    }
    for (at, reference) in request.delete.iter().enumerate() {
        let field = format!("delete[{at}]");
        let key = convert::key_from(reference).map_err(|wrong| failure::invalid(&wrong.under(&field)))?;
        if changes.get(&key).is_some_and(|change| change.after.is_some()) {
            return Err(failure::bad_field(&field, &format!("{key} is in `config` too")));
        }
        require(state, &key, &field)?;
        changes.insert(key.clone(), delete(key));
    }
    for (at, etag) in request.etags.iter().enumerate() {
        expect(etag, &format!("etags[{at}]"), &mut changes)?;
    }
    Ok(Intent {
        changes: changes.into_values().collect(),
        places,
        expected_revision: request.expected_revision,
        request_id,
        asked,
        message: request.message,
        trial: desk::duration("trial", request.trial)?,
        rollback_of: None,
        mode: Mode::validate_only(request.validate_only),
        warnings,
    })
}

/// A limit of another kind counts something else: what was used so far says nothing about it.
fn begins_anew(resource: &Resource, state: &State) -> Option<String> {
    let Resource::Limit(after) = resource else { return None };
    let Resource::Limit(before) = &state.resources.get(&resource.key())?.resource else { return None };
    // A bucket is a window that slides.
    let counts = |it: &Limit| match it.kind {
        LimitKind::Sliding { .. } | LimitKind::Bucket { .. } => "a window",
        LimitKind::Calendar { .. } => "a period",
        LimitKind::Concurrency { .. } => "what is in flight",
    };
    let is_local = |it: &Limit| it.mode == LimitMode::Local;
    let same = counts(before) == counts(after) && is_local(before) == is_local(after);
    (!same).then(|| {
        format!("{}: it counts something else now: what was used so far does not count any more", resource.key())
    })
}

/// What an operator should know about something that is allowed all the same.
fn doubt(resource: &Resource) -> Option<String> {
    let Resource::Upstream(upstream) = resource else { return None };
    let unverified = upstream.tls.as_ref().is_some_and(|tls| !tls.verify);
    unverified.then(|| {
        let key = resource.key();
        format!("{key}: tls.verify is false: whoever is between the gateway and the servers can read and change all")
    })
}

pub fn upsert(resource: Resource) -> ResourceChange {
    ResourceChange { key: resource.key(), after: Some(resource), expect: Expect::Anything }
}

pub fn delete(key: Key) -> ResourceChange {
    ResourceChange { key, after: None, expect: Expect::Anything }
}

/// The object must be there; `field` names it in the request.
pub fn require(state: &State, key: &Key, field: &str) -> Result<(), Status> {
    if state.resources.contains_key(key) {
        return Ok(());
    }
    let rejected =
        Rejected { reason: Reason::NotFound, field: field.to_owned(), message: format!("{key} does not exist") };
    Err(failure::rejected(&rejected))
}

/// "" means that the object must not exist yet.
pub fn expectation(etag: &str, field: &str) -> Result<Expect, Status> {
    if etag.is_empty() {
        return Ok(Expect::Missing);
    }
    let digest = Digest::from_hex(etag);
    digest.map(Expect::Etag).ok_or_else(|| {
        failure::bad_field(field, &format!("found {etag:?}; allowed: an etag as Get and List return it"))
    })
}

fn expect(etag: &admin::Etag, field: &str, changes: &mut BTreeMap<Key, ResourceChange>) -> Result<(), Status> {
    let reference = admin::ResourceRef { kind: etag.kind, name: etag.name.clone() };
    let key = convert::key_from(&reference).map_err(|wrong| failure::invalid(&wrong.under(field)))?;
    let Some(change) = changes.get_mut(&key) else {
        return Err(failure::bad_field(field, &format!("{key} is neither written nor deleted by this request")));
    };
    change.expect = expectation(&etag.etag, &format!("{field}.etag"))?;
    Ok(())
}

/// Deletes what `owner` has in the state and not in the request.
fn prune(
    owner: &str,
    state: &State,
    changes: &mut BTreeMap<Key, ResourceChange>,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    if owner.is_empty() {
        return Err(failure::bad_field(
            "owner",
            "found nothing; allowed: the owner whose other objects `prune` deletes",
        ));
    }
    for change in changes.values() {
        if change.after.as_ref().is_some_and(|resource| resource.owner() != owner) {
            warnings.push(format!("{} is not owned by {owner:?}: a later prune will not see it", change.key));
        }
    }
    for (key, stored) in state.resources.iter() {
        if stored.resource.owner() == owner && !changes.contains_key(key) {
            changes.insert(key.clone(), delete(key.clone()));
        }
    }
    Ok(())
}

impl Desk {
    /// A repeated request gets the first one's outcome, whatever the state is like by now; another request under the
    /// same id is refused.
    pub async fn repeated(
        &self,
        call: &Call,
        state: &State,
        request_id: Uuid,
        asked: Digest,
        mode: Mode,
    ) -> Option<Result<WriteResponse, Status>> {
        let known = state.answered(request_id.as_bytes(), self.veiled(asked)).filter(|_| mode == Mode::Write)?;
        let written = match known.map_err(|refused| failure::rejected(&refused)).and_then(desk::written) {
            Ok(written) => written,
            Err(refused) => return Some(Err(refused)),
        };
        let changes = match written.outcome.noop {
            true => Vec::new(),
            false => self.changes_of(call, written.revision).await,
        };
        Some(Ok(self.respond(call, written, changes, Some(request_id)).await))
    }

    /// Checks the intent against `state` (linearized) and carries it out.
    pub async fn carry_out(&self, call: &Call, state: &Arc<State>, intent: Intent) -> Result<WriteResponse, Status> {
        let mut intent = self.sealed(state, intent)?;
        let mut whole = intent.change(&call.actor);
        let changed = check(call, state, &intent, &whole)?;
        let (changed, held) = guardrails::hold(call, state, changed, &mut intent.places).await?;
        intent.warnings.extend(held.warnings);
        let protected = state.protected(&changed).cloned();
        (whole.guardrails, whole.findings) = (state.guardrails(), held.findings.into());
        if intent.mode == Mode::Validate {
            let waits = |key| format!("{key} is protected: the change would wait for the approval of somebody else");
            intent.warnings.extend(protected.map(waits));
            return Ok(preview(self, state, intent, &changed));
        }
        // Nothing differs in a linearized state, and `check` has compared what was expected: no entry is needed.
        if changed.is_empty() {
            let outcome = Outcome { noop: true, ..Outcome::default() };
            let written = Written { index: state.revision, revision: state.revision, outcome };
            return self.answer(call, intent, written, Some(changed)).await;
        }
        if let Some(key) = protected {
            return Err(self.hold(call, state, &key, entry(whole, &changed)?, &changed, intent.request_id).await?);
        }
        let body = Body::ChangeResources(entry(whole, &changed)?);
        let applied = self.propose_asked(call, intent.request_id, Some(intent.asked), body).await?;
        let written = intent.places.written(&applied)?;
        // What was compared before is what was changed, unless another write came between.
        let foreseen = self.previous_of(written.revision) == Some(state.revision);
        self.answer(call, intent, written, foreseen.then_some(changed)).await
    }

    /// A rollback brings secrets that are sealed already, from a journal; clients bring none.
    fn sealed(&self, state: &State, mut intent: Intent) -> Result<Intent, Status> {
        if intent.rollback_of.is_some() {
            return Ok(intent);
        }
        let keys = self.consensus.keyring().at(state);
        for change in &mut intent.changes {
            let Some(resource) = change.after.take() else { continue };
            let stored = state.resources.get(&change.key).map(|stored| &stored.resource);
            let sealed = sealed::seal(&keys, resource, stored);
            let under = |wrong: Invalid| failure::invalid(&wrong.under(intent.places.place(&change.key)));
            let sealed = sealed.and_then(|sealed| sealed::check(&keys, &sealed).map(|()| sealed));
            change.after = Some(sealed.map_err(under)?);
        }
        Ok(intent)
    }

    /// `changed` is read from the journal when it is not known.
    async fn answer(
        &self,
        call: &Call,
        intent: Intent,
        written: Written,
        changed: Option<Vec<Changed>>,
    ) -> Result<WriteResponse, Status> {
        let changes = match changed {
            Some(changed) => messages::changes(&changed),
            None if written.outcome.noop => Vec::new(),
            None => self.changes_of(call, written.revision).await,
        };
        let mut response = self.respond(call, written, changes, Some(intent.request_id)).await;
        response.trial_until = intent.trial.and_then(|_| trial_until(&self.consensus.state(), written.revision));
        response.warnings = intent.warnings;
        Ok(response)
    }

    /// A write of resources that was applied, with its receipts.
    pub async fn respond(
        &self,
        call: &Call,
        written: Written,
        changes: Vec<admin::Change>,
        request_id: Option<Uuid>,
    ) -> WriteResponse {
        let receipts = self.receipts(call, written.index).await;
        WriteResponse {
            header: Some(self.header()),
            revision: written.revision,
            noop: written.outcome.noop,
            counts: Some(messages::counts(written.outcome.counts)),
            changes,
            nodes: receipts.iter().map(|it| desk::receipt(it, it.published_revision)).collect(),
            request_id: request_id.map(|it| it.to_string()).unwrap_or_default(),
            ..WriteResponse::default()
        }
    }

    /// Empty when no node in reach holds them: the write stands all the same.
    pub async fn changes_of(&self, call: &Call, revision: u64) -> Vec<admin::Change> {
        let diff = self.diff_of(revision, call.left()).await;
        diff.map(|diff| messages::changes(&diff.changes)).unwrap_or_default()
    }

    fn previous_of(&self, revision: u64) -> Option<u64> {
        let state = self.consensus.state();
        state.history.iter().rev().find(|facts| facts.revision == revision).map(|facts| facts.previous)
    }
}

fn preview(desk: &Desk, state: &State, intent: Intent, changed: &[Changed]) -> WriteResponse {
    WriteResponse {
        header: Some(desk.header_at(state)),
        revision: state.revision,
        noop: changed.is_empty(),
        counts: Some(messages::counts(change::counts(changed))),
        changes: messages::changes(changed),
        request_id: intent.request_id.to_string(),
        warnings: intent.warnings,
        ..WriteResponse::default()
    }
}

/// The log entry: what differs, and what is expected of objects that stay as they are.
fn entry(whole: ChangeResources, changed: &[Changed]) -> Result<ChangeResources, Status> {
    let differs: BTreeSet<&Key> = changed.iter().map(|it| &it.key).collect();
    let needed = |change: &&ResourceChange| differs.contains(&change.key) || change.expect != Expect::Anything;
    let changes: Arc<[ResourceChange]> = whole.changes.iter().filter(needed).cloned().collect();
    let bodies = changes.iter().filter_map(|change| change.after.as_ref());
    let bytes: usize = bodies.map(|resource| convert::resource_to(resource).encoded_len()).sum();
    if bytes > ENTRY_BYTES_MAX {
        let message = format!(
            "the changes take {bytes} bytes; allowed: {ENTRY_BYTES_MAX} in one transaction; apply them in parts"
        );
        return Err(failure::entry_too_large(&message));
    }
    Ok(ChangeResources { changes, ..whole })
}

/// Whether it changes what binds all others.
pub fn governs(changed: &Changed) -> bool {
    matches!(changed.key.kind, Kind::Tenant | Kind::Guardrail)
}

/// Everything that apply would refuse, before anything is proposed; what would change.
fn check(call: &Call, state: &State, intent: &Intent, whole: &ChangeResources) -> Result<Vec<Changed>, Status> {
    if intent.trial.is_some_and(|trial| !TRIAL_RANGE.contains(&trial)) {
        return Err(failure::bad_field("trial", "allowed: 1s to 24h"));
    }
    checked(call, state, &call.actor, whole, &intent.places)
}

/// Of a change that `actor` wants and `call` writes.
pub fn checked(
    call: &Call,
    state: &State,
    actor: &Actor,
    whole: &ChangeResources,
    places: &Places,
) -> Result<Vec<Changed>, Status> {
    let changed = state.preview(actor, whole).map_err(|refused| places.rejected(&refused))?;
    // In a dry run too: it would evaluate whatever guardrail it brings.
    changed.iter().filter(|it| governs(it)).try_for_each(|it| call.may_govern(&it.key))?;
    compiled(&changed, places)?;
    Ok(changed)
}

/// Whether this build can carry it out.
pub fn compiled(changed: &[Changed], places: &Places) -> Result<(), Status> {
    for it in changed {
        if let Some(resource) = &it.after {
            let wrong = |wrong: Invalid| failure::invalid(&wrong.under(places.place(&it.key)));
            compile::check(resource).map_err(wrong)?;
        }
    }
    Ok(())
}

/// By the wall clock of the newest entry: for people.
pub fn trial_until(state: &State, revision: u64) -> Option<prost_types::Timestamp> {
    let trial = state.trial.as_ref().filter(|trial| trial.revision == revision)?;
    let left_ms = trial.ends_at_us.saturating_sub(state.clock_us) / 1_000;
    Some(messages::timestamp_ms(state.wall_ms + left_ms))
}
