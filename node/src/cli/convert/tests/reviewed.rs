//! What a review found open that was closed at its source, each as a line.

use quorumgate_model::{resource::LimitKind, units::Span};

use super::*;
use crate::cli::convert::effects::CLOSED;

fn kong(plugins: &str, rest: &str) -> String {
    format!(
        "_format_version: '3.0'\nservices:\n- name: a\n  url: http://a.test:80\n  routes:\n  - {{name: r, paths: [/a], plugins: \
         [{plugins}]}}\n{rest}"
    )
}

fn apisix(plugins: &str, rest: &str) -> String {
    format!(
        "routes:\n- {{id: r, uri: /a, upstream: {{type: roundrobin, nodes: {{'a.test:80': 1}}}}, plugins: {{{plugins}}}}}\n{rest}"
    )
}

const ROUTE: &str = "kind: HTTPRoute\nmetadata: {name: r, namespace: shop}\nspec: {parentRefs: [{name: gw, namespace: infra}], hostnames: \
                     [a.test], rules: [{backendRefs: [{name: a, port: 80}]}]}\n---\n";
const GATEWAY: &str = "spec: {gatewayClassName: a, listeners: [{name: web, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: \
                       All}}}]}\n";

fn is_closed(route: &Route) -> bool {
    route.authorize.first().is_some_and(|it| it.name.as_deref() == Some(CLOSED))
}

#[track_caller]
fn closed(from: ConvertFrom, text: &str, audience: &[&str]) {
    let audience: Vec<String> = audience.iter().map(|it| (*it).to_owned()).collect();
    let made = converted(from, vec![source("theirs.yaml", text)], &audience);
    let (resources, reported) = made.unwrap_or_else(|failure| panic!("{failure}\n{text}"));
    let all = routes(&resources);
    assert!(
        !all.is_empty() && all.iter().all(|it| is_closed(it)),
        "{text}\n{}\n{}",
        shown(&resources),
        told(&reported)
    );
    assert!(reported.is_loss, "{text}");
}

#[test]
fn what_a_route_of_kong_asked_is_asked_or_nobody_comes_in() {
    let many = |count: usize| (0..count).map(|it| format!("g{it}")).collect::<Vec<_>>().join(", ");
    let secret = "0123456789abcdef0123456789abcdef";
    let bob = format!("consumers: [{{username: bob, jwt_secrets: [{{key: i, secret: {secret}}}]}}]\n");
    for (plugins, rest) in [
        // The refused rules, and what stands for them.
        ("{name: openid-connect}, {name: acl, config: {allow: [Team A]}}", String::new()),
        ("{name: key-auth}, {name: acl, config: {allow: [Team A]}}", String::new()),
        (&*format!("{{name: key-auth}}, {{name: acl, config: {{allow: [{}]}}}}", many(65)), String::new()),
        // One auth with an anonymous consumer, and one without.
        ("{name: key-auth, config: {anonymous: anon}}, {name: basic-auth}", "consumers: [{username: anon}]\n".into()),
        // Tokens name nobody.
        ("{name: jwt}, {name: acl, config: {deny: [blocked]}}", bob.clone()),
        ("{name: jwt}, {name: request-termination, consumer: bob}", bob.clone()),
        ("{name: jwt, config: {maximum_expiration: 60}}", bob.clone()),
        // A secret that is elsewhere.
        ("{name: jwt}", bob.replace(secret, "'${{ env \"DECK_JWT_SECRET_OF_SOMEBODY_ELSE\" }}'")),
        ("{name: jwt}", bob.replace(secret, "'{vault://env/jwt-secret-of-somebody-else}'")),
        // Configuration that is elsewhere, or says nothing.
        ("{name: ip-restriction, _config: office}", String::new()),
        ("{name: ip-restriction}", String::new()),
        ("{name: key-auth}, {name: acl}", String::new()),
        // No bytes at all, which would be no limit.
        ("{name: request-size-limiting, config: {allowed_payload_size: 0}}", String::new()),
        ("{name: key-auth, config: {of_another_version: true}}", String::new()),
        ("{name: request-termination, consumer_group: nobody-knows}", String::new()),
    ] {
        closed(ConvertFrom::Kong, &kong(plugins, &rest), &["orders"]);
    }
}

