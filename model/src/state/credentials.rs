//! Stored credentials: made, rotated, disabled, revoked, and gone with their consumer.

use std::{
    num::NonZeroU64,
    ops::{Bound, RangeInclusive},
    sync::Arc,
    time::Duration,
};

use imbl::{OrdMap, OrdSet};

use super::{BATCH_MAX, CREDENTIALS_MAX, State, apply::Done};
use crate::{
    change::Changed,
    command::{Decided, NewCredential, Reason, Rejected, RotateCredential},
    convert,
    credential::{Credential, CredentialId, CredentialKind, CredentialState, Standing, WallMs},
    digest::Digest,
    invalid::Invalid,
    mutants::{self, Mutant},
    resource::{Key, Kind, Name},
};

/// How long a credential that has ended still says why.
pub const CREDENTIAL_REMEMBERED: Duration = Duration::from_secs(30 * 86_400);
/// What one second of the log clock sweeps of either keyspace, and how many seconds one entry makes up for at most.
const SWEPT_A_SECOND: u64 = 4_096;
const SWEPT_SECONDS_MAX: u64 = 16;
const SECOND_US: u64 = 1_000_000;
/// The longest name of a Basic user, password hash, environment; all scopes and CIDRs together. Bytes.
const USER_BYTES_MAX: usize = 255;
const PASSWORD_HASH_BYTES_MAX: usize = 512;
const ENV_BYTES_MAX: usize = 16;
const GRANTS_BYTES_MAX: usize = 8 << 10;
pub const LABEL_BYTES_MAX: usize = 64;
/// Keys of a bounded consumer that have ended and are remembered still: who makes and revokes them in turn has to wait.
const ENDED_MAX: usize = 100;

/// The keyspace, with the sum of its members' hashes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Credentials {
    by_id: OrdMap<CredentialId, Arc<Credential>>,
    /// By consumer. Follows from `by_id`; neither stored nor hashed.
    by_consumer: OrdSet<Place>,
    hash: Digest,
}

/// The start of the BLAKE3 of a consumer's name, and that of the id, big-endian: a third of what both would take. Names
/// that share a mark are told apart by their credentials, ids of one place by the credentials' own order.
type Place = ([u8; 4], [u8; 4]);

fn place(consumer: &Name, id: u64) -> Place {
    let [a, b, c, d, ..] = Digest::of(consumer.as_bytes()).0;
    ([a, b, c, d], ((id >> 32) as u32).to_be_bytes())
}

/// Those that start so.
fn ids_from(start: [u8; 4]) -> RangeInclusive<CredentialId> {
    let first = u64::from(u32::from_be_bytes(start)) << 32;
    let of = |id: u64| CredentialId::new(id.max(1)).expect("not 0");
    of(first)..=of(first | u64::from(u32::MAX))
}

impl Credentials {
    pub fn by_id(&self) -> &OrdMap<CredentialId, Arc<Credential>> {
        &self.by_id
    }

    pub fn get(&self, id: CredentialId) -> Option<&Arc<Credential>> {
        self.by_id.get(&id)
    }

    /// In the order of their ids.
    pub fn of<'a>(&'a self, consumer: &'a Name) -> impl Iterator<Item = CredentialId> + 'a {
        self.of_after(consumer, None)
    }

