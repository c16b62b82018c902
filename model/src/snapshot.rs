//! The state as a stream of prost records, and back. Deterministic: equal states give equal bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use prost::Message;
use quorumgate_proto::store::v1::{ErasedActor, SnapshotRecord, snapshot_record::Record};

use crate::{
    change::{self, Lookups},
    command::NoteChain,
    convert,
    credential::{Credential, Grants},
    digest::Digest,
    invalid::Invalid,
    ledger::Ledger,
    resource::{Key, Kind, Resources, Stored},
    revocation::RevocationNote,
    state::{State, Trial},
};

/// The records of a state, in their fixed order: head first.
pub fn records(state: &State) -> Box<dyn Iterator<Item = SnapshotRecord> + '_> {
    let notes: BTreeMap<u64, &RevocationNote> =
        state.revocations.entries().values().map(|it| (it.note.index, &*it.note)).collect();
    let all = state
        .credentials
        .by_id()
        .values()
        .map(|it| Record::Credential(convert::credential_to(it)))
        .chain(notes.into_values().map(|it| Record::RevocationNote(convert::note_to(it))))
        .chain(state.revocations.entries().values().map(|it| Record::Revocation(convert::revocation_to(it))));
    Box::new(few_records(state).chain(all.map(|record| SnapshotRecord { record: Some(record) })))
}

/// All but the credentials and the revocations, whose sums are in the head: what a hash of the state is made of.
fn few_records(state: &State) -> impl Iterator<Item = SnapshotRecord> + '_ {
    let resource = |stored: &Stored| convert::resource_to(&stored.resource);
    let outcome = |id| state.dedup.get(id).expect("both tables hold the same ids");
    let prior = state.trial.iter().flat_map(|trial| trial.prior.values());
    let all =
        std::iter::once(Record::Head(convert::head_to(state)))
            .chain(state.resources.values().map(move |it| Record::Resource(resource(it))))
            .chain(state.history.iter().map(|it| Record::Revision(convert::revision_to(it))))
            .chain(state.nodes.values().map(|it| Record::Node(convert::node_to(it))))
            .chain(state.removed.iter().map(|(id, it)| Record::RemovedNode(convert::removed_to(*id, it))))
            .chain(state.join_tokens.iter().map(|(id, it)| Record::JoinToken(convert::join_token_to(id, it))))
            .chain(state.admin_tokens.iter().map(|(name, it)| Record::AdminToken(convert::admin_token_to(name, it))))
            .chain(state.dedup_order.values().map(move |id| Record::Dedup(convert::dedup_to(id, outcome(id)))))
            .chain(state.trial.iter().map(|it| Record::Trial(convert::trial_to(it))))
            .chain(prior.map(move |it| Record::TrialPrior(resource(it))))
            .chain(state.secrets.iter().map(|(name, it)| Record::Secret(convert::secret_to(name, it))))
            .chain(state.jwks.iter().map(|(auth, it)| Record::Jwks(convert::jwks_to(auth, it))))
            .chain(state.ticket_keys.iter().map(|it| Record::TicketKey(convert::ticket_key_to(it))))
            .chain(state.chains.iter().map(|((node, kind), head)| {
                Record::Chain(convert::note_chain_to(&NoteChain { node: *node, kind: *kind, head: *head }))
            }))
            .chain(state.purges.entries().iter().map(|it| Record::Purge(convert::purge::entry_to(it))))
            .chain(state.bans.entries().values().map(|it| Record::Ban(convert::ban::to(it))))
            .chain(state.pending.values().map(|it| Record::Pending(convert::approvals::pending_to(it))))
            .chain(state.erased.iter().map(|(actor, wall_ms)| {
                Record::ErasedActor(ErasedActor { actor_hash: actor.0.into(), wall_ms: *wall_ms })
            }))
            .chain(ledger_records(&state.ledger));
    all.map(|record| SnapshotRecord { record: Some(record) })
}

fn ledger_records(ledger: &Ledger) -> impl Iterator<Item = Record> + '_ {
    let head = convert::ledger::head_to(ledger).map(Record::LedgerHead);
    head.into_iter()
        .chain(ledger.limits.values().map(|it| Record::LedgerLimit(convert::ledger::limit_to(it))))
        .chain(ledger.sessions.iter().map(|(id, it)| Record::LedgerSession(convert::ledger::session_to(*id, it))))
        .chain(ledger.seats.iter().map(|(node, it)| Record::LedgerSeat(convert::ledger::seat_to(*node, it))))
        .chain(ledger.keys.iter().map(|(key, it)| Record::LedgerPool(convert::ledger::pool_to(key, it))))
}

/// BLAKE3 over the records, each with its length before it; what there may be millions of counts by its sum.
pub(crate) fn hash(state: &State) -> Digest {
    let mut hasher = blake3::Hasher::new();
    let mut bytes = Vec::new();
    for record in few_records(state) {
        bytes.clear();
        record.encode_length_delimited(&mut bytes).expect("a Vec grows as needed");
        hasher.update(&bytes);
    }
    Digest(*hasher.finalize().as_bytes())
}