#[test]
fn fields_that_are_not_known_may_keep_somebody_out() {
    let text = kong("", "");
    for text in [
        text.replace("paths: [/a]", "paths: [/a], filter_chains: [{filters: [{name: f}]}]"),
        text.replace("paths: [/a]", "paths: [/a], of_another_version: [x]"),
        text.replace("  url:", "  filter_chains: [{filters: [{name: f}]}]\n  url:"),
        text.replace("  url:", "  of_another_version: true\n  url:"),
        kong("", "filter_chains: [{route: r, filters: [{name: f}]}]\n"),
        kong("", "filter_chains: [{service: {name: a}, filters: [{name: f}]}]\n"),
    ] {
        closed(ConvertFrom::Kong, &text, &[]);
    }
    let off = kong("", "filter_chains: [{enabled: false, filters: [{name: f}]}]\n");
    assert!(!is_closed(route(&convert(ConvertFrom::Kong, &off).0, "r")));
    for (field, services) in [
        ("of_another_version: true", ""),
        ("service_id: s", "services: [{id: s, script: 'return'}]\n"),
        ("service_id: s", "services: [{id: s, of_another_version: true}]\n"),
    ] {
        closed(ConvertFrom::Apisix, &apisix("", services).replace("uri: /a", &format!("uri: /a, {field}")), &[]);
    }
}

#[test]
fn what_a_route_of_apisix_asked_is_asked_or_nobody_comes_in() {
    let alice = "consumers: [{username: alice}]\n";
    for plugins in [
        "key-auth: {}, consumer-restriction: {whitelist: [Alice]}",
        "key-auth: {}, consumer-restriction: {type: consumer_group_id, whitelist: [g 1]}",
        "key-auth: {}, consumer-restriction: {}",
        "key-auth: {anonymous_consumer: alice}, basic-auth: {}",
        "real-ip: {source: http_x}, ip-restriction: {whitelist: [10.0.0.0/8]}",
        "ip-restriction: {}",
        "key-auth: {of_another_version: true}",
        "redirect: {http_to_https: true}",
    ] {
        closed(ConvertFrom::Apisix, &apisix(plugins, alice), &[]);
    }
    // A consumer that is shut out twice is one.
    let twice = "consumers: [{username: alice, group_id: g, plugins: {of-our-own: {}}}]\nconsumer_groups: [{id: g, plugins: {of-our-own: {}}}]\n";
    let (resources, _) = convert(ConvertFrom::Apisix, &apisix("key-auth: {}", twice));
    assert_eq!(route(&resources, "r").authorize.len(), 2);
    // What its group says is not in the files.
    let (resources, reported) =
        convert(ConvertFrom::Apisix, &apisix("key-auth: {}", "consumers: [{username: alice, group_id: missing}]\n"));
    let rules = serde_json::to_value(&route(&resources, "r").authorize).unwrap();
    assert!(rules[0]["deny"]["consumers"] == serde_json::json!(["alice"]) && reported.is_loss, "{rules}");
    let ssl = "ssls: [{id: 1, snis: [Secure.test], client: {ca: x}}]\n";
    closed(ConvertFrom::Apisix, &apisix("", ssl).replace("uri: /a", "uri: /a, host: secure.test"), &[]);
    let services = "services: [{id: 1, name: '2', plugins: {}}, {id: 2, name: s, plugins: {of-our-own: {}}}]\n";
    closed(ConvertFrom::Apisix, &apisix("", services).replace("uri: /a", "uri: /a, service_id: 2"), &[]);
    closed(ConvertFrom::Apisix, &apisix("key-auth: {}", alice).replace("uri: /a", "uri: /a/:id"), &[]);
    // A field that is not there.
    let absent = apisix("key-auth: {}", alice).replace("uri: /a", "uri: /a, vars: [[http_x, '==', null]]");
    closed(ConvertFrom::Apisix, &absent, &[]);
    refused(
        ConvertFrom::Apisix,
        &apisix("", "").replace("uri: /a", "uri: /a, vars: all"),
        &["allowed: a list of conditions"],
    );
}

