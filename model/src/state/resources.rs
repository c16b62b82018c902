//! The resources: changes, their history, and the trial.

use std::{collections::BTreeSet, sync::Arc};

use super::{HISTORY_MAX, MESSAGE_BYTES_MAX, RevisionDiff, RevisionFacts, State, Trial, TrialStatus, apply::Done};
use crate::{
    change::{self, Changed, Lookups},
    command::{
        Actor, ChangeResources, Expect, FINDING_BYTES_MAX, FINDINGS_MAX, Outcome, Reason, Rejected, ResourceChange,
        TrialEnd,
    },
    digest::Digest,
    invalid::Invalid,
    mutants::{self, Mutant},
    resource::{Key, Resource, Resources},
};

/// From this level on an actor with an owner is held to what others own.
const BOUNDED_LEVEL: u32 = 3;
/// How many objects a summary names.
const KEYS_SHOWN_MAX: usize = 5;

/// A change that has passed every check.
struct Prepared {
    changes: Vec<Changed>,
    after: Resources,
    lookups: Lookups,
}

/// What goes into the history beside the change itself.
struct Note<'a> {
    actor: &'a Actor,
    message: String,
    trial: TrialStatus,
    rollback_of: Option<u64>,
    keeps_counters: bool,
}

impl State {
    /// What the change would do, by the very checks of apply: `validate_only` is this.
    pub fn preview(&self, actor: &Actor, change: &ChangeResources) -> Result<Vec<Changed>, Rejected> {
        self.prepare(actor, change).map(|prepared| prepared.changes)
    }

    /// Of the guardrails that a change must have been held against; None: there are none.
    ///
    /// Guardrails are expressions, and what evaluates them differs between builds: apply must not depend on it. So a
    /// node evaluates them on the very resources that the change would make, before it proposes, and says here which
    /// guardrails it asked; apply refuses what was held against others than there are. That is enough: whoever proposes
    /// (a node that was asked, one that forwards, an older build that knows of none) passes this comparison or changes
    /// nothing, and a guardrail that comes in between is not overtaken.
    pub fn guardrails(&self) -> Option<Digest> {
        self.lookups.guardrails()
    }

    pub(super) fn change_resources(&mut self, actor: &Actor, change: &ChangeResources) -> Result<Done, Rejected> {
        let prepared = self.held_against(actor, change)?;
        if let Some(key) = self.protected(&prepared.changes).filter(|_| !mutants::is(Mutant::ApprovalSkipped)) {
            // A node holds such a change before it proposes: this one was overtaken.
            let message = format!("{key} is protected by now: try again, and the change waits for an approval");
            return Err(Rejected { field: place(key), ..Reason::Conflict.because(message) });
        }
        Ok(self.make(actor, change, prepared))
    }

    /// What somebody else has approved, whatever it touches.
    pub(super) fn change_approved(&mut self, actor: &Actor, change: &ChangeResources) -> Result<Done, Rejected> {
        let prepared = self.held_against(actor, change)?;
        Ok(self.make(actor, change, prepared))
    }

    fn held_against(&self, actor: &Actor, change: &ChangeResources) -> Result<Prepared, Rejected> {
        if change.guardrails != self.guardrails() && !mutants::is(Mutant::GuardrailsOvertaken) {
            let message = "this was not held against the guardrails that there are now: try again";
            return Err(Reason::Conflict.because(message));
        }
        check_findings(&change.findings)?;
        self.prepare(actor, change)
    }

    fn make(&mut self, actor: &Actor, change: &ChangeResources, prepared: Prepared) -> Done {
        if prepared.changes.is_empty() {
            return Done::noop();
        }
        let (prior, prior_revision) = (self.resources.clone(), self.revision);
        let trial = change.trial.map_or(TrialStatus::None, |_| TrialStatus::Open);
        let message = change.message.clone();
        let mut done = self.commit(
            prepared,
            Note { actor, message, trial, rollback_of: change.rollback_of, keeps_counters: change.keeps_counters },
        );
        for finding in change.findings.iter() {
            done.summary += "; ";
            done.summary += finding;
        }
        self.trial = change.trial.map(|length| {
            let length_us = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
            Trial {
                revision: self.revision,
                ends_at_us: self.clock_us.saturating_add(length_us),
                prior_revision,
                prior,
            }
        });
        done
    }

