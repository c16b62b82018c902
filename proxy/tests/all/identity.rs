//! Who may pass, over real sockets: every way in, and the classic ways round.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::support::*;
use crate::tokens::{Signer, jwks};
use crate::world::{World, now_s};
use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, SaltString},
};
use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use quorumgate_model::{command::Decided, credential::Grants, resource::Kind, revocation::SelectorKind};
use quorumgate_proxy::{
    AccessLog,
    identity::inspected::{Inspected, Signature},
};
use serde_json::{Value, json};
use tokio::net::TcpStream;

const KEY: &str = "qg_live_0123456789abcdefghijklmnopqrstuv_00000000";
const OTHER_KEY: &str = "qg_live_vutsrqponmlkjihgfedcba9876543210_00000000";
const ISSUER: &str = "https://idp.test";

fn route(auth: Value) -> Value {
    json!({"name": "all", "match": {"path_prefix": "/"}, "upstream": "u", "auth": auth})
}

fn keys() -> Value {
    json!({"name": "keys", "api_key": {"query": "key"}})
}

fn idp(signer: &Signer) -> Value {
    let keys: Value = serde_json::from_str(&jwks(&[signer])).unwrap();
    json!({"name": "idp", "jwt": {
        "issuer": ISSUER, "audience": ["orders"], "jwks_inline": keys, "consumer_claim": "azp", "groups_claim": "roles",
    }})
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "orders", "exp": now_s() + 600, "iat": now_s(), "sub": "ann", "jti": "j1", "azp": "acme"})
}

async fn by_keys() -> World {
    World::new(json!({"auth": [keys()], "routes": [route(json!({"any_of": ["keys"]}))]})).await
}

#[track_caller]
fn check_refused(answer: &str, status: u16, code: &str, challenge: &str) {
    check_problem(answer, status, code);
    let found = field(answer, "www-authenticate").unwrap_or_default();
    assert!(found.starts_with(challenge), "{found}");
}

#[tokio::test]
async fn a_key_is_taken_where_it_may_stand_and_goes_no_further() {
    let world = by_keys().await;
    let id = world.key("acme", KEY);
    let address = world.gateway.address;
    for (line, fields) in [
        ("GET /a?b=1", vec![format!("x-api-key: {KEY}")]),
        ("GET /a?b=1", vec![format!("authorization: ApiKey {KEY}")]),
        ("GET /a?b=1", vec![format!("Authorization: bearer {KEY}")]),
        (&format!("GET /a?key={KEY}&b=1"), vec![]),
    ] {
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let answer = ask(address, line, &fields, "").await;
        assert_eq!(status(&answer), 200, "{line} {fields:?} {answer}");
        let heard = world.heard.last();
        assert!(heard.starts_with("GET /a?b=1\n"), "{heard}");
        assert!(!heard.contains("qg_live"), "{heard}");
        for told in [
            "x-consumer-name: acme\n",
            "x-consumer-id: acme\n",
            "x-consumer-groups: partners,eu\n",
            &format!("x-credential-id: {id}\n"),
        ] {
            assert!(heard.contains(told), "{told} in {heard}");
        }
    }
    world.gateway.metric_becomes("quorumgate_auth_total{auth=\"keys\",result=\"ok\"}", 4).await;
    let before = world.heard.count();
    for fields in [vec![], vec![format!("x-key: {KEY}")], vec![format!("cookie: x-api-key={KEY}")]] {
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        check_refused(&ask(address, "GET /", &fields, "").await, 401, "credentials_missing", "ApiKey realm=\"keys\"");
    }
    let in_path = format!("GET /{KEY}?Key={KEY}");
    check_refused(&ask(address, &in_path, &[], "").await, 401, "credentials_missing", "ApiKey");
    for wrong in [&KEY[..KEY.len() - 1], "qg_", "qg_live_x", OTHER_KEY, &"q".repeat(5000)] {
        let answer = ask(address, "GET /", &[&format!("x-api-key: {wrong}")], "").await;
        check_refused(&answer, 401, "credentials_invalid", "ApiKey");
    }
    assert_eq!(world.heard.count(), before);
}