#[test]
fn what_is_about_routes_of_the_gateway_api_closes_them() {
    let service = "kind: Service\nmetadata: {name: a, namespace: shop, annotations: {konghq.com/plugins: key-auth}}\nspec: {ports: [{port: 80}]}\n";
    for rest in [
        "kind: SecurityPolicy\nmetadata: {name: p, namespace: infra}\nspec: {targetRefs: [{kind: Gateway, name: gw}]}\n".to_owned(),
        "kind: AuthPolicy\nmetadata: {name: p, namespace: sec}\nspec: {targetRef: {kind: HTTPRoute, name: r, namespace: shop}}\n".to_owned(),
        "kind: AuthorizationPolicy\nmetadata: {name: p, namespace: istio-system}\n".to_owned(),
        "kind: RequestAuthentication\nmetadata: {name: p, namespace: istio-system}\n".to_owned(),
        "kind: SecurityPolicy\nmetadata: {name: p, namespace: shop}\nspec: {targetRefs: [{kind: HTTPRoute, name: other}], targetSelectors: [{kind: HTTPRoute, matchLabels: {app: r}}]}\n".to_owned(),
        format!(
            "kind: Gateway\nmetadata: {{name: gw, namespace: infra}}\n{}",
            GATEWAY.replace(
                "spec: {",
                "spec: {infrastructure: {annotations: {service.beta.kubernetes.io/load-balancer-source-ranges: 10.0.0.0/8}}, "
            )
        ),
        "kind: ClientTrafficPolicy\nmetadata: {name: p, namespace: infra}\nspec: {tls: {clientValidation: {}}}\n".to_owned(),
        "kind: KongClusterPlugin\nmetadata: {name: p, labels: {global: 'true'}}\nplugin: key-auth\n".to_owned(),
        service.to_owned(),
        // What asks callers of Google's balancers who they are.
        service.replace("konghq.com/plugins: key-auth", "cloud.google.com/backend-config: '{default: login}'"),
        service.replace("konghq.com/plugins: key-auth", "service.beta.kubernetes.io/azure-allowed-ip-ranges: 10.0.0.0/8"),
        format!("kind: Gateway\nmetadata: {{name: gw, namespace: infra, annotations: {{konghq.com/plugins: a}}}}\n{GATEWAY}"),
        format!("kind: Gateway\nmetadata: {{name: gw, namespace: infra}}\n{}", GATEWAY.replace("spec: {", "spec: {tls: {frontend: {}}, ")),
    ] {
        closed(ConvertFrom::GatewayApi, &format!("{ROUTE}{rest}"), &[]);
    }
    let annotated =
        ROUTE.replace("namespace: shop}", "namespace: shop, annotations: {haproxy.org/deny-list: 10.0.0.0/8}}");
    closed(ConvertFrom::GatewayApi, &annotated, &[]);
    refused(ConvertFrom::GatewayApi, &format!("{ROUTE}{ROUTE}"), &["allowed: each object once"]);
}

#[test]
fn an_answer_of_the_gateway_is_not_passed_by() {
    let text =
        kong("{name: request-termination, config: {status_code: 403}}", "").replace("/a]", "'~/internal(?!/public)']");
    closed(ConvertFrom::Kong, &text, &[]);
}

#[test]
fn groups_of_two_kinds_are_not_one() {
    let rest = "consumer_groups: [{name: admin}]\nconsumers: [{username: mallory, groups: [{name: admin}]}, {username: bob, acls: [{group: admin}]}]\n";
    let (resources, _) =
        convert(ConvertFrom::Kong, &kong("{name: key-auth}, {name: acl, config: {allow: [admin]}}", rest));
    let groups = |name: &str| {
        let found = resources.iter().find_map(|it| match it {
            Resource::Consumer(it) if &*it.name == name => Some(it.groups.clone()),
            _ => None,
        });
        found.unwrap()
    };
    assert_eq!((groups("mallory"), groups("bob")), (vec!["tier.admin".to_owned()], vec!["admin".to_owned()]));
}

