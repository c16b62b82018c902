//! Endpoints of OAuth 2 that are asked by this gateway: introspection, and tokens for upstreams.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use crate::support::until;
use bytes::Bytes;
use futures_util::{FutureExt, future::join_all};
use http::{HeaderValue, Response};
use http_body_util::{BodyExt, Full};
use quorumgate_proxy::identity::{
    AuthFailure,
    client_credentials::{ClientCredentials, ClientCredentialsPlan},
    egress::Reach,
    fetch::{Endpoint, Fetcher},
    introspection::{Introspection, IntrospectionPlan, OnError},
};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Answers every request alike, and remembers what it was sent.
#[derive(Clone)]
struct Server {
    answer: Arc<Mutex<(u16, Value)>>,
    heard: Arc<Mutex<Vec<String>>>,
    tokens: Arc<AtomicU64>,
}

impl Server {
    async fn start(answer: Value) -> (Self, SocketAddr) {
        let server =
            Self { answer: Arc::new(Mutex::new((200, answer))), heard: Arc::default(), tokens: Arc::default() };
        let it = server.clone();
        let address = crate::support::upstream(move |request| {
            let it = it.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let authorization = head.headers["authorization"].to_str().unwrap().to_owned();
                it.heard.lock().unwrap().push(format!("{authorization} {}", String::from_utf8_lossy(&body)));
                let (status, mut answer) = it.answer.lock().unwrap().clone();
                if answer.get("access_token").is_some() {
                    let number = it.tokens.fetch_add(1, Ordering::SeqCst);
                    answer["access_token"] = json!(format!("t{number}"));
                }
                Response::builder().status(status).body(Full::new(Bytes::from(answer.to_string()))).unwrap()
            }
        })
        .await;
        (server, address)
    }

    fn set(&self, status: u16, answer: Value) {
        *self.answer.lock().unwrap() = (status, answer);
    }

    fn hits(&self) -> usize {
        self.heard.lock().unwrap().len()
    }
}

