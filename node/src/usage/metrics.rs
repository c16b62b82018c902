//! What the ledger has lent, as Prometheus text: the same on every node but for what is its own.

use std::{collections::BTreeMap, fmt::Write};

use quorumgate_model::{NodeId, ledger::command::LimitId, state::State};

/// How many keys one scrape adds up: beyond it the sums are of the first ones alone, and the count of keys is right.
const KEYS_ADDED_MAX: usize = 200_000;

#[derive(Default)]
struct Sums {
    keys: u64,
    free: u64,
    held: u64,
    held_here: u64,
    coming_home: u64,
    quarantined: u64,
}

type Sum = fn(&Sums) -> u64;

pub fn write(state: &State, node: NodeId, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = write_all(state, node, out);
}

fn write_all(state: &State, node: NodeId, out: &mut String) -> std::fmt::Result {
    let ledger = &state.ledger;
    let mut sums: BTreeMap<LimitId, Sums> = ledger.limits.keys().map(|id| (*id, Sums::default())).collect();
    for (key, pool) in ledger.keys.iter().take(KEYS_ADDED_MAX) {
        let Some(sums) = sums.get_mut(&key.limit) else { continue };
        sums.keys += 1;
        sums.free += pool.free;
        sums.coming_home += pool.recycling.total();
        sums.quarantined += pool.quarantine.total();
        for (session, held) in &pool.holders {
            let here = ledger.sessions.get(session).is_some_and(|it| it.node == node);
            sums.held += held.slots;
            sums.held_here += if here { held.slots } else { 0 };
        }
    }
    let families: [(&str, &str, Sum); 6] = [
        ("ledger_keys", "Keys of a limit that some node has outgrown its standing share of.", |it| it.keys),
        ("free_slots", "Of those keys: slots that nobody holds.", |it| it.free),
        ("held_slots", "Of those keys: slots that nodes hold, used or not.", |it| it.held),
        ("node_held_slots", "Of those keys: slots that this node holds.", |it| it.held_here),
        ("coming_home_slots", "Of those keys: used slots between nodes.", |it| it.coming_home),
        ("quarantined_slots", "Of those keys: slots of sessions that are over.", |it| it.quarantined),
    ];
    for (family, help, value) in families {
        writeln!(out, "# HELP quorumgate_ratelimit_{family} {help}\n# TYPE quorumgate_ratelimit_{family} gauge")?;
        for (id, sums) in &sums {
            let Some(limit) = ledger.limit(*id) else { continue };
            writeln!(out, "quorumgate_ratelimit_{family}{{limit=\"{}\"}} {}", limit.rule.name, value(sums))?;
        }
    }
    let numbers = [
        ("ledger_commands_total", "counter", "Commands that the ledger has applied.", ledger.version),
        ("sessions", "gauge", "Sessions that last.", live(state)),
        ("divisor", "gauge", "Into how many shares budgets are cut.", ledger.epoch.divisor),
    ];
    for (family, kind, help, value) in numbers {
        writeln!(out, "# HELP quorumgate_ratelimit_{family} {help}\n# TYPE quorumgate_ratelimit_{family} {kind}")?;
        writeln!(out, "quorumgate_ratelimit_{family} {value}")?;
    }
    Ok(())
}

fn live(state: &State) -> u64 {
    let ledger = &state.ledger;
    ledger.sessions.values().filter(|it| it.lasts(ledger.now_us)).count() as u64
}
