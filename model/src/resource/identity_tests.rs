//! Words of consumers, auths, certificate authorities, limits, and of what routes ask of callers.

use serde_json::{Value, json};

use super::Kind;
use crate::convert;

const PEM: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

fn parse(kind: Kind, words: Value) -> Result<Value, String> {
    let mut object = json!({ "name": "n" });
    for (name, value) in words.as_object().unwrap() {
        object[name] = value.clone();
    }
    let resource = kind.parse(object).map_err(|error| error.to_string())?;
    let again = convert::resource_from(convert::resource_to(&resource)).unwrap();
    assert_eq!(again, resource);
    let shown = serde_json::to_value(&resource).unwrap();
    assert_eq!(kind.parse(shown.clone()).unwrap(), resource);
    Ok(shown)
}

#[track_caller]
fn refused(kind: Kind, words: Value, field: &str, mention: &str) {
    let message = parse(kind, words).unwrap_err();
    let begins = if field.is_empty() { "found ".to_owned() } else { format!("{field}: found ") };
    assert!(message.starts_with(&begins), "{message}");
    assert!(message.contains("; allowed: ") && message.contains(mention), "{message}");
}

#[test]
fn a_mistake_in_a_consumer_or_an_authority_is_named() {
    refused(Kind::Consumer, json!({ "groups": ["a", "a"] }), "groups[1]", "once");
    refused(Kind::Consumer, json!({ "groups": ["a b"] }), "groups[0]", "no spaces");
    refused(Kind::Consumer, json!({ "plan": "" }), "plan", "at least one");
    let ca = |words: Value| (Kind::CertificateAuthority, words);
    let mention = "-----BEGIN CERTIFICATE-----";
    for pem in ["", "nothing", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", &PEM[..40]] {
        let (kind, words) = ca(json!({ "pem": pem }));
        refused(kind, words, "pem", mention);
    }
    refused(Kind::CertificateAuthority, json!({ "pem": PEM, "crl": PEM }), "crl", "X509 CRL");
    parse(Kind::CertificateAuthority, json!({ "pem": PEM })).unwrap();
}

#[test]
fn a_mistake_in_an_auth_names_its_field_and_what_is_allowed() {
    let jwt = |words: Value| {
        let mut jwt = json!({ "issuer": "https://i.test", "audience": ["a"], "jwks_url": "https://i.test/jwks" });
        for (name, value) in words.as_object().unwrap() {
            jwt[name] = value.clone();
        }
        json!({ "jwt": jwt })
    };
    let key = json!({ "kty": "EC" });
    for (words, field, mention) in [
        (json!({}), "", "exactly one of api_key, jwt"),
        (json!({ "basic": {}, "api_key": {} }), "basic", "exactly one of"),
        (json!({ "api_key": { "header": "a b" } }), "api_key.header", "a header name"),
        (json!({ "api_key": { "query": "" } }), "api_key.query", "or null"),
        (jwt(json!({ "issuer": "" })), "jwt.issuer", "at least one"),
        (jwt(json!({ "audience": [] })), "jwt.audience", "at least one"),
        (jwt(json!({ "jwks_url": null })), "jwt", "exactly one of jwks_url, discovery"),
        (jwt(json!({ "discovery": true })), "jwt.discovery", "exactly one of"),
        (jwt(json!({ "discovery": false })), "jwt.discovery", "discovery: true"),
        (jwt(json!({ "jwks_url": "http://i.test/" })), "jwt.jwks_url", "allow_private"),
        (jwt(json!({ "jwks_url": "https://u:p@i.test/" })), "jwt.jwks_url", "without user"),
        (jwt(json!({ "jwks_url": "https://i.test/#a" })), "jwt.jwks_url", "fragment"),
        (jwt(json!({ "jwks_url": "ftp://i.test/" })), "jwt.jwks_url", "https://"),
        (jwt(json!({ "jwks_url": null, "discovery": true, "issuer": "i" })), "jwt.issuer", "https://"),
        (jwt(json!({ "jwks_url": null, "jwks_inline": {} })), "jwt.jwks_inline", "`keys`"),
        (
            jwt(json!({ "jwks_url": null, "jwks_inline": { "keys": [{ "d": "x" }] } })),
            "jwt.jwks_inline.keys[0].d",
            "public",
        ),
        (jwt(json!({ "algorithms": [] })), "jwt.algorithms", "RS256, RS384"),
        (jwt(json!({ "algorithms": ["RS256", "RS256"] })), "jwt.algorithms[1]", "once"),
        (jwt(json!({ "algorithms": ["ES256", "HS256"] })), "jwt.algorithms[1]", "only with a secret"),
        (
            jwt(json!({ "jwks_url": null, "secret": "plain:0123456789abcdef0123456789abcdef" })),
            "jwt.algorithms[0]",
            "with a secret",
        ),
        (
            jwt(json!({ "jwks_url": null, "secret": "plain:short", "algorithms": ["HS256"] })),
            "jwt.secret",
            "at least 32",
        ),
        (jwt(json!({ "skew": "6m" })), "jwt.skew", "0s to 5m"),
        (jwt(json!({ "max_lifetime": "0s" })), "jwt.max_lifetime", "1s to 366d"),
        (json!({ "signature": { "components": [] } }), "signature.components", "at least one"),
        (json!({ "signature": { "components": ["@metod"] } }), "signature.components[0]", "@method"),
        (
            json!({ "signature": { "keys": [{ "id": "k", "algorithm": "ed25519", "consumer": "c" }] } }),
            "signature.keys[0]",
            "exactly one of",
        ),
        (
            json!({ "signature": { "keys": [{ "id": "k", "algorithm": "ed25519", "secret": "plain:x", "consumer": "c" }] } }),
            "signature.keys[0].algorithm",
            "hmac-sha256",
        ),
        (json!({ "basic": { "realm": "a\"b" } }), "basic.realm", "without"),
    ] {
        refused(Kind::Auth, words, field, mention);
    }
    let client = |url: &str, words: Value| {
        let mut client = json!({ url: "https://i.test/", "client_id": "c", "client_secret": "plain:s" });
        for (name, value) in words.as_object().unwrap() {
            client[name] = value.clone();
        }
        client
    };
    let introspection = |words| json!({ "introspection": client("endpoint", words) });
    refused(Kind::Auth, introspection(json!({ "cache": "31s" })), "introspection.cache", "0s to 30s");
    refused(
        Kind::Auth,
        introspection(json!({ "client_secret": "plain:" })),
        "introspection.client_secret",
        "one character",
    );
    let login = |words| json!({ "oidc_login": client("issuer", words) });
    refused(Kind::Auth, login(json!({ "scopes": ["email"] })), "oidc_login.scopes", "openid");
    refused(Kind::Auth, login(json!({ "logout_path": "/callback" })), "oidc_login.logout_path", "another path");

    parse(Kind::Auth, jwt(json!({ "jwks_url": null, "jwks_inline": { "keys": [key] } }))).unwrap();
    parse(Kind::Auth, jwt(json!({ "jwks_url": "http://[::1]:8080/jwks?a=b", "allow_private": true }))).unwrap();
    let shown = parse(Kind::Auth, json!({ "api_key": { "header": "X-Key" } })).unwrap();
    assert_eq!(shown["api_key"]["header"], "x-key");
}

