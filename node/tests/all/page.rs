//! What the web page needs of its node: the page itself for anybody, and everything that it shows for those who may see it.

use std::io::{BufRead, BufReader, Read};

use serde_json::json;

use crate::{
    cli_node::{Node, json_of},
    json_api::{SHOP, call, send},
};

fn head_of(node: &Node, line: &str) -> String {
    let mut answer = Vec::new();
    send(node, line, "", "").read_to_end(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer).into_owned();
    text.split_once("\r\n\r\n").map(|(head, _)| head.to_ascii_lowercase()).unwrap()
}

#[test]
fn the_page_is_for_anybody_and_what_it_shows_for_those_who_have_signed_in() {
    let node = Node::start();
    let head = head_of(&node, "GET /ui/");
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: text/html"), "{head}");
    assert!(head.contains("content-security-policy: default-src 'none'; script-src 'self'"), "{head}");
    assert!(head_of(&node, "GET /ui").contains("location: /ui/"));
    for path in ["whoami", "stream", "traffic", "tap", "nodes", "diff?from=0", "usage"] {
        let (status, refused) = call(&node, &format!("GET /api/v1/{path}"), "qga_nobody", "");
        assert_eq!((status, &refused["code"]), (401, &json!("token_unknown")), "{path}");
    }
}

#[test]
fn a_viewer_sees_what_the_page_shows_and_acts_on_nothing() {
    let node = Node::start();
    let first = call(&node, "POST /api/v1/config?message=first", "", SHOP).1["revision"].as_u64().unwrap();
    let viewer = node.check(&["admin-token", "create", "eve", "-q", "--role", "viewer"], "", 0, &[]);
    let get = |path: &str| {
        let (status, shown) = call(&node, &format!("GET /api/v1/{path}"), &viewer, "");
        assert_eq!(status, 200, "{path}: {shown}");
        shown
    };
    let who = get("whoami");
    assert_eq!((&who["name"], &who["role"], &who["owner"]), (&json!("token/eve"), &json!("viewer"), &json!(null)));
    let diff = get(&format!("diff?from=0&to={first}"));
    assert_eq!(diff["objects"].as_array().map(Vec::len), Some(2));
    assert_eq!(diff["objects"][1]["after"]["match"]["path_prefix"], "/orders");
    assert!(get("usage")["limits"].is_array());
    assert_eq!(get("upstreams/shop/health")["nodes"][0]["node"], "n1");
    assert_eq!(get("audit/verify")["verdict"], "whole");
    let traffic = get("traffic?routes=true");
    assert!(traffic["routes"].is_array() && traffic["bounds_us"].is_array(), "{traffic}");
    assert_eq!(get("traffic?route=orders")["nodes"][0]["node"], "n1");

    for line in [
        "POST /api/v1/rollback?previous",
        "POST /api/v1/confirm",
        "POST /api/v1/nodes/n1/drain",
        "POST /api/v1/transfer-leader",
        "POST /api/v1/keys/k1/revoke",
        "POST /api/v1/keys/k1/rotate",
        "POST /api/v1/keys?consumer=acme",
        "POST /api/v1/revocations?consumer=acme",
        "DELETE /api/v1/routes/orders",
    ] {
        let (status, refused) = call(&node, line, &viewer, "");
        assert_eq!((status, &refused["code"]), (403, &json!("role_too_low")), "{line}");
    }
    assert_eq!(call(&node, "GET /api/v1/config", "", "").1["revision"], first);
}

