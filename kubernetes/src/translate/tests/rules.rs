//! Matches, filters and time-outs of rules; which rule takes a request where several do.

use super::*;

#[test]
fn matches_become_matches() {
    let check = |matches: &str, expected: Result<&str, &str>| {
        let words = expected.map(|line| format!("h00.000.80 a.test {line} -> k8s.shop.orders.80"));
        let rule = format!("matches: [{{{matches}}}], {BACKEND}");
        match (&words, expected) {
            (Ok(line), _) => check_rule(&rule, Ok(line)),
            (_, Err(word)) => check_rule(&rule, Err(("UnsupportedValue", word))),
            _ => unreachable!(),
        }
    };
    check("", Ok("prefix=/"));
    check("path: {value: /x}", Ok("prefix=/x"));
    check("path: {type: PathPrefix, value: /x/}", Ok("prefix=/x/"));
    check("path: {type: Exact, value: /x}", Ok("exact=/x"));
    check("path: {type: RegularExpression, value: '/x/[0-9]+'}", Ok("regex=/x/[0-9]+"));
    check("method: POST", Ok("prefix=/ POST"));
    check("headers: [{name: X-V, value: '1'}, {name: x-v, value: '2'}]", Ok("prefix=/ x-v=1"));
    check("headers: [{type: RegularExpression, name: x, value: 'a+'}]", Ok("prefix=/ x~a+"));
    check(
        "queryParams: [{name: q, value: '1'}, {type: RegularExpression, name: Q, value: a}]",
        Ok("prefix=/ ?q=1 ?Q~a"),
    );
    check("path: {type: Template, value: /x}", Err("path.type: found \"Template\""));
    check("path: {type: RegularExpression, value: '('}", Err("path_regex"));
    check("path: {value: x}", Err("begins with /"));
    check("path: {value: '/a//b'}", Err("canonical"));
    check("headers: [{type: Present, name: x, value: ''}]", Err("headers[0].type"));
    check("queryParams: [{type: Present, name: x, value: ''}]", Err("queryParams[0].type"));
    check("cookies: []", Err("unknown field"));
}

#[test]
fn filters_become_what_they_say() {
    let routes = |filters: &str| {
        let translation =
            translated(&[&http(&format!("[{{matches: [{{path: {{value: /x}}}}], filters: [{filters}], {BACKEND}}}]"))]);
        assert_eq!(why(&translation, Kind::HttpRoute, "r"), "", "{filters}");
        super::routes(&translation).remove(0)
    };
    let words = |route: &OurRoute| {
        let resource = convert::resource_from(resource(admin::resource::Kind::Route(route.clone()))).unwrap();
        serde_json::to_value(resource).unwrap()
    };
    let headers = routes(
        "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: '${host}'}], add: [{name: b, value: c}], remove: [X-D]}},
         {type: ResponseHeaderModifier, responseHeaderModifier: {remove: [server]}}",
    );
    let rewrite = words(&headers)["rewrite"].clone();
    // What begins a value of the request with us is two characters with them.
    assert_eq!(rewrite["headers"]["request"]["set"]["x-a"], "$${host}");
    assert_eq!(rewrite["headers"]["request"]["add"]["b"], "c");
    assert_eq!(rewrite["headers"]["request"]["remove"][0], "x-d");
    assert_eq!(rewrite["headers"]["response"]["remove"][0], "server");

    let path =
        |path: &str| words(&routes(&format!("{{type: URLRewrite, urlRewrite: {{hostname: in.test, path: {path}}}}}")));
    let full = path("{type: ReplaceFullPath, replaceFullPath: '/to/$x'}");
    assert_eq!((full["rewrite"]["host"].clone(), full["rewrite"]["path"].clone()), ("in.test".into(), "/to/$x".into()));
    assert_eq!(path("{type: ReplacePrefixMatch, replacePrefixMatch: /y}")["rewrite"]["path_prefix"], "/y");
    assert_eq!(path("{type: ReplacePrefixMatch, replacePrefixMatch: ''}")["rewrite"]["path_prefix"], "/");

    let mirror = |rest: &str| {
        let backend = "backendRef: {name: canary, port: 80}";
        words(&routes(&format!("{{type: RequestMirror, requestMirror: {{{backend}{rest}}}}}")))["mirror"].clone()
    };
    assert_eq!(mirror("")["upstream"], "k8s.shop.canary.80");
    assert_eq!(mirror("")["percent"], 100);
    assert_eq!(mirror(", percent: 7")["percent"], 7);
    assert_eq!(mirror(", fraction: {numerator: 1, denominator: 4}")["percent"], 25);
    assert!(mirror(", percent: 0").is_null());

    let cors = words(&routes(
        "{type: CORS, cors: {allowOrigins: ['https://*.a.test'], allowCredentials: true, allowMethods: [GET], allowHeaders: [x-a], exposeHeaders: [x-b], maxAge: 60}}",
    ));
    assert_eq!(cors["cors"]["origins"][0], "https://*.a.test");
    assert_eq!(cors["cors"]["credentials"], true);
    assert_eq!(cors["cors"]["max_age"], "1m");
}

