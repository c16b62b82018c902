//! What the gateways have in common: words of theirs as words of ours.

use std::collections::BTreeMap;

use quorumgate_model::{resource::Kind, units::Span};
use serde_json::{Map, Value as Json, json};

use super::{
    effects::{CLOSED, Edits, Effects},
    out::Out,
    reader::Item,
};
use crate::cli::failure::Outcome;

/// The longest time-out that we have, in milliseconds.
const SPAN_MS_MAX: f64 = 86_400_000.0;
/// The largest weight of a target.
const WEIGHT_MAX: u64 = 1_000;
/// The most extra attempts.
const ATTEMPTS_MAX: i64 = 10;

pub fn millis(ms: f64) -> String {
    Span::millis(ms.clamp(1.0, SPAN_MS_MAX).round() as u64).to_string()
}

pub fn seconds(seconds: f64) -> String {
    millis(seconds * 1_000.0)
}

/// Of a limit, whose windows are longer than any time-out may be.
pub fn window(seconds: f64) -> String {
    Span::millis((seconds * 1_000.0).max(1.0).round() as u64).to_string()
}

pub fn attempts(from: &Item<'_>, found: i64) -> i64 {
    if found > ATTEMPTS_MAX {
        from.differs(format!("at most {ATTEMPTS_MAX} extra attempts are made"));
    }
    found.clamp(0, ATTEMPTS_MAX)
}

/// `${` begins a value of the request in our words; in theirs it is two characters.
pub fn literal(text: &str) -> String {
    text.replace("${", "$${")
}

/// As a part of a regular expression.
pub fn escaped(text: &str) -> String {
    let mut out = String::new();
    for it in text.chars() {
        if r"\.+*?()|[]{}^$".contains(it) {
            out.push('\\');
        }
        out.push(it);
    }
    out
}

/// In the place of what a pattern matched.
pub fn replacement(text: &str) -> String {
    text.replace('$', "$$")
}

/// A pattern of a part of a text as one of the whole of it.
pub fn anywhere(pattern: &str) -> String {
    format!(".*(?:{pattern}).*")
}

/// A pattern that must begin where the text does, as one of the whole of it.
pub fn from_start(pattern: &str) -> String {
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    let is_end = pattern.ends_with('$') && !pattern.ends_with(r"\$") && !pattern.contains('|');
    match is_end {
        true => pattern[..pattern.len() - 1].to_owned(),
        false if pattern.contains('|') => format!("(?:{pattern}).*"),
        false => format!("{pattern}.*"),
    }
}

/// What every text that a pattern takes begins with.
pub fn beginning(pattern: &str) -> &str {
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "/_-".contains(it);
    let end = pattern.find(|it: char| !is_plain(it)).unwrap_or(pattern.len());
    // The last one may be optional, and one of several begins with anything.
    if pattern.contains('|') { "" } else { &pattern[..end.saturating_sub(1)] }
}

/// What stands before and behind the first | that is in no group and no class.
pub fn alternatives(pattern: &str) -> Option<(&str, &str)> {
    let (mut depth, mut is_class, mut is_escaped) = (0_i64, false, false);
    for (at, it) in pattern.char_indices() {
        match it {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '[' => is_class = true,
            ']' => is_class = false,
            '(' if !is_class => depth += 1,
            ')' if !is_class => depth -= 1,
            '|' if !is_class && depth == 0 => return Some((&pattern[..at], &pattern[at + 1..])),
            _ => {}
        }
    }
    None
}

/// A test of a header's value that is one of these, in whatever case.
pub fn one_of(values: &[String]) -> Json {
    match values {
        [one] if !one.bytes().any(|it| it.is_ascii_alphabetic()) => json!({ "exact": one }),
        _ => {
            let all: Vec<String> = values.iter().map(|it| escaped(it)).collect();
            json!({ "regex": format!("(?i:{})", all.join("|")) })
        }
    }
}

/// Whether a secret is somewhere else, and this says where.
pub fn is_placeholder(text: &str) -> bool {
    ["${{", "{{", "{vault://", "$env://", "$secret://", "$ENV://"].iter().any(|it| text.trim_start().starts_with(it))
}

