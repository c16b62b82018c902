//! Between resources and the ledger: a limit's definition follows its resource, whoever changed it and how; what was
//! spent of it does not.

use std::{sync::Arc, time::Duration};

use super::{State, apply::Done};
use crate::{
    NodeId,
    change::Changed,
    command::{GrantBonus, KEEPS_COUNTERS_LEVEL, Reason, Rejected, ResetLimit},
    invalid::Invalid,
    ledger::{
        self, BONUSES_MAX, KEY_BYTES_MAX, Refused, SESSION_US,
        bucket::SLOTS_MAX,
        command::{Key, Kind, LedgerCommand, Mode, NoQuorum, Rule},
    },
    resource::{self, Limit, LimitKind, LimitMode, OnNoQuorum, Resource},
    units::Span,
};

impl State {
    /// `keeps_counters`: the entry says that every node understands how. So it is of every one after that.
    pub(super) fn limits_changed(&mut self, changes: &[Changed], keeps_counters: bool) {
        let raised = self.cluster.as_ref().is_some_and(|facts| facts.level >= KEEPS_COUNTERS_LEVEL);
        for change in changes.iter().filter(|change| change.key.kind == resource::Kind::Limit) {
            let rule = match &change.after {
                Some(Resource::Limit(limit)) => rule(limit),
                _ => None,
            };
            let command = match rule {
                Some(rule) if keeps_counters || raised => {
                    self.ledger.edit_limit(self.clock_us, &rule);
                    continue;
                }
                Some(rule) => LedgerCommand::DefineLimit(rule),
                None => LedgerCommand::RemoveLimit { name: change.key.name.clone() },
            };
            self.ledger.apply(self.clock_us, &command);
        }
    }

    pub(super) fn retire_holder(&mut self, node: NodeId) {
        if self.ledger.version > 0 {
            self.ledger.apply(self.clock_us, &LedgerCommand::RetireNode { node });
        }
    }

    /// What the ledger itself refuses leaves a trace in its effects.
    pub(super) fn apply_to_ledger(&mut self, command: &LedgerCommand) -> Result<Done, Rejected> {
        match command {
            LedgerCommand::DefineLimit(_) | LedgerCommand::RemoveLimit { .. } | LedgerCommand::RetireNode { .. } => {
                return Err(Reason::Invalid.because("it follows from the resources and the membership"));
            }
            LedgerCommand::OpenSession(it) if !SESSION_US.contains(&it.length_us) => {
                let allowed = format!("{} to {}", SESSION_US.start(), SESSION_US.end());
                return Err(Invalid::field("length_us").found(it.length_us).allowed(allowed).into());
            }
            LedgerCommand::OpenSession(it) if !self.nodes.contains_key(&it.node) => {
                return Err(Reason::NotFound.because(format!("there is no node with the id {}", it.node)));
            }
            _ => {}
        }
        self.ledger.apply(self.clock_us, command);
        Ok(Done::default())
    }
}

/// The longest that a bonus may last.
const BONUS_MAX: Duration = Duration::from_secs(366 * 86_400);

impl State {
    pub(super) fn reset_limit(&mut self, it: &ResetLimit) -> Result<Done, Rejected> {
        let id = self.limit_of_ledger(&it.limit)?.id;
        self.ledger.reset_usage(self.clock_us, id, it.key.as_ref()).map_err(|why| refused(why, &it.limit))?;
        let of = it.key.as_ref().map_or_else(|| "every key".to_owned(), |key| format!("key {key:?}"));
        Ok(Done::changed(format!("limit {}: what was used of {of} counts no more", it.limit)))
    }

    pub(super) fn grant_bonus(&mut self, it: &GrantBonus) -> Result<Done, Rejected> {
        let limit = self.limit_of_ledger(&it.limit)?;
        if it.amount == 0 || it.amount > u64::from(SLOTS_MAX) {
            return Err(Invalid::field("amount").found(it.amount).allowed(format!("1 to {SLOTS_MAX}")).into());
        }
        let lasts = it.lasts.unwrap_or(Duration::from_micros(self.ledger.bonus_lasts_us(&limit)));
        if lasts.is_zero() || lasts > BONUS_MAX {
            let allowed = format!("more than 0s, at most {}", Span(BONUS_MAX));
            return Err(Invalid::field("lasts").found(Span(lasts)).allowed(allowed).into());
        }
        let key = Key { limit: limit.id, who: it.key.clone() };
        let granted = self.ledger.grant_bonus(self.clock_us, &key, it.amount, lasts.as_micros() as u64);
        granted.map_err(|why| refused(why, &it.limit))?;
        let (limit, key, amount) = (&it.limit, &it.key, it.amount);
        Ok(Done::changed(format!("limit {limit}: {amount} more for key {key:?} for {}", Span(lasts))))
    }

    fn limit_of_ledger(&self, name: &resource::Name) -> Result<Arc<ledger::Limit>, Rejected> {
        let key = resource::Key { kind: resource::Kind::Limit, name: name.clone() };
        let Some(Resource::Limit(limit)) = self.resources.get(&key).map(|stored| &stored.resource) else {
            return Err(Reason::NotFound.because(format!("there is no limit {name:?}")));
        };
        if limit.mode == LimitMode::Local {
            let why = format!("{name} is of mode local: each node counts for itself, and there is no budget to change");
            return Err(Reason::Invalid.because(why));
        }
        let known = self.ledger.names.get(name).and_then(|id| self.ledger.limit(*id)).cloned();
        known.ok_or_else(|| refused(Refused::NoLimit, name))
    }
}