/// Rebuilds a state from its records.
#[derive(Default)]
pub struct Rebuild {
    state: State,
    headed: bool,
    trial: Option<(u64, u64, u64)>,
    prior: Vec<Stored>,
    /// What the head says of the credentials and the revocations.
    sums: [Digest; 2],
    notes: BTreeMap<u64, Arc<RevocationNote>>,
    /// What credentials share.
    grants: BTreeSet<Arc<Grants>>,
}

impl Rebuild {
    pub fn push(&mut self, record: SnapshotRecord) -> Result<(), Invalid> {
        let state = &mut self.state;
        match record.record {
            Some(Record::Head(head)) if !self.headed => {
                self.sums = convert::sums_from(&head)?;
                *state = convert::head_from(head)?;
                self.headed = true;
            }
            Some(Record::Head(_)) => return Err(Invalid::field("head").found("a second one").allowed("one head")),
            None => return Err(Invalid::field("record").found("none of the known kinds").allowed("a known kind")),
            Some(_) if !self.headed => return Err(headless()),
            Some(Record::Resource(resource)) => {
                let stored = change::stored(convert::stored_resource_from(resource)?);
                once("resource", state.resources.insert(stored.resource.key(), stored))?;
            }
            Some(Record::Revision(revision)) => {
                let revision = convert::revision_from(revision)?;
                if state.history.back().is_some_and(|last| last.revision >= revision.revision) {
                    return Err(Invalid::field("history").found("out of order").allowed("oldest first"));
                }
                state.history.push_back(Arc::new(revision));
            }
            Some(Record::Node(node)) => {
                let node = convert::node_from(node)?;
                once("node", state.nodes.insert(node.id, Arc::new(node)))?;
            }
            Some(Record::RemovedNode(node)) => {
                let (id, node) = convert::removed_from(node)?;
                once("removed_node", state.removed.insert(id, node))?;
            }
            Some(Record::JoinToken(token)) => {
                let (id, token) = convert::join_token_from(token)?;
                once("join_token", state.join_tokens.insert(id, token))?;
            }
            Some(Record::AdminToken(token)) => {
                let (name, token) = convert::admin_token_from(token)?;
                once("admin_token", state.admin_tokens.insert(name, token))?;
            }
            Some(Record::Dedup(dedup)) => {
                let (id, answered) = convert::dedup_from(dedup)?;
                once("dedup", state.dedup_order.insert(answered.applied.index, id))?;
                once("dedup", state.dedup.insert(id, answered))?;
            }
            Some(Record::Trial(trial)) => {
                once("trial", self.trial.replace((trial.revision, trial.ends_at_us, trial.prior_revision)))?;
            }
            Some(Record::TrialPrior(resource)) => {
                self.prior.push(change::stored(convert::stored_resource_from(resource)?));
            }
            Some(Record::LedgerHead(head)) => state.ledger = convert::ledger::head_from(head),
            Some(Record::LedgerLimit(limit)) => {
                let limit = convert::ledger::limit_from(limit)?;
                once("ledger_limit", state.ledger.limits.insert(limit.id, Arc::new(limit)))?;
            }
            Some(Record::LedgerSession(session)) => {
                let (id, session) = convert::ledger::session_from(session)?;
                once("ledger_session", state.ledger.sessions.insert(id, session))?;
            }
            Some(Record::LedgerSeat(seat)) => {
                let (node, seat) = convert::ledger::seat_from(seat);
                once("ledger_seat", state.ledger.seats.insert(node, seat))?;
            }
            Some(Record::LedgerPool(pool)) => {
                let (key, pool) = convert::ledger::pool_from(pool)?;
                once("ledger_pool", state.ledger.keys.insert(key, Arc::new(pool)))?;
            }
            Some(Record::Secret(secret)) => {
                let (name, sealed) = convert::secret_from(secret)?;
                once("secret", state.secrets.insert(name, sealed))?;
            }
            Some(Record::TicketKey(key)) => {
                let key = convert::ticket_key_from(key);
                if state.ticket_keys.back().is_some_and(|last| last.index >= key.index) {
                    return Err(Invalid::field("ticket_key").found("out of order").allowed("oldest first"));
                }
                state.ticket_keys.push_back(Arc::new(key));
            }
            Some(Record::Chain(chain)) => {
                let NoteChain { node, kind, head } = convert::note_chain_from(chain)?;
                once("chain", state.chains.insert((node, kind), head))?;
            }
            Some(Record::Purge(purge)) => {
                let entry = convert::purge::entry_from(purge)?;
                if entry.index <= state.purges.newest() {
                    return Err(Invalid::field("purge").found("out of order").allowed("oldest first"));
                }
                state.purges.push(entry);
            }
            Some(Record::Ban(ban)) => {
                let ban = convert::ban::from(ban)?;
                once("ban", state.bans.insert(Arc::new(ban)))?;
            }
            Some(Record::Pending(it)) => {
                let pending = convert::approvals::pending_from(it)?;
                once("pending", state.pending.insert(pending.id, Arc::new(pending)))?;
            }
            Some(Record::ErasedActor(it)) => {
                let unlike = || Invalid::field("erased_actor").found("another length").allowed("32 bytes");
                let actor = Digest::from_bytes(&it.actor_hash).ok_or_else(unlike)?;
                once("erased_actor", state.erased.insert(actor, it.wall_ms))?;
            }
            Some(Record::Jwks(jwks)) => {
                let (auth, jwks) = convert::jwks_from(jwks)?;
                once("jwks", state.jwks.insert(auth, jwks))?;
            }
            Some(Record::Credential(credential)) => {
                let credential = self.sharing(convert::credential_from(credential)?);
                once("credential", self.state.credentials.insert(Arc::new(credential)))?;
            }
            Some(Record::RevocationNote(note)) => {
                let note = convert::note_from(note);
                once("revocation_note", self.notes.insert(note.index, Arc::new(note)))?;
            }
            Some(Record::Revocation(entry)) => {
                let unknown = || Invalid::field("revocation.note").found(entry.note).allowed("a note before it");
                let note = self.notes.get(&entry.note).ok_or_else(unknown)?.clone();
                let entry = convert::revocation_from(entry, note)?;
                once("revocation", state.revocations.insert(Arc::new(entry)))?;
            }
        }
        Ok(())
    }

