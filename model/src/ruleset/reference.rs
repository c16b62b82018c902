//! `find` against a matcher that asks every route and sorts: slow, obvious, and written from the documentation.

use std::{cmp::Reverse, collections::BTreeSet, net::IpAddr};

use crate::resource::{FieldMatch, FieldTest, Match, PathPattern, Route};

/// What the reference reads instead of text: names and values as they are after decoding.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    pub method: &'a str,
    pub host: &'a str,
    pub path: String,
    pub headers: Vec<(&'a str, &'a str)>,
    pub query: Vec<(&'a str, &'a str)>,
    pub cookies: Vec<(&'a str, &'a str)>,
    pub client_ip: IpAddr,
    pub sni: Option<&'a str>,
    pub listener: Option<&'a str>,
}

impl<'a> Asked<'a> {
    fn asked_method(&self) -> Option<&'a str> {
        let header = |name: &str| self.headers.iter().find(|(other, _)| *other == name).map(|(_, value)| *value);
        let method = header("access-control-request-method");
        method.filter(|_| self.method == "OPTIONS" && header("origin").is_some())
    }
}

/// Whether the regular expression takes the whole text.
pub type WholeMatch = fn(&str, &str) -> bool;

/// Smaller is better; None: not this route.
type Order = (Reverse<i32>, (u8, Reverse<usize>), (u8, Reverse<usize>), u8, Reverse<usize>, Reverse<usize>, String);

fn host_order(hosts: &[String], host: &str) -> Option<(u8, Reverse<usize>)> {
    if hosts.is_empty() {
        return Some((2, Reverse(0)));
    }
    let order = |pattern: &String| match pattern.strip_prefix('*') {
        None => (pattern == host).then_some((0, Reverse(0))),
        Some(suffix) => {
            host.strip_suffix(suffix).filter(|labels| !labels.is_empty()).map(|_| (1, Reverse(suffix.len())))
        }
    };
    hosts.iter().filter_map(order).min()
}

fn path_order(pattern: &PathPattern, path: &str, whole_match: WholeMatch) -> Option<(u8, Reverse<usize>)> {
    match pattern {
        PathPattern::Exact(exact) => (path == exact).then_some((0, Reverse(0))),
        PathPattern::Template(template) => {
            let (parts, names): (Vec<&str>, Vec<&str>) = (path.split('/').collect(), template.split('/').collect());
            let fits = |(name, part): (&&str, &&str)| (name.starts_with('{') && !part.is_empty()) || name == part;
            let literals = names.iter().skip(1).filter(|name| !name.starts_with('{')).count();
            (names.len() == parts.len() && names.iter().zip(&parts).all(fits)).then_some((1, Reverse(literals)))
        }
        PathPattern::Prefix(prefix) => {
            let under = prefix == "/" || path == prefix || path.starts_with(&format!("{prefix}/"));
            under.then_some((2, Reverse(prefix.len())))
        }
        PathPattern::Regex(text) => whole_match(text, path).then_some((3, Reverse(0))),
        PathPattern::Any => Some((4, Reverse(0))),
    }
}

fn method_order(methods: &[String], method: &str) -> Option<u8> {
    let has = |method: &str| methods.iter().any(|it| it == method);
    match () {
        _ if methods.is_empty() => Some(2),
        _ if has(method) => Some(0),
        _ if method == "HEAD" && has("GET") => Some(1),
        _ => None,
    }
}

fn fields_hold(conditions: &[FieldMatch], given: &[(&str, &str)], whole_match: WholeMatch) -> bool {
    conditions.iter().all(|it| {
        let mut values = given.iter().filter(|(name, _)| *name == it.name).map(|(_, value)| *value);
        match &it.test {
            FieldTest::Exact(text) => values.any(|value| value == text),
            FieldTest::Regex(text) => values.any(|value| whole_match(text, value)),
            FieldTest::Present => values.next().is_some(),
            FieldTest::Absent => values.next().is_none(),
        }
    })
}

fn conditions_hold(matches: &Match, asked: &Asked<'_>, whole_match: WholeMatch) -> bool {
    let preflight = asked.asked_method().is_some();
    let sni = |sni: &str| matches.sni.iter().any(|host| host_order(&[host.to_string()], sni).is_some());
    let holds = |conditions: &[FieldMatch], given: &[(&str, &str)]| fields_hold(conditions, given, whole_match);
    let carried = holds(&matches.headers, &asked.headers) && holds(&matches.cookies, &asked.cookies);
    (preflight || carried)
        && holds(&matches.query, &asked.query)
        && (matches.client_cidrs.is_empty() || matches.client_cidrs.iter().any(|net| net.contains(&asked.client_ip)))
        && (matches.sni.is_empty() || asked.sni.is_some_and(sni))
        && (matches.listeners.is_empty() || matches.listeners.iter().any(|name| asked.listener == Some(&**name)))
}

/// The name of the route that takes the request, `404`, or `405` with the methods that some route would take.
pub fn reference(routes: &[Route], asked: &Asked<'_>, whole_match: WholeMatch) -> String {
    let method = asked.asked_method().unwrap_or(asked.method);
    let mut best: Option<Order> = None;
    let mut reached: Vec<&Route> = Vec::new();
    for route in routes {
        let matches = &route.matches;
        let hosts: Vec<String> = matches.hosts.iter().map(ToString::to_string).collect();
        let (Some(host), Some(path)) =
            (host_order(&hosts, asked.host), path_order(&matches.path, &asked.path, whole_match))
        else {
            continue;
        };
        reached.push(route);
        let Some(method) = method_order(&matches.methods, method) else { continue };
        if conditions_hold(matches, asked, whole_match) {
            let conditions = (Reverse(matches.headers.len()), Reverse(matches.query.len()));
            let name = route.name.to_string();
            let order = (Reverse(route.priority), host, path, method, conditions.0, conditions.1, name);
            best = Some(best.map_or(order.clone(), |best| best.min(order)));
        }
    }
    if let Some(best) = best {
        return best.6;
    }
    if reached.is_empty() || reached.iter().any(|it| method_order(&it.matches.methods, method).is_some()) {
        return "404".to_owned();
    }
    let mut allowed: BTreeSet<&str> = BTreeSet::new();
    for route in reached {
        allowed.extend(route.matches.methods.iter().map(String::as_str));
    }
    if allowed.contains("GET") {
        allowed.insert("HEAD");
    }
    format!("405 {}", Vec::from_iter(allowed).join(","))
}

#[cfg(test)]
mod tests;
