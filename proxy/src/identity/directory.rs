//! What the request path knows of consumers and credentials. The control plane publishes the agreed state into it; what
//! there may be millions of is changed in place, the rest is swapped as a whole.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use arc_swap::{ArcSwap, Guard};
use imbl::OrdMap;
use quorumgate_model::{
    credential::CredentialId,
    resource::{Fingerprint, Name, Resources},
    revocation::Revocation,
    state::{Jwks, State},
};
use tokio::sync::{Semaphore, mpsc};

use super::{
    CredentialRef, RevocationSubject,
    auths::{self, Auths, Outside},
    fetch::Fetcher,
    handed::Handed,
    keeper::Keeper,
    keys::Keys,
    log_clock::LogClock,
    passwords::Passwords,
    revoked::Revoked,
    verified::Verified,
};
use crate::{
    bans::Bans,
    freshness::boottime_ns,
    geo::Geo,
    portal::{RENDERS_AT_ONCE_MAX, desk::Asked},
    tls::TICKET_KEY_BYTES,
};

/// Reads cost no lock; one publisher writes.
#[derive(Default)]
pub struct Directory {
    pub keys: Keys,
    pub revoked: Revoked,
    pub bans: Bans,
    /// Where addresses are.
    pub geo: Geo,
    /// Tokens that were verified before.
    pub(crate) verified: Verified,
    pub(crate) passwords: Passwords,
    /// Where nothing is there, nothing is fetched.
    outside: OnceLock<Outside>,
    /// To whoever proposes revocations.
    pub(super) handing: OnceLock<mpsc::Sender<Handed>>,
    /// To whoever answers portals.
    pub(crate) asking: OnceLock<mpsc::Sender<Asked>>,
    pub(crate) renders: Renders,
    facts: ArcSwap<Facts>,
    clock: LogClock,
}

/// Turns of those that make pages.
pub(crate) struct Renders(Semaphore);

impl Default for Renders {
    fn default() -> Self {
        Self(Semaphore::new(RENDERS_AT_ONCE_MAX))
    }
}

impl std::ops::Deref for Renders {
    type Target = Semaphore;

    fn deref(&self) -> &Semaphore {
        &self.0
    }
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
    pub(crate) auths: Arc<Auths>,
}

/// The cluster's secrets, opened by the control plane: the proxy has no key to open them.
#[derive(Default)]
pub struct Opened {
    pub pepper: Option<[u8; 32]>,
    /// All of them by name, the pepper too.
    pub secrets: BTreeMap<Name, Box<[u8]>>,
    /// Those inside of resources.
    pub of_resources: BTreeMap<Fingerprint, Box<[u8]>>,
    /// Of session tickets, newest first; none: this process makes one for itself.
    pub ticket_keys: Vec<[u8; TICKET_KEY_BYTES]>,
}

impl Directory {
    /// Lets auths ask identity providers; to be called before the first publication, once. Whoever owns the process
    /// runs the keeper.
    pub fn reach_out(&self, fetcher: Fetcher, keeper: Arc<Keeper>) {
        let _ = self.outside.set(Outside { fetcher, keeper });
    }

    /// When this returns, every worker sees what the state says. Costs by what has changed since the last time.
    pub fn publish(&self, state: &State, opened: Arc<Opened>) {
        self.keys.publish(opened.pepper.as_ref(), state.credentials.by_id());
        self.revoked.publish(state.revocations.entries());
        self.bans.publish(state.bans.entries());
        self.clock.told(state.clock_us, boottime_us());
        let before = self.facts.load();
        let same_resources = before.index > 0 && before.resources.ptr_eq(&state.resources);
        let outside = self.outside.get();
        if let Some(outside) = outside.filter(|_| !(same_resources && before.jwks.ptr_eq(&state.jwks))) {
            outside.keeper.publish(auths::wanted(&state.resources, &state.jwks));
        }
        let auths = match same_resources && Arc::ptr_eq(&before.opened, &opened) {
            true => before.auths.clone(),
            false => Arc::new(auths::compile(&before.auths, &state.resources, &opened, outside)),
        };
        self.facts.store(Arc::new(Facts {
            auths,
            index: state.index,
            resources: state.resources.clone(),
            jwks: state.jwks.clone(),
            opened,
        }));
    }

    pub(crate) fn load_facts(&self) -> Guard<Arc<Facts>> {
        self.facts.load()
    }

    pub fn facts(&self) -> Arc<Facts> {
        self.facts.load_full()
    }

    /// The log clock now: it may lag behind the leader's, it never runs fast.
    pub fn now_us(&self) -> u64 {
        self.clock.at(boottime_us())
    }

    /// The entry that shuts the subject out now, if there is one. Asked on every request, and of every open stream.
    pub fn is_revoked(&self, subject: &RevocationSubject) -> Option<Arc<Revocation>> {
        // The clock is read only where there is an entry: that is next to never.
        self.revoked.is_revoked_by(subject, || self.now_us())
    }

    /// Whether the stored credential of this id is still there and good: for streams that were let in with it.
    pub fn is_good(&self, credential: &CredentialRef) -> bool {
        let id = credential.id.parse::<CredentialId>().ok();
        let found = id.and_then(|id| self.keys.by_id(id));
        found.is_some_and(|credential| credential.standing(self.now_us()).is_good())
    }
}

impl Opened {
    /// The secret of an object, by the name that the state has for it.
    pub(crate) fn of_resource(&self, fingerprint: Fingerprint) -> Option<&[u8]> {
        self.of_resources.get(&fingerprint).map(|secret| &**secret)
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