#[tokio::test]
async fn two_credentials_in_one_request_are_refused() {
    let signer = Signer::es256("k1");
    let auth = json!([keys(), idp(&signer), {"name": "people", "basic": {}}]);
    let world =
        World::new(json!({"auth": auth, "routes": [route(json!({"any_of": ["keys", "idp", "people"]}))]})).await;
    world.key("acme", KEY);
    world.key("acme", OTHER_KEY);
    let token = signer.token(&claims());
    let (key, other) = (format!("x-api-key: {KEY}"), format!("x-api-key: {OTHER_KEY}"));
    let bearer = format!("authorization: Bearer {token}");
    let by_key = format!("authorization: Bearer {KEY}");
    for (line, fields) in [
        ("GET /", vec![&*key, &*other]),
        ("GET /", vec![&*key, &*key]),
        ("GET /", vec![&*bearer, &*bearer]),
        ("GET /", vec![&*bearer, &*key]),
        ("GET /", vec![&*by_key, &*key]),
        ("GET /", vec![&*bearer, "authorization: Basic YTpi"]),
        (&*format!("GET /?key={KEY}&key={OTHER_KEY}"), vec![]),
        (&*format!("GET /?key={KEY}"), vec![&*key]),
        (&*format!("GET /?access_token={token}"), vec![&*bearer]),
    ] {
        let answer = ask(world.gateway.address, line, &fields, "").await;
        check_refused(&answer, 400, "malformed_request", "ApiKey");
    }
    let folded = format!("authorization: Bearer {token}, Bearer {token}");
    check_refused(&ask(world.gateway.address, "GET /", &[&folded], "").await, 401, "credentials_missing", "ApiKey");
    assert_eq!(world.heard.count(), 0);
    for field in [&*key, &*bearer] {
        assert_eq!(status(&ask(world.gateway.address, "GET /", &[field], "").await), 200);
    }
}

#[tokio::test]
async fn nobody_else_says_who_asks() {
    let words = json!({"auth": [keys()], "routes": [
        route(json!({"any_of": ["keys"]})),
        {"name": "open", "match": {"path_prefix": "/open"}, "upstream": "u"},
    ]});
    let world = World::new(words).await;
    world.key("other", KEY);
    let key = format!("x-api-key: {KEY}");
    let spoofed = [
        "X-Consumer-Name: acme",
        "x_consumer_name: acme",
        "x-consumer_id: acme",
        "X-Consumer-Groups: admin",
        "x-consumer-custom: acme",
        "X-Credential-Id: 1",
        "x_credential_id: 1",
        "Client-Cert: :AAAA:",
        "client_cert: :AAAA:",
        "client-cert-chain: :AAAA:",
        // Nor is it ours to be removed by being named.
        "connection: x-consumer-name, x-consumer-id, x-credential-id, x-forwarded-for, x-api-key",
    ];
    let fields: Vec<&str> = spoofed.into_iter().chain([&*key]).collect();
    assert_eq!(status(&ask(world.gateway.address, "GET /", &fields, "").await), 200);
    let heard = world.heard.last();
    assert!(heard.contains("x-consumer-name: other\n") && heard.contains("x-consumer-id: other\n"), "{heard}");
    assert!(heard.contains("x-forwarded-for: 127.0.0.1\n") && heard.contains("x-credential-id: "), "{heard}");
    for gone in ["acme", "admin", "AAAA", "x_c", "client", "qg_live", "groups"] {
        assert!(!heard.contains(gone), "{gone} in {heard}");
    }
    assert_eq!(status(&ask(world.gateway.address, "GET /open", &spoofed, "").await), 200);
    let heard = world.heard.last();
    assert!(!heard.contains("consumer") && !heard.contains("credential") && !heard.contains("AAAA"), "{heard}");
}

