//! The command line as scripts see it, without a cluster: exit codes, stdout apart from stderr, stable forms.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

const GOOD: &str = "\
upstreams:
- {name: shop, targets: ['127.0.0.1:9000']}
routes:
- {name: all, upstream: shop}
";

fn quorumgate(args: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorumgate"));
    for name in ["QUORUMGATE_ENDPOINT", "QUORUMGATE_CA", "QUORUMGATE_ADMIN_TOKEN_FILE"] {
        command.env_remove(name);
    }
    let mut child =
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that reads nothing may have closed its input already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// The exit code, and words that stderr must have.
fn check(args: &[&str], input: &str, code: i32, words: &[&str]) -> String {
    let output = quorumgate(args, input);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{stdout}\n{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{args:?}: {word:?} is not in\n{stderr}");
    }
    stdout
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn mistakes_on_the_command_line_exit_2() {
    check(&[], "", 2, &["Usage"]);
    check(&["frob"], "", 2, &["unrecognized"]);
    check(&["init", "--name", "n1"], "", 2, &["--region"]);
    check(&["init", "--name", "N1", "--region", "eu", "--data-dir", "/nowhere"], "", 2, &["--name", "lower-case"]);
    check(&["rollback"], "", 2, &["--previous"]);
    check(&["rollback", "3", "--previous"], "", 2, &["cannot be used"]);
    check(&["apply"], "", 2, &["--file"]);
    check(&["apply", "-f", "-", "--prune"], GOOD, 2, &["--owner"]);
    check(&["node", "ls", "-o", "xml"], "", 2, &["table"]);
    check(&["--endpoint", "ftp://x", "node", "ls"], "", 2, &["error[usage]", "help:", "unix:PATH"]);
    check(&["--endpoint", "https://127.0.0.1:1", "node", "ls"], "", 2, &["--ca"]);
    check(&["--timeout", "soon", "node", "ls"], "", 2, &["250ms"]);
    check(&["validate", "-f", "/nowhere/at/all.yaml"], "", 2, &["/nowhere/at/all.yaml"]);
}

#[test]
fn what_removes_something_exits_2_without_a_terminal_and_without_yes() {
    let endpoint = ["--endpoint", "unix:/nowhere/admin.sock"];
    for verb in [&["route", "rm", "all"][..], &["upstream", "rm", "shop"]] {
        let args = [&endpoint, verb].concat();
        check(&args, GOOD, 2, &["error[usage]", "--yes"]);
        check(&[&args[..], &["--yes"]].concat(), GOOD, 6, &["error[unavailable]"]);
    }
    // What they would remove is looked up first.
    for verb in
        [&["node", "rm", "n1"][..], &["node", "leave", "n1"], &["apply", "-f", "-", "--prune", "--owner", "team"]]
    {
        check(&[&endpoint, verb].concat(), GOOD, 6, &["error[unavailable]"]);
    }
}

#[test]
fn a_node_that_is_not_there_exits_6() {
    for args in [&["node", "ls"][..], &["cluster", "status"], &["history"], &["export"], &["rollback", "--previous"]] {
        let args = [&["--endpoint", "unix:/nowhere/admin.sock"], args].concat();
        let stdout = check(&args, "", 6, &["error[unavailable]", "unix:/nowhere/admin.sock", "help:"]);
        assert_eq!(stdout, "", "stdout is for data");
    }
}

#[test]
fn a_node_that_does_not_answer_in_time_exits_7() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    // It takes the connection and says nothing.
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let endpoint = format!("unix:{}", socket.display());
    let args = ["--endpoint", &endpoint, "--timeout", "200ms", "apply", "-f", "-"];
    check(&args, GOOD, 7, &["error[deadline]", "--request-id"]);
}

#[test]
fn what_cannot_be_a_configuration_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("huge.yaml");
    // Letters of two bytes from an odd place on: the limit falls into the middle of one.
    std::fs::write(&file, format!("#{}", "é".repeat(33 << 19))).unwrap();
    for verb in ["validate", "apply", "fmt"] {
        check(&[verb, "-f", file.to_str().unwrap()], "", 2, &["huge.yaml", "larger than 32 MiB", "in parts"]);
    }
    std::fs::write(&file, b"upstreams: \xff\xfe").unwrap();
    check(&["validate", "-f", file.to_str().unwrap()], "", 2, &["UTF-8", "byte 11"]);
    for target in ["127.0.0.1:99999", "127.0.0.1:", "127.0.0.1:nine", "127.0.0.1:0"] {
        let config = format!("upstreams:\n- {{name: shop, targets: ['{target}']}}\n");
        check(&["validate", "-f", "-"], &config, 8, &["targets", target, "<stdin>:2"]);
    }
    let init = ["init", "--name", "n1", "--region", "eu", "--data-dir", "/nowhere"];
    check(&[&init[..], &["--admin-listen", "127.0.0.1:99999"]].concat(), "", 2, &["--admin-listen", "99999"]);
    for endpoint in ["https://127.0.0.1:99999", "https://127.0.0.1:nine", "https://127.0.0.1"] {
        check(&["--endpoint", endpoint, "node", "ls"], "", 2, &["--endpoint", endpoint, "https://HOST:PORT"]);
    }
}

