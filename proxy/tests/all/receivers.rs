//! Standard endpoints by which others say what is over, over real sockets, with a control plane that agrees.

use std::time::Duration;

use crate::support::*;
use crate::tokens::{Signer, jwks};
use crate::world::{World, now_s};
use quorumgate_model::{
    credential::Grants,
    revocation::{SelectorKind, SelectorParts},
};
use serde_json::{Value, json};

const ISSUER: &str = "https://idp.test";
const KEY: &str = "qg_live_0123456789abcdefghijklmnopqrstuv_00000000";
const OTHER_KEY: &str = "qg_live_vutsrqponmlkjihgfedcba9876543210_00000000";
const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";
const FORM: &str = "content-type: application/x-www-form-urlencoded";
const SET: &str = "content-type: application/secevent+jwt";

fn receiver(path: &str, receiver: &str, auth: &str) -> Value {
    json!({"name": &path[1..], "match": {"path_exact": path}, "respond": {"receiver": receiver, "auth": auth}})
}

/// Routes to every receiver, and one to an upstream for bearers of the issuer's tokens.
async fn world(signer: &Signer) -> World {
    let keys: Value = serde_json::from_str(&jwks(&[signer])).unwrap();
    let idp = json!({"name": "idp", "jwt": {
        "issuer": ISSUER, "audience": ["orders"], "jwks_inline": keys, "consumer_claim": "azp",
    }});
    let mut revoke = receiver("/revoke", "revocation", "idp");
    revoke["auth"] = json!({"any_of": ["keys"]});
    let mut revoke_key = receiver("/revoke-key", "revocation", "keys");
    revoke_key["auth"] = json!({"any_of": ["keys"]});
    World::new(json!({
        "auth": [idp, {"name": "keys", "api_key": {}}],
        "routes": [
            {"name": "all", "match": {"path_prefix": "/"}, "upstream": "u", "auth": {"any_of": ["idp", "keys"]}},
            revoke,
            revoke_key,
            receiver("/revoke-open", "revocation", "idp"),
            receiver("/logout", "backchannel_logout", "idp"),
            receiver("/events", "security_events", "idp"),
            receiver("/jwks", "jwks", "idp"),
        ],
    }))
    .await
}

fn claims(jti: &str) -> Value {
    json!({
        "iss": ISSUER, "aud": "orders", "exp": now_s() + 600, "iat": now_s() - 5, "sub": "ann", "sid": "s1", "jti": jti,
        "azp": "acme",
    })
}

async fn post(world: &World, path: &str, fields: &[&str], body: &str) -> String {
    let length = format!("content-length: {}", body.len());
    let fields: Vec<&str> = fields.iter().copied().chain([&*length]).collect();
    ask(world.gateway.address, &format!("POST {path}"), &fields, body).await
}

/// The code of the problem, or the status.
async fn bearer(world: &World, token: &str) -> String {
    let answer = ask(world.gateway.address, "GET /", &[&format!("authorization: Bearer {token}")], "").await;
    match status(&answer) {
        200 => "ok".into(),
        _ => problem(&answer)["code"].as_str().unwrap().into(),
    }
}

