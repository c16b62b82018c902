//! The ledger's part and the nodes' parts of one limit, added up by key. Pure.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    fmt,
};

use quorumgate_model::{
    ledger::{
        Pool,
        command::{Key, LimitId},
    },
    resource::{Limit, LimitKind, LimitMode, Name},
    state::State,
};
use quorumgate_proto::peer::v1 as pb;

use super::{Heard, Question, id_of, limit_named};
use crate::admin::nodes;

/// One limit over all nodes that answered.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitReport {
    pub limit: std::sync::Arc<Limit>,
    /// What a key may use; of a limit of mode local, on all nodes together.
    pub budget: u64,
    pub broken: Option<String>,
    /// Those of which most is used, first.
    pub keys: Vec<KeyReport>,
    pub ledger_keys: u64,
    /// By the name of the node.
    pub decisions: Vec<(String, pb::UsedLimit)>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct KeyReport {
    pub key: String,
    pub used: u64,
    pub limit: u64,
    pub bonus: u64,
    pub bonus_ends_in_us: Option<u64>,
    pub resets_in_us: Option<u64>,
    pub quarantined: u64,
    pub coming_home: u64,
    pub free: u64,
    pub nodes: Vec<NodeReport>,
    pub in_ledger: bool,
    /// Of a calendar limit: the number of the period that all of this is of.
    pub period: u64,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeReport {
    pub node: String,
    pub region: String,
    pub held: u64,
    pub used: u64,
    /// Thousandths of slots per window.
    pub demand: u64,
}

/// `key "acme": 37 of 100 used, free again in 12s; held: eu 40 (n1 40), us 60 (n2 30, n3 30)`
impl fmt::Display for KeyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {:?}: {} of {} used", self.key, self.used, self.limit)?;
        if let Some(us) = self.resets_in_us {
            write!(f, ", free again in {}s", us.div_ceil(1_000_000))?;
        }
        let mut regions: BTreeMap<&str, Vec<&NodeReport>> = BTreeMap::new();
        for node in &self.nodes {
            regions.entry(&node.region).or_default().push(node);
        }
        let mut before = "; held: ";
        for (region, nodes) in regions {
            let held: Vec<String> = nodes.iter().map(|it| format!("{} {}", it.node, it.held)).collect();
            write!(f, "{before}{region} {} ({})", nodes.iter().map(|it| it.held).sum::<u64>(), held.join(", "))?;
            before = ", ";
        }
        if self.quarantined > 0 {
            write!(f, "; {} in quarantine", self.quarantined)?;
        }
        Ok(())
    }
}

/// None: there is no such limit.
pub(super) fn merge(question: &Question, state: &State, clock_us: u64, heard: &[Heard]) -> Option<LimitReport> {
    let limit = limit_named(state, &question.limit)?;
    let id = id_of(state, limit);
    let parts: Vec<Part<'_>> = heard.iter().filter_map(|it| Part::of(it, &limit.name)).collect();
    let each = slots(limit);
    let budget = match limit.mode {
        LimitMode::Local => each.saturating_mul(heard.len() as u64),
        LimitMode::Leased | LimitMode::Exact => each,
    };
    let asked: BTreeSet<&str> = question.keys.iter().flatten().map(String::as_str).collect();
    let key = |key: &&str| {
        let pool = id.and_then(|limit| state.ledger.pool(&Key { limit, who: (**key).into() }));
        key_report(key, budget, limit, pool.map(|it| &**it), state, clock_us, &parts)
    };
    let mut keys: Vec<KeyReport> = asked.iter().map(key).collect();
    keys.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.key.cmp(&b.key)));
    keys.truncate(question.top.max(1));
    let named =
        |it: &Part<'_>| (nodes::name(state, it.heard.id), pb::UsedLimit { keys: Vec::new(), ..it.used.clone() });
    Some(LimitReport {
        limit: limit.clone(),
        budget,
        broken: id.and_then(|id| state.ledger.limit(id)?.broken.clone()),
        keys,
        ledger_keys: id.map_or(0, |id| state.ledger.pools_of(id).count() as u64),
        decisions: parts.iter().map(named).collect(),
    })
}

/// What one node said of the limit.
struct Part<'a> {
    heard: &'a Heard,
    used: &'a pb::UsedLimit,
    keys: BTreeMap<&'a str, &'a pb::UsedKey>,
}

impl<'a> Part<'a> {
    fn of(heard: &'a Heard, limit: &Name) -> Option<Self> {
        let used = heard.answer.limits.iter().find(|it| it.limit == **limit)?;
        Some(Self { heard, used, keys: used.keys.iter().map(|it| (it.key.as_str(), it)).collect() })
    }

    /// What is between this node and the ledger, unless the ledger has it by now.
    fn on_their_way(&self, key: &pb::UsedKey, state: &State) -> u64 {
        let answer = &self.heard.answer;
        let arrived = state.ledger.sessions.get(&answer.session).is_some_and(|it| it.seq >= answer.flight);
        if arrived { 0 } else { key.on_their_way }
    }
}

