//! Changes of what is protected: whoever wants one asks for it, and it is carried out once somebody else has approved it.
//! Which objects those are follows from the guardrails and the labels before and after, so that no way of writing leads past.

use std::sync::Arc;

use imbl::OrdMap;

use super::{AdminToken, State, apply::Done};
use crate::{
    change::Changed,
    command::{
        Actor, AdminRole, ChangeResources, DecideChange, Expect, HoldChange, Reason, Rejected, ResourceChange, Verdict,
    },
    convert,
    digest::Digest,
    invalid::Invalid,
    mutants::{self, Mutant},
    resource::{Guardrail, Key, Kind, Name, Resource, of_kind},
};

/// How many changes may wait, and how many of one person's.
pub const PENDING_MAX: usize = 32;
pub const PENDING_OF_ONE_MAX: usize = 8;
/// Of all actors with an owner together: they leave room for who writes for all.
const PENDING_OF_OWNERS_MAX: usize = PENDING_MAX / 2;
/// How large one may be, stored.
pub const PENDING_BYTES_MAX: usize = 256 << 10;
/// How many objects: whoever decides is shown all of each.
pub const PENDING_CHANGES_MAX: usize = 1_000;
const REASON_BYTES_MAX: usize = 1 << 10;

/// By their ids.
pub type PendingChanges = OrdMap<u64, Arc<PendingChange>>;

#[derive(Debug, Clone, PartialEq)]
pub struct PendingChange {
    /// Of the entry that brought it.
    pub id: u64,
    pub actor: Arc<Actor>,
    /// It expects every object to be as it was: what is approved is what was looked at.
    pub change: ChangeResources,
    /// The resources' when it was asked for.
    pub revision: u64,
    pub wall_ms: u64,
    /// Log-clock instant, microseconds.
    pub expires_at_us: u64,
    /// The secret's hash of the admin token that asked: another one may get its name. None where nobody asked with one.
    pub token: Option<Digest>,
}

