//! Tokens that were verified a moment ago: their signature need not be looked at again. Whether they were revoked is,
//! on every request, by whoever asks here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    AuthFailure,
    jwks::KeySet,
    jwt::{Fault, JwtPlan, PlanId, VerifiedToken, check, sha256},
    keeper::Slot,
};

/// Tokens that are remembered, and the bytes of their texts; what is kept of one is a few times its text.
const TOKENS_MAX: usize = 32 * 1024;
const TEXT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// So that workers seldom meet.
const SHARDS: usize = 64;

/// Keys that a plan verifies with.
#[derive(Debug, Clone)]
pub enum Keys {
    /// Inline, or a secret.
    Fixed(Arc<KeySet>),
    Kept(Arc<Slot>),
}

/// Shared by all workers.
pub struct Verified {
    shards: [Mutex<Shard>; SHARDS],
}

/// Two generations: when the young one is full it becomes the old one, and what was not asked for since is gone.
#[derive(Default)]
struct Shard {
    young: HashMap<[u8; 32], Entry>,
    old: HashMap<[u8; 32], Entry>,
    young_bytes: usize,
}

#[derive(Clone)]
struct Entry {
    plan: PlanId,
    /// The set that it was verified with: new keys mean a new look.
    keys: u64,
    text_bytes: usize,
    token: Arc<VerifiedToken>,
}

impl Default for Verified {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
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
        let (set, slot) = match keys {
            Keys::Fixed(set) => (set.clone(), None),
            Keys::Kept(slot) => match slot.keys() {
                Some(set) => (set, Some(slot)),
                None => match slot.first_keys().await {
                    Some(set) => (set, Some(slot)),
                    None => return Err(AuthFailure::Unavailable("the issuer's keys are not to be had")),
                },
            },
        };
        let sha256 = sha256(token.as_bytes());
        let kid = match self.verify_with(plan, &set, token, &sha256, now_s) {
            Ok(verified) => return Ok(verified),
            Err(Fault::Failure(failure)) => return Err(failure),
            Err(Fault::UnknownKey(kid)) => kid,
        };
        let unknown = AuthFailure::Invalid("no key of the issuer has the token's key id");
        let Some(slot) = slot else { return Err(unknown) };
        let Some(set) = slot.keys_with(&kid).await else { return Err(unknown) };
        match self.verify_with(plan, &set, token, &sha256, now_s) {
            Ok(verified) => Ok(verified),
            Err(Fault::Failure(failure)) => Err(failure),
            Err(Fault::UnknownKey(_)) => Err(unknown),
        }
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
        let entry = Entry { plan: plan.id, keys: set.id(), text_bytes: token.len(), token: verified.clone() };
        self.shard(sha256).insert(*sha256, entry);
        Ok(verified)
    }

    fn find(&self, plan: &JwtPlan, set: &KeySet, sha256: &[u8; 32]) -> Option<Arc<VerifiedToken>> {
        let mut shard = self.shard(sha256);
        let fits = |entry: &&Entry| entry.plan == plan.id && entry.keys == set.id();
        if let Some(entry) = shard.young.get(sha256).filter(fits) {
            return Some(entry.token.clone());
        }
        let entry = shard.old.get(sha256).filter(fits)?.clone();
        let token = entry.token.clone();
        shard.insert(*sha256, entry);
        Some(token)
    }

    /// For a token that was revoked: nothing of it is to stay in memory.
    pub fn forget(&self, sha256: &[u8; 32]) {
        let mut shard = self.shard(sha256);
        if let Some(entry) = shard.young.remove(sha256) {
            shard.young_bytes -= entry.text_bytes;
        }
        shard.old.remove(sha256);
    }

    fn shard(&self, sha256: &[u8; 32]) -> std::sync::MutexGuard<'_, Shard> {
        self.shards[usize::from(sha256[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let len = |shard: &Mutex<Shard>| {
            let shard = shard.lock().unwrap();
            shard.young.len() + shard.old.len()
        };
        self.shards.iter().map(len).sum()
    }
}

impl Shard {
    fn insert(&mut self, sha256: [u8; 32], entry: Entry) {
        let full = self.young.len() >= TOKENS_MAX / SHARDS / 2;
        if full || self.young_bytes + entry.text_bytes > TEXT_BYTES_MAX / SHARDS / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.old.remove(&sha256);
        self.young_bytes += entry.text_bytes;
        if let Some(before) = self.young.insert(sha256, entry) {
            self.young_bytes -= before.text_bytes;
        }
    }
}

#[cfg(test)]
mod tests;
