//! Values that are hidden in answers, from all but those who may see them.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use crate::{support::*, world::World};
use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body_util::Full;
use quorumgate_model::credential::Grants;
use serde_json::{Value, json};
use uuid::Uuid;

/// Of an answer.
type Fields = [(&'static str, &'static str)];

/// What it is told to say.
#[derive(Clone, Default)]
struct Origin {
    says: Arc<Mutex<Response<Bytes>>>,
    heard: Arc<Mutex<HeaderMap>>,
    asked: Arc<AtomicUsize>,
}

impl Origin {
    fn says(&self, status: u16, fields: &Fields, body: impl Into<Bytes>) {
        let says = fields.iter().fold(Response::builder().status(status), |it, (name, value)| it.header(*name, *value));
        *self.says.lock().unwrap() = says.body(body.into()).unwrap();
    }

    fn heard(&self, name: &str) -> Option<String> {
        self.heard.lock().unwrap().get(name).map(|value| value.to_str().unwrap().to_owned())
    }
}

const JSON: (&str, &str) = ("content-type", "application/vnd.x+json");
const BODY: &str =
    r#"{"id": 10000000000000000000001, "iban": "DE89370400440532013000", "all": [{"mail": "ann@x.test"}]}"#;
const HIDDEN: &str = r#"{"id": 10000000000000000000001, "iban": "****3000", "all": [{}]}"#;

const ACME: &str = "qg_live_0123456789abcdefghijklmnopqrstuv_00000000";
const OTHER: &str = "qg_live_vutsrqponmlkjihgfedcba9876543210_00000000";
const READER: &str = "qg_live_01234567890123456789012345678901_00000000";

/// A route for all, and one for those who show who they are.
async fn world(route: Value, mask: Value) -> (World, Origin) {
    let origin = Origin::default();
    origin.says(200, &[JSON, ("etag", "\"1\"")], BODY);
    let answers = origin.clone();
    let target = upstream(move |request: http::Request<_>| {
        let origin = answers.clone();
        async move {
            origin.asked.fetch_add(1, SeqCst);
            *origin.heard.lock().unwrap() = request.headers().clone();
            origin.says.lock().unwrap().clone().map(Full::new)
        }
    })
    .await;
    let mut fields = json!({
        "fields": [{"pointer": "/iban", "with": "last4"}, {"pointer": "/all/*/mail", "with": "remove"}],
        "unless": {"groups": ["partners"], "scopes_any": ["pii:read"]},
        "body_max": "1KiB",
    });
    fields.as_object_mut().unwrap().extend(mask.as_object().unwrap().clone());
    let mut open = json!({"name": "open", "match": {"path_prefix": "/"}, "upstream": "origin", "policies": ["pii"]});
    open.as_object_mut().unwrap().extend(route.as_object().unwrap().clone());
    let mut known = open.clone();
    (known["name"], known["match"]) = (json!("known"), json!({"path_prefix": "/known"}));
    known["auth"] = json!({"any_of": ["keys"]});
    let world = World::new(json!({
        "upstreams": [{"name": "origin", "targets": [target.to_string()], "retries": {"attempts": 0}}],
        "auth": [{"name": "keys", "api_key": {"header": "x-key"}}],
        "policies": [{"name": "pii", "mask": fields}],
        "routes": [open, known],
    }))
    .await;
    world.key("acme", ACME);
    world.key("other", OTHER);
    let grants = Grants { scopes: ["pii:read".into()].into(), ..Grants::default() };
    world.key_with("other", READER, grants, None);
    (world, origin)
}

async fn get(world: &World, line: &str, fields: &[&str]) -> String {
    ask(world.gateway.address, line, fields, "").await
}

