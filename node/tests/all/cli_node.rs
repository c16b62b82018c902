//! The command line against a real node: every verb, its JSON, its exit code.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use quorumgate_node::settings::Settings;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::addresses::address;

const PATIENCE: Duration = Duration::from_secs(60);
pub const SHOP: &str = "\
upstreams:
- {name: shop, owner: team, targets: ['127.0.0.1:9000']}
routes:
- name: orders
  owner: team
  match: {hosts: [shop.test], path_prefix: /orders}
  upstream: shop
- {name: all, owner: team, match: {hosts: [shop.test]}, upstream: shop}
";

/// A cluster of one, in a directory of its own; ends with the test.
pub struct Node {
    pub dir: TempDir,
    process: Child,
    pub admin: String,
}

impl Drop for Node {
    fn drop(&mut self) {
        // It is a child of this test and has nothing to lose.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Three TCP addresses and a UDP one.
pub fn free_ports() -> (Vec<String>, String) {
    ((0..3).map(|_| address().to_string()).collect(), address().to_string())
}

pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorumgate"));
    for name in ["QUORUMGATE_ENDPOINT", "QUORUMGATE_CA", "QUORUMGATE_ADMIN_TOKEN_FILE"] {
        command.env_remove(name);
    }
    command
}

impl Node {
    pub fn start() -> Self {
        Self::start_with(|_| ())
    }

    /// With other settings than `init` writes.
    pub fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        let dir = Self::prepare(change);
        let admin = Settings::read(&dir.path().join("n1")).unwrap().admin.listen.to_string();
        Self::in_dir(dir, admin)
    }

