//! Messages that are wrong, and absent values.

use prost_types::Duration;

use super::*;

fn upstream() -> admin::Upstream {
    let target = admin::Target { address: "a:1".into(), ..Default::default() };
    admin::Upstream { name: "u".into(), targets: vec![target], ..Default::default() }
}

fn route() -> admin::Route {
    admin::Route { name: "r".into(), action: Some(admin::route::Action::Upstream("u".into())), ..Default::default() }
}

#[test]
fn absent_values_are_the_defaults_of_the_file() {
    let config = admin::ConfigSet { upstreams: vec![upstream()], routes: vec![route()], ..Default::default() };
    let shown = config_from(config).unwrap().iter().map(|it| serde_json::to_value(it).unwrap()).collect::<Vec<_>>();
    let from_words: crate::resource::Upstream = serde_json::from_str(r#"{"name": "u", "targets": ["a:1"]}"#).unwrap();
    assert_eq!(shown[0], serde_json::to_value(from_words).unwrap());
    let from_words: crate::resource::Route = serde_json::from_str(r#"{"name": "r", "upstream": "u"}"#).unwrap();
    assert_eq!(shown[1], serde_json::to_value(from_words).unwrap());
}

#[track_caller]
fn refused(config: admin::ConfigSet, field: &str, mention: &str) {
    let invalid = config_from(config).unwrap_err();
    assert_eq!(invalid.field, field, "{invalid}");
    assert!(invalid.to_string().contains(mention), "{invalid}");
}

#[test]
fn a_mistake_is_named_with_its_place_in_the_set() {
    let routes = |change: fn(&mut admin::Route)| {
        let mut wrong = route();
        wrong.name = "wrong".into();
        change(&mut wrong);
        admin::ConfigSet { routes: vec![route(), wrong], ..Default::default() }
    };
    let regex = |it: &mut admin::Route| {
        let path = Some(admin::r#match::Path::PathRegex("(".into()));
        it.r#match = Some(admin::Match { path, ..Default::default() });
    };
    refused(routes(regex), "routes[1].match.path_regex", "unclosed group");
    refused(routes(|it| it.name = "r".into()), "routes[1].name", "routes[0] has it too");
    refused(routes(|it| it.name = "R".into()), "routes[1].name", "lower-case");
    refused(routes(|it| it.action = None), "routes[1].upstream", "exactly one of");
    refused(routes(|it| it.on_stale = "maybe".into()), "routes[1].on_stale", "deny, allow");
    refused(routes(|it| it.encoded_slash = "x".into()), "routes[1].encoded_slash", "refuse, preserve");
    let negative = |it: &mut admin::Route| {
        it.timeouts = Some(admin::RouteTimeouts { total: Some(Duration { seconds: -1, nanos: 0 }) });
    };
    refused(routes(negative), "routes[1].timeouts.total", "not negative");
    let port = |it: &mut admin::Route| {
        let redirect = admin::Redirect { port: 65_536, ..Default::default() };
        it.action = Some(admin::route::Action::Redirect(redirect));
    };
    refused(routes(port), "routes[1].redirect.port", "1 to 65535");

    let upstreams = |change: fn(&mut admin::Upstream)| {
        let mut wrong = upstream();
        change(&mut wrong);
        admin::ConfigSet { upstreams: vec![wrong], ..Default::default() }
    };
    refused(upstreams(|it| it.targets.clear()), "upstreams[0].targets", "at least one");
    refused(upstreams(|it| it.targets[0].address = "a".into()), "upstreams[0].targets[0].address", "host:port");
    refused(upstreams(|it| it.targets[0].weight = 1001), "upstreams[0].targets[0].weight", "1 to 1000");
    refused(upstreams(|it| it.protocol = "spdy".into()), "upstreams[0].protocol", "http1, http2");
    let policy =
        |it: &mut admin::Upstream| it.balance = Some(admin::Balance { policy: "spread".into(), hash_on: None });
    refused(upstreams(policy), "upstreams[0].balance.policy", "round_robin");
    let on = |it: &mut admin::Upstream| {
        it.retries = Some(admin::Retries { on: vec!["reset".into(), "".into()], ..Default::default() });
    };
    refused(upstreams(on), "upstreams[0].retries.on[1]", "connect_failure");
    let expect = |it: &mut admin::Upstream| {
        it.health = Some(admin::HealthCheck { path: "/".into(), expect: "2xx".into(), ..Default::default() });
    };
    refused(upstreams(expect), "upstreams[0].health.expect", "200-399");
    let nanos = |it: &mut admin::Upstream| {
        let connect = Some(Duration { seconds: 1, nanos: 1 });
        it.timeouts = Some(admin::UpstreamTimeouts { connect, ..Default::default() });
    };
    refused(upstreams(nanos), "upstreams[0].timeouts.connect", "whole microseconds");
    let huge = |it: &mut admin::Upstream| {
        let connect = Some(Duration { seconds: i64::MAX, nanos: 0 });
        it.timeouts = Some(admin::UpstreamTimeouts { connect, ..Default::default() });
    };
    refused(upstreams(huge), "upstreams[0].timeouts.connect", "fewer than 2^64");
}

#[test]
fn references_need_a_kind_and_a_name() {
    let reference = |kind: i32, name: &str| key_from(&admin::ResourceRef { kind, name: name.into() });
    assert_eq!(reference(2, "a").unwrap().to_string(), "route/a");
    assert_eq!(reference(0, "a").unwrap_err().field, "kind");
    assert_eq!(reference(99, "a").unwrap_err().field, "kind");
    assert_eq!(reference(1, "").unwrap_err().field, "name");
    assert_eq!(resource_from(admin::Resource { kind: None }).unwrap_err().field, "kind");
}

#[test]
fn what_is_agreed_is_readable_even_if_it_does_not_compile() {
    let path = Some(admin::r#match::Path::PathRegex("(?=a)".into()));
    let route = admin::Route { r#match: Some(admin::Match { path, ..Default::default() }), ..route() };
    let message = admin::Resource { kind: Some(admin::resource::Kind::Route(route)) };
    assert_eq!(resource_from(message.clone()).unwrap_err().field, "match.path_regex");
    let Resource::Route(route) = stored_resource_from(message).unwrap() else { panic!() };
    assert!(crate::ruleset::Rule::new(route).broken.unwrap().contains("look-around"));
}