#[test]
fn redirects_go_to_the_port_that_the_gateway_api_says() {
    let check = |redirect: &str, expected: &str| {
        let rule = format!("filters: [{{type: RequestRedirect, requestRedirect: {{{redirect}}}}}]");
        check_rule(&rule, Ok(&format!("h00.000.80 a.test prefix=/ -> {expected}")));
    };
    check("scheme: https", "302 https://:443");
    check("scheme: http, statusCode: 301", "301 http://:80");
    check("hostname: b.test", "302 ://b.test:80");
    check("scheme: https, port: 8443", "302 https://:8443");
    check("path: {type: ReplaceFullPath, replaceFullPath: /y}", "302 ://:80/y");
}

#[test]
fn what_cannot_be_carried_out_is_said_and_not_passed_over() {
    let check = |rule: &str, reason: &str, word: &str| {
        check_rule(&format!("matches: [{{path: {{value: /x}}}}], {rule}"), Err((reason, word)));
    };
    let value = "UnsupportedValue";
    check("retry: {attempts: 1}", value, "unknown field `retry`");
    check("sessionPersistence: {}", value, "sessionPersistence");
    check("timeouts: {request: soon}", value, "rules[0].timeouts.request");
    check("timeouts: {request: 100h}", value, "timeouts.total");
    check("backendRefs: [{name: orders, port: 80, filters: [{type: CORS}]}]", value, "backendRefs[0].filters");
    check("filters: [{type: ExtensionRef, extensionRef: {group: a, kind: b, name: c}}]", value, "filters[0]: type");
    check("filters: [{type: ExternalAuth, externalAuth: {}}]", value, "externalAuth");
    check("filters: [{type: CORS}]", value, "what it is to do is not said");
    let mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: orders, port: 80}}}";
    check(&format!("filters: [{mirror}, {mirror}]"), value, "a second filter");
    check(
        "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: orders, port: 80}, fraction: {numerator: 1, denominator: 3}}}]",
        value,
        "whole percents",
    );
    let redirect = "{type: RequestRedirect, requestRedirect: {scheme: https}}";
    check(
        "filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /y}}}]",
        value,
        "allowed: ReplaceFullPath",
    );
    check(&format!("filters: [{redirect}], {BACKEND}"), "IncompatibleFilters", "backendRefs");
    check(
        &format!("filters: [{redirect}, {{type: URLRewrite, urlRewrite: {{hostname: b.test}}}}]"),
        "IncompatibleFilters",
        "URLRewrite",
    );
    check(
        "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: connection, value: x}]}}]",
        value,
        "connection",
    );
    check("filters: [{type: CORS, cors: {allowOrigins: ['*'], allowCredentials: true}}]", value, "cors");
    // A prefix can be replaced where there is one.
    let rewrite =
        "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /y}}}]";
    check_rule(&format!("matches: [{{path: {{type: Exact, value: /x}}}}], {rewrite}"), Err((value, "PathPrefix")));
}

