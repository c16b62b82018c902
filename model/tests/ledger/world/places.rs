//! Where a limit's slots are, sampled while nothing is wrong: what is not used is lost somewhere, and here it shows where.

use super::World;
use crate::plan::What;

/// Sums over samples, in slots.
#[derive(Debug, Clone, Copy, Default)]
pub struct Places {
    pub samples: u64,
    pub budget: u64,
    /// Admitted within the window that ended at the sample.
    pub used: u64,
    /// Resting for longer than that: rounding, and time under way.
    pub rests_longer: u64,
    /// Free on nodes: where the most of it is, and on the others.
    pub idle_most: u64,
    pub idle_others: u64,
    /// Free at the leader.
    pub at_leader: u64,
    pub quarantine: u64,
    /// Out of one place and not yet in the next.
    pub on_the_way: u64,
}

impl Places {
    /// In hundredths of a percent of the budget.
    pub fn parts(&self) -> [(&'static str, u64); 7] {
        let part = |slots: u64| slots * 10_000 / self.budget.max(1);
        [
            ("used", part(self.used)),
            ("rests longer", part(self.rests_longer)),
            ("idle on one", part(self.idle_most)),
            ("idle on others", part(self.idle_others)),
            ("at the leader", part(self.at_leader)),
            ("quarantine", part(self.quarantine)),
            ("on the way", part(self.on_the_way)),
        ]
    }
}

impl World {
    /// Of the first key, once two windows are over.
    pub(super) fn sample_places(&mut self) {
        let window_us = self.plan.window_us;
        if self.plan.kind != What::Sliding || !self.plan.sampled || self.now_us < 2 * window_us {
            return;
        }
        let Some(pool) = self.head.pool(&self.keys[0]) else { return };
        let (mut resting, mut idle) = (pool.recycling.total(), Vec::new());
        for node in (0..self.nodes.len()).filter(|node| self.nodes[*node].up) {
            let Some(lease) = &self.nodes[node].leases[0] else { continue };
            let counts = lease.counts(self.local(node));
            resting += counts.used;
            idle.push(counts.free);
        }
        let since_us = self.now_us - window_us;
        let recent = self.outcome.admissions[0].iter().rev().take_while(|it| it.answer_us > since_us);
        let used: u64 = recent.map(|it| it.cost).sum();
        let total = pool.total();
        let most = idle.iter().max().copied().unwrap_or(0);
        let all_idle: u64 = idle.iter().sum();
        let quarantine = pool.quarantine.total();
        let places = &mut self.outcome.places;
        places.samples += 1;
        places.budget += total;
        places.used += used;
        places.rests_longer += resting.saturating_sub(used);
        places.idle_most += most;
        places.idle_others += all_idle - most;
        places.at_leader += pool.free;
        places.quarantine += quarantine;
        places.on_the_way += total.saturating_sub(resting + all_idle + pool.free + quarantine);
    }
}