#[tokio::test]
async fn trailers_say_nothing_of_who_asks() {
    let world = by_keys().await;
    world.key("other", KEY);
    let heard = Arc::new(Mutex::new(HeaderMap::new()));
    let target = {
        let heard = heard.clone();
        upstream(move |request| {
            let heard = heard.clone();
            async move {
                let body = request.into_body().collect().await.unwrap();
                *heard.lock().unwrap() = body.trailers().cloned().unwrap_or_default();
                Response::new(Full::new(Bytes::from_static(b"ok")))
            }
        })
        .await
    };
    world.put(json!({"upstreams": [{"name": "u", "targets": [target.to_string()]}]}));
    let stream = TokioIo::new(TcpStream::connect(world.gateway.address).await.unwrap());
    let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let names = ["x-consumer-name", "x_consumer_id", "x-credential-id", "client-cert", "x-forwarded-for", "host"];
    let spoofed = names.into_iter().chain(["authorization", "cookie", "x-api-key", "x-sum"]);
    let trailers = spoofed.map(|name| (HeaderName::from_static(name), HeaderValue::from_static("acme"))).collect();
    let frames = [Frame::data(Bytes::from_static(b"a")), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
    let request = Request::post("http://api.test/")
        .header("x-api-key", KEY)
        .header("te", "trailers")
        .header("trailer", "x-consumer-name, x_consumer_id, x-credential-id, client-cert, x-forwarded-for, x-sum")
        .body(StreamBody::new(futures_util::stream::iter(frames)))
        .unwrap();
    let answer = soon("the answer", client.send_request(request)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let heard: Vec<String> = heard.lock().unwrap().keys().map(ToString::to_string).collect();
    assert_eq!(heard, ["x-sum"]);
}

#[tokio::test]
async fn connection_cannot_take_a_credential_away() {
    let words = json!({"auth": [keys()], "routes": [
        {"name": "all", "match": {"path_prefix": "/"}, "upstream": "u", "auth": {"any_of": ["keys"], "anonymous": "guest"}},
    ]});
    let world = World::new(words).await;
    let id = world.key("acme", KEY);
    world.decide(id, Decided::Revoked);
    // Without the field the request would count as a guest's.
    for fields in [
        [&*format!("x-api-key: {KEY}"), "connection: x-api-key"],
        [&*format!("authorization: ApiKey {KEY}"), "connection: authorization"],
    ] {
        check_refused(&ask(world.gateway.address, "GET /", &fields, "").await, 401, "token_revoked", "ApiKey");
    }
    assert_eq!(status(&ask(world.gateway.address, "GET /", &[], "").await), 200);
    assert!(world.heard.last().contains("x-consumer-name: guest\n"), "{}", world.heard.last());
    // What is for the application is passed on.
    assert_eq!(status(&ask(world.gateway.address, "GET /", &["authorization: Digest x"], "").await), 200);
    assert!(world.heard.last().contains("authorization: Digest x\n"), "{}", world.heard.last());
}

#[tokio::test]
async fn no_spelling_of_a_path_leads_round_its_route() {
    let words = json!({"auth": [keys()], "routes": [
        {"name": "open", "match": {"path_prefix": "/"}, "upstream": "u"},
        {"name": "admin", "match": {"path_prefix": "/admin"}, "upstream": "u", "auth": {"any_of": ["keys"]}},
    ]});
    let world = World::new(words).await;
    for path in [
        "/admin",
        "/admin/",
        "/%61dmin",
        "/adm%69n/x",
        "//admin",
        "/./admin",
        "/x/../admin",
        "/x/%2e%2e/admin",
        "/x/..%2fadmin",
        "/%2fadmin",
        "/admin/../admin",
        "/x;/../admin",
        "/..;/admin",
        "/x/..;/admin",
        "/admin%00",
        "/\\admin",
        "/%5cadmin",
        "/x/%2E./admin",
        "http://api.test/admin",
        "http://api.test//admin?x",
        "/admin?x=/../",
        "/admin#x",
        "/x/%252e%252e/admin",
    ] {
        let before = world.heard.count();
        let answer = ask(world.gateway.address, &format!("GET {path}"), &[], "").await;
        match status(&answer) {
            400 | 401 => assert_eq!(world.heard.count(), before, "{path}"),
            // Another path then, and the upstream is asked for that one.
            200 => {
                let heard = world.heard.last();
                let line = heard.lines().next().unwrap();
                assert!(!line.contains("/admin") || line.contains("%252e"), "{path} became {line}");
            }
            other => panic!("{path}: {other}"),
        }
    }
}

#[tokio::test]
async fn no_spelling_of_a_path_leads_round_a_rule() {
    let route = |preserve: &str| {
        json!({
            "name": "orders", "match": {"path_prefix": "/orders"}, "upstream": "u", "auth": {"any_of": ["keys"]},
            "encoded_slash": preserve,
            "authorize": [
                {"deny": {"paths": ["/orders/internal"]}},
                {"allow": {"paths": ["/orders"]}},
            ],
        })
    };
    let world = World::new(json!({"auth": [keys()], "routes": [route("refuse")]})).await;
    world.key("acme", KEY);
    for encoded_slash in ["refuse", "preserve"] {
        world.put(json!({"routes": [route(encoded_slash)]}));
        for path in [
            "/orders/internal",
            "/orders/internal/x",
            "/orders/%69nternal",
            "/orders//internal",
            "/orders/./internal",
            "/orders/x/../internal",
            "/orders/x/%2e%2E/internal",
            "//orders/internal",
            "/x/../orders/internal",
            "/orders/..;/orders/internal",
            "/orders/internal%2Fx",
            "/orders/internal%5cx",
            "/orders%2finternal",
            "/orders/x%2F..%2Finternal",
            "/orders/x%5C..%5Cinternal/y",
            "/orders/x/..%2f..%2F..%2Forders/internal",
        ] {
            let answer = ask(world.gateway.address, &format!("GET {path}"), &[&format!("x-api-key: {KEY}")], "").await;
            assert!(matches!(status(&answer), 400 | 403 | 404), "{encoded_slash} {path}: {answer}");
        }
        assert_eq!(world.heard.count(), 0);
    }
    for path in ["/orders/internals", "/orders/a%2Fb", "/orders/x%2Finternal"] {
        let answer = ask(world.gateway.address, &format!("GET {path}"), &[&format!("x-api-key: {KEY}")], "").await;
        assert_eq!(status(&answer), 200, "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_token_revoked_by_its_hash_has_no_second_text() {
    let signer = Signer::es256("k1");
    let world = World::new(json!({"auth": [idp(&signer)], "routes": [route(json!({"any_of": ["idp"]}))]})).await;
    let try_token =
        async |token: &str| ask(world.gateway.address, "GET /", &[&format!("authorization: Bearer {token}")], "").await;
    let (revoked, other) = (signer.token(&claims()), signer.token(&claims()));
    // (r, n - s) is as good a signature as (r, s), and needs no key.
    let rewritten = rewritten(&revoked);
    assert_eq!(status(&try_token(&rewritten).await), 200);
    let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, revoked.as_bytes());
    world.revoke(SelectorKind::TokenHash, b"", sha256.as_ref());
    for text in [&revoked, &rewritten] {
        check_refused(&try_token(text).await, 401, "token_revoked", "Bearer");
    }
    assert_eq!(status(&try_token(&other).await), 200);
}

/// The same token with n - s of P-256 for s, subtracted as one does by hand.
fn rewritten(token: &str) -> String {
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let order = data_encoding::HEXLOWER.decode(order.as_bytes()).unwrap();
    let (message, signature) = token.rsplit_once('.').unwrap();
    let mut signature = data_encoding::BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    let mut carried = 0;
    for at in (0..32).rev() {
        let left = i32::from(order[at]) - i32::from(signature[32 + at]) - carried;
        carried = i32::from(left < 0);
        signature[32 + at] = (left + 256 * carried) as u8;
    }
    format!("{message}.{}", crate::tokens::base64url(signature))
}

#[tokio::test]
async fn a_key_is_good_for_its_time_its_place_and_its_state() {
    let world = by_keys().await;
    let address = world.gateway.address;
    let try_key = async |key: &str| ask(address, "GET /", &[&format!("x-api-key: {key}")], "").await;
    let id = world.key("acme", KEY);
    assert_eq!(status(&try_key(KEY).await), 200);
    world.decide(id, Decided::Disabled);
    check_refused(&try_key(KEY).await, 401, "credentials_invalid", "ApiKey");
    world.decide(id, Decided::Active);
    assert_eq!(status(&try_key(KEY).await), 200);
    world.revoke(SelectorKind::Credential, b"", id.to_string().as_bytes());
    check_refused(&try_key(KEY).await, 401, "token_revoked", "ApiKey");
    let cidrs = Box::new(["192.0.2.0/24".parse().unwrap()]);
    world.key_with("acme", OTHER_KEY, Grants { cidrs, ..Grants::default() }, None);
    check_refused(&try_key(OTHER_KEY).await, 401, "credentials_invalid", "ApiKey");
    let short = "qg_live_short";
    world.key_with("other", short, Grants::default(), Some(Duration::from_secs(2)));
    assert_eq!(status(&try_key(short).await), 200);
    let expired = async {
        loop {
            let answer = try_key(short).await;
            if status(&answer) != 200 {
                break answer;
            }
        }
    };
    check_refused(&soon("the key expires", expired).await, 401, "token_expired", "ApiKey");
    // All that speaks for a consumer, and a consumer that is gone.
    let last = "qg_live_last";
    world.key("other", last);
    assert_eq!(status(&try_key(last).await), 200);
    world.revoke(SelectorKind::Consumer, b"", b"other");
    check_refused(&try_key(last).await, 401, "token_revoked", "ApiKey");
    world.key("guest", "qg_live_guest");
    world.remove(Kind::Consumer, "guest");
    check_refused(&try_key("qg_live_guest").await, 401, "credentials_invalid", "ApiKey");
}

#[tokio::test]
async fn a_token_is_good_for_its_issuer_until_it_is_revoked() {
    let signer = Signer::es256("k1");
    let world = World::new(json!({"auth": [idp(&signer)], "routes": [route(json!({"any_of": ["idp"]}))]})).await;
    let address = world.gateway.address;
    let try_token = async |token: String| ask(address, "GET /", &[&format!("authorization: Bearer {token}")], "").await;
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        signer.token(&claims)
    };
    let good = with("roles", json!(["ops"]));
    for _ in 0..2 {
        assert_eq!(status(&try_token(good.clone()).await), 200);
        let heard = world.heard.last();
        assert!(heard.contains("x-consumer-name: acme\n") && !heard.contains("authorization"), "{heard}");
        assert!(heard.contains("x-consumer-groups: partners,eu,ops\n"), "{heard}");
        assert!(heard.contains("x-credential-id: j1\n"), "{heard}");
    }
    for (token, code) in [
        (with("exp", json!(now_s() - 60)), "token_expired"),
        (with("aud", json!("else")), "credentials_invalid"),
        (with("azp", json!("unknown")), "credentials_invalid"),
        (Signer::es256("k1").token(&claims()), "signature_invalid"),
        ("a.b.c".into(), "credentials_invalid"),
    ] {
        let answer = try_token(token).await;
        check_refused(&answer, 401, code, "Bearer realm=\"idp\", error=\"invalid_token\", error_description=\"");
    }
    // RFC 6750 3.1: whoever shows nothing is told of no error.
    let answer = ask(address, "GET /", &[], "").await;
    check_refused(&answer, 401, "credentials_missing", "Bearer realm=\"idp\"");
    assert!(!field(&answer, "www-authenticate").unwrap().contains("error"));
    let revoked =
        |answer: &str| check_refused(answer, 401, "token_revoked", "Bearer realm=\"idp\", error=\"invalid_token\"");
    world.revoke(SelectorKind::Jti, ISSUER.as_bytes(), b"j1");
    revoked(&try_token(good).await);
    let next = with("jti", json!("j2"));
    assert_eq!(status(&try_token(next.clone()).await), 200);
    world.revoke_before(SelectorKind::Subject, ISSUER.as_bytes(), b"ann", Some(now_s() + 1));
    revoked(&try_token(next).await);
    let bob = |jti: &str| {
        let mut claims = claims();
        (claims["sub"], claims["jti"]) = (json!("bob"), json!(jti));
        signer.token(&claims)
    };
    assert_eq!(status(&try_token(bob("j3")).await), 200);
    world.revoke(SelectorKind::SigningKid, b"", b"k1");
    revoked(&try_token(bob("j3")).await);
}

fn hashed(password: &str) -> String {
    let salt = SaltString::encode_b64(b"a salt of tests").unwrap();
    let cheap = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, None).unwrap());
    cheap.hash_password(password.as_bytes(), &salt).unwrap().to_string()
}

