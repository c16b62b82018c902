//! Bodies of JSON that are made anew on the way to the upstream and back.

use std::sync::{Arc, Mutex};

use crate::support::*;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

/// What the upstream heard, and what it says; its own fields are those of the request that begin with `says-`.
#[derive(Clone, Default)]
struct Origin {
    heard: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    says: Arc<Mutex<Bytes>>,
}

impl Origin {
    fn last(&self) -> (HeaderMap, String) {
        let (headers, body) = self.heard.lock().unwrap().last().cloned().unwrap();
        (headers, String::from_utf8(body.to_vec()).unwrap())
    }

    fn count(&self) -> usize {
        self.heard.lock().unwrap().len()
    }

    fn says(&self, body: impl Into<Bytes>) {
        *self.says.lock().unwrap() = body.into();
    }
}

async fn gateway(route: Value) -> (Gateway, Origin) {
    let origin = Origin::default();
    let answers = origin.clone();
    let target = upstream(move |request| {
        let origin = answers.clone();
        async move {
            let (head, body) = request.into_parts();
            let mut answer = Response::builder().header("etag", "\"1\"").header("content-md5", "x");
            for (name, value) in &head.headers {
                match name.as_str().strip_prefix("says-") {
                    Some("status") => answer = answer.status(value.to_str().unwrap().parse::<StatusCode>().unwrap()),
                    Some(name) => answer = answer.header(name, value),
                    None => (),
                }
            }
            if let Ok(body) = body.collect().await {
                origin.heard.lock().unwrap().push((head.headers, body.to_bytes()));
            }
            answer.body(Full::new(origin.says.lock().unwrap().clone())).unwrap()
        }
    });
    let mut words = forward_all(target.await);
    for (name, value) in route.as_object().unwrap() {
        words["routes"][0][name] = value.clone();
    }
    (Gateway::start(words), origin)
}

async fn send(gateway: &Gateway, fields: &[&str], body: &[u8]) -> String {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let head = format!(
        "POST /x HTTP/1.1\r\nhost: api.test\r\nconnection: close\r\n{fields}content-length: {}\r\n\r\n",
        body.len()
    );
    raw(gateway.address, [head.as_bytes(), body].concat()).await
}

