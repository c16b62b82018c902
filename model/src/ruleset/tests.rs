//! Precedence, conditions, 405, HEAD and preflights as tables: routes, a line, requests with what becomes of them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::{
    digest::Digest,
    resource::{Route, Stored},
};

pub(super) type Headers = BTreeMap<String, Vec<String>>;

impl HeaderLookup for Headers {
    fn any(&self, name: &str, test: &mut dyn FnMut(&str) -> bool) -> bool {
        self.get(name).is_some_and(|values| values.iter().any(|value| test(value)))
    }
}

pub(super) fn state_of(routes: impl IntoIterator<Item = Route>) -> State {
    let mut state = State::default();
    for route in routes {
        let etag = Digest::of(serde_json::to_string(&route).unwrap().as_bytes());
        let resource = Resource::Route(Arc::new(route));
        state.resources.insert(resource.key(), Stored { resource, etag });
    }
    state
}

/// `name key=value …`, where a condition is `header=x-v:1` (exact), `x-v~a+` (regex), `x-v` (present) or `!x-v` (absent).
fn route(line: &str) -> Route {
    let mut words = line.split_whitespace();
    let mut matches = json!({ "hosts": [], "methods": [], "headers": [], "query": [], "cookies": [], "client_cidrs": [], "sni": [],
                "listeners": [] });
    let mut out = json!({ "name": words.next().unwrap(), "upstream": "u" });
    for word in words {
        let (key, value) = word.split_once('=').unwrap();
        match key {
            "priority" => out["priority"] = value.parse::<i32>().unwrap().into(),
            "prefix" | "exact" | "template" | "regex" => matches[format!("path_{key}")] = value.into(),
            "host" => matches["hosts"].as_array_mut().unwrap().push(value.into()),
            "method" => matches["methods"].as_array_mut().unwrap().push(value.into()),
            "cidr" => matches["client_cidrs"].as_array_mut().unwrap().push(value.into()),
            "sni" => matches["sni"].as_array_mut().unwrap().push(value.into()),
            "listener" => matches["listeners"].as_array_mut().unwrap().push(value.into()),
            "header" | "query" | "cookie" => {
                let list = if key == "cookie" { "cookies".into() } else { key.replace("header", "headers") };
                matches[list].as_array_mut().unwrap().push(condition(value));
            }
            _ => panic!("{word}"),
        }
    }
    out["match"] = matches;
    serde_json::from_value(out).unwrap()
}

fn condition(text: &str) -> Value {
    if let Some((name, value)) = text.split_once(':') {
        return json!({ "name": name, "exact": value });
    }
    if let Some((name, value)) = text.split_once('~') {
        return json!({ "name": name, "regex": value });
    }
    match text.strip_prefix('!') {
        Some(name) => json!({ "name": name, "absent": true }),
        None => json!({ "name": text, "present": true }),
    }
}