#[test]
fn an_object_can_be_written_as_it_was_shown_and_on_trial() {
    let node = Node::start();
    call(&node, "POST /api/v1/config", "", SHOP);
    let mut shown = call(&node, "GET /api/v1/routes/orders?canonical", "", "").1;
    shown.as_object_mut().unwrap().remove("etag");
    let same = json!({ "routes": [shown.clone()] }).to_string();
    assert_eq!(call(&node, "POST /api/v1/config", "", &same).1["noop"], true);
    shown["match"]["path_prefix"] = "/tried".into();
    let other = json!({ "routes": [shown] }).to_string();
    let (status, tried) = call(&node, "POST /api/v1/config?try=10m", "", &other);
    assert_eq!(status, 200, "{tried}");
    assert!(tried["trial_until"].is_string(), "{tried}");
    let aborted = call(&node, &format!("POST /api/v1/abort?revision={}", tried["revision"]), "", "");
    assert_eq!(aborted.0, 200, "{}", aborted.1);
    assert_eq!(call(&node, "GET /api/v1/routes/orders", "", "").1["match"]["path_prefix"], "/orders");
    assert_eq!(call(&node, "POST /api/v1/config?try=soon", "", &other).0, 400);
    // Somebody else has written it meanwhile: what was shown before is not what would be changed.
    let etag = call(&node, "GET /api/v1/routes/orders", "", "").1["etag"].as_str().unwrap().to_owned();
    let put = |query: &str, path: &str| {
        let words = json!({ "owner": "team", "match": { "path_prefix": path }, "upstream": "shop" }).to_string();
        call(&node, &format!("PUT /api/v1/routes/orders?{query}"), "", &words)
    };
    assert_eq!(put(&format!("etag={etag}"), "/theirs").0, 200);
    assert_eq!(put(&format!("etag={etag}&try=10m"), "/mine").0, 409);
    assert!(put("try=10m", "/mine").1["trial_until"].is_string());
}

#[test]
fn the_stream_shows_the_cluster_and_each_change_of_it() {
    let node = Node::start();
    let viewer = node.check(&["admin-token", "create", "eve", "-q", "--role", "viewer"], "", 0, &[]);
    let stream = send(&node, "GET /api/v1/stream", &viewer, "");
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains(" 200 "));
    let mut next = || json_of(&lines.find_map(|line| line.strip_prefix("data: ").map(str::to_owned)).unwrap());
    let seen = next();
    assert_eq!((&seen["event"], &seen["node"], &seen["answered"]), (&json!("overview"), &json!("n1"), &json!(1)));
    assert_eq!((&seen["nodes"][0]["name"], &seen["trial"]), (&json!("n1"), &json!(null)));
    let written = call(&node, "POST /api/v1/config?try=10m", "", SHOP).1["revision"].clone();
    let seen = loop {
        let seen = next();
        if seen["cluster"]["revision"] == written {
            break seen;
        }
    };
    assert_eq!(seen["trial"]["revision"], written);
    assert!(seen["trial"]["ends_in_ms"].as_u64().is_some_and(|left| left <= 601_000), "{}", seen["trial"]);
}

#[test]
fn a_key_is_made_rotated_and_revoked_as_the_command_line_does_it() {
    let node = Node::start();
    call(&node, "POST /api/v1/config", "", r#"{"consumers": [{"name": "acme"}]}"#);
    let post = |line: &str| call(&node, &format!("POST /api/v1/{line}"), "", "");
    let (status, made) = post("keys?consumer=acme&scope=orders%3Aread&expires_in=24h");
    assert_eq!(status, 200, "{made}");
    let (id, secret) = (made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    let listed = call(&node, "GET /api/v1/keys", "", "").1;
    assert_eq!((&listed["keys"][0]["id"], &listed["keys"][0]["scopes"]), (&json!(id), &json!(["orders:read"])));
    assert!(!listed.to_string().contains(secret), "a secret is shown once");
    let (status, next) = post(&format!("keys/{id}/rotate?overlap=1h"));
    assert_eq!(status, 200, "{next}");
    assert_ne!((&next["id"], &next["secret"]), (&made["id"], &made["secret"]));
    assert_eq!(post("keys?consumer=nobody").0, 404);
    assert_eq!(post("keys?consumer=acme&expires_in=soon").0, 400);

    let (status, revoked) = post("revocations?jti=t-1&issuer=https%3A%2F%2Fidp.test&reason=lost");
    assert_eq!((status, &revoked["noop"]), (200, &json!(false)), "{revoked}");
    let listed = call(&node, "GET /api/v1/revocations", "", "").1;
    assert_eq!(&listed["revocations"][0]["reason"], "lost");
    for (line, field) in [("", "jti"), ("jti=a&consumer=b", "jti"), ("kid=a", "kid")] {
        let (status, refused) = post(&format!("revocations?{line}"));
        assert_eq!((status, &refused["fields"][0]["field"]), (400, &json!(field)), "{line}: {refused}");
    }
    assert_eq!(post("revocations?subject=ann&issuer=https%3A%2F%2Fidp.test").0, 400, "a subject needs an instant");
}
