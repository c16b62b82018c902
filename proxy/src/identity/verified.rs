//! Tokens that were verified a moment ago: their signature need not be looked at again. Whether they were revoked is,
//! on every request, by whoever asks here.

use std::sync::{Arc, Mutex, PoisonError};

use quorumgate_model::mutants::{self, Mutant};

use super::{
    AuthFailure,
    jwks::KeySet,
    jwt::{Fault, JwtPlan, PlanId, VerifiedToken, check, sha256},
    keeper::Slot,
    recent::Recent,
};

/// Tokens that are remembered, and the bytes of their texts; what is kept of one is a few times its text.
const TOKENS_MAX: usize = 32 * 1024;
const TEXT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// So that workers seldom meet.
const SHARDS: usize = 64;

pub(super) const NO_KEYS: AuthFailure = AuthFailure::Unavailable("the issuer's keys are not to be had");

/// Keys that a plan verifies with.
#[derive(Debug, Clone)]
pub enum Keys {
    /// Inline, or a secret.
    Fixed(Arc<KeySet>),
    Kept(Arc<Slot>),
}

impl Keys {
    /// None: they were not fetched yet, or the provider has been out of reach for too long.
    pub(crate) fn at_hand(&self) -> Option<Arc<KeySet>> {
        match self {
            Keys::Fixed(set) => Some(set.clone()),
            Keys::Kept(slot) => slot.keys(),
        }
    }

    /// Keys may have to be waited for, and be fetched once more for one that nobody knows yet.
    pub(crate) async fn judge<T>(&self, judge: impl Fn(&KeySet) -> Result<T, Fault>) -> Result<T, AuthFailure> {
        let (set, slot) = match self {
            Keys::Fixed(set) => (set.clone(), None),
            Keys::Kept(slot) => match slot.keys() {
                Some(set) => (set, Some(slot)),
                None => match slot.first_keys().await {
                    Some(set) => (set, Some(slot)),
                    None => return Err(NO_KEYS),
                },
            },
        };
        let fault = match judge(&set) {
            Ok(verified) => return Ok(verified),
            Err(fault) => fault,
        };
        let (Some(slot), Fault::UnknownKey(kid)) = (slot, &fault) else { return Err(fault.into()) };
        let fetched = slot.keys_with(kid).await;
        match fetched {
            Some(set) => judge(&set).map_err(Into::into),
            None => Err(fault.into()),
        }
    }
}

/// Shared by all workers.
pub struct Verified {
    shards: [Mutex<Recent<Entry>>; SHARDS],
}

#[derive(Clone)]
struct Entry {
    plan: PlanId,
    /// The set that it was verified with: new keys mean a new look.
    keys: u64,
    token: Arc<VerifiedToken>,
}

impl Default for Verified {
    fn default() -> Self {
        let shard = |_| Mutex::new(Recent::new(TOKENS_MAX / SHARDS, TEXT_BYTES_MAX / SHARDS));
        Self { shards: std::array::from_fn(shard) }
    }
}

impl Verified {
    /// As `jwt::verify`, with keys that may have to be waited for.
    pub async fn verify(
        &self,
        plan: &JwtPlan,
        keys: &Keys,
        token: &str,
        now_s: u64,
    ) -> Result<Arc<VerifiedToken>, AuthFailure> {
        let sha256 = sha256(token.as_bytes());
        keys.judge(|set| self.verify_with(plan, set, token, &sha256, now_s)).await
    }

    fn verify_with(
        &self,
        plan: &JwtPlan,
        set: &KeySet,
        token: &str,
        sha256: &[u8; 32],
        now_s: u64,
    ) -> Result<Arc<VerifiedToken>, Fault> {
        if let Some(verified) = self.find(plan, set, sha256) {
            return match verified.expires.saturating_add(plan.skew_s) > now_s {
                true => Ok(verified),
                false => {
                    self.forget(sha256);
                    Err(Fault::Failure(AuthFailure::Expired))
                }
            };
        }
        let verified = check(plan, set, token, sha256, now_s)?;
        let entry = Entry { plan: plan.id, keys: set.id(), token: verified.clone() };
        self.shard(sha256).insert(*sha256, entry, token.len());
        Ok(verified)
    }

    fn find(&self, plan: &JwtPlan, set: &KeySet, sha256: &[u8; 32]) -> Option<Arc<VerifiedToken>> {
        let entry = self.shard(sha256).get(sha256)?;
        let same = entry.plan == plan.id && entry.keys == set.id() || mutants::is(Mutant::VerifiedForAnyPlan);
        same.then_some(entry.token)
    }

    /// For a token that was revoked: nothing of it is to stay in memory.
    pub fn forget(&self, sha256: &[u8; 32]) {
        self.shard(sha256).remove(sha256);
    }

    fn shard(&self, sha256: &[u8; 32]) -> std::sync::MutexGuard<'_, Recent<Entry>> {
        self.shards[usize::from(sha256[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().len()).sum()
    }
}

#[cfg(test)]
mod tests;