fn refused(why: Refused, name: &resource::Name) -> Rejected {
    match why {
        Refused::NoLimit => Reason::NotFound.because(format!("the ledger has no limit {name}")),
        Refused::Broken => Reason::Invalid.because(format!("{name} is broken until it is edited")),
        Refused::InFlight => {
            Reason::Invalid.because(format!("{name} counts what is in flight: it comes back when an exchange ends"))
        }
        Refused::NoSlots => Reason::Invalid.because(format!("{name} is of a kind whose budget cannot be changed")),
        Refused::NoPeriod => Reason::Invalid.because(format!("no period of {name} has begun yet; try again")),
        Refused::KeyTooLong => Reason::Invalid.because(format!("the key is longer than {KEY_BYTES_MAX} bytes")),
        Refused::TooManyKeys => Reason::LimitReached.because("the ledger has no room for another key"),
        Refused::TooManyBonuses => {
            Reason::LimitReached.because(format!("the key has {BONUSES_MAX} bonuses already; wait until one ends"))
        }
        Refused::TooMuch => Reason::Invalid.because(format!("with that a key would have more than {SLOTS_MAX}")),
    }
}

/// None for a limit that each node enforces for itself.
fn rule(limit: &Limit) -> Option<Rule> {
    let micros = |span: crate::units::Span| u64::try_from(span.0.as_micros()).unwrap_or(u64::MAX);
    let kind = match &limit.kind {
        LimitKind::Sliding { limit, window } => Kind::Sliding { limit: *limit, window_us: micros(*window) },
        LimitKind::Bucket { rate, window, burst } => {
            let window_us = resource::bucket_window_us(*rate, micros(*window), *burst);
            Kind::Sliding { limit: *burst, window_us }
        }
        LimitKind::Calendar { limit, every, .. } => Kind::Calendar { limit: *limit, every: *every },
        LimitKind::Concurrency { limit, max_hold } => {
            Kind::Concurrency { limit: *limit, max_hold_us: micros(*max_hold) }
        }
    };
    let mode = match limit.mode {
        LimitMode::Leased => Mode::Leased,
        LimitMode::Exact => Mode::Exact,
        LimitMode::Local => return None,
    };
    let on_no_quorum = match limit.on_no_quorum {
        OnNoQuorum::Deny => NoQuorum::Deny,
        OnNoQuorum::Reserve => NoQuorum::Reserve,
        OnNoQuorum::Allow => NoQuorum::Allow,
    };
    Some(Rule { name: limit.name.clone(), kind, mode, on_no_quorum })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::{
        command::{Actor, ChangeResources, Expect, ResourceChange},
        ledger::command::{Key, LeaseBatch, LeaseItem, OpenSession},
    };

    fn apply(state: &mut State, limit: Option<u64>) {
        let name: resource::Name = "free".parse().unwrap();
        let words = |limit| json!({"name": "free", "per": "consumer", "limit": limit, "window": "1m"});
        let after = limit.map(|it| Resource::Limit(Arc::new(serde_json::from_value(words(it)).unwrap())));
        let key = resource::Key { kind: resource::Kind::Limit, name };
        let changes = [ResourceChange { key, after, expect: Expect::Anything }].into();
        state.index += 1;
        state.change_resources(&Actor::default(), &ChangeResources { changes, ..Default::default() }).unwrap();
    }

    fn used(state: &State, limit: u64) -> u64 {
        let pool = state.ledger.pool(&Key { limit, who: "acme".into() });
        pool.map_or(0, |it| it.total() - it.free)
    }

    #[test]
    fn a_definition_follows_its_resource_and_what_was_spent_stays() {
        let mut state = State::default();
        apply(&mut state, Some(100));
        let id = state.ledger.limit_named("free").unwrap().id;
        let open = OpenSession { node: 1, boot: [1; 16], open: 1, length_us: 5_000_000 };
        state.ledger.apply(0, &LedgerCommand::OpenSession(open));
        let session = state.ledger.version;
        let item = LeaseItem { demand: 40_000, want: 40, ..LeaseItem::of(Key { limit: id, who: "acme".into() }) };
        let batch =
            LeaseBatch { node: 1, session, seq: 1, attempt: 0, applied: 0, items: vec![item], wall_ahead_us: 0 };
        state.ledger.apply(0, &LedgerCommand::Batches([batch].into()));
        let lent = used(&state, id);
        assert!(lent >= 40, "{lent}");
        // Edited, removed and brought back by a rollback: the same limit, with what it had lent.
        for limit in [Some(50), None, Some(100)] {
            apply(&mut state, limit);
        }
        let limit = state.ledger.limit_named("free").unwrap();
        assert_eq!((limit.id, limit.budget(), limit.removed_us), (id, 100, None));
        assert!(used(&state, id) >= 40);
    }

    #[test]
    fn what_follows_from_the_resources_cannot_be_commanded() {
        let mut state = State::default();
        let remove = LedgerCommand::RemoveLimit { name: "free".parse().unwrap() };
        assert_eq!(state.apply_to_ledger(&remove).err().unwrap().reason, Reason::Invalid);
        let open = OpenSession { node: 9, boot: [1; 16], open: 1, length_us: 5_000_000 };
        assert_eq!(state.apply_to_ledger(&LedgerCommand::OpenSession(open)).err().unwrap().reason, Reason::NotFound);
        let long = OpenSession { length_us: 61_000_000, ..open };
        assert_eq!(state.apply_to_ledger(&LedgerCommand::OpenSession(long)).err().unwrap().field, "length_us");
    }
}
