//! Look-ups among ten thousand mixed routes, and what compiling them costs: from scratch, and after one change.
//!
//! divan shows the mean of many; below it come percentiles over look-ups that were timed one by one, with the cost of
//! reading the clock beside them (it is part of every figure). A request is copied before its look-up is timed: it comes
//! from the cache, as one does that was parsed a moment ago; the routes come from wherever they are. `cargo bench -p quorumgate-model`
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a benchmark reads the clock")]

use std::{hint::black_box, sync::Arc, time::Instant};

use divan::Bencher;
use quorumgate_model::{
    digest::Digest,
    resource::{Resource, Route, Stored},
    ruleset::{Found, HeaderLookup, Ruleset, View},
    state::State,
};

const ROUTES: usize = 10_000;
/// Hosts that share the routes, besides those of wildcards and of every host.
const HOSTS: usize = 1_000;
const TIMED: usize = 1_000_000;
const COMPILES: usize = 20;

fn main() {
    percentiles();
    divan::main();
}

#[derive(Clone)]
struct Headers(Vec<(&'static str, String)>);

impl HeaderLookup for Headers {
    fn any(&self, name: &str, test: &mut dyn FnMut(&str) -> bool) -> bool {
        self.0.iter().any(|(other, value)| *other == name && test(value))
    }
}

#[derive(Clone)]
struct Request {
    method: &'static str,
    host: String,
    path: String,
    headers: Headers,
}

impl Request {
    fn view(&self) -> View<'_> {
        View {
            method: self.method,
            host: &self.host,
            path: &self.path,
            query: Some("page=2&size=10"),
            headers: &self.headers,
            client_ip: [10, 1, 2, 3].into(),
            sni: None,
            listener: None,
        }
    }
}

/// A tenth takes every host, a tenth a wildcard, the rest share the hosts. Of ten paths five are prefixes, two exact,
/// two templates; one in twenty names a header, one in a hundred is a regex.
fn route(n: usize) -> Route {
    let host = match n % 10 {
        0 => "[]".to_owned(),
        1 => format!(r#"["*.w{}.example.test"]"#, n % 97),
        _ => format!(r#"["h{}.example.test"]"#, n % HOSTS),
    };
    let path = match n / HOSTS {
        _ if n % 100 == 99 => format!(r#""path_regex": "/r{n}/[0-9]+""#),
        0..=4 => format!(r#""path_prefix": "/svc{n}/api/v1""#),
        5 | 6 => format!(r#""path_exact": "/svc{n}/health""#),
        _ => format!(r#""path_template": "/svc{n}/orders/{{id}}/items/{{item}}""#),
    };
    let headers = match n % 20 {
        3 => r#"[{"name": "x-version", "exact": "2"}]"#,
        _ => "[]",
    };
    let words = format!(
        r#"{{"name": "route-{n}", "upstream": "u", "match": {{"hosts": {host}, {path}, "headers": {headers}}}}}"#
    );
    serde_json::from_str(&words).expect("the words of a route")
}

/// A request for every route, and for every tenth one that none takes.
fn requests(routes: &[Route]) -> Vec<Request> {
    let mut out = Vec::new();
    for n in 0..routes.len() {
        let host = match n % 10 {
            0 => format!("h{}.example.test", n % HOSTS),
            1 => format!("eu.a.w{}.example.test", n % 97),
            _ => format!("h{}.example.test", n % HOSTS),
        };
        let path = match n / HOSTS {
            _ if n % 100 == 99 => format!("/r{n}/4711"),
            _ if n % 10 == 7 => format!("/none{n}/api"),
            0..=4 => format!("/svc{n}/api/v1/customers/17/addresses"),
            5 | 6 => format!("/svc{n}/health"),
            _ => format!("/svc{n}/orders/8c7d/items/42"),
        };
        let headers = [("accept", "*/*"), ("user-agent", "bench"), ("x-version", "2"), ("x-request-id", "0")];
        let headers = Headers(headers.map(|(name, value)| (name, value.to_owned())).into());
        out.push(Request { method: "GET", host, path, headers });
    }
    // One after another would find the neighbour's branch in the cache: a stride that is prime to the length mixes them.
    let mut mixed: Vec<Request> = Vec::new();
    let mut rest: Vec<Option<Request>> = out.into_iter().map(Some).collect();
    for step in 0..rest.len() {
        let place = step * 7_919 % rest.len();
        mixed.extend(rest[place].take());
    }
    mixed
}

fn stored(route: Route) -> Stored {
    let etag = Digest::of(serde_json::to_string(&route).expect("routes have words").as_bytes());
    Stored { resource: Resource::Route(Arc::new(route)), etag }
}

fn state() -> State {
    let mut state = State::default();
    for stored in (0..ROUTES).map(|n| stored(route(n))) {
        state.resources.insert(stored.resource.key(), stored);
    }
    state
}

/// The same state with another path in one route.
fn changed(state: &State, round: usize) -> State {
    let mut next = state.clone();
    let mut route = route(5_678);
    route.description = format!("round {round}");
    let stored = stored(route);
    next.resources.insert(stored.resource.key(), stored);
    next
}

fn show(what: &str, mut nanos: Vec<u64>) {
    nanos.sort_unstable();
    let at = |share: f64| nanos[((nanos.len() - 1) as f64 * share) as usize];
    println!(
        "{what}: n {}  p50 {} ns  p90 {} ns  p99 {} ns  p99.9 {} ns  max {} ns",
        nanos.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}

fn timed<T>(run: impl FnOnce() -> T) -> (u64, T) {
    let start = Instant::now();
    let out = run();
    (start.elapsed().as_nanos() as u64, out)
}

fn percentiles() {
    let state = state();
    let rules = Ruleset::compile(&state, None);
    let routes: Vec<Route> = (0..ROUTES).map(route).collect();
    let requests = requests(&routes);
    let found = requests.iter().filter(|it| matches!(rules.find(&it.view()), Found::Rule(_))).count();
    println!("{ROUTES} routes, {found} of {} requests find one", requests.len());

    show("reading the clock    ", (0..TIMED).map(|_| timed(|| ()).0).collect());
    let lookup = |request: &Request| {
        let request = black_box(request.clone());
        timed(|| black_box(rules.find(&request.view()))).0
    };
    show("look-up              ", requests.iter().cycle().take(TIMED).map(lookup).collect());
    let afresh = (0..COMPILES).map(|_| timed(|| Ruleset::compile(&state, None)).0);
    show("compile from scratch ", afresh.collect());
    let one = (0..COMPILES * 50).map(|round| {
        let next = changed(&state, round);
        timed(|| Ruleset::compile(&next, Some(&rules))).0
    });
    show("compile one change   ", one.collect());
}

#[divan::bench(sample_size = 1_000)]
fn find(bencher: Bencher) {
    let state = state();
    let rules = Ruleset::compile(&state, None);
    let routes: Vec<Route> = (0..ROUTES).map(route).collect();
    let requests = requests(&routes);
    let mut turns = requests.iter().cycle();
    bencher.bench_local(|| {
        let request = turns.next().expect("a cycle does not end");
        matches!(rules.find(black_box(&request.view())), Found::Rule(_))
    });
}

#[divan::bench(sample_count = 20)]
fn compile_from_scratch(bencher: Bencher) {
    let state = state();
    bencher.bench_local(|| Ruleset::compile(black_box(&state), None));
}

#[divan::bench]
fn compile_one_change(bencher: Bencher) {
    let state = state();
    let rules = Ruleset::compile(&state, None);
    let next = changed(&state, 0);
    bencher.bench_local(|| Ruleset::compile(black_box(&next), Some(&rules)));
}