/// Whatever else listens there: the connection is what failed, exit 6, within the timeout.
#[test]
fn a_port_that_speaks_something_else_is_no_node() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"220 mail.test ESMTP\r\n");
        }
    };
    std::thread::Builder::new().spawn(answer).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("n1");
    check(&["init", "--name", "n1", "--region", "eu", "--data-dir", data.to_str().unwrap()], "", 0, &[]);
    let (endpoint, ca) = (format!("https://{address}"), data.join("tls/ca.pem"));
    let args = ["--endpoint", &endpoint, "--ca", ca.to_str().unwrap(), "--timeout", "5s", "node", "ls"];
    check(&args, "", 6, &["error[unavailable]", &endpoint, "help:"]);
}

#[test]
fn bad_settings_exit_78() {
    check(&["run", "--data-dir", "/nowhere/at/all"], "", 78, &["error[settings]", "settings.toml"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("settings.toml");
    std::fs::write(&file, "[node]\nname = \"n1\"\nregoin = \"eu\"\n").unwrap();
    check(&["run", "-c", file.to_str().unwrap()], "", 78, &["regoin", "region"]);

    let data = dir.path().join("n1");
    let data = data.to_str().unwrap();
    check(&["init", "--name", "n1", "--region", "eu", "--data-dir", data], "", 0, &[]);
    let good = std::fs::read_to_string(format!("{data}/settings.toml")).unwrap();
    // Good settings, and a directory that nobody has prepared.
    std::fs::write(&file, &good).unwrap();
    check(&["run", "-c", file.to_str().unwrap()], "", 78, &["error[settings]", "was not prepared"]);
    std::fs::write(format!("{data}/preparing"), "").unwrap();
    check(&["run", "--data-dir", data], "", 78, &["error[settings]", "prepared by half"]);
    std::fs::remove_file(format!("{data}/preparing")).unwrap();
    std::fs::write(&file, good.replace("log = \"info\"", "log = \"a=b=c\"")).unwrap();
    check(&["run", "-c", file.to_str().unwrap(), "--data-dir", data], "", 78, &["telemetry.log", "a=b=c"]);
    let tls = "certificate_file = \"/no/such.pem\"\nkey_file = \"/no/such.key\"\nmerge_slashes";
    std::fs::write(&file, good.replace("merge_slashes", tls)).unwrap();
    check(&["run", "-c", file.to_str().unwrap(), "--data-dir", data], "", 78, &["proxy.listeners[0]", "/no/such.pem"]);
}

#[test]
fn init_refuses_an_address_that_nobody_can_dial() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("n1");
    let base = ["init", "--name", "n1", "--region", "eu", "--data-dir", dir.to_str().unwrap()];
    check(&[&base[..], &["--peer-listen", "0.0.0.0:8400"]].concat(), "", 2, &["--advertise"]);
    check(&[&base[..], &["--max-rtt", "1h"]].concat(), "", 2, &["--max-rtt", "1ms to 2s"]);
    assert!(!dir.exists(), "nothing was prepared");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("mine"), "").unwrap();
    check(&base, "", 2, &["is not empty", "mine"]);
}

#[test]
fn a_good_file_is_valid_and_a_bad_one_exits_8() {
    assert_eq!(check(&["validate", "-f", "-"], GOOD, 0, &[]), "ok: 2 objects\n");
    let json = json_of(&check(&["validate", "-f", "-", "-o", "json"], GOOD, 0, &[]));
    assert_eq!(json, json!({ "valid": true, "objects": 2 }));
    let bad = GOOD.replace("upstream: shop", "upstrem: shop");
    for verb in ["validate", "apply", "diff"] {
        let stdout =
            check(&[verb, "-f", "-"], &bad, 8, &["error[invalid]", "<stdin>:4:15", "did you mean `upstream`?"]);
        assert_eq!(stdout, "", "nothing is asked of a cluster");
    }
}

#[test]
fn directories_are_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (upstreams, routes) = GOOD.split_at(GOOD.find("routes").unwrap());
    std::fs::write(dir.path().join("a.yaml"), upstreams).unwrap();
    std::fs::write(dir.path().join("b.yml"), routes).unwrap();
    std::fs::write(dir.path().join("c.json"), "{\"routes\": [{\"name\": \"j\", \"priority\": 1, \"respond\": {}}]}")
        .unwrap();
    std::fs::write(dir.path().join("notes.txt"), "not: read").unwrap();
    assert_eq!(check(&["validate", "-f", dir.path().to_str().unwrap()], "", 0, &[]), "ok: 3 objects\n");
}