#[test]
fn a_secret_is_never_repeated() {
    let words = json!({ "name": "n", "client_credentials": {
        "token_endpoint": "https://i.test/", "client_id": "c", "client_secret": "hunter2",
    } });
    let message = Kind::Auth.parse(words.clone()).unwrap_err().to_string();
    assert!(
        !message.contains("hunter2") && message.contains("client_secret_file") || message.contains("_file"),
        "{message}"
    );
    let mut open = words;
    open["client_credentials"]["client_secret"] = json!("plain:hunter2");
    let resource = Kind::Auth.parse(open).unwrap();
    assert!(!format!("{resource:?}").contains("hunter2"));
    assert_eq!(resource.unsealed().as_deref(), Some("client_credentials.client_secret"));
}

#[test]
fn a_mistake_in_what_a_route_asks_names_its_field() {
    let route = |words: Value| {
        let mut route = json!({ "upstream": "u" });
        for (name, value) in words.as_object().unwrap() {
            route[name] = value.clone();
        }
        route
    };
    let allow = |condition: Value| route(json!({ "authorize": [{ "allow": {} }, { "allow": condition }] }));
    for (words, field, mention) in [
        (route(json!({ "auth": {} })), "auth", "exactly one of any_of, all_of"),
        (route(json!({ "auth": { "any_of": ["a"], "all_of": ["b"] } })), "auth.all_of", "exactly one"),
        (route(json!({ "auth": { "any_of": [] } })), "auth.any_of", "at least one"),
        (route(json!({ "auth": { "any_of": ["a", "a"] } })), "auth.any_of[1]", "once"),
        (route(json!({ "authorize": [{}] })), "authorize[0]", "exactly one of allow, deny, log"),
        (route(json!({ "authorize": [{ "allow": {}, "log": {} }] })), "authorize[0].log", "exactly one"),
        (allow(json!({ "scopes_all": ["a b"] })), "authorize[1].allow.scopes_all[0]", "no spaces"),
        (allow(json!({ "claims": { "a": [] } })), "authorize[1].allow.claims.a", "at least one"),
        (allow(json!({ "paths": ["a"] })), "authorize[1].allow.paths[0]", "begins with /"),
        (allow(json!({ "cidrs": ["10.0.0.1/8"] })), "authorize[1].allow.cidrs[0]", "10.0.0.0/8"),
        (allow(json!({ "cel": " " })), "authorize[1].allow.cel", "CEL"),
        (allow(json!({ "params_equal": { "id": "sub" } })), "authorize[1].allow.params_equal.id", "jwt.sub"),
        (allow(json!({ "params_equal": { "id": "jwt.sub" } })), "authorize[1].allow.params_equal.id", "path_template"),
        (route(json!({ "limits": ["a", "a"] })), "limits[1]", "once"),
        (route(json!({ "upstream": null, "respond": { "receiver": "jwks" } })), "respond.auth", "the name of the auth"),
        (route(json!({ "upstream": null, "respond": { "auth": "a" } })), "respond.auth", "beside receiver"),
        (
            route(json!({ "upstream": null, "respond": { "receiver": "jwks", "auth": "a", "body": "x" } })),
            "respond.body",
            "only auth",
        ),
    ] {
        refused(Kind::Route, words, field, mention);
    }
    let words = route(json!({
        "match": { "path_template": "/users/{user_id}" },
        "authorize": [{ "allow": { "params_equal": { "user_id": "jwt.sub" }, "methods": ["get"], "claims": { "a": ["b"] } } }],
    }));
    let shown = parse(Kind::Route, words).unwrap();
    assert_eq!(shown["authorize"][0]["allow"]["methods"], json!(["GET"]));
    assert_eq!(shown["authorize"][0]["allow"]["claims"], json!({ "a": "b" }));
}

