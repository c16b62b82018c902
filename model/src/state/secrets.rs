//! The cluster's own secrets, and the key sets of identity providers.

use std::sync::Arc;

use super::{Jwks, State, apply::Done};
use crate::{
    change::Changed,
    command::{Reason, Rejected, SetSecret, StoreJwks},
    invalid::Invalid,
    resource::{Key, Kind},
};

/// How many secrets there may be.
pub const SECRETS_MAX: usize = 64;
/// The largest key set, bytes.
pub const JWKS_BYTES_MAX: usize = 256 << 10;
/// The largest sealed secret, bytes.
const SEALED_BYTES_MAX: usize = 4 << 10;

impl State {
    /// Whoever comes second is told so and uses the first one's.
    pub(super) fn set_secret(&mut self, it: &SetSecret) -> Result<Done, Rejected> {
        if !(1..=SEALED_BYTES_MAX).contains(&it.sealed.len()) {
            let found = format!("{} bytes", it.sealed.len());
            return Err(Invalid::field("sealed").found(found).allowed("1 to 4096 bytes").into());
        }
        if self.secrets.contains_key(&it.name) {
            return Err(Reason::AlreadyExists.because(format!("the secret {} was written before", it.name)));
        }
        if self.secrets.len() >= SECRETS_MAX {
            return Err(Reason::LimitReached.because(format!("there are {SECRETS_MAX} secrets, the most there may be")));
        }
        self.secrets.insert(it.name.clone(), it.sealed.clone());
        Ok(Done::changed(format!("secret {} written", it.name)))
    }

    pub(super) fn store_jwks(&mut self, it: &StoreJwks) -> Result<Done, Rejected> {
        if it.body.len() > JWKS_BYTES_MAX {
            let found = format!("{} bytes", it.body.len());
            return Err(Invalid::field("body").found(found).allowed(format!("at most {JWKS_BYTES_MAX} bytes")).into());
        }
        let auth = Key { kind: Kind::Auth, name: it.auth.clone() };
        if !self.resources.contains_key(&auth) {
            return Err(Reason::NotFound.because(format!("{auth} does not exist")));
        }
        let jwks = Jwks { body: it.body.clone(), fetched_wall_ms: it.fetched_wall_ms, index: self.index };
        match self.jwks.get(&it.auth) {
            Some(stored) if stored.body == jwks.body => return Ok(Done::noop()),
            _ => self.jwks.insert(it.auth.clone(), Arc::new(jwks)),
        };
        Ok(Done::changed(format!("key set of {auth} stored")))
    }

    /// An auth that goes, or is another one now, takes its key set along.
    pub(super) fn forget_jwks_of(&mut self, changes: &[Changed]) {
        for change in changes.iter().filter(|change| change.key.kind == Kind::Auth) {
            self.jwks.remove(&change.key.name);
        }
    }
}