    /// Those of a consumer behind the id.
    pub fn of_after<'a>(
        &'a self,
        consumer: &'a Name,
        after: Option<CredentialId>,
    ) -> impl Iterator<Item = CredentialId> + 'a {
        let from = after.map_or(0, CredentialId::number);
        let (mark, start) = place(consumer, from);
        let places = self.by_consumer.range((mark, start)..).take_while(move |(found, _)| *found == mark);
        let ids = places.flat_map(|(_, start)| self.by_id.range(ids_from(*start)));
        ids.filter(move |(id, it)| id.number() > from && it.consumer == *consumer).map(|(id, _)| *id)
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Sum of the members' hashes (`Digest::plus`).
    pub fn hash(&self) -> Digest {
        self.hash
    }

    /// The credential that was there before.
    pub(crate) fn insert(&mut self, credential: Arc<Credential>) -> Option<Arc<Credential>> {
        self.hash = self.hash.plus(convert::credential_hash(&credential));
        let (id, consumer) = (credential.id, credential.consumer.clone());
        let before = self.by_id.insert(id, credential);
        if let Some(before) = &before {
            self.hash = self.hash.minus(convert::credential_hash(before));
            if before.consumer == consumer {
                return Some(before.clone());
            }
            self.leave(&before.consumer, id);
        }
        self.by_consumer.insert(place(&consumer, id.number()));
        before
    }

    fn remove(&mut self, id: CredentialId) {
        if let Some(credential) = self.by_id.remove(&id) {
            self.hash = self.hash.minus(convert::credential_hash(&credential));
            self.leave(&credential.consumer, id);
        }
    }

    /// The consumer's place goes when none of its credentials has it any more.
    fn leave(&mut self, consumer: &Name, id: CredentialId) {
        let left = place(consumer, id.number());
        let shared = self.by_id.range(ids_from(left.1)).any(|(_, it)| place(&it.consumer, it.id.number()) == left);
        if !shared {
            self.by_consumer.remove(&left);
        }
    }
}

impl State {
    pub(super) fn create_credentials(&mut self, all: &[NewCredential]) -> Result<Done, Rejected> {
        if !(1..=BATCH_MAX).contains(&all.len()) {
            let allowed = format!("1 to {BATCH_MAX} at once");
            return Err(Invalid::field("credentials").found(all.len()).allowed(allowed).into());
        }
        self.check_room(all.len())?;
        self.check_own_bounds(all)?;
        let mut made: OrdMap<CredentialId, Arc<Credential>> = OrdMap::new();
        for (at, one) in all.iter().enumerate() {
            let under = |mut rejected: Rejected| {
                rejected.field = format!("credentials[{at}].{}", rejected.field);
                rejected
            };
            let credential = self.new_credential(one).map_err(under)?;
            if made.insert(credential.id, Arc::new(credential)).is_some() {
                let twice = Reason::AlreadyExists.because(format!("credential {} is there twice", one.id));
                return Err(under(Rejected { field: "id".into(), ..twice }));
            }
        }
        for credential in made.values() {
            self.credentials.insert(credential.clone());
        }
        let summary = match all {
            [one] => format!("{} {} of {} created", one.kind.word(), one.id, one.consumer),
            _ => format!("{} credentials created", all.len()),
        };
        Ok(Done::changed(summary))
    }

    fn check_room(&self, more: usize) -> Result<(), Rejected> {
        match self.credentials.len() + more > CREDENTIALS_MAX {
            true => Err(Reason::LimitReached
                .because(format!("there are {} credentials, {CREDENTIALS_MAX} may be kept", self.credentials.len()))),
            false => Ok(()),
        }
    }

    /// Of those that say how many of their consumer there may be; all of a batch count.
    fn check_own_bounds(&self, all: &[NewCredential]) -> Result<(), Rejected> {
        for (at, one) in all.iter().enumerate() {
            let Some(max) = one.keys_max else { continue };
            let more = 1 + all[..at].iter().filter(|it| it.consumer == one.consumer).count();
            self.check_own_bound(&one.consumer, more, max.get() as usize)?;
        }
        Ok(())
    }