#[tokio::test]
async fn passwords_are_verified_and_guesses_are_counted() {
    let auth = json!([{"name": "people", "basic": {"realm": "Back office"}}]);
    let world = World::new(json!({"auth": auth, "routes": [route(json!({"any_of": ["people"]}))]})).await;
    world.user("acme", "ann", hashed("right"));
    let try_password = async |text: &str| {
        let text = data_encoding::BASE64.encode(text.as_bytes());
        ask(world.gateway.address, "GET /", &[&format!("authorization: Basic {text}")], "").await
    };
    assert_eq!(status(&try_password("ann:right").await), 200);
    let heard = world.heard.last();
    assert!(heard.contains("x-consumer-name: acme\n") && !heard.contains("Basic"), "{heard}");
    for wrong in ["ann:wrong", "bob:right", "ann", ":"] {
        let answer = try_password(wrong).await;
        check_refused(&answer, 401, "credentials_invalid", "Basic realm=\"Back office\", charset=\"UTF-8\"");
    }
    let mut guesses = 0;
    let locked = loop {
        let answer = try_password("ann:guess").await;
        guesses += 1;
        match status(&answer) {
            401 => assert!(guesses <= 10),
            _ => break answer,
        }
    };
    check_problem(&locked, 429, "rate_limited");
    assert!(field(&locked, "retry-after").unwrap().parse::<u64>().unwrap() <= 60);
    // Who was right before is not shut out by those who guess.
    assert_eq!(status(&try_password("ann:right").await), 200);
}