/// `METHOD host/path?query name:value … @sni by:listener`
fn with_request<T>(line: &str, ask: impl FnOnce(&View<'_>) -> T) -> T {
    let mut words = line.split_whitespace();
    let method = words.next().unwrap();
    let url = words.next().unwrap();
    let (url, query) = url.split_once('?').map_or((url, None), |(url, query)| (url, Some(query)));
    let (host, path) = url.split_at(url.find(['/', '*']).unwrap());
    let mut headers = Headers::new();
    let (mut sni, mut listener, mut client_ip) = (None, None, [127, 0, 0, 1].into());
    for word in words {
        match word.split_once(':') {
            Some(("by", name)) => listener = Some(name),
            Some(("ip", ip)) => client_ip = ip.parse().unwrap(),
            Some((name, value)) => headers.entry(name.to_owned()).or_default().push(value.replace('+', " ")),
            None => sni = word.strip_prefix('@'),
        }
    }
    ask(&View { method, host, path, query, headers: &headers, client_ip, sni, listener })
}

fn answer(rules: &Ruleset, request: &str) -> String {
    with_request(request, |view| match rules.find(view) {
        Found::Rule(rule) => rule.route.name.to_string(),
        Found::MethodNotAllowed(methods) => format!("405 {}", methods.join(",")),
        Found::NoRoute => "404".to_owned(),
    })
}

fn fixture(text: &str) -> (Ruleset, Vec<&str>) {
    let (routes, requests) = text.split_once("---").unwrap();
    let lines = |text| str::lines(text).map(str::trim).filter(|line| !line.is_empty());
    (Ruleset::compile(&state_of(lines(routes).map(route)), None), lines(requests).collect())
}

#[track_caller]
fn check(text: &str) {
    let (rules, requests) = fixture(text);
    for line in requests {
        let (request, expected) = line.split_once(" -> ").unwrap();
        assert_eq!(answer(&rules, request), expected.trim(), "{request}");
    }
}

#[test]
fn the_most_specific_host_wins_and_others_are_asked_when_its_paths_do_not_match() {
    check(
        "any      prefix=/
         wide     host=*.test prefix=/
         long     host=*.shop.test prefix=/
         exact    host=api.shop.test prefix=/orders
         two      host=one.test host=two.test host=*.two.test exact=/two
         ---
         GET api.shop.test/orders      -> exact
         GET api.shop.test/orders/1    -> exact
         GET api.shop.test/other       -> long
         GET a.b.shop.test/orders      -> long
         GET shop.test/orders          -> wide
         GET .shop.test/               -> wide
         GET api.shop.test./orders     -> exact
         GET test/                     -> any
         GET xtest/                    -> any
         GET /                         -> any
         GET one.test/two              -> two
         GET two.test/two              -> two
         GET x.two.test/two            -> two
         GET x.one.test/two            -> wide",
    );
}

#[test]
fn a_route_of_some_listeners_takes_nothing_that_comes_in_by_others() {
    check(
        "all      prefix=/
         one      prefix=/ header=x listener=a
         both     prefix=/b listener=a listener=b
         ---
         GET h/  by:a x:1              -> one
         GET h/  by:b x:1              -> all
         GET h/  x:1                   -> all
         GET h/b by:b                  -> both
         GET h/b by:c                  -> all
         GET h/b                       -> all",
    );
}

#[test]
fn paths_go_exact_then_template_then_longest_prefix_then_regex_then_none() {
    check(
        "none
         regex    regex=/.*
         root     prefix=/r
         short    prefix=/a
         long     prefix=/a/b
         params   template=/{x}/{y}/{z}
         literal  template=/a/{y}/c
         exact    exact=/a/b/c
         slash    exact=/a/
         top      exact=/
         ---
         GET h/a/b/c    -> exact
         GET h/a/x/c    -> literal
         GET h/a/x/d    -> params
         GET h/a/b/     -> long
         GET h/a/b      -> long
         GET h/a/bb     -> short
         GET h/a/b/c/d  -> long
         GET h/a        -> short
         GET h/a/       -> slash
         GET h/ab       -> regex
         GET h/r        -> root
         GET h/rr       -> regex
         GET h/         -> top
         GET h/x//z     -> regex
         GET h/x/y/     -> regex
         OPTIONS h*     -> none",
    );
}

#[test]
fn a_regex_matches_the_whole_path() {
    check(
        "numbers  regex=/n/[0-9]+
         either   regex=/x|/y/z
         tree     regex=/t(/.*)?
         ---
         GET h/n/12    -> numbers
         GET h/n/12a   -> 404
         GET h/m/n/12  -> 404
         GET h/x       -> either
         GET h/x/z     -> 404
         GET h/y/z     -> either
         GET h/t       -> tree
         GET h/t/u/v   -> tree
         GET h/tt      -> 404",
    );
}

#[test]
fn equal_paths_go_by_method_then_headers_then_query_then_name() {
    check(
        "b-any     prefix=/p
         a-any     prefix=/p cookie=c:1
         method    prefix=/p method=POST
         headers   prefix=/p header=x-a header=x-b
         header    prefix=/p header=x-a query=q query=r
         queries   prefix=/p query=q query=r
         query     prefix=/p query=q
         ---
         GET h/p                        -> b-any
         GET h/p cookie:c=1             -> a-any
         GET h/p cookie:b=2;+c=1        -> a-any
         POST h/p x-a:1 x-b:1           -> method
         GET h/p x-a:1 x-b:1            -> headers
         GET h/p?q&r x-a:1              -> header
         GET h/p?q=1&r=2                -> queries
         GET h/p?q=1                    -> query
         GET h/p x-b:1                  -> b-any",
    );
}

#[test]
fn priority_beats_everything() {
    check(
        "exact    host=a.test exact=/a/b method=GET header=x-a priority=-1
         low      prefix=/a
         high     regex=/a/b.* priority=7
         ---
         GET a.test/a/b x-a:1 -> high
         GET a.test/a/c x-a:1 -> low
         GET a.test/a/bb      -> high",
    );
}

#[test]
fn a_condition_that_fails_leaves_the_request_to_the_next_route() {
    check(
        "v2       prefix=/ header=x-v:2 header=x-w header=x-z header=x-y
         regex    prefix=/ header=x-r~a+ header=x-w header=x-z
         absent   prefix=/ header=!x-old header=x-w
         query    prefix=/ query=a+b:c query=d~[0-9]+ query=!e
         cidr     prefix=/ cidr=10.0.0.0/8 header=x-net
         sni      prefix=/ sni=*.acme.test header=x-sni
         rest     prefix=/
         ---
         GET h/ x-v:1 x-v:2 x-w:1 x-z:1 x-y:1 -> v2
         GET h/ x-r:aaa x-w:1 x-z:1           -> regex
         GET h/ x-r:aab x-w:1 x-z:1           -> absent
         GET h/ x-r:aaa x-old:1 x-w:1         -> rest
         GET h/?a%20b=c&d=12                  -> rest
         GET h/?a%2Bb=c&d=12                  -> query
         GET h/?a%2bb=%63&d=x&d=12            -> query
         GET h/?a%2Bb=c&d=12&e                -> rest
         GET h/?a%2Bb=c&d=%FF                 -> rest
         GET h/ x-net:1 ip:10.1.2.3           -> cidr
         GET h/ x-net:1 ip:::ffff:10.1.2.3    -> cidr
         GET h/ x-net:1 ip:11.1.2.3           -> rest
         GET h/ x-sni:1 @API.acme.test        -> sni
         GET h/ x-sni:1 @acme.test            -> rest
         GET h/ x-sni:1                       -> rest",
    );
}

#[test]
fn no_method_is_405_with_all_that_are_allowed_whatever_the_conditions() {
    check(
        "get      host=*.test prefix=/a method=GET
         put      prefix=/a/b method=PUT header=x-never:1
         post     exact=/c method=POST header=x-never:1
         ---
         DELETE a.test/a/b  -> 405 GET,HEAD,PUT
         DELETE a.test/a    -> 405 GET,HEAD
         DELETE other/a     -> 404
         DELETE other/a/b   -> 405 PUT
         PUT a.test/a/b     -> 404
         PUT other/a/b      -> 404
         POST other/c       -> 404
         GET other/c        -> 405 POST
         get a.test/a       -> 405 GET,HEAD
         OPTIONS a.test/a   -> 405 GET,HEAD",
    );
}

#[test]
fn head_goes_where_get_goes_unless_a_route_names_it() {
    check(
        "get      prefix=/a method=GET header=x-a
         head     prefix=/a method=HEAD
         any      prefix=/a
         deeper   prefix=/a/b method=GET
         ---
         GET h/a x-a:1   -> get
         HEAD h/a x-a:1  -> head
         HEAD h/a        -> head
         HEAD h/a/b      -> deeper
         POST h/a        -> any",
    );
}

#[test]
fn a_preflight_is_matched_by_the_method_it_asks_for() {
    check(
        "put      prefix=/a method=PUT header=authorization cookie=session
         options  prefix=/a method=OPTIONS
         query    prefix=/q method=GET query=k
         ---
         OPTIONS h/a origin:x access-control-request-method:PUT     -> put
         OPTIONS h/a origin:x access-control-request-method:DELETE  -> 405 OPTIONS,PUT
         OPTIONS h/a origin:x                                       -> options
         OPTIONS h/a access-control-request-method:PUT              -> options
         OPTIONS h/q origin:x access-control-request-method:HEAD    -> 404
         OPTIONS h/q?k origin:x access-control-request-method:HEAD  -> query
         PUT h/a                                                    -> 404",
    );
}

#[track_caller]
fn check_reasons(text: &str) {
    let (rules, requests) = fixture(text);
    for line in requests {
        let (request, expected) = line.split_once(" -> ").unwrap();
        let explanation = with_request(request, |view| rules.explain(view));
        let beaten = explanation.beaten.iter().map(|it| format!("{}: {}", it.route, it.why));
        let missed = explanation.near_misses.iter().map(|it| format!("~{}: {}", it.route, it.why));
        let winner = explanation.winner.iter().map(ToString::to_string);
        assert_eq!(winner.chain(beaten).chain(missed).collect::<Vec<_>>().join(" | "), expected.trim());
    }
}

#[test]
fn an_explanation_says_why_each_other_route_lost() {
    check_reasons(
        "orders   host=a.test prefix=/orders
         ---
         GET a.test/x -> ~orders: path /x is not under the prefix /orders",
    );
    check_reasons(
        "orders   prefix=/orders/new
         short    prefix=/orders
         post     exact=/orders/new method=POST
         header   prefix=/orders/new header=x-v:2
         other    exact=/x
         third    prefix=/orders/new cookie=!c
         ---
         GET h/orders/new -> orders | third: all else is equal to orders, and its name comes after | short: path prefix is shorter than that of orders | ~post: method GET is not among POST | ~header: header x-v is not \"2\" | ~other: path /orders/new is not /x",
    );
    check_reasons(
        "a  host=a.test exact=/p method=GET priority=1
         b  host=a.test exact=/p
         c  host=*.test exact=/p priority=1
         d  exact=/p priority=1
         e  host=a.test template=/{p} priority=1
         f  host=a.test exact=/p priority=1
         ---
         GET a.test/p -> a | f: it takes every method, a names this one | e: a path template goes after an exact path of a | c: its host wildcard is less specific than the host of a | d: it takes every host, a names this one | b: priority 0 is below 1 of a",
    );
}

#[test]
fn an_explanation_is_bounded() {
    let routes = (0..100).map(|n| route(&format!("r{n:03} prefix=/ header=x-{n}:1")));
    let rules = Ruleset::compile(&state_of(routes), None);
    let explanation = with_request("GET h/", |view| rules.explain(view));
    assert_eq!((explanation.winner, explanation.near_misses.len()), (None, BEATEN_MAX));
}

#[test]
fn a_route_that_cannot_be_compiled_still_takes_what_it_can() {
    let mut header = route("header prefix=/a header=x-a:1");
    header.matches.headers[0].test = crate::resource::FieldTest::Regex("(".into());
    let mut path = route("path host=b.test");
    path.matches.path = crate::resource::PathPattern::Regex("(".into());
    let rules = Ruleset::compile(&state_of([header, path, route("rest"), route("exact exact=/e")]), None);
    for (request, expected) in
        [("GET h/a", "header"), ("GET h/b", "rest"), ("GET b.test/b", "path"), ("GET b.test/e", "path")]
    {
        assert_eq!(answer(&rules, request), expected, "{request}");
    }
    let broken: Vec<&str> = rules.rules.values().filter_map(|rule| rule.broken.as_deref()).collect();
    assert!(broken[0].starts_with("match.headers[0].regex: found \"(\"; allowed: "), "{broken:?}");
    assert!(broken[1].starts_with("match.path_regex: found \"(\"; allowed: "), "{broken:?}");
}

#[test]
fn params_are_the_segments_of_the_path() {
    let rules = Ruleset::compile(&state_of([route("r template=/o/{id}/i/{item}")]), None);
    let rule = &rules.rules["r"];
    assert_eq!(rule.params("/o/7/i/a%20b").collect::<Vec<_>>(), [("id", "7"), ("item", "a%20b")]);
}

#[test]
fn the_same_match_set_is_known_in_whatever_order_it_is_written() {
    let same = |a: &str, b: &str| {
        let (a, b) = (route(a), route(b));
        let state = state_of([a.clone(), b.clone()]);
        let found = same_match(&state.resources, &a).is_some();
        assert_eq!(found, match_fingerprint(&a) == match_fingerprint(&b));
        found
    };
    assert!(same("a host=x.test host=y.test method=GET method=PUT", "b host=y.test host=x.test method=PUT method=GET"));
    assert!(same("a header=x:1 header=y", "b header=y header=X:1"));
    assert!(same("a template=/{id}/x", "b template=/{name}/x"));
    assert!(same("a", "b prefix=/"));
    assert!(same("a prefix=/a", "b prefix=/a/"));
    assert!(!same("a", "b priority=1"));
    assert!(!same("a header=x:1", "b query=x:1"));
    assert!(!same("a header=x:1", "b header=x~1"));
    assert!(!same("a prefix=/a", "b exact=/a"));
    assert!(!same("a host=x.test", "b sni=x.test"));
    assert!(!same("a method=GET", "b"));
}