    /// Looks at no more of the consumer's keys than decide.
    fn check_own_bound(&self, consumer: &Name, more: usize, most: usize) -> Result<(), Rejected> {
        let (mut live, mut ended) = (0, 0);
        for key in self.credentials.of(consumer).filter_map(|id| self.credentials.get(id)) {
            if !matches!(key.kind, CredentialKind::ApiKey { .. }) {
                continue;
            }
            match key.standing(self.clock_us) {
                Standing::Revoked | Standing::Expired => ended += 1,
                // What is disabled may be enabled again.
                Standing::Active | Standing::Rotating | Standing::Disabled => live += 1,
            }
            if live + more > most {
                let message = format!("consumer {consumer} may have {most} keys that are not over, and has them");
                return Err(Reason::LimitReached.because(message));
            }
            if ended + more > ENDED_MAX {
                let message = format!("{ENDED_MAX} keys of consumer {consumer} have ended lately: wait some days");
                return Err(Reason::LimitReached.because(message));
            }
        }
        Ok(())
    }

    fn new_credential(&self, it: &NewCredential) -> Result<Credential, Rejected> {
        check_kind(&it.kind)?;
        if let Some(grants) = &it.grants {
            let bytes = grants.scopes.iter().map(|scope| scope.len()).sum::<usize>() + 16 * grants.cidrs.len();
            if bytes > GRANTS_BYTES_MAX {
                let found = format!("{bytes} bytes of scopes and CIDRs");
                return Err(Invalid::field("scopes").found(found).allowed("at most 8 KiB").into());
            }
            if grants.label.len() > LABEL_BYTES_MAX || grants.label.chars().any(char::is_control) {
                let allowed = format!("at most {LABEL_BYTES_MAX} bytes without control characters");
                return Err(Invalid::field("label").found(format!("{:?}", grants.label)).allowed(allowed).into());
            }
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            if grants.env.is_empty() || grants.env.len() > ENV_BYTES_MAX || !grants.env.bytes().all(plain) {
                let allowed = "1 to 16 lower-case letters and digits";
                return Err(Invalid::field("env").found(format!("{:?}", grants.env)).allowed(allowed).into());
            }
        }
        let ends_at_us = match it.ttl {
            None => None,
            Some(ttl) if ttl.is_zero() => {
                return Err(Invalid::field("ttl").found("0s").allowed("more than 0s").into());
            }
            Some(ttl) => NonZeroU64::new(self.after(ttl)),
        };
        // The resource's own name: a million credentials share the text.
        let consumer = Key { kind: Kind::Consumer, name: it.consumer.clone() };
        let Some((Key { name, .. }, _)) = self.resources.get_key_value(&consumer) else {
            let message = format!("{consumer} does not exist");
            return Err(Rejected { field: "consumer".into(), ..Reason::NotFound.because(message) });
        };
        // A Basic user that has ended makes room for one of the same name; an API key never comes back.
        let stays = |before: &Arc<Credential>| {
            let basic = matches!(before.kind, CredentialKind::Basic(_)) && matches!(it.kind, CredentialKind::Basic(_));
            !basic || !matches!(before.standing(self.clock_us), Standing::Revoked | Standing::Expired)
        };
        if self.credentials.get(it.id).is_some_and(stays) {
            let message = format!("credential {} exists already", it.id);
            return Err(Rejected { field: "id".into(), ..Reason::AlreadyExists.because(message) });
        }
        Ok(Credential {
            id: it.id,
            consumer: name.clone(),
            kind: it.kind.clone(),
            grants: it.grants.clone(),
            created: WallMs::of(self.wall_ms),
            ends_at_us,
            state: CredentialState::Active,
            replaced_by: None,
        })
    }