/// Tokens that this gateway and a second reading of them are most likely to disagree on.
#[tokio::test]
async fn operators_are_told_of_a_token_what_requests_with_it_are_answered() {
    let (signer, revoked_signer, stranger) = (Signer::es256("k1"), Signer::es256("k2"), Signer::es256("k1"));
    let keys: Value = serde_json::from_str(&jwks(&[&signer, &revoked_signer])).unwrap();
    let auth = json!([{"name": "idp", "jwt": {
        "issuer": ISSUER, "audience": ["orders"], "jwks_inline": keys, "consumer_claim": "app.name",
    }}]);
    let world = World::new(json!({"auth": auth, "routes": [route(json!({"any_of": ["idp"]}))]})).await;
    world.revoke(SelectorKind::SigningKid, b"", b"k2");
    world.revoke(SelectorKind::Consumer, b"", b"other");
    let now_s = now_s();
    let said = json!({"iss": ISSUER, "aud": "orders", "exp": now_s + 600, "iat": now_s, "app": {"name": "acme"}});
    let claims = |name: &str, value: Value| {
        let mut claims = said.clone();
        claims[name] = value;
        claims
    };
    let with = |name: &str, value: Value| signer.token(&claims(name, value));
    let headed = |name: &str, value: Value| {
        let mut header = signer.header();
        header[name] = value;
        signer.token_with(&header, &said)
    };
    let unkeyed = json!({"alg": "ES256"});
    let encoded = |text: &str| crate::tokens::base64url(text);
    let twice = said.to_string().replacen('{', "{\"sub\":\"a\",\"sub\":\"b\",", 1);
    let cases = [
        (signer.token(&said), None),
        (signer.token_with(&unkeyed, &said), None),
        (with("exp", json!(now_s - 5)), None),
        (with("exp", json!(now_s as f64 + 100.5)), None),
        (with("exp", json!(now_s - 100)), Some("token_expired")),
        (with("exp", json!("soon")), Some("credentials_invalid")),
        (with("exp", json!(now_s + 90_000)), Some("credentials_invalid")),
        (with("nbf", json!(now_s + 100)), Some("credentials_invalid")),
        (with("iat", json!(now_s + 100)), Some("credentials_invalid")),
        (with("aud", json!("billing")), Some("credentials_invalid")),
        (with("sub", json!(5)), Some("credentials_invalid")),
        (with("jti", json!(["a"])), Some("credentials_invalid")),
        (with("cnf", json!({"x5t#S256": "AA"})), Some("credentials_invalid")),
        (with("app", json!("acme")), Some("credentials_invalid")),
        (with("app", json!({"name": "nobody"})), Some("credentials_invalid")),
        (with("app", json!({"name": "other"})), Some("token_revoked")),
        (with("more", json!("y".repeat(17_000))), Some("credentials_invalid")),
        (headed("kid", json!("k9")), Some("credentials_invalid")),
        (headed("crit", json!(["exp"])), Some("credentials_invalid")),
        (headed("typ", json!("logout+jwt")), Some("credentials_invalid")),
        (headed("alg", json!("ES384")), Some("credentials_invalid")),
        (signer.token_of(&encoded(&unkeyed.to_string()), &encoded(&twice)), Some("credentials_invalid")),
        (stranger.token(&said), Some("signature_invalid")),
        (revoked_signer.token_with(&unkeyed, &said), Some("token_revoked")),
    ];
    let directory = world.gateway.proxy.directory();
    for (token, code) in cases {
        let answer = ask(world.gateway.address, "GET /", &[&format!("authorization: Bearer {token}")], "").await;
        let inspected = Inspected::of(&directory, &token, crate::world::now_s());
        let [opinion] = &inspected.opinions[..] else { panic!("{inspected:?}") };
        let subjects = inspected.subjects();
        let is_revoked = subjects.iter().any(|it| directory.is_revoked(it).is_some());
        assert_eq!(is_revoked, code == Some("token_revoked"), "{inspected:?}");
        match (code, opinion.refusal) {
            (None, None) => assert_eq!(status(&answer), 200, "{answer}"),
            (Some(code), Some(refusal)) => {
                check_problem(&answer, refusal.status, refusal.code);
                assert_eq!((refusal.code, refusal.detail), (code, problem(&answer)["detail"].as_str().unwrap()));
            }
            _ => panic!("{inspected:?} {answer}"),
        }
    }
}

