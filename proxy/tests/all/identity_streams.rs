//! What was let in does not outlive what let it in: streams end within a second of a revocation, and on time.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::support::*;
use crate::tokens::{Signer, jwks};
use crate::world::{World, now_s};
use bytes::Bytes;
use data_encoding::BASE64;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use quorumgate_model::{command::Decided, credential::Grants, resource::Kind, revocation::SelectorKind};
use quorumgate_proxy::Settings;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const KEY: &str = "qg_live_0123456789abcdefghijklmnopqrstuv_00000000";
const OTHER_KEY: &str = "qg_live_vutsrqponmlkjihgfedcba9876543210_00000000";
/// A sweep comes every 100 ms; a busy machine is late.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Says this and then nothing more, and never closes.
pub async fn silent_after(words: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                stream.write_all(words.as_bytes()).await.unwrap();
                // Until the gateway closes.
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
            });
        }
    });
    address
}

pub const EVENTS: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
const DOWNLOAD: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\u{1}\u{1}a";

async fn world(signer: &Signer, target: SocketAddr) -> World {
    let keys: Value = serde_json::from_str(&jwks(&[signer])).unwrap();
    // One worker: what it remembers of one stream is there for the next.
    let settings = Settings { workers: 1, ..settings() };
    let words = json!({
        "upstreams": [{"name": "streams", "targets": [target.to_string()]}],
        "auth": [{"name": "keys", "api_key": {}}, {"name": "idp", "jwt": {
            "issuer": "https://idp.test", "audience": ["orders"], "jwks_inline": keys, "consumer_claim": "azp", "skew": "0s",
        }}],
        "routes": [{"name": "all", "match": {"path_prefix": "/"}, "upstream": "streams", "auth": {"any_of": ["keys", "idp"]}}],
    });
    World::with(settings, words).await
}

/// A stream that has begun: the head and the first part have come.
async fn open(world: &World, head: &str, until: &str) -> TcpStream {
    let mut stream = TcpStream::connect(world.gateway.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    while !read.ends_with(until.as_bytes()) {
        read.push(soon("the first part", stream.read_u8()).await.unwrap_or_else(|_| panic!("{read:?}")));
    }
    stream
}

fn get(credential: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: api.test\r\nconnection: close\r\n{credential}\r\n\r\n")
}

fn x_api_key(key: &str) -> String {
    format!("x-api-key: {key}")
}

async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = soon("the stream ends", stream.read_to_end(&mut rest)).await;
    rest
}

fn token(signer: &Signer, jti: &str, lives_s: u64) -> String {
    let claims = json!({
        "iss": "https://idp.test", "aud": "orders", "exp": now_s() + lives_s, "iat": now_s(), "sub": "ann", "jti": jti, "azp": "acme",
    });
    format!("authorization: Bearer {}", signer.token(&claims))
}

#[tokio::test]
async fn an_event_stream_ends_with_what_let_it_in() {
    let signer = Signer::es256("k1");
    let world = world(&signer, silent_after(EVENTS).await).await;
    let events = async |credential: &str| open(&world, &get(credential), "data: 1\n\n\r\n").await;
    let id = world.key("acme", KEY);
    let kept_id = world.key("other", OTHER_KEY);
    let mut kept = events(&x_api_key(OTHER_KEY)).await;
    // A key that is disabled, and one that is revoked by a selector.
    let mut stream = events(&x_api_key(KEY)).await;
    let since = Instant::now();
    world.decide(id, Decided::Disabled);
    ends(&mut stream, since).await;
    world.decide(id, Decided::Active);
    let mut stream = events(&x_api_key(KEY)).await;
    let since = Instant::now();
    world.revoke(SelectorKind::Credential, b"", id.to_string().as_bytes());
    ends(&mut stream, since).await;
    // A token by its id, and all of a subject's.
    for (jti, kind, issuer, value) in
        [("j1", SelectorKind::Jti, &b""[..], &b"j1"[..]), ("j2", SelectorKind::Subject, b"https://idp.test", b"ann")]
    {
        let mut stream = events(&token(&signer, jti, 600)).await;
        let since = Instant::now();
        world.revoke(kind, issuer, value);
        ends(&mut stream, since).await;
    }
    let reasons = "quorumgate_rejects_total{reason=\"token_revoked\"}";
    world.gateway.metric_becomes(reasons, 4).await;
    // The others were left alone, until their consumer goes.
    let since = Instant::now();
    world.remove(Kind::Consumer, "other");
    ends(&mut kept, since).await;
    assert_ne!(id, kept_id);
    world.gateway.metric_becomes("quorumgate_http_requests_in_flight", 0).await;
}