#[test]
fn time_outs_are_those_of_the_rule_alone() {
    let of = |timeouts: &str| {
        let translation = translated(&[&http(&format!("[{{{BACKEND}, timeouts: {{{timeouts}}}}}]"))]);
        let config = translation.config();
        let (route, upstream) = (config.routes[0].clone(), config.upstreams[0].clone());
        let total = route.timeouts.and_then(|it| it.total).map(|it| it.seconds);
        let patience = upstream.timeouts.and_then(|it| it.response_header).map(|it| it.seconds);
        (total, route.retries.and_then(|it| it.attempts), patience, upstream.name)
    };
    assert_eq!(of(""), (None, None, None, "k8s.shop.orders.80".into()));
    // The upstream's own time-outs would otherwise come first.
    let day = Some(24 * 3600);
    assert_eq!(of("request: 90s"), (Some(90), None, day, "k8s.shop.orders.80.patient".into()));
    assert_eq!(of("request: 0s"), (Some(0), None, day, "k8s.shop.orders.80.patient".into()));
    assert_eq!(of("request: 9s, backendRequest: 2s"), (Some(2), Some(0), day, "k8s.shop.orders.80.patient".into()));
}

fn aged(kind: &str, name: &str, day: u8, hosts: &str, rules: &str) -> String {
    format!(
        "kind: {kind}\nmetadata: {{name: {name}, namespace: shop, creationTimestamp: '2026-02-{day:02}T00:00:00Z'}}\n\
         spec:\n  parentRefs: [{{name: gw, namespace: infra}}]\n  hostnames: {hosts}\n  rules: {rules}\n"
    )
}

#[test]
fn the_gateway_takes_the_rule_that_the_gateway_api_says() {
    let rule = |matches: &str| format!("[{{matches: [{{{matches}}}], {BACKEND}}}]");
    let manifests = [
        aged("HTTPRoute", "wild", 1, "['*.test']", &rule("path: {value: /}")),
        aged("HTTPRoute", "root", 2, "[a.test]", &rule("path: {value: /}")),
        aged("HTTPRoute", "exact", 3, "[a.test]", &rule("path: {type: Exact, value: /x/y}")),
        aged("HTTPRoute", "long", 3, "[a.test]", &rule("path: {value: /x/y}")),
        aged("HTTPRoute", "short", 1, "[a.test]", &rule("path: {value: /x}")),
        aged("HTTPRoute", "method", 9, "[a.test]", &rule("path: {value: /x}, method: GET")),
        aged(
            "HTTPRoute",
            "headers",
            9,
            "[a.test]",
            &rule("path: {value: /x}, headers: [{name: h, value: '1'}, {name: i, value: '1'}]"),
        ),
        aged("HTTPRoute", "header", 1, "[a.test]", &rule("path: {value: /x}, headers: [{name: h, value: '1'}]")),
        aged("HTTPRoute", "query", 9, "[a.test]", &rule("path: {value: /x}, queryParams: [{name: q, value: '1'}]")),
        // Of one rank: the older one, then the one whose name is first, then the rule that is first.
        aged("HTTPRoute", "young", 8, "[b.test]", &rule("headers: [{name: h, value: '1'}]")),
        aged("HTTPRoute", "z-old", 7, "[b.test]", &rule("headers: [{name: i, value: '1'}]")),
        aged("HTTPRoute", "b-same", 7, "[c.test]", &rule("headers: [{name: h, value: '1'}]")),
        aged("HTTPRoute", "a-same", 7, "[c.test]", &rule("headers: [{name: i, value: '1'}]")),
        aged(
            "HTTPRoute",
            "places",
            7,
            "[d.test]",
            &format!(
                "[{{matches: [{{headers: [{{name: h, value: '1'}}]}}], {BACKEND}}}, \
                 {{matches: [{{headers: [{{name: i, value: '1'}}]}}, {{headers: [{{name: j, value: '1'}}]}}], {BACKEND}}}]"
            ),
        ),
    ];
    let manifests: Vec<&str> = manifests.iter().map(String::as_str).collect();
    let gateway = Compiled::of(&translated(&manifests));
    let check = |request: &str, expected: &str| {
        let taken = gateway.ask(request);
        assert!(taken.starts_with(&format!("HTTPRoute shop/{expected}")), "{request}: {taken}");
    };
    check("GET z.test/x", "wild,");
    check("GET a.test/other", "root,");
    check("GET a.test/x/y", "exact,");
    check("GET a.test/x/y/z", "long,");
    check("POST a.test/x", "short,");
    check("GET a.test/x h:1 i:1", "method,");
    check("POST a.test/x h:1 i:1", "headers,");
    check("POST a.test/x?q=1 h:1", "header,");
    check("POST a.test/x?q=1", "query,");
    check("GET b.test/ h:1 i:1", "z-old,");
    check("GET c.test/ h:1 i:1", "a-same,");
    check("GET d.test/ h:1 i:1 j:1", "places, rule 0,");
    check("GET d.test/ i:1 j:1", "places, rule 1, match 0,");
    check("GET d.test/ j:1", "places, rule 1, match 1,");
    assert_eq!(gateway.ask("GET a.test/x by:k8s-81"), "none", "another port is another place");
}