#[tokio::test]
async fn what_was_not_verified_is_called_so() {
    let signer = Signer::es256("k1");
    let auth = json!([{"name": "idp", "jwt": {
        "issuer": ISSUER, "audience": ["orders"], "jwks_url": "http://127.0.0.1:1/jwks", "allow_private": true,
    }}]);
    let world = World::new(json!({"auth": auth, "routes": [route(json!({"any_of": ["idp"]}))]})).await;
    let token = signer.token(&claims());
    let answer = ask(world.gateway.address, "GET /", &[&format!("authorization: Bearer {token}")], "").await;
    check_problem(&answer, 503, "auth_unavailable");
    let inspected = Inspected::of(&world.gateway.proxy.directory(), &token, now_s());
    let [opinion] = &inspected.opinions[..] else { panic!("{inspected:?}") };
    assert!(matches!(opinion.signature, Signature::Unverified(_)), "{opinion:?}");
    assert_eq!(opinion.refusal.unwrap().code, "auth_unavailable");
    assert_eq!(opinion.beside, Some(Ok(())));
}

#[tokio::test]
async fn all_of_means_all_and_one_consumer() {
    let signer = Signer::es256("k1");
    let auth = json!([keys(), idp(&signer)]);
    let world = World::new(json!({"auth": auth, "routes": [route(json!({"all_of": ["keys", "idp"]}))]})).await;
    world.key("acme", KEY);
    world.key("other", OTHER_KEY);
    let address = world.gateway.address;
    let bearer = format!("authorization: Bearer {}", signer.token(&claims()));
    let (key, other) = (format!("x-api-key: {KEY}"), format!("x-api-key: {OTHER_KEY}"));
    assert_eq!(status(&ask(address, "GET /", &[&bearer, &key], "").await), 200);
    let heard = world.heard.last();
    assert!(!heard.contains("authorization") && !heard.contains("qg_live"), "{heard}");
    for (fields, code) in [
        (vec![], "credentials_missing"),
        (vec![&*bearer], "credentials_invalid"),
        (vec![&*key], "credentials_invalid"),
        (vec![&*bearer, &*other], "credentials_invalid"),
    ] {
        assert_eq!(problem(&ask(address, "GET /", &fields, "").await)["code"], code, "{fields:?}");
    }
    world.revoke(SelectorKind::Jti, b"", b"j1");
    check_problem(&ask(address, "GET /", &[&bearer, &key], "").await, 401, "token_revoked");
}

