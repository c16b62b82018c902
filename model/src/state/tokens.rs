//! Tokens: permission to join, and permission to administer. Secrets are stored hashed.

use std::time::Duration;

use subtle::ConstantTimeEq;

use super::{AdminToken, JoinToken, State, TOKENS_MAX, apply::Done};
use crate::{
    command::{AdmitNode, CreateAdminToken, CreateJoinToken, Reason, Rejected, Role},
    invalid::Invalid,
    mutants::{self, Mutant},
    resource::Name,
};

/// How long a token that is used up or expired still says so, rather than that it is unknown.
const SPENT_REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// The longest id of a join token, bytes.
const TOKEN_ID_BYTES_MAX: usize = 64;

impl State {
    pub(super) fn create_join_token(&mut self, it: &CreateJoinToken) -> Result<Done, Rejected> {
        if it.id.is_empty() || it.id.len() > TOKEN_ID_BYTES_MAX {
            return Err(Invalid::field("id").found(format!("{} bytes", it.id.len())).allowed("1 to 64 bytes").into());
        }
        if it.uses == 0 {
            return Err(Invalid::field("uses").found(0).allowed("1 or more").into());
        }
        let expires_at_us = self.expiry(it.ttl)?;
        if self.join_tokens.contains_key(&it.id) {
            return Err(Reason::AlreadyExists.because(format!("join token {} exists already", it.id)));
        }
        self.make_room_for_join_token()?;
        let token = JoinToken { secret_hash: it.secret_hash, role: it.role, expires_at_us, uses_left: it.uses };
        self.join_tokens.insert(it.id.clone(), token);
        Ok(Done::changed(format!("join token {} created: {}, {} uses", it.id, it.role.word(), it.uses)))
    }

    /// Forgets what was spent long ago; if that is not enough, the spent token that expires first. A refusal forgets
    /// nothing: then every token is of use and young.
    fn make_room_for_join_token(&mut self) -> Result<(), Rejected> {
        let clock_us = self.clock_us;
        let horizon_us = clock_us.saturating_sub(micros(SPENT_REMEMBERED));
        let spent = |token: &JoinToken| token.uses_left == 0 || token.expires_at_us <= clock_us;
        let old = self.join_tokens.iter().filter(|(_, token)| token.expires_at_us <= horizon_us);
        let mut going: Vec<String> = old.map(|(id, _)| id.clone()).collect();
        if self.join_tokens.len() - going.len() >= TOKENS_MAX {
            let first = self.join_tokens.iter().filter(|(_, token)| spent(token));
            let first = first.min_by_key(|(id, token)| (token.expires_at_us, *id));
            let full = || Reason::LimitReached.because(format!("there are {TOKENS_MAX} join tokens; remove some"));
            going.push(first.ok_or_else(full)?.0.clone());
        }
        for id in going {
            self.join_tokens.remove(&id);
        }
        Ok(())
    }

    pub(super) fn remove_join_token(&mut self, id: &str) -> Result<Done, Rejected> {
        match self.join_tokens.remove(id) {
            Some(_) => Ok(Done::changed(format!("join token {id} removed"))),
            None => Err(Reason::NotFound.because(format!("there is no join token {id:?}"))),
        }
    }

    /// The token that lets the node in, with one use less; it is the caller's to store.
    pub(super) fn token_for(&self, it: &AdmitNode) -> Result<JoinToken, Rejected> {
        let id = &it.token_id;
        let unknown = || Reason::TokenUnknown.because("the join token is unknown, or was removed");
        let token = self.join_tokens.get(id).ok_or_else(unknown)?;
        let matches = bool::from(token.secret_hash.0.ct_eq(&it.token_secret_hash.0));
        if !matches && !mutants::is(Mutant::JoinSecretIgnored) {
            return Err(unknown());
        }
        let Some(uses_left) = token.uses_left.checked_sub(1) else {
            return Err(Reason::TokenUsed.because(format!("join token {id} has been used")));
        };
        if token.expires_at_us <= self.clock_us && !mutants::is(Mutant::JoinTokenOutlivesItself) {
            return Err(Reason::TokenExpired.because(format!("join token {id} has expired")));
        }
        let too_much = token.role == Role::Replica && it.node.wanted_role == Role::Voter;
        if too_much && !mutants::is(Mutant::ReplicaMayVote) {
            let message = format!("join token {id} is for a replica, the node wants to be a voter");
            return Err(Reason::TokenRoleMismatch.because(message));
        }
        let uses_left = if mutants::is(Mutant::JoinTokenReused) { token.uses_left } else { uses_left };
        Ok(JoinToken { uses_left, ..token.clone() })
    }

    pub(super) fn create_admin_token(&mut self, it: &CreateAdminToken) -> Result<Done, Rejected> {
        let expires_at_us = self.expiry(it.ttl)?;
        let live = |token: &AdminToken| token.expires_at_us > self.clock_us;
        if self.admin_tokens.get(&it.name).is_some_and(live) {
            return Err(Reason::AlreadyExists.because(format!("admin token {} exists already", it.name)));
        }
        let expired = self.admin_tokens.iter().filter(|(_, token)| !live(token));
        let expired: Vec<Name> = expired.map(|(name, _)| name.clone()).collect();
        if self.admin_tokens.len() - expired.len() >= TOKENS_MAX {
            return Err(Reason::LimitReached.because(format!("there are {TOKENS_MAX} admin tokens; remove some")));
        }
        for name in expired {
            self.admin_tokens.remove(&name);
        }
        let (secret_hash, role, owner) = (it.secret_hash, it.role, it.owner.clone());
        self.admin_tokens.insert(it.name.clone(), AdminToken { secret_hash, role, owner, expires_at_us });
        Ok(Done::changed(format!("admin token {} created: {}", it.name, it.role.word())))
    }

    pub(super) fn remove_admin_token(&mut self, name: &Name) -> Result<Done, Rejected> {
        match self.admin_tokens.remove(name) {
            Some(_) => Ok(Done::changed(format!("admin token {name} removed"))),
            None => Err(Reason::NotFound.because(format!("there is no admin token {name:?}"))),
        }
    }

    /// The log-clock instant at which something of this length of life ends.
    fn expiry(&self, ttl: Duration) -> Result<u64, Rejected> {
        match micros(ttl) {
            0 => Err(Invalid::field("ttl").found("0s").allowed("more than 0s").into()),
            ttl_us => Ok(self.clock_us.saturating_add(ttl_us)),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
