//! What a provider says, in whatever form, goes no further than the patterns of its policy have looked at it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::support::*;

const CHAT: &str = "/v1/chat/completions";
const JSON: (&str, &str) = ("content-type", "application/json");
const EVENTS: (&str, &str) = ("content-type", "text/event-stream");
const SAID: &str = r#"data: {"choices":[{"index":0,"delta":{"content":"badsecret"}}]}"#;

/// Says what it is told to.
#[derive(Clone, Default)]
struct Provider(Arc<Mutex<Response<Bytes>>>);

impl Provider {
    fn says(&self, status: u16, fields: &[(&str, &str)], body: &[u8]) {
        let says = fields.iter().fold(Response::builder().status(status), |it, (name, value)| it.header(*name, *value));
        *self.0.lock().unwrap() = says.body(Bytes::copy_from_slice(body)).unwrap();
    }
}

async fn gateway(response_deny: Value) -> (Gateway, Provider) {
    let provider = Provider::default();
    let says = provider.clone();
    let target = upstream(move |_| {
        let response = says.0.lock().unwrap().clone().map(Full::new);
        async move { response }
    })
    .await;
    let models = json!([{"name": "small", "targets": [{"model": "m"}]}]);
    let mut words = forward_all(target);
    words["policies"] =
        json!([{"name": "chat", "ai": {"provider": "openai", "models": models, "response_deny": response_deny}}]);
    words["routes"][0]["policies"] = json!(["chat"]);
    (Gateway::start(words), provider)
}

async fn post(gateway: &Gateway, path: &str) -> String {
    let body = match path {
        CHAT => json!({"model": "small", "messages": [{"role": "user", "content": "x"}]}),
        _ => json!({"model": "small", "input": "x"}),
    };
    let body = body.to_string();
    let length = format!("content-length: {}", body.len());
    ask(gateway.address, &format!("POST {path}"), &[&length, "content-type: application/json"], &body).await
}

#[tokio::test]
async fn no_line_of_a_stream_goes_by_the_patterns() {
    let (gateway, provider) = gateway(json!(["badsecret"])).await;
    for said in [
        format!("{SAID}\n\n"),
        format!("\u{feff}{SAID}\n\n"),
        format!("data: {{}}\n\n\u{feff}{SAID}\n\n"),
        SAID.to_owned(),
        r#"{"choices":[{"message":{"content":"badsecret"}}]}"#.to_owned(),
        "{\n  \"choices\": [{\"message\": {\"content\": \"bad\\u0073ecret\"}}]\n}\n\n".to_owned(),
        ": badsecret\n\n".to_owned(),
        "id: badsecret\ndata: {}\n\n".to_owned(),
        "datum: badsecret\n\n".to_owned(),
        "event: error\ndata: {\"error\":{\"message\":\"badsecret\"}}\n\n".to_owned(),
    ] {
        provider.says(200, &[EVENTS], said.as_bytes());
        let answer = post(&gateway, CHAT).await;
        assert_eq!(status(&answer), 200, "{said}");
        assert!(answer.contains("event: error\n") && answer.contains("response_denied"), "{said}: {answer}");
        assert!(!answer.contains("badsecret") && !answer.contains("u0073"), "{said}: {answer}");
    }
    let fine = SAID.replace("badsecret", "hello");
    let said = format!("\u{feff}: ping\n\nevent: x\nid: 7\nretry: 5\n{fine}\n\ndata: [DONE]\n\n");
    provider.says(200, &[EVENTS], said.as_bytes());
    let answer = post(&gateway, CHAT).await;
    assert!(answer.contains(": ping\n\nevent: x\nid: 7\nretry: 5\n") && answer.contains("hello"), "{answer}");
    assert!(answer.contains("[DONE]") && !answer.contains("event: error"), "{answer}");
}

/// A world, and what is asked of it.
struct Asked<'w> {
    gateway: &'w Gateway,
    provider: &'w Provider,
    path: &'w str,
}

impl Asked<'_> {
    async fn check(&self, status: u16, fields: &[(&str, &str)], said: &[u8], expected: u16) {
        self.provider.says(status, fields, said);
        let answer = post(self.gateway, self.path).await;
        assert_eq!(crate::support::status(&answer), expected, "{} {status} {fields:?}", self.path);
        match expected {
            502 => check_problem(&answer, 502, "response_validation_failed"),
            _ => assert_eq!(body(&answer).as_bytes(), said, "{} {status}", self.path),
        }
    }
}

#[tokio::test]
async fn answers_that_say_what_went_wrong_are_looked_at_too() {
    let (gateway, provider) = gateway(json!(["badsecret"])).await;
    let text = ("content-type", "text/plain");
    let large = vec![b' '; (4 << 20) + 1];
    for path in [CHAT, "/v1/responses", "/v1/embeddings"] {
        let it = Asked { gateway: &gateway, provider: &provider, path };
        it.check(400, &[JSON], br#"{"error":"no such model"}"#, 400).await;
        it.check(400, &[JSON], br#"{"error":"badsecret"}"#, 502).await;
        it.check(400, &[JSON], br#"{"error":"bad\u0073ecret"}"#, 502).await;
        it.check(429, &[text], b"badsecret", 502).await;
        it.check(500, &[text], b"no", 500).await;
        it.check(404, &[text], b"", 404).await;
        it.check(400, &[JSON], b"{\"error\":", 502).await;
        it.check(400, &[JSON, ("content-encoding", "gzip")], b"{}", 502).await;
        it.check(400, &[text], &large, 502).await;
    }
}

#[tokio::test]
async fn a_provider_sends_no_client_to_another_place() {
    for patterns in [json!([]), json!(["badsecret"])] {
        let (gateway, provider) = gateway(patterns).await;
        for status in [301, 302, 303, 304, 307, 308] {
            provider.says(status, &[("location", "http://evil.test/badsecret")], b"");
            let answer = post(&gateway, CHAT).await;
            check_problem(&answer, 502, "upstream_protocol_error");
            assert!(!answer.contains("evil.test"), "{answer}");
        }
        // Nothing was made, and nothing is charged for.
        gateway.metric_becomes("quorumgate_ai_requests_total{model=\"small\",settled=\"told\"}", 6).await;
        for status in [200, 400] {
            provider.says(status, &[JSON, ("location", "http://evil.test/")], b"{}");
            let answer = post(&gateway, CHAT).await;
            assert_eq!((self::status(&answer), field(&answer, "location")), (status, None), "{answer}");
        }
    }
}