#[test]
fn a_consumer_is_known_by_its_username_and_not_by_a_number_of_its_own() {
    let rest =
        "consumers: [{username: bob}, {username: alice, custom_id: bob}]\nacls: [{consumer: bob, group: admin}]\n";
    let (resources, _) = convert(ConvertFrom::Kong, &kong("{name: request-termination, consumer: bob}", rest));
    let text = shown(&resources);
    assert_eq!(text.matches("admin").count(), 1, "{text}");
    let rules = serde_json::to_value(&route(&resources, "r").authorize).unwrap();
    assert_eq!(rules[0]["deny"]["consumers"], serde_json::json!(["bob"]));
}

#[test]
fn files_of_several_gateways_are_not_one() {
    let head = "_format_version: '3.0'\n";
    let check = |files: [&str; 2], mention: &str| {
        let sources = files.into_iter().map(|it| source("theirs.yaml", it)).collect();
        let failure = converted(ConvertFrom::Kong, sources, &[]).map(|(it, _)| it).expect_err(mention);
        assert!(failure.to_string().contains(mention), "{failure}");
    };
    check(["_format_version: '3.0'\n_workspace: a\n", "_format_version: '3.0'\n_workspace: b\n"], "one workspace");
    check(["_format_version: '2.1'\n", head], "the version of the other files");
    check(["_format_version: '3.0'\nroutes: [{paths: [/a]}]\n", head], "a name, since there are several files");
    check(["_format_version: '3.0'\n_info: {defaults: {route: {protocols: [https]}}}\n", head], "no defaults");
    // What is said of a consumer elsewhere counts.
    let sources = [
        "_format_version: '3.0'\nconsumers: [{username: bob}]\n",
        "_format_version: '3.0'\nacls: [{consumer: bob, group: blocked}]\n",
    ];
    let sources = sources.into_iter().map(|it| source("theirs.yaml", it)).collect();
    let (resources, _) = converted(ConvertFrom::Kong, sources, &[]).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(shown(&resources).contains("blocked"));
}

#[test]
fn a_plugin_is_where_it_stands_and_one_of_nothing_is_told() {
    let text = kong("{name: ip-restriction, service: a, config: {allow: [10.0.0.0/8]}}", "")
        .replace("  url:", "  plugins: [{name: ip-restriction, config: {allow: [0.0.0.0/0]}}]\n  url:");
    let (resources, _) = convert(ConvertFrom::Kong, &text);
    assert!(
        shown(&resources).contains("10.0.0.0/8") && !shown(&resources).contains("0.0.0.0/0\n"),
        "{}",
        shown(&resources)
    );
    let (_, reported) = convert(ConvertFrom::Kong, &kong("", "plugins: [{name: key-auth, route: typo}]\n"));
    assert!(reported.is_loss);
    says(&reported, &["no route that is translated is asked by it"]);
}

#[test]
fn a_route_of_hosts_of_several_kinds_is_one_for_each() {
    let text = "_format_version: '3.0'\nservices:\n- name: a\n  url: http://a.test:80\n  routes:\n\
                \x20 - {name: shut, hosts: [foo.y.com, '*.x.com'], paths: [/admin], plugins: [{name: key-auth}]}\n\
                \x20 - {name: open, hosts: [foo.x.com]}\n";
    let (resources, _) = convert(ConvertFrom::Kong, text);
    let taken = Compiled::of(&resources).ask("GET", "foo.x.com", "/admin", &[], None);
    assert!(route(&resources, &taken).auth.is_some(), "{taken}");
}

#[test]
fn large_numbers_and_taken_names_break_nothing() {
    let text = "_format_version: '3.0'\nservices: [{name: a, host: up, routes: [{name: r}]}]\nupstreams:\n- name: up\n  targets: [{target: 'a.test:1', \
                weight: 9223372036854775807}, {target: 'b.test:1', weight: 3}]\n  healthchecks: {active: {healthy: {interval: 1, http_statuses: \
                [-9223372036854775808, 9223372036854775807]}}}\n";
    // What is no status is refused, with the upstream.
    let (resources, reported) = convert(ConvertFrom::Kong, text);
    assert!(reported.is_loss && routes(&resources).iter().all(|it| is_closed(it)));
    let limit = "limit-conn: {conn: 9223372036854775807, burst: 1, key: remote_addr}";
    convert(ConvertFrom::Apisix, &apisix(limit, ""));
    let taken = "_format_version: '3.0'\nservices:\n- name: a\n  url: http://a.test:80\n  routes:\n\
                 \x20 - {name: o, paths: [/o], plugins: [{name: key-auth}]}\n  - {name: o.beyond, paths: [/p]}\n  - {name: all, paths: [/]}\n";
    assert_eq!(routes(&convert(ConvertFrom::Kong, taken).0).len(), 4);
}

