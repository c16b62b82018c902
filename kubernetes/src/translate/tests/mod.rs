//! Translations as tables: manifests, what they come to, and what is said of them.

mod backends;
mod gateways;
mod rules;

use std::collections::BTreeMap;

use quorumgate_model::{
    change,
    resource::Resource,
    ruleset::{Found, HeaderLookup, Ruleset, View},
    state::State,
};
use quorumgate_proto::admin::v1::{
    FieldMatch, Match, Route as OurRoute, field_match::Test, r#match::Path, route::Action,
};
use serde_json::Value;

use super::*;
use crate::conditions::Party;

/// A class, a Gateway that lets everybody in by port 80, a service with two endpoints, another without any.
pub const WORLD: &str = "
kind: GatewayClass
metadata: {name: qg, generation: 1}
spec: {controllerName: quorumgate.io/gateway-controller}
---
kind: GatewayClass
metadata: {name: other}
spec: {controllerName: other.io/it}
---
kind: Gateway
metadata: {name: gw, namespace: infra, generation: 1, creationTimestamp: '2026-01-01T00:00:00Z'}
spec:
  gatewayClassName: qg
  listeners:
  - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
---
kind: Service
metadata: {name: orders, namespace: shop}
spec: {clusterIP: 10.9.0.1, ports: [{name: web, port: 80}, {name: h2, port: 81, appProtocol: kubernetes.io/h2c}]}
---
kind: EndpointSlice
metadata: {name: orders-1, namespace: shop, labels: {kubernetes.io/service-name: orders}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.2]}, {addresses: [10.0.0.1], conditions: {ready: true}}, {addresses: [10.0.0.3], conditions: {ready: false}}]
ports: [{name: web, port: 8080}, {name: h2, port: 8081}]
---
kind: Service
metadata: {name: canary, namespace: shop}
spec: {ports: [{port: 80}]}
---
kind: EndpointSlice
metadata: {name: canary-1, namespace: shop, labels: {kubernetes.io/service-name: canary}}
addressType: IPv6
endpoints: [{addresses: ['2001:db8::1']}]
ports: [{name: '', port: 8080}]
---
kind: Service
metadata: {name: idle, namespace: shop}
spec: {ports: [{port: 80}]}
";

pub fn settings() -> Settings {
    Settings { bind: [0, 0, 0, 0].into(), ports: BTreeMap::new(), service: None }
}

fn add(snapshot: &mut Snapshot, manifests: &str) {
    for text in manifests.split("\n---\n") {
        let object: Value = serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let kind = Kind::ALL.into_iter().find(|kind| kind.word() == object["kind"]);
        snapshot.put(kind.unwrap_or_else(|| panic!("{text}")), object).unwrap();
    }
}

pub fn snapshot(manifests: &[&str]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    manifests.iter().for_each(|it| add(&mut snapshot, it));
    snapshot
}

/// Of `WORLD` and these.
pub fn translated(manifests: &[&str]) -> Translation {
    let all: Vec<&str> = [WORLD].into_iter().chain(manifests.iter().copied()).collect();
    translate(&snapshot(&all), &settings(), &Refusals::new())
}

/// A route of the namespace `shop` at the Gateway of `WORLD`, of these rules.
pub fn route(kind: &str, name: &str, rules: &str) -> String {
    format!(
        "kind: {kind}\nmetadata: {{name: {name}, namespace: shop, generation: 1, creationTimestamp: '2026-01-02T00:00:00Z'}}\n\
         spec:\n  parentRefs: [{{name: gw, namespace: infra}}]\n  hostnames: [a.test]\n  rules: {rules}\n"
    )
}

pub fn http(rules: &str) -> String {
    route("HTTPRoute", "r", rules)
}

pub fn routes(translation: &Translation) -> Vec<OurRoute> {
    translation.config().routes
}

/// `Accepted=True/Accepted ResolvedRefs=False/BackendNotFound`
pub fn said(conditions: &[Condition]) -> String {
    let one = |it: &Condition| {
        let status = if it.holds { "True" } else { "False" };
        format!("{}={status}/{}", it.kind, it.reason)
    };
    conditions.iter().map(one).collect::<Vec<_>>().join(" ")
}

pub fn parties<'t>(translation: &'t Translation, kind: Kind, name: &str) -> &'t [Party] {
    let told = translation.told.iter().find(|it| it.kind == kind && it.id.name == name);
    match told.map(|it| &it.status) {
        Some(Status::Parents(parties) | Status::Ancestors(parties)) => parties,
        _ => &[],
    }
}

/// What is said of a route to its first parent.
pub fn of_route(translation: &Translation, kind: Kind, name: &str) -> String {
    parties(translation, kind, name).first().map(|it| said(&it.conditions)).unwrap_or_default()
}

pub fn why(translation: &Translation, kind: Kind, name: &str) -> String {
    let conditions = parties(translation, kind, name).iter().flat_map(|it| &it.conditions);
    conditions.filter(|it| !it.holds).map(|it| it.message.as_str()).collect::<Vec<_>>().join("; ")
}

