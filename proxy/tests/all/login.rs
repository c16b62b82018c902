//! Browsers that sign in, over real sockets: a provider in this process, gateways of one cluster, and a browser as small as
//! the tests need.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use crate::support::*;
use crate::tokens::{Signer, base64url, jwks};
use crate::world::{World, now_s};
use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Full};
use quorumgate_model::revocation::SelectorKind;
use serde_json::{Value, json};

pub const FINGERPRINT: &str = "0011223344556677";
pub const HTML: &str = "accept: text/html,application/xhtml+xml";
const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// Signs `ann` in, as often as it is asked to.
#[derive(Clone)]
pub struct Provider {
    signer: Arc<Signer>,
    address: SocketAddr,
    /// By code: what the browser was sent with, which the code is good for once.
    codes: Arc<Mutex<BTreeMap<String, BTreeMap<String, String>>>>,
    /// Changes an ID token before it is signed.
    pub twist: Arc<Mutex<Value>>,
}

impl Provider {
    pub async fn start() -> Self {
        let provider = Arc::new(Mutex::new(None::<Self>));
        let it = provider.clone();
        let address = upstream(move |request| {
            let it = it.lock().unwrap().clone().unwrap();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let (status, answer) = match head.uri.path() {
                    "/.well-known/openid-configuration" => (200, it.metadata()),
                    "/jwks" => (200, serde_json::from_str(&jwks(&[&it.signer])).unwrap()),
                    "/token" => it.token(head.headers["authorization"].to_str().unwrap(), &pairs(&body)),
                    other => panic!("{other}"),
                };
                Response::builder().status(status).body(Full::new(Bytes::from(answer.to_string()))).unwrap()
            }
        })
        .await;
        let it = Self {
            signer: Arc::new(Signer::es256("k1")),
            address,
            codes: Arc::default(),
            twist: Arc::new(Mutex::new(json!({}))),
        };
        *provider.lock().unwrap() = Some(it.clone());
        it
    }

    fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    fn metadata(&self) -> Value {
        let issuer = self.issuer();
        json!({
            "issuer": issuer, "jwks_uri": format!("{issuer}/jwks"), "token_endpoint": format!("{issuer}/token"),
            "authorization_endpoint": format!("{issuer}/auth?tenant=1"), "end_session_endpoint": format!("{issuer}/end"),
            "authorization_response_iss_parameter_supported": true,
        })
    }

    /// The person says yes: the query with which the browser is sent back.
    pub fn consent(&self, location: &str) -> String {
        let (url, query) = location.split_once('?').unwrap();
        assert_eq!(url, format!("{}/auth", self.issuer()));
        let asked = pairs(query.as_bytes());
        for (name, expected) in [
            ("tenant", "1"),
            ("response_type", "code"),
            ("client_id", "web"),
            ("redirect_uri", "http://api.test/callback"),
            ("scope", "openid orders:read"),
            ("code_challenge_method", "S256"),
        ] {
            assert_eq!(asked[name], expected, "{location}");
        }
        let code = format!("c{}", self.codes.lock().unwrap().len());
        let query = format!("code={code}&state={}&iss={}", asked["state"], self.issuer().replace(':', "%3A"));
        self.codes.lock().unwrap().insert(code, asked);
        query
    }

    fn token(&self, authorization: &str, form: &BTreeMap<String, String>) -> (u16, Value) {
        // web:s3cret
        assert_eq!(authorization, "Basic d2ViOnMzY3JldA==");
        assert_eq!(form["grant_type"], "authorization_code");
        let refused = (400, json!({"error": "invalid_grant"}));
        let mut codes = self.codes.lock().unwrap();
        let Some(asked) = codes.get_mut(&form["code"]).map(std::mem::take).filter(|it| !it.is_empty()) else {
            return refused;
        };
        let challenge =
            base64url(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, form["code_verifier"].as_bytes()));
        if asked["code_challenge"] != challenge || asked["redirect_uri"] != form["redirect_uri"] {
            return refused;
        }
        let mut claims = json!({
            "iss": self.issuer(), "aud": "web", "sub": "ann", "sid": "s1", "nonce": asked["nonce"], "iat": now_s(),
            "exp": now_s() + 300, "team": "acme",
        });
        for (name, value) in self.twist.lock().unwrap().as_object().unwrap() {
            claims[name] = value.clone();
        }
        (200, json!({"id_token": self.signer.token(&claims), "access_token": "a", "token_type": "Bearer"}))
    }

    /// Of which the team is the consumer.
    pub fn auth(&self) -> Value {
        json!({"name": "login", "oidc_login": {
            "issuer": self.issuer(), "client_id": "web", "client_secret": format!("sealed:{FINGERPRINT}"),
            "scopes": ["openid", "orders:read"], "consumer_claim": "team", "allow_private": true,
        }})
    }

    async fn gateway(&self) -> World {
        let login = self.auth();
        let receiver = |path: &str, receiver: &str| json!({"name": &path[1..], "match": {"path_exact": path}, "respond": {"receiver": receiver, "auth": "login"}});
        let world = World::with_secrets(
            json!({
                "auth": [login, {"name": "keys", "api_key": {}}],
                "routes": [
                    {"name": "all", "match": {"path_prefix": "/"}, "upstream": "u", "auth": {"any_of": ["login", "keys"]},
                     "authorize": [{"allow": {"scopes_all": ["orders:read"]}}]},
                    {"name": "open", "match": {"path_prefix": "/open"}, "upstream": "u"},
                    receiver("/bye", "backchannel_logout"),
                    receiver("/callback", "login_callback"),
                ],
            }),
            &[(FINGERPRINT, "s3cret")],
        )
        .await;
        world.agree();
        world
    }
}

