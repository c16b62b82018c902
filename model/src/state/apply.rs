//! One log entry: clocks, repeats, the command itself, the audit chain.

use std::sync::Arc;

use prost::Message;

use super::{Answered, AuditEntry, ClusterFacts, DEDUP_MAX, Effects, RevisionDiff, State};
use crate::{
    LEVEL,
    command::{Applied, Body, Command, Outcome, Reason, Rejected, RequestId},
    convert,
    digest::Digest,
    mutants::{self, Mutant},
};

/// What a command that was carried out leaves behind.
#[derive(Default)]
pub(super) struct Done {
    pub outcome: Outcome,
    /// For the audit trail, in one line and without secrets; empty where nothing was changed.
    pub summary: String,
    pub diff: Option<RevisionDiff>,
}

impl Done {
    pub fn changed(summary: String) -> Self {
        Self { summary, ..Self::default() }
    }

    pub fn noop() -> Self {
        Self { outcome: Outcome { noop: true, ..Outcome::default() }, ..Self::default() }
    }
}

impl State {
    /// Applies the command of the log entry at `index`. Total: a refusal changes nothing but `index`, clocks and the
    /// de-duplication table. A request id that is known answers what it answered first, if the same is asked of it.
    /// Entries must come in order; blank and membership entries go through `skip`.
    pub fn apply(&mut self, index: u64, command: &Command) -> (Applied, Effects) {
        assert!(index > self.index || mutants::is(Mutant::AnyOrder), "entry {index} came after entry {}", self.index);
        assert!(command.min_level <= LEVEL, "a command of level {} came to level {LEVEL}", command.min_level);
        self.index = index;
        self.clock_us = match mutants::is(Mutant::LogClockSteps) {
            true => command.stamp.clock_us,
            false => self.clock_us.max(command.stamp.clock_us),
        };
        self.wall_ms = self.wall_ms.max(command.stamp.wall_ms);
        self.sweep();
        self.sweep_bans();
        self.sweep_pending();
        // The ledger tells repeats apart by itself, and would crowd out those that cannot.
        let request_id = command.request_id.filter(|_| !matches!(command.body, Body::Ledger(_)));
        let request_id = request_id.filter(|_| !mutants::is(Mutant::RepeatAppliedAgain));
        let request = request_id.map(|id| (id, command.asked()));
        if let Some(first) = request.and_then(|(id, asked)| self.answered(&id, asked)) {
            let refused = |rejected| Applied { index, revision: self.revision, outcome: Err(rejected) };
            return (first.cloned().unwrap_or_else(refused), Effects::default());
        }
        let (outcome, effects) = match self.carry_out(command) {
            Ok(done) => {
                self.raise_level(command.min_level);
                let audit = (!done.summary.is_empty()).then(|| self.audited(command, done.summary, &done.diff));
                (Ok(done.outcome), Effects { diff: done.diff, audit })
            }
            Err(rejected) => (Err(rejected), Effects::default()),
        };
        let applied = Applied { index, revision: self.revision, outcome };
        if let Some((id, asked)) = request {
            self.remember(id, Answered { asked: Some(asked), applied: applied.clone() });
        }
        (applied, effects)
    }

    /// Older builds are let in no more once something was applied that they do not know.
    fn raise_level(&mut self, level: u32) {
        if let Some(facts) = self.cluster.as_ref().filter(|facts| facts.level < level) {
            self.cluster = Some(Arc::new(ClusterFacts { level, ..ClusterFacts::clone(facts) }));
        }
    }

    /// An entry that carries no command.
    pub fn skip(&mut self, index: u64) {
        assert!(index >= self.index, "entry {index} came after entry {}", self.index);
        self.index = index;
    }

