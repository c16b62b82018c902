//! What let a stream in, is it still what it was? Asked of every stream once a second, and after every change.

use quorumgate_model::mutants::{self, Mutant};

use super::{
    AuthMethod, Identity,
    directory::{Directory, Facts},
    ladder::{find_consumer, is_revoked},
};
use crate::{live::Ended, worker::wall_s};

/// Whether what has changed ends a stream that was let in with this identity: revoked or banned, or its credential or
/// consumer changed or gone.
pub(crate) fn is_over(directory: &Directory, facts: &Facts, identity: &Identity) -> bool {
    if !still_holds(facts, identity) {
        return true;
    }
    if mutants::is(Mutant::StreamOutlivesRevocation) {
        return false;
    }
    if is_spent(directory, identity) {
        return true;
    }
    identity.callers().any(|caller| {
        let consumer_gone = || caller.consumer.as_ref().is_some_and(|it| find_consumer(facts, &it.name).is_none());
        is_revoked(directory, caller)
            || consumer_gone()
            || directory.bans.of_caller(caller, || directory.now_us()).is_some()
    })
}

/// What ends a stream without a change of the state: keys of an issuer are fetched, and a rotation may have set the end
/// of a key after the stream had begun.
pub(crate) fn lapsed(directory: &Directory, facts: &Facts, identity: &Identity) -> Option<Ended> {
    if !still_holds(facts, identity) {
        return Some(Ended::Revoked);
    }
    is_spent(directory, identity).then_some(Ended::Expired)
}

fn still_holds(facts: &Facts, identity: &Identity) -> bool {
    identity.presented.is_empty() || {
        let now_s = wall_s();
        identity.presented.iter().all(|it| it.still_holds(facts, now_s))
    }
}

/// Whether a stored credential is good no more: gone, or at its end.
fn is_spent(directory: &Directory, identity: &Identity) -> bool {
    identity.callers().any(|caller| {
        let stored = matches!(caller.method, AuthMethod::ApiKey | AuthMethod::Basic);
        stored && caller.credential.as_ref().is_some_and(|it| !directory.is_good(it))
    })
}
