//! The JSON API on the admin socket, and that it allows no more than gRPC and the command line.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use quorumgate_proto::admin::v1::{self as admin, config_client::ConfigClient};
use serde_json::{Value, json};
use tonic::{Request, Status, transport::Endpoint};
use tonic_types::StatusExt;

use crate::cli_node::{Node, json_of, keys};

pub const SHOP: &str = r#"{"upstreams": [{"name": "shop", "owner": "team", "targets": ["127.0.0.1:9000"]}],
    "routes": [{"name": "orders", "owner": "team", "match": {"path_prefix": "/orders"}, "upstream": "shop"}]}"#;

pub fn send(node: &Node, line: &str, token: &str, body: &str) -> UnixStream {
    let mut stream = UnixStream::connect(node.data().join("admin.sock")).unwrap();
    // What never comes fails and does not hang.
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let token = if token.is_empty() { String::new() } else { format!("authorization: Bearer {}\r\n", token.trim()) };
    let length = body.len();
    let head =
        format!("{line} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n{token}content-length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).unwrap();
    stream
}

/// One call: the status, and what was answered.
pub fn call(node: &Node, line: &str, token: &str, body: &str) -> (u16, Value) {
    let mut answer = String::new();
    send(node, line, token, body).read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    (head[9..12].parse().unwrap(), json_of(body))
}

#[test]
fn the_json_api_answers_as_the_command_line_does() {
    let node = Node::start();
    let (status, written) = call(&node, "POST /api/v1/config?message=the+shop", "", SHOP);
    assert_eq!((status, &written["changes"]["created"]), (200, &json!(2)), "{written}");
    assert_eq!(keys(&written), ["revision", "noop", "changes", "nodes", "warnings", "request_id", "trial_until"]);
    let get = |path: &str| call(&node, &format!("GET /api/v1/{path}"), "", "").1;
    let shown = get("config");
    assert_eq!((&shown["revision"], &shown["routes"][0]["name"]), (&written["revision"], &json!("orders")));
    assert_eq!(get("cluster"), node.json(&["cluster", "status"], ""));
    assert_eq!(get("nodes")["nodes"][0]["name"], "n1");
    assert_eq!(get("routes"), node.json(&["route", "ls"], ""));
    assert_eq!(get("routes/orders"), node.json(&["route", "get", "orders"], ""));
    assert_eq!(get("revisions"), node.json(&["history"], ""));
    assert_eq!(get("audit?limit=1")["entries"][0]["message"], "the shop");
    assert_eq!(get("keys"), node.json(&["key", "ls"], ""));
    assert_eq!(get("revocations"), node.json(&["token", "ls"], ""));
    assert!(get("stats")["routes"].is_array());
    assert!(get("doctor")["findings"].is_array());
    let matched = get("match?url=http%3A%2F%2Fany.test%2Forders%2F7");
    assert_eq!((&matched["route"], &matched["upstream"]), (&json!("orders"), &json!("shop")));
    assert_eq!(get("match?url=http%3A%2F%2Fany.test%2Forders%2F7&listener=main")["route"], "orders");
}

#[test]
fn who_behaves_unlike_others_is_told_as_the_command_line_does() {
    let node = Node::start();
    let none = json!({ "anomalies": [], "left_out": 0, "unanswered": [] });
    assert_eq!(call(&node, "GET /api/v1/anomalies", "", ""), (200, none));
    let policy = r#"{"policies": [{"name": "many", "anomaly": {"per": "ip", "over": {"requests": 3}}}]}"#;
    assert_eq!(call(&node, "POST /api/v1/config", "", policy).0, 200);
    let listed = call(&node, "GET /api/v1/anomalies?policy=many&top=5", "", "");
    assert_eq!(listed, (200, node.json(&["anomaly", "ls", "many", "--top", "5"], "")));
    for (words, status) in [("policy=other", 404), ("top=10001", 400), ("limit=1", 400)] {
        assert_eq!(call(&node, &format!("GET /api/v1/anomalies?{words}"), "", "").0, status, "{words}");
    }
}

#[test]
fn the_json_api_writes_objects_and_tells_what_is_wrong_with_them() {
    let node = Node::start();
    let written = call(&node, "POST /api/v1/config", "", SHOP).1;
    let moved = r#"{"owner": "team", "match": {"path_prefix": "/mine"}, "upstream": "shop"}"#;
    let (status, tried) = call(&node, "PUT /api/v1/routes/orders?dry_run", "", moved);
    assert_eq!((status, &tried["changes"]["updated"], &tried["revision"]), (200, &json!(1), &written["revision"]));
    let put = "PUT /api/v1/routes/orders?if_revision=1";
    assert_eq!(call(&node, put, "", moved).0, 409);
    assert_eq!(call(&node, "PUT /api/v1/routes/orders", "", moved).1["changes"]["updated"], 1);
    let (status, gone) = call(&node, "DELETE /api/v1/routes/orders?message=gone", "", "");
    assert_eq!((status, &gone["changes"]["deleted"]), (200, &json!(1)), "{gone}");
    assert_eq!(call(&node, "GET /api/v1/routes/orders", "", "").0, 404);
    assert_eq!(call(&node, "POST /api/v1/rollback?previous", "", "").1["changes"]["created"], 1);

    let (status, wrong) = call(&node, "POST /api/v1/config", "", &SHOP.replace("/orders", "orders"));
    assert_eq!((status, &wrong["code"]), (400, &json!("invalid")), "{wrong}");
    assert!(wrong["fields"][0]["field"].as_str().is_some_and(|it| it.starts_with("routes[0]")), "{wrong}");
    assert_eq!(call(&node, "POST /api/v1/config?dryrun", "", SHOP).0, 400, "a misspelt word writes nothing");
    let (status, nothing) = call(&node, "GET /api/v1/nothing", "", "");
    assert_eq!((status, &nothing["code"]), (404, &json!("not_found")));
}

#[test]
fn the_stream_of_events_begins_where_its_reader_was() {
    let node = Node::start();
    let first = call(&node, "POST /api/v1/config?message=one", "", SHOP).1["revision"].as_u64().unwrap();
    let second = call(&node, "DELETE /api/v1/routes/orders?message=two", "", "").1["revision"].as_u64().unwrap();
    let events = send(&node, &format!("GET /api/v1/events?since={first}"), "", "");
    let mut lines = BufReader::new(events).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains(" 200 "));
    // Chunks have lines of their own between those of the events.
    let mut next = |start: &str| lines.find_map(|line| line.strip_prefix(start).map(str::to_owned)).unwrap();
    assert_eq!(next("id: "), second.to_string());
    let told = json_of(&next("data: "));
    assert_eq!((&told["event"], &told["revision"]["message"]), (&json!("changed"), &json!("two")));
    assert_eq!(told["objects"][0]["name"], "orders");
    let third = call(&node, "POST /api/v1/config?message=three", "", SHOP).1["revision"].as_u64().unwrap();
    assert_eq!(next("id: "), third.to_string(), "a change is told as it comes");
}