#[tokio::test]
async fn rules_decide_who_may_do_what_and_the_log_says_which() {
    let signer = Signer::es256("k1");
    let files = tempfile::tempdir().unwrap();
    let log = files.path().join("access.log");
    let mut settings = settings();
    settings.access_log = AccessLog { default_on: true, path: Some(log.clone()) };
    let route = json!({
        "name": "users", "match": {"path_template": "/users/{user_id}"}, "upstream": "u",
        "auth": {"any_of": ["keys", "idp"]},
        "authorize": [
            {"name": "own", "allow": {"params_equal": {"user_id": "jwt.sub"}, "scopes_all": ["users:read"]}},
            {"name": "partners-read", "allow": {"groups": ["partners"], "methods": ["GET"], "scopes_any": ["all"]}},
        ],
    });
    let world = World::with(settings, json!({"auth": [keys(), idp(&signer)], "routes": [route]})).await;
    let id = world.key_with("acme", KEY, Grants { scopes: [Box::from("all")].into(), ..Grants::default() }, None);
    let address = world.gateway.address;
    let bearer = |scope: &str| {
        let mut claims = claims();
        (claims["scope"], claims["azp"]) = (json!(scope), json!("other"));
        format!("authorization: Bearer {}", signer.token(&claims))
    };
    let key = format!("x-api-key: {KEY}");
    for (line, field, expected, rule) in [
        ("GET /users/ann", bearer("users:read"), 200, Some("own")),
        // What is another's: the guard against broken object level authorization.
        ("GET /users/bob", bearer("users:read"), 403, None),
        ("GET /users/%61nn", bearer("users:read"), 200, Some("own")),
        ("GET /users/bob", key.clone(), 200, Some("partners-read")),
        ("DELETE /users/bob", key.clone(), 403, None),
    ] {
        let answer = ask(address, line, &[&field], "").await;
        assert_eq!(status(&answer), expected, "{line} {answer}");
        let said = until("the log line", || {
            let text = std::fs::read_to_string(&log).ok()?;
            let request_id = crate::support::field(&answer, "x-request-id")?;
            let line = text.lines().find(|line| line.contains(request_id))?;
            serde_json::from_str::<Value>(line).ok()
        })
        .await;
        assert_eq!(said["decision"]["phase"], "authorization", "{said}");
        assert_eq!((&said["decision"]["policy"], &said["decision"]["rule"]), (&json!("users"), &json!(rule)), "{said}");
        let by_key = field == key;
        assert_eq!(said["consumer"], if by_key { "acme" } else { "other" }, "{said}");
        assert_eq!(said["auth_method"], if by_key { "api_key" } else { "jwt" }, "{said}");
        assert_eq!(said["credential"], if by_key { id.to_string() } else { "j1".into() }, "{said}");
        if expected == 403 {
            check_problem(&answer, 403, "access_denied");
        }
    }
    let answer = ask(address, "GET /users/ann", &[&bearer("users")], "").await;
    check_refused(&answer, 403, "insufficient_scope", "Bearer error=\"insufficient_scope\"");
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(!said.contains("qg_live") && !said.contains("eyJ"), "{said}");
}

