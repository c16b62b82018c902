//! Single words of the other gateways, and documents that are none of theirs.

use quorumgate_model::resource::Kind;
use serde_json::{Value as Json, json};

use super::*;

fn kong(rest: &str) -> String {
    format!("_format_version: '3.0'\nservices:\n- name: a\n  url: http://a.test:80/base\n{rest}")
}

/// The words of an object.
#[track_caller]
fn words(resources: &[Resource], kind: Kind, name: &str) -> Json {
    let found = resources.iter().find(|it| it.kind() == kind && &**it.name() == name);
    let found = found.unwrap_or_else(|| panic!("there is no {kind} {name} in\n{}", shown(resources)));
    canonical::words(found).unwrap()
}

#[test]
fn paths_of_kong_go_on_as_they_did() {
    for (route, path, rewrite) in [
        ("paths: [/a]", json!({ "path_prefix": "/a" }), json!({ "path_prefix": "/base" })),
        ("paths: [/a], strip_path: false", json!({ "path_prefix": "/a" }), json!({ "path_prefix": "/base/a" })),
        ("paths: [/]", json!({ "path_prefix": "/" }), json!({ "path_prefix": "/base" })),
        ("methods: [GET]", json!({ "path_prefix": "/", "methods": ["GET"] }), json!({ "path_prefix": "/base" })),
        (
            "paths: ['~/a/[0-9]+']",
            json!({ "path_regex": "/a/[0-9]+.*" }),
            json!({ "path_regex": { "pattern": "^(?:/a/[0-9]+)/?", "to": "/base/" } }),
        ),
        (
            "paths: ['~/a$'], strip_path: false",
            json!({ "path_regex": "/a" }),
            json!({ "path_regex": { "pattern": "^", "to": "/base" } }),
        ),
    ] {
        let (resources, _) = convert(ConvertFrom::Kong, &kong(&format!("  routes: [{{name: r, {route}}}]\n")));
        let words = words(&resources, Kind::Route, "r");
        assert_eq!(words["match"], path, "{route}");
        let mut found = words["rewrite"].clone();
        found.as_object_mut().unwrap().shift_remove("host");
        assert_eq!(found, rewrite, "{route}");
    }
}

#[test]
fn several_paths_are_several_routes() {
    let (resources, _) = convert(ConvertFrom::Kong, &kong("  routes: [{name: r, paths: [/a, /b]}]\n"));
    assert_eq!(routes(&resources).len(), 2);
    assert_eq!(words(&resources, Kind::Route, "r.2")["match"], json!({ "path_prefix": "/b" }));
}

#[test]
fn headers_of_kong_are_compared_in_whatever_case() {
    let (resources, _) = convert(
        ConvertFrom::Kong,
        &kong("  routes: [{name: r, headers: {x-a: [One, two], x-b: ['1'], x-c: ['~*^v[12]']}}]\n"),
    );
    let expected = json!([
        { "name": "x-a", "regex": "(?i:One|two)" }, { "name": "x-b", "exact": "1" },
        { "name": "x-c", "regex": "(?i).*(?:^v[12]).*" },
    ]);
    assert_eq!(words(&resources, Kind::Route, "r")["match"]["headers"], expected);
}

#[test]
fn who_wants_tls_and_sends_the_others_there_becomes_two_routes() {
    let text = kong("  routes: [{name: r, hosts: [a.test], protocols: [https], https_redirect_status_code: 308}]\n");
    let (resources, _) = convert(ConvertFrom::Kong, &text);
    let (secure, other) = (words(&resources, Kind::Route, "r"), words(&resources, Kind::Route, "r-without-tls"));
    assert_eq!(secure["match"]["sni"], json!(["a.test"]));
    // The status is the default, and not written.
    assert_eq!(other["redirect"], json!({ "scheme": "https" }));
    assert!(secure["priority"].as_i64() > other["priority"].as_i64(), "{secure} {other}");
}

#[test]
fn credentials_of_several_kinds_are_all_asked_for_unless_somebody_is_anonymous() {
    let both = "{name: key-auth}, {name: basic-auth}";
    let (resources, _) = convert(ConvertFrom::Kong, &kong(&format!("  routes: [{{name: r, plugins: [{both}]}}]\n")));
    let auth = words(&resources, Kind::Route, "r")["auth"].clone();
    assert_eq!(auth, json!({ "all_of": ["key-auth-apikey", "basic-auth"] }));
    let anonymous = "{name: key-auth, config: {anonymous: guest}}, {name: basic-auth, config: {anonymous: guest}}";
    let text = kong(&format!("  routes: [{{name: r, plugins: [{anonymous}]}}]\nconsumers: [{{username: guest}}]\n"));
    let (resources, _) = convert(ConvertFrom::Kong, &text);
    let auth = words(&resources, Kind::Route, "r")["auth"].clone();
    assert_eq!(auth, json!({ "any_of": ["key-auth-apikey", "basic-auth"], "anonymous": "guest" }));
}