/// The same write by gRPC.
async fn by_grpc(node: &Node, token: &str, path: &str) -> Result<(), Status> {
    let channel = Endpoint::from_shared(node.endpoint()).unwrap().connect().await.unwrap();
    let route = admin::Route {
        name: "orders".into(),
        meta: Some(admin::Meta { owner: "team".into(), ..Default::default() }),
        r#match: Some(admin::Match { path: Some(admin::r#match::Path::PathPrefix(path.into())), ..Default::default() }),
        action: Some(admin::route::Action::Upstream("shop".into())),
        ..Default::default()
    };
    let config = Some(admin::ConfigSet { routes: vec![route], ..Default::default() });
    let mut request = Request::new(admin::ApplyConfigRequest { config, ..Default::default() });
    request.metadata_mut().insert("authorization", format!("Bearer {}", token.trim()).parse().unwrap());
    ConfigClient::new(channel).apply_config(request).await.map(drop)
}

#[test]
fn a_viewer_a_stranger_to_the_owner_and_an_expired_admin_write_nothing_by_any_way() {
    let node = Node::start();
    let revision = call(&node, "POST /api/v1/config", "", SHOP).1["revision"].clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let make =
        |name: &str, words: &[&str]| node.check(&[&["admin-token", "create", name, "-q"], words].concat(), "", 0, &[]);
    let viewer = make("viewer", &["--role", "viewer"]);
    let stranger = make("stranger", &["--role", "operator", "--owner", "others"]);
    let expired = make("expired", &["--role", "admin", "--ttl", "1ms"]);
    let file = node.dir.path().join("token");
    let body = r#"{"owner": "team", "match": {"path_prefix": "/taken"}, "upstream": "shop"}"#;
    let mut command = vec!["route", "set", "orders", "--path-prefix", "/taken", "--upstream", "shop"];
    command.extend(["--admin-token-file", file.to_str().unwrap()]);
    for (token, status, reason) in
        [(&viewer, 403, "ROLE_TOO_LOW"), (&stranger, 403, "OWNER_FORBIDDEN"), (&expired, 401, "TOKEN_EXPIRED")]
    {
        let code = reason.to_ascii_lowercase();
        let (found, refused) = call(&node, "PUT /api/v1/routes/orders", token, body);
        assert_eq!((found, &refused["code"]), (status, &json!(code)), "by JSON: {refused}");
        let refused = runtime.block_on(by_grpc(&node, token, "/taken")).unwrap_err();
        assert_eq!(refused.get_details_error_info().unwrap().reason, reason, "by gRPC");
        std::fs::write(&file, token).unwrap();
        node.check(&command, "", 3, &[&format!("error[{code}]")]);
    }
    // Known callers are told what it is, whatever strangers at their address tried before.
    for _ in 0..30 {
        assert_eq!(call(&node, "GET /api/v1/config", "qga_nobody", "").0, 401);
    }
    let (found, refused) = call(&node, "PUT /api/v1/routes/orders", &viewer, body);
    assert_eq!((found, &refused["code"]), (403, &json!("role_too_low")), "{refused}");
    let shown = call(&node, "GET /api/v1/config", &viewer, "").1;
    assert_eq!((&shown["revision"], &shown["routes"][0]["match"]["path_prefix"]), (&revision, &json!("/orders")));
    let denials = call(&node, "GET /api/v1/audit?denials&limit=100", &viewer, "").1;
    assert!(denials["entries"].is_array());
    // One who may does, by the same three ways.
    let team = make("team", &["--role", "operator", "--owner", "team"]);
    assert_eq!(call(&node, "PUT /api/v1/routes/orders", &team, body).0, 200);
    runtime.block_on(by_grpc(&node, &team, "/by-grpc")).unwrap();
    let mine =
        r#"{"routes": [{"name": "orders", "owner": "team", "match": {"path_prefix": "/by-cli"}, "upstream": "shop"}]}"#;
    std::fs::write(&file, &team).unwrap();
    node.check(&["apply", "-f", "-", "--admin-token-file", file.to_str().unwrap()], mine, 0, &[]);
}

