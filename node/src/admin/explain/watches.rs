//! By which policies callers of a route are watched, and what becomes of those who are found.

use quorumgate_model::{
    resource::{AnomalyAction, AnomalyFeature, AnomalyKey, AnomalyPolicy},
    ruleset::{Rule, Ruleset},
    units::Size,
};

use crate::anomaly::words;

/// In words, and by which policy.
pub fn told(rules: &Ruleset, rule: &Rule) -> Vec<(String, String)> {
    let watches = rules.watches(rule);
    watches.iter().filter_map(|policy| Some((words_of(words(policy)?), policy.name.to_string()))).collect()
}

fn words_of(it: &AnomalyPolicy) -> String {
    let bound = |(feature, over): (AnomalyFeature, u64)| match feature {
        AnomalyFeature::BytesOut => format!("{} {}", feature.word(), Size(over)),
        other => format!("{} {over}", other.word()),
    };
    let over = it.over.iter().map(bound).collect::<Vec<_>>().join(", ");
    let per = match it.per {
        AnomalyKey::Ip => format!("network (/{}, /{})", it.v4_prefix, it.v6_prefix),
        other => other.word().to_owned(),
    };
    let then = match it.action {
        AnomalyAction::Log => "told of",
        AnomalyAction::Header => "told to the upstream",
        AnomalyAction::Throttle => "refused with 429 abnormal_usage",
        AnomalyAction::Challenge => "refused with 401 step_up_required until it proves anew who it is",
        AnomalyAction::Ban => "banned",
        AnomalyAction::Webhook => "told to the policy's webhook",
    };
    format!("a {per} over {over} in {}, on all nodes together: {then} for {}", it.window, it.hold)
}