/// A match for each kind of host, since a request's host decides how near a route is to it: exact ones, and wildcards of
/// each length.
pub fn by_host_kind(matches: &Map<String, Json>) -> Vec<Map<String, Json>> {
    let mut kinds: BTreeMap<usize, Vec<&Json>> = BTreeMap::new();
    for host in matches.get("hosts").and_then(Json::as_array).into_iter().flatten() {
        let text = host.as_str().unwrap_or_default();
        kinds.entry(if text.starts_with('*') { text.len() } else { 0 }).or_default().push(host);
    }
    if kinds.len() < 2 {
        return vec![matches.clone()];
    }
    let with = |hosts: Vec<&Json>| {
        let mut matches = matches.clone();
        matches.insert("hosts".into(), json!(hosts));
        matches
    };
    kinds.into_values().map(with).collect()
}

/// `host:port`; an address of IPv6 gets its brackets.
pub fn authority(host: &str, port: i64) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// A host and the port behind it, if there is one.
pub fn split_port(text: &str) -> (&str, Option<i64>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (text, None),
        },
        _ => (text, None),
    }
}

/// Weights that mean the same and are small enough.
pub fn weights(from: &Item<'_>, weights: &[u64]) -> Vec<u64> {
    fn divisor(a: u64, b: u64) -> u64 {
        if b == 0 { a } else { divisor(b, a % b) }
    }
    let common = weights.iter().copied().fold(0, divisor).max(1);
    let reduced: Vec<u64> = weights.iter().map(|it| it / common).collect();
    let most = reduced.iter().copied().max().unwrap_or_default();
    if most <= WEIGHT_MAX {
        return reduced;
    }
    from.differs(format!("weights are made smaller, so that the largest is {WEIGHT_MAX}"));
    reduced.iter().map(|it| (u128::from(*it) * u128::from(WEIGHT_MAX) / u128::from(most)).max(1) as u64).collect()
}

/// `http://host:port/path`
pub struct Url {
    pub scheme: Option<String>,
    pub host: String,
    pub port: Option<i64>,
    pub path: String,
}

impl Url {
    pub fn parse(text: &str) -> Self {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None if text.starts_with('/') => {
                return Self { scheme: None, host: String::new(), port: None, path: text.to_owned() };
            }
            None => (None, text),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        // Who asks there is a secret, and no part of where it is.
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (host, port) = split_port(authority);
        Self { scheme, host: host.to_owned(), port, path: path.to_owned() }
    }
}

/// A place to send clients, as a route's redirect; `keep_path`: the request's own path goes along.
pub fn redirect(from: &Item<'_>, location: &str, status: i64, keep_path: bool) -> Json {
    let url = Url::parse(location);
    let status = match status {
        301 | 302 | 303 | 307 | 308 => status,
        _ => {
            from.differs("the status is 302, one of 301, 302, 303, 307 and 308");
            302
        }
    };
    let mut words = Map::from_iter([("status".to_owned(), json!(status))]);
    if let Some(scheme) = url.scheme {
        words.insert("scheme".into(), json!(scheme));
    }
    if !url.host.is_empty() {
        words.insert("host".into(), json!(url.host));
    }
    if let Some(port) = url.port {
        words.insert("port".into(), json!(port));
    }
    if !keep_path {
        words.insert("path".into(), json!(if url.path.is_empty() { "/" } else { &url.path }));
    } else if !matches!(url.path.as_str(), "" | "/") {
        from.differs("the request's path goes along; the one of the location is left out");
    }
    Json::Object(words)
}

/// Defaults of a health check, where the gateways differ.
pub struct HealthDefaults {
    pub interval_s: f64,
    pub successes: i64,
    pub http_failures: i64,
    pub tcp_failures: i64,
    pub timeouts: i64,
    pub passive_http_failures: i64,
    pub passive_tcp_failures: i64,
    pub passive_timeouts: i64,
}

