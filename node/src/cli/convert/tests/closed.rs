//! No route comes out open that was closed, whatever keeps its callers out.

use super::*;
use crate::cli::convert::effects::CLOSED;

fn is_closed(route: &Route) -> bool {
    route.authorize.first().is_some_and(|it| it.name.as_deref() == Some(CLOSED))
}

fn kong(route: &str) -> String {
    format!(
        "_format_version: '3.0'\nservices:\n- name: a\n  url: http://a.test:80\n  routes:\n  - {{name: r, {route}}}\n\
         consumers: [{{username: alice}}]\n"
    )
}

fn apisix(route: &str) -> String {
    format!(
        "routes:\n- {{id: r, upstream: {{type: roundrobin, nodes: {{'a.test:80': 1}}}}, {route}}}\nconsumers: [{{username: alice}}]\n"
    )
}

fn manifest(rule: &str) -> String {
    format!(
        "kind: HTTPRoute\nmetadata: {{name: r, namespace: shop}}\nspec:\n  parentRefs: [{{name: gw}}]\n  hostnames: [a.test]\n  rules: \
         [{{{rule}, backendRefs: [{{name: a, port: 80}}]}}]\n"
    )
}

#[track_caller]
fn check(from: ConvertFrom, text: &str) {
    let (resources, reported) = convert(from, text);
    let all = routes(&resources);
    assert!(!all.is_empty(), "{text}\n{}", told(&reported));
    for it in all {
        assert!(is_closed(it), "{text}\n{}\n{}", shown(&resources), told(&reported));
    }
    assert!(reported.is_loss && told(&reported).contains("closed: "), "{text}\n{}", told(&reported));
}

#[test]
fn routes_of_plugins_that_are_not_known_let_nobody_in() {
    for plugin in [
        "{name: hmac-auth}",
        "{name: oauth2, config: {scopes: [a]}}",
        "{name: openid-connect, config: {issuer: 'https://idp.test'}}",
        "{name: jwt}",
        "{name: opa}",
        "{name: pre-function, config: {access: ['return']}}",
        "{name: acl, config: {deny: [bad]}}",
        "{name: request-termination, config: {trigger: x-a}}",
        "{name: of-our-own}",
    ] {
        check(ConvertFrom::Kong, &kong(&format!("paths: [/a], plugins: [{plugin}]")));
    }
    for plugin in [
        "jwt-auth: {}",
        "hmac-auth: {}",
        "openid-connect: {client_id: a}",
        "forward-auth: {uri: 'http://a.test'}",
        "consumer-restriction: {type: route_id, whitelist: [a]}",
        "consumer-restriction: {blacklist: [bad]}",
        "serverless-pre-function: {functions: ['return']}",
        "uri-blocker: {block_rules: [a]}",
        "key-auth: {_meta: {filter: [[arg_a, '==', b]]}}",
        "of-our-own: {}",
    ] {
        check(ConvertFrom::Apisix, &apisix(&format!("uri: /a, plugins: {{{plugin}}}")));
    }
    check(ConvertFrom::Apisix, &apisix("uri: /a, script: 'return'"));
    check(ConvertFrom::Apisix, &(apisix("uri: /a") + "global_rules: [{id: 1, plugins: {of-our-own: {}}}]\n"));
    for rule in [
        "filters: [{type: ExtensionRef, extensionRef: {group: a, kind: B, name: c}}]",
        "filters: [{type: OfOurOwn}]",
        "matches: [{path: {type: OfOurOwn, value: /a}}]",
        "matches: [{path: {type: RegularExpression, value: '/(?=a)'}}]",
    ] {
        check(ConvertFrom::GatewayApi, &manifest(rule));
    }
    let policy =
        "---\nkind: SecurityPolicy\napiVersion: gateway.envoyproxy.io/v1alpha1\nmetadata: {name: p, namespace: shop}\n";
    let at_route = "spec: {targetRefs: [{kind: HTTPRoute, name: r}]}\n";
    check(ConvertFrom::GatewayApi, &format!("{}{policy}{at_route}", manifest("name: a")));
    check(ConvertFrom::GatewayApi, &format!("{}{policy}", manifest("name: a")));
    let annotated =
        manifest("name: a").replace("namespace: shop}", "namespace: shop, annotations: {konghq.com/plugins: a}}");
    check(ConvertFrom::GatewayApi, &annotated);
}

#[test]
fn what_keeps_some_out_and_cannot_say_which_requests_lets_nobody_in() {
    let auth = "plugins: [{name: key-auth}]";
    check(ConvertFrom::Kong, &kong(&format!("paths: ['~/a(?!b)'], {auth}")));
    check(ConvertFrom::Kong, &kong(&format!("paths: [/a], hosts: ['a.*'], {auth}")));
    check(ConvertFrom::Kong, &kong("paths: [/a], protocols: [https]"));
    let auth = "plugins: {key-auth: {}}";
    check(ConvertFrom::Apisix, &apisix(&format!("uri: /a, vars: [[arg_a, '!', '==', b]], {auth}")));
    check(ConvertFrom::Apisix, &apisix(&format!("uri: /a, filter_func: 'return', {auth}")));
    check(ConvertFrom::Apisix, &apisix(&format!("uri: /a/*/b, {auth}")));
}

