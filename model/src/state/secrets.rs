//! The cluster's own secrets, the keys of session tickets, and the key sets of identity providers.

use std::sync::Arc;

use super::{Jwks, State, TicketKey, apply::Done};
use crate::{
    change::Changed,
    command::{Reason, Rejected, RotateTicketKeys, SetSecret, StoreJwks},
    invalid::Invalid,
    resource::{Key, Kind},
};

/// How many secrets there may be.
pub const SECRETS_MAX: usize = 64;
/// The largest key set, bytes.
pub const JWKS_BYTES_MAX: usize = 256 << 10;
/// The newest, which some node may not have yet, the one in use, and those whose tickets are still good.
pub const TICKET_KEYS_MAX: usize = 4;
/// On the log clock: how old the newest key is when the next one is made. A ticket is good for two of these at least.
pub const TICKET_KEY_EVERY_US: u64 = 6 * 3600 * 1_000_000;
/// The largest sealed secret, bytes.
pub(super) const SEALED_BYTES_MAX: usize = 4 << 10;

impl State {
    /// Whoever comes second is told so and uses the first one's.
    pub(super) fn set_secret(&mut self, it: &SetSecret) -> Result<Done, Rejected> {
        if !(1..=SEALED_BYTES_MAX).contains(&it.sealed.len()) {
            let found = format!("{} bytes", it.sealed.len());
            return Err(Invalid::field("sealed").found(found).allowed("1 to 4096 bytes").into());
        }
        self.sealing.check(&it.sealed)?;
        if self.secrets.contains_key(&it.name) {
            return Err(Reason::AlreadyExists.because(format!("the secret {} was written before", it.name)));
        }
        if self.secrets.len() >= SECRETS_MAX {
            return Err(Reason::LimitReached.because(format!("there are {SECRETS_MAX} secrets, the most there may be")));
        }
        self.secrets.insert(it.name.clone(), it.sealed.clone());
        Ok(Done::changed(format!("secret {} written", it.name)))
    }

    /// By the log clock of the leader that proposes it; whoever comes second is refused.
    pub(super) fn rotate_ticket_keys(&mut self, it: &RotateTicketKeys) -> Result<Done, Rejected> {
        if !(1..=SEALED_BYTES_MAX).contains(&it.sealed.len()) {
            let found = format!("{} bytes", it.sealed.len());
            return Err(Invalid::field("sealed").found(found).allowed("1 to 4096 bytes").into());
        }
        self.sealing.check(&it.sealed)?;
        let newest = self.ticket_keys.back().map_or(0, |key| key.index);
        if newest != it.newest {
            return Err(Reason::Conflict.because(format!("the newest ticket key is of index {newest}")));
        }
        let key = TicketKey { index: self.index, made_at_us: self.clock_us, sealed: it.sealed.clone() };
        self.ticket_keys.push_back(Arc::new(key));
        while self.ticket_keys.len() > TICKET_KEYS_MAX {
            self.ticket_keys.pop_front();
        }
        Ok(Done::changed("ticket keys rotated".into()))
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
