//! What the version of an API that a route is of would answer now.

use quorumgate_model::{
    resource::{PolicyKind, VersionState},
    ruleset::{Rule, Ruleset},
    units::Moment,
};

use crate::{admin::apis, publish::wall_ms};

pub struct Told {
    pub words: String,
    pub policy: String,
    /// Status and code.
    pub refusal: Option<(u16, &'static str)>,
}

/// None: the route is of no version.
pub fn told(rules: &Ruleset, rule: &Rule) -> Option<Told> {
    let policy = rules.version(rule)?;
    let PolicyKind::Version(it) = &policy.kind else { return None };
    let now = Moment(wall_ms());
    let window = it.brownouts.iter().find(|it| it.start <= now && now < it.end);
    let refusal = match (apis::now_of(it, now), window) {
        ("retired", _) => Some((410, "api_retired")),
        ("brownout", Some(window)) => Some((window.status, "api_brownout")),
        ("draft", _) if it.preview_groups.is_empty() => Some((404, "no_route")),
        _ => None,
    };
    let mut words = format!("{} {} is {}", it.api, it.version, apis::now_of(it, now));
    if it.state == VersionState::Draft && refusal.is_none() {
        words += &format!("; 404 to all who are not of {}", it.preview_groups.join(", "));
    }
    Some(Told { words, policy: policy.name.to_string(), refusal })
}
