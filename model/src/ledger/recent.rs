//! What the last commands did. It travels with the state, so that a holder that sees states coalesced misses nothing.

use std::sync::Arc;

use imbl::Vector;

use super::command::Effect;

/// How many commands are kept: a holder that is further behind compares instead.
const RECENT_MAX: usize = 1_024;

/// Says nothing about the ledger that the ledger does not say itself: all are equal.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recent(Vector<(u64, Arc<[Effect]>)>);

impl PartialEq for Recent {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Recent {
    pub fn push(&mut self, version: u64, effects: Arc<[Effect]>) {
        self.0.push_back((version, effects));
        while self.0.len() > RECENT_MAX {
            self.0.pop_front();
        }
    }

    /// Versions are dense: what is kept is a run that ends with `newest`, or nothing.
    pub fn since(&self, version: u64, newest: u64) -> Option<Vec<Effect>> {
        let missed = newest.checked_sub(version)?;
        let first = (self.0.len() as u64).checked_sub(missed)?;
        Some(self.0.iter().skip(first as usize).flat_map(|(_, effects)| effects.iter().cloned()).collect())
    }
}