/// `health` and `outlier` of an upstream.
pub fn health(checks: Option<Item<'_>>, defaults: &HealthDefaults, words: &mut Map<String, Json>) -> Outcome {
    let (active, passive) = match &checks {
        Some(it) => (it.map("active")?, it.map("passive")?),
        None => (None, None),
    };
    if let Some(active) = active
        && let Some(health) = active_health(&active, defaults)?
    {
        words.insert("health".into(), health);
    }
    let errors = match &passive {
        Some(it) => passive_errors(it, defaults)?,
        None => 0,
    };
    words.insert("outlier".into(), json!({ "consecutive_errors": errors }));
    Ok(())
}

fn active_health(active: &Item<'_>, defaults: &HealthDefaults) -> Outcome<Option<Json>> {
    let kind = active.text("type")?.unwrap_or_else(|| "http".into());
    if !matches!(kind.as_str(), "http" | "https") {
        active.left_out(format!("checks of type {kind}: servers are asked by HTTP alone; write health by hand"));
        active.skip();
        return Ok(None);
    }
    let path = active.text("http_path")?.unwrap_or_else(|| "/".into());
    let timeout = active.number("timeout")?.unwrap_or(1.0);
    active.skip_fields(&["concurrency"]);
    let (healthy, unhealthy) = (active.map("healthy")?, active.map("unhealthy")?);
    let number = |of: &Option<Item<'_>>, field: &str, default: f64| -> Outcome<f64> {
        Ok(of.as_ref().map(|it| it.number(field)).transpose()?.flatten().unwrap_or(default))
    };
    let intervals =
        [number(&healthy, "interval", defaults.interval_s)?, number(&unhealthy, "interval", defaults.interval_s)?];
    let Some(interval) = intervals.into_iter().filter(|it| *it > 0.0).reduce(f64::min) else { return Ok(None) };
    if intervals[0] != intervals[1] {
        active.differs(format!("healthy and other servers are asked equally often, each {interval} s"));
    }
    let after = [
        number(&unhealthy, "http_failures", defaults.http_failures as f64)?,
        number(&unhealthy, "tcp_failures", defaults.tcp_failures as f64)?,
        number(&unhealthy, "timeouts", defaults.timeouts as f64)?,
    ];
    let unhealthy_after = after.into_iter().filter(|it| *it > 0.0).reduce(f64::min).unwrap_or(3.0);
    if after.iter().any(|it| *it > 0.0 && *it != unhealthy_after) {
        active.differs(format!("a server is out after {unhealthy_after} failed checks in a row, whatever failed"));
    }
    let successes = number(&healthy, "successes", defaults.successes as f64)?.max(1.0);
    let mut words = Map::from_iter([
        ("path".to_owned(), json!(path)),
        ("interval".to_owned(), json!(seconds(interval))),
        ("timeout".to_owned(), json!(seconds(timeout.min(interval)))),
        ("unhealthy_after".to_owned(), json!(unhealthy_after.clamp(1.0, 100.0) as i64)),
        ("healthy_after".to_owned(), json!(successes.clamp(1.0, 100.0) as i64)),
    ]);
    let statuses = match healthy.and_then(|it| it.get("http_statuses")) {
        Some(list) => {
            let codes = list.entries().iter().map(Item::as_int).collect::<Outcome<Vec<i64>>>()?;
            let range = codes.iter().min().copied().zip(codes.iter().max().copied());
            if let Some((low, high)) =
                range.filter(|(low, high)| codes.len() as i64 != high.saturating_sub(*low).saturating_add(1))
            {
                list.differs(format!("all statuses from {low} to {high} are good"));
            }
            range
        }
        None => None,
    };
    if let Some((low, high)) = statuses {
        let range = if low == high { low.to_string() } else { format!("{low}-{high}") };
        words.insert("expect".into(), json!(range));
    }
    if let Some(list) = unhealthy.and_then(|it| it.get("http_statuses")) {
        list.skip();
        list.differs("a status that is not good is bad");
    }
    Ok(Some(Json::Object(words)))
}