/// `h00.001.80 a.test prefix=/x GET x-v=1 ?q=1 -> k8s.shop.orders.80`
pub fn line(route: &OurRoute) -> String {
    let parts: Vec<&str> = route.name.rsplitn(4, '.').collect();
    let mut words = vec![format!("{}.{}.{}", parts[2], parts[1], parts[0])];
    let Match { hosts, path, methods, headers, query, .. } = route.r#match.clone().unwrap();
    words.extend(hosts);
    words.extend(path.map(|path| match path {
        Path::PathPrefix(it) => format!("prefix={it}"),
        Path::PathExact(it) => format!("exact={it}"),
        Path::PathRegex(it) => format!("regex={it}"),
        Path::PathTemplate(it) => format!("template={it}"),
    }));
    words.extend(methods);
    let field = |it: &FieldMatch| match it.test.clone().unwrap() {
        Test::Exact(text) => format!("{}={text}", it.name),
        Test::Regex(text) => format!("{}~{text}", it.name),
        other => panic!("{other:?}"),
    };
    words.extend(headers.iter().map(field));
    words.extend(query.iter().map(|it| format!("?{}", field(it))));
    words.push("->".to_owned());
    words.push(match route.action.clone().unwrap() {
        Action::Upstream(name) => name,
        Action::Split(split) => {
            let arms = split.arms.iter().map(|arm| format!("{}:{}", arm.upstream, arm.weight));
            arms.collect::<Vec<_>>().join(" ")
        }
        Action::Redirect(it) => {
            format!("{} {}://{}:{}{}", it.status, it.scheme, it.host, it.port, it.path)
        }
        Action::Respond(it) => it.status.to_string(),
        other => panic!("{other:?}"),
    });
    words.join(" ")
}

#[track_caller]
pub fn check_lines(translation: &Translation, expected: &[&str]) {
    let mut lines: Vec<String> = routes(translation).iter().map(line).collect();
    lines.sort();
    assert_eq!(lines, expected);
}

pub const BACKEND: &str = "backendRefs: [{name: orders, port: 80}]";

/// One route with one rule of these words beside its backends: its line, or why it is not taken.
#[track_caller]
pub fn check_rule(rule: &str, expected: Result<&str, (&str, &str)>) {
    let translation = translated(&[&http(&format!("[{{{rule}}}]"))]);
    match expected {
        Ok(expected) => {
            assert_eq!(
                of_route(&translation, Kind::HttpRoute, "r"),
                "Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs",
                "{rule}: {}",
                why(&translation, Kind::HttpRoute, "r")
            );
            let lines: Vec<String> = routes(&translation).iter().map(line).collect();
            assert_eq!(lines.join("\n"), expected, "{rule}");
        }
        Err((reason, word)) => {
            let said = of_route(&translation, Kind::HttpRoute, "r");
            assert!(
                said.split(' ').next().is_some_and(|it| it == format!("Accepted=False/{reason}")),
                "{rule}: {said}"
            );
            let why = why(&translation, Kind::HttpRoute, "r");
            assert!(why.contains(word), "{rule}: {word:?} is not in {why:?}");
            assert!(routes(&translation).is_empty(), "{rule}");
        }
    }
}

/// No header at all but these.
pub struct Fields(Vec<(String, String)>);

impl HeaderLookup for Fields {
    fn any(&self, name: &str, test: &mut dyn FnMut(&str) -> bool) -> bool {
        self.0.iter().any(|(known, value)| known == name && test(value))
    }
}

/// The gateway itself, by these objects: which route takes a request, by its place.
pub struct Compiled(Ruleset);

impl Compiled {
    pub fn of(translation: &Translation) -> Self {
        let mut state = State { revision: 1, index: 1, ..State::default() };
        for (_, object) in &translation.objects {
            let resource = convert::resource_from(object.clone()).unwrap();
            state.resources.insert(resource.key(), change::stored(resource));
        }
        let routes = state.resources.values().filter(|it| matches!(it.resource, Resource::Route(_))).count();
        let rules = Ruleset::compile(&state, None);
        assert_eq!(rules.rules.len(), routes);
        Self(rules)
    }

    /// `GET a.test/x?q=1 x-v:1 by:k8s-80`: the description of the route that takes it.
    pub fn ask(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let (method, url) = (words.next().unwrap(), words.next().unwrap());
        let (url, query) = url.split_once('?').map_or((url, None), |(url, query)| (url, Some(query)));
        let (host, path) = url.split_at(url.find('/').unwrap());
        let mut listener = "k8s-80";
        let mut fields = Fields(Vec::new());
        for word in words {
            match word.split_once(':').unwrap() {
                ("by", name) => listener = name,
                (name, value) => fields.0.push((name.to_owned(), value.to_owned())),
            }
        }
        let view = View {
            method,
            host,
            path,
            query,
            headers: &fields,
            client_ip: [127, 0, 0, 1].into(),
            sni: None,
            listener: Some(listener),
        };
        match self.0.find(&view) {
            Found::Rule(rule) => rule.route.description.clone(),
            _ => "none".to_owned(),
        }
    }
}