    fn prepare(&self, actor: &Actor, change: &ChangeResources) -> Result<Prepared, Rejected> {
        if let Some(trial) = self.trial.as_ref().filter(|_| !mutants::is(Mutant::TrialOvertaken)) {
            let message = format!("revision {} is on trial: confirm or abort it first", trial.revision);
            return Err(Reason::TrialOpen.because(message));
        }
        if let Some(expected) = change
            .expected_revision
            .filter(|expected| *expected != self.revision && !mutants::is(Mutant::RevisionIgnored))
        {
            let message = format!("the resources are at revision {}, not at the expected {expected}", self.revision);
            return Err(Reason::Conflict.because(message));
        }
        if change.message.len() > MESSAGE_BYTES_MAX {
            let found = format!("{} bytes", change.message.len());
            return Err(Invalid::field("message").found(found).allowed(format!("{MESSAGE_BYTES_MAX} bytes")).into());
        }
        if change.trial.is_some_and(|length| length.is_zero()) {
            return Err(Invalid::field("trial").found("0s").allowed("more than 0s").into());
        }
        for one in change.changes.iter() {
            self.expected(one)?;
        }
        let changes = change::effect(&self.resources, &change.changes);
        for one in &changes {
            if let Some(field) = one.after.as_ref().and_then(Resource::unsealed) {
                let allowed = "sealed secrets: a node seals what a client sends before it proposes";
                return Err(Invalid::field(field)
                    .found("an open secret")
                    .allowed(allowed)
                    .under(place(&one.key))
                    .into());
            }
        }
        for one in &changes {
            let outdated = one.after.as_ref().and_then(|it| self.sealing.outdated(it));
            if let Some(field) = outdated {
                let message = format!(
                    "{field} is sealed under a key that has been replaced: try again, or give the secret itself"
                );
                return Err(Rejected { field: place(&one.key), ..Reason::Conflict.because(message) });
            }
        }
        within_scope(actor, &changes)?;
        let mut keys = BTreeSet::new();
        if let Some(twice) = change.changes.iter().find(|one| !keys.insert(&one.key)) {
            return Err(Invalid::field(place(&twice.key)).found("it twice").allowed("each object once").into());
        }
        let after = change::redo(&self.resources, &changes);
        let mut lookups = self.lookups.clone();
        lookups.advance(&after, &changes)?;
        self.governed(actor, change, &lookups, &after, &changes)?;
        Ok(Prepared { changes, after, lookups })
    }

    /// What tenants own, and how far an actor with an owner reaches.
    fn governed(
        &self,
        actor: &Actor,
        change: &ChangeResources,
        lookups: &Lookups,
        after: &Resources,
        changes: &[Changed],
    ) -> Result<(), Rejected> {
        let scope = &*actor.owner_scope;
        let forbidden = |invalid: Invalid| match scope.is_empty() {
            true => Rejected::from(invalid),
            false => Rejected { reason: Reason::OwnerForbidden, ..invalid.into() },
        };
        lookups.tenancy.hold(after, changes).map_err(forbidden)?;
        // An entry of an older build is applied as that build applies it, until there can be none.
        let bounded = change.bounded || self.cluster.as_ref().is_some_and(|facts| facts.level >= BOUNDED_LEVEL);
        if bounded && !scope.is_empty() && !mutants::is(Mutant::TenantUnbounded) {
            lookups.tenancy.bound(scope, after, changes).map_err(forbidden)?;
        }
        lookups.tenancy.within_quotas(after, changes)
    }

    /// Whether the object is as the change expects it to be.
    fn expected(&self, change: &ResourceChange) -> Result<(), Rejected> {
        let key = &change.key;
        let refused = |reason: Reason, message: String| Err(Rejected { field: place(key), ..reason.because(message) });
        if let Some(other) = change.after.as_ref().map(Resource::key).filter(|other| other != key) {
            return Err(Invalid::field(place(key)).found(other).allowed(key).into());
        }
        match (change.expect, self.resources.get(key), &change.after) {
            (Expect::Anything, ..) | (Expect::Missing, None, _) => Ok(()),
            (Expect::Missing, Some(_), _) => refused(Reason::AlreadyExists, format!("{key} exists already")),
            (Expect::Etag(_), None, Some(_)) => refused(Reason::NotFound, format!("{key} does not exist")),
            (Expect::Etag(etag), None, None) => {
                refused(Reason::Conflict, format!("{key} is gone already; expected was the etag {etag}"))
            }
            (Expect::Etag(_), Some(_), _) if mutants::is(Mutant::EtagIgnored) => Ok(()),
            (Expect::Etag(etag), Some(stored), _) if stored.etag == etag => Ok(()),
            (Expect::Etag(etag), Some(stored), _) => {
                refused(Reason::Conflict, format!("{key} has the etag {}, not the expected {etag}", stored.etag))
            }
        }
    }

    /// Makes the prepared change the newest revision.
    fn commit(&mut self, prepared: Prepared, note: Note<'_>) -> Done {
        let Prepared { changes, after, lookups } = prepared;
        let previous = std::mem::replace(&mut self.revision, self.index);
        assert!(previous < self.revision, "revision {} came after revision {previous}", self.revision);
        self.resources_hash = change::hash_after(self.resources_hash, &self.resources, &after, &changes);
        self.resources = after;
        self.lookups = lookups;
        self.forget_jwks_of(&changes);
        let credentials = self.forget_credentials_of(&changes);
        debug_assert_eq!(self.resources_hash, change::hash_of(&self.resources));
        self.limits_changed(&changes, note.keeps_counters);
        let counts = change::counts(&changes);
        let mut summary = summary(&changes, &note);
        if credentials > 0 {
            summary += &format!("; {credentials} credentials went with their consumers");
        }
        self.history.push_back(Arc::new(RevisionFacts {
            revision: self.revision,
            previous,
            wall_ms: self.wall_ms,
            actor: note.actor.name.clone(),
            message: note.message,
            counts,
            hash: self.resources_hash,
            trial: note.trial,
            rollback_of: note.rollback_of,
        }));
        while self.history.len() > HISTORY_MAX {
            self.history.pop_front();
        }
        Done {
            outcome: Outcome { counts, ..Outcome::default() },
            summary,
            diff: Some(RevisionDiff { revision: self.revision, previous, changes: changes.into() }),
        }
    }