#[test]
fn secrets_of_tokens_are_translated_where_it_is_said_whom_tokens_are_for() {
    let secret = "0123456789abcdef0123456789abcdef";
    let text = kong(&format!(
        "  routes: [{{name: r, plugins: [{{name: jwt}}]}}]\nconsumers: [{{username: alice, jwt_secrets: [{{key: issuer-a, secret: \
         {secret}}}]}}]\n"
    ));
    let audience = ["orders".to_owned()];
    let made = converted(ConvertFrom::Kong, vec![source("theirs.yaml", &text)], &audience);
    let (resources, reported) = made.unwrap_or_else(|failure| panic!("{failure}"));
    let jwt = words(&resources, Kind::Auth, "jwt-1")["jwt"].clone();
    assert_eq!(jwt["issuer"], "issuer-a");
    assert_eq!(jwt["algorithms"], json!(["HS256"]));
    assert_eq!(words(&resources, Kind::Route, "r")["auth"], json!({ "any_of": ["jwt-1"] }));
    assert!(!told(&reported).contains(secret));
}

#[test]
fn weights_are_made_small_and_an_upstream_keeps_its_meaning() {
    let text = "_format_version: '3.0'\nservices: [{name: a, host: up, routes: [{name: r}]}]\nupstreams:\n- name: up\n  algorithm: \
                least-connections\n  targets: [{target: 'a.test:1', weight: 60000}, {target: 'b.test', weight: 1}]\n";
    let (resources, reported) = convert(ConvertFrom::Kong, text);
    let upstream = words(&resources, Kind::Upstream, "a");
    assert_eq!(upstream["targets"], json!([{ "address": "a.test:1", "weight": 1000 }, "b.test:8000"]));
    assert_eq!(upstream["balance"], json!({ "policy": "least_requests" }));
    says(&reported, &["weights are made smaller"]);
}

#[test]
fn what_the_admin_api_of_apisix_answers_is_read() {
    let text = r#"{"total": 1, "list": [{"key": "/apisix/routes/7", "createdIndex": 1, "modifiedIndex": 2, "value":
        {"id": "7", "uris": ["/a*"], "upstream": {"nodes": [{"host": "a.test", "port": 80, "weight": 1}], "type": "roundrobin"}}}]}"#;
    let (resources, _) = convert(ConvertFrom::Apisix, text);
    assert_eq!(words(&resources, Kind::Route, "7")["match"], json!({ "path_prefix": "/a" }));
}

#[test]
fn priorities_of_apisix_decide_among_routes_of_one_uri_alone() {
    let route = |id: &str, rest: &str| {
        format!("- {{id: {id}, upstream: {{type: roundrobin, nodes: {{'a.test:80': 1}}}}, {rest}}}\n")
    };
    let text = format!(
        "routes:\n{}{}{}",
        route("wide", "uri: /a/*, priority: 100"),
        route("exact", "uri: /a/b"),
        route("first", "uri: /a/*, priority: 200, vars: [[arg_x, '==', '1']]"),
    );
    let (resources, _) = convert(ConvertFrom::Apisix, &text);
    let gateway = Compiled::of(&resources);
    assert_eq!(gateway.ask("GET", "a.test", "/a/b", &[], None), "exact");
    assert_eq!(gateway.ask("GET", "a.test", "/a/c", &[], None), "wide");
}

#[test]
fn documents_of_somebody_else_are_refused_by_name() {
    refused(ConvertFrom::Kong, "services: []\n", &["_format_version"]);
    refused(
        ConvertFrom::Kong,
        "_format_version: '4.0'\n",
        &["--> theirs.yaml:1:", "found \"4.0\"; allowed: 1.1, 2.1 or 3.0"],
    );
    refused(ConvertFrom::Kong, "- a\n", &["found a list; allowed: a map"]);
    refused(ConvertFrom::Kong, "a: [\n", &["theirs.yaml"]);
    let twice = vec![source("theirs.yaml", "password: hunter1\npassword: hunter2\n")];
    let failure = converted(ConvertFrom::Kong, twice, &[]).map(|(it, _)| it).expect_err("it is refused").to_string();
    assert!(failure.contains("--> theirs.yaml:2:") && !failure.contains("hunter"), "{failure}");
    refused(
        ConvertFrom::Kong,
        &kong("  retries: many\n"),
        &["services[a].retries: found \"many\"; allowed: a whole number", "--> theirs.yaml:5:"],
    );
    refused(ConvertFrom::Kong, &kong("  routes: {}\n"), &["services[a].routes: found a map; allowed: a list"]);
    refused(ConvertFrom::Apisix, "a: 1\n", &["none of the lists of APISIX"]);
    refused(
        ConvertFrom::Apisix,
        "routes: [{id: 1, uri: /a, upstream_id: 9}]\n",
        &["routes[1].upstream_id: found 9", "the id of one of the upstreams"],
    );
    refused(ConvertFrom::GatewayApi, "kind: Service\nmetadata: {name: a}\n", &["no HTTPRoute"]);
    refused(ConvertFrom::GatewayApi, "a: 1\n", &["a manifest with a kind"]);
}

#[test]
fn names_are_ours_and_each_is_one() {
    let mut out = Out::default();
    for (wanted, expected) in
        [("Orders API", "orders-api"), ("orders/api", "orders-api.2"), ("__a", "a"), ("é", "unnamed")]
    {
        assert_eq!(out.name(Kind::Route, wanted), expected);
    }
    assert!(out.name(Kind::Route, &"x".repeat(200)).len() < 63);
}
