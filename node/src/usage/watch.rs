//! Tells when keys come near their limits: one line a crossing, from the leader alone. It asks about those keys only of
//! which little is left to lend; a key of which much is used has been outgrown by some node, and so is in the ledger.

use std::{collections::BTreeMap, ops::Bound, sync::Arc, time::Duration};

use quorumgate_model::{
    ledger::command::Key,
    mutants::{self, Mutant},
    resource::{LimitMode, Name},
    state::State,
};
use quorumgate_proxy::Limits;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{KEYS_MAX, KeyReport, Question, Usage, id_of, limits_of};
use crate::consensus::Consensus;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// How many keys of the ledger one look passes; the next one goes on from there.
const LOOKED_AT_MAX: usize = 20_000;
/// How many keys are asked about at a time.
const ASKED_MAX: usize = KEYS_MAX;
/// How many lines one look writes; the rest is a number.
const LINES_MAX: usize = 20;
/// How much of a key a line shows.
const KEY_CHARS_MAX: usize = 100;
/// How many keys are remembered as told.
const TOLD_MAX: usize = 20_000;
/// Below this many hundredths a key may be told of again.
const CALM_PERCENT: u64 = 70;

pub struct Watch {
    pub consensus: Consensus,
    /// Where crossings are counted.
    pub limits: Arc<Limits>,
}

/// Which keys were told of, with how many hundredths, and of which period.
#[derive(Debug, Default)]
struct Told {
    keys: BTreeMap<(Name, String), (u8, u64)>,
}

impl Watch {
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut told = Told::default();
        let mut from = None;
        while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            // Whoever leads next tells again what is still so.
            if !self.consensus.leads() {
                told.keys.clear();
                continue;
            }
            let state = self.consensus.state();
            let questions = questions(&state, &mut from, &mut told);
            if questions.is_empty() {
                continue;
            }
            let asked = Usage::ask(&self.consensus, questions, EVERY);
            let Some(usage) = stop.run_until_cancelled(asked).await else { break };
            let crossed: Vec<_> = usage
                .limits
                .iter()
                .flat_map(|it| it.keys.iter().map(|key| (&it.limit.name, key)))
                .filter_map(|(name, key)| Some((name, key, told.crossing(name, key)?)))
                .collect();
            for (name, _, percent) in &crossed {
                self.limits.warned(name, *percent);
            }
            tell(&crossed);
        }
        Ok(())
    }
}

/// Keys of which little is left to lend, and those that were told of.
fn questions(state: &State, from: &mut Option<Key>, told: &mut Told) -> Vec<Question> {
    let names: BTreeMap<_, _> = limits_of(state)
        .filter(|it| it.mode != LimitMode::Local)
        .filter_map(|it| Some((id_of(state, it)?, it.name.clone())))
        .collect();
    // A key that has left the ledger is calm.
    told.keys.retain(|(name, who), _| {
        let id = state.ledger.names.get(name).copied();
        id.is_some_and(|limit| state.ledger.pool(&Key { limit, who: who.as_str().into() }).is_some())
    });
    let start = from.take().map_or(Bound::Unbounded, Bound::Excluded);
    let mut keys: BTreeMap<Name, Vec<String>> = BTreeMap::new();
    let (mut last, mut count) = (None, 0);
    for (key, pool) in state.ledger.keys.range((start, Bound::Unbounded)).take(LOOKED_AT_MAX) {
        if count >= ASKED_MAX {
            break;
        }
        last = Some(key);
        let (Some(name), Some(limit)) = (names.get(&key.limit), state.ledger.limit(key.limit)) else { continue };
        let known = told.keys.contains_key(&(name.clone(), key.who.to_string()));
        // What is free is certainly not used.
        if known || pool.free.saturating_mul(5) <= pool.budget(limit) {
            keys.entry(name.clone()).or_default().push(key.who.to_string());
            count += 1;
        }
    }
    // From the last of all it begins anew.
    let end = state.ledger.keys.get_max().map(|(key, _)| key);
    *from = last.filter(|last| Some(*last) != end).cloned();
    let question = |(limit, keys): (Name, Vec<String>)| Question { limit, top: keys.len(), keys: Some(keys) };
    keys.into_iter().map(question).collect()
}

impl Told {
    /// What has to be told of the key now: 80 or 100.
    fn crossing(&mut self, limit: &Name, key: &KeyReport) -> Option<u8> {
        let hundredths = key.used.saturating_mul(100) / key.limit.max(1);
        let reached = match hundredths {
            100.. => 100,
            80.. => 80,
            _ => 0,
        };
        let place = (limit.clone(), key.key.clone());
        // Of another period it says nothing: the key fell to nothing in between, seen or not.
        let is_of_now = |period: u64| period == key.period || mutants::is(Mutant::WarnedOfAnotherPeriod);
        let known = self.keys.get(&place).copied();
        let before = known.filter(|(_, period)| is_of_now(*period)).map_or(0, |(reached, _)| reached);
        if hundredths < CALM_PERCENT {
            self.keys.remove(&place);
            return None;
        }
        if reached <= before || (known.is_none() && self.keys.len() >= TOLD_MAX) {
            return None;
        }
        self.keys.insert(place, (reached, key.period));
        Some(reached)
    }
}

fn tell(crossed: &[(&Name, &KeyReport, u8)]) {
    for (limit, key, percent) in crossed.iter().take(LINES_MAX) {
        let shown: String = key.key.chars().take(KEY_CHARS_MAX).collect();
        let (used, of) = (key.used, key.limit);
        // Keys are clients' words: quoted.
        warn!(%limit, key = ?shown, used, of, percent, "a key has come near its limit");
    }
    if let Some(more) = crossed.len().checked_sub(LINES_MAX).filter(|more| *more > 0) {
        warn!(more, "more keys have come near their limits");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crossing_is_told_once_until_the_key_is_calm_again() {
        let mut told = Told::default();
        let name: Name = "free".parse().unwrap();
        let mut check = |used, expected: Option<u8>| {
            let key = KeyReport { key: "acme".into(), used, limit: 10, ..KeyReport::default() };
            assert_eq!(told.crossing(&name, &key), expected, "{used} of 10");
        };
        check(7, None);
        check(8, Some(80));
        check(9, None);
        check(7, None);
        check(8, None);
        check(10, Some(100));
        check(8, None);
        check(6, None);
        check(10, Some(100));
    }

    /// Two looks may fall before and after a period's begin, and the key may be spent again by the second.
    #[test]
    fn a_quota_that_is_spent_again_in_its_next_period_is_told_again() {
        let mut told = Told::default();
        let name: Name = "quota".parse().unwrap();
        let mut check = |period, used, expected: Option<u8>| {
            let key = KeyReport { key: "acme".into(), used, limit: 10, period, ..KeyReport::default() };
            assert_eq!(told.crossing(&name, &key), expected, "{used} of 10 in {period}");
        };
        check(60, 10, Some(100));
        check(60, 10, None);
        check(120, 10, Some(100));
        check(120, 10, None);
        check(180, 8, Some(80));
        check(180, 10, Some(100));
    }
}