    pub(super) fn rotate_credential(&mut self, it: &RotateCredential) -> Result<Done, Rejected> {
        let old = self.credential(it.id)?.clone();
        check_kind(&it.kind)?;
        if !matches!((&old.kind, &it.kind), (CredentialKind::ApiKey { .. }, CredentialKind::ApiKey { .. })) {
            return Err(Invalid::field("id").found(old.kind.word()).allowed("an api_key").into());
        }
        match old.standing(self.clock_us) {
            Standing::Active => {}
            other => {
                let message = format!("credential {} is {}, only an active one is rotated", it.id, other.word());
                return Err(Reason::Conflict.because(message));
            }
        }
        if self.credentials.get(it.new_id).is_some() {
            return Err(Reason::AlreadyExists.because(format!("credential {} exists already", it.new_id)));
        }
        self.check_room(1)?;
        if let Some(max) = it.keys_max {
            // The old one goes on for its overlap.
            self.check_own_bound(&old.consumer, 1, 2 * max.get() as usize)?;
        }
        let overlap_ends = self.after(it.overlap).max(1);
        let ends_at_us = old.ends_at_us.map_or(overlap_ends, |end| end.get().min(overlap_ends));
        let new = Credential {
            id: it.new_id,
            kind: it.kind.clone(),
            created: WallMs::of(self.wall_ms),
            ..Credential::clone(&old)
        };
        self.credentials.insert(Arc::new(new));
        self.credentials.insert(Arc::new(Credential {
            state: CredentialState::Rotating,
            ends_at_us: NonZeroU64::new(ends_at_us),
            replaced_by: Some(it.new_id),
            ..Credential::clone(&old)
        }));
        Ok(Done::changed(format!("credential {} of {} rotated to {}", it.id, old.consumer, it.new_id)))
    }

    pub(super) fn set_credential_state(&mut self, id: CredentialId, to: Decided) -> Result<Done, Rejected> {
        let before = self.credential(id)?;
        let replaced = before.replaced_by.is_some();
        let (state, ends_at_us) = match (before.state, to) {
            (CredentialState::Revoked, Decided::Revoked) => return Ok(Done::noop()),
            (CredentialState::Revoked, _) if !mutants::is(Mutant::RevokedComesBack) => {
                return Err(Reason::Conflict.because(format!("credential {id} was revoked, and that is for good")));
            }
            (_, Decided::Revoked) => (CredentialState::Revoked, NonZeroU64::new(self.clock_us.max(1))),
            (_, Decided::Disabled) => (CredentialState::Disabled, before.ends_at_us),
            (_, Decided::Active) if replaced => (CredentialState::Rotating, before.ends_at_us),
            (_, Decided::Active) => (CredentialState::Active, before.ends_at_us),
        };
        if before.state == state {
            return Ok(Done::noop());
        }
        let summary = format!("credential {id} of {}: {}", before.consumer, to.word());
        let after = Credential { state, ends_at_us, ..Credential::clone(before) };
        self.credentials.insert(Arc::new(after));
        Ok(Done::changed(summary))
    }

    fn credential(&self, id: CredentialId) -> Result<&Arc<Credential>, Rejected> {
        self.credentials.get(id).ok_or_else(|| Reason::NotFound.because(format!("there is no credential {id}")))
    }

    /// The credentials of consumers that go, go in the same apply. How many there were.
    pub(super) fn forget_credentials_of(&mut self, changes: &[Changed]) -> usize {
        let gone = changes.iter().filter(|it| it.key.kind == Kind::Consumer && it.after.is_none());
        let gone = gone.filter(|_| !mutants::is(Mutant::KeysOutliveConsumer));
        let gone: Vec<CredentialId> = gone.flat_map(|it| self.credentials.of(&it.key.name)).collect();
        gone.iter().for_each(|id| self.credentials.remove(*id));
        gone.len()
    }

    /// Forgets what has ended, a bounded bit for each second that the log clock has moved.
    pub(super) fn sweep(&mut self) {
        let seconds = self.clock_us.saturating_sub(self.sweep.clock_us) / SECOND_US;
        if seconds == 0 || self.credentials.is_empty() && self.revocations.is_empty() {
            return;
        }
        self.sweep.clock_us = self.clock_us;
        let budget = (seconds.min(SWEPT_SECONDS_MAX) * SWEPT_A_SECOND) as usize;
        self.sweep_revocations(budget);
        self.sweep_credentials(budget);
    }

