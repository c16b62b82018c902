//! What the request path knows of consumers and credentials. The control plane publishes the agreed state into it; what
//! there may be millions of is changed in place, the rest is swapped as a whole.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use imbl::OrdMap;
use quorumgate_model::{
    credential::CredentialId,
    resource::{Name, Resources},
    revocation::Revocation,
    state::{Jwks, State},
};

use super::{CredentialRef, RevocationSubject, keys::Keys, revoked::Revoked};
use crate::freshness::boottime_ns;

/// Reads cost no lock; one publisher writes.
#[derive(Debug, Default)]
pub struct Directory {
    pub keys: Keys,
    pub revoked: Revoked,
    facts: ArcSwap<Facts>,
    /// The log clock's lead over CLOCK_BOOTTIME, microseconds, wrapping: it goes on while nothing is written.
    clock_lead_us: AtomicU64,
}

/// The parts that are small, or shared with the state.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The log index of the state.
    pub index: u64,
    pub resources: Resources,
    /// The last good key sets, by auth.
    pub jwks: OrdMap<Name, Arc<Jwks>>,
    pub opened: Arc<Opened>,
}

/// The cluster's secrets, opened by the control plane: the proxy has no key to open them.
#[derive(Default)]
pub struct Opened {
    pub pepper: Option<[u8; 32]>,
    /// All of them by name, the pepper too.
    pub secrets: BTreeMap<Name, Box<[u8]>>,
}

impl Directory {
    /// When this returns, every worker sees what the state says. Costs by what has changed since the last time.
    pub fn publish(&self, state: &State, opened: Arc<Opened>) {
        self.keys.publish(opened.pepper.as_ref(), state.credentials.by_id());
        self.revoked.publish(state.revocations.entries());
        let lead = state.clock_us.wrapping_sub(boottime_us());
        // A later stamp only: the same state told again later would turn the clock back.
        if self.facts.load().index == 0 || state.clock_us > self.now_us() {
            self.clock_lead_us.store(lead, Ordering::Release);
        }
        self.facts.store(Arc::new(Facts {
            index: state.index,
            resources: state.resources.clone(),
            jwks: state.jwks.clone(),
            opened,
        }));
    }

    pub fn facts(&self) -> Arc<Facts> {
        self.facts.load_full()
    }

    /// The log clock now: it may lag behind the leader's, it never runs fast.
    pub fn now_us(&self) -> u64 {
        boottime_us().wrapping_add(self.clock_lead_us.load(Ordering::Acquire))
    }

    /// The entry that shuts the subject out now, if there is one. Asked on every request, and of every open stream.
    pub fn is_revoked(&self, subject: &RevocationSubject) -> Option<Arc<Revocation>> {
        self.revoked.is_revoked(subject, self.now_us())
    }

    /// Whether the stored credential of this id is still there and good: for streams that were let in with it.
    pub fn is_good(&self, credential: &CredentialRef) -> bool {
        let id = credential.id.parse::<CredentialId>().ok();
        let found = id.and_then(|id| self.keys.by_id(id));
        found.is_some_and(|credential| credential.standing(self.now_us()).is_good())
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opened({:?})", self.secrets.keys().collect::<Vec<_>>())
    }
}

fn boottime_us() -> u64 {
    boottime_ns() / 1_000
}