fn pairs(form: &[u8]) -> BTreeMap<String, String> {
    let text = std::str::from_utf8(form).unwrap();
    let plain = |it: &str| it.replace("%3A", ":").replace("%2F", "/").replace("%20", " ");
    text.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (plain(name), plain(value))).collect()
}

/// Keeps cookies as a browser does, for one host.
#[derive(Clone, Default)]
pub struct Browser(pub BTreeMap<String, String>);

impl Browser {
    pub async fn get(&mut self, world: &World, target: &str) -> String {
        let cookies: Vec<String> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookies = format!("cookie: theme=dark; {}", cookies.join("; "));
        let answer = ask(world.gateway.address, &format!("GET {target}"), &[HTML, &cookies], "").await;
        for line in answer.lines() {
            let Some(set) = line.strip_prefix("set-cookie: ") else { continue };
            let (pair, attributes) = set.split_once("; ").unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            assert!(name.starts_with("__Host-qg-login") && set.len() < 4096, "{set}");
            assert!(attributes.starts_with("Path=/; "), "{set}");
            assert!(attributes.ends_with("Secure; HttpOnly; SameSite=Lax"), "{set}");
            match attributes.contains("Max-Age=0;") {
                true => drop(self.0.remove(name)),
                false => drop(self.0.insert(name.into(), value.into())),
            }
        }
        answer
    }

    /// What the provider is asked, by a request that wants a page.
    pub async fn sent_away(&mut self, world: &World, target: &str) -> String {
        let answer = self.get(world, target).await;
        assert_eq!((status(&answer), field(&answer, "cache-control")), (303, Some("no-store")), "{answer}");
        field(&answer, "location").unwrap().into()
    }

    async fn sign_in(&mut self, world: &World, provider: &Provider) {
        let query = provider.consent(&self.sent_away(world, "/a").await);
        let back = self.get(world, &format!("/callback?{query}")).await;
        assert_eq!((status(&back), field(&back, "location")), (303, Some("/a")), "{back}");
    }
}

