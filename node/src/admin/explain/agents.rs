//! What a route's policies of kind `bot` make of what the client would call itself.

use std::borrow::Cow;

use quorumgate_model::ruleset::{Rule, Ruleset};
use quorumgate_proto::admin::v1::HeaderField;

/// In words, by which policy, and whether that is a refusal.
pub fn told(rules: &Ruleset, rule: &Rule, headers: &[HeaderField]) -> Vec<(String, String, bool)> {
    let agents = || {
        let agents = headers.iter().filter(|field| field.name.eq_ignore_ascii_case("user-agent"));
        agents.map(|field| Cow::Borrowed(field.value.as_str())).collect()
    };
    let told = rules.unwelcome(rule, agents).into_iter().map(|it| {
        let then = if it.is_refused { "refused" } else { "told of" };
        let why = format!("{} {}", it.how.word(), it.how.detail());
        (format!("{then}: {}", why.trim_end()), it.policy.to_string(), it.is_refused)
    });
    told.collect()
}