    fn sweep_credentials(&mut self, budget: usize) {
        let horizon_us = self.clock_us.saturating_sub(CREDENTIAL_REMEMBERED.as_micros() as u64);
        let over = |credential: &Credential| credential.ends_at_us.is_some_and(|end| end.get() <= horizon_us);
        let from = self.sweep.credential.map_or(Bound::Unbounded, Bound::Excluded);
        let mut gone = Vec::new();
        let (mut looked, mut last) = (0, None);
        for (id, credential) in self.credentials.by_id.range((from, Bound::Unbounded)).take(budget) {
            looked += 1;
            last = Some(*id);
            if over(credential) {
                gone.push(*id);
            }
        }
        // At the end it begins anew.
        self.sweep.credential = last.filter(|_| looked == budget);
        gone.iter().for_each(|id| self.credentials.remove(*id));
    }

    /// The log-clock instant after so long, microseconds.
    fn after(&self, length: Duration) -> u64 {
        self.clock_us.saturating_add(u64::try_from(length.as_micros()).unwrap_or(u64::MAX))
    }
}

fn check_kind(kind: &CredentialKind) -> Result<(), Invalid> {
    match kind {
        CredentialKind::ApiKey { prefix, .. } if !prefix.iter().all(u8::is_ascii_alphanumeric) => {
            Err(Invalid::field("prefix").found("other bytes").allowed("8 letters and digits"))
        }
        CredentialKind::Basic(user) if !(1..=USER_BYTES_MAX).contains(&user.name.len()) || user.name.contains(':') => {
            Err(Invalid::field("username").found(format!("{:?}", user.name)).allowed("1 to 255 bytes without a colon"))
        }
        CredentialKind::Basic(user)
            if user.password_hash.len() > PASSWORD_HASH_BYTES_MAX || !user.password_hash.starts_with("$argon2id$") =>
        {
            Err(Invalid::field("password_hash").found("another form").allowed("argon2id in the PHC form"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_share_a_place_are_their_consumers() {
        let one = |id: u64, consumer: &str| {
            let (_, kind) = CredentialKind::api_key(&[1; 32], *b"abcdefgh").unwrap();
            Arc::new(Credential {
                id: CredentialId::new(id).unwrap(),
                consumer: consumer.parse().unwrap(),
                kind,
                grants: None,
                created: WallMs::default(),
                ends_at_us: None,
                state: CredentialState::Active,
                replaced_by: None,
            })
        };
        let (a, b): (Name, Name) = ("a".parse().unwrap(), "b".parse().unwrap());
        let mut all = Credentials::default();
        let of = |all: &Credentials, consumer: &Name, after: Option<u64>| {
            let after = after.map(|id| CredentialId::new(id).unwrap());
            all.of_after(consumer, after).map(CredentialId::number).collect::<Vec<_>>()
        };
        let top = 5 << 32;
        for (id, consumer) in
            [(1, "a"), (top | 1, "a"), (top | 2, "a"), (top | 3, "b"), (6 << 32, "a"), (u64::MAX, "b")]
        {
            all.insert(one(id, consumer));
        }
        assert_eq!(of(&all, &a, None), [1, top | 1, top | 2, 6 << 32]);
        assert_eq!(of(&all, &a, Some(top | 1)), [top | 2, 6 << 32]);
        assert_eq!(of(&all, &b, Some(top | 3)), [u64::MAX]);
        all.remove(CredentialId::new(top | 1).unwrap());
        assert_eq!(of(&all, &a, None), [1, top | 2, 6 << 32], "another still has the place");
        all.insert(one(top | 2, "b"));
        assert_eq!((of(&all, &a, None), of(&all, &b, None)), (vec![1, 6 << 32], vec![top | 2, top | 3, u64::MAX]));
        for id in [1, top | 2, top | 3, 6 << 32, u64::MAX] {
            all.remove(CredentialId::new(id).unwrap());
        }
        assert!(all.by_consumer.is_empty());
    }
}