#[test]
fn what_a_tenant_owns_is_taken_by_no_way() {
    let node = Node::start();
    let town = r#"{"tenants": [{"name": "shop", "hosts": ["shop.test", "*.shop.test"], "quotas": {"routes": 1}}],
        "routes": [{"name": "shop", "owner": "shop", "match": {"hosts": ["shop.test"]}, "respond": {"status": 200}}]}"#;
    assert_eq!(call(&node, "POST /api/v1/config", "", town).0, 200);
    let token =
        node.check(&["admin-token", "create", "bank", "-q", "--role", "operator", "--owner", "bank"], "", 0, &[]);
    let file = node.dir.path().join("token");
    std::fs::write(&file, &token).unwrap();
    let taken = r#"{"owner": "bank", "priority": 9, "match": {"hosts": ["shop.test"]}, "respond": {"status": 200}}"#;
    let (status, refused) = call(&node, "PUT /api/v1/routes/x", &token, taken);
    assert_eq!((status, &refused["code"]), (403, &json!("owner_forbidden")), "{refused}");
    let as_bank = |args: &[&str], input: &str, code: i32, words: &[&str]| {
        node.check(&[args, &["--admin-token-file", file.to_str().unwrap()]].concat(), input, code, words)
    };
    let refused = &["error[owner_forbidden]", "belong to tenant \"shop\""];
    as_bank(&["route", "set", "x", "-f", "-"], &taken.replace("shop.test", "*.test"), 3, refused);
    let in_file = "routes:\n- {name: x, owner: bank, match: {hosts: [a.shop.test]}, respond: {status: 200}}\n";
    as_bank(&["apply", "-f", "-"], in_file, 3, refused);
    as_bank(&["tenant", "rm", "shop", "--yes"], "", 3, &["error["]);
    as_bank(&["apply", "-f", "-"], &in_file.replace("a.shop.test", "bank.test"), 0, &[]);
    // Its own quota, for whoever writes.
    let second = "routes:\n- {name: y, owner: shop, match: {hosts: [a.shop.test]}, respond: {status: 200}}\n";
    node.check(&["apply", "-f", "-"], second, 8, &["found 2 of the owners of tenant \"shop\"; allowed: 1"]);
    let shown = node.json(&["tenant", "get", "shop"], "");
    assert_eq!((&shown["hosts"], &shown["quotas"]["routes"]), (&json!(["shop.test", "*.shop.test"]), &json!(1)));
}
