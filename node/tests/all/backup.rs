//! A cluster that was destroyed comes back from a backup; one that lost its quorum from what a node held.

use std::time::Duration;

use quorumgate_model::command::Role;
use serde_json::json;

use crate::{
    cli_node::{Node, SHOP, free_ports, json_of, program, text},
    members::{Home, SOON, three},
};

#[test]
fn a_destroyed_cluster_comes_back_from_its_backup_with_the_same_state() {
    let node = Node::start();
    let more = "consumers: [{name: acme}]\nauth: [{name: keys, api_key: {}}]\n";
    let revision = node.json(&["apply", "-f", "-", "-m", "the shop"], &format!("{SHOP}{more}"))["revision"].clone();
    node.json(&["key", "create", "acme"], "");
    let join = node.check(&["join-token", "create", "-q"], "", 0, &[]);
    let exported = node.check(&["export"], "", 0, &[]);
    let keys = node.json(&["key", "ls"], "");
    let (saved, sealed) = (node.dir.path().join("b.backup"), node.dir.path().join("s.backup"));
    let (file, sealed) = (saved.to_str().unwrap(), sealed.to_str().unwrap());
    let made = node.json(&["cluster", "backup", "save", file], "");
    assert_eq!((&made["revision"], &made["sealed"]), (&revision, &json!(false)));
    node.check(&["cluster", "backup", "save", file], "", 2, &["already"]);
    node.json(&["cluster", "backup", "save", sealed, "--passphrase-file", "-"], "correct horse");
    assert_eq!(node.json(&["cluster", "backup", "inspect", file], ""), made);
    assert_eq!(node.json(&["cluster", "verify"], "")["verdict"], "equal");

    let (ports, peer) = free_ports();
    let place = |dir: &str| {
        let mut args = vec!["--name", "r1", "--region", "eu", "--proxy-listen", &ports[0], "--admin-listen", &ports[1]];
        args.extend(["--telemetry-listen", &ports[2], "--peer-listen", &peer, "--data-dir", dir]);
        args.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let restore = |file: &str, dir: &str, rest: &[&str]| {
        let output = program().args(["cluster", "restore", file]).args(place(dir)).args(rest).output().unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let new = tempfile::tempdir().unwrap();
    let data = new.path().join("n1");
    let dir = data.to_str().unwrap();
    let (code, _, stderr) = restore(file, dir, &[]);
    assert_eq!((code, data.exists()), (2, false), "without a terminal it asks for --yes: {stderr}");
    let live = node.data();
    let (code, _, stderr) = restore(file, live.to_str().unwrap(), &["--yes"]);
    assert!(code == 2 && stderr.contains("a node lives there"), "{code} {stderr}");
    let (code, _, stderr) = restore(sealed, dir, &["--yes"]);
    assert!(code == 2 && stderr.contains("--passphrase-file"), "{code} {stderr}");

    let (code, stdout, stderr) = restore(file, dir, &["--yes", "-o", "json"]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(json_of(&stdout)["state_hash"], made["state_hash"]);
    let bumped = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) =
        restore(file, bumped.path().join("n1").to_str().unwrap(), &["--yes", "-o", "json", "--bump-revision"]);
    assert!(code == 0 && stderr.contains("before its index was raised"), "{stderr}");
    let bumped = json_of(&stdout);
    assert_eq!(bumped["state_hash"], made["state_hash"]);
    assert!(bumped["index"].as_u64() > made["index"].as_u64().map(|it| it + 1_000_000), "{bumped}");
    drop(node);
    let back = Node::in_dir(new, ports[1].clone());
    assert_eq!(back.check(&["export"], "", 0, &[]), exported);
    assert_eq!(back.json(&["key", "ls"], ""), keys);
    assert_eq!(back.json(&["history"], "")["revisions"][0]["message"], "the shop");
    assert_eq!(back.check(&["node", "ls", "-o", "name"], "", 0, &[]), "r1\n", "the old cluster's nodes are out");
    assert_eq!(back.json(&["join-token", "ls"], "")["tokens"], json!([]), "{join}");
    let written = back.json(&["apply", "-f", "-"], &SHOP.replace("/orders", "/order"));
    assert!(written["revision"].as_u64() > revision.as_u64());
    back.json(&["rollback", &revision.to_string()], "");
    assert_eq!(back.check(&["export"], "", 0, &[]), exported, "old revisions came along");
    let trail = back.json(&["audit", "ls"], "")["entries"].to_string();
    assert!(trail.contains("restored from a backup") && trail.contains("the shop"), "{trail}");
}

#[test]
fn a_damaged_backup_is_refused_wherever_the_damage_is() {
    let node = Node::start();
    node.json(&["apply", "-f", "-"], SHOP);
    let path = node.dir.path().join("b");
    let file = path.to_str().unwrap();
    node.json(&["cluster", "backup", "save", file], "");
    let good = std::fs::read(&path).unwrap();
    for at in (0..good.len()).step_by(good.len() / 12) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, bad).unwrap();
        node.check(&["cluster", "backup", "inspect", file], "", 8, &["error[invalid]"]);
        std::fs::write(&path, &good[..at]).unwrap();
        node.check(&["cluster", "backup", "inspect", file], "", 8, &["error[invalid]"]);
    }
}

