//! What differs between kinds of limits, and the restoring of a backup.

use std::sync::Arc;

use quorumgate_model::{
    ledger::{
        bucket::Taken,
        command::{Kind, LedgerCommand, Mode, NoQuorum},
        lease::Lease,
        time::LogClock,
    },
    resource::Every,
};

use super::{Event, World};
use crate::{
    audit::{Admission, Allowed, audit, audit_in_flight, audit_periods},
    plan::{Fault, MS, S, What},
};

/// Unix time when the schedule begins: a multiple of all lengths of periods.
const BEGINS_US: u64 = 1_728_000_000 * S;
/// The clock that ends an exchange ticks.
const HOLD_SLACK_US: u64 = 200 * MS;

impl World {
    /// An hour is another cycle than a minute; how long both are, the plan says.
    pub(super) fn kind(&self) -> Kind {
        let (limit, window_us) = (self.limit, self.window_us);
        match self.plan.kind {
            What::Sliding => Kind::Sliding { limit, window_us },
            What::Calendar if window_us == self.plan.window_us => Kind::Calendar { limit, every: Every::Minute },
            What::Calendar => Kind::Calendar { limit, every: Every::Hour },
            What::Concurrency => Kind::Concurrency { limit, max_hold_us: window_us },
        }
    }

    pub(super) fn window_of(&self, kind: &Kind) -> u64 {
        match kind {
            Kind::Sliding { window_us, .. } => *window_us,
            _ => self.plan.window_us,
        }
    }

    /// The shortest and the longest that the window ever is.
    fn windows(&self) -> (u64, u64) {
        let edits = self.plan.faults.iter().filter_map(|(_, it)| match it {
            Fault::EditWindow { window_us } => Some(*window_us),
            _ => None,
        });
        let all: Vec<u64> = edits.chain([self.plan.window_us]).collect();
        (all.iter().copied().min().unwrap_or(0), all.iter().copied().max().unwrap_or(0))
    }

    /// What the node's wall clock shows.
    pub(super) fn wall(&self, node: usize) -> u64 {
        (BEGINS_US + self.now_us + self.plan.wall_us[node]).saturating_add_signed(self.wall_step_us[node])
    }

    /// Keys that nobody asks for any more come back as new ones.
    pub(super) fn evict(&mut self) {
        for node in (0..self.nodes.len()).filter(|node| self.works(*node)).collect::<Vec<_>>() {
            let now = self.local(node);
            if let Some(holder) = &mut self.nodes[node].holder {
                holder.evict(now);
            }
        }
    }

    pub(super) fn audit(&mut self) {
        let (window_us, longest_us) = self.windows();
        // A node may hear of a lower budget as late as its session lasts.
        let settle_us = longest_us + self.plan.session_us + 10 * S;
        for n in 0..self.keys.len() {
            let admissions = &self.outcome.admissions[n];
            let extras: Vec<_> = self.extras.iter().filter(|it| it.key.is_none_or(|key| key == n)).copied().collect();
            let allowed = |settle_us| Allowed { budgets: self.budgets.clone(), settle_us, extras: extras.clone() };
            let excess = match self.plan.kind {
                What::Sliding => {
                    // Once the last edit has spread, of its window.
                    let since_us = self.edited_us + self.plan.session_us + 10 * S;
                    let since: Vec<Admission> =
                        admissions.iter().filter(|it| it.first_us >= since_us).copied().collect();
                    audit(admissions, window_us, &allowed(settle_us))
                        .or_else(|| audit(&since, self.kept_window_us, &allowed(settle_us)))
                }
                What::Calendar => audit_periods(admissions, window_us, 4 * S, &allowed(longest_us)),
                What::Concurrency => audit_in_flight(&self.outcome.flights[n], &allowed(settle_us)),
            };
            self.outcome.excess = self.outcome.excess.or(excess);
        }
    }

