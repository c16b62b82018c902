//! Contracts over real sockets: what goes to the upstream, and what comes back from it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::*;

async fn gateway(contract: Value) -> (Gateway, Heard) {
    let (target, heard) = echo().await;
    let mut words = forward_all(target);
    words["policies"] = json!([{"name": "c", "contract": contract}]);
    words["routes"][0]["policies"] = json!(["c"]);
    (Gateway::start(words), heard)
}

fn orders() -> Value {
    json!({
        "body_max": "1KiB",
        "schemas": {"Order": {
            "type": "object", "required": ["sku"], "additionalProperties": false,
            "properties": {"sku": {"type": "string"}, "count": {"type": "integer"}, "parts": {"items": {"$ref": "#/schemas/Order"}}},
        }},
        "operations": [
            {"method": "GET", "path": "/orders/{id}", "parameters": [
                {"in": "path", "name": "id", "required": true, "schema": {"type": "integer"}},
                {"in": "query", "name": "limit", "schema": {"type": "integer", "maximum": 10}},
            ]},
            {"method": "POST", "path": "/orders", "body": {"required": true, "content": [
                {"type": "application/json", "schema": {"$ref": "#/schemas/Order"}},
                {"type": "application/octet-stream"},
            ]}},
            {"method": "PUT", "path": "/watched", "mode": "detect", "body": {"content": [
                {"type": "application/json", "schema": {"$ref": "#/schemas/Order"}},
            ]}},
            {"method": "PUT", "path": "/free", "mode": "off"},
        ],
    })
}

async fn send(gateway: &Gateway, request: &str, kind: &str, body: &str) -> String {
    let length = format!("content-length: {}", body.len());
    let kind = format!("content-type: {kind}");
    let fields = if kind.ends_with(' ') { vec![&*length] } else { vec![&*length, &*kind] };
    ask(gateway.address, request, &fields, body).await
}

const JSON: &str = "application/json";

#[tokio::test]
async fn parts_and_objects_in_names_are_held_against_the_contract() {
    let upload = json!({"type": "object", "required": ["id", "photo"], "properties": {"id": {"type": "integer"}}});
    let filter = json!({"type": "object", "additionalProperties": {"type": "integer"}});
    let (gateway, heard) = gateway(json!({
        "body_max": "1KiB",
        "operations": [{
            "method": "POST", "path": "/photos",
            "parameters": [{"in": "query", "name": "f", "style": "deep_object", "schema": filter}],
            "body": {"required": true, "content": [{
                "type": "multipart/form-data", "schema": upload, "encoding": [{"name": "photo", "types": ["image/*"]}],
            }]},
        }],
    }))
    .await;
    let body = |id: &str, kind: &str| {
        format!(
            "--X\r\nContent-Disposition: form-data; name=\"id\"\r\n\r\n{id}\r\n--X\r\nContent-Disposition: form-data; \
             name=\"photo\"; filename=\"a\"\r\nContent-Type: {kind}\r\n\r\nabc\r\n--X--\r\n"
        )
    };
    let kind = "multipart/form-data; boundary=X";
    let fine = body("7", "image/png");
    assert_eq!(status(&send(&gateway, "POST /photos?f[a]=1", kind, &fine).await), 200);
    assert!(heard.last().ends_with(&fine), "it goes on as it came");
    for (request, body, place) in [
        ("POST /photos?f[a]=x", &fine, json!(["query", "/f/a", "type"])),
        ("POST /photos", &body("x", "image/png"), json!(["body", "/id", "type"])),
        ("POST /photos", &body("7", "text/html"), json!(["body", "/photo", "content_type"])),
        ("POST /photos", &fine.replace("--X--", ""), json!(["body", "", "syntax"])),
    ] {
        let answer = send(&gateway, request, kind, body).await;
        check_problem(&answer, 400, "validation_failed");
        let error = &problem(&answer)["errors"][0];
        assert_eq!(json!([error["in"], error["pointer"], error["rule"]]), place, "{answer}");
    }
    let large = body(&"7".repeat(2_000), "image/png");
    check_problem(&send(&gateway, "POST /photos", kind, &large).await, 413, "content_too_large");
    assert_eq!(heard.count(), 1);
    gateway.metric_becomes("quorumgate_http_buffered_bytes", 0).await;
}