#[tokio::test]
async fn a_stream_ends_when_its_token_does() {
    let signer = Signer::es256("k1");
    let world = world(&signer, silent_after(EVENTS).await).await;
    let mut stream = open(&world, &get(&token(&signer, "j1", 3)), "data: 1\n\n\r\n").await;
    let ends = now_s() + 3;
    assert_eq!(rest(&mut stream).await, b"0\r\n\r\n");
    assert!((ends - 1..=ends + 1).contains(&now_s()));
    world.gateway.metric_becomes("quorumgate_rejects_total{reason=\"token_expired\"}", 1).await;
}

#[tokio::test]
async fn a_stream_ends_with_its_key_that_was_rotated_meanwhile() {
    let signer = Signer::es256("k1");
    let world = world(&signer, silent_after(EVENTS).await).await;
    let id = world.key("acme", KEY);
    let mut stream = open(&world, &get(&x_api_key(KEY)), "data: 1\n\n\r\n").await;
    let since = Instant::now();
    let overlap = Duration::from_secs(1);
    world.rotate(id, OTHER_KEY, overlap);
    // Nothing is written any more: the time alone ends it.
    assert_eq!(rest(&mut stream).await, b"0\r\n\r\n");
    assert!((overlap..overlap + 2 * AT_ONCE).contains(&since.elapsed()), "{:?}", since.elapsed());
    let mut next = open(&world, &get(&x_api_key(OTHER_KEY)), "data: 1\n\n\r\n").await;
    world.revoke(SelectorKind::Consumer, b"", b"acme");
    rest(&mut next).await;
}

/// In good order and at once: the client may ask anew, and is told why.
async fn ends(stream: &mut TcpStream, since: Instant) {
    assert_eq!(rest(stream).await, b"0\r\n\r\n");
    assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
}

#[track_caller]
fn check_goes_on(stream: &TcpStream) {
    let read = stream.try_read(&mut [0; 1]);
    assert!(matches!(&read, Err(error) if error.kind() == ErrorKind::WouldBlock), "{read:?}");
}

fn signed(signer: &Signer) -> String {
    let params = format!("(\"@method\" \"@target-uri\");created={};keyid=\"{}\"", now_s(), signer.kid());
    let base = format!("\"@method\": GET\n\"@target-uri\": http://api.test/\n\"@signature-params\": {params}");
    let signature = BASE64.encode(&signer.sign(base.as_bytes()));
    format!("signature-input: s={params}\r\nsignature: s=:{signature}:")
}

#[tokio::test]
async fn a_stream_ends_when_its_signing_key_is_another_or_gone() {
    let (signer, kept_signer, stranger) = (Signer::ed25519("k1"), Signer::ed25519("k2"), Signer::ed25519("k3"));
    let target = silent_after(EVENTS).await;
    let key = |signer: &Signer, id: &str, consumer: &str| json!({"id": id, "algorithm": "ed25519", "public_key": signer.public_pem(), "consumer": consumer});
    let kept_key = key(&kept_signer, "k2", "other");
    let auth = |keys: &[Value], max_age: &str| {
        let keys = [keys, std::slice::from_ref(&kept_key)].concat();
        json!([{"name": "signed", "signature": {"keys": keys, "max_age": max_age}}])
    };
    let world = World::new(json!({
        "upstreams": [{"name": "streams", "targets": [target.to_string()]}],
        "auth": auth(&[], "300s"),
        "routes": [{"name": "all", "match": {"path_prefix": "/"}, "upstream": "streams", "auth": {"any_of": ["signed"]}}],
    }))
    .await;
    let events = async |signer: &Signer| open(&world, &get(&signed(signer)), "data: 1\n\n\r\n").await;
    let mut kept = events(&kept_signer).await;
    for changed in [vec![], vec![key(&signer, "k1", "other")], vec![key(&stranger, "k1", "acme")]] {
        world.put(json!({"auth": auth(&[key(&signer, "k1", "acme")], "300s")}));
        let mut stream = events(&signer).await;
        let since = Instant::now();
        // What else is asked of signatures may change: who was let in stays.
        world.put(json!({"auth": auth(&changed, "200s")}));
        ends(&mut stream, since).await;
        check_goes_on(&kept);
    }
    world.gateway.metric_becomes("quorumgate_rejects_total{reason=\"token_revoked\"}", 3).await;
    world.remove(Kind::Auth, "signed");
    rest(&mut kept).await;
}