#[tokio::test]
async fn a_session_begun_on_one_node_goes_on_at_any_other() {
    let provider = Provider::start().await;
    let (one, other) = (provider.gateway().await, provider.gateway().await);
    let mut browser = Browser::default();
    let location = browser.sent_away(&one, "/a?b=1&c=%2F").await;
    // The way back may lead to another node too.
    let back = browser.get(&other, &format!("/callback?{}", provider.consent(&location))).await;
    assert_eq!((status(&back), field(&back, "location")), (303, Some("/a?b=1&c=%2F")), "{back}");
    assert_eq!(browser.0.keys().collect::<Vec<_>>(), ["__Host-qg-login"]);
    assert_eq!(one.heard.count() + other.heard.count(), 0);
    for world in [&one, &other] {
        let answer = browser.get(world, "/a").await;
        assert_eq!(status(&answer), 200, "{answer}");
        let heard = world.heard.last();
        assert!(heard.contains("cookie: theme=dark\n"), "{heard}");
        assert!(heard.contains("x-consumer-name: acme\n") && heard.contains("x-credential-id: ann\n"), "{heard}");
        // A route that asks nobody who they are hands no session on either.
        assert_eq!(status(&browser.get(world, "/open").await), 200);
        assert!(!world.heard.last().contains("__Host"), "{}", world.heard.last());
    }
}

#[tokio::test]
async fn programs_are_told_and_never_sent_away() {
    let provider = Provider::start().await;
    let world = provider.gateway().await;
    let address = world.gateway.address;
    for (line, fields) in [
        ("GET /a", vec![]),
        ("GET /a", vec!["accept: application/json"]),
        ("GET /a", vec!["accept: */*"]),
        ("POST /a", vec![HTML, "content-length: 0"]),
        ("GET /a", vec![HTML, "sec-fetch-mode: cors"]),
        ("GET /a", vec![HTML, "sec-fetch-mode: navigate", "sec-fetch-dest: iframe"]),
        ("GET /a", vec![HTML, "x-requested-with: XMLHttpRequest"]),
        ("GET /a", vec![HTML, "authorization: Bearer x"]),
        ("GET /a", vec![HTML, "x-api-key: qg_live_x"]),
        ("GET /a", vec!["cookie: __Host-qg-login=1.AAAA"]),
    ] {
        let answer = ask(address, line, &fields, "").await;
        assert_eq!((status(&answer), field(&answer, "location")), (401, None), "{line} {fields:?} {answer}");
        assert!(field(&answer, "www-authenticate").is_some_and(|it| it.starts_with("Bearer")), "{answer}");
    }
    assert_eq!(world.heard.count(), 0);
}

#[tokio::test]
async fn a_way_back_that_was_not_gone_leads_nowhere() {
    let provider = Provider::start().await;
    let world = provider.gateway().await;
    let check = async |browser: &mut Browser, query: &str| {
        let answer = browser.get(&world, &format!("/callback?{query}")).await;
        check_problem(&answer, 401, "credentials_invalid");
        assert!(!browser.0.contains_key("__Host-qg-login"), "{query}");
    };
    // Somebody else's code in this browser: who follows the link is not signed in as them.
    let mut attacker = Browser::default();
    let query = provider.consent(&attacker.sent_away(&world, "/a").await);
    check(&mut Browser::default(), &query).await;
    let mut victim = Browser::default();
    victim.sent_away(&world, "/a").await;
    check(&mut victim, &query).await;

    let mut browser = Browser::default();
    let query = provider.consent(&browser.sent_away(&world, "/a").await);
    let part = |name: &str| query.split('&').find(|pair| pair.starts_with(name)).unwrap();
    let (code, state, iss) = (part("code"), part("state"), part("iss"));
    check(&mut browser, "").await;
    check(&mut browser, &format!("{code}&{iss}")).await;
    check(&mut browser, &format!("{code}&{iss}&state=x")).await;
    check(&mut browser, &format!("{code}&{state}")).await;
    check(&mut browser, &format!("{code}&{state}&iss=https%3A%2F%2Fevil.test")).await;
    check(&mut browser, &format!("{code}&{state}&{iss}&{code}")).await;
    check(&mut browser, &format!("code=wrong&{state}&{iss}")).await;
    check(&mut browser, &format!("error=access_denied&{state}&{iss}")).await;
    for (name, value) in [
        ("nonce", json!("another")),
        ("aud", json!("other")),
        ("aud", json!(["web", "other"])),
        ("azp", json!("other")),
        ("iss", json!("https://evil.test")),
        ("exp", json!(now_s() - 60)),
        ("sub", Value::Null),
    ] {
        *provider.twist.lock().unwrap() = json!({name: value});
        let mut browser = Browser::default();
        let query = provider.consent(&browser.sent_away(&world, "/a").await);
        check(&mut browser, &query).await;
    }
    *provider.twist.lock().unwrap() = json!({});
    let mut kept = browser.clone();
    assert_eq!(status(&browser.get(&world, &format!("/callback?{query}")).await), 303);
    // A code is good once, also for whoever has kept the cookie of the sign-in.
    check(&mut kept, &query).await;
}