#[test]
fn values_of_headers_and_users_of_urls_are_not_repeated() {
    let plugin = "{name: request-transformer, config: {add: {headers: ['Authorization:Basic s3cret']}, replace: {querystring: ['api_key:s3cret']}}}";
    let (_, reported) =
        convert(ConvertFrom::Kong, &kong(plugin, "").replace("http://a.test:80", "http://bob:s3cret@a.test:80"));
    assert!(!told(&reported).contains("s3cret"), "{}", told(&reported));
    // Values that stand alone, and the query of a place.
    let plugin =
        "proxy-rewrite: {uri: '/x?api_key=s3cret', headers: {X-Pass: 's3cret$x', add: {X-Other: 's3cret:$x'}}}";
    let (_, reported) = convert(ConvertFrom::Apisix, &apisix(plugin, ""));
    assert!(!told(&reported).contains("s3cret"), "{}", told(&reported));
    says(&reported, &["found \"/x?…\"", "headers.add.X-Other: found a value that is not shown"]);
    let (_, reported) = convert(ConvertFrom::Apisix, &apisix("proxy-rewrite: {headers: {X-Pass: 's3cret$x'}}", ""));
    assert!(!told(&reported).contains("s3cret"), "{}", told(&reported));
    // One that is refused.
    let plugin = "{name: request-transformer, config: {add: {headers: ['X-Pass:s3cretß']}}}";
    let (_, reported) = convert(ConvertFrom::Kong, &kong(plugin, ""));
    assert!(!told(&reported).contains("s3cret"), "{}", told(&reported));
    says(&reported, &["rewrite.headers.request.set.X-Pass: found a value that is not shown"]);
}

#[test]
fn a_route_that_no_gateway_has_is_told() {
    let (resources, reported) =
        convert(ConvertFrom::GatewayApi, &ROUTE.replace("parentRefs: [{name: gw, namespace: infra}], ", ""));
    assert!(routes(&resources).is_empty() && reported.is_loss, "{}", shown(&resources));
    says(&reported, &["it has no parentRefs"]);
}

#[test]
fn a_file_that_is_there_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("made.yaml");
    std::fs::write(&file, "before").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    super::super::write(&file, "after").unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "after");
}

#[test]
fn many_rules_that_are_not_understood_are_closed_and_not_lost() {
    let rule = |number: usize| {
        format!(
            "{{matches: [{{path: {{value: /p{number}}}}}], filters: [{{type: ExtensionRef}}], backendRefs: [{{name: a, port: 80}}]}}"
        )
    };
    let rules: Vec<String> = (0..40).map(rule).collect();
    let text = format!(
        "kind: HTTPRoute\nmetadata: {{name: r}}\nspec: {{parentRefs: [{{name: gw}}], hostnames: [a.test], rules: [{}]}}\n",
        rules.join(", ")
    );
    closed(ConvertFrom::GatewayApi, &text, &[]);
    let (resources, _) = convert(ConvertFrom::GatewayApi, &text);
    let gateway = Compiled::of(&resources);
    assert!((0..40).all(|it| gateway.ask("GET", "a.test", &format!("/p{it}"), &[], Some("k8s-80")) != "none"));
}

/// Who takes this request asks its callers for something, or lets nobody in.
#[track_caller]
fn kept(from: ConvertFrom, text: &str, host: &str, path: &str) {
    let (resources, reported) = convert(from, text);
    let listener = (from == ConvertFrom::GatewayApi).then_some("k8s-80");
    let taken = Compiled::of(&resources).ask("GET", host, path, &[("x-t", "ac")], listener);
    let is_kept = taken == "none" || is_closed(route(&resources, &taken)) || route(&resources, &taken).auth.is_some();
    assert!(is_kept, "{taken} takes {host}{path}\n{}\n{}", shown(&resources), told(&reported));
}