#[tokio::test]
async fn what_is_not_in_the_contract_goes_nowhere() {
    let (gateway, heard) = gateway(orders()).await;
    for (request, kind, body) in [
        ("GET /orders/7?limit=5", "", ""),
        ("HEAD /orders/7", "", ""),
        ("POST /orders", JSON, r#"{"sku": "a", "parts": [{"sku": "b"}]}"#),
        ("PUT /free", "text/html", "x"),
    ] {
        assert_eq!(status(&send(&gateway, request, kind, body).await), 200, "{request}");
        assert!(heard.last().ends_with(body), "{}", heard.last());
    }
    // Not held, for nothing is asked of it.
    let large = "x".repeat(5_000);
    assert_eq!(status(&send(&gateway, "POST /orders", "application/octet-stream", &large).await), 200);
    assert_eq!(heard.count(), 5);

    let answer = send(&gateway, "POST /orders", JSON, r#"{"count": 1.5, "parts": [{"sku": 7, "x/y": 1}]}"#).await;
    check_problem(&answer, 400, "validation_failed");
    let errors = &problem(&answer)["errors"];
    let found: Vec<_> = errors.as_array().unwrap().iter().map(|it| (&it["in"], &it["pointer"], &it["rule"])).collect();
    let expected = json!([
        ["body", "/sku", "required"],
        ["body", "/count", "type"],
        ["body", "/parts/0/sku", "type"],
        ["body", "/parts/0/x~1y", "additionalProperties"],
    ]);
    assert_eq!(json!(found), expected);

    for (request, kind, body, status, code) in [
        ("GET /orders/7?limit=50", "", "", 400, "validation_failed"),
        ("GET /orders/7?limit=5&limit=50", "", "", 400, "validation_failed"),
        ("GET /orders/x", "", "", 400, "validation_failed"),
        ("POST /orders", "", "", 400, "validation_failed"),
        ("POST /orders", JSON, r#"{"sku": "a", "sku": "b"}"#, 400, "validation_failed"),
        ("POST /orders", "text/plain", "x", 415, "unsupported_media_type"),
        ("POST /orders", "", "x", 415, "unsupported_media_type"),
        ("GET /orders/7", JSON, "{}", 415, "unsupported_media_type"),
        ("POST /orders", JSON, &format!("\"{}\"", "x".repeat(2_000)), 413, "content_too_large"),
        ("GET /other", "", "", 404, "unknown_operation"),
        ("DELETE /orders/7", "", "", 405, "unknown_operation"),
    ] {
        let answer = send(&gateway, request, kind, body).await;
        check_problem(&answer, status, code);
        if status == 405 {
            assert_eq!(field(&answer, "allow"), Some("GET"));
        }
    }
    assert_eq!(heard.count(), 5);
    gateway.metric_becomes("quorumgate_http_buffered_bytes", 0).await;
}

#[tokio::test]
async fn the_path_that_goes_on_is_the_one_that_is_looked_at() {
    let (gateway, heard) = gateway(orders()).await;
    // However it is written, it is what the upstream gets.
    for path in ["/orders/../orders/7", "/%6frders/7", "//orders///7", "/x/..//orders/%37"] {
        assert_eq!(status(&send(&gateway, &format!("GET {path}"), "", "").await), 200, "{path}");
        assert!(heard.last().starts_with("GET /orders/7\n"), "{path}: {}", heard.last());
    }
    let count = heard.count();
    for path in ["/free/../orders/x", "/%6frders/x", "//orders/%78", "/orders/7/../x"] {
        check_problem(&send(&gateway, &format!("GET {path}"), "", "").await, 400, "validation_failed");
    }
    // Nothing is open because it looks like what is.
    check_problem(&send(&gateway, "PUT /free/../orders/7", "", "").await, 405, "unknown_operation");
    assert_eq!(heard.count(), count);
}

#[tokio::test]
async fn where_it_only_detects_everything_goes_on_and_is_told() {
    let mut contract = orders();
    contract["mode"] = json!("detect");
    let (gateway, heard) = gateway(contract).await;
    for (request, kind, body, shadow) in [
        ("GET /orders/x", "", "", "c: type in path/id"),
        ("GET /nowhere", "", "", "c: unknown_operations"),
        ("POST /orders", "text/plain", "x", "c: content"),
        ("PUT /watched", JSON, r#"{"sku": 1}"#, "c: type in body/sku"),
        ("POST /orders", JSON, &format!("\"{}\"", "x".repeat(2_000)), "c: body_max in body"),
    ] {
        let answer = send(&gateway, request, kind, body).await;
        assert_eq!(status(&answer), 200, "{request}");
        assert!(heard.last().ends_with(body), "{request}");
        let id = field(&answer, "x-request-id").unwrap().parse().unwrap();
        let told = soon("something to tell", async {
            loop {
                if let Some(told) = gateway.proxy.exchange(id).await {
                    return told;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(told.shadow.iter().map(|it| &**it).collect::<Vec<_>>(), [shadow]);
    }
    let counted =
        |result: &str| gateway.metric(&format!("quorumgate_policy_total{{policy=\"c\",result=\"{result}\"}}"));
    assert_eq!((counted("detected"), counted("unseen"), counted("refused")), (4, 1, 0));
}

#[tokio::test]
async fn operations_that_are_unknown_may_pass() {
    let mut contract = orders();
    contract["unknown_operations"] = json!("allow");
    let (gateway, _heard) = gateway(contract).await;
    assert_eq!(status(&send(&gateway, "GET /other", "", "").await), 200);
    check_problem(&send(&gateway, "GET /orders/x", "", "").await, 400, "validation_failed");
}

/// An upstream that answers each request with the next of these, as they are.
async fn says(answers: Vec<String>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (answers, next) = (Arc::new(answers), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (answers, next) = (answers.clone(), next.clone());
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let answer = &answers[next.fetch_add(1, Relaxed) % answers.len()];
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

fn answer(head: &str, body: &str) -> String {
    format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn chunked(head: &str, chunks: &[&str]) -> String {
    let chunks: String = chunks.iter().map(|it| format!("{:x}\r\n{it}\r\n", it.len())).collect();
    format!("HTTP/1.1 {head}\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
}

fn promises(responses: &str) -> Value {
    json!({"responses": responses, "body_max": "1KiB", "operations": [{"method": "GET", "path": "/", "responses": [
        {"status": "200", "content": [
            {"type": "application/json", "schema": {"required": ["id"]}}, {"type": "text/event-stream"},
        ]},
        {"status": "4XX"},
    ]}]})
}

async fn answering(contract: Value, answers: Vec<String>) -> Gateway {
    let mut words = forward_all(says(answers).await);
    words["policies"] = json!([{"name": "c", "contract": contract}]);
    words["routes"][0]["policies"] = json!(["c"]);
    words["upstreams"][0]["retries"] = json!({"attempts": 0});
    Gateway::start(words)
}

#[tokio::test]
async fn answers_that_are_not_as_promised_become_502() {
    let large = format!("[{}1]", "1,".repeat(1_000));
    let json = "200 OK\r\ncontent-type: application/json";
    let cases = [
        (answer(json, r#"{"id": 1}"#), 200),
        (answer(json, r#"{"x": 1}"#), 502),
        (chunked(json, &["{\"id\"", ": 1}"]), 200),
        (chunked(json, &["{\"x\"", ": 1}"]), 502),
        (answer("200 OK\r\ncontent-type: text/html", "<p>"), 502),
        (answer("404 Not Found\r\ncontent-type: text/html", "<p>"), 404),
        (answer("201 Created", ""), 502),
        (answer("503 Service Unavailable", ""), 503),
        // Never broken: more than is held goes on, told as unseen.
        (answer(json, &large), 200),
        (chunked(json, &[&large[..600], &large[600..]]), 200),
        (chunked("200 OK\r\ncontent-type: text/event-stream", &["data: 1\n\n", "data: 2\n\n"]), 200),
    ];
    let gateway = answering(promises("enforce"), cases.iter().map(|(answer, _)| answer.clone()).collect()).await;
    for (expected, code) in &cases {
        let answer = send(&gateway, "GET /", "", "").await;
        assert_eq!(status(&answer), *code, "{expected}");
        match *code {
            502 => check_problem(&answer, 502, "response_validation_failed"),
            _ if expected.contains("content-length") => assert_eq!(body(&answer), body(expected)),
            _ => {}
        }
        if expected.contains(&large[..600]) {
            assert!(answer.contains(&large[..600]), "it is whole");
        }
    }
    let counted =
        |result: &str| gateway.metric(&format!("quorumgate_policy_total{{policy=\"c\",result=\"{result}\"}}"));
    assert_eq!((counted("refused"), counted("unseen")), (4, 2));
    gateway.metric_becomes("quorumgate_http_buffered_bytes", 0).await;
}

#[tokio::test]
async fn no_answer_gets_into_the_cache_that_the_contract_forbids() {
    let json = "200 OK\r\ncontent-type: application/json\r\ncache-control:";
    let stale = format!("{json} max-age=0, stale-while-revalidate=100");
    let fresh = format!("{json} max-age=100");
    let answers = vec![answer(&stale, r#"{"id": 1}"#), answer(&fresh, r#"{"x": 1}"#), answer(&fresh, r#"{"id": 2}"#)];
    let mut words = forward_all(says(answers).await);
    words["policies"] = json!([{"name": "c", "contract": promises("enforce")}]);
    words["routes"][0]["policies"] = json!(["c"]);
    words["routes"][0]["cache"] = json!({});
    words["upstreams"][0]["retries"] = json!({"attempts": 0});
    let gateway = Gateway::start(words);
    assert_eq!(body(&send(&gateway, "GET /", "", "").await), r#"{"id": 1}"#);
    check_problem(&send(&gateway, "GET /", "", "").await, 502, "response_validation_failed");
    for _ in 0..2 {
        assert_eq!(body(&send(&gateway, "GET /", "", "").await), r#"{"id": 2}"#);
    }
}

#[tokio::test]
async fn what_is_more_than_is_held_is_kept_whole() {
    let large = "1".repeat(2_000);
    let said = chunked("200 OK\r\ncontent-type: application/json\r\ncache-control: max-age=100", &[&large]);
    let mut words = forward_all(says(vec![said]).await);
    words["policies"] = json!([{"name": "c", "contract": promises("enforce")}]);
    words["routes"][0]["policies"] = json!(["c"]);
    words["routes"][0]["cache"] = json!({});
    let gateway = Gateway::start(words);
    for _ in 0..2 {
        let answer = send(&gateway, "GET /", "", "").await;
        assert!(answer.contains(&large), "{answer}");
    }
}

#[tokio::test]
async fn answers_are_held_against_each_contract() {
    let json = "200 OK\r\ncontent-type: application/json";
    let cases = [
        (answer(json, r#"{"x": 1}"#), 502),
        (chunked(json, &["{\"x\"", ": 1}"]), 502),
        (answer(json, r#"{"id": 1}"#), 200),
        (chunked(json, &["{\"id\"", ": 1}"]), 200),
    ];
    for order in [["lax", "strict"], ["strict", "lax"]] {
        let mut words = forward_all(says(cases.iter().map(|(answer, _)| answer.clone()).collect()).await);
        words["policies"] = json!([
            {"name": "lax", "contract": promises("detect")}, {"name": "strict", "contract": promises("enforce")},
        ]);
        words["routes"][0]["policies"] = json!(order);
        words["upstreams"][0]["retries"] = json!({"attempts": 0});
        let gateway = Gateway::start(words);
        for (said, expected) in &cases {
            let answer = send(&gateway, "GET /", "", "").await;
            assert_eq!(status(&answer), *expected, "{order:?}: {said}");
            assert!(*expected == 502 || answer.contains(": 1}"), "{order:?}: {answer}");
        }
        gateway.metric_becomes("quorumgate_http_buffered_bytes", 0).await;
    }
}

#[tokio::test]
async fn answers_to_caches_ranges_and_head_pass_though_no_contract_lists_them() {
    let bodiless = |head: &str| format!("HTTP/1.1 {head}\r\nconnection: close\r\netag: \"1\"\r\n\r\n");
    let part = "206 Partial Content\r\ncontent-type: application/json\r\ncontent-range: bytes 0-1/9";
    let cases = [
        ("GET /", bodiless("304 Not Modified"), 304),
        ("GET /", bodiless("204 No Content"), 204),
        ("GET /", answer(part, "{\""), 206),
        ("HEAD /", bodiless("200 OK\r\ncontent-type: text/html\r\ncontent-length: 5"), 200),
        ("HEAD /", bodiless("301 Moved Permanently\r\ncontent-length: 0"), 301),
        // With a body of its own it is looked at.
        ("GET /", answer("301 Moved Permanently", ""), 502),
    ];
    let gateway = answering(promises("enforce"), cases.iter().map(|(_, answer, _)| answer.clone()).collect()).await;
    for (request, said, expected) in &cases {
        assert_eq!(status(&send(&gateway, request, "", "").await), *expected, "{request}: {said}");
    }
    assert_eq!(gateway.metric("quorumgate_policy_total{policy=\"c\",result=\"refused\"}"), 1);
}

#[tokio::test]
async fn answers_that_are_watched_pass_as_they_come() {
    let json = "200 OK\r\ncontent-type: application/json";
    let large = "1".repeat(2_000);
    let answers = vec![answer(json, r#"{"x": 1}"#), chunked(json, &["{\"x\"", ": 1}"]), chunked(json, &[&large])];
    let gateway = answering(promises("detect"), answers).await;
    for end in [r#"{"x": 1}"#, ": 1}", &large[..100]] {
        let answer = send(&gateway, "GET /", "", "").await;
        assert_eq!(status(&answer), 200);
        assert!(answer.contains(end), "{answer}");
    }
    for (result, count) in [("detected", 2), ("unseen", 1)] {
        gateway.metric_becomes(&format!("quorumgate_policy_total{{policy=\"c\",result=\"{result}\"}}"), count).await;
    }
    gateway.metric_becomes("quorumgate_http_buffered_bytes", 0).await;
}

#[tokio::test]
async fn a_watched_answer_does_not_wait_for_its_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let (go, mut gone) = tokio::sync::mpsc::channel::<()>(1);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await;
        let first =
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n2\r\n[1\r\n";
        stream.write_all(first.as_bytes()).await.unwrap();
        // Only once the client has it does the rest come.
        gone.recv().await;
        stream.write_all(b"1\r\n]\r\n0\r\n\r\n").await.unwrap();
        let _ = stream.read(&mut head).await;
    });
    let mut words = forward_all(target);
    words["policies"] = json!([{"name": "c", "contract": promises("detect")}]);
    words["routes"][0]["policies"] = json!(["c"]);
    let gateway = Gateway::start(words);
    let mut client = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut heard = Vec::new();
    soon("the first part", async {
        while !heard.ends_with(b"[1\r\n") {
            let mut bytes = [0; 1024];
            let count = client.read(&mut bytes).await.unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&heard));
            heard.extend_from_slice(&bytes[..count]);
        }
    })
    .await;
    go.send(()).await.unwrap();
    soon("the rest", client.read_to_end(&mut heard)).await.unwrap();
    assert!(heard.ends_with(b"0\r\n\r\n"));
}

#[tokio::test]
async fn several_policies_look_at_one_body() {
    let target = upstream(|_| async { Response::new(Full::new(Bytes::new())) }).await;
    let mut words = forward_all(target);
    words["policies"] = json!([{"name": "c", "contract": orders()}, {"name": "j", "json": {"max_depth": 1}}]);
    words["routes"][0]["policies"] = json!(["c", "j"]);
    let gateway = Gateway::start(words);
    assert_eq!(status(&send(&gateway, "POST /orders", JSON, r#"{"sku": "a"}"#).await), 200);
    let deep = send(&gateway, "POST /orders", JSON, r#"{"sku": "a", "parts": []}"#).await;
    assert_eq!(problem(&deep)["errors"][0]["rule"], "max_depth");
    let wrong = send(&gateway, "POST /orders", JSON, "{}").await;
    assert_eq!(problem(&wrong)["errors"][0]["rule"], "required");
}