impl State {
    /// The first object of the change that only changes with an approval, if there is one.
    pub fn protected<'c>(&self, changes: &'c [Changed]) -> Option<&'c Key> {
        let rails: Vec<&Guardrail> = of_kind(&self.resources, Kind::Guardrail)
            .filter_map(|it| match it {
                Resource::Guardrail(rail) if !rail.approval_labels.is_empty() => Some(&**rail),
                _ => None,
            })
            .collect();
        if rails.is_empty() {
            return None;
        }
        let is_protected = |it: &&Changed| {
            let itself = it.key.kind == Kind::Guardrail && rails.iter().any(|rail| rail.name == it.key.name);
            let mut sides = it.before.iter().chain(&it.after);
            itself || sides.any(|side| rails.iter().any(|rail| rail.protects(side.labels())))
        };
        changes.iter().find(is_protected).map(|it| &it.key)
    }

    pub(super) fn hold_change(&mut self, actor: &Arc<Actor>, it: &HoldChange) -> Result<Done, Rejected> {
        let bytes = convert::change_bytes(&it.change);
        if bytes > PENDING_BYTES_MAX {
            let allowed = format!("{PENDING_BYTES_MAX} bytes where an approval is needed: apply it in parts");
            return Err(Invalid::field("change").found(format!("{bytes} bytes")).allowed(allowed).into());
        }
        crate::resource::check::count("changes", it.change.changes.len(), PENDING_CHANGES_MAX)?;
        if it.ttl.is_zero() {
            return Err(Invalid::field("ttl").found("0s").allowed("more than 0s").into());
        }
        if let Some(open) = it.change.changes.iter().find(|one| one.expect == Expect::Anything) {
            let allowed = "an etag, or that it is missing: what is approved is what was looked at";
            return Err(Invalid::field(open.key.to_string()).found("no expectation").allowed(allowed).into());
        }
        let changes = self.preview(actor, &it.change)?;
        if self.protected(&changes).is_none() {
            return Err(Reason::Conflict.because("nothing in this change needs an approval: apply it"));
        }
        self.room_for_one_more(actor)?;
        let ttl_us = u64::try_from(it.ttl.as_micros()).unwrap_or(u64::MAX);
        let pending = PendingChange {
            id: self.index,
            actor: actor.clone(),
            change: it.change.clone(),
            revision: self.revision,
            wall_ms: self.wall_ms,
            expires_at_us: self.clock_us.saturating_add(ttl_us),
            token: self.token_of(&actor.name).map(|it| it.secret_hash),
        };
        self.pending.insert(self.index, Arc::new(pending));
        let summary = super::resources::summary_of(&changes);
        Ok(Done::changed(format!("change {} waits for an approval: {summary}", self.index)))
    }

    fn room_for_one_more(&self, actor: &Actor) -> Result<(), Rejected> {
        let count = |is: &dyn Fn(&Actor) -> bool| self.pending.values().filter(|it| is(&it.actor)).count();
        let (all, of_one) = (self.pending.len(), count(&|it| person(&it.name) == person(&actor.name)));
        let of_owners = count(&|it| !it.owner_scope.is_empty());
        let is_crowded = !actor.owner_scope.is_empty() && of_owners >= PENDING_OF_OWNERS_MAX;
        if all < PENDING_MAX && of_one < PENDING_OF_ONE_MAX && !is_crowded {
            return Ok(());
        }
        let message = format!(
            "{all} changes wait for an approval, {of_one} of them by {} and {of_owners} by actors with an owner; the most there \
             may be are {PENDING_MAX}, {PENDING_OF_ONE_MAX} and {PENDING_OF_OWNERS_MAX}",
            actor.name
        );
        Err(Reason::LimitReached.because(message))
    }

    /// Why whoever has asked for it could not do so any more.
    pub fn asker_gone(&self, pending: &PendingChange) -> Option<String> {
        let name = pending.actor.name.strip_prefix("token/")?;
        let governs = |one: &ResourceChange| matches!(one.key.kind, Kind::Tenant | Kind::Guardrail);
        let needs_admin = pending.change.changes.iter().any(governs);
        let why = match self.token_of(&pending.actor.name) {
            None => "is gone",
            Some(token) if pending.token.is_some_and(|it| it != token.secret_hash) => {
                "is gone, and another one has its name"
            }
            Some(token) if token.expires_at_us <= self.clock_us => "has expired",
            Some(token) if token.owner != pending.actor.owner_scope => "has another owner",
            Some(token) if token.role == AdminRole::Viewer || needs_admin && token.role != AdminRole::Admin => {
                "may not write it any more"
            }
            Some(_) => return None,
        };
        Some(format!("token/{name}, which has asked for it, {why}"))
    }

    /// What such an actor asks with, while there is one of that name.
    fn token_of(&self, actor: &str) -> Option<&AdminToken> {
        let name = actor.strip_prefix("token/")?.parse::<Name>().ok()?;
        self.admin_tokens.get(&name)
    }

    pub(super) fn decide_change(&mut self, actor: &Actor, it: &DecideChange) -> Result<Done, Rejected> {
        crate::resource::check::length("reason", &it.reason, REASON_BYTES_MAX)?;
        let Some(pending) = self.pending.get(&it.id).cloned() else {
            let message =
                format!("no change {} waits for an approval; it may have been decided, or its time is up", it.id);
            return Err(Reason::NotFound.because(message));
        };
        let asked_by = &pending.actor.name;
        let done = match &it.verdict {
            Verdict::Rejected if !actor.owner_scope.is_empty() && actor.name != *asked_by => {
                let message = format!("{asked_by} has asked for it: an actor with an owner takes back its own");
                return Err(Reason::OwnerForbidden.because(message));
            }
            Verdict::Rejected => Done::changed(format!("change {} of {asked_by} rejected", it.id)),
            Verdict::Approved { .. } if person(&actor.name) == MACHINE => {
                let message = "root, other users of machines and nodes ask and reject, and approve nothing: who has a node's \
                               machine is all of them, beside the name that he asks under";
                return Err(Reason::OwnApproval.because(message));
            }
            Verdict::Approved { .. } if actor.name == *asked_by && !mutants::is(Mutant::OwnApprovalCounts) => {
                return Err(Reason::OwnApproval.because(format!("{asked_by} has asked for it: somebody else approves")));
            }
            Verdict::Approved { guardrails, findings } => {
                if let Some(gone) = self.asker_gone(&pending) {
                    return Err(Reason::Conflict.because(gone));
                }
                let (guardrails, findings) = (*guardrails, findings.clone());
                let change = ChangeResources { guardrails, findings, ..pending.change.clone() };
                let done = self.change_approved(&pending.actor, &change)?;
                Done { summary: format!("change {} of {asked_by} approved: {}", it.id, done.summary), ..done }
            }
        };
        self.pending.remove(&it.id);
        Ok(done)
    }

    /// Those whose time is up are forgotten.
    pub(super) fn sweep_pending(&mut self) {
        let over = |it: &Arc<PendingChange>| it.expires_at_us <= self.clock_us && !mutants::is(Mutant::HeldTooLong);
        let ended: Vec<u64> = self.pending.values().filter(|it| over(it)).map(|it| it.id).collect();
        ended.iter().for_each(|id| drop(self.pending.remove(id)));
    }
}

/// Whoever is root on a node is its daemon's user too and has its certificate: users of machines and nodes count as one.
fn person(actor: &str) -> &str {
    let is_machine = actor == "root" || actor.starts_with("uid/") || actor.starts_with("node/");
    if is_machine { MACHINE } else { actor }
}

const MACHINE: &str = "";
