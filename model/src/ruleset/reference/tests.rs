//! `find` against the reference, over a small world of routes and requests.

use std::{collections::BTreeMap, sync::LazyLock};

use proptest::{collection::vec, prelude::*, sample::select};
use regex::Regex;

use super::{
    super::{
        tests::{Headers, state_of},
        *,
    },
    Asked, path_order,
};
use crate::resource::{PathPattern, Route, RouteWords, arbitrary};

/// The regexes of `arbitrary`, each compiled once: compiling dominates otherwise.
fn whole_match(regex: &str, text: &str) -> bool {
    static COMPILED: LazyLock<BTreeMap<&str, Regex>> = LazyLock::new(|| {
        let compile = |text: &&'static str| (*text, Regex::new(&format!("^(?:{text})$")).unwrap());
        arbitrary::PATH_REGEXES.iter().chain([&arbitrary::VALUE_REGEX]).map(compile).collect()
    });
    COMPILED[regex].is_match(text)
}

fn reference(routes: &[Route], asked: &Asked<'_>) -> String {
    super::reference(routes, asked, whole_match)
}

fn with_view<T>(asked: &Asked<'_>, ask: impl FnOnce(&View<'_>) -> T) -> T {
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
        listener: asked.listener,
    })
}

fn found(rules: &Ruleset, asked: &Asked<'_>) -> String {
    with_view(asked, |view| match rules.find(view) {
        Found::Rule(rule) => rule.route.name.to_string(),
        Found::MethodNotAllowed(methods) => format!("405 {}", methods.join(",")),
        Found::NoRoute => "404".to_owned(),
    })
}

fn asked() -> impl Strategy<Value = Asked<'static>> {
    let fields = |names: &'static [&'static str]| vec((select(names), select(arbitrary::VALUES)), 0..3);
    let segments = vec(select(&["a", "b", "c", ""][..]), 1..4);
    let preflight = prop::bool::weighted(0.2);
    let sni = prop::option::of(select(&["a.t", "x.a.t", "t"][..]));
    let way_in = (sni, prop::option::of(select(arbitrary::LISTENERS)));
    (
        select(&["GET", "HEAD", "POST", "OPTIONS", "PUT"][..]),
        select(&["a.t", "b.t", "x.a.t", "y.x.a.t", "t", "z", ""][..]),
        segments,
        fields(&["x-v", "x-w"]),
        fields(&["q", "r"]),
        fields(&["c", "d"]),
        select(&["10.1.2.3", "192.168.0.1", "2001:db8::1"][..]),
        way_in,
        preflight,
    )
        .prop_map(|(method, host, segments, mut headers, query, cookies, ip, (sni, listener), preflight)| {
            if preflight {
                headers.extend([("origin", "o"), ("access-control-request-method", "GET")]);
            }
            let path = format!("/{}", segments.join("/"));
            Asked { method, host, path, headers, query, cookies, client_ip: ip.parse().unwrap(), sni, listener }
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
                        prop_assert!(!within || path_order(&own.path, &asked.path, whole_match).is_some(), "{:?} {:?}", it, own);
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
