//! Who takes a request that several routes would take: whether our order of precedence says the same as the other
//! gateway's, and priorities where it does not.

use std::collections::{BTreeMap, BTreeSet};

use quorumgate_model::resource::{HostPattern, PathPattern, Route};

/// Pairs of routes that are compared; where more of them may meet, each route gets a priority.
const PAIRS_MAX: usize = 9_000_000;

/// Places of routes by what their paths begin with, and by their hosts from behind. Where two meet, what one of them begins
/// with is what the other one begins with, or its beginning.
pub struct Near {
    by_path: BTreeMap<String, Vec<usize>>,
    by_host: BTreeMap<String, Vec<usize>>,
    is_many: bool,
}

impl Near {
    pub fn of<'r>(mut routes: impl Iterator<Item = &'r Route> + Clone) -> Self {
        let mut it = Self { by_path: BTreeMap::new(), by_host: BTreeMap::new(), is_many: false };
        for (at, route) in routes.clone().enumerate() {
            it.by_path.entry(start(&route.matches.path).0.to_owned()).or_default().push(at);
            for host in from_behind(route) {
                it.by_host.entry(host).or_default().push(at);
            }
        }
        let mut pairs = 0;
        it.is_many = routes.any(|route| {
            pairs += it.places(route).len();
            pairs > PAIRS_MAX
        });
        it
    }

    /// Whether there are too many pairs to look at: what might be is taken to be then.
    pub fn is_many(&self) -> bool {
        self.is_many
    }

    /// All that may meet it, and some that do not; itself too.
    pub fn places(&self, route: &Route) -> Vec<usize> {
        let behind = from_behind(route);
        let mut hosts = behind.iter().flat_map(|host| along(&self.by_host, host));
        let mut paths = along(&self.by_path, start(&route.matches.path).0);
        let (mut by_host, mut by_path) = (Vec::new(), Vec::new());
        // The shorter of the two, without an end to the other.
        loop {
            match hosts.next() {
                Some(at) => by_host.push(*at),
                None => return by_host,
            }
            match paths.next() {
                Some(at) => by_path.push(*at),
                None => return by_path,
            }
        }
    }
}

/// What stands at beginnings of a text, at itself, and at what begins with it.
fn along<'n>(by: &'n BTreeMap<String, Vec<usize>>, text: &str) -> impl Iterator<Item = &'n usize> + use<'n> {
    let shorter: Vec<&Vec<usize>> = text.char_indices().filter_map(|(end, _)| by.get(&text[..end])).collect();
    let text = text.to_owned();
    let longer = by.range(text.clone()..).take_while(move |(other, _)| other.starts_with(&text)).map(|(_, it)| it);
    shorter.into_iter().chain(longer).flatten()
}

/// Of any host: of what all begin with, nothing.
fn from_behind(route: &Route) -> Vec<String> {
    let hosts = &route.matches.hosts;
    let text = |it: &HostPattern| -> String {
        let (HostPattern::Exact(text) | HostPattern::Suffix(text)) = it;
        text.chars().rev().collect()
    };
    if hosts.is_empty() { vec![String::new()] } else { hosts.iter().map(text).collect() }
}

/// A route with the other gateway's order: the larger is asked first.
pub struct Ordered<'r> {
    pub route: &'r Route,
    pub order: &'r [i64],
}

/// A priority for each, or nothing where all is as it was without.
pub fn priorities(all: &[Ordered<'_>]) -> Option<Vec<i32>> {
    let near = Near::of(all.iter().map(|it| it.route));
    let naturals: Vec<[i64; 7]> = all.iter().map(|it| natural(it.route)).collect();
    // Whether `a` would be asked first there, and not here.
    let is_turned = |a: usize, b: usize| {
        all[a].order > all[b].order && naturals[a] <= naturals[b] && meet(all[a].route, all[b].route)
    };
    let is_any = || (0..all.len()).any(|a| near.places(all[a].route).into_iter().any(|b| is_turned(a, b)));
    if !near.is_many() && !is_any() {
        return None;
    }
    let distinct: Vec<&[i64]> = all.iter().map(|it| it.order).collect::<BTreeSet<_>>().into_iter().collect();
    let rank = |order: &[i64]| distinct.binary_search(&order).expect("it is one of them") as i32;
    Some(all.iter().map(|it| rank(it.order)).collect())
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

#[cfg(test)]
mod tests {
    use quorumgate_model::resource::{Kind, Resource};
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::cli::config;

    fn route(number: usize, matches: &Json) -> Route {
        let words = json!({ "name": format!("r{number}"), "match": matches, "respond": { "status": 200 } });
        match config::resource(Kind::Route, words) {
            Ok(Resource::Route(route)) => (*route).clone(),
            other => panic!("{matches}: {other:?}"),
        }
    }

    #[test]
    fn all_that_meet_are_near() {
        let hosts: [&[&str]; 5] = [&[], &["a.test"], &["*.a.test"], &["*.test"], &["b.a.test", "c.test"]];
        let paths = [
            json!({}),
            json!({ "path_prefix": "/" }),
            json!({ "path_prefix": "/a" }),
            json!({ "path_prefix": "/a/b" }),
            json!({ "path_prefix": "/ab" }),
            json!({ "path_exact": "/a" }),
            json!({ "path_exact": "/a/b" }),
            json!({ "path_template": "/a/{id}" }),
            json!({ "path_regex": "/a/.*" }),
            json!({ "path_regex": "/(a|b)" }),
            json!({ "path_regex": "/a?b" }),
        ];
        let matches = hosts.iter().flat_map(|hosts| {
            paths.iter().map(move |path| {
                let mut matches = path.clone();
                if !hosts.is_empty() {
                    matches["hosts"] = json!(hosts);
                }
                matches
            })
        });
        let all: Vec<Route> = matches.enumerate().map(|(number, it)| route(number, &it)).collect();
        let near = Near::of(all.iter());
        for a in &all {
            let places = near.places(a);
            for (at, b) in all.iter().enumerate() {
                let goes_on = match &a.matches.path {
                    PathPattern::Prefix(prefix) => takes_beyond(prefix, &b.matches.path),
                    _ => false,
                };
                let may_meet = meet(a, b) || (goes_on && hosts_meet(&a.matches.hosts, &b.matches.hosts));
                assert!(!may_meet || places.contains(&at), "{:?}\n{:?}", a.matches, b.matches);
            }
        }
    }

    #[test]
    fn many_routes_that_do_not_meet_are_not_many() {
        let of_hosts = (0..3_100).map(|it| json!({ "hosts": [format!("h{it}.test")], "path_prefix": "/" }));
        let of_paths = (0..100).map(|it| json!({ "path_prefix": format!("/p{it}") }));
        let all: Vec<Route> = of_hosts.chain(of_paths).enumerate().map(|(number, it)| route(number, &it)).collect();
        let near = Near::of(all.iter());
        assert!(!near.is_many());
        assert_eq!(near.places(&all[0]).len(), 101);
        let ordered: Vec<Ordered<'_>> = all.iter().map(|route| Ordered { route, order: &[] }).collect();
        assert_eq!(priorities(&ordered), None);
        // All of one place.
        let all = vec![route(0, &json!({})); 3_001];
        assert!(Near::of(all.iter()).is_many());
    }
}
