//! Who asks next, and when.

use super::World;
use crate::plan::Load;

impl World {
    pub(super) fn next_request(&mut self) -> (u64, usize) {
        let n = self.plan.nodes as u64;
        let gap = self.chance.gap_us(self.plan.per_second);
        let any = self.chance.within(0, n - 1) as usize;
        let mostly = self.chance.percent(85);
        match self.plan.load {
            Load::Even => (gap, any),
            Load::Skewed => (gap, if mostly { 1 } else { any }),
            Load::Alone => (gap, 2),
            Load::Killed { node, at_us } if self.now_us < at_us => {
                let others = (node + 1 + self.chance.within(0, n - 2) as usize) % n as usize;
                (gap, if self.chance.percent(self.plan.killed_percent) { node } else { others })
            }
            Load::Killed { node, .. } => (gap, (node + 1 + self.chance.within(0, n - 2) as usize) % n as usize),
            Load::Surge { at_us } if self.now_us < at_us => (gap, self.chance.one_of(&[0, 1, 1, 1, 0])),
            Load::Surge { .. } => (gap / 3, any),
            Load::Moving { every_us } => {
                let hot = (self.now_us / every_us % n) as usize;
                (gap, if mostly { hot } else { any })
            }
            Load::Bursts { every_us } => {
                let within = self.now_us % every_us;
                let wait = if within > every_us / 4 { every_us - within } else { 0 };
                (gap / 4 + wait, if mostly { (self.now_us / every_us % n) as usize } else { any })
            }
        }
    }
}
