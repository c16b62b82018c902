//! What somebody on call asks, and what a node answers: by the command line, and from another node.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use prost::Message;
use quorumgate_model::{command::Role, resource::Kind, ruleset::Ruleset};
use quorumgate_node::settings::Settings;
use quorumgate_proto::store::v1::DenialRecord;
use quorumgate_proxy::{AccessLog, ClientLimits, Freshness, Listener, Proxy};
use quorumgate_raft_store::own_chain::OwnChain;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    cli_node::{Node, SHOP, json_of, keys, program, text},
    json_api::call,
    members::{Home, SOON},
};

/// One request to the proxy; the whole answer.
fn ask(address: SocketAddr, line: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{line} HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub fn request_id(answer: &str) -> String {
    let field = answer.lines().find_map(|line| line.strip_prefix("x-request-id: "));
    field.unwrap_or_else(|| panic!("no id: {answer}")).to_owned()
}

fn proxy_of(node: &Node) -> SocketAddr {
    Settings::read(&node.data()).unwrap().proxy.listeners[0].address
}

#[test]
fn a_node_says_what_is_wrong_with_it_and_what_to_do() {
    let node = Node::start();
    let found = node.json(&["doctor"], "");
    let findings = found["findings"].as_array().unwrap();
    let checks: Vec<_> = findings.iter().map(|it| it["check"].as_str().unwrap()).collect();
    for check in [
        "quorum",
        "state_hash",
        "version",
        "reachable",
        "consensus",
        "routes",
        "journal",
        "clock",
        "fsync",
        "disk",
        "certificate",
        "udp_buffers",
        "file_descriptors",
        "access_log",
    ] {
        assert!(checks.contains(&check), "{check} in {checks:?}");
    }
    for finding in findings {
        assert_eq!(keys(finding), ["check", "node", "level", "found", "allowed", "fix"]);
        assert_eq!(finding["level"] == "ok", finding["fix"].is_null(), "{finding}");
    }
    let table = node.check(&["doctor"], "", 0, &[]);
    assert!(table.contains("√ ") && table.contains("quorum"), "{table}");
    let nagios = node.run(&["doctor", "-o", "nagios"], "");
    let line = text(&nagios.stdout);
    let word = ["OK", "WARNING", "CRITICAL", "UNKNOWN"][nagios.status.code().unwrap() as usize];
    assert!(line.starts_with(&format!("QUORUMGATE {word} - ")) && line.contains(" | critical="), "{line}");

    let health = node.check(&["cluster", "health", "-o", "nagios"], "", 0, &[]);
    assert!(health.starts_with("QUORUMGATE OK - ") && health.contains("| voters=1 "), "{health}");
    node.check(&["node", "ls", "-o", "nagios"], "", 2, &["nagios is for"]);
    let nobody = program().args(["--endpoint", "unix:/nowhere", "cluster", "health", "-o", "nagios"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(3));
    assert!(text(&nobody.stdout).starts_with("QUORUMGATE UNKNOWN - cannot reach"));
}

#[test]
fn requests_and_codes_are_explained_and_shown_as_they_come() {
    let node = Node::start();
    node.json(&["apply", "-f", "-"], SHOP);
    let proxy = proxy_of(&node);
    let id = request_id(&ask(proxy, "GET /orders/a%2fb"));
    let found = node.json(&["explain", "request", &id], "");
    assert_eq!((&found["code"], &found["status"], &found["node"]), (&json!("bad_path"), &json!(400), &json!("n1")));
    assert_eq!((&found["route"], &found["path"]), (&json!("orders"), &json!("/orders/a%2Fb")));
    assert_eq!(
        (&found["decision"]["phase"], &found["decision"]["policy"]),
        (&json!("canonical_path"), &json!("orders"))
    );
    assert!(found["revision"].as_u64() > Some(0) && found["help"].is_string(), "{found}");
    let shown = node.check(&["explain", "request", &id], "", 0, &[]);
    assert!(shown.starts_with("400 bad_path\n") && shown.contains("decided by canonical_path"), "{shown}");
    node.check(&["explain", "request", &Uuid::nil().to_string()], "", 4, &["remembers"]);

    let code = node.json(&["explain", "rate_limited"], "");
    assert_eq!((&code["status"], &code["phase"], &code["given"]), (&json!(429), &json!("limits"), &json!(true)));
    node.check(&["explain", "no_such_code"], "", 4, &["error[not_found]"]);
    assert!(node.check(&["explain", "-o", "name"], "", 0, &[]).lines().count() > 40);

    let mut tap = program();
    tap.args(["--endpoint", &node.endpoint(), "tap", "--status", "4xx", "-n", "1", "-o", "jsonl"]);
    let mut tapping = tap.stdout(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + SOON;
    while tapping.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "nothing was shown");
        ask(proxy, "GET /orders/%00");
    }
    let mut line = String::new();
    tapping.stdout.take().unwrap().read_to_string(&mut line).unwrap();
    assert_eq!(json_of(&line)["code"], "bad_path");

    let top = node.check(&["top", "-n", "1", "--every", "100ms", "-o", "jsonl"], "", 0, &[]);
    let page = json_of(&top);
    assert!(page["routes"].as_array().unwrap().iter().any(|it| it["route"] == "orders"), "{page}");
    assert_eq!(keys(&page)[..4], ["node", "revision", "seconds", "in_flight"]);
}

#[test]
fn the_log_is_shown_and_its_level_changed_while_the_node_runs() {
    let node = Node::start();
    let lines = node.check(&["logs", "-o", "jsonl"], "", 0, &[]);
    let said: Vec<Value> = lines.lines().map(json_of).collect();
    assert!(said.iter().any(|it| it["message"] == "ready" || it["message"] == "proxy listening"), "{lines}");
    assert_eq!(node.check(&["logs", "level"], "", 0, &[]), "info\n");
    let changed = node.json(&["logs", "level", "debug", "--for", "10m"], "");
    assert_eq!(
        (&changed["filter"], &changed["before"], &changed["for"]),
        (&json!("debug"), &json!("info"), &json!("10m"))
    );
    assert_eq!(node.check(&["logs", "level"], "", 0, &[]), "debug\n");
    node.check(&["logs", "level", "quorumgate_node=loud"], "", 8, &["filter"]);
    let lines = node.check(&["logs", "-n", "20"], "", 0, &[]);
    assert!(lines.contains("the log's filter is changed"), "{lines}");
}

#[test]
fn the_audit_trail_is_filtered_followed_and_tells_of_those_who_were_refused() {
    let node = Node::start();
    let mut follow = program();
    follow.args(["--endpoint", &node.endpoint(), "audit", "ls", "-f", "-o", "jsonl"]).stdout(Stdio::piped());
    let mut following = follow.spawn().unwrap();
    let mut made = BufReader::new(following.stdout.take().unwrap()).lines();
    node.json(&["apply", "-f", "-", "-m", "the shop"], SHOP);
    let entry = made.by_ref().map(|line| json_of(&line.unwrap())).find(|it| it["message"] == "the shop").unwrap();
    assert_eq!((&entry["rpc"], &entry["result"]), (&json!("Config/ApplyConfig"), &json!("ok")));
    following.kill().unwrap();
    following.wait().unwrap();

    let file = node.dir.path().join("trail.jsonl");
    let export = ["audit", "export", file.to_str().unwrap()];
    let first = node.json(&export, "")["written"].as_u64().unwrap();
    node.json(&["apply", "-f", "-", "-m", "moved"], &SHOP.replace("/orders", "/order"));
    assert_eq!(node.json(&export, "")["written"], 1, "what is new alone");
    let lines = std::fs::read_to_string(&file).unwrap();
    let sequences: Vec<u64> = lines.lines().map(|line| json_of(line)["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (1..=first + 1).collect::<Vec<_>>());
    node.json(&["route", "set", "other", "--host", "x.test", "--upstream", "shop"], "");
    let of_orders = node.json(&["audit", "ls", "--object", "route/orders", "--diff"], "");
    let messages: Vec<_> = of_orders["entries"].as_array().unwrap().iter().map(|it| it["message"].clone()).collect();
    assert_eq!(messages, ["moved", "the shop"]);
    let change = &of_orders["entries"][0]["changes"][0];
    assert_eq!(
        (&change["kind"], &change["name"], &change["action"]),
        (&json!("route"), &json!("orders"), &json!("updated"))
    );
    assert_eq!(change["before"]["match"]["path_prefix"], "/orders");
    assert_eq!(change["after"]["match"]["path_prefix"], "/order");
    let diff = node.check(&["audit", "ls", "--object", "route/orders", "--diff", "--limit", "1"], "", 0, &[]);
    assert!(diff.contains("+   path_prefix: /order\n"), "{diff}");
    let none = node.json(&["audit", "ls", "--actor", "nobody"], "");
    assert_eq!(none, json!({ "entries": [] }));
    node.check(&["audit", "ls", "--since", "yesterday"], "", 2, &["--since"]);
    node.check(&["audit", "ls", "--object", "orders"], "", 8, &["object", "route/orders"]);
    // What is made next is not looked at for these.
    for words in [&["--object", "route/orders"][..], &["--until", "1h"], &["--diff"]] {
        node.check(&[&["audit", "ls", "-f"], words].concat(), "", 2, &["cannot be used with"]);
    }

    // By a viewer, by one whose token has expired, by nobody; and by an operator of another owner.
    let (endpoint, ca) = (format!("https://{}", node.admin), node.data().join("tls/ca.pem"));
    let token = |name: &str, words: &[&str]| {
        let file = node.dir.path().join(name);
        let create = [&["admin-token", "create", name, "-q"], words].concat();
        std::fs::write(&file, node.check(&create, "", 0, &[])).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let outside = ["--endpoint", &endpoint, "--ca", ca.to_str().unwrap()];
    let viewer = token("viewer", &["--role", "viewer"]);
    let scoped = token("scoped", &["--role", "operator", "--owner", "others"]);
    // The last: what has expired is forgotten when another is made.
    let expired = token("expired", &["--role", "admin", "--ttl", "1ms"]);
    for (file, args, code) in [
        (&viewer, &["apply", "-f", "-"][..], 3),
        (&expired, &["node", "ls"], 3),
        (&scoped, &["apply", "-f", "-"], 3),
        (&scoped, &["node", "drain", "n1"], 3),
    ] {
        let all = [&outside[..], &["--admin-token-file", file], args].concat();
        node.check(&all, &SHOP.replace("/orders", "/mine"), code, &["error["]);
    }
    node.check(&[&outside[..], &["node", "ls"]].concat(), "", 3, &["error["]);
    let expected = ["no_credentials", "owner_forbidden", "owner_forbidden", "token_expired", "role_too_low"];
    let deadline = Instant::now() + SOON;
    let denials = loop {
        let denials = node.json(&["audit", "ls", "--denials"], "");
        if denials["entries"].as_array().unwrap().len() >= expected.len() {
            break denials;
        }
        assert!(Instant::now() < deadline, "{denials}");
    };
    let told: Vec<_> =
        denials["entries"].as_array().unwrap().iter().map(|it| it["summary"].as_str().unwrap()).collect();
    assert_eq!(told, expected);
    let last = &denials["entries"][4];
    assert_eq!(
        (&last["actor"], &last["rpc"], &last["result"], &last["node"]),
        (&json!("token/viewer"), &json!("Config/ApplyConfig"), &json!("denied"), &json!("n1"))
    );
    let verified = node.json(&["audit", "verify"], "");
    assert_eq!((&verified["verdict"], &verified["chains"][1]["checked"]), (&json!("whole"), &json!(5)));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test without a runtime waits for a file of another process")]
fn a_byte_changed_on_the_disk_is_named_by_audit_verify() {
    let mut node = Node::start();
    for number in 1..=6 {
        let route = SHOP.replace("/orders", &format!("/orders{number}"));
        node.json(&["apply", "-f", "-", "-m", &format!("message number {number};")], &route);
    }
    let (journal, words) = (node.data().join("journal/db"), b"message number 3;");
    let places = |bytes: &[u8]| -> Vec<usize> {
        bytes.windows(words.len()).enumerate().filter(|(_, it)| *it == words).map(|(at, _)| at).collect()
    };
    let deadline = Instant::now() + SOON;
    while places(&std::fs::read(&journal).unwrap()).is_empty() {
        assert!(Instant::now() < deadline, "the journal is not written");
        std::thread::sleep(Duration::from_millis(50));
    }
    let entries = node.json(&["audit", "ls"], "");
    let entries = entries["entries"].as_array().unwrap();
    let sequence = entries.iter().find(|it| it["message"] == "message number 3;").unwrap()["sequence"].clone();
    assert_eq!(node.json(&["audit", "verify"], "")["verdict"], "whole");

    let (dir, admin) = (std::mem::replace(&mut node.dir, tempfile::tempdir().unwrap()), node.admin.clone());
    drop(node);
    let mut bytes = std::fs::read(&journal).unwrap();
    for at in places(&bytes) {
        bytes[at + 8] ^= 0x01;
    }
    std::fs::write(&journal, bytes).unwrap();
    let node = Node::in_dir(dir, admin);
    let output = node.run(&["audit", "verify", "-o", "json"], "");
    assert_eq!(output.status.code(), Some(1));
    let verified = json_of(&text(&output.stdout));
    assert_eq!(verified["verdict"], "altered", "{verified}");
    assert_eq!(verified["chains"][0]["first_altered"], sequence, "{verified}");
    let words = format!("mutations: entry {sequence} altered");
    node.check(&["audit", "verify"], "", 1, &[&words]);
}

fn proxy(policies: Value, rules: Value) -> Proxy {
    let mut state = quorumgate_model::state::State { revision: 42, ..Default::default() };
    let all = [(Kind::Policy, policies), (Kind::Route, rules)];
    for (kind, words) in all.iter().flat_map(|(kind, list)| list.as_array().unwrap().iter().map(move |it| (kind, it))) {
        let resource = kind.parse(words.clone()).unwrap();
        state.resources.insert(resource.key(), quorumgate_model::change::stored(resource));
    }
    proxy_over(&state)
}

pub fn proxy_over(state: &quorumgate_model::state::State) -> Proxy {
    let settings = quorumgate_proxy::Settings {
        node: "n1".into(),
        region: "here".into(),
        listeners: vec![Listener { address: "127.0.0.1:0".parse().unwrap(), tls: None, merge_slashes: true }],
        workers: 1,
        access_log: AccessLog { default_on: false, path: None },
        trusted_proxies: Vec::new(),
        trusted_field: Default::default(),
        name_servers: Vec::new(),
        redaction: Default::default(),
        limits: ClientLimits::default(),
    };
    Proxy::start(settings, Arc::new(Ruleset::compile(state, None)), Arc::new(Freshness::default())).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_explains_what_another_has_served_and_knows_how_that_one_is() {
    let homes = [Home::founder("n1"), Home::new("n2")];
    let first = homes[0].run().await;
    let token = first.token(Role::Replica, Duration::from_secs(60)).await;
    homes[1].join(&homes[0], &token).await.unwrap();
    let second = homes[1].run().await;
    let index = first.consensus.state().index;
    second.consensus.wait_applied(index, SOON).await.unwrap();

    let policies = json!([
        {"name": "v1", "version": {"api": "orders", "version": "v1", "state": "retired"}},
        {"name": "models", "ai": {"provider": "openai", "models": [{"name": "small", "targets": [{"model": "m"}]}]}},
    ]);
    let serving = Arc::new(proxy(
        policies,
        json!([
            {"name": "gone", "match": {"path_prefix": "/v1"}, "respond": {"status": 200}, "policies": ["v1"]},
            {"name": "strict", "match": {"path_prefix": "/strict"}, "respond": {"status": 200}, "on_stale": "deny"},
            {"name": "reads", "match": {"path_prefix": "/reads", "methods": ["GET"]}, "respond": {"status": 200}},
            {"name": "chat", "match": {"path_prefix": "/chat"}, "upstream": "nobody", "policies": ["models"]},
        ]),
    ));
    let address = serving.addresses()[0];
    first.consensus.attach_proxy(serving.clone());
    let long = format!("GET /{}", "x".repeat(17 << 10));
    // Every code has its example in the proxy's tests; these have each kind of fact between them.
    for (line, code, phase, policy, rule, number) in [
        ("GET /strict", "state_stale", "freshness", "strict", "", None),
        ("GET /v1/x", "api_retired", "before_authentication", "v1", "retired", None),
        ("POST /reads", "method_not_allowed", "route", "", "GET, HEAD", None),
        (&long, "uri_too_long", "parse", "", "", Some(("uri_bytes_max", 16 << 10))),
    ] {
        let line = line.to_owned();
        let answer = tokio::task::spawn_blocking(move || ask(address, &line)).await.unwrap();
        let id: Uuid = request_id(&answer).parse().unwrap();
        let found = second.consensus.exchange(id, SOON).await.expect("the first node remembers");
        assert_eq!((found.node.as_str(), found.region.as_str(), found.code.as_str()), ("n1", "here", code));
        assert_eq!((found.phase.as_str(), found.policy.as_str(), found.rule.as_str()), (phase, policy, rule));
        assert_eq!(found.revision, 42, "{code}");
        let told = number.map(|(name, value)| found.numbers.get(name) == Some(&value));
        assert_ne!(told, Some(false), "{code}: {:?}", found.numbers);
    }
    assert!(second.consensus.exchange(Uuid::new_v4(), SOON).await.is_none());

    let callers = second.consensus.callers(SOON).await;
    let mut told: Vec<_> = callers.into_iter().map(|(_, it)| it.expect("it answers").callers).collect();
    told.sort_by_key(Vec::len);
    let [none, some] = &told[..] else { panic!("{told:?}") };
    assert_eq!((none.len(), some.len()), (0, 1));
    assert_eq!((&*some[0].policy, &*some[0].route, &*some[0].method, some[0].count), ("v1", "gone", "GET", 1));

    let chat = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let body = r#"{"model":"small","messages":[]}"#;
        let head = format!(
            "POST /chat/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}",
            body.len()
        );
        write!(stream, "{head}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = chat.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    // It is written just after the last byte.
    let asked = quorumgate_proto::peer::v1::AiUsageRequest { model: "small".into(), ..Default::default() };
    let mut used = Vec::new();
    for _ in 0..100 {
        let usage = second.consensus.ai_usage(&asked, SOON).await;
        used = usage.into_iter().flat_map(|(_, it)| it.expect("it answers").used).collect();
        if !used.is_empty() {
            break;
        }
    }
    let others = quorumgate_proto::peer::v1::AiUsageRequest { model: "large".into(), ..Default::default() };
    let others = second.consensus.ai_usage(&others, SOON).await;
    assert!(others.into_iter().all(|(_, it)| it.expect("it answers").used.is_empty()));
    let [row] = &used[..] else { panic!("{used:?}") };
    assert_eq!((&*row.model, &*row.target, row.requests, row.input_tokens), ("small", "m", 1, 0));

    let reports = second.consensus.reports(SOON).await;
    let names: Vec<_> = reports.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["n2", "n1"], "the asked one first");
    for it in &reports {
        let report = it.report.as_ref().expect("it reports");
        assert!(report.fsync_us.is_some() && report.disk_free_bytes.is_some() && report.files_max.is_some());
        assert!(it.ahead_ms.abs() < 2_000, "one machine has one clock: {} ms", it.ahead_ms);
    }
    assert!(!reports[0].report.as_ref().unwrap().round_trips.is_empty(), "it has a connection to the other");
    second.stop().await;
    first.stop().await;
}

const VERSIONS: &str = "\
policies:
- {name: orders-v1, version: {api: orders, version: v1, state: retired, successor: v2, successor_url: /v2/orders}}
- {name: orders-v2, version: {api: orders, version: v2}}
routes:
- {name: orders-v1, match: {path_template: '/v1/orders/{id}'}, respond: {status: 200}, policies: [orders-v1]}
- {name: orders-v2, match: {path_prefix: /v2/orders}, respond: {status: 200}, policies: [orders-v2]}
";

#[test]
fn versions_of_apis_and_their_callers_are_shown_alike_by_all_ways() {
    let node = Node::start();
    node.json(&["apply", "-f", "-"], VERSIONS);
    let gone = ask(proxy_of(&node), "GET /v1/orders/7");
    assert!(
        gone.starts_with("HTTP/1.1 410 ") && gone.contains("link: </v2/orders>; rel=\"successor-version\""),
        "{gone}"
    );
    let listed = node.json(&["api", "ls"], "");
    let versions: Vec<_> =
        listed["versions"].as_array().unwrap().iter().map(|it| (&it["version"], &it["now"])).collect();
    assert_eq!(json!(versions), json!([["v1", "retired"], ["v2", "published"]]));
    assert_eq!(listed["versions"][0]["routes"], json!(["orders-v1"]));
    assert_eq!(node.json(&["api", "get", "orders"], ""), listed);
    node.check(&["api", "get", "order"], "", 4, &["there are: orders"]);
    let called = node.json(&["api", "callers", "orders"], "");
    let it = &called["callers"][0];
    assert_eq!((&it["method"], &it["path"], &it["count"]), (&json!("GET"), &json!("/v1/orders/{id}"), &json!(1)));
    assert!(it["consumer"].is_null() && it["last_call"].is_string() && called["unanswered"] == json!([]), "{called}");
    assert_eq!(node.json(&["api", "callers", "--version", "v2"], "")["callers"], json!([]));
    for (path, expected) in [("apis", &listed), ("apis/orders", &listed), ("callers", &called)] {
        assert_eq!(&call(&node, &format!("GET /api/v1/{path}"), "", "").1, expected, "{path}");
    }
    let matched = node.json(&["route", "match", "GET", "http://a.test/v1/orders/7"], "");
    assert_eq!((&matched["status"], &matched["code"]), (&json!(410), &json!("api_retired")));
}

/// Of more than one call lists.
#[test]
fn an_export_begins_with_the_oldest_entry_that_is_kept() {
    const WRITTEN: usize = 10_050;
    let dir = Node::prepare(|_| ());
    let data = dir.path().join("n1");
    let record = DenialRecord { reason: "TOKEN_UNKNOWN".into(), count: 1, ..Default::default() };
    let written = vec![record.encode_to_vec(); WRITTEN];
    OwnChain::open(&data.join("denials")).unwrap().append(&written).unwrap();
    let admin = Settings::read(&data).unwrap().admin.listen.to_string();
    let node = Node::in_dir(dir, admin);
    let file = node.dir.path().join("denials.jsonl");
    let exported = node.json(&["audit", "export", file.to_str().unwrap(), "--denials"], "");
    assert_eq!((&exported["written"], &exported["missing"]), (&json!(WRITTEN), &json!(0)), "{exported}");
    let lines = std::fs::read_to_string(&file).unwrap();
    let sequences = lines.lines().map(|line| json_of(line)["sequence"].as_u64().unwrap());
    assert!(sequences.eq(1..=WRITTEN as u64), "each once, in order");
}

/// Every name in the text that begins as our metrics do, as the family that it belongs to.
fn families(text: &str) -> std::collections::BTreeSet<String> {
    let mut found = std::collections::BTreeSet::new();
    for (at, _) in text.match_indices("quorumgate_") {
        let name: String = text[at..].chars().take_while(|it| it.is_ascii_alphanumeric() || *it == '_').collect();
        found.insert(name.strip_suffix("_bucket").unwrap_or(&name).to_owned());
    }
    found
}

#[test]
fn every_metric_of_the_dashboard_and_of_the_alerts_exists_and_every_alert_has_its_runbook() {
    let node = Node::start();
    node.json(&["apply", "-f", "-"], SHOP);
    let telemetry = Settings::read(&node.data()).unwrap().telemetry.listen;
    let scraped = ask(telemetry, "GET /metrics");
    let file = |path: &str| {
        let path = format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let (dashboard, alerts) = (file("deploy/grafana/quorumgate.json"), file("deploy/prometheus/alerts.yaml"));
    json_of(&dashboard);
    for text in [&dashboard, &alerts] {
        let names = families(text);
        assert!(names.len() > 12, "{names:?}");
        for name in names {
            assert!(scraped.contains(&format!("# TYPE {name} ")), "there is no metric {name}");
        }
    }
    let operating = file("docs/OPERATING.md");
    let names: Vec<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        assert!(operating.contains(&format!("\n### {name}\n")), "{name} has no runbook");
        assert!(alerts.contains(&format!("runbook_url: docs/OPERATING.md#{}\n", name.to_lowercase())), "{name}");
    }
}
