//! People who sign in at a provider, which is played here, with a browser that is played too.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use data_encoding::BASE64URL_NOPAD;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use quorumgate_proto::admin::v1 as admin;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tonic::Code;

use super::fixture::Fixture;
use crate::{publish::wall_ms, settings::Oidc};

/// Gives one ID token for every code; what it says is the test's, but for what it must.
struct Provider {
    issuer: String,
    key: EcdsaKeyPair,
    /// Of the sign-in under way: the nonce and the challenge of its verifier.
    asked: Mutex<(String, String)>,
    claims: Mutex<Value>,
}

impl Provider {
    #[expect(clippy::disallowed_methods, reason = "it lives as long as the test's runtime")]
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = Arc::new(Self {
            issuer: format!("http://{}", listener.local_addr().unwrap()),
            key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            asked: Mutex::default(),
            claims: Mutex::new(json!({})),
        });
        let it = provider.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let it = it.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let it = it.clone();
                    async move {
                        let path = request.uri().path().to_owned();
                        let form = request.into_body().collect().await.unwrap().to_bytes();
                        let (status, answer) = it.answer(&path, &String::from_utf8_lossy(&form));
                        let body = Full::new(bytes::Bytes::from(answer.to_string()));
                        Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        provider
    }

    fn answer(&self, path: &str, form: &str) -> (u16, Value) {
        let at = |path: &str| format!("{}{path}", self.issuer);
        match path {
            "/.well-known/openid-configuration" => (
                200,
                json!({ "issuer": self.issuer, "jwks_uri": at("/jwks"), "token_endpoint": at("/token"),
                    "authorization_endpoint": at("/auth"), "end_session_endpoint": at("/bye"),
                    "authorization_response_iss_parameter_supported": true }),
            ),
            "/jwks" => {
                let (x, y) = self.key.public_key().as_ref()[1..].split_at(32);
                let [x, y] = [x, y].map(|it| BASE64URL_NOPAD.encode(it));
                (200, json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": "k", "use": "sig", "x": x, "y": y }] }))
            }
            _ => {
                let verifier = form.split('&').find_map(|pair| pair.strip_prefix("code_verifier=")).unwrap_or_default();
                let (nonce, challenge) = self.asked.lock().unwrap().clone();
                if BASE64URL_NOPAD.encode(digest(&SHA256, verifier.as_bytes()).as_ref()) != challenge {
                    return (400, json!({ "error": "invalid_grant" }));
                }
                (200, json!({ "token_type": "Bearer", "access_token": "a", "id_token": self.token(&nonce) }))
            }
        }
    }

    fn token(&self, nonce: &str) -> String {
        let now_s = wall_ms() / 1_000;
        let mut claims = json!({ "iss": self.issuer, "aud": "gate", "sub": "u-1", "iat": now_s, "exp": now_s + 300,
            "nonce": nonce });
        let said = self.claims.lock().unwrap().clone();
        said.as_object().unwrap().iter().for_each(|(name, value)| claims[name] = value.clone());
        let part = |it: Value| BASE64URL_NOPAD.encode(it.to_string().as_bytes());
        let text = format!("{}.{}", part(json!({ "alg": "ES256", "kid": "k" })), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
        format!("{text}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    }

    fn settings(&self, dir: &tempfile::TempDir) -> Oidc {
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "of the gate\n").unwrap();
        let rules = [("ops", "operator", "team"), ("admins", "admin", ""), ("all", "viewer", "")];
        let rules = rules
            .map(|(value, role, owner)| json!({ "claim": "groups", "value": value, "role": role, "owner": owner }));
        serde_json::from_value(json!({ "issuer": self.issuer, "client_id": "gate", "client_secret_file": secret,
            "allow_private": true, "name_claim": "email", "roles": rules }))
        .unwrap()
    }
}

struct Browser<'a> {
    fixture: &'a Fixture,
    provider: &'a Provider,
}

impl Browser<'_> {
    async fn ask(&self, line: &str, fields: &[(&str, &str)]) -> Response<String> {
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.fixture.origin()));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        self.fixture.browse(request.body(String::new()).unwrap()).await
    }

    /// Up to the answer to the browser that comes back; `change` is of the query with which it does.
    async fn come_back(&self, claims: Value, change: impl Fn(String) -> String) -> Response<String> {
        *self.provider.claims.lock().unwrap() = claims;
        let away = self.ask("GET /ui/login", &[]).await;
        assert_eq!(away.status(), 303, "{}", away.body());
        let location = away.headers()[header::LOCATION].to_str().unwrap().to_owned();
        let said = |name: &str| {
            let pairs = location.split(['?', '&']);
            pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).unwrap().1.to_owned()
        };
        assert!(location.starts_with(&format!("{}/auth?", self.provider.issuer)), "{location}");
        assert_eq!((said("code_challenge_method"), said("response_type")), ("S256".into(), "code".into()));
        assert!(said("redirect_uri").ends_with("%2Fui%2Fcallback"), "{location}");
        *self.provider.asked.lock().unwrap() = (said("nonce"), said("code_challenge"));
        let query = change(format!("code=c&state={}&iss={}", said("state"), self.provider.issuer));
        self.ask(&format!("GET /ui/callback?{query}"), &[("cookie", &cookies(&away))]).await
    }

    /// The session's cookie.
    async fn signed_in(&self, claims: Value) -> String {
        let back = self.come_back(claims, |query| query).await;
        assert_eq!((back.status().as_u16(), back.body().as_str()), (303, ""), "{}", back.body());
        assert_eq!(back.headers()[header::LOCATION], "/ui/");
        cookies(&back)
    }

    async fn call(&self, line: &str, cookie: &str, fields: &[(&str, &str)]) -> (u16, Value) {
        let fields = [&[("cookie", cookie)], fields].concat();
        let answer = self.ask(line, &fields).await;
        (answer.status().as_u16(), serde_json::from_str(answer.body()).unwrap())
    }
}