#[tokio::test]
async fn a_client_revokes_its_token() {
    let signer = Signer::es256("k1");
    let world = world(&signer).await;
    world.agree();
    world.key("acme", KEY);
    world.key("other", OTHER_KEY);
    let (key, other) = (format!("x-api-key: {KEY}"), format!("x-api-key: {OTHER_KEY}"));
    let (one, two) = (signer.token(&claims("t1")), signer.token(&claims("t2")));
    assert_eq!(bearer(&world, &one).await, "ok");

    let check = async |fields: &[&str], body: String, expected: u16, error: &str| {
        let answer = post(&world, "/revoke", fields, &body).await;
        assert_eq!(status(&answer), expected, "{answer}");
        let found = serde_json::from_str::<Value>(crate::support::body(&answer)).unwrap_or_default();
        let found = found.get("error").or_else(|| found.get("code")).cloned().unwrap_or(json!(""));
        assert_eq!(found, error, "{answer}");
    };
    let token = |token: &str| format!("token={token}&token_type_hint=access_token");
    check(&[FORM], token(&one), 401, "credentials_missing").await;
    check(&[FORM, &other], token(&one), 400, "unauthorized_client").await;
    check(&[FORM, &key], "token_type_hint=access_token".into(), 400, "invalid_request").await;
    check(&[FORM, &key], format!("token={one}&token={one}"), 400, "invalid_request").await;
    check(&["content-type: text/plain", &key], token(&one), 400, "invalid_request").await;
    let open = post(&world, "/revoke-open", &[FORM], &token(&one)).await;
    assert_eq!(status(&open), 401, "{open}");
    let get = ask(world.gateway.address, "GET /revoke", &[&key], "").await;
    check_problem(&get, 405, "method_not_allowed");
    assert_eq!(bearer(&world, &one).await, "ok");

    check(&[FORM, &key], token(&one), 200, "").await;
    assert_eq!(bearer(&world, &one).await, "token_revoked");
    assert_eq!(bearer(&world, &two).await, "ok");
    // The same again, and what never was a token, is as good as revoked.
    check(&[FORM, &key], token(&one), 200, "").await;
    check(&[FORM, &key], token("nonsense"), 200, "").await;
    check(&[FORM, &key], token(&Signer::es256("k1").token(&claims("t2"))), 200, "").await;
    assert_eq!(bearer(&world, &two).await, "ok");

    let grants = Grants { scopes: ["tokens:revoke".into()].into(), ..Grants::default() };
    let trusted = "qg_live_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_00000000";
    world.key_with("other", trusted, grants, None);
    check(&[FORM, &format!("x-api-key: {trusted}")], token(&two), 200, "").await;
    assert_eq!(bearer(&world, &two).await, "token_revoked");

    let gone = post(&world, "/revoke-key", &[FORM, &key], &token(KEY)).await;
    assert_eq!(status(&gone), 200, "{gone}");
    check(&[FORM, &key], token(&two), 401, "token_revoked").await;
    // It never ended by itself: no auth's lifetime says when it may count again.
    let id = world.gateway.proxy.directory().keys.find(KEY).unwrap().id.to_string();
    let selector =
        SelectorParts { kind: SelectorKind::Credential, issuer: b"", value: id.as_bytes() }.checked().unwrap();
    let in_nine_years = Duration::from_secs(9 * 365 * 86_400).as_micros() as u64;
    let directory = world.gateway.proxy.directory();
    assert!(directory.revoked.entry(&selector, directory.now_us() + in_nine_years).is_some());
}

#[tokio::test]
async fn nothing_is_said_to_be_revoked_that_is_not_committed() {
    let signer = Signer::es256("k1");
    let world = world(&signer).await;
    world.key("acme", KEY);
    let (token, key) = (signer.token(&claims("t1")), format!("x-api-key: {KEY}"));
    // A control plane that cannot agree drops what it was handed; one that is not there is the same.
    for answers in [0, 1] {
        if answers == 1 {
            let mut handed = world.gateway.proxy.directory().handed().unwrap();
            tokio::spawn(async move { while handed.recv().await.is_some() {} });
        }
        let answer = post(&world, "/revoke", &[FORM, &key], &format!("token={token}")).await;
        assert_eq!((status(&answer), field(&answer, "retry-after")), (503, Some("1")), "{answer}");
        assert_eq!(bearer(&world, &token).await, "ok");
    }
}

fn logout_token(signer: &Signer, jti: &str, change: impl Fn(&mut Value)) -> String {
    let mut claims = json!({
        "iss": ISSUER, "aud": "orders", "iat": now_s(), "exp": now_s() + 120, "jti": jti, "sid": "s1",
        "events": {LOGOUT: {}},
    });
    change(&mut claims);
    let header = json!({"alg": "ES256", "kid": "k1", "typ": "logout+jwt"});
    signer.token_with(&header, &claims)
}

#[tokio::test]
async fn a_provider_signs_a_session_out() {
    let signer = Signer::es256("k1");
    let world = world(&signer).await;
    world.agree();
    let token = signer.token(&claims("t1"));
    let mut elsewhere = claims("t2");
    elsewhere["sid"] = json!("s2");
    let elsewhere = signer.token(&elsewhere);
    assert_eq!(bearer(&world, &token).await, "ok");

    let check = async |token: String, expected: u16| {
        let answer = post(&world, "/logout", &[FORM], &format!("logout_token={token}")).await;
        assert_eq!(status(&answer), expected, "{answer}");
        assert_eq!(field(&answer, "cache-control"), Some("no-store"));
        if expected == 400 {
            assert_eq!(serde_json::from_str::<Value>(body(&answer)).unwrap()["error"], "invalid_request", "{answer}");
        }
    };
    check("nonsense".into(), 400).await;
    check(logout_token(&Signer::es256("k1"), "l0", |_| ()), 400).await;
    check(logout_token(&signer, "l0", |it| it["nonce"] = json!("n")), 400).await;
    check(logout_token(&signer, "l0", |it| it["iss"] = json!("https://evil.test")), 400).await;
    check(logout_token(&signer, "l0", |it| it["events"] = json!({})), 400).await;
    // An access token is no logout token, whatever it says, and the other way round.
    let typed = |typ: &str| {
        signer.token_with(&json!({"alg": "ES256", "kid": "k1", "typ": typ}), &{
            let mut both = claims("l0");
            both["events"] = json!({LOGOUT: {}});
            both
        })
    };
    check(typed("JWT"), 400).await;
    check(typed("at+jwt"), 400).await;
    assert_eq!(bearer(&world, &typed("logout+jwt")).await, "credentials_invalid");
    assert_eq!(bearer(&world, &token).await, "ok");

    let logout = logout_token(&signer, "l1", |_| ());
    check(logout.clone(), 200).await;
    assert_eq!(bearer(&world, &token).await, "token_revoked");
    assert_eq!(bearer(&world, &elsewhere).await, "ok");
    check(logout, 400).await;

    let of_subject = |it: &mut Value| {
        it.as_object_mut().unwrap().remove("sid");
        it["sub"] = json!("ann");
    };
    check(logout_token(&signer, "l2", of_subject), 200).await;
    assert_eq!(bearer(&world, &elsewhere).await, "token_revoked");
    let mut after = claims("t3");
    (after["sid"], after["iat"]) = (json!("s3"), json!(now_s() + 10));
    assert_eq!(bearer(&world, &signer.token(&after)).await, "ok");
}

