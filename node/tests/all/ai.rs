//! A node before a provider of models: from a file with its key to the line that says what it cost.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use quorumgate_node::settings::Settings;
use serde_json::{Value, json};

use crate::{cli_node::Node, json_api::call};

const ANSWER: &str = r#"{"choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":200}}"#;

/// Answers always the same, and remembers what it heard.
#[expect(clippy::disallowed_methods, reason = "a test without a runtime has a thread for what is outside")]
fn provider() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, heard) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let told = heard.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut text = String::new();
            let mut bytes = [0; 4096];
            while !text.ends_with("}]}") && !text.ends_with("1024}") {
                let read = stream.read(&mut bytes).unwrap();
                assert!(read > 0, "{text}");
                text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
            }
            told.lock().unwrap().push(text);
            let length = ANSWER.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}");
            write!(stream, "{head}\r\nconnection: close\r\n\r\n{ANSWER}").unwrap();
        }
    });
    (address, heard)
}

fn chat(node: &Node, model: &str) -> String {
    let body = json!({"model": model, "messages": [{"role": "user", "content": "hello"}]}).to_string();
    let proxy = Settings::read(&node.data()).unwrap().proxy.listeners[0].address;
    let mut stream = TcpStream::connect(proxy).unwrap();
    let head =
        format!("POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}", body.len());
    write!(stream, "{head}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_providers_key_is_sealed_and_what_models_cost_is_told_alike_by_all_ways() {
    let node = Node::start();
    let (address, heard) = provider();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("provider.key"), "sk-of-the-provider\n").unwrap();
    let config = format!(
        r#"
auth:
- {{name: to-provider, upstream_key: {{key_file: provider.key}}}}
upstreams:
- {{name: provider, targets: ['{address}'], auth: to-provider}}
limits:
- {{name: tokens, per: global, limit: 5000, window: 1h, mode: local, cost: {{ai_tokens: total}}}}
policies:
- name: chat
  ai:
    provider: openai
    models: [{{name: small, targets: [{{model: m-1, input_price: 150000, output_price: 600000}}]}}]
routes:
- {{name: chat, match: {{path_prefix: /v1}}, upstream: provider, policies: [chat], limits: [tokens]}}
"#
    );
    let file = dir.path().join("models.yaml");
    std::fs::write(&file, config).unwrap();
    let file = file.to_str().unwrap();
    node.json(&["apply", "-f", file], "");
    let exported = node.check(&["export"], "", 0, &[]);
    assert!(exported.contains("sealed:") && !exported.contains("sk-of-the-provider"), "{exported}");
    assert_eq!(node.json(&["apply", "-f", "-"], &exported)["noop"], json!(true));
    node.check(&["upstream", "rm", "provider", "--yes"], "", 8, &["it is used by route"]);

    assert!(chat(&node, "small").starts_with("HTTP/1.1 200 "));
    let heard = heard.lock().unwrap().last().cloned().unwrap();
    assert!(heard.contains("authorization: Bearer sk-of-the-provider\r\n"), "{heard}");
    assert!(heard.contains(r#"{"model":"m-1","#) && heard.ends_with(r#""max_tokens":1024}"#), "{heard}");
    let unknown = chat(&node, "large");
    assert!(unknown.starts_with("HTTP/1.1 400 ") && unknown.contains("there are: small"), "{unknown}");

    // It is written just after the last byte.
    let mut asked = (0..100).map(|_| node.json(&["ai", "usage"], ""));
    let used = asked.find(|it| it["usage"] != json!([])).expect("a row of the request");
    let row = &used["usage"][0];
    let expected = json!({
        "day": row["day"], "consumer": null, "model": "small", "target": "m-1", "requests": 1, "estimated": 0,
        "input_tokens": 1000, "output_tokens": 200, "cost": "0.000270", "cost_micros": 270,
    });
    assert_eq!(row, &expected);
    let day = row["day"].as_str().unwrap();
    assert_eq!(node.json(&["limit", "usage", "tokens"], "")["keys"][0]["used"], json!(1200));
    for (more, rows) in [("--model=small", 1), ("--model=large", 0), ("--day=2020-01-01", 0), ("--consumer=acme", 0)] {
        assert_eq!(node.json(&["ai", "usage", more], "")["usage"].as_array().map(Vec::len), Some(rows), "{more}");
    }
    node.check(&["ai", "usage", "--day", "today"], "", 8, &["found \"today\"; allowed: a day such as"]);
    let csv = node.check(&["ai", "usage", "-o", "csv"], "", 0, &[]);
    let lines: Vec<_> = csv.lines().collect();
    assert_eq!(lines[0], "day,consumer,model,requests,input_tokens,output_tokens,cost,target,estimated");
    assert!(lines[1].starts_with(day) && lines[1].ends_with(",small,1,1000,200,0.000270,m-1,0"), "{csv}");
    node.check(&["version", "-o", "csv"], "", 2, &["csv"]);
    let shown: Value = call(&node, &format!("GET /api/v1/ai/usage?day={day}"), "", "").1;
    assert_eq!(shown, used);
}
