//! Revocations: what no longer counts, whoever shows it. Ordered by a hash of the selector, so that all nodes walk them
//! in the same order; look-ups go through the proxy's own table.

use std::{sync::Arc, time::Duration};

use imbl::OrdMap;

use super::{BATCH_MAX, MESSAGE_BYTES_MAX, REVOCATIONS_MAX, State, apply::Done};
use crate::{
    command::{Actor, Reason, Rejected, Revoke},
    convert,
    digest::Digest,
    invalid::Invalid,
    mutants::{self, Mutant},
    revocation::{Revocation, RevocationNote, SelectorKey},
};

/// How long an entry is kept beyond its end: clocks that judge tokens may lag behind the log's.
pub const REVOCATION_REMEMBERED: Duration = Duration::from_secs(60);

/// The keyspace, with the sum of its entries' hashes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Revocations {
    entries: OrdMap<SelectorKey, Arc<Revocation>>,
    hash: Digest,
}

impl Revocations {
    pub fn entries(&self) -> &OrdMap<SelectorKey, Arc<Revocation>> {
        &self.entries
    }

    pub fn get(&self, key: &SelectorKey) -> Option<&Arc<Revocation>> {
        self.entries.get(key)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sum of the entries' hashes (`Digest::plus`).
    pub fn hash(&self) -> Digest {
        self.hash
    }

    /// The entry that was there before.
    pub(crate) fn insert(&mut self, entry: Arc<Revocation>) -> Option<Arc<Revocation>> {
        self.hash = self.hash.plus(convert::revocation_hash(&entry));
        let before = self.entries.insert(entry.selector.key(), entry);
        if let Some(before) = &before {
            self.hash = self.hash.minus(convert::revocation_hash(before));
        }
        before
    }

    fn remove(&mut self, key: &SelectorKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.hash = self.hash.minus(convert::revocation_hash(&entry));
        }
    }
}

impl State {
    pub(super) fn revoke(&mut self, actor: &Actor, it: &Revoke) -> Result<Done, Rejected> {
        if !(1..=BATCH_MAX).contains(&it.entries.len()) {
            let allowed = format!("1 to {BATCH_MAX} at once");
            return Err(Invalid::field("entries").found(it.entries.len()).allowed(allowed).into());
        }
        if it.reason.len() > MESSAGE_BYTES_MAX {
            let found = format!("{} bytes", it.reason.len());
            return Err(Invalid::field("reason").found(found).allowed(format!("{MESSAGE_BYTES_MAX} bytes")).into());
        }
        if let Some(at) = it.entries.iter().position(|entry| entry.ttl.is_zero()) {
            return Err(Invalid::field(format!("entries[{at}].ttl")).found("0s").allowed("more than 0s").into());
        }
        if self.revocations.len() + it.entries.len() > REVOCATIONS_MAX {
            let message = format!("there are {} revocations, {REVOCATIONS_MAX} may be kept", self.revocations.len());
            return Err(Reason::LimitReached.because(message));
        }
        let note = Arc::new(RevocationNote {
            index: self.index,
            wall_ms: self.wall_ms,
            reason: it.reason.clone(),
            actor: actor.name.clone(),
        });
        let mut changed = 0usize;
        for one in it.entries.iter() {
            let ttl_us = u64::try_from(one.ttl.as_micros()).unwrap_or(u64::MAX);
            let expires_at_us = self.clock_us.saturating_add(ttl_us);
            let before = self.revocations.get(&one.selector.key());
            // What is revoked stays so at least as long and for as much as before.
            let entry = Revocation {
                selector: one.selector.clone(),
                expires_at_us: before
                    .filter(|_| !mutants::is(Mutant::RevocationCutShort))
                    .map_or(expires_at_us, |it| it.expires_at_us.max(expires_at_us)),
                not_before_s: match before.filter(|it| it.expires_at_us > self.clock_us).map(|it| it.not_before_s) {
                    Some(earlier) => earlier.zip(one.not_before_s).map(|(earlier, now)| earlier.max(now)),
                    None => one.not_before_s,
                },
                note: note.clone(),
            };
            let same =
                |it: &Arc<Revocation>| (it.expires_at_us, it.not_before_s) == (entry.expires_at_us, entry.not_before_s);
            if !before.is_some_and(same) {
                changed += 1;
                self.revocations.insert(Arc::new(entry));
            }
        }
        match (changed, it.entries.first()) {
            (0, _) | (_, None) => Ok(Done::noop()),
            (1, Some(first)) if it.entries.len() == 1 => Ok(Done::changed(format!("revoked {}", first.selector))),
            (n, Some(_)) => Ok(Done::changed(format!("{n} entries revoked"))),
        }
    }

    /// Looks at the next `budget` entries and forgets those that ended long enough ago.
    pub(super) fn sweep_revocations(&mut self, budget: usize) {
        let clock_us = self.clock_us;
        let remembered_us = if mutants::is(Mutant::RevocationForgottenAtOnce) { 0 } else { REMEMBERED_US };
        let over = |entry: &Revocation| entry.expires_at_us.saturating_add(remembered_us) <= clock_us;
        let mut gone = Vec::new();
        let mut last = None;
        let from = match self.sweep.revocation {
            Some(key) => (std::ops::Bound::Excluded(key), std::ops::Bound::Unbounded),
            None => (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded),
        };
        let mut looked = 0;
        for (key, entry) in self.revocations.entries.range(from).take(budget) {
            looked += 1;
            last = Some(*key);
            if over(entry) {
                gone.push(*key);
            }
        }
        // At the end it begins anew.
        self.sweep.revocation = last.filter(|_| looked == budget);
        gone.iter().for_each(|key| self.revocations.remove(key));
    }
}

const REMEMBERED_US: u64 = REVOCATION_REMEMBERED.as_micros() as u64;