fn key_report(
    key: &str,
    budget: u64,
    limit: &Limit,
    pool: Option<&Pool>,
    state: &State,
    clock_us: u64,
    parts: &[Part<'_>],
) -> KeyReport {
    let mut report =
        KeyReport { key: key.to_owned(), limit: budget, in_ledger: pool.is_some(), ..KeyReport::default() };
    let mut by_node: BTreeMap<u64, NodeReport> = BTreeMap::new();
    let mut whole_in_us = 0;
    for part in parts {
        let Some(used) = part.keys.get(key) else { continue };
        let node = by_node.entry(part.heard.id).or_default();
        node.used = used.used;
        if pool.is_none() {
            node.held = used.used + used.free;
        }
        whole_in_us = whole_in_us.max(used.whole_in_us);
        report.coming_home += part.on_their_way(used, state);
        report.used += used.used;
    }
    if let Some(pool) = pool {
        for (session, held) in &pool.holders {
            let Some(session) = state.ledger.sessions.get(session) else { continue };
            let node = by_node.entry(session.node).or_default();
            node.held += held.slots;
            node.demand += held.demand;
        }
        let left = |at: Option<u64>| at.map_or(0, |at| at.saturating_sub(clock_us));
        report.coming_home += pool.recycling.total();
        report.quarantined = pool.quarantine.total();
        report.free = pool.free;
        report.bonus = pool.bonus();
        report.limit += report.bonus;
        report.bonus_ends_in_us = pool.bonus_ends_us().map(|at| at.saturating_sub(clock_us));
        whole_in_us = whole_in_us.max(left(pool.recycling.last_us()));
    }
    report.used += report.coming_home;
    let counts_time = !matches!(limit.kind, LimitKind::Concurrency { .. });
    report.resets_in_us = (counts_time && report.used > 0).then_some(whole_in_us);
    if let (LimitKind::Calendar { .. }, Some(pool)) = (&limit.kind, pool) {
        of_period(&mut report, pool, key, &mut by_node, parts);
        let known = id_of(state, limit).and_then(|id| state.ledger.limit(id));
        let ends_us = known.and_then(|it| state.ledger.period_end_us(it));
        report.resets_in_us = ends_us.map(|at| at.saturating_sub(clock_us));
    }
    let node = |(id, it): (u64, NodeReport)| {
        let region = state.nodes.get(&id).map(|node| node.region.clone()).unwrap_or_default();
        NodeReport { node: nodes::name(state, id), region, ..it }
    };
    report.nodes = by_node.into_iter().map(node).filter(|it| it.held + it.used + it.demand > 0).collect();
    report
}

/// What is prepaid and not free on its node is spent, or on its way: what is on its way to the ledger comes home in a moment.
fn of_period(
    report: &mut KeyReport,
    pool: &Pool,
    key: &str,
    by_node: &mut BTreeMap<u64, NodeReport>,
    parts: &[Part<'_>],
) {
    let free = |id: u64| -> u64 {
        let said = parts.iter().filter(|part| part.heard.id == id).filter_map(|part| part.keys.get(key));
        said.map(|used| used.free).sum()
    };
    report.period = pool.period;
    report.used = pool.spent;
    for (id, node) in by_node {
        node.used = node.held.saturating_sub(free(*id));
        report.used += node.used;
    }
    report.coming_home = 0;
    report.quarantined = pool.burnt;
}

/// Keys of which most is known to be used or unsure, by the ledger alone.
pub(super) fn most_out(state: &State, id: LimitId, top: usize) -> impl Iterator<Item = String> {
    let mut most = BinaryHeap::with_capacity(top + 1);
    for (key, pool) in state.ledger.pools_of(id) {
        let reported: u64 = pool.holders.iter().map(|(_, held)| held.reported()).sum();
        let of_period = pool.spent + pool.burnt;
        most.push(Reverse((pool.recycling.total() + pool.quarantine.total() + of_period + reported, &*key.who)));
        if most.len() > top {
            most.pop();
        }
    }
    most.into_iter().map(|Reverse((_, who))| who.to_owned()).collect::<Vec<_>>().into_iter()
}

/// The most that one key of it admits at a time.
pub(super) fn slots(limit: &Limit) -> u64 {
    match limit.kind {
        LimitKind::Sliding { limit, .. } | LimitKind::Calendar { limit, .. } | LimitKind::Concurrency { limit, .. } => {
            limit
        }
        LimitKind::Bucket { burst, .. } => burst,
    }
}

#[cfg(test)]
mod tests {
    use quorumgate_model::ledger::Held;

    use super::*;

    #[test]
    fn of_a_period_is_used_what_was_spent_and_what_is_prepaid_and_not_free() {
        let held = |session, slots| (session, Held { slots, ..Held::default() });
        let holders = vec![held(1, 12), held(2, 8)];
        let pool = Pool { spent: 70, burnt: 5, free: 5, period: 9, holders, ..Pool::default() };
        let key = pb::UsedKey { key: "k".into(), free: 9, ..Default::default() };
        let heard = Heard { id: 1, answer: pb::LimitUsageResponse::default() };
        let used = pb::UsedLimit::default();
        let parts = [Part { heard: &heard, used: &used, keys: [("k", &key)].into() }];
        let node = |held| NodeReport { held, ..NodeReport::default() };
        // Node 2 has not answered: what it holds may be used.
        let mut by_node = BTreeMap::from([(1, node(12)), (2, node(8))]);
        let mut report = KeyReport::default();
        of_period(&mut report, &pool, "k", &mut by_node, &parts);
        assert_eq!((report.used, report.quarantined, report.period), (70 + 3 + 8, 5, 9));
        assert_eq!((by_node[&1].used, by_node[&2].used), (3, 8));
    }
}