#[tokio::test]
async fn nobody_is_sent_to_another_site() {
    let provider = Provider::start().await;
    let world = provider.gateway().await;
    for target in ["//evil.test/x", "/..//evil.test", "/%2e%2e//evil.test", "///evil.test?a=b"] {
        let mut browser = Browser::default();
        let query = provider.consent(&browser.sent_away(&world, target).await);
        let back = browser.get(&world, &format!("/callback?{query}")).await;
        let location = field(&back, "location").unwrap();
        assert!(location.starts_with('/') && !location.starts_with("//"), "{target} {location}");
    }
}

#[tokio::test]
async fn a_session_ends_by_its_user_its_provider_and_its_operator() {
    let provider = Provider::start().await;
    let world = provider.gateway().await;
    let signed_in = async || {
        let mut browser = Browser::default();
        browser.sign_in(&world, &provider).await;
        assert_eq!(status(&browser.get(&world, "/a").await), 200);
        browser
    };
    let check_over = async |mut browser: Browser| {
        let cookie = format!("cookie: __Host-qg-login={}", browser.0["__Host-qg-login"]);
        check_problem(&ask(world.gateway.address, "GET /a", &[&cookie], "").await, 401, "token_revoked");
        browser.sent_away(&world, "/a").await;
    };
    let mut browser = signed_in().await;
    let (before, elsewhere) = (browser.clone(), signed_in().await);
    let away = browser.get(&world, "/logout").await;
    let end = format!("{}/end?client_id=web", provider.issuer());
    assert_eq!((status(&away), field(&away, "location")), (303, Some(&*end)), "{away}");
    assert_eq!(browser.0.len(), 0);
    check_over(before).await;
    assert_eq!(status(&elsewhere.clone().get(&world, "/a").await), 200);

    let notice = json!({
        "iss": provider.issuer(), "aud": "web", "iat": now_s(), "exp": now_s() + 60, "jti": "l1", "sid": "s1",
        "events": {LOGOUT: {}},
    });
    let token = provider.signer.token_with(&json!({"alg": "ES256", "kid": "k1", "typ": "logout+jwt"}), &notice);
    let form = format!("logout_token={token}");
    let fields = ["content-type: application/x-www-form-urlencoded", &format!("content-length: {}", form.len())];
    assert_eq!(status(&ask(world.gateway.address, "POST /bye", &fields, &form).await), 200);
    check_over(elsewhere).await;

    *provider.twist.lock().unwrap() = json!({"sid": "s2"});
    let browser = signed_in().await;
    world.revoke_before(SelectorKind::Subject, provider.issuer().as_bytes(), b"ann", Some(now_s() + 1));
    check_over(browser).await;
}

#[tokio::test]
async fn what_a_provider_says_at_length_is_kept_in_pieces() {
    let provider = Provider::start().await;
    let world = provider.gateway().await;
    *provider.twist.lock().unwrap() = json!({"roles": vec!["a-role-of-some-length"; 250]});
    let mut browser = Browser::default();
    browser.sign_in(&world, &provider).await;
    assert!(browser.0.len() > 1, "{}", browser.0.len());
    assert_eq!(status(&browser.get(&world, "/a").await), 200);
    assert!(!world.heard.last().contains("__Host"));
    *provider.twist.lock().unwrap() = json!({});
    let mut halved = browser.clone();
    halved.0.remove("__Host-qg-login~1");
    // Whoever signs in anew has no old piece left.
    halved.sign_in(&world, &provider).await;
    assert_eq!(halved.0.len(), 1);
    *provider.twist.lock().unwrap() = json!({"roles": vec!["a-role-of-some-length"; 600]});
    let mut browser = Browser::default();
    let query = provider.consent(&browser.sent_away(&world, "/a").await);
    check_problem(&browser.get(&world, &format!("/callback?{query}")).await, 401, "credentials_invalid");
}