fn fetcher() -> Fetcher {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Fetcher::new(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::parse(&format!("http://{address}/oauth")).unwrap()
}

fn now_s() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

fn introspection(address: SocketAddr, cache: Duration, on_error: OnError) -> Arc<Introspection> {
    let plan = IntrospectionPlan {
        endpoint: endpoint(address),
        client_id: "gw".into(),
        client_secret: "s:1".into(),
        cache,
        on_error,
        consumer_claim: Some("client_id".into()),
        groups_claim: Some("groups".into()),
        scopes_claim: "scope".into(),
        skew_s: 30,
        reach: Reach::Private,
    };
    Introspection::new(plan, fetcher())
}

fn active() -> Value {
    json!({"active": true, "client_id": "acme", "sub": "u-1", "scope": "a b", "exp": now_s() + 300, "groups": ["g"]})
}

const INACTIVE: AuthFailure = AuthFailure::Invalid("the token is not active");
const UNAVAILABLE: AuthFailure = AuthFailure::Unavailable("the introspection endpoint does not answer");
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn an_active_token_is_asked_about_once() {
    let (server, address) = Server::start(active()).await;
    let auth = introspection(address, Duration::from_secs(30), OnError::Deny);
    let asked = (0..50).map(|_| auth.introspect("opaque&1", now_s()));
    for outcome in join_all(asked).await {
        let token = outcome.unwrap();
        assert_eq!(token.consumer.as_deref(), Some("acme"));
        assert_eq!(token.groups, ["g".into()]);
        assert!(token.scopes.has("a") && token.scopes.has("b"));
        assert_eq!(token.marks.subject.as_deref(), Some("u-1"));
    }
    // `gw:s%3A1`
    let expected = "Basic Z3c6cyUzQTE= token=opaque%261&token_type_hint=access_token";
    assert_eq!(*server.heard.lock().unwrap(), [expected]);
    // It is forgotten when it was revoked.
    server.set(200, json!({"active": false}));
    auth.forget(&auth.introspect("opaque&1", now_s()).await.unwrap().marks.sha256);
    assert_eq!(auth.introspect("opaque&1", now_s()).await, Err(INACTIVE));
    assert_eq!(server.hits(), 2);
}

#[tokio::test]
async fn a_token_that_is_not_active_is_asked_about_once_too() {
    let (server, address) = Server::start(json!({"active": false})).await;
    let auth = introspection(address, Duration::from_secs(30), OnError::AllowCached);
    for _ in 0..10 {
        assert_eq!(auth.introspect("t", now_s()).await, Err(INACTIVE));
    }
    assert_eq!(server.hits(), 1);
    for (token, answer) in [("a", json!({"active": "true"})), ("b", json!({})), ("c", json!({"active": 1}))] {
        server.set(200, answer);
        assert_eq!(auth.introspect(token, now_s()).await, Err(INACTIVE));
    }
    server.set(200, json!({"active": true, "exp": now_s() - 31}));
    assert_eq!(auth.introspect("d", now_s()).await, Err(AuthFailure::Expired));
    server.set(200, json!({"active": true, "exp": "tomorrow"}));
    auth.introspect("e", now_s()).await.unwrap_err();
    server.set(200, json!({"active": true, "nbf": now_s() + 60}));
    auth.introspect("f", now_s()).await.unwrap_err();
}

#[tokio::test]
async fn an_endpoint_that_fails_decides_as_the_auth_says() {
    for on_error in [OnError::Deny, OnError::AllowCached] {
        let (server, address) = Server::start(active()).await;
        let auth = introspection(address, Duration::ZERO, on_error);
        auth.introspect("t", now_s()).await.unwrap();
        for (status, answer) in [(500, json!({})), (401, active()), (200, json!([active()]))] {
            server.set(status, answer);
            let outcome = auth.introspect("t", now_s()).await;
            match on_error {
                OnError::Deny => assert_eq!(outcome, Err(UNAVAILABLE)),
                OnError::AllowCached => assert!(outcome.is_ok()),
            }
            // One that was never heard of stays unknown.
            assert_eq!(auth.introspect("other", now_s()).await, Err(UNAVAILABLE));
        }
        // What was once active expires nevertheless.
        let late = auth.introspect("t", now_s() + HOUR.as_secs()).await;
        assert!(matches!(late, Err(AuthFailure::Expired) | Err(UNAVAILABLE)));
        // While it fails, it is asked no more than once in a second or so.
        assert!(server.hits() < 8, "{}", server.hits());
    }
}

fn credentials(address: SocketAddr) -> Arc<ClientCredentials> {
    let plan = ClientCredentialsPlan {
        token_endpoint: endpoint(address),
        client_id: "gw".into(),
        client_secret: "s".into(),
        scopes: vec!["billing".into(), "x".into()],
        reach: Reach::Private,
    };
    ClientCredentials::new(plan, fetcher())
}

#[tokio::test]
async fn a_token_for_an_upstream_is_asked_for_once_and_shared() {
    let (server, address) =
        Server::start(json!({"access_token": "", "token_type": "Bearer", "expires_in": 3600})).await;
    let auth = credentials(address);
    for bearer in join_all((0..50).map(|_| auth.bearer(Instant::now()))).await {
        assert_eq!(bearer.unwrap(), "Bearer t0");
    }
    let expected = "Basic Z3c6cw== grant_type=client_credentials&scope=billing%20x";
    assert_eq!(*server.heard.lock().unwrap(), [expected]);
    // Only the token that was refused goes.
    auth.refused(&HeaderValue::from_static("Bearer other"));
    assert_eq!(auth.bearer(Instant::now()).await.unwrap(), "Bearer t0");
    auth.refused(&HeaderValue::from_static("Bearer t0"));
    assert_eq!(auth.bearer(Instant::now()).await.unwrap(), "Bearer t1");
}

#[tokio::test]
async fn a_token_is_replaced_before_it_expires_and_nobody_waits() {
    let (server, address) = Server::start(json!({"access_token": "", "token_type": "Bearer", "expires_in": 100})).await;
    let auth = credentials(address);
    let begin = Instant::now();
    let at = |seconds| begin + Duration::from_secs(seconds);
    assert_eq!(auth.bearer(at(0)).await.unwrap(), "Bearer t0");
    assert_eq!(auth.bearer(at(79)).await.unwrap(), "Bearer t0");
    assert_eq!(server.hits(), 1);
    assert_eq!(auth.bearer(at(80)).now_or_never().unwrap().unwrap(), "Bearer t0");
    until("the next one is used", || {
        let bearer = auth.bearer(at(80)).now_or_never().expect("nobody waits").unwrap();
        (bearer == "Bearer t1").then_some(())
    })
    .await;
    assert_eq!(server.hits(), 2);
    // One that has expired is not used, whatever it costs.
    server.set(500, json!({}));
    assert_eq!(auth.bearer(at(174)).await.unwrap(), "Bearer t1");
    auth.bearer(at(176)).await.unwrap_err();
}

#[tokio::test]
async fn answers_are_kept_for_their_time_only() {
    let (server, address) = Server::start(active()).await;
    let auth = introspection(address, HOUR, OnError::Deny);
    let begin = now_s();
    let check = async |at_s: u64, hits: usize| {
        let outcome = auth.introspect("t", begin + at_s).await;
        assert_eq!(server.hits(), hits);
        outcome
    };
    check(0, 1).await.unwrap();
    check(29, 1).await.unwrap();
    server.set(200, json!({"active": false}));
    check(30, 2).await.unwrap_err();
    server.set(200, active());
    check(34, 2).await.unwrap_err();
    check(35, 3).await.unwrap();
    // The clock was set back.
    check(20, 4).await.unwrap();
    // An answer is not kept beyond what it says.
    server.set(200, json!({"active": true, "exp": begin}));
    check(50, 5).await.unwrap_err();
    check(55, 6).await.unwrap_err();
    check(10, 7).await.unwrap();
    assert_eq!(check(35, 7).await, Err(AuthFailure::Expired));
}

#[tokio::test]
async fn without_a_token_the_upstream_cannot_be_asked() {
    let (server, address) = Server::start(json!({"error": "invalid_client"})).await;
    server.set(401, json!({"error": "invalid_client"}));
    let auth = credentials(address);
    let unavailable = AuthFailure::Unavailable("no token for the upstream is to be had");
    for outcome in join_all((0..50).map(|_| auth.bearer(Instant::now()))).await {
        assert_eq!(outcome, Err(unavailable));
    }
    assert_eq!(server.hits(), 1);
}