#[test]
fn a_route_with_auth_denies_on_a_stale_node_unless_it_says_otherwise() {
    let on_stale = |words: Value| {
        let mut route = json!({ "upstream": "u" });
        for (name, value) in words.as_object().unwrap() {
            route[name] = value.clone();
        }
        parse(Kind::Route, route).unwrap()["on_stale"].clone()
    };
    assert_eq!(on_stale(json!({})), "allow");
    assert_eq!(on_stale(json!({ "auth": { "any_of": ["a"] } })), "deny");
    assert_eq!(on_stale(json!({ "auth": { "any_of": ["a"] }, "on_stale": "allow" })), "allow");
    assert_eq!(on_stale(json!({ "on_stale": "deny" })), "deny");
}

#[test]
fn a_mistake_in_a_limit_names_its_field_and_what_is_allowed() {
    let limit = |words: Value| {
        let mut limit = json!({ "per": "global", "limit": 5, "window": "1m" });
        for (name, value) in words.as_object().unwrap() {
            limit[name] = value.clone();
        }
        limit
    };
    for (words, field, mention) in [
        (limit(json!({ "limit": 0 })), "limit", "1 to"),
        (limit(json!({ "limit": null })), "limit", "1 to"),
        (limit(json!({ "window": null })), "window", "such as 1m"),
        (limit(json!({ "window": "1ms" })), "window", "100ms to 31d"),
        (limit(json!({ "rate": 5 })), "rate", "only with kind bucket"),
        (limit(json!({ "kind": "bucket" })), "limit", "only with kind sliding, calendar, concurrency"),
        (limit(json!({ "kind": "bucket", "limit": null })), "rate", "1 to"),
        (limit(json!({ "kind": "calendar", "window": null })), "every", "minute, hour, day, month"),
        (limit(json!({ "kind": "calendar", "window": null, "every": "day", "zone": "a b" })), "zone", "Europe/Berlin"),
        (limit(json!({ "kind": "concurrency", "window": null, "cost": 2 })), "cost", "1 with kind concurrency"),
        (limit(json!({ "per": "who" })), "per", "consumer, credential"),
        (limit(json!({ "per": [] })), "per", "consumer, credential"),
        (limit(json!({ "per": ["route", "route"] })), "per[1]", "once"),
        (limit(json!({ "per": ["route", "global"] })), "per[1]", "global alone"),
        (limit(json!({ "per": { "ip": 33 } })), "per.ip", "0 to 32"),
        (limit(json!({ "per": { "ip": 32, "header": "x" } })), "per", "{ header: x-who }"),
        (limit(json!({ "per": {} })), "per", "{ ip: 32 }"),
        (limit(json!({ "cost": 0 })), "cost", "1 to"),
        (limit(json!({ "cost": {} })), "cost", "exactly one of"),
        (limit(json!({ "cost": { "request_header": "a", "reserve": 1 } })), "cost", "exactly one of"),
        (limit(json!({ "exceeded_status": 200 })), "exceeded_status", "400 to 599"),
        (limit(json!({ "grant_wait": "2m" })), "grant_wait", "0s to 1m"),
    ] {
        refused(Kind::Limit, words, field, mention);
    }
    let shown = parse(Kind::Limit, limit(json!({ "per": [{ "ip": 24 }, "route"] }))).unwrap();
    assert_eq!(shown["per"], json!([{ "ip": 24 }, "route"]));
    let shown = parse(Kind::Limit, json!({ "per": ["consumer"], "kind": "bucket", "rate": 5 })).unwrap();
    assert_eq!((&shown["burst"], &shown["window"], &shown["per"]), (&json!(5), &json!("1s"), &json!("consumer")));
}
