//! What was counted of each limit, as Prometheus text.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{Limits, admit::now_us, plan::Tally};

impl Tally {
    fn by_decision(&self) -> [(&'static str, &AtomicU64); 4] {
        [
            ("admitted", &self.admitted),
            ("refused", &self.refused),
            ("let_through", &self.let_through),
            ("unavailable", &self.unavailable),
        ]
    }
}

pub(super) fn write(limits: &Limits, region: &str, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = write_all(limits, region, out);
}

fn write_all(limits: &Limits, region: &str, out: &mut String) -> std::fmt::Result {
    let plans = limits.plans.load();
    let mut plans: Vec<_> = plans.iter().collect();
    plans.sort_by_key(|(name, _)| *name);
    const DECISIONS: &str = "quorumgate_ratelimit_decisions_total";
    const WAITED: &str = "quorumgate_ratelimit_waited_total";
    const KEYS: &str = "quorumgate_ratelimit_keys";
    const WARNINGS: &str = "quorumgate_ratelimit_warnings_total";
    const PROPOSALS: &str = "quorumgate_ratelimit_proposals_total";
    const SESSION: &str = "quorumgate_ratelimit_session_seconds";
    writeln!(out, "# HELP {DECISIONS} What limits decided of requests.\n# TYPE {DECISIONS} counter")?;
    for (name, plan) in &plans {
        for (decision, count) in plan.keys.tally.by_decision() {
            let count = count.load(Ordering::Relaxed);
            writeln!(out, "{DECISIONS}{{limit=\"{name}\",region=\"{region}\",decision=\"{decision}\"}} {count}")?;
        }
    }
    writeln!(out, "# HELP {WAITED} Exchanges that waited for slots of a limit.\n# TYPE {WAITED} counter")?;
    for (name, plan) in &plans {
        let count = plan.keys.tally.waited.load(Ordering::Relaxed);
        writeln!(out, "{WAITED}{{limit=\"{name}\",region=\"{region}\"}} {count}")?;
    }
    writeln!(out, "# HELP {KEYS} Keys of a limit that this node keeps count of.\n# TYPE {KEYS} gauge")?;
    for (name, plan) in &plans {
        writeln!(out, "{KEYS}{{limit=\"{name}\",region=\"{region}\"}} {}", plan.keys.handles.len())?;
    }
    writeln!(out, "# HELP {WARNINGS} Keys that came to so many hundredths of a limit.\n# TYPE {WARNINGS} counter")?;
    for (name, plan) in &plans {
        let tally = &plan.keys.tally;
        for (percent, count) in [(80, &tally.warned_80), (100, &tally.warned_100)] {
            let count = count.load(Ordering::Relaxed);
            writeln!(out, "{WARNINGS}{{limit=\"{name}\",region=\"{region}\",percent=\"{percent}\"}} {count}")?;
        }
    }
    writeln!(out, "# HELP {PROPOSALS} Messages to the ledger that this node sent.\n# TYPE {PROPOSALS} counter")?;
    writeln!(out, "{PROPOSALS}{{region=\"{region}\"}} {}", limits.proposals.load(Ordering::Relaxed))?;
    writeln!(out, "# HELP {SESSION} For how long this node may still spend what it holds.\n# TYPE {SESSION} gauge")?;
    let left_us = limits.spends_until_us().saturating_sub(now_us());
    writeln!(out, "{SESSION}{{region=\"{region}\"}} {:.3}", left_us as f64 / 1e6)
}
