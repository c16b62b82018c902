//! The small words of commands and records: enums, fixed-length bytes, names.

use std::time::Duration;

use quorumgate_proto::store::v1 as store;

use crate::{
    command::{AdminRole, Role, Standing, TrialEnd},
    digest::Digest,
    invalid::Invalid,
    resource::Name,
};

pub(in crate::convert) fn present<T>(field: &str, value: Option<T>) -> Result<T, Invalid> {
    value.ok_or_else(|| Invalid::field(field).found("nothing").allowed("a value"))
}

pub(in crate::convert) fn array<const N: usize>(field: &str, bytes: &[u8]) -> Result<[u8; N], Invalid> {
    let wrong = |_| Invalid::field(field).found(format!("{} bytes", bytes.len())).allowed(format!("{N} bytes"));
    bytes.try_into().map_err(wrong)
}

pub(super) fn digest(field: &str, bytes: &[u8]) -> Result<Digest, Invalid> {
    array(field, bytes).map(Digest)
}

pub(in crate::convert) fn name(field: &str, text: &str) -> Result<Name, Invalid> {
    text.parse().map_err(|_| Invalid::field(field).found(format!("{text:?}")).allowed(Name::ALLOWED))
}

/// Whole microseconds; what does not fit (580,000 years) is the longest there is.
pub(in crate::convert) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

pub(super) fn role_from(role: i32) -> Result<Role, Invalid> {
    match store::Role::try_from(role) {
        Ok(store::Role::Voter) => Ok(Role::Voter),
        Ok(store::Role::Replica) => Ok(Role::Replica),
        Ok(store::Role::Unspecified) | Err(_) => Err(Invalid::field("role").found(role).allowed("voter or replica")),
    }
}

pub(super) fn role_to(role: Role) -> store::Role {
    match role {
        Role::Voter => store::Role::Voter,
        Role::Replica => store::Role::Replica,
    }
}

pub(super) fn standing_from(standing: i32) -> Result<Standing, Invalid> {
    match store::Standing::try_from(standing) {
        Ok(store::Standing::Active) => Ok(Standing::Active),
        Ok(store::Standing::Draining) => Ok(Standing::Draining),
        Ok(store::Standing::Leaving) => Ok(Standing::Leaving),
        Ok(store::Standing::Unspecified) | Err(_) => {
            Err(Invalid::field("standing").found(standing).allowed("active, draining or leaving"))
        }
    }
}

pub(super) fn standing_to(standing: Standing) -> store::Standing {
    match standing {
        Standing::Active => store::Standing::Active,
        Standing::Draining => store::Standing::Draining,
        Standing::Leaving => store::Standing::Leaving,
    }
}

pub(super) fn trial_end_from(end: i32) -> Result<TrialEnd, Invalid> {
    match store::end_trial::End::try_from(end) {
        Ok(store::end_trial::End::Confirm) => Ok(TrialEnd::Confirm),
        Ok(store::end_trial::End::Abort) => Ok(TrialEnd::Abort),
        Ok(store::end_trial::End::Expire) => Ok(TrialEnd::Expire),
        Ok(store::end_trial::End::Unspecified) | Err(_) => {
            Err(Invalid::field("end").found(end).allowed("confirm, abort or expire"))
        }
    }
}

pub(super) fn trial_end_to(end: TrialEnd) -> store::end_trial::End {
    match end {
        TrialEnd::Confirm => store::end_trial::End::Confirm,
        TrialEnd::Abort => store::end_trial::End::Abort,
        TrialEnd::Expire => store::end_trial::End::Expire,
    }
}

pub(super) fn admin_role_from(word: &str) -> Result<AdminRole, Invalid> {
    let wrong = || Invalid::field("role").found(format!("{word:?}")).allowed("viewer, operator or admin");
    AdminRole::from_word(word).ok_or_else(wrong)
}