    /// The leader begins the periods whose time has come.
    pub(super) fn roll(&mut self, stamp: u64) {
        let Some(wall) = self.head.wall else { return };
        let wall_us = wall.ahead_us + stamp;
        for limit in self.head.ended_periods(wall_us) {
            let length_us = match limit.rule.kind {
                Kind::Calendar { every: Every::Hour, .. } => 2 * self.plan.window_us,
                _ => self.plan.window_us,
            };
            let begins_us = wall_us / length_us * length_us;
            let runs = limit.period.is_some_and(|it| it.ends_us > wall_us);
            if runs && !self.head.may_recycle(limit, begins_us + length_us) {
                continue;
            }
            let begins_us = begins_us.max(limit.period.map_or(0, |it| it.ends_us));
            let ends_us = (begins_us / length_us + 1) * length_us;
            let period = begins_us / S;
            self.others.push(LedgerCommand::RollPeriod { limit: limit.id, period, ends_us }.into());
        }
    }

    /// A permit is held until the exchange ends: by itself, when it has held it for as long as it may, or with its process.
    pub(super) fn begin_flight(&mut self, node: usize, key: usize, lease: &Arc<Lease>, taken: Taken) {
        if self.plan.kind != What::Concurrency {
            return;
        }
        let hold_us = lease.window_us();
        let most_us = hold_us - HOLD_SLACK_US.min(hold_us / 4);
        let wanted_us = self.chance.within(MS, self.plan.window_us * 5 / 4);
        let ends_us = (self.now_us + wanted_us).min(self.real(node, taken.at_us + most_us)).max(self.now_us);
        self.outcome.flights[key].push((self.now_us, ends_us));
        let boot = self.nodes[node].boot;
        let now_us = self.now_us;
        self.in_flight.retain(|(_, _, key, n)| self.outcome.flights[*key][*n].1 > now_us);
        self.in_flight.push((node, boot, key, self.outcome.flights[key].len() - 1));
        self.at(ends_us - self.now_us, Event::Finish { node, boot, lease: lease.clone(), taken });
    }

    /// The process is gone, and its exchanges with it.
    pub(super) fn end_flights(&mut self, node: usize, boot: u64) {
        for (_, _, key, n) in self.in_flight.iter().filter(|it| (it.0, it.1) == (node, boot)) {
            let ends_us = &mut self.outcome.flights[*key][*n].1;
            *ends_us = self.now_us.min(*ends_us);
        }
        self.in_flight.retain(|it| (it.0, it.1) != (node, boot));
    }

    /// Every node is stopped, and all begin again with what the state was `entries` ago.
    pub(super) fn restore(&mut self, entries: usize) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].up {
                self.stop(node);
            }
        }
        for event in self.slots.iter_mut().flatten() {
            let gone = matches!(
                event,
                Event::ToLeader { .. } | Event::Deliver { .. } | Event::Flush { .. } | Event::Commit { .. }
            );
            if gone || matches!(event, Event::Restart(_) | Event::LateTake { .. } | Event::Finish { .. }) {
                *event = Event::Nothing;
            }
        }
        // The first entry defines the limit.
        let kept = self.log.len().saturating_sub(entries).max(1);
        self.log.truncate(kept);
        self.head = self.log[kept - 1].ledger.clone();
        self.term += 1;
        self.leader = 0;
        self.clock = LogClock::lead(self.head.now_us, self.local(0));
        (self.flushing, self.leaderless_us, self.epoch_asked_us) = (false, 0, 0);
        self.gathered.clear();
        self.others.clear();
        self.uncommitted.clear();
        self.group = vec![0; self.nodes.len()];
        let restore = LedgerCommand::Restore { incarnation: [1; 16], reset_budgets: false };
        self.commit(self.head.now_us, restore.into());
        // An edit that the backup does not know of is undone.
        let kept = self.head.limits.values().next().cloned().expect("the first entry defines it");
        let limit = kept.budget();
        (self.limit, self.window_us) = match kept.rule.kind {
            Kind::Calendar { every: Every::Hour, .. } => (limit, 2 * self.plan.window_us),
            Kind::Calendar { .. } => (limit, self.plan.window_us),
            _ => (limit, kept.window_us()),
        };
        self.exact = kept.rule.mode == Mode::Exact;
        self.reserve = kept.rule.on_no_quorum == NoQuorum::Reserve;
        self.edited_us = self.now_us;
        self.kept_window_us = self.window_us;
        self.budgets.push(crate::audit::Budget { from_us: self.now_us, budget: limit });
        for node in 0..self.nodes.len() {
            let it = &mut self.nodes[node];
            (it.up, it.gone, it.applied) = (true, false, self.log.len());
            self.start(node);
        }
    }
}
