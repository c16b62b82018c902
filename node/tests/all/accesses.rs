//! Who has reached what, and that a person can be forgotten.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli_node::{Node, SHOP};

const SOON: Duration = Duration::from_secs(60);

#[expect(clippy::disallowed_methods, reason = "a test without a runtime polls a process")]
fn wait(node: &Node, what: &str, is: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let ends = Instant::now() + SOON;
    loop {
        let entries = node.json(&["audit", "ls", "--access"], "")["entries"].as_array().unwrap().clone();
        if is(&entries) {
            return entries;
        }
        assert!(Instant::now() < ends, "never {what}: {entries:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_was_reached_is_known_and_by_whom_until_that_is_erased() {
    let node = Node::start();
    node.json(&["apply", "-f", "-"], SHOP);
    let token = node.dir.path().join("token");
    std::fs::write(&token, node.check(&["admin-token", "create", "ann", "--role", "viewer", "-q"], "", 0, &[]))
        .unwrap();
    let as_ann = |words: &[&str], code| {
        node.check(&[words, &["--admin-token-file", token.to_str().unwrap()]].concat(), "", code, &[])
    };
    as_ann(&["node", "ls"], 0);
    as_ann(&["route", "get", "nothing"], 4);
    let of = |entry: &Value, actor: &str, rpc: &str| entry["actor"] == actor && entry["rpc"] == rpc;
    let entries = wait(&node, "seen", |all| all.iter().any(|it| of(it, "token/ann", "Config/GetRoute")));
    let found = |rpc: &str| entries.iter().find(|it| of(it, "token/ann", rpc)).unwrap_or_else(|| panic!("{rpc}"));
    assert_eq!(found("Cluster/ListNodes")["result"], "ok");
    assert_eq!(
        (&found("Config/GetRoute")["result"], &found("Config/GetRoute")["count"]),
        (&json!("not_found"), &json!(1))
    );

    node.check(&["audit", "erase", "token/ann"], "", 2, &["--yes"]);
    node.check(&["audit", "erase", "token/ann", "--yes"], "", 0, &[]);
    let is_gone = |all: &[Value]| !all.iter().any(|it| it["actor"] == "token/ann");
    let entries = wait(&node, "erased", is_gone);
    let erased = |it: &&Value| it["actor"].as_str().is_some_and(|name| name.starts_with("erased/"));
    assert!(entries.iter().filter(erased).count() >= 2, "{entries:?}");
    let verified = node.json(&["audit", "verify"], "");
    assert_eq!(
        (&verified["verdict"], &verified["chains"][2]["name"]),
        (&json!("whole"), &json!("access")),
        "{verified}"
    );
}