#[tokio::test]
async fn values_are_hidden_from_all_but_those_who_may_see_them() {
    let (world, origin) = world(json!({}), json!({})).await;
    origin.says(
        200,
        &[
            JSON,
            ("etag", "\"1\""),
            ("cache-control", "public, max-age=9, s-maxage=60"),
            ("cdn-cache-control", "max-age=60"),
            ("content-md5", "x"),
        ],
        BODY,
    );
    let asks = ["range: bytes=0-1", "accept-encoding: gzip"];
    for (line, key) in [("GET /", "none"), ("POST /known", OTHER)] {
        let answer = get(&world, line, &[&asks[..], &[&format!("x-key: {key}")]].concat()).await;
        assert_eq!((status(&answer), body(&answer)), (200, HIDDEN), "{line}");
        assert_eq!(field(&answer, "content-length"), Some(&*HIDDEN.len().to_string()));
        assert_eq!((field(&answer, "etag"), field(&answer, "content-md5")), (Some("W/\"1\""), None));
        assert_eq!(field(&answer, "content-type"), Some("application/vnd.x+json"));
        assert_eq!((origin.heard("range"), origin.heard("accept-encoding")), (None, Some("identity".into())));
    }
    for key in [ACME, READER] {
        let answer = get(&world, "GET /known", &[&asks[..], &[&format!("x-key: {key}")]].concat()).await;
        assert_eq!((status(&answer), body(&answer)), (200, BODY), "{key}");
        assert_eq!(field(&answer, "etag"), Some("\"1\""));
        // No cache on the way keeps it for others.
        assert_eq!(field(&answer, "cache-control"), Some("private, max-age=9"));
        assert_eq!(field(&answer, "cdn-cache-control"), None);
        assert_eq!(origin.heard("range").as_deref(), Some("bytes=0-1"));
    }
    // Whatever its status, and where there is no body to look through.
    origin.says(500, &[JSON], BODY);
    let answer = get(&world, "GET /", &[]).await;
    assert_eq!((status(&answer), body(&answer)), (500, HIDDEN));
    let answer = get(&world, "HEAD /", &[]).await;
    assert_eq!((status(&answer), body(&answer), field(&answer, "content-length")), (500, "", None));
    origin.says(204, &[("etag", "\"1\"")], "");
    assert_eq!(status(&get(&world, "GET /", &[]).await), 204);
    until("what was held is given back", || {
        (world.gateway.metric("quorumgate_http_buffered_bytes") == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_kept_is_hidden_from_each_who_asks() {
    let (world, origin) = world(json!({"cache": {}}), json!({})).await;
    origin.says(200, &[JSON, ("etag", "\"1\""), ("cache-control", "public, max-age=600")], BODY);
    for (key, expected) in [(ACME, BODY), (OTHER, HIDDEN), (READER, BODY), (OTHER, HIDDEN)] {
        let answer = get(&world, "GET /known", &[&format!("x-key: {key}")]).await;
        assert_eq!((status(&answer), body(&answer)), (200, expected), "{key}");
    }
    assert_eq!(origin.asked.load(SeqCst), 1, "one answer is kept for all");
    let answer = get(&world, "GET /known", &[&format!("x-key: {OTHER}"), "if-none-match: W/\"1\""]).await;
    assert_eq!((status(&answer), body(&answer), field(&answer, "etag")), (304, "", Some("W/\"1\"")));
    // The other way round: who asks first makes nothing of it that others miss.
    for (key, expected) in [(OTHER, HIDDEN), (ACME, BODY)] {
        let answer = get(&world, "GET /known/2", &[&format!("x-key: {key}")]).await;
        assert_eq!((status(&answer), body(&answer)), (200, expected), "{key}");
    }
    assert_eq!(origin.asked.load(SeqCst), 2);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn what_cannot_be_looked_through_goes_nowhere() {
    let (world, origin) = world(json!({}), json!({})).await;
    let packed = ("content-encoding", "gzip");
    origin.says(200, &[JSON, packed], gzip(BODY.as_bytes()));
    let answer = get(&world, "GET /", &[]).await;
    assert_eq!((status(&answer), body(&answer), field(&answer, "content-encoding")), (200, HIDDEN, None));

    let large = format!("[\"{}\"]", "x".repeat(1 << 10));
    let cases: [(&Fields, Vec<u8>); 8] = [
        (&[("content-type", "text/html")], BODY.into()),
        (&[], BODY.into()),
        (&[JSON], b"{\"iban\":".to_vec()),
        (&[JSON], b"{\"iban\":\"\xff\"}".to_vec()),
        (&[JSON], large.clone().into()),
        (&[JSON, packed], gzip(large.as_bytes())),
        (&[JSON, ("content-encoding", "x")], BODY.into()),
        (&[JSON, ("content-range", "bytes 0-9/99")], BODY.into()),
    ];
    for (fields, body) in cases {
        origin.says(200, fields, body);
        let answer = get(&world, "GET /", &[]).await;
        check_problem(&answer, 502, "upstream_protocol_error");
        assert!(!answer.contains("DE89"), "{answer}");
    }
    let answer = get(&world, "GET /", &[]).await;
    let id: Uuid = field(&answer, "x-request-id").unwrap().parse().unwrap();
    let told = loop {
        match world.gateway.proxy.exchange(id).await {
            Some(told) => break told,
            None => tokio::task::yield_now().await,
        }
    };
    assert_eq!((told.phase, told.policy.as_deref(), told.rule.as_deref()), ("response", Some("pii"), Some("mask")));
    until("what was held is given back", || {
        (world.gateway.metric("quorumgate_http_buffered_bytes") == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn other_types_pass_where_that_is_said_and_what_a_route_makes_of_a_body_has_nothing_hidden() {
    let rewrite = json!({"rewrite": {"body": {"response": r#"{"mine":${body.iban},"mail":"${body.all.0.mail}"}"#}}});
    let (world, origin) = world(rewrite, json!({})).await;
    assert_eq!(body(&get(&world, "GET /", &[]).await), r#"{"mine":"****3000","mail":"null"}"#);
    drop(world);
    drop(origin);

    let (world, origin) = self::world(json!({}), json!({"other_types": "allow"})).await;
    origin.says(200, &[("content-type", "text/html"), ("etag", "\"1\"")], "<p>");
    let answer = get(&world, "GET /", &[]).await;
    assert_eq!((status(&answer), body(&answer), field(&answer, "etag")), (200, "<p>", Some("\"1\"")));
    origin.says(200, &[JSON], BODY);
    assert_eq!(body(&get(&world, "GET /", &[]).await), HIDDEN);
}

/// What such an upstream says to each request, in three places of an answer.
const THREE_PLACES: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\nx-iban: DE89370400440532013000\r\n\r\n\
    HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncache-control: max-age=9\r\nX-Iban: DE89 3704 0044 0532 0130 00\r\n\
    x-iban: GB82\r\nx-id: 7\r\nx-owner: a\u{e9}\r\ntrailer: x-iban, x-id, x-sum\r\ntransfer-encoding: chunked\r\n\r\n\
    2\r\nok\r\n0\r\nx-iban: DE89370400440532013000\r\nx-id: 8\r\nx-sum: 9\r\n\r\n";

async fn saying(text: &str) -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Latin-1, as some do.
    let said: Arc<[u8]> = text.chars().map(|it| it as u8).collect();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let said = said.clone();
            tokio::spawn(async move {
                let mut heard = Vec::new();
                while stream.read_buf(&mut heard).await.is_ok_and(|count| count > 0) {
                    if heard.ends_with(b"\r\n\r\n") {
                        heard.clear();
                        stream.write_all(&said).await.unwrap();
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn an_answer_of_no_bytes_goes_on_though_nobody_said_so_beforehand() {
    let (json, packed) = ("content-type: application/json\r\n", "content-encoding: gzip\r\n");
    for (fields, chunk, expected) in [
        (json.to_owned(), "", 201),
        (format!("{json}{packed}"), "", 201),
        (String::new(), "", 201),
        ("content-type: text/html\r\n".to_owned(), "", 201),
        (String::new(), "1\r\n1\r\n", 502),
        (json.to_owned(), "1\r\nx\r\n", 502),
        ("content-range: bytes 0-1/9\r\n".to_owned(), "", 502),
    ] {
        let head = format!("HTTP/1.1 201 Created\r\nlocation: /mask/7\r\n{fields}transfer-encoding: chunked\r\n\r\n");
        let target = saying(&format!("{head}{chunk}0\r\n\r\n")).await;
        let world = World::new(json!({
            "upstreams": [{"name": "origin", "targets": [target.to_string()], "retries": {"attempts": 0}}],
            "policies": [{"name": "pii", "mask": {"fields": [{"pointer": "/iban"}]}}],
            "routes": [{"name": "all", "match": {"path_prefix": "/"}, "upstream": "origin", "policies": ["pii"]}],
        }))
        .await;
        let answer = get(&world, "POST /", &[]).await;
        assert_eq!(status(&answer), expected, "{fields}{chunk}: {answer}");
        if expected == 201 {
            assert_eq!((field(&answer, "location"), body(&answer)), (Some("/mask/7"), ""), "{fields}: {answer}");
        }
    }
}

#[tokio::test]
async fn fields_are_hidden_in_heads_and_behind_bodies_and_before_answers() {
    let headers = json!([{"name": "X-IBAN", "with": "last4"}, {"name": "x-id", "with": "remove"}, {"name": "x-owner"}]);
    let mask = json!({"headers": headers, "unless": {"scopes_any": ["pii:read"]}});
    let world = World::new(json!({
        "upstreams": [{"name": "origin", "targets": [saying(THREE_PLACES).await.to_string()]}],
        "auth": [{"name": "keys", "api_key": {"header": "x-key"}}],
        "policies": [{"name": "pii", "mask": mask}],
        "routes": [{
            "name": "all", "match": {"path_prefix": "/"}, "upstream": "origin", "policies": ["pii"],
            "auth": {"any_of": ["keys"]},
        }],
    }))
    .await;
    world.key("acme", ACME);
    let grants = Grants { scopes: ["pii:read".into()].into(), ..Grants::default() };
    world.key_with("other", READER, grants, None);
    let get = async |key: &str| {
        let head = format!("GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: close\r\nx-key: {key}\r\n\r\n");
        let answer = raw(world.gateway.address, head).await;
        let (hints, answer) = answer.split_once("\r\n\r\n").unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        [hints, head, body].map(str::to_owned)
    };
    let [hints, head, body] = get(ACME).await;
    assert!(hints.starts_with("HTTP/1.1 103 ") && hints.contains("x-iban: ****3000"), "{hints}");
    assert!(head.contains("x-iban: ****3000\r\n") && head.contains("x-iban: ***\r\n"), "{head}");
    assert!(head.contains("x-owner: ***") && !head.contains("x-id:"), "{head}");
    assert!(head.contains("cache-control: max-age=9\r\n"), "{head}");
    assert!(body.starts_with("2\r\nok\r\n0\r\n") && body.contains("x-iban: ****3000\r\n"), "{body}");
    assert!(body.contains("x-sum: 9\r\n") && !body.contains("x-id:"), "{body}");

    let [hints, head, body] = get(READER).await;
    for text in [&hints, &body] {
        assert!(text.contains("x-iban: DE89370400440532013000"), "{text}");
    }
    assert!(head.contains("x-id: 7") && head.contains("x-iban: GB82\r\n"), "{head}");
    assert!(body.contains("x-id: 8"), "{body}");
    assert!(head.contains("cache-control: private, max-age=9\r\n"), "{head}");
}

#[tokio::test]
async fn fields_and_bodies_are_hidden_together_and_of_what_is_kept() {
    let headers = json!([{"name": "x-iban", "with": "last4"}, {"name": "etag", "with": "remove"}]);
    let (world, origin) = world(json!({"cache": {}}), json!({"headers": headers})).await;
    let fields =
        [JSON, ("etag", "\"1\""), ("cache-control", "public, max-age=600"), ("x-iban", "DE89370400440532013000")];
    origin.says(200, &fields, BODY);
    for (key, expected, iban, etag) in [
        (ACME, BODY, fields[3].1, Some("\"1\"")),
        (OTHER, HIDDEN, "****3000", None),
        (ACME, BODY, fields[3].1, Some("\"1\"")),
    ] {
        let answer = get(&world, "GET /known", &[&format!("x-key: {key}")]).await;
        assert_eq!((status(&answer), body(&answer)), (200, expected), "{key}");
        assert_eq!((field(&answer, "x-iban"), field(&answer, "etag")), (Some(iban), etag), "{key}");
    }
    assert_eq!(origin.asked.load(SeqCst), 1, "one answer is kept for all");
    let answer = get(&world, "HEAD /known", &[&format!("x-key: {OTHER}")]).await;
    assert_eq!((status(&answer), field(&answer, "x-iban")), (200, Some("****3000")));
}