#[test]
fn a_bad_object_changes_nothing_for_the_others() {
    let good = route("HTTPRoute", "good", &format!("[{{{BACKEND}}}]"));
    let alone = translated(&[&good]);
    assert_eq!(routes(&alone).len(), 1);
    let bad = [
        route("HTTPRoute", "bad", "[{retry: {attempts: 2}}]"),
        route("HTTPRoute", "bad", "[{matches: [{path: {value: '/a/../b'}}]}]"),
        route("HTTPRoute", "bad", "[{filters: [{type: ExtensionRef}]}]"),
        route("HTTPRoute", "bad", "7"),
        route("GRPCRoute", "bad", "[{matches: [{method: {service: 'a/b'}}]}]"),
        "kind: HTTPRoute\nmetadata: {name: bad, namespace: shop}\nspec: {parentRefs: 3}\n".to_owned(),
        "kind: Gateway\nmetadata: {name: bad, namespace: shop}\nspec: {gatewayClassName: qg, listeners: 1}\n"
            .to_owned(),
        "kind: BackendTLSPolicy\nmetadata: {name: bad, namespace: shop}\nspec: {}\n".to_owned(),
        "kind: ReferenceGrant\nmetadata: {name: bad, namespace: shop}\nspec: {from: 1}\n".to_owned(),
    ];
    for bad in bad {
        let both = translated(&[&good, &bad]);
        assert_eq!(both.config(), alone.config(), "{bad}");
        let said = of_route(&both, Kind::HttpRoute, "good");
        assert_eq!(said, "Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs", "{bad}");
    }
}

#[test]
fn equal_objects_give_equal_bytes_in_whatever_order_they_came() {
    let parts: Vec<String> =
        (0..4).map(|it| route("HTTPRoute", &format!("r{it}"), &format!("[{{{BACKEND}}}]"))).collect();
    let forwards: Vec<&str> = parts.iter().map(String::as_str).chain([WORLD]).collect();
    let backwards: Vec<&str> = forwards.iter().rev().copied().collect();
    let of = |parts: &[&str]| translate(&snapshot(parts), &settings(), &Refusals::new());
    let (one, two) = (of(&forwards), of(&backwards));
    assert_eq!(one.objects, two.objects);
    assert_eq!(one.told, two.told);
}

#[test]
fn what_the_gateway_refuses_is_left_out_and_told() {
    let good = route("HTTPRoute", "good", &format!("[{{{BACKEND}}}]"));
    let bad = route("HTTPRoute", "bad", &format!("[{{matches: [{{path: {{value: /b}}}}], {BACKEND}}}]"));
    let all = [WORLD, good.as_str(), bad.as_str()];
    let origin = Origin::Route(Kind::HttpRoute, Id::new("shop", "bad"));
    let refused = Refusals::from([(origin, "a guardrail says no".to_owned())]);
    let translation = translate(&snapshot(&all), &settings(), &refused);
    check_lines(&translation, &["h00.000.80 a.test prefix=/ -> k8s.shop.orders.80"]);
    let said = of_route(&translation, Kind::HttpRoute, "bad");
    assert_eq!(said, "Accepted=False/UnsupportedValue ResolvedRefs=True/ResolvedRefs");
    assert_eq!(why(&translation, Kind::HttpRoute, "bad"), "a guardrail says no");

    // A service: its routes answer 500, and say why. The port: nothing is served there.
    let refused = Refusals::from([(Origin::Service(Id::new("shop", "orders")), "no".to_owned())]);
    let translation = translate(&snapshot(&all), &settings(), &refused);
    check_lines(&translation, &["h00.000.80 a.test prefix=/ -> 500", "h00.000.80 a.test prefix=/b -> 500"]);
    let said = of_route(&translation, Kind::HttpRoute, "good");
    assert_eq!(said, "Accepted=True/Accepted ResolvedRefs=False/Refused");
    let refused = Refusals::from([(Origin::Port(80), "listeners are not for one owner".to_owned())]);
    let translation = translate(&snapshot(&all), &settings(), &refused);
    assert!(translation.config().listeners.is_empty() && routes(&translation).is_empty());
    let said = of_route(&translation, Kind::HttpRoute, "good");
    assert!(said.starts_with("Accepted=False/Pending"), "{said}");
}

#[test]
fn every_object_has_the_owner() {
    let translation = translated(&[&http(&format!("[{{{BACKEND}}}]"))]);
    assert_eq!(translation.objects.len(), 3);
    for (_, object) in &translation.objects {
        let resource = convert::resource_from(object.clone()).unwrap();
        assert_eq!(resource.owner(), OWNER, "{}", resource.key());
    }
}
