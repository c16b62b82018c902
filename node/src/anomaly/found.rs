//! What all nodes have seen of each caller, added up, and who is over a bound. Pure but for the asking.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use quorumgate_model::{
    anomaly::{Finding, Seen},
    mutants::{self, Mutant},
    resource::{AnomalyPolicy, Name, Policy},
};
use quorumgate_proto::peer::v1 as pb;
use quorumgate_proxy::anomaly::{Outcome, Row, Verdict};

use super::{ANSWERS_WITHIN, ASKED_MAX, MINUTE, Policies, wire, words};
use crate::consensus::Consensus;

/// One caller, by one policy.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Caller {
    pub seen: Seen,
    /// That have seen something of it.
    pub nodes: u32,
}

#[derive(Debug, Default)]
pub struct Callers {
    pub all: BTreeMap<(Name, String), Caller>,
    /// Names of nodes.
    pub unanswered: Vec<String>,
}

/// One that is over a bound of its policy.
pub(super) struct Found {
    pub policy: Arc<Policy>,
    pub key: String,
    pub finding: Finding,
    pub nodes: u32,
    it: AnomalyPolicy,
}

impl Callers {
    /// Never an error: what is not known is missing, and `unanswered` says whose.
    pub async fn ask(
        consensus: &Consensus,
        policies: &Policies,
        asked: Vec<pb::AnomalyCaller>,
        said: Option<pb::AnomalyVerdicts>,
    ) -> Self {
        let state = consensus.state();
        let parts = state.nodes.len().max(1) as u64;
        let request = pb::AnomaliesRequest { parts, asked, said };
        let mut callers = Self::default();
        for (id, answer) in consensus.anomalies(&request, ANSWERS_WITHIN + 2 * state.timing().max_rtt).await {
            match (answer, state.nodes.get(&id)) {
                (Some(answer), _) => {
                    let rows = answer.seen.into_iter().filter_map(wire::seen_from);
                    rows.filter(|row| policies.contains_key(&row.policy)).for_each(|row| callers.add(row));
                }
                (None, Some(node)) => callers.unanswered.push(node.name.to_string()),
                (None, None) => {}
            }
        }
        callers
    }

    /// As `ask`, twice: the second time about everybody who was told of the first time.
    pub async fn look(consensus: &Consensus, policies: &Policies) -> Self {
        let first = Self::ask(consensus, policies, Vec::new(), None).await;
        match first.all.is_empty() {
            true => first,
            false => Self::ask(consensus, policies, first.asked_next(policies, &[]).0, None).await,
        }
    }

    /// What one node has seen.
    pub(super) fn own(rows: Vec<Row>) -> Self {
        let mut callers = Self::default();
        rows.into_iter().for_each(|row| callers.add(row));
        callers
    }

    fn add(&mut self, row: Row) {
        let caller = self.all.entry((row.policy, row.key)).or_default();
        caller.nodes += u32::from(row.seen.requests > 0);
        match mutants::is(Mutant::NodesSeeApart) {
            false => caller.seen.merge(&row.seen),
            true => caller.seen = row.seen,
        }
    }

    /// Whom all nodes are to be asked about: whomever any has told of, but those who are known, the nearest first. And how many
    /// are left out.
    pub(super) fn asked_next(&self, policies: &Policies, known: &[Verdict]) -> (Vec<pb::AnomalyCaller>, usize) {
        let known = known_of(known);
        let near = self.all.iter().filter_map(|((policy, key), caller)| {
            let it = words(policies.get(policy)?)?;
            let is_new = !known.contains(&(policy, key.as_str()));
            let heat = it.heat(|feature| caller.seen.of(feature));
            is_new.then(|| (heat, pb::AnomalyCaller { policy: policy.to_string(), key: key.clone() }))
        });
        let mut near: Vec<_> = near.collect();
        near.sort_by_key(|(heat, _)| std::cmp::Reverse(*heat));
        let left_out = near.len().saturating_sub(ASKED_MAX);
        (near.into_iter().take(ASKED_MAX).map(|(_, caller)| caller).collect(), left_out)
    }
}

fn known_of(verdicts: &[Verdict]) -> BTreeSet<(&Name, &str)> {
    verdicts.iter().map(|it| (&it.policy, &*it.key)).collect()
}

/// Those who are over a bound and not known for it.
pub(super) fn judge(callers: &Callers, policies: &Policies, known: &[Verdict]) -> Vec<Found> {
    let known = if mutants::is(Mutant::FoundAgain) { BTreeSet::new() } else { known_of(known) };
    let found = |((policy, key), caller): (&(Name, String), &Caller)| {
        let policy = policies.get(policy)?;
        let it = words(policy)?;
        let finding = it.judge(&caller.seen).filter(|_| !known.contains(&(&policy.name, key.as_str())))?;
        Some(Found { policy: policy.clone(), key: key.clone(), finding, nodes: caller.nodes, it: it.clone() })
    };
    callers.all.iter().filter_map(found).collect()
}