#[test]
fn of_two_that_are_the_same_the_older_is_served_and_the_other_is_told() {
    let rule = format!("[{{{BACKEND}}}]");
    let (old, young) =
        (aged("HTTPRoute", "old", 1, "[a.test]", &rule), aged("HTTPRoute", "a-young", 2, "[a.test]", &rule));
    let translation = translated(&[&young, &old]);
    assert_eq!(routes(&translation).len(), 1);
    assert!(Compiled::of(&translation).ask("GET a.test/").starts_with("HTTPRoute shop/old"));
    let parties = parties(&translation, Kind::HttpRoute, "a-young");
    assert!(parties[0].conditions[0].holds);
    assert!(parties[0].conditions[0].message.contains("shop.old"), "{}", parties[0].conditions[0].message);
}

#[test]
fn methods_of_grpc_are_paths() {
    let check = |method: &str, expected: Result<&str, &str>| {
        let rule = format!("[{{matches: [{{method: {{{method}}}}}], {BACKEND}}}]");
        let translation = translated(&[&route("GRPCRoute", "g", &rule)]);
        match expected {
            Ok(expected) => {
                let line = line(&routes(&translation)[0]);
                assert_eq!(line, format!("g00.000.80 a.test{expected} -> k8s.shop.orders.80.grpc"), "{method}");
            }
            Err(word) => assert!(why(&translation, Kind::GrpcRoute, "g").contains(word), "{method}"),
        }
    };
    check("", Ok(""));
    check("service: a.B, method: C", Ok(" exact=/a.B/C"));
    check("service: a.B", Ok(" prefix=/a.B"));
    check("method: C", Ok(" regex=/[^/]+/C"));
    check("type: RegularExpression, service: 'a|b', method: 'C.*'", Ok(" regex=/(?:a|b)/(?:C.*)"));
    check("type: RegularExpression, service: 'a|b'", Ok(" regex=/(?:a|b)/[^/]+"));
    check("service: 'a/b'", Err("allowed: letters"));
    check("type: Glob, service: a", Err("method.type"));

    let of = |words: &str| format!("matches: [{{{words}}}], {BACKEND}");
    let rules =
        [of(""), of("method: {method: C}"), of("method: {service: a.B}"), of("method: {service: a.B, method: C}")];
    let rules: Vec<String> = rules.iter().map(|it| format!("{{{it}}}")).collect();
    let gateway = Compiled::of(&translated(&[&route("GRPCRoute", "g", &format!("[{}]", rules.join(", ")))]));
    for (path, rule) in [("/a.B/C", 3), ("/a.B/D", 2), ("/z.Z/C", 1), ("/z.Z/D", 0)] {
        assert!(gateway.ask(&format!("POST a.test{path}")).contains(&format!("rule {rule},")), "{path}");
    }
    let translation = translated(&[&route("GRPCRoute", "g", &format!("[{{{BACKEND}}}]"))]);
    assert_eq!(translation.config().upstreams[0].protocol, "grpc");
}