#[tokio::test]
async fn a_signed_request_is_taken_as_it_was_signed_and_its_body_too() {
    let signer = Signer::ed25519("k1");
    let key = json!({"id": "k1", "algorithm": "ed25519", "public_key": signer.public_pem(), "consumer": "acme"});
    let components = json!(["@method", "@target-uri", "content-digest"]);
    let auth = json!([{"name": "signed", "signature": {"components": components, "keys": [key]}}]);
    let world = World::new(json!({"auth": auth, "routes": [route(json!({"any_of": ["signed"]}))]})).await;
    let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"hello");
    let digest = format!("sha-256=:{}:", BASE64.encode(sha256.as_ref()));
    let params = format!("(\"@method\" \"@target-uri\" \"content-digest\");created={};keyid=\"k1\"", now_s());
    let base = format!(
        "\"@method\": POST\n\"@target-uri\": http://api.test/orders?a=1\n\"content-digest\": {digest}\n\
         \"@signature-params\": {params}"
    );
    let signature = format!("signature: s=:{}:", BASE64.encode(&signer.sign(base.as_bytes())));
    let input = format!("signature-input: s={params}");
    let digest = format!("content-digest: {digest}");
    let fields = [&*input, &signature, &digest, "content-length: 5"];
    let address = world.gateway.address;
    assert_eq!(status(&ask(address, "POST /orders?a=1", &fields, "hello").await), 200);
    let heard = world.heard.last();
    assert!(heard.contains("x-consumer-name: acme\n") && heard.ends_with("\n\nhello"), "{heard}");
    let before = world.heard.count();
    check_refused(&ask(address, "POST /orders?a=2", &fields, "hello").await, 401, "signature_invalid", "Signature");
    check_refused(&ask(address, "PUT /orders?a=1", &fields, "hello").await, 401, "signature_invalid", "Signature");
    check_refused(&ask(address, "POST /orders?a=1", &fields, "hallo").await, 401, "credentials_invalid", "Signature");
    let chunked = [&*input, &signature, &digest, "transfer-encoding: chunked"];
    assert_eq!(status(&ask(address, "POST /orders?a=1", &chunked, "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n").await), 200);
    check_problem(
        &ask(address, "POST /orders?a=1", &chunked, "2\r\nhe\r\n3\r\nllx\r\n0\r\n\r\n").await,
        401,
        "credentials_invalid",
    );
    // Without a body it is not what was signed either.
    let bodiless = ask(address, "POST /orders?a=1", &[&input, &signature, &digest], "").await;
    check_refused(&bodiless, 401, "credentials_invalid", "Signature");
    // Upstreams may have seen the beginning of a wrong body, never a whole one.
    let heard = world.heard.last();
    assert!(heard.ends_with("\n\n") || heard.ends_with("hello"), "{heard}");
    assert!(world.heard.count() > before);
}
