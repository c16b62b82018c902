//! Documents of each gateway: what they come to, that it is valid, and which route takes a request then.

mod closed;
mod details;
mod reviewed;

use std::path::{Path, PathBuf};

use quorumgate_model::{
    change,
    resource::{Resource, Route},
    ruleset::{Found, HeaderLookup, Ruleset, View},
    state::State,
};

use super::*;
use crate::cli::convert::report::Told;

const CHAIN: &str = include_str!("../../../../../examples/files/acme.pem");
const KEY: &str = include_str!("../../../../../examples/files/acme.key");

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/convert/tests")
}

/// A fixture, with a certificate that there is.
fn fixture(name: &str) -> String {
    let text = std::fs::read_to_string(folder().join(name)).unwrap();
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    text.replace("@CHAIN@", &quoted(CHAIN))
        .replace("@KEY@", &quoted(KEY))
        .replace("@PLAIN_KEY@", &quoted(&format!("plain:{KEY}")))
}

fn source(name: &str, text: &str) -> Source {
    Source { name: name.into(), path: None, text: text.into() }
}

fn convert(from: ConvertFrom, text: &str) -> (Vec<Resource>, Reported) {
    converted(from, vec![source("theirs.yaml", text)], &[]).unwrap_or_else(|failure| panic!("{failure}\n{text}"))
}

#[track_caller]
fn refused(from: ConvertFrom, text: &str, mentions: &[&str]) {
    let failure = converted(from, vec![source("theirs.yaml", text)], &[]).map(|(it, _)| it).expect_err("it is refused");
    for mention in mentions {
        assert!(failure.to_string().contains(mention), "{mention} is not in: {failure}");
    }
}

fn routes(resources: &[Resource]) -> Vec<&Route> {
    fn route(it: &Resource) -> Option<&Route> {
        match it {
            Resource::Route(route) => Some(route),
            _ => None,
        }
    }
    resources.iter().filter_map(route).collect()
}

#[track_caller]
fn route<'r>(resources: &'r [Resource], name: &str) -> &'r Route {
    let all = routes(resources);
    let names: Vec<&str> = all.iter().map(|it| &*it.name).collect();
    all.iter().copied().find(|it| &*it.name == name).unwrap_or_else(|| panic!("{name} is not one of {names:?}"))
}

fn told(reported: &Reported) -> String {
    reported.lines.iter().map(|it| format!("{it}\n")).collect()
}

#[track_caller]
fn says(reported: &Reported, mentions: &[&str]) {
    let told = told(reported);
    for mention in mentions {
        assert!(told.contains(mention), "{mention:?} is not in:\n{told}");
    }
}

struct Fields<'a>(&'a [(&'a str, &'a str)]);

impl HeaderLookup for Fields<'_> {
    fn any(&self, name: &str, test: &mut dyn FnMut(&str) -> bool) -> bool {
        self.0.iter().any(|(known, value)| *known == name && test(value))
    }
}

/// The gateway itself: which route takes a request.
struct Compiled(Ruleset);

impl Compiled {
    fn of(resources: &[Resource]) -> Self {
        let mut state = State { revision: 1, index: 1, ..State::default() };
        for it in resources {
            state.resources.insert(it.key(), change::stored(it.clone()));
        }
        Self(Ruleset::compile(&state, None))
    }

    fn ask(&self, method: &str, host: &str, path: &str, headers: &[(&str, &str)], listener: Option<&str>) -> String {
        let fields = Fields(headers);
        let view = View {
            method,
            host,
            path,
            query: None,
            headers: &fields,
            client_ip: [127, 0, 0, 1].into(),
            sni: None,
            listener,
        };
        match self.0.find(&view) {
            Found::Rule(rule) => rule.route.name.to_string(),
            _ => "none".into(),
        }
    }
}

fn shown(resources: &[Resource]) -> String {
    canonical::file(resources.iter()).unwrap()
}

/// The objects of the expected file, whatever order and defaults it is written in. QUORUMGATE_BLESS=1 writes it.
#[track_caller]
fn expect(name: &str, resources: &[Resource]) {
    if std::env::var_os("QUORUMGATE_BLESS").is_some() {
        std::fs::write(folder().join(name), shown(resources)).unwrap();
        return;
    }
    let expected = Config::parse(vec![source(name, &fixture(name))]).unwrap_or_else(|failure| panic!("{failure}"));
    let expected: Vec<Resource> = expected.resources().cloned().collect();
    assert_eq!(shown(resources), shown(&expected));
}