const JSON: &str = "content-type: application/json";
const SAYS_JSON: &str = "says-content-type: application/json; charset=utf-8";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn an_upstream_gets_the_body_that_the_route_makes() {
    let text = r#"{"id":${body.order.id},"who":"${client_ip}","first":${body.items.0}}"#;
    let (gateway, origin) = gateway(json!({ "rewrite": { "body": { "request": text, "max": "1KiB" } } })).await;
    let body = br#"{"order": {"id": 10000000000000000000001}, "items": ["a\"b", 2]}"#;
    let made = r#"{"id":10000000000000000000001,"who":"127.0.0.1","first":"a\"b"}"#;
    let fields = [JSON, "digest: x", "expect: 100-continue"];
    for (fields, body) in [
        (&fields[..], body.to_vec()),
        (&["content-type: application/vnd.x+json", "content-encoding: gzip"], gzip(body)),
        (&[], body.to_vec()),
    ] {
        let answer = send(&gateway, fields, &body).await;
        assert_eq!(status(&answer.replace("HTTP/1.1 100 Continue\r\n\r\n", "")), 200, "{answer}");
        let (headers, heard) = origin.last();
        assert_eq!(heard, made);
        assert_eq!(
            (headers["content-length"].to_str().unwrap(), headers["content-type"].to_str().unwrap()),
            (&*made.len().to_string(), "application/json")
        );
        assert!(!headers.contains_key("digest") && !headers.contains_key("content-encoding"), "{headers:?}");
    }
    // In chunks, and with trailers.
    let chunked = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n\
                   5\r\n{\"ite\r\n8\r\nms\":[3]}\r\n0\r\nx: y\r\n\r\n";
    assert_eq!(status(&raw(gateway.address, chunked.as_bytes().to_vec()).await), 200);
    assert_eq!(origin.last().1, r#"{"id":null,"who":"127.0.0.1","first":3}"#);
    // Nothing stays nothing.
    assert_eq!(status(&ask(gateway.address, "GET /", &[], "").await), 200);
    assert_eq!(origin.last().1, "");

    let before = origin.count();
    let large = format!("[\"{}\"]", "x".repeat(1 << 10));
    check_problem(&send(&gateway, &[JSON], b"{\"order\"").await, 400, "validation_failed");
    check_problem(&send(&gateway, &["content-type: text/plain"], body).await, 415, "unsupported_media_type");
    check_problem(&send(&gateway, &[JSON, "content-encoding: x"], body).await, 415, "unsupported_media_type");
    check_problem(&send(&gateway, &[JSON], large.as_bytes()).await, 413, "content_too_large");
    check_problem(
        &send(&gateway, &[JSON, "content-encoding: gzip"], &gzip(large.as_bytes())).await,
        413,
        "content_too_large",
    );
    let grows = format!("{{\"items\": [\"{}\"]}}", "x".repeat(990));
    check_problem(&send(&gateway, &[JSON], grows.as_bytes()).await, 413, "content_too_large");
    assert_eq!(origin.count(), before, "what nothing can be made of goes nowhere");
    until("what was held is given back", || (gateway.metric("quorumgate_http_buffered_bytes") == 0).then_some(()))
        .await;
}

#[tokio::test]
async fn a_client_gets_the_body_that_the_route_makes_of_a_success() {
    let text = r#"{"data":${body.items},"status":${status},"id":"${request_id}"}"#;
    let (gateway, origin) = gateway(json!({ "rewrite": { "body": { "response": text, "max": "1KiB" } } })).await;
    origin.says(r#"{"items": [1.50], "secret": 1}"#);
    let fields = [SAYS_JSON, "says-status: 201", "accept-encoding: gzip", "range: bytes=0-1"];
    let answer = send(&gateway, &fields, b"").await;
    let id = field(&answer, "x-request-id").unwrap();
    let made = format!(r#"{{"data":[1.50],"status":201,"id":"{id}"}}"#);
    assert_eq!((status(&answer), body(&answer)), (201, &*made));
    assert_eq!(field(&answer, "content-length"), Some(&*made.len().to_string()));
    assert_eq!((field(&answer, "etag"), field(&answer, "content-md5")), (Some("W/\"1\""), None));
    let (headers, _) = origin.last();
    assert_eq!((&headers["accept-encoding"], headers.get("range")), (&"identity".parse().unwrap(), None));
    let head = ask(gateway.address, "HEAD /", &[SAYS_JSON], "").await;
    assert_eq!((status(&head), field(&head, "content-type"), body(&head)), (200, Some("application/json"), ""));
    // What is no success says what it says.
    let failed = send(&gateway, &["says-content-type: text/html", "says-status: 404"], b"").await;
    assert_eq!((status(&failed), body(&failed)), (404, r#"{"items": [1.50], "secret": 1}"#));
    origin.says("");
    assert_eq!(status(&send(&gateway, &["says-status: 204"], b"").await), 204);

    let large = format!("[\"{}\"]", "x".repeat(1 << 10));
    for (says, fields) in [
        ("{", &[SAYS_JSON][..]),
        ("{}", &["says-content-type: text/html"]),
        ("{}", &[]),
        ("{}", &[SAYS_JSON, "says-content-encoding: gzip"]),
        (&large, &[SAYS_JSON]),
    ] {
        origin.says(says.to_owned());
        let answer = send(&gateway, fields, b"").await;
        check_problem(&answer, 502, "upstream_protocol_error");
        assert_eq!(field(&answer, "proxy-status"), Some("quorumgate; error=http_protocol_error"));
    }
    until("what was held is given back", || (gateway.metric("quorumgate_http_buffered_bytes") == 0).then_some(()))
        .await;
}

#[tokio::test]
async fn what_is_kept_is_made_anew_for_each_who_asks() {
    let text = r#"["${request_id}",${body}]"#;
    let route = json!({ "cache": {}, "rewrite": { "body": { "response": text } } });
    let (gateway, origin) = gateway(route).await;
    origin.says("7");
    for _ in 0..3 {
        let fields = [SAYS_JSON, "says-cache-control: max-age=60"];
        let answer = ask(gateway.address, "GET /kept", &fields, "").await;
        let id = field(&answer, "x-request-id").unwrap();
        assert_eq!(body(&answer), format!("[\"{id}\",7]"));
    }
    assert_eq!(origin.count(), 1);
}