fn kong_routes(routes: &str) -> String {
    let routes = routes.lines().map(|it| format!("  - {{{it}}}\n")).collect::<String>();
    format!("_format_version: '3.0'\nservices:\n- name: a\n  url: http://a.test:80\n  routes:\n{routes}")
}

fn apisix_routes(routes: &str) -> String {
    let upstream = "upstream: {type: roundrobin, nodes: {'a.test:80': 1}}";
    format!("routes:\n{}", routes.lines().map(|it| format!("- {{{it}, {upstream}}}\n")).collect::<String>())
}

#[test]
fn a_closed_route_of_kong_is_asked_where_it_was() {
    for (host, path, routes) in [
        // Closed by an answer, a limit or a plugin that is not known, and of a match that cannot be said.
        (
            "a.test",
            "/internal",
            "name: shut, hosts: [a.test], paths: ['~/internal(?!/public)'], plugins: [{name: request-termination, config: {status_code: 403}}]\n\
             name: all, hosts: [a.test]",
        ),
        (
            "a.test",
            "/internal",
            "name: shut, hosts: [a.test], paths: ['~/internal(?!/public)'], plugins: [{name: rate-limiting, config: {minute: 1}}]\n\
             name: all, hosts: [a.test]",
        ),
        (
            "a.test",
            "/internal",
            "name: shut, hosts: [a.test], paths: ['~/internal(?!/public)'], plugins: [{name: of-our-own}]\n\
             name: all, hosts: [a.test]",
        ),
        // An expression, which says nothing of its place.
        (
            "a.test",
            "/admin",
            "name: admin, expression: 'http.path ^= \"/admin\"', priority: 100, plugins: [{name: key-auth}]\nname: all, paths: [/]",
        ),
        // A host that cannot be said, and is one of what decides who is asked first.
        (
            "a.test",
            "/admin",
            "name: admin, hosts: ['a.*'], paths: [/admin], plugins: [{name: key-auth}]\nname: all, methods: [GET, POST], paths: [/]",
        ),
        // What a prefix of characters takes, and a longer one of another route too.
        (
            "a.test",
            "/administration",
            "name: admin, hosts: [a.test], paths: [/admin], plugins: [{name: key-auth}]\nname: adminx, paths: [/administration]",
        ),
        // A port and a protocol, which are not looked at here.
        (
            "a.test",
            "/admin/x",
            "name: open, hosts: ['a.test:8444'], paths: [/admin/x]\nname: shut, hosts: [a.test], paths: [/admin], plugins: [{name: key-auth}]",
        ),
        (
            "a.test",
            "/admin/x",
            "name: open, protocols: [http], paths: [/admin/x]\nname: shut, paths: [/admin], plugins: [{name: key-auth}]",
        ),
        (
            "a.test",
            "/admin/x",
            "name: open, protocols: [grpc, ws], paths: [/admin/x]\nname: shut, paths: [/admin], plugins: [{name: key-auth}]",
        ),
        // Alternatives, of which the first alone must begin where the path does.
        (
            "a.test",
            "/x/secret",
            "name: shut, paths: ['~/admin|/secret'], plugins: [{name: key-auth}]\nname: all, paths: [/]",
        ),
        // A blank, which Kong's expressions see as it is and ours as %20.
        (
            "a.test",
            "/private%20area",
            "name: shut, paths: ['~/private area'], plugins: [{name: key-auth}]\nname: all, paths: [/]",
        ),
        // A server's name, which nobody looks at without TLS.
        (
            "a.test",
            "/admin/x",
            "name: shut, snis: [b.test], paths: [/admin], plugins: [{name: key-auth}]\nname: all, paths: [/]",
        ),
        // Nor does what is taken of other names by that come out with less than is asked of them.
        (
            "a.test",
            "/admin/x",
            "name: slow, snis: [b.test], paths: [/admin], plugins: [{name: rate-limiting, config: {minute: 5}}]\n\
             name: shut, paths: [/admin], plugins: [{name: key-auth}]",
        ),
    ] {
        kept(ConvertFrom::Kong, &kong_routes(routes), host, path);
    }
}