#[test]
fn fmt_prints_rewrites_and_checks() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shop.yaml");
    let name = file.to_str().unwrap();
    std::fs::write(&file, GOOD).unwrap();
    let canonical = check(&["fmt", "-f", name], "", 0, &[]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), GOOD, "printing changes nothing");
    assert_eq!(check(&["fmt", "--check", "-f", name], "", 1, &["canonical"]), "");
    check(&["fmt", "--write", "-f", name], "", 0, &["rewrote"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), canonical);
    check(&["fmt", "--check", "-f", name], "", 0, &[]);
    assert_eq!(check(&["fmt", "-f", "-"], &canonical, 0, &[]), canonical, "a fixed point");
}

#[test]
fn json_has_every_field_of_an_object() {
    let json = json_of(&check(&["fmt", "-f", "-", "-o", "json"], GOOD, 0, &[]));
    let route = &json["routes"][0];
    assert_eq!(route["match"]["path_regex"], Value::Null);
    assert_eq!((&route["on_stale"], &route["body"]["max"]), (&json!("allow"), &json!("10MiB")));
    let target = json!({ "address": "127.0.0.1:9000", "weight": 1, "priority": 0, "zone": null });
    assert_eq!(json["upstreams"][0]["targets"], json!([target]));
    assert_eq!(json["upstreams"][0]["health"], Value::Null);
}

#[test]
fn what_needs_no_cluster_works_without_one() {
    let version = check(&["version"], "", 0, &[]);
    assert_eq!(version, format!("quorumgate {}\n", env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish"] {
        let script = check(&["completion", shell], "", 0, &[]);
        assert!(script.contains("transfer-leader"), "{shell}");
    }
    let schema = json_of(&check(&["schema"], "", 0, &[]));
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn help_shows_a_newcomer_the_first_five_minutes() {
    let help = check(&["--help"], "", 0, &[]);
    let (_, first) = help.split_once("The first five minutes:\n").unwrap();
    for verb in ["demo", "init", "run", "apply", "node ls"] {
        assert!(first.contains(verb), "{verb}");
    }
}

#[test]
fn contexts_name_clusters_and_one_is_current() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine/contexts.yaml");
    let with = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorumgate"));
        for name in ["QUORUMGATE_ENDPOINT", "QUORUMGATE_CA", "QUORUMGATE_ADMIN_TOKEN_FILE", "QUORUMGATE_CONTEXT"] {
            command.env_remove(name);
        }
        command.env("QUORUMGATE_CONTEXTS", &file).args(args).stdin(Stdio::null()).output().unwrap()
    };
    let check = |args: &[&str], code: i32, words: &str| {
        let output = with(args);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{stderr}");
        assert!(stderr.contains(words), "{args:?}: {words:?} is not in\n{stderr}");
        text(&output.stdout)
    };

    assert_eq!(json_of(&check(&["context", "ls", "-o", "json"], 0, "")), json!({ "contexts": [] }));
    check(&["--context", "prod", "node", "ls"], 4, "found \"prod\"; allowed: none is set");
    check(&["--endpoint", "unix:/nowhere/prod.sock", "context", "set", "prod"], 0, "context prod is set");
    check(&["--endpoint", "unix:near.sock", "context", "set", "near"], 0, "context near is set");
    check(&["--endpoint", "https://gw.test:1", "context", "set", "far"], 2, "--ca");
    check(&["--endpoint", "ftp://x", "context", "set", "far"], 2, "unix:PATH");
    check(&["context", "use", "far"], 4, "allowed: near, prod");

    // Nothing is current yet: the default endpoint is asked.
    check(&["node", "ls"], 6, "/var/lib/quorumgate/admin.sock");
    check(&["context", "use", "prod"], 0, "prod is the current one");
    check(&["node", "ls"], 6, "cannot reach unix:/nowhere/prod.sock");
    check(&["--context", "near", "node", "ls"], 6, "/near.sock");
    check(&["--endpoint", "unix:/else.sock", "node", "ls"], 6, "cannot reach unix:/else.sock");
    check(&["--endpoint", "unix:/else.sock", "--context", "near", "node", "ls"], 2, "cannot be used with");

    let list = json_of(&check(&["context", "ls", "-o", "json"], 0, ""));
    let near = &list["contexts"][0];
    assert_eq!((&near["name"], &near["current"], &near["ca"]), (&json!("near"), &json!(false), &Value::Null));
    assert!(near["endpoint"].as_str().unwrap().starts_with("unix:/"), "{near}");
    assert_eq!(list["contexts"][1]["current"], json!(true));

    check(&["context", "rm", "prod"], 2, "--yes");
    check(&["--yes", "context", "rm", "prod"], 0, "prod is removed");
    check(&["node", "ls"], 6, "/var/lib/quorumgate/admin.sock");
    std::fs::write(&file, "contexts: [{name: x, endpont: y}]").unwrap();
    check(&["context", "ls"], 2, "endpont");
}

#[test]
fn manual_pages_are_written_for_every_command() {
    let dir = tempfile::tempdir().unwrap();
    assert!(check(&["man"], "", 0, &[]).contains(".TH quorumgate"));
    check(&["man", "--dir", dir.path().to_str().unwrap()], "", 0, &[]);
    let page = std::fs::read_to_string(dir.path().join("quorumgate-node-ls.1")).unwrap();
    assert!(page.contains("List the nodes"), "{page}");
}
