//! `find` against a matcher that asks every route and sorts: slow, obvious, and written from the documentation.

use std::{cmp::Reverse, collections::BTreeMap, sync::LazyLock};

use proptest::{collection::vec, prelude::*, sample::select};
use regex::Regex;

use super::{
    tests::{Headers, state_of},
    *,
};
use crate::resource::{FieldMatch, FieldTest, Match, PathPattern, Route, RouteWords, arbitrary};

/// What the reference reads instead of text: names and values as they are after decoding.
#[derive(Debug, Clone)]
struct Asked {
    method: &'static str,
    host: &'static str,
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    query: Vec<(&'static str, &'static str)>,
    cookies: Vec<(&'static str, &'static str)>,
    client_ip: IpAddr,
    sni: Option<&'static str>,
}

impl Asked {
    fn asked_method(&self) -> Option<&'static str> {
        let header = |name: &str| self.headers.iter().find(|(other, _)| *other == name).map(|(_, value)| *value);
        let method = header("access-control-request-method");
        method.filter(|_| self.method == "OPTIONS" && header("origin").is_some())
    }
}

/// The regexes of `arbitrary`, each compiled once: compiling dominates otherwise.
fn whole_match(regex: &str, text: &str) -> bool {
    static COMPILED: LazyLock<BTreeMap<&str, Regex>> = LazyLock::new(|| {
        let compile = |text: &&'static str| (*text, Regex::new(&format!("^(?:{text})$")).unwrap());
        arbitrary::PATH_REGEXES.iter().chain([&arbitrary::VALUE_REGEX]).map(compile).collect()
    });
    COMPILED[regex].is_match(text)
}

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