impl Found {
    pub fn words(&self) -> &AnomalyPolicy {
        &self.it
    }

    /// `objects 214 over 200 in 1m, on 3 nodes`
    pub fn reason(&self) -> String {
        let Finding { feature, value, over } = self.finding;
        let s = if self.nodes == 1 { "" } else { "s" };
        format!("{} {value} over {over} in {}, on {} node{s}", feature.word(), self.it.window, self.nodes)
    }

    /// It is not found for the same again while that is in its window; what was held back is looked at again in a minute.
    pub fn verdict(&self, outcome: Outcome, now_ms: u64) -> Verdict {
        let (hold, known) = match outcome {
            Outcome::HeldBack => (self.it.hold.0.min(MINUTE), MINUTE),
            _ => (self.it.hold.0, self.it.hold.0.max(self.it.window.0 + self.it.window.0 / 6)),
        };
        Verdict {
            policy: self.policy.name.clone(),
            key: self.key.as_str().into(),
            finding: self.finding,
            nodes: self.nodes,
            since_ms: now_ms,
            ends_ms: now_ms + hold.as_millis() as u64,
            known_ms: now_ms + known.as_millis() as u64,
            spec: self.it.spec(),
            outcome,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use quorumgate_model::{
        anomaly::{Event, Track},
        resource::{Kind, Resource},
    };
    use serde_json::json;

    use super::*;

    pub fn policies() -> Policies {
        let words =
            json!({ "name": "walks", "anomaly": { "over": { "objects": 90 }, "action": "ban", "hold": "10m" } });
        let Resource::Policy(it) = Kind::Policy.parse(words).unwrap() else { panic!("another kind") };
        [(it.name.clone(), it)].into()
    }

    fn row(key: &str, objects: impl Iterator<Item = u64>) -> Row {
        let mut track = Track::default();
        for object in objects {
            let hash = object.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            track.note(1, &Event { objects: &[hash], ..Event::default() });
        }
        Row { policy: "walks".parse().unwrap(), key: key.into(), seen: track.seen(1) }
    }

    /// One that was banned at second 1, for 120 objects over 90.
    pub fn walker() -> (Found, Verdict) {
        let callers = Callers::own(vec![row("walker", 0..120)]);
        let found = judge(&callers, &policies(), &[]).pop().unwrap();
        let verdict = found.verdict(Outcome::Banned, 1_000);
        (found, verdict)
    }

    #[test]
    fn who_is_over_a_bound_on_all_nodes_together_is_found_once() {
        let policies = policies();
        let mut callers = Callers::default();
        for node in 0..3u64 {
            callers.add(row("walker", (0..120).filter(|it| it % 3 == node)));
            callers.add(row("busy", (0..1_000).map(|it| it % 31)));
            callers.add(row("quiet", 0..3));
        }
        let asked: Vec<_> = callers.asked_next(&policies, &[]).0.into_iter().map(|it| it.key).collect();
        assert_eq!(asked, ["walker", "busy", "quiet"], "the nearest first");
        let found = judge(&callers, &policies, &[]);
        assert_eq!(found.iter().map(|it| it.key.as_str()).collect::<Vec<_>>(), ["walker"]);
        assert_eq!(found[0].reason(), "objects 120 over 90 in 1m, on 3 nodes");
        let verdict = found[0].verdict(Outcome::Banned, 1_000);
        assert_eq!((verdict.since_ms, verdict.ends_ms), (1_000, 601_000));
        assert!(judge(&callers, &policies, std::slice::from_ref(&verdict)).is_empty());
        let asked = callers.asked_next(&policies, &[verdict]).0;
        assert!(asked.iter().all(|it| it.key != "walker"), "known callers hide nobody");
        let short = AnomalyPolicy { hold: quorumgate_model::units::Span::secs(1), ..found[0].words().clone() };
        let short = Found { it: short, policy: found[0].policy.clone(), key: "walker".into(), ..found[0] };
        let verdict = short.verdict(Outcome::InForce, 1_000);
        assert_eq!((verdict.ends_ms, verdict.known_ms), (2_000, 71_000), "its window has the same in it still");
        assert_ne!(verdict.spec, found[0].verdict(Outcome::InForce, 0).spec, "the policy says something else");
        assert_eq!(found[0].verdict(Outcome::HeldBack, 1_000).ends_ms, 61_000);
    }

    #[test]
    fn what_crosses_between_nodes_comes_as_it_was() {
        let row = row("walker", 0..2_000);
        let seen = wire::seen_from(wire::seen_to(&row)).unwrap();
        assert_eq!((seen.key.as_str(), seen.seen.objects.count()), ("walker", row.seen.objects.count()));
        assert_eq!(seen.seen.requests, 2_000);
        let policies = policies();
        let found = judge(&Callers::own(vec![row]), &policies, &[]);
        let verdict = found[0].verdict(Outcome::Exempt, 5_000);
        assert_eq!(wire::verdict_from(wire::verdict_to(&verdict, 6_000), 6_000), Some(verdict));
    }
}