#[test]
fn a_document_of_kong_becomes_what_the_file_says() {
    let (resources, reported) = convert(ConvertFrom::Kong, &fixture("kong.yaml"));
    expect("kong.expected.yaml", &resources);
    says(
        &reported,
        &[
            "closed: theirs.yaml:",
            "services[legacy].routes[legacy].plugins[acme-gate]: it is not known here",
            "left out: theirs.yaml:71: upstreams[users-upstream].targets[2]: it has no weight",
            "made_of_words: found 7; it is not known here",
            "quorumgate key create alice --key-file F",
            "quorumgate key create bob --basic-user NAME --password-file F",
            "plugins[prometheus]: built in, nothing to convert",
            "it is called bob",
            "each route has a priority",
        ],
    );
    assert!(!told(&reported).contains("s3cret"), "{}", told(&reported));
    assert!(!told(&reported).contains("PRIVATE KEY"), "{}", told(&reported));
    let gateway = Compiled::of(&resources);
    for (method, host, path, expected) in [
        ("GET", "api.shop.test", "/orders/7", "orders-public"),
        ("POST", "api.shop.test", "/orders/7", "none"),
        ("POST", "admin.shop.test", "/orders/7", "orders-admin"),
        ("GET", "api.shop.test", "/users/7", "user"),
        ("GET", "api.shop.test", "/users/me", "users"),
        ("GET", "other.test", "/legacy/x", "legacy"),
        ("GET", "other.test", "/users", "none"),
    ] {
        assert_eq!(gateway.ask(method, host, path, &[], None), expected, "{method} {host}{path}");
    }
}

#[test]
fn a_document_of_apisix_becomes_what_the_file_says() {
    let (resources, reported) = convert(ConvertFrom::Apisix, &fixture("apisix.yaml"));
    expect("apisix.expected.yaml", &resources);
    says(
        &reported,
        &[
            "routes[r5].plugins.openid-connect: it is not known here",
            "routes[r6].vars: the condition [server_port, >, …] cannot be said here, and the route is left out",
            "routes[r7]: it is not enabled",
            "stream_routes: it is not known here",
            "quorumgate key create alice --key-file F",
            "global_rules[1].plugins.prometheus: built in",
        ],
    );
    assert!(!told(&reported).contains("s3cret"), "{}", told(&reported));
    let gateway = Compiled::of(&resources);
    for (host, path, headers, expected) in [
        ("api.shop.test", "/orders/7", &[][..], "orders"),
        ("api.shop.test", "/orders/status", &[], "r2"),
        ("other.test", "/canary/x", &[], "r3"),
        ("other.test", "/canary/x", &[("x-canary", "1")], "r3.2"),
        ("other.test", "/old/x", &[], "r4"),
        ("other.test", "/legacy/x", &[], "r5"),
        ("other.test", "/orders/7", &[], "none"),
    ] {
        assert_eq!(gateway.ask("GET", host, path, headers, None), expected, "{host}{path}");
    }
}

#[test]
fn manifests_of_the_gateway_api_become_what_the_file_says() {
    let (resources, reported) = convert(ConvertFrom::GatewayApi, &fixture("gateway-api.yaml"));
    expect("gateway-api.expected.yaml", &resources);
    says(
        &reported,
        &[
            "spec.rules[0].retry: it is no part of a rule here",
            "rule 2: it lets nobody in, since more than its matches is not understood",
            "objects of kind Deployment are not read",
            "Secret infra/shop-tls is not in the files",
            "Service shop/orders-v2 is not in the files",
        ],
    );
    let gateway = Compiled::of(&resources);
    for (path, headers, listener, expected) in [
        ("/orders/7", &[][..], "k8s-80", "k8s.ffffffff.shop.orders.h00.000.80"),
        ("/orders/7", &[("x-v", "2")], "k8s-80", "k8s.ffffffff.shop.orders.h01.000.80"),
        ("/admin", &[], "k8s-80", "k8s.ffffffff.shop.orders.h02.000.80"),
        ("/orders/7", &[], "k8s-443", "none"),
    ] {
        assert_eq!(gateway.ask("GET", "api.shop.test", path, headers, Some(listener)), expected, "{path}");
    }
}

#[test]
fn nothing_is_lost_where_nothing_is_told() {
    let (_, reported) = convert(
        ConvertFrom::Kong,
        "_format_version: '3.0'\nservices: [{ name: a, url: 'http://a.test:80', routes: [{ name: a, paths: [/] }] }]\n",
    );
    assert_eq!((told(&reported).as_str(), reported.is_loss), ("", false));
    assert!(reported.lines.iter().all(|it| it.told != Told::LeftOut));
}