/// How many errors in a row; zero is off.
fn passive_errors(passive: &Item<'_>, defaults: &HealthDefaults) -> Outcome<i64> {
    passive.skip_fields(&["type"]);
    let Some(unhealthy) = passive.map("unhealthy")? else {
        passive.skip_fields(&["healthy"]);
        return Ok([defaults.passive_http_failures, defaults.passive_tcp_failures, defaults.passive_timeouts]
            .into_iter()
            .filter(|it| *it > 0)
            .min()
            .unwrap_or_default());
    };
    let counts = [
        unhealthy.int("http_failures")?.unwrap_or(defaults.passive_http_failures),
        unhealthy.int("tcp_failures")?.unwrap_or(defaults.passive_tcp_failures),
        unhealthy.int("timeouts")?.unwrap_or(defaults.passive_timeouts),
    ];
    if let Some(list) = unhealthy.get("http_statuses") {
        list.skip();
        list.differs("errors are 5xx, connections that fail and time-outs");
    }
    passive.skip_fields(&["healthy"]);
    let errors = counts.into_iter().filter(|it| *it > 0).min().unwrap_or_default();
    if errors > 0 {
        passive.differs(format!(
            "a server is left alone for 30s after {errors} errors in a row (outlier), and then gets requests again"
        ));
    }
    Ok(errors)
}

/// Whether the route is made all the same: closed, where it keeps some out.
pub fn unsaid(it: &Item<'_>, what: &str, effects: &mut Effects) -> bool {
    if !effects.protects() {
        it.left_out(format!("{what} cannot be said here, and the route is left out; write it by hand"));
        return false;
    }
    effects.close();
    it.closed(format!(
        "{what} cannot be said here: the route takes what it takes without that and lets nobody in; write its match by hand, and \
         take the rule {CLOSED} away"
    ));
    true
}

/// Fields that are not known here.
pub fn unread(fields: &[Item<'_>], effects: &mut Effects) {
    for it in fields {
        it.skip();
        effects.close();
        it.closed(format!(
            "it is not known here, and may keep somebody out: routes that it is about let nobody in; see to it, then take the rule \
             {CLOSED} away"
        ));
    }
}

/// Where a count is kept apart.
pub fn per_ip() -> Json {
    json!({ "ip": 32, "ip6": 128 })
}

/// A policy by addresses, the same one for all routes that this plugin is on.
pub fn addresses<'d>(
    out: &mut Out<'d>,
    plugin: &Item<'d>,
    wanted: &str,
    (allow, deny): (Vec<String>, Vec<String>),
    effects: &mut Effects,
) {
    if allow.is_empty() && deny.is_empty() {
        effects.close();
        plugin.closed(format!("it has no addresses: see to which are meant, then take the rule {CLOSED} away"));
        return;
    }
    let name = out.once(Kind::Policy, plugin, "ip", wanted, json!({ "ip": { "allow": allow, "deny": deny } }));
    effects.policies.push(name);
}

/// `name: value`, or `name:value`. None: it has values of the request in their words in it.
pub fn field_and_value(text: &str, marks: &[&str]) -> Option<(String, String)> {
    let (name, value) = text.split_once(':').unwrap_or((text, ""));
    let value = value.trim();
    (!marks.iter().any(|it| value.contains(it))).then(|| (name.trim().to_owned(), literal(value)))
}

pub fn remove_once(edits: &mut Edits, name: String) {
    if !edits.remove.iter().any(|it| it.eq_ignore_ascii_case(&name)) {
        edits.remove.push(name);
    }
}

/// Statuses, media types and the like, of which a cache of ours says less.
pub fn cache(ttl_s: Option<f64>) -> Json {
    match ttl_s.filter(|it| *it > 0.0) {
        Some(ttl) => json!({ "default_ttl": seconds(ttl) }),
        None => json!({}),
    }
}

/// Words of `labels` from a list or a map of theirs.
pub fn labels(of: &Item<'_>, fields: &[&str]) -> Outcome<Map<String, Json>> {
    let mut labels = Map::new();
    for field in fields {
        let Some(it) = of.get(field) else { continue };
        if it.is_list() {
            let tags = it.entries().iter().map(Item::as_text).collect::<Outcome<Vec<_>>>()?;
            if !tags.is_empty() {
                labels.insert((*field).to_owned(), json!(tags.join(",")));
            }
        } else if it.is_map() {
            for (name, value) in it.members() {
                labels.insert(name.to_owned(), json!(value.as_text()?));
            }
        } else {
            labels.insert((*field).to_owned(), json!(it.as_text()?));
        }
    }
    Ok(labels)
}
