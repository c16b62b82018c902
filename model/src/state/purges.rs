//! Purges of the nodes' caches: remembered, so that every node does them, those that were behind too.

use super::{State, apply::Done};
use crate::{
    command::{PurgeCache, Reason, Rejected},
    purge::{PURGE_TARGETS_MAX, PurgeEntry},
};

/// How many of its targets an audit entry names.
const SUMMARY_TARGETS_MAX: usize = 5;

impl State {
    pub(super) fn purge_cache(&mut self, it: &PurgeCache) -> Result<Done, Rejected> {
        let count = it.targets.len();
        if !(1..=PURGE_TARGETS_MAX).contains(&count) {
            let why = format!("found {count} keys, prefixes and tags; allowed: 1 to {PURGE_TARGETS_MAX}");
            return Err(Reason::Invalid.because(why));
        }
        self.purges.push(PurgeEntry { index: self.index, targets: it.targets.clone() });
        let named: Vec<_> = it.targets.iter().take(SUMMARY_TARGETS_MAX).map(ToString::to_string).collect();
        let more = match count - named.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Ok(Done::changed(format!("caches: purged {}{more}", named.join(", "))))
    }
}