    /// With the consumer's name and the grants of those before it, as apply had made it.
    fn sharing(&mut self, mut credential: Credential) -> Credential {
        let key = Key { kind: Kind::Consumer, name: credential.consumer };
        credential.consumer = match self.state.resources.get_key_value(&key) {
            Some((known, _)) => known.name.clone(),
            None => key.name,
        };
        if let Some(grants) = &mut credential.grants {
            match self.grants.get(grants) {
                Some(known) => *grants = known.clone(),
                None => drop(self.grants.insert(grants.clone())),
            }
        }
        credential
    }

    /// Errors when the head is missing, or its hash of the resources differs from theirs.
    pub fn finish(self) -> Result<State, Invalid> {
        let Self { mut state, headed, trial, prior, sums, .. } = self;
        if !headed {
            return Err(headless());
        }
        let found = change::hash_of(&state.resources);
        if found != state.resources_hash {
            return Err(Invalid::field("resources_hash").found(found).allowed(state.resources_hash));
        }
        let found = [state.credentials.hash(), state.revocations.hash()];
        for ((found, told), field) in found.into_iter().zip(sums).zip(["credentials_hash", "revocations_hash"]) {
            if found != told {
                return Err(Invalid::field(field).found(found).allowed(told));
            }
        }
        let [node, removed] = [state.nodes.keys().next_back(), state.removed.keys().next_back()];
        let latest = [node, removed, state.dedup_order.keys().next_back(), Some(&state.revision)];
        if let Some(later) = latest.into_iter().flatten().find(|index| **index > state.index) {
            return Err(Invalid::field("applied_index").found(state.index).allowed(format!("{later} or later")));
        }
        let newest = state.history.back().map_or((0, Digest::default()), |last| (last.revision, last.hash));
        if newest != (state.revision, state.resources_hash) {
            return Err(Invalid::field("history").found(newest.0).allowed("the newest revision, with its hash"));
        }
        if trial.is_some_and(|(revision, ..)| revision != state.revision) {
            return Err(Invalid::field("trial").found("another revision").allowed("the newest revision"));
        }
        if trial.is_none() && !prior.is_empty() {
            return Err(Invalid::field("trial_prior").found("resources").allowed("none without a trial"));
        }
        state.trial = trial.map(|(revision, ends_at_us, prior_revision)| {
            let prior = sharing(&state.resources, prior);
            Trial { revision, ends_at_us, prior_revision, prior }
        });
        state.lookups = Lookups::of(&state.resources);
        state.ledger = mem::take(&mut state.ledger).rebuilt()?;
        Ok(state)
    }
}

/// `prior` as a map that shares with `resources` what is the same in both.
fn sharing(resources: &Resources, prior: Vec<Stored>) -> Resources {
    let prior: Resources = prior.into_iter().map(|stored| (stored.resource.key(), stored)).collect();
    change::redo(resources, &change::between(resources, &prior))
}

fn headless() -> Invalid {
    Invalid::field("head").found("none").allowed("a head before all other records")
}

fn once<T>(kind: &'static str, earlier: Option<T>) -> Result<(), Invalid> {
    match earlier {
        None => Ok(()),
        Some(_) => Err(Invalid::field(kind).found("the same record twice").allowed("each once")),
    }
}
