//! What is said to the log: commands of the ledger, and what operators give and forgive.

use std::sync::Arc;

use quorumgate_model::ledger::{
    RESERVE_US,
    command::{Effect, LedgerCommand, Mode, NoQuorum, Rule},
};

use super::World;
use crate::{
    audit::Extra,
    plan::{Fault, S},
};

pub(super) enum Said {
    Command(LedgerCommand),
    /// Of builds that keep counters over it.
    Edit(Rule),
    /// Of one key, or of all.
    Reset {
        key: Option<usize>,
    },
    Bonus {
        key: usize,
        amount: u64,
        lasts_us: u64,
    },
}

impl From<LedgerCommand> for Said {
    fn from(command: LedgerCommand) -> Self {
        Self::Command(command)
    }
}

impl World {
    pub(super) fn say(&mut self, said: Said) {
        self.others.push(said);
        self.flush_soon();
    }

    /// The limit as it was edited last.
    pub(super) fn rule(&self) -> Rule {
        Rule {
            name: "limit".parse().expect("it is a name"),
            kind: self.kind(),
            mode: if self.exact { Mode::Exact } else { Mode::Leased },
            on_no_quorum: if self.reserve { NoQuorum::Reserve } else { NoQuorum::Deny },
        }
    }

    pub(super) fn edit(&mut self) {
        match self.plan.keeps_counters {
            true => self.say(Said::Edit(self.rule())),
            false => self.say(LedgerCommand::DefineLimit(self.rule()).into()),
        }
    }

    /// None: it was refused, and left no trace.
    pub(super) fn apply(&mut self, stamp: u64, said: &Said) -> Option<Arc<[Effect]>> {
        match said {
            Said::Command(command) => return Some(self.head.apply(stamp, command)),
            Said::Edit(rule) => self.head.edit_limit(stamp, rule),
            Said::Reset { key } => {
                let who = key.map(|key| self.keys[key].who.clone());
                self.head.reset_usage(stamp, 1, who.as_ref()).ok()?;
            }
            Said::Bonus { key, amount, lasts_us } => {
                self.head.grant_bonus(stamp, &self.keys[*key], *amount, *lasts_us).ok()?;
            }
        }
        self.allow_extra(said);
        let effects = self.head.effects_since(self.head.version - 1).expect("it was just applied");
        Some(effects.into())
    }

    /// A node that is cut off hears of nothing until its session is over: what it spends until then is between what was
    /// spent before a reset and what is spent after it.
    fn allow_extra(&mut self, said: &Said) {
        let reserves = self.plan.reserve || self.plan.faults.iter().any(|(_, it)| matches!(it, Fault::EditMode { .. }));
        let unheard_us = S + if reserves { RESERVE_US } else { self.plan.session_us };
        let most = self.budgets.iter().map(|it| it.budget).max().unwrap_or(0);
        let bonuses: u64 = self.extras.iter().map(|it| it.amount).sum();
        self.extras.push(match said {
            Said::Bonus { key, amount, lasts_us } => {
                let until_us = self.now_us + lasts_us + self.plan.window_us + unheard_us + 10 * S;
                Extra { key: Some(*key), from_us: self.now_us, until_us, amount: *amount }
            }
            Said::Reset { key } => {
                let amount = 2 * (most + bonuses);
                Extra { key: *key, from_us: self.now_us, until_us: self.now_us + unheard_us, amount }
            }
            Said::Command(_) | Said::Edit(_) => return,
        });
    }
}