#[test]
fn a_closed_rule_of_the_gateway_api_keeps_its_paths() {
    let route = |name: &str, rule: &str| {
        ROUTE.replace("name: r,", &format!("name: {name},")).replace("rules: [{", &format!("rules: [{{{rule}"))
    };
    let shut = |path: &str| {
        format!(
            "matches: [{{path: {{value: {path}}}, headers: [{{name: x-t, type: RegularExpression, value: 'a(?!b).*'}}]}}], filters: \
             [{{type: ExtensionRef}}], "
        )
    };
    let text = route("app", "") + &route("shut", &shut("/admin"));
    kept(ConvertFrom::GatewayApi, &text, "a.test", "/admin");
    let (resources, _) = convert(ConvertFrom::GatewayApi, &text);
    assert_eq!(routes(&resources).iter().filter(|it| is_closed(it)).count(), 1, "{}", shown(&resources));
    let open = "matches: [{path: {value: /admin}}], ";
    for path in ["/admin", "/admin/secret"] {
        let text = route("app", open) + &route("shut", &shut(path));
        kept(ConvertFrom::GatewayApi, &text, "a.test", path);
    }
}

#[test]
fn a_closed_route_of_apisix_is_asked_where_it_was() {
    for (host, path, routes) in [
        // A URI that cannot be said.
        ("a.test", "/a/x/b", "id: shut, uri: /a/*/b, plugins: {key-auth: {}}\nid: open, uri: /*"),
        // What is above a prefix, where the host goes before the path.
        ("a.test", "/x", "id: open, host: a.test, uri: /x/*\nid: shut, uri: /x, plugins: {key-auth: {}}"),
        // A host among the conditions, which does not go before the path.
        (
            "a.test",
            "/x/secret",
            "id: open, vars: [[host, '==', a.test]], uri: /x/*\nid: shut, uri: /x/secret, plugins: {key-auth: {}}",
        ),
    ] {
        kept(ConvertFrom::Apisix, &apisix_routes(routes), host, path);
    }
    // It takes no more than what begins like it.
    let (resources, _) = convert(
        ConvertFrom::Apisix,
        &apisix_routes("id: shut, uri: /a/*/b, plugins: {key-auth: {}}\nid: open, uri: /*"),
    );
    assert_eq!(Compiled::of(&resources).ask("GET", "a.test", "/b", &[], None), "open");
}

#[test]
fn limits_of_apisix_do_not_grow() {
    let kind = |plugin: &str| {
        let (resources, reported) = convert(ConvertFrom::Apisix, &apisix(plugin, ""));
        let found = resources.iter().find_map(|it| match it {
            Resource::Limit(it) => Some(it.kind.clone()),
            _ => None,
        });
        (found, told(&reported), is_closed(route(&resources, "r")))
    };
    let days = |many: u64| Span::secs(many * 86_400);
    for (plugin, expected, mention) in [
        ("limit-count: {count: 1000, time_window: 2592000}", LimitKind::Sliding { limit: 1000, window: days(30) }, ""),
        (
            "limit-count: {count: 1000, time_window: 5356800}",
            LimitKind::Sliding { limit: 500, window: days(31) },
            "the limit is 500 in each",
        ),
        ("limit-req: {rate: 2, burst: 3}", LimitKind::Bucket { rate: 2, window: Span::secs(1), burst: 4 }, ""),
        ("limit-req: {rate: 0.5, burst: 0}", LimitKind::Bucket { rate: 30, window: Span::secs(60), burst: 1 }, ""),
        (
            "limit-req: {rate: 0.001, burst: 0}",
            LimitKind::Bucket { rate: 86, window: days(1), burst: 1 },
            "the rate is 86 a day",
        ),
    ] {
        let (found, told, _) = kind(plugin);
        assert!(found == Some(expected.clone()) && told.contains(mention), "{plugin}: {found:?}\n{told}");
    }
    // What is less than one of anything.
    for plugin in ["limit-count: {count: 1, time_window: 26784000}", "limit-req: {rate: 0.000001, burst: 0}"] {
        assert!(kind(plugin).2, "{plugin}");
    }
}