#[tokio::test]
async fn a_stream_ends_when_its_auth_would_not_take_its_token_any_more() {
    let (signer, kept_signer) = (Signer::es256("k1"), Signer::es256("k2"));
    let world = world(&signer, silent_after(EVENTS).await).await;
    let auth = |signers: &[&Signer], field: &str, value: Value| {
        let keys: Value = serde_json::from_str(&jwks(signers)).unwrap();
        let mut jwt = json!({
            "issuer": "https://idp.test", "audience": ["orders"], "jwks_inline": keys, "consumer_claim": "azp", "skew": "0s",
        });
        jwt[field] = value;
        json!({"auth": [{"name": "idp", "jwt": jwt}]})
    };
    let both = auth(&[&signer, &kept_signer], "max_lifetime", json!("1d"));
    let events = async |token: &str| open(&world, &get(token), "data: 1\n\n\r\n").await;
    let (shown, kept_token) = (token(&signer, "j1", 600), token(&kept_signer, "j2", 600));
    world.put(both.clone());
    let mut kept = events(&kept_token).await;
    // Two of one token: what is remembered of the first must not let the second go on.
    let streams = [events(&shown).await, events(&shown).await];
    let since = Instant::now();
    world.put(auth(&[&kept_signer], "max_lifetime", json!("2d")));
    for mut stream in streams {
        ends(&mut stream, since).await;
    }
    check_goes_on(&kept);
    // The same key in other words, and without the other one: whom it has let in stays.
    world.put(both.clone());
    let goes_on = events(&shown).await;
    let mut relisted = signer.jwk();
    relisted["alg"] = json!("ES256");
    let since = Instant::now();
    world.put(auth(&[], "jwks_inline", json!({"keys": [relisted]})));
    ends(&mut kept, since).await;
    check_goes_on(&goes_on);
    drop(goes_on);
    for (field, value) in [
        ("issuer", json!("https://other.test")),
        ("audience", json!(["billing"])),
        ("algorithms", json!(["RS256"])),
        ("consumer_claim", json!("sub")),
        ("max_lifetime", json!("1m")),
    ] {
        world.put(both.clone());
        let mut stream = events(&shown).await;
        let since = Instant::now();
        world.put(auth(&[&signer, &kept_signer], field, value));
        ends(&mut stream, since).await;
    }
    world.put(both);
    let mut stream = events(&shown).await;
    let since = Instant::now();
    world.remove(Kind::Auth, "idp");
    ends(&mut stream, since).await;
}

#[tokio::test]
async fn a_secret_that_cannot_be_opened_for_a_while_ends_no_stream() {
    const SECRET: &str = "thirty-two bytes of a good secret";
    let signer = Signer::Secret(SECRET.as_bytes().to_vec());
    let words = json!({
        "upstreams": [{"name": "streams", "targets": [silent_after(EVENTS).await.to_string()]}],
        "auth": [{"name": "keys", "api_key": {}}, {"name": "idp", "jwt": {
            "issuer": "https://idp.test", "audience": ["orders"], "algorithms": ["HS256"], "consumer_claim": "azp",
            "secret": "sealed:0123456789abcdef",
        }}],
        "routes": [{"name": "all", "match": {"path_prefix": "/"}, "upstream": "streams", "auth": {"any_of": ["keys", "idp"]}}],
    });
    let world = World::with_secrets(words, &[("0123456789abcdef", SECRET)]).await;
    let id = world.key("other", OTHER_KEY);
    let shown = token(&signer, "j1", 600);
    let mut stream = open(&world, &get(&shown), "data: 1\n\n\r\n").await;
    let mut other = open(&world, &get(&x_api_key(OTHER_KEY)), "data: 1\n\n\r\n").await;
    world.close_secrets();
    check_problem(&ask(world.gateway.address, "GET /", &[&shown], "").await, 503, "auth_unavailable");
    let since = Instant::now();
    world.decide(id, Decided::Disabled);
    ends(&mut other, since).await;
    // Every worker has looked at its streams since then.
    let later = now_s() + 2;
    until("two seconds", || (now_s() >= later).then_some(())).await;
    check_goes_on(&stream);
    let since = Instant::now();
    world.remove(Kind::Auth, "idp");
    ends(&mut stream, since).await;
}

#[tokio::test]
async fn a_stream_of_a_key_lasts_as_long_as_the_clusters_clock_lets_it() {
    let signer = Signer::es256("k1");
    let world = world(&signer, silent_after(EVENTS).await).await;
    world.key_with("acme", KEY, Grants::default(), Some(Duration::from_secs(2)));
    let mut stream = open(&world, &get(&x_api_key(KEY)), "data: 1\n\n\r\n").await;
    // By this machine's clock it would have ended long before.
    let long_after = now_s() + 5;
    until("time passes, and the log clock does not", || {
        world.turn_clock_back();
        (now_s() >= long_after).then_some(())
    })
    .await;
    check_goes_on(&stream);
    let since = Instant::now();
    assert_eq!(rest(&mut stream).await, b"0\r\n\r\n");
    assert!(since.elapsed() < 2 * AT_ONCE, "{:?}", since.elapsed());
    world.gateway.metric_becomes("quorumgate_rejects_total{reason=\"token_expired\"}", 1).await;
}