const PAGE: (&str, &str) = ("quorumgate-page", "1");

/// What the browser keeps; each is for this host alone, and for no script.
fn cookies(answer: &Response<String>) -> String {
    let set = answer.headers().get_all(header::SET_COOKIE).iter().map(|it| it.to_str().unwrap());
    let kept = set.filter(|it| !it.contains("Max-Age=0")).inspect(|it| {
        assert!(it.starts_with("__Host-qg-~admin"), "{it}");
        for part in ["; Path=/;", "; Secure", "; HttpOnly", "; SameSite=Lax"] {
            assert!(it.contains(part), "{it}");
        }
    });
    kept.filter_map(|it| it.split(';').next()).collect::<Vec<_>>().join("; ")
}

fn person(group: &str) -> Value {
    json!({ "email": "ann@test", "email_verified": true, "groups": [group] })
}

/// Waits until a refusal with this reason is in the node's own chain; of which path.
async fn denied(denials: &mut tonic::Streaming<admin::AuditEntry>, expected: &str) -> String {
    let found = async {
        loop {
            let entry = denials.message().await.unwrap().expect("the stream goes on");
            if entry.summary == expected {
                return entry.rpc;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), found).await.unwrap_or_else(|_| panic!("{expected} is not told"))
}

async fn denials(fixture: &Fixture) -> tonic::Streaming<admin::AuditEntry> {
    let asked = admin::WatchAuditRequest { denials: true, since: Some(0) };
    fixture.local().await.observe().watch_audit(asked).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn people_sign_in_act_by_their_role_and_sign_out() {
    let (dir, provider) = (tempfile::tempdir().unwrap(), Provider::start().await);
    let fixture = Fixture::start_with(Some(provider.settings(&dir))).await;
    fixture.consensus.states().wait_for(|state| state.secrets.contains_key(crate::secrets::COOKIE_KEY)).await.unwrap();
    let (mut denials, browser) = (denials(&fixture).await, Browser { fixture: &fixture, provider: &provider });
    let look = browser.call("GET /ui/session", "", &[PAGE]).await.1;
    assert_eq!((&look["issuer"], &look["signed_in"]), (&json!(provider.issuer), &json!(false)));

    let ops = browser.signed_in(person("ops")).await;
    assert_eq!(browser.call("GET /ui/session", &ops, &[PAGE]).await.1["signed_in"], true);
    let who = browser.call("GET /api/v1/whoami", &ops, &[PAGE]).await.1;
    assert_eq!(
        (&who["name"], &who["role"], &who["owner"]),
        (&json!("oidc/ann@test"), &json!("operator"), &json!("team"))
    );
    let drain = "POST /api/v1/nodes/n1/drain";
    assert_eq!(browser.call(drain, &ops, &[PAGE]).await.1["code"], "owner_forbidden");
    let viewer = browser.signed_in(person("all")).await;
    assert_eq!(browser.call(drain, &viewer, &[PAGE]).await.1["code"], "role_too_low");

    // A session is no use to other sites, to other servers of this machine, or to gRPC.
    let origin = fixture.origin();
    for fields in [
        &[][..],
        &[PAGE, ("origin", "https://evil.test")],
        &[PAGE, ("sec-fetch-site", "same-site")],
        &[("quorumgate-page", "2"), ("origin", &origin)],
    ] {
        let (status, refused) = browser.call("GET /api/v1/whoami", &ops, fields).await;
        assert_eq!((status, &refused["code"]), (403, &json!("cross_site")), "{fields:?}");
        assert_eq!(browser.call("POST /ui/logout", &ops, fields).await.0, 403, "{fields:?}");
    }
    let paths = [denied(&mut denials, "cross_site").await, denied(&mut denials, "cross_site").await];
    assert_eq!(paths, ["Overview/WhoAmI", "/ui/logout"]);
    assert_eq!(browser.call("GET /api/v1/whoami", &ops, &[PAGE, ("origin", &origin)]).await.0, 200);
    let wrong = ops.replace("=1.", "=1.A");
    assert_eq!(browser.call("GET /api/v1/whoami", &wrong, &[PAGE]).await.1["code"], "session_invalid");
    let bearer = [PAGE, ("authorization", "Bearer qga_nobody")];
    assert_eq!(browser.call("GET /api/v1/whoami", &ops, &bearer).await.1["code"], "token_unknown");

    let (status, left) = browser.call("POST /ui/logout", &ops, &[PAGE]).await;
    assert_eq!((status, &left["everywhere"]), (200, &json!(true)));
    assert_eq!(left["location"], format!("{}/bye?client_id=gate", provider.issuer));
    assert_eq!(browser.call("GET /api/v1/whoami", &ops, &[PAGE]).await.1["code"], "session_revoked");

    // Whoever shuts the person out at the provider's word does so here as well.
    let selector =
        admin::Selector { by: Some(admin::selector::By::Subject("u-1".into())), issuer: provider.issuer.clone() };
    let issued_before = Some(prost_types::Timestamp { seconds: wall_ms() as i64 / 1_000 + 1, nanos: 0 });
    let revocation = admin::NewRevocation { selector: Some(selector), issued_before, expires_in: None };
    let revoke = admin::RevokeTokenRequest { revocation: Some(revocation), ..Default::default() };
    fixture.local().await.revocations().revoke_token(revoke).await.unwrap();
    assert_eq!(browser.call("GET /api/v1/whoami", &viewer, &[PAGE]).await.1["code"], "session_revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_gets_no_session_and_is_in_the_audit() {
    let (dir, provider) = (tempfile::tempdir().unwrap(), Provider::start().await);
    let fixture = Fixture::start_with(Some(provider.settings(&dir))).await;
    fixture.consensus.states().wait_for(|state| state.secrets.contains_key(crate::secrets::COOKIE_KEY)).await.unwrap();
    let (mut denials, browser) = (denials(&fixture).await, Browser { fixture: &fixture, provider: &provider });
    let same = |query: String| query;
    let check = async |claims: Value, change: &dyn Fn(String) -> String, expected: &str| {
        let back = browser.come_back(claims, change).await;
        assert!(matches!(back.status().as_u16(), 401 | 403), "{expected}: {}", back.status());
        assert!(back.body().contains(expected), "{expected}: {}", back.body());
        assert!(!back.headers().contains_key(header::SET_COOKIE), "{expected}");
    };
    check(person("nobody"), &same, "no rule of admin.oidc.roles").await;
    denied(&mut denials, "no_role").await;
    check(json!({ "email": "ann@test", "groups": ["ops"] }), &same, "no claim email").await;
    check(json!({ "nonce": "of another" }), &same, "another sign-in").await;
    check(json!({ "aud": "another" }), &same, "audience").await;
    check(json!({ "iss": "https://evil.test" }), &same, "issuer").await;
    check(json!({ "exp": 1_000 }), &same, "expired").await;
    check(person("ops"), &|query| query.replace("iss=", "iss=x"), "another issuer").await;
    check(person("ops"), &|query| query.split("&iss").next().unwrap().to_owned(), "does not say its issuer").await;
    check(person("ops"), &|query| query.replace("state=", "state=x"), "not begun in this browser").await;
    check(person("ops"), &|query| query.replace("code=c", "error=access_denied"), "signed nobody in").await;
    *provider.asked.lock().unwrap() = Default::default();

    let refused = fixture.remote(None).await.cluster().get_status(admin::GetStatusRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let without = Fixture::start().await;
    let browser = Browser { fixture: &without, provider: &provider };
    assert_eq!(browser.ask("GET /ui/login", &[]).await.status(), 404);
    assert_eq!(browser.call("GET /ui/session", "", &[]).await.1["issuer"], Value::Null);
    assert_eq!(browser.ask("GET /ui/logout", &[]).await.status(), 405);
}