    /// Revision 0 means the open trial, whichever it is.
    pub(super) fn end_trial(&mut self, actor: &Actor, revision: u64, end: TrialEnd) -> Result<Done, Rejected> {
        let Some(trial) = &self.trial else {
            return Err(Reason::NoTrial.because("no revision is on trial"));
        };
        if revision != 0 && revision != trial.revision {
            let message = format!("revision {revision} is not on trial; revision {} is", trial.revision);
            return Err(Reason::NoTrial.because(message));
        }
        if end == TrialEnd::Expire && self.clock_us < trial.ends_at_us {
            let message = format!("the trial of revision {} is not over yet", trial.revision);
            return Err(Reason::TrialNotOver.because(message));
        }
        let changes = change::between(&self.resources, &trial.prior);
        within_scope(actor, &changes)?;
        let trial = self.trial.take().expect("it was there above");
        let (status, word) = match end {
            TrialEnd::Confirm => {
                self.mark(trial.revision, TrialStatus::Confirmed);
                return Ok(Done::changed(format!("trial of revision {} confirmed", trial.revision)));
            }
            TrialEnd::Abort => (TrialStatus::Aborted, "aborted"),
            TrialEnd::Expire => (TrialStatus::Expired, "expired"),
        };
        self.mark(trial.revision, status);
        let lookups = Lookups::of(&trial.prior);
        let message = format!("trial of revision {} {word}", trial.revision);
        let rollback_of = (trial.prior_revision != 0).then_some(trial.prior_revision);
        let note =
            Note { actor, message: message.clone(), trial: TrialStatus::None, rollback_of, keeps_counters: false };
        let done = self.commit(Prepared { changes, after: trial.prior, lookups }, note);
        Ok(Done { summary: format!("{message}: {}", done.summary), ..done })
    }

    /// While a trial is open nothing else changes resources, so it is the last of the history.
    fn mark(&mut self, revision: u64, status: TrialStatus) {
        let last = self.history.back_mut().expect("a trial is a revision");
        assert_eq!(last.revision, revision, "a revision was made during a trial");
        Arc::make_mut(last).trial = status;
    }
}

fn check_findings(findings: &[String]) -> Result<(), Rejected> {
    crate::resource::check::count("findings", findings.len(), FINDINGS_MAX)?;
    let length = |it: &String| crate::resource::check::length("findings", it, FINDING_BYTES_MAX);
    Ok(findings.iter().try_for_each(length)?)
}

fn within_scope(actor: &Actor, changes: &[Changed]) -> Result<(), Rejected> {
    let scope = &actor.owner_scope;
    let foreign = |change: &&Changed| {
        let sides = [&change.before, &change.after];
        sides.into_iter().flatten().any(|resource| resource.owner() != scope)
    };
    match changes.iter().find(foreign) {
        Some(change) if !scope.is_empty() && !mutants::is(Mutant::OwnerIgnored) => {
            let message = format!("{} is not an object of owner {scope:?} before and after the change", change.key);
            Err(Rejected { field: place(&change.key), ..Reason::OwnerForbidden.because(message) })
        }
        _ => Ok(()),
    }
}

/// `routes/orders`
fn place(key: &Key) -> String {
    format!("{}/{}", key.kind.list(), key.name)
}

/// `2 created, 1 updated; route/a, route/b and 1 more`
fn summary(changes: &[Changed], note: &Note<'_>) -> String {
    let mut line = summary_of(changes);
    match (note.trial, note.rollback_of) {
        (TrialStatus::Open, _) => line += "; on trial",
        (_, Some(revision)) => line += &format!("; restores revision {revision}"),
        _ => {}
    }
    line
}

pub(super) fn summary_of(changes: &[Changed]) -> String {
    let counts = change::counts(changes);
    let words = [(counts.created, "created"), (counts.updated, "updated"), (counts.deleted, "deleted")];
    let words: Vec<_> = words.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    let keys: Vec<_> = changes.iter().take(KEYS_SHOWN_MAX).map(|change| change.key.to_string()).collect();
    let mut line = format!("{}; {}", words.join(", "), keys.join(", "));
    match changes.len().saturating_sub(KEYS_SHOWN_MAX) {
        0 => {}
        more => line += &format!(" and {more} more"),
    }
    line
}
