//! Who takes a request that several routes would take: whether our order of precedence says the same as the other
//! gateway's, and priorities where it does not.

use std::collections::BTreeSet;

use quorumgate_model::resource::{HostPattern, PathPattern, Route};

/// Routes that are compared two by two; of more than that each gets a priority.
const COMPARED_MAX: usize = 3_000;

/// A route with the other gateway's order: the larger is asked first.
pub struct Ordered<'r> {
    pub route: &'r Route,
    pub order: &'r [i64],
}

/// A priority for each, or nothing where all is as it was without.
pub fn priorities(all: &[Ordered<'_>]) -> Option<Vec<i32>> {
    let is_same = all.len() <= COMPARED_MAX && !all.iter().any(|a| all.iter().any(|b| is_turned(a, b)));
    if is_same {
        return None;
    }
    let distinct: Vec<&[i64]> = all.iter().map(|it| it.order).collect::<BTreeSet<_>>().into_iter().collect();
    let rank = |order: &[i64]| distinct.binary_search(&order).expect("it is one of them") as i32;
    Some(all.iter().map(|it| rank(it.order)).collect())
}

/// Whether `a` would be asked first there, and not here.
fn is_turned(a: &Ordered<'_>, b: &Ordered<'_>) -> bool {
    a.order > b.order && natural(a.route) <= natural(b.route) && meet(a.route, b.route)
}

/// As docs/OPERATING.md has it, without priorities; the larger is asked first.
fn natural(route: &Route) -> [i64; 7] {
    let matches = &route.matches;
    let host = |it: &HostPattern| match it {
        HostPattern::Exact(_) => (2, 0),
        HostPattern::Suffix(suffix) => (1, suffix.len() as i64),
    };
    let (host, suffix) = matches.hosts.iter().map(host).max().unwrap_or_default();
    let (path, length) = match &matches.path {
        PathPattern::Exact(_) => (4, 0),
        PathPattern::Template(text) => {
            (3, text.split('/').skip(1).filter(|segment| !segment.starts_with('{')).count() as i64)
        }
        PathPattern::Prefix(text) => (2, text.len() as i64),
        PathPattern::Regex(_) => (1, 0),
        PathPattern::Any => (0, 0),
    };
    let count = |length: usize| length as i64;
    [
        host,
        suffix,
        path,
        length,
        i64::from(!matches.methods.is_empty()),
        count(matches.headers.len()),
        count(matches.query.len()),
    ]
}

/// Whether some request could be taken by both; when in doubt it could.
pub fn meet(a: &Route, b: &Route) -> bool {
    hosts_meet(&a.matches.hosts, &b.matches.hosts) && methods_meet(a, b) && paths_meet(&a.matches.path, &b.matches.path)
}

pub fn hosts_meet(a: &[HostPattern], b: &[HostPattern]) -> bool {
    let meet = |a: &HostPattern, b: &HostPattern| match (a, b) {
        (HostPattern::Exact(host), other) | (other, HostPattern::Exact(host)) => other.takes(host),
        (HostPattern::Suffix(a), HostPattern::Suffix(b)) => a.ends_with(b.as_str()) || b.ends_with(a.as_str()),
    };
    a.is_empty() || b.is_empty() || a.iter().any(|a| b.iter().any(|b| meet(a, b)))
}

fn methods_meet(a: &Route, b: &Route) -> bool {
    let (a, b) = (&a.matches.methods, &b.matches.methods);
    let is_get = |it: &String| it == "GET" || it == "HEAD";
    a.is_empty() || b.is_empty() || a.iter().any(|it| b.contains(it)) || (a.iter().any(is_get) && b.iter().any(is_get))
}

pub fn paths_meet(a: &PathPattern, b: &PathPattern) -> bool {
    let ((a, a_is_all), (b, b_is_all)) = (start(a), start(b));
    match (a_is_all, b_is_all) {
        (true, true) => a == b,
        (true, false) => a.starts_with(b),
        (false, true) => b.starts_with(a),
        (false, false) => a.starts_with(b) || b.starts_with(a),
    }
}

/// What every path of it begins with, and whether that is all of it.
fn start(path: &PathPattern) -> (&str, bool) {
    match path {
        PathPattern::Any => ("", false),
        PathPattern::Prefix(text) => (text.trim_end_matches('/'), false),
        PathPattern::Exact(text) => (text.as_str(), true),
        PathPattern::Template(text) => (&text[..text.find('{').unwrap_or(text.len())], false),
        // What a pattern begins with may be optional or one of several.
        PathPattern::Regex(text) if text.contains('|') => ("", false),
        PathPattern::Regex(text) => {
            let plain = |c: char| c.is_ascii_alphanumeric() || "/_-".contains(c);
            let end = text.find(|c| !plain(c)).unwrap_or(text.len());
            (&text[..end.saturating_sub(usize::from(end < text.len()))], false)
        }
    }
}

/// Whether `other` would take a path that begins with `prefix` and goes on without a slash.
pub fn takes_beyond(prefix: &str, other: &PathPattern) -> bool {
    match other {
        PathPattern::Any => true,
        PathPattern::Template(_) | PathPattern::Regex(_) => {
            let (begin, _) = start(other);
            begin.starts_with(prefix) || prefix.starts_with(begin)
        }
        PathPattern::Exact(path) => path.starts_with(prefix) && path.len() > prefix.len(),
        PathPattern::Prefix(text) => {
            let text = text.trim_end_matches('/');
            let goes_on = text.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
            text.is_empty() || goes_on || prefix.strip_prefix(text).is_some_and(|rest| rest.starts_with('/'))
        }
    }
}

pub fn is_many(routes: usize) -> bool {
    routes > COMPARED_MAX
}