    /// A directory with `n1` in it, which has not run yet.
    pub fn prepare(change: impl FnOnce(&mut Settings)) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("n1");
        let (ports, peer) = free_ports();
        let mut init = program();
        init.args(["init", "--name", "n1", "--region", "eu", "--data-dir"]).arg(&data);
        init.args(["--proxy-listen", &ports[0], "--admin-listen", &ports[1], "--telemetry-listen", &ports[2]]);
        let output = init.args(["--peer-listen", &peer]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "", "stdout is for data");
        let mut settings = Settings::read(&data).unwrap();
        change(&mut settings);
        settings.write(&data).unwrap();
        dir
    }

    /// Of a directory `n1` that was prepared before.
    pub fn in_dir(dir: TempDir, admin: String) -> Self {
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let process = program()
            .args(["run", "--proxy-workers", "1", "--data-dir"])
            .arg(dir.path().join("n1"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut node = Self { dir, process, admin };
        node.wait_leader();
        node
    }

    #[expect(clippy::disallowed_methods, reason = "a test without a runtime polls a process")]
    fn wait_leader(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.run(&["cluster", "status", "-o", "json"], "");
            if output.status.success() && {
                let status = json_of(&text(&output.stdout));
                status["leader"].is_string() && status["healthy"] == true
            } {
                return;
            }
            let log = || std::fs::read_to_string(self.dir.path().join("log")).unwrap();
            assert!(self.process.try_wait().unwrap().is_none(), "the node ended: {}", log());
            assert!(Instant::now() < deadline, "no leader: {}\n{}", text(&output.stderr), log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("n1")
    }

    pub fn endpoint(&self) -> String {
        format!("unix:{}/admin.sock", self.data().display())
    }

    pub fn run(&self, args: &[&str], input: &str) -> Output {
        let mut command = program();
        command.env("QUORUMGATE_ENDPOINT", self.endpoint()).args(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A command that reads nothing may have closed its input already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// The exit code, and words that stderr must have; returns stdout.
    pub fn check(&self, args: &[&str], input: &str, code: i32, words: &[&str]) -> String {
        let output = self.run(args, input);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{stdout}\n{stderr}");
        for word in words {
            assert!(stderr.contains(word), "{args:?}: {word:?} is not in\n{stderr}");
        }
        stdout
    }

    pub fn json(&self, args: &[&str], input: &str) -> Value {
        json_of(&self.check(&[args, &["-o", "json"]].concat(), input, 0, &[]))
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

pub fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn certificates_of_nodes_say_until_when() {
    let node = Node::start();
    let output = node.run(&["node", "certs", "-o", "json"], "");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let certificate = &json_of(&text(&output.stdout))["certificates"][0];
    assert_eq!((&certificate["node"], &certificate["state"]), (&json!("n1"), &json!("valid")));
    let (left, until) = (certificate["expires_in"].as_str().unwrap(), certificate["not_after"].as_str().unwrap());
    assert_eq!(left, "71h", "3 days, of which a moment is over");
    assert!(until.ends_with('Z'), "{until}");
}

#[test]
fn files_are_applied_exported_and_rolled_back() {
    let node = Node::start();
    let written = node.json(&["apply", "-f", "-", "-m", "the shop"], SHOP);
    assert_eq!(keys(&written), ["revision", "noop", "changes", "nodes", "warnings", "request_id", "trial_until"]);
    let revision = written["revision"].as_u64().unwrap();
    assert_eq!((&written["noop"], &written["changes"]["created"]), (&json!(false), &json!(3)));
    let first = json!({ "kind": "upstream", "name": "shop", "action": "created" });
    assert_eq!(written["changes"]["objects"][0], first);
    assert_eq!(keys(&written["nodes"][0]), ["name", "applied_revision", "applied_at", "unreachable"]);
    assert_eq!(
        (&written["nodes"][0]["name"], &written["nodes"][0]["applied_revision"]),
        (&json!("n1"), &json!(revision))
    );

    let again = node.json(&["apply", "-f", "-"], SHOP);
    assert_eq!((&again["noop"], &again["revision"]), (&json!(true), &json!(revision)));

    let exported = node.check(&["export"], "", 0, &[]);
    assert_eq!(node.check(&["diff", "-f", "-", "--exit-code"], &exported, 0, &[]), "", "export | diff is empty");
    let changed = exported.replace("/orders", "/order");
    let diff = node.check(&["diff", "-f", "-", "--exit-code"], &changed, 1, &[]);
    assert!(diff.contains("updated route/orders\n") && diff.contains("-   path_prefix: /orders\n"), "{diff}");
    assert!(diff.contains("+   path_prefix: /order\n"), "{diff}");
    node.check(&["diff", "-f", "-"], &changed, 0, &[]);

    let notes = ["active on 1/1 nodes", "undo: quorumgate rollback --previous"];
    node.check(&["apply", "-f", "-"], &changed, 0, &notes);
    node.check(&["rollback", "--previous"], "", 0, &notes);
    assert_eq!(node.check(&["export"], "", 0, &[]), exported, "byte for byte");

    let history = node.json(&["history"], "");
    let revisions = history["revisions"].as_array().unwrap();
    assert_eq!(keys(&revisions[0])[..5], ["revision", "time", "actor", "message", "changes"]);
    assert_eq!(revisions.last().unwrap()["message"], "the shop");
    assert_eq!(revisions.last().unwrap()["changes"], json!({ "created": 3, "updated": 0, "deleted": 0 }));
    let lines = node.check(&["history", "-o", "jsonl"], "", 0, &[]);
    assert_eq!(lines.lines().map(json_of).collect::<Vec<_>>(), *revisions);
    let shown = node.json(&["history", "show", &revision.to_string()], "");
    assert_eq!(shown["objects"].as_array().unwrap().len(), 3);
    node.check(&["rollback", "999999"], "", 4, &["error["]);
    node.check(&["apply", "-f", "-", "--if-revision", "1"], &changed, 5, &["error[conflict]", "help:"]);
}

#[test]
fn a_file_with_one_bad_object_changes_nothing_and_says_where() {
    let node = Node::start();
    let bad = SHOP.replace("hosts: [shop.test]}, upstream: shop", "hosts: [shop.test]}, upstream: shup");
    let place = "<stdin>:8:";
    node.check(&["apply", "-f", "-"], &bad, 8, &["error[", "routes[1].upstream", place, "^^^^", "allowed"]);
    let same = format!("{SHOP}- {{name: twin, match: {{hosts: [shop.test]}}, upstream: shop}}\n");
    node.check(&["apply", "-f", "-"], &same, 8, &["twin", "all"]);
    assert_eq!(node.check(&["export"], "", 0, &[]), "{}\n");
    assert_eq!(node.json(&["history"], ""), json!({ "revisions": [] }));
}

#[test]
fn prune_deletes_what_the_owner_left_out() {
    let node = Node::start();
    node.json(&["apply", "-f", "-"], SHOP);
    node.json(&["route", "set", "mine", "--host", "mine.test", "--upstream", "shop"], "");
    let fewer = &SHOP[..SHOP.find("- {name: all").unwrap()];
    let prune = ["apply", "-f", "-", "--prune", "--owner", "team"];
    node.check(&prune, fewer, 2, &["--prune deletes 1: route/all", "--yes"]);
    let dry = node.check(&[&prune[..], &["--dry-run"]].concat(), fewer, 0, &[]);
    assert!(dry.starts_with("deleted route/all\n"), "{dry}");
    let written = node.json(&[&prune[..], &["--yes"]].concat(), fewer);
    assert_eq!(written["changes"]["objects"], json!([{ "kind": "route", "name": "all", "action": "deleted" }]));
    assert_eq!(node.check(&["route", "ls", "-o", "name"], "", 0, &[]), "mine\norders\n");
    // Nothing is deleted: there is nothing to ask.
    node.check(&prune, fewer, 0, &["no change"]);
}

#[test]
fn a_trial_is_confirmed_or_aborted() {
    let node = Node::start();
    let written = node.json(&["apply", "-f", "-", "--try", "10m"], SHOP);
    assert!(written["trial_until"].is_string(), "{written}");
    let exported = node.check(&["export"], "", 0, &[]);
    node.check(&["confirm", &written["revision"].to_string()], "", 0, &[]);
    node.json(&["apply", "-f", "-", "--try", "10m"], "routes: [{name: more, upstream: shop}]");
    node.check(&["abort"], "", 0, &[]);
    assert_eq!(node.check(&["export"], "", 0, &[]), exported);
    node.check(&["abort"], "", 4, &["error[no_trial]"]);
}

#[test]
fn objects_are_set_shown_matched_and_removed_one_at_a_time() {
    let node = Node::start();
    node.json(&["upstream", "set", "shop", "--target", "127.0.0.1:9000", "--balance", "round_robin"], "");
    node.json(&["route", "set", "orders", "--host", "shop.test", "--path-prefix", "/orders", "--upstream", "shop"], "");
    node.json(&["route", "set", "all", "-f", "-"], "upstream: shop\nmatch: {hosts: [shop.test]}\n");
    node.check(&["route", "set", "x", "-f", "-"], "upstrem: shop\n", 8, &["did you mean `upstream`?"]);
    node.check(&["route", "set", "x", "--upstream", "shop", "--path-prefix", "nope"], "", 8, &["path_prefix", "nope"]);

    let route = node.json(&["route", "get", "orders"], "");
    assert_eq!((&route["upstream"], &route["match"]["methods"]), (&json!("shop"), &json!([])));
    assert!(route["etag"].as_str().is_some_and(|it| !it.is_empty()));
    node.check(&["route", "get", "nobody"], "", 4, &["error[not_found]"]);
    let balance = json!({ "policy": "round_robin", "hash_on": null });
    assert_eq!(node.json(&["upstream", "ls"], "")["upstreams"][0]["balance"], balance);

    let found = node.json(&["route", "match", "GET", "http://shop.test/orders/1"], "");
    assert_eq!(keys(&found), ["status", "code", "route", "upstream", "beaten", "phases", "near_misses"]);
    assert_eq!((&found["route"], &found["upstream"]), (&json!("orders"), &json!("shop")));
    assert_eq!((&found["beaten"][0]["route"], &found["status"]), (&json!("all"), &Value::Null));
    let elsewhere = node.json(&["route", "match", "GET", "http://shop.test/x"], "");
    assert_eq!((&elsewhere["route"], &elsewhere["beaten"]), (&json!("all"), &json!([])), "orders does not match");
    assert_eq!(elsewhere["near_misses"][0]["route"], "orders");
    node.check(&["route", "match", "GET", "http://shop.test:99999/"], "", 8, &["url", "99999"]);
    let none = node.json(&["route", "match", "GET", "http://other.test/"], "");
    assert_eq!((&none["status"], &none["route"]), (&json!(404), &Value::Null));

    node.check(&["route", "rm", "all"], "", 2, &["deletes route/all", "--yes"]);
    assert_eq!(node.json(&["route", "rm", "all", "--yes"], "")["changes"]["deleted"], 1);
    node.check(&["upstream", "rm", "shop", "--yes"], "", 8, &["orders"]);
}

#[test]
fn the_cluster_answers_for_itself() {
    let node = Node::start();
    let nodes = node.json(&["node", "ls"], "");
    let contract = ["name", "id", "region", "role", "state", "raft", "lag", "revision", "version"];
    assert_eq!(keys(&nodes["nodes"][0])[..contract.len()], contract);
    let first = &nodes["nodes"][0];
    assert_eq!((&first["name"], &first["role"], &first["raft"]), (&json!("n1"), &json!("voter"), &json!("leader")));
    assert_eq!(node.json(&["node", "get", "n1"], "")["region"], "eu");
    node.check(&["node", "get", "n9"], "", 4, &["error[not_found]", "n1"]);

    let status = node.json(&["cluster", "status"], "");
    for field in ["cluster", "leader", "term", "voters", "failure_tolerance", "revision", "healthy"] {
        assert!(!status[field].is_null(), "{field}: {status}");
    }
    assert_eq!((&status["voters"], &status["failure_tolerance"]), (&json!(1), &json!(0)));
    node.check(&["cluster", "set", "max-rtt", "10ms"], "", 0, &["max_rtt"]);
    assert_eq!(node.json(&["cluster", "status"], "")["max_rtt"], "10ms");
    assert_eq!(node.json(&["cluster", "verify"], "")["verdict"], "equal");
    node.check(&["node", "leave", "n1"], "", 2, &["node n1 (id 1, voter, ready)", "--yes"]);
    node.check(&["node", "leave", "n1", "--yes"], "", 5, &["error["]);
    node.check(&["node", "rm", "n1"], "", 2, &["node n1 (id 1, voter, ready)", "--yes"]);
    node.check(&["node", "rm", "n1", "--yes", "--force"], "", 5, &["error[asked_itself]", "ask another one"]);
    let made = node.json(&["join-token", "create"], "");
    let removed = node.json(&["join-token", "rm", made["id"].as_str().unwrap()], "");
    assert!(removed["request_id"].is_null(), "it could not be repeated under one: {removed}");
    let entries = node.json(&["audit", "ls"], "");
    assert!(entries["entries"].as_array().is_some_and(|it| !it.is_empty()));
}

#[test]
fn tokens_open_the_tls_listener_by_their_role() {
    let node = Node::start();
    let join = node.check(&["join-token", "create", "-q"], "", 0, &[]);
    assert!(join.starts_with("QGJT-1-") && join.lines().count() == 1, "the token and nothing else: {join:?}");
    assert_eq!(node.json(&["join-token", "ls"], "")["tokens"][0]["state"], "active");

    let token = node.dir.path().join("token");
    std::fs::write(&token, node.check(&["admin-token", "create", "reader", "--role", "viewer", "-q"], "", 0, &[]))
        .unwrap();
    let (endpoint, ca) = (format!("https://{}", node.admin), node.data().join("tls/ca.pem"));
    let outside = ["--endpoint", &endpoint, "--ca", ca.to_str().unwrap()];
    let known = [&outside[..], &["--admin-token-file", token.to_str().unwrap()]].concat();
    node.check(&[&outside[..], &["node", "ls"]].concat(), "", 3, &["error[", "--admin-token-file"]);
    node.check(&[&known[..], &["node", "ls"]].concat(), "", 0, &[]);
    node.check(&[&known[..], &["apply", "-f", "-"]].concat(), SHOP, 3, &["error["]);
    node.check(&[&known[..], &["apply", "--dry-run", "-f", "-"]].concat(), SHOP, 0, &[]);
    assert_eq!(node.json(&["route", "ls"], "")["routes"], json!([]));
    node.check(&["admin-token", "rm", "reader"], "", 0, &[]);
    node.check(&[&known[..], &["node", "ls"]].concat(), "", 3, &["error["]);
}

#[test]
fn watch_prints_each_revision_as_it_comes() {
    let node = Node::start();
    let mut watch = program();
    watch.args(["--endpoint", &node.endpoint(), "watch", "--since", "0", "-o", "jsonl"]).stdout(Stdio::piped());
    let mut watching = watch.spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let revision = node.json(&["apply", "-f", "-", "-m", "the shop"], SHOP)["revision"].clone();
    let changed = lines.by_ref().map(|line| json_of(&line.unwrap())).find(|it| it["event"] == "changed").unwrap();
    assert_eq!((&changed["revision"]["revision"], &changed["revision"]["message"]), (&revision, &json!("the shop")));
    assert_eq!(changed["objects"].as_array().unwrap().len(), 3);
    watching.kill().unwrap();
    watching.wait().unwrap();
}
