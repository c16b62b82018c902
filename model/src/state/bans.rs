//! Bans: who is shut out for a while. No revision of the resources, and so no rollback, touches them.

use std::sync::Arc;

use super::{State, apply::Done};
use crate::{
    ban::{BAN_REASON_BYTES_MAX, BANS_AT_ONCE_MAX, BANS_MAX, Ban},
    command::{Actor, AddBans, LiftBans, Reason, Rejected},
    invalid::Invalid,
    mutants::{self, Mutant},
};

/// How many that have ended one entry of the log forgets.
const FORGOTTEN_AT_ONCE: usize = 100;
/// How many of its subjects an audit entry names.
const SUMMARY_SUBJECTS_MAX: usize = 5;

impl State {
    /// Each lasts at least as long as it did before.
    pub(super) fn add_bans(&mut self, actor: &Actor, it: &AddBans) -> Result<Done, Rejected> {
        at_once("bans", it.bans.len())?;
        reason_fits(&it.reason)?;
        if let Some(at) = it.bans.iter().position(|ban| ban.ttl.is_zero()) {
            return Err(Invalid::field(format!("bans[{at}].ttl")).found("0s").allowed("more than 0s").into());
        }
        if self.bans.len() + it.bans.len() > BANS_MAX {
            let message = format!("there are {} bans, {BANS_MAX} may be kept", self.bans.len());
            return Err(Reason::LimitReached.because(message));
        }
        let (reason, actor): (Arc<str>, Arc<str>) = (it.reason.as_str().into(), actor.name.as_str().into());
        let mut changed = Vec::new();
        for one in it.bans.iter() {
            let ttl_us = u64::try_from(one.ttl.as_micros()).unwrap_or(u64::MAX);
            let expires_at_us = self.clock_us.saturating_add(ttl_us);
            if self
                .bans
                .entries()
                .get(&one.subject)
                .is_some_and(|known| known.expires_at_us >= expires_at_us && !mutants::is(Mutant::BanCutShort))
            {
                continue;
            }
            changed.push(one.subject.to_string());
            let (subject, index, wall_ms) = (one.subject.clone(), self.index, self.wall_ms);
            let (reason, actor) = (reason.clone(), actor.clone());
            self.bans.insert(Arc::new(Ban { subject, expires_at_us, index, wall_ms, reason, actor }));
        }
        Ok(done("banned", &changed))
    }

    pub(super) fn lift_bans(&mut self, it: &LiftBans) -> Result<Done, Rejected> {
        at_once("subjects", it.subjects.len())?;
        reason_fits(&it.reason)?;
        if let Some(missing) = it.subjects.iter().find(|subject| !self.bans.entries().contains_key(*subject)) {
            return Err(Reason::NotFound.because(format!("{missing} is not banned")));
        }
        let lifted: Vec<_> = it.subjects.iter().map(ToString::to_string).collect();
        it.subjects.iter().for_each(|subject| drop(self.bans.remove(subject)));
        Ok(done("ban lifted:", &lifted))
    }

    pub(super) fn sweep_bans(&mut self) {
        self.bans.forget(self.clock_us, FORGOTTEN_AT_ONCE);
    }
}

fn at_once(field: &str, count: usize) -> Result<(), Invalid> {
    match (1..=BANS_AT_ONCE_MAX).contains(&count) {
        true => Ok(()),
        false => Err(Invalid::field(field).found(count).allowed(format!("1 to {BANS_AT_ONCE_MAX} at once"))),
    }
}

fn reason_fits(reason: &str) -> Result<(), Invalid> {
    match reason.len() <= BAN_REASON_BYTES_MAX {
        true => Ok(()),
        false => Err(Invalid::field("reason")
            .found(format!("{} bytes", reason.len()))
            .allowed(format!("at most {BAN_REASON_BYTES_MAX} bytes"))),
    }
}

fn done(verb: &str, subjects: &[String]) -> Done {
    if subjects.is_empty() {
        return Done::noop();
    }
    let named = subjects[..subjects.len().min(SUMMARY_SUBJECTS_MAX)].join(", ");
    let more = match subjects.len().saturating_sub(SUMMARY_SUBJECTS_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Done::changed(format!("{verb} {named}{more}"))
}