#[tokio::test]
async fn a_stream_ends_when_fetched_keys_lack_its_tokens() {
    let (signer, next) = (Signer::es256("k1"), Signer::es256("k2"));
    let published = Arc::new(Mutex::new(jwks(&[&signer])));
    let said = published.clone();
    let provider = upstream(move |_| {
        let keys = said.lock().unwrap().clone();
        async move { Response::new(Full::new(Bytes::from(keys))) }
    })
    .await;
    let world = World::new(json!({
        "upstreams": [{"name": "streams", "targets": [silent_after(EVENTS).await.to_string()]}],
        "auth": [{"name": "idp", "jwt": {
            "issuer": "https://idp.test", "audience": ["orders"], "jwks_url": format!("http://{provider}/jwks"),
            "allow_private": true, "consumer_claim": "azp",
        }}],
        "routes": [{"name": "all", "match": {"path_prefix": "/"}, "upstream": "streams", "auth": {"any_of": ["idp"]}}],
    }))
    .await;
    let events = async |signer: &Signer| open(&world, &get(&token(signer, "j1", 600)), "data: 1\n\n\r\n").await;
    let mut stream = events(&signer).await;
    *published.lock().unwrap() = jwks(&[&next]);
    let since = Instant::now();
    // A key that nobody knows yet has the keys fetched; the cluster's state is not written.
    let kept = events(&next).await;
    ends(&mut stream, since).await;
    check_goes_on(&kept);
}

#[tokio::test]
async fn a_tunnel_a_download_and_a_wait_end_each_in_their_own_way() {
    let signer = Signer::es256("k1");
    let tunnels = world(&signer, silent_after(ACCEPTED).await).await;
    let downloads = world(&signer, silent_after(DOWNLOAD).await).await;
    let waits = world(&signer, silent_after("").await).await;
    let worlds = [&tunnels, &downloads, &waits];
    for world in worlds {
        world.key("acme", KEY);
    }
    let key = x_api_key(KEY);
    let handshake = format!(
        "GET / HTTP/1.1\r\nhost: api.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n{key}\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let mut tunnel = open(&tunnels, &handshake, "\u{1}\u{1}a").await;
    let mut download = open(&downloads, &get(&key), "abc\r\n").await;
    let mut wait = open(&waits, &get(&key), "").await;
    waits.gateway.metric_becomes("quorumgate_http_requests_in_flight", 1).await;
    let since = Instant::now();
    worlds.iter().for_each(|world| world.revoke(SelectorKind::Consumer, b"", b"acme"));
    assert_eq!(rest(&mut tunnel).await, [&[0x88, 15, 0x03, 0xf0][..], b"token_revoked"].concat());
    // Not the end that a whole answer has.
    assert_eq!(rest(&mut download).await, b"");
    let mut answer = vec![0; 4096];
    let n = soon("the refusal", wait.read(&mut answer)).await.unwrap();
    assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
    assert_eq!(status(&String::from_utf8_lossy(&answer[..n])), 401);
}

#[tokio::test]
async fn a_grpc_call_ends_with_its_status() {
    let signer = Signer::es256("k1");
    let calls = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let world = world(&signer, silent_after(calls).await).await;
    world.key("acme", KEY);
    let mut client = http2(TcpStream::connect(world.gateway.address).await.unwrap()).await;
    let request = Request::post("http://api.test/pkg.Service/Watch")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("x-api-key", KEY)
        .body(Full::<Bytes>::default())
        .unwrap();
    let response = client.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    let first = soon("the first message", body.frame()).await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "abc");
    let since = Instant::now();
    world.revoke(SelectorKind::Consumer, b"", b"acme");
    let last = soon("the trailers", body.frame()).await.unwrap().unwrap();
    assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
    let trailers = last.into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "16");
    assert!(body.frame().await.is_none());
    // And the next one is not let in.
    let request = Request::post("http://api.test/pkg.Service/Watch")
        .header("content-type", "application/grpc")
        .header("x-api-key", KEY)
        .body(Full::<Bytes>::default())
        .unwrap();
    let refused = client.send_request(request).await.unwrap();
    assert_eq!((refused.status(), refused.headers()["grpc-status"].to_str().unwrap()), (StatusCode::OK, "16"));
}