#[test]
fn an_open_route_that_cannot_be_said_is_left_out_and_told() {
    for (from, text) in [
        (ConvertFrom::Kong, kong("paths: ['~/a(?!b)']")),
        (ConvertFrom::Kong, kong("hosts: ['a.*']")),
        (ConvertFrom::Apisix, apisix("uri: /a, vars: [[arg_a, '>', 1]]")),
        (ConvertFrom::Apisix, apisix("uri: /a/*/b")),
    ] {
        let (resources, reported) = convert(from, &text);
        assert!(routes(&resources).is_empty(), "{text}");
        assert!(reported.is_loss, "{text}");
    }
}

#[test]
fn what_a_refused_object_was_to_keep_out_stays_out() {
    // Neither is a network.
    check(ConvertFrom::Kong, &kong("paths: [/a], plugins: [{name: ip-restriction, config: {allow: [intranet]}}]"));
    check(ConvertFrom::Apisix, &apisix("uri: /a, plugins: {ip-restriction: {whitelist: [intranet]}}"));
}

#[test]
fn a_closed_prefix_keeps_what_it_took_beyond_its_last_segment() {
    let text = "_format_version: '3.0'\nservices:\n- name: a\n  url: http://a.test:80\n  routes:\n\
                \x20 - {name: admin, paths: [/admin], plugins: [{name: key-auth}]}\n  - {name: all, paths: [/]}\n";
    let (resources, _) = convert(ConvertFrom::Kong, text);
    let gateway = Compiled::of(&resources);
    for (path, expected) in
        [("/admin", "admin"), ("/admin/x", "admin"), ("/adminx", "admin.beyond"), ("/x", "all"), ("/admi", "all")]
    {
        assert_eq!(gateway.ask("GET", "a.test", path, &[], None), expected, "{path}");
    }
    assert_eq!(route(&resources, "admin.beyond").auth, route(&resources, "admin").auth);
    // Where nobody is kept out, the difference is told and nothing more.
    let (resources, reported) = convert(ConvertFrom::Kong, &text.replace(", plugins: [{name: key-auth}]", ""));
    assert_eq!(routes(&resources).len(), 2);
    says(&reported, &["/adminx is not taken any more"]);
}

#[test]
fn an_open_prefix_does_not_take_the_path_above_it_from_a_closed_route() {
    let upstream = "upstream: {type: roundrobin, nodes: {'a.test:80': 1}}";
    let text = format!(
        "routes:\n- {{id: open, uri: /public/*, {upstream}}}\n- {{id: all, uri: /*, {upstream}, plugins: {{key-auth: {{}}}}}}\n"
    );
    let (resources, _) = convert(ConvertFrom::Apisix, &text);
    let gateway = Compiled::of(&resources);
    for (path, expected) in [("/public", "all"), ("/public/x", "open"), ("/public/", "open"), ("/x", "all")] {
        assert_eq!(gateway.ask("GET", "a.test", path, &[], None), expected, "{path}");
    }
    let kong = "_format_version: '3.0'\nservices:\n- name: a\n  url: http://a.test:80\n  routes:\n\
                \x20 - {name: below, paths: [/a/]}\n  - {name: above, paths: [/a], plugins: [{name: key-auth}]}\n";
    let (resources, _) = convert(ConvertFrom::Kong, kong);
    let gateway = Compiled::of(&resources);
    for (path, expected) in [("/a", "above"), ("/a/x", "below")] {
        assert_eq!(gateway.ask("GET", "a.test", path, &[], None), expected, "{path}");
    }
}

#[test]
fn requests_without_tls_do_not_slip_past_a_route_that_wants_it() {
    let text = "_format_version: '3.0'\nservices:\n- name: a\n  url: http://a.test:80\n  routes:\n\
                \x20 - {name: admin, hosts: [a.test], paths: [/admin], protocols: [https], plugins: [{name: key-auth}]}\n  - {name: all, paths: [/]}\n";
    let (resources, _) = convert(ConvertFrom::Kong, text);
    let gateway = Compiled::of(&resources);
    for (path, expected) in [("/admin", "admin-without-tls"), ("/adminx", "admin-without-tls.beyond"), ("/x", "all")] {
        assert_eq!(gateway.ask("GET", "a.test", path, &[], None), expected, "{path}");
    }
}

#[test]
fn consumers_that_a_plugin_of_theirs_may_keep_out_are_let_in_nowhere() {
    let text = kong("paths: [/a], plugins: [{name: key-auth}]")
        .replace("{username: alice}", "{username: alice, plugins: [{name: of-our-own}]}");
    let (resources, reported) = convert(ConvertFrom::Kong, &text);
    let rules = serde_json::to_value(&route(&resources, "r").authorize).unwrap();
    assert_eq!(rules[0]["deny"]["consumers"], serde_json::json!(["alice"]));
    assert!(rules[1]["allow"].is_object() && told(&reported).contains("closed: "), "{rules}");
    let text = apisix("uri: /a, plugins: {key-auth: {}}")
        .replace("{username: alice}", "{username: alice, plugins: {of-our-own: {}}}");
    let (resources, _) = convert(ConvertFrom::Apisix, &text);
    let rules = serde_json::to_value(&route(&resources, "r").authorize).unwrap();
    assert_eq!(rules[0]["deny"]["consumers"], serde_json::json!(["alice"]));
}