fn path_order(pattern: &PathPattern, path: &str) -> Option<(u8, Reverse<usize>)> {
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

fn fields_hold(conditions: &[FieldMatch], given: &[(&str, &str)]) -> bool {
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

fn conditions_hold(matches: &Match, asked: &Asked) -> bool {
    let preflight = asked.asked_method().is_some();
    let sni = |sni: &str| matches.sni.iter().any(|host| host_order(&[host.to_string()], sni).is_some());
    let carried = fields_hold(&matches.headers, &asked.headers) && fields_hold(&matches.cookies, &asked.cookies);
    (preflight || carried)
        && fields_hold(&matches.query, &asked.query)
        && (matches.client_cidrs.is_empty() || matches.client_cidrs.iter().any(|net| net.contains(&asked.client_ip)))
        && (matches.sni.is_empty() || asked.sni.is_some_and(sni))
}

fn reference(routes: &[Route], asked: &Asked) -> String {
    let method = asked.asked_method().unwrap_or(asked.method);
    let mut best: Option<Order> = None;
    let mut reached: Vec<&Route> = Vec::new();
    for route in routes {
        let matches = &route.matches;
        let hosts: Vec<String> = matches.hosts.iter().map(ToString::to_string).collect();
        let (Some(host), Some(path)) = (host_order(&hosts, asked.host), path_order(&matches.path, &asked.path)) else {
            continue;
        };
        reached.push(route);
        let Some(method) = method_order(&matches.methods, method) else { continue };
        if conditions_hold(matches, asked) {
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

fn with_view<T>(asked: &Asked, ask: impl FnOnce(&View<'_>) -> T) -> T {
    let mut headers = Headers::new();
    for (name, value) in &asked.headers {
        headers.entry((*name).to_owned()).or_default().push((*value).to_owned());
    }
    for (name, value) in &asked.cookies {
        headers.entry("cookie".to_owned()).or_default().push(format!("other=0; {name}={value}"));
    }
    let pairs: Vec<String> = asked.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let query = pairs.join("&");
    ask(&View {
        method: asked.method,
        host: asked.host,
        path: &asked.path,
        query: Some(&*query).filter(|query| !query.is_empty()),
        headers: &headers,
        client_ip: asked.client_ip,
        sni: asked.sni,
    })
}

fn found(rules: &Ruleset, asked: &Asked) -> String {
    with_view(asked, |view| match rules.find(view) {
        Found::Rule(rule) => rule.route.name.to_string(),
        Found::MethodNotAllowed(methods) => format!("405 {}", methods.join(",")),
        Found::NoRoute => "404".to_owned(),
    })
}

fn asked() -> impl Strategy<Value = Asked> {
    let fields = |names: &'static [&'static str]| vec((select(names), select(arbitrary::VALUES)), 0..3);
    let segments = vec(select(&["a", "b", "c", ""][..]), 1..4);
    let preflight = prop::bool::weighted(0.2);
    let sni = prop::option::of(select(&["a.t", "x.a.t", "t"][..]));
    (
        select(&["GET", "HEAD", "POST", "OPTIONS", "PUT"][..]),
        select(&["a.t", "b.t", "x.a.t", "y.x.a.t", "t", "z", ""][..]),
        segments,
        fields(&["x-v", "x-w"]),
        fields(&["q", "r"]),
        fields(&["c", "d"]),
        select(&["10.1.2.3", "192.168.0.1", "2001:db8::1"][..]),
        sni,
        preflight,
    )
        .prop_map(|(method, host, segments, mut headers, query, cookies, ip, sni, preflight)| {
            if preflight {
                headers.extend([("origin", "o"), ("access-control-request-method", "GET")]);
            }
            let path = format!("/{}", segments.join("/"));
            Asked { method, host, path, headers, query, cookies, client_ip: ip.parse().unwrap(), sni }
        })
}

/// Routes over a small world, so that many of them meet at one request; the names are their places.
fn routes() -> impl Strategy<Value = Vec<Route>> {
    vec(arbitrary::match_words(), 0..14).prop_map(|matches| {
        let words = matches.into_iter().enumerate().map(|(place, (priority, matches))| RouteWords {
            priority,
            matches,
            ..arbitrary::plain_words(&format!("r{place:02}"))
        });
        words.map(|words| Route::try_from(words).unwrap()).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_finds_what_asking_every_route_finds(routes in routes(), requests in vec(asked(), 12)) {
        let rules = Ruleset::compile(&state_of(routes.clone()), None);
        for asked in &requests {
            prop_assert_eq!(found(&rules, asked), reference(&routes, asked), "{:?}", asked);
            let explained = with_view(asked, |view| rules.explain(view));
            let told = explained.winner.as_ref().map(ToString::to_string);
            prop_assert_eq!(told, Some(found(&rules, asked)).filter(|it| it.starts_with('r')));
            let all = || explained.beaten.iter().chain(&explained.near_misses);
            let named: BTreeSet<&str> = all().map(|it| &*it.route).collect();
            prop_assert_eq!(named.len(), all().count());
            for beaten in &explained.beaten {
                let alone: Vec<_> = routes.iter().filter(|it| it.name == beaten.route).cloned().collect();
                prop_assert_eq!(reference(&alone, asked), beaten.route.to_string(), "it matches by itself");
            }
        }
    }

    #[test]
    fn routes_that_take_one_request_are_said_to_meet(routes in routes(), requests in vec(asked(), 12)) {
        use crate::change::overlap::{Pairs, path_within, paths_meet};
        for asked in &requests {
            let takes = |it: &&Route| reference(std::slice::from_ref(*it), asked) == it.name.to_string();
            let taking: Vec<_> = routes.iter().filter(takes).collect();
            for (a, b) in taking.iter().flat_map(|a| taking.iter().map(move |b| (&a.matches, &b.matches))) {
                prop_assert!(paths_meet(&a.path, &b.path), "{:?} {:?}: {:?}", a, b, asked);
                prop_assert!(Pairs::default().hosts_meet(&a.hosts, &b.hosts).unwrap(), "{:?} {:?}: {:?}", a, b, asked);
            }
            // What is within something else takes nothing outside of it.
            for it in &taking {
                for owner in &routes {
                    let (own, hosts) = (&owner.matches, &it.matches.hosts);
                    let inside = !hosts.is_empty() && !own.hosts.is_empty()
                        && Pairs::default().stray(hosts, &own.hosts).unwrap().is_none();
                    prop_assert!(!inside || own.hosts.iter().any(|host| host.takes(asked.host)), "{:?} {:?}", it, own);
                    if let PathPattern::Prefix(prefix) = &own.path {
                        let within = path_within(&it.matches.path, std::slice::from_ref(prefix));
                        prop_assert!(!within || path_order(&own.path, &asked.path).is_some(), "{:?} {:?}", it, own);
                    }
                }
            }
        }
    }

    #[test]
    fn a_ruleset_that_follows_changes_is_the_one_compiled_afresh(
        first in routes(), second in routes(), requests in vec(asked(), 8),
    ) {
        let mut rules = Ruleset::compile(&state_of(first.clone()), None);
        for routes in [&second, &first, &Vec::new(), &second] {
            let state = state_of(routes.clone());
            rules = Ruleset::compile(&state, Some(&rules));
            prop_assert_eq!(rules.rules.len(), routes.len());
            for asked in &requests {
                prop_assert_eq!(found(&rules, asked), reference(routes, asked), "{:?}", asked);
            }
        }
        let empty = Ruleset::compile(&State::default(), Some(&rules));
        prop_assert_eq!(format!("{:?}", empty), format!("{:?}", Ruleset::default()));
    }
}