#[tokio::test]
async fn a_transmitter_pushes_security_events() {
    let signer = Signer::es256("k1");
    let world = world(&signer).await;
    world.agree();
    let token = signer.token(&claims("t1"));
    let set = |change: &dyn Fn(&mut Value)| {
        let mut claims = json!({
            "iss": ISSUER, "aud": ["orders"], "iat": now_s(), "jti": "e1",
            "sub_id": {"format": "iss_sub", "iss": ISSUER, "sub": "ann"},
            "events": {"https://schemas.openid.net/secevent/caep/event-type/session-revoked": {
                "event_timestamp": now_s(), "initiating_entity": "policy",
            }},
        });
        change(&mut claims);
        signer.token_with(&json!({"alg": "ES256", "kid": "k1", "typ": "secevent+jwt"}), &claims)
    };
    let good = set(&|_| ());
    let check = async |kind: &str, token: &str, expected: u16, err: &str| {
        let answer = post(&world, "/events", &[kind], token).await;
        assert_eq!(status(&answer), expected, "{answer}");
        let found = serde_json::from_str::<Value>(body(&answer)).unwrap_or_default();
        assert_eq!(found.get("err").cloned().unwrap_or(json!("")), err, "{answer}");
    };
    check(FORM, &good, 400, "invalid_request").await;
    check(SET, "nonsense", 400, "invalid_request").await;
    check(SET, &token, 400, "invalid_request").await;
    check(SET, &set(&|it| it["iss"] = json!("https://evil.test")), 400, "invalid_issuer").await;
    check(SET, &set(&|it| it["aud"] = json!("billing")), 400, "invalid_audience").await;
    check(SET, &set(&|it| it["events"] = json!({})), 400, "invalid_request").await;
    let (head, rest) = good.split_once('.').unwrap();
    let (payload, _) = rest.split_once('.').unwrap();
    let (_, other) = token.rsplit_once('.').unwrap();
    check(SET, &format!("{head}.{payload}.{other}"), 400, "invalid_key").await;
    let unknown =
        signer.token_with(&json!({"alg": "ES256", "kid": "k9", "typ": "secevent+jwt"}), &json!({"iss": ISSUER}));
    check(SET, &unknown, 400, "invalid_key").await;
    let other = json!({"iss": "https://evil.test"});
    let other = signer.token_with(&json!({"alg": "ES256", "kid": "k9", "typ": "secevent+jwt"}), &other);
    check(SET, &other, 400, "invalid_issuer").await;
    let ping = |it: &mut Value| {
        it["events"] = json!({"https://schemas.openid.net/secevent/ssf/event-type/verification": {"state": "x"}});
    };
    check(SET, &set(&ping), 202, "").await;
    assert_eq!(bearer(&world, &token).await, "ok");

    check(SET, &good, 202, "").await;
    assert_eq!(bearer(&world, &token).await, "token_revoked");
    check(SET, &good, 202, "").await;
    let huge = "a".repeat(65 << 10);
    check_problem(&post(&world, "/events", &[SET], &huge).await, 413, "content_too_large");
}

#[tokio::test]
async fn the_keys_of_an_issuer_are_shown() {
    let signer = Signer::es256("k1");
    let world = world(&signer).await;
    let answer = ask(world.gateway.address, "GET /jwks", &[], "").await;
    assert_eq!((status(&answer), field(&answer, "content-type")), (200, Some("application/jwk-set+json")), "{answer}");
    let shown: Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(shown, serde_json::from_str::<Value>(&jwks(&[&signer])).unwrap());
}
