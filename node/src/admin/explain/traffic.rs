//! What an imagined request would meet beside its upstream: a preflight's answer, an arm of a split, a rewrite, a mirror.

use std::{borrow::Cow, net::IpAddr};

use http::{HeaderMap, header};
use quorumgate_model::{
    resource::Route,
    ruleset::{Rule, split},
    template::Variable,
};
use quorumgate_proxy::traffic;

use super::caller::Who;
use crate::publish::wall_ms;

/// None: the request is no preflight that the gateway answers.
pub fn preflight(route: &Route, method: &str, headers: &HeaderMap) -> Option<String> {
    let cors = route.cors.as_ref()?;
    let origin = headers.get(header::ORIGIN)?.to_str().unwrap_or_default();
    if method != "OPTIONS" || !headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    Some(match cors.origins.iter().find(|pattern| pattern.takes(origin)) {
        Some(pattern) => format!("preflight answered: origin {origin} is let in by {pattern}"),
        None => format!("preflight answered: origin {origin} is not let in"),
    })
}

/// Phases without a decision.
pub fn told(rule: &Rule, path: &str, query: Option<&str>) -> Vec<(&'static str, String, String)> {
    let route = &rule.route;
    let mut told = Vec::new();
    if let Some(transform) = &rule.transform {
        let value = |variable: &Variable| match variable {
            Variable::Path => Cow::Borrowed(path),
            Variable::Param(name) => {
                let found = rule.params(path).find_map(|(param, value)| (param == name).then_some(value));
                Cow::Borrowed(found.unwrap_or_default())
            }
            other => Cow::Owned(format!("<{}>", format!("{other:?}").to_ascii_lowercase())),
        };
        let to = match transform.path(path, value) {
            Some(Ok(path)) => path,
            Some(Err(_)) => "a path that cannot be asked for: 400 bad_path".to_owned(),
            None => path.to_owned(),
        };
        let query = transform.query(query, value).unwrap_or(query.map(str::to_owned));
        told.push(("rewrite", format!("{to}{}", query.map(|it| format!("?{it}")).unwrap_or_default()), String::new()));
    }
    if let Some(cache) = &route.cache {
        let by_default = cache.default_ttl.map_or("as answers say".to_owned(), |ttl| format!("{ttl} by default"));
        told.push(("cache", format!("answers are kept: {by_default}, up to {}", cache.object_max), String::new()));
    }
    if let Some(mirror) = &route.mirror {
        told.push(("mirror", format!("{}% copied", mirror.percent), mirror.upstream.to_string()));
    }
    if let Some(compression) = &route.compression {
        let words: Vec<&str> = compression.algorithms.iter().map(|it| it.word()).collect();
        let told_of = format!("answers of {} and more by {}", compression.min_size, words.join(", "));
        told.push(("compression", told_of, String::new()));
    }
    told.into_iter().map(|(phase, what, name)| (phase, what, or(name, &route.name))).collect()
}

fn or(name: String, otherwise: &str) -> String {
    if name.is_empty() { otherwise.to_owned() } else { name }
}

/// The upstream, empty where that goes with chance or with somebody unknown, and why.
pub fn arm(rule: &Rule, who: &Who, client_ip: IpAddr, headers: &HeaderMap) -> (String, String) {
    let Some((split, arms)) = rule.split() else { return (String::new(), String::new()) };
    let now_ms = wall_ms();
    let weights: Vec<u64> = split::weights(split, now_ms).collect();
    let sum: u64 = weights.iter().sum::<u64>().max(1);
    let share = |weight: u64| format!("{:.2}%", weight as f64 * 100.0 / sum as f64);
    let shares = split.arms.iter().zip(&weights).map(|(arm, weight)| format!("{} {}", arm.upstream, share(*weight)));
    let mut told = shares.collect::<Vec<_>>().join(", ");
    if let Some(ramp) = &split.ramp {
        let (step, steps) = split::step(ramp, now_ms);
        told += &format!("; step {step} of {steps} of the ramp");
    }
    let Some(on) = &split.on else { return (String::new(), format!("{told}; drawn by chance")) };
    let caller = match who {
        Who::Known(caller) => caller.as_deref(),
        Who::Unknown => None,
    };
    match traffic::split_key(on, caller.into_iter(), client_ip, headers) {
        Some(key) => {
            let arm = &split.arms[arms.of_key(split, &key, now_ms)];
            (arm.upstream.to_string(), format!("{told}; by {on}: {}", arm.upstream))
        }
        None => (String::new(), format!("{told}; without {on} drawn by chance")),
    }
}
