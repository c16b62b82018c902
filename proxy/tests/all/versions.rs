//! Versions of APIs over real sockets: drafts, announcements, brown-outs, the end, and who still calls.

use crate::support::*;
use crate::world::World;
use serde_json::{Value, json};

const KEY: &str = "qg_live_0123456789abcdefghijklmnopqrstuv_00000000";

fn version(name: &str, words: Value) -> Value {
    let mut version = json!({"api": "orders", "version": name});
    version.as_object_mut().unwrap().append(&mut words.as_object().unwrap().clone());
    json!({"name": name, "version": version})
}

/// Each version by a way of its own that a request can name it.
fn routes() -> Value {
    json!([
        {"name": "old", "match": {"path_prefix": "/v0"}, "policies": ["v0"]},
        {"name": "by-prefix", "match": {"path_prefix": "/v1"}, "policies": ["v1"]},
        {"name": "by-query", "match": {"path_prefix": "/orders", "query": [{"name": "v", "exact": "1"}]}, "policies": ["v1"]},
        {"name": "by-header", "match": {"path_prefix": "/orders", "headers": [{"name": "x-version", "exact": "2"}]}, "policies": ["v2"]},
        {"name": "by-type", "match": {"path_prefix": "/orders", "headers": [{"name": "accept", "regex": "^application/vnd\\.orders\\.v3\\+json$"}]}, "policies": ["v3"]},
        {"name": "ending", "match": {"path_prefix": "/v4"}, "policies": ["v4"]},
        {"name": "brown", "match": {"path_prefix": "/v5"}, "policies": ["v5"]},
        {"name": "hidden", "match": {"path_prefix": "/v6"}, "policies": ["v6"]},
        {"name": "plain", "match": {"path_prefix": "/"}},
    ])
}

async fn world() -> World {
    let since = json!({"state": "deprecated", "deprecated_at": "2025-06-01T00:00:00Z"});
    let with = |more: Value| {
        let mut words = since.clone();
        words.as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
        words
    };
    let policies = json!([
        version("v0", json!({"state": "retired", "successor": "v2", "successor_url": "/v2/orders"})),
        version(
            "v1",
            with(json!({
                "sunset": "2999-01-01T00:00:00Z", "successor": "v2", "successor_url": "https://api.test/v2",
                "deprecation_url": "https://docs.test/d", "sunset_url": "https://docs.test/s",
            }))
        ),
        version("v2", json!({})),
        version("v3", json!({"state": "draft", "preview_groups": ["eu"]})),
        version("v4", json!({"sunset": "2026-01-01T00:00:00Z", "successor": "v2"})),
        version(
            "v5",
            with(json!({"brownouts": [
                {"start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z", "status": 410},
                {"start": "2020-01-01T00:00:00Z", "end": "2999-01-01T00:00:00Z"},
            ]}))
        ),
        version("v6", json!({"state": "draft"})),
    ]);
    let mut routes = routes();
    for route in routes.as_array_mut().unwrap() {
        route["upstream"] = json!("u");
        route["auth"] = json!({"any_of": ["keys"], "anonymous": "guest"});
    }
    let auth = json!([{"name": "keys", "api_key": {}}]);
    let world = World::new(json!({"auth": auth, "policies": policies, "routes": routes})).await;
    world.key("acme", KEY);
    world
}

#[tokio::test]
async fn a_version_announces_its_end_and_is_gone_behind_it() {
    let world = world().await;
    let get = async |path: &str, fields: &[&str]| ask(world.gateway.address, &format!("GET {path}"), fields, "").await;
    let key = format!("x-api-key: {KEY}");
    for (path, fields) in [("/v1/orders", &[][..]), ("/orders?v=1", &[&*key][..]), ("/orders?v=1", &[&*key][..])] {
        let answer = get(path, fields).await;
        assert_eq!(status(&answer), 200, "{answer}");
        // 2025-06-01T00:00:00Z, RFC 9745 2.1.
        assert_eq!(field(&answer, "deprecation"), Some("@1748736000"));
        assert_eq!(field(&answer, "sunset"), Some("Tue, 01 Jan 2999 00:00:00 GMT"));
        for link in [
            "link: <https://api.test/v2>; rel=\"successor-version\"",
            "link: <https://docs.test/d>; rel=\"deprecation\"",
            "link: <https://docs.test/s>; rel=\"sunset\"",
        ] {
            assert!(answer.contains(link), "{link} in {answer}");
        }
    }
    for (path, fields) in [("/orders", &["x-version: 2"][..]), ("/other", &[][..])] {
        let answer = get(path, fields).await;
        assert_eq!(status(&answer), 200, "{answer}");
        assert!(field(&answer, "deprecation").is_none() && field(&answer, "sunset").is_none(), "{answer}");
    }
    let before = world.heard.count();
    let gone = get("/v0/orders", &[]).await;
    check_problem(&gone, 410, "api_retired");
    assert_eq!(field(&gone, "link"), Some("</v2/orders>; rel=\"successor-version\""));
    let told = problem(&gone);
    assert_eq!(told["successor"], json!({"version": "v2", "url": "/v2/orders"}));
    assert_eq!((&told["api"], &told["version"]), (&json!("orders"), &json!("v0")));
    let ended = get("/v4", &[]).await;
    check_problem(&ended, 410, "api_retired");
    assert_eq!(field(&ended, "sunset"), Some("Thu, 01 Jan 2026 00:00:00 GMT"));
    assert_eq!(problem(&ended)["successor"], json!({"version": "v2"}));
    let brown = get("/v5", &[]).await;
    check_problem(&brown, 503, "api_brownout");
    assert!(field(&brown, "retry-after").unwrap().parse::<u64>().unwrap() > 1_000_000, "{brown}");
    // A draft is not there, but for those who may see it.
    check_problem(&get("/v6", &[&key]).await, 404, "no_route");
    let typed = "accept: application/vnd.orders.v3+json";
    check_problem(&get("/orders", &[typed]).await, 404, "no_route");
    assert_eq!(world.heard.count(), before);
    assert_eq!(status(&get("/orders", &[typed, &key]).await), 200);

    let called = world.gateway.proxy.callers();
    let counted = |route: &str| {
        let of = called.iter().filter(|it| it.route == route);
        of.map(|it| (&*it.policy, it.method, it.consumer.as_str(), it.count)).collect::<Vec<_>>()
    };
    assert_eq!(counted("by-query"), [("v1", "GET", "acme", 2)]);
    assert_eq!(counted("by-prefix"), [("v1", "GET", "guest", 1)]);
    // Refused before anybody has said who they are.
    assert_eq!(counted("old"), [("v0", "GET", "", 1)]);
    assert_eq!(counted("by-header"), []);
    assert!(called.iter().all(|it| it.last_ms > 1_700_000_000_000));
}