/// What a node that is stopped is recovered by.
fn recover(home: &Home) -> (i32, String, String) {
    home.settings.write(home.path()).unwrap();
    let output = program()
        .args(["cluster", "recover", "--force-new-cluster", "--yes", "-o", "json", "--data-dir"])
        .arg(home.path())
        .output()
        .unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_goes_on_alone_after_its_quorum_was_lost_for_good() {
    let (homes, mut members) = three().await;
    members[0].token(Role::Replica, Duration::from_secs(600)).await;
    let before = members[0].consensus.linearize(SOON).await.unwrap();
    let survivor = members.remove(0);
    survivor.consensus.wait_applied(before.index, SOON).await.unwrap();
    let (code, _, stderr) = recover(&homes[0]);
    assert!(code == 5 && stderr.contains("in use"), "a live node is not recovered: {stderr}");
    for member in members {
        member.kill().await;
    }
    survivor.kill().await;

    let (code, stdout, stderr) = recover(&homes[0]);
    assert_eq!(code, 0, "{stderr}");
    let report = json_of(&stdout);
    assert_eq!(report["lost_voters"], json!(["n2", "n3"]));
    assert!(report["last_index"].as_u64().unwrap() >= before.index, "{report}");
    assert!(stderr.contains("LOSS REPORT") && stderr.contains("LOST:"), "{stderr}");
    let (code, _, stderr) = recover(&homes[0]);
    assert!(code == 5 && stderr.contains("earlier recovery") && !stderr.contains("LOSS REPORT"), "{code} {stderr}");

    let alone = homes[0].run().await;
    alone.sees_voters(1).await;
    alone.sees("its own cluster", |it| it.state().nodes.len() == 1).await;
    let state = alone.consensus.linearize(SOON).await.unwrap();
    assert_ne!(state.cluster.as_ref().unwrap().id, before.cluster.as_ref().unwrap().id);
    assert_eq!(state.removed.len(), before.removed.len() + before.nodes.len());
    assert_eq!(state.resources, before.resources);
    // It grows again, with members that are new.
    let token = alone.token(Role::Voter, Duration::from_secs(60)).await;
    let fresh = Home::new("n4");
    fresh.join(&homes[0], &token).await.unwrap();
    let joined = fresh.run().await;
    let index = alone.consensus.state().index;
    joined.consensus.wait_applied(index, Duration::from_secs(20)).await.unwrap();
    let hashes = alone.consensus.state_hashes(SOON).await;
    assert!(hashes.len() == 2 && hashes[0].at == hashes[1].at && hashes[0].at.is_some());
    joined.stop().await;
    alone.stop().await;
}