    /// Every arm checks first and changes then, so that a refusal leaves no trace.
    fn carry_out(&mut self, command: &Command) -> Result<Done, Rejected> {
        match &command.body {
            Body::Bootstrap(it) => return self.bootstrap(it),
            _ if self.cluster.is_none() => {
                return Err(Reason::NotBootstrapped.because("the cluster has not been bootstrapped"));
            }
            _ => {}
        }
        match &command.body {
            Body::Bootstrap(it) => self.bootstrap(it),
            Body::Refound(it) => self.refound(it),
            Body::ChangeResources(it) => self.change_resources(&command.actor, it),
            Body::EndTrial { revision, end } => self.end_trial(&command.actor, *revision, *end),
            Body::CreateJoinToken(it) => self.create_join_token(it),
            Body::RemoveJoinToken { id } => self.remove_join_token(id),
            Body::AdmitNode(it) => self.admit_node(it),
            Body::UpdateNode(it) => self.update_node(it),
            Body::RemoveNode { id } => self.remove_node(*id),
            Body::CreateAdminToken(it) => self.create_admin_token(it),
            Body::RemoveAdminToken { name } => self.remove_admin_token(name),
            Body::SetMaxRtt { max_rtt } => self.set_max_rtt(*max_rtt),
            Body::SetSecret(it) => self.set_secret(it),
            Body::CreateCredentials(all) => self.create_credentials(all),
            Body::RotateCredential(it) => self.rotate_credential(it),
            Body::SetCredentialState { id, to } => self.set_credential_state(*id, *to),
            Body::Revoke(it) => self.revoke(&command.actor, it),
            Body::StoreJwks(it) => self.store_jwks(it),
            Body::ResetLimit(it) => self.reset_limit(it),
            Body::GrantBonus(it) => self.grant_bonus(it),
            Body::PurgeCache(it) => self.purge_cache(it),
            Body::AddBans(it) => self.add_bans(&command.actor, it),
            Body::LiftBans(it) => self.lift_bans(it),
            Body::RotateTicketKeys(it) => self.rotate_ticket_keys(it),
            Body::RotateCa(it) => self.rotate_ca(it),
            Body::RotateSealingKey(it) => self.rotate_sealing_key(it),
            Body::HoldChange(it) => self.hold_change(&command.actor, it),
            Body::DecideChange(it) => self.decide_change(&command.actor, it),
            Body::NoteChain(it) => self.note_chain(it),
            Body::EraseActor(actor) => self.erase_actor(*actor),
            Body::Tick => Ok(Done::default()),
            Body::Ledger(it) => self.apply_to_ledger(it),
        }
    }

    /// The next link of the audit chain.
    fn audited(&mut self, command: &Command, summary: String, diff: &Option<RevisionDiff>) -> AuditEntry {
        let message = match &command.body {
            Body::ChangeResources(it) => it.message.clone(),
            Body::Revoke(it) => it.reason.clone(),
            Body::ResetLimit(it) => it.reason.clone(),
            Body::GrantBonus(it) => it.reason.clone(),
            Body::PurgeCache(it) => it.reason.clone(),
            Body::AddBans(it) => it.reason.clone(),
            Body::LiftBans(it) => it.reason.clone(),
            Body::HoldChange(it) => it.change.message.clone(),
            Body::DecideChange(it) => it.reason.clone(),
            _ => String::new(),
        };
        let entry = AuditEntry {
            sequence: self.audit.count + 1,
            index: self.index,
            revision: diff.as_ref().map_or(0, |diff| diff.revision),
            wall_ms: self.wall_ms,
            actor: command.actor.clone(),
            message,
            summary,
            previous: if mutants::is(Mutant::AuditUnlinked) { Digest::default() } else { self.audit.hash },
        };
        self.audit.count = entry.sequence;
        self.audit.hash = entry.hash();
        entry
    }

    fn remember(&mut self, id: RequestId, answered: Answered) {
        self.dedup_order.insert(answered.applied.index, id);
        self.dedup.insert(id, answered);
        while self.dedup_order.len() > DEDUP_MAX {
            let (oldest, id) = *self.dedup_order.get_min().expect("it is longer than its bound");
            self.dedup_order.remove(&oldest);
            self.dedup.remove(&id);
        }
        assert_eq!(self.dedup.len(), self.dedup_order.len(), "an id without its order of arrival, or the reverse");
    }
}

impl Command {
    /// What tells a repeat from another request under the same id.
    fn asked(&self) -> Digest {
        self.asked.unwrap_or_else(|| convert::body_digest(&self.body))
    }
}

impl AuditEntry {
    /// BLAKE3 over the hash before it and its stored form.
    pub fn hash(&self) -> Digest {
        let mut bytes = self.previous.0.to_vec();
        convert::audit_to(self).encode(&mut bytes).expect("a Vec grows as needed");
        Digest::of(&bytes)
    }
}
