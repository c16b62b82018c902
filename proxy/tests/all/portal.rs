//! Portals over real sockets: what everybody sees, what people who are signed in do, and what nobody can make them do.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use quorumgate_model::{credential::Standing, resource::Kind, revocation::SelectorKind};
use quorumgate_proxy::{
    identity::Caller,
    portal::desk::{Calls, LimitUse, NotDone, OwnKey, OwnUsage, Question, Reply, Visitor},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    login::{Browser, FINGERPRINT, HTML, Provider},
    support::*,
    world::{World, now_s},
};

const KEY: &str = "qg_live_pppppppppppppppppppppppppppppppp_00000000";
const SECRET: &str = "qg_live_shownonce";
const FORM: &str = "content-type: application/x-www-form-urlencoded";
const ORIGIN: &str = "origin: http://api.test";

fn version(name: &str, version: Value) -> Value {
    json!({"name": name, "version": version})
}

fn served(name: &str, path: &str, policies: &[&str]) -> Value {
    json!({
        "name": name, "match": {"hosts": ["api.acme.test"], "path_prefix": path}, "upstream": "u", "policies": policies,
        "auth": {"any_of": ["keys"]}, "limits": ["calls"],
    })
}

/// A portal that fills the host, with APIs in every state.
fn words(provider: &Provider, more: Vec<Value>) -> Value {
    let contract = json!({"name": "orders-contract", "contract": {
        "schemas": {"Order": {"type": "object", "properties": {"next": {"$ref": "#/schemas/Order"}, "sku": {"type": "string"}}}},
        "operations": [{
            "id": "putOrder", "method": "PUT", "path": "/v1/orders/{id}", "summary": "Orders something",
            "description": "See [the rules](javascript:alert(1)).",
            "parameters": [{"in": "path", "name": "id", "required": true, "schema": {"type": "integer", "examples": [7]}}],
            "body": {"required": true, "content": [{"type": "application/json", "schema": {"$ref": "#/schemas/Order"}}]},
            "responses": [{"status": "200", "content": [{"type": "application/json", "schema": {"$ref": "#/schemas/Order"}}]}],
        }],
    }});
    let mut policies = vec![
        json!({"name": "developers", "portal": {
            "title": "Acme <APIs>", "keys": {"max": 2, "scopes": ["orders:read", "orders:write"], "expires": "30d"},
        }}),
        contract,
        version(
            "orders-v1",
            json!({
                "api": "orders", "version": "v1", "state": "deprecated", "deprecated_at": "2026-01-01T00:00:00Z",
                "sunset": "2100-01-01T00:00:00Z", "successor": "v2", "successor_url": "https://api.acme.test/v2",
            }),
        ),
        version("orders-v2", json!({"api": "orders", "version": "v2"})),
        version("orders-v0", json!({"api": "orders", "version": "v0", "state": "retired", "successor": "v2"})),
        version("secret-v1", json!({"api": "secret", "version": "v1", "state": "draft"})),
        {
            let mut theirs = version("theirs-v1", json!({"api": "theirs", "version": "v1"}));
            theirs["owner"] = json!("team-b");
            theirs
        },
    ];
    policies.extend(more);
    json!({
        "auth": [provider.auth(), {"name": "keys", "api_key": {}}],
        "limits": [{"name": "calls", "per": "consumer", "limit": 9, "window": "1m", "mode": "local"}],
        "policies": policies,
        "routes": [
            {"name": "dev", "match": {"hosts": ["api.test"], "path_prefix": "/"},
             "respond": {"receiver": "portal", "auth": "login"},
             "auth": {"any_of": ["login", "keys"], "anonymous": "guest"}, "policies": ["developers"]},
            served("v1", "/v1", &["orders-v1", "orders-contract"]),
            served("v2", "/v2", &["orders-v2"]),
            served("theirs", "/theirs", &["theirs-v1"]),
        ],
    })
}

async fn world(provider: &Provider, more: Vec<Value>) -> World {
    let world = World::with_secrets(words(provider, more), &[(FINGERPRINT, "s3cret")]).await;
    world.agree();
    world
}

type Asked = Arc<Mutex<Vec<String>>>;

/// A control plane that does as it is asked; it remembers what that was.
fn willing(world: &World) -> Asked {
    let asked = Asked::default();
    let told = asked.clone();
    world.answer(move |visitor, question| {
        told.lock().unwrap().push(format!("{} {} {question:?}", visitor.consumer, visitor.route));
        let id = "00000000000000ab".parse().unwrap();
        match question {
            Question::Keys { .. } => Ok(Reply::Keys(vec![OwnKey {
                id,
                label: "<b>mine".into(),
                prefix: "qg_live_abcdefgh".into(),
                scopes: vec!["orders:read".into()],
                standing: Standing::Active,
                created_ms: 0,
                ends_in: Some(Duration::from_secs(86_400 * 9)),
                rotates: true,
            }])),
            Question::Create { label, .. } if label == "one more" => Err(NotDone::TooMany),
            Question::Create { .. } | Question::Rotate { .. } => Ok(Reply::Made { id, secret: SECRET.into() }),
            Question::Revoke { id: it } if *it == id => Ok(Reply::Revoked),
            Question::Revoke { .. } => Err(NotDone::NotTheirs),
            Question::Usage { limits, versions } => Ok(Reply::Usage(OwnUsage {
                limits: limits.iter().map(use_of).collect(),
                calls: versions.iter().map(|it| Calls { policy: it.clone(), count: 41, last_ms: 0 }).collect(),
                unanswered: 1,
            })),
        }
    });
    asked
}

fn use_of(limit: &quorumgate_model::resource::Name) -> LimitUse {
    LimitUse { limit: limit.clone(), key: None, used: 3, of: 9, resets_in: Some(Duration::from_secs(40)) }
}

fn cookie(browser: &Browser) -> String {
    format!("cookie: __Host-qg-login={}", browser.0["__Host-qg-login"])
}

async fn get(world: &World, path: &str, fields: &[&str]) -> String {
    ask(world.gateway.address, &format!("GET {path}"), fields, "").await
}

async fn post(world: &World, path: &str, fields: &[&str], form: &str) -> String {
    let length = format!("content-length: {}", form.len());
    let fields: Vec<&str> = fields.iter().copied().chain([&*length]).collect();
    ask(world.gateway.address, &format!("POST {path}"), &fields, form).await
}

/// Of `acme`, by way of the portal's own page.
async fn signed_in(world: &World, provider: &Provider) -> Browser {
    let mut browser = Browser::default();
    let query = provider.consent(&browser.sent_away(world, "/sign-in").await);
    let back = browser.get(world, &format!("/callback?{query}")).await;
    assert_eq!((status(&back), field(&back, "location")), (303, Some("/sign-in")), "{back}");
    let home = browser.get(world, "/sign-in").await;
    assert_eq!((status(&home), field(&home, "location")), (303, Some("/")), "{home}");
    browser
}

/// The token of the forms of a page.
fn token(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"token\" value=\"").unwrap_or_else(|| panic!("no form: {page}"));
    rest.split('"').next().unwrap().to_owned()
}

#[track_caller]
fn check_page(answer: &str, expected: u16) {
    assert_eq!(status(answer), expected, "{answer}");
    assert_eq!(field(answer, "content-type"), Some("text/html; charset=utf-8"), "{answer}");
    assert_eq!(field(answer, "cache-control"), Some("no-store"));
    assert_eq!(field(answer, "x-content-type-options"), Some("nosniff"));
    let csp = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    assert_eq!(field(answer, "content-security-policy"), Some(csp));
    assert!(!answer.contains("<script") && !answer.contains("style=\"") && !answer.contains("href=\"javascript"));
    for landmark in
        ["<html lang=\"en\">", "name=\"viewport\"", "<header>", "<nav aria-label=", "<main id=\"main\">", "<h1>"]
    {
        assert_eq!(answer.matches(landmark).count(), 1, "{landmark} in {answer}");
    }
}

#[tokio::test]
async fn everybody_sees_the_catalogue_and_nothing_else() {
    let provider = Provider::start().await;
    let world = world(&provider, Vec::new()).await;
    let asked = willing(&world);
    let home = get(&world, "/", &[HTML]).await;
    check_page(&home, 200);
    for mention in [
        "<title>APIs – Acme &lt;APIs&gt;</title>",
        "<a href=\"/apis/orders/v2\">v2</a> <span class=\"state published\">",
        "<span class=\"state deprecated\">deprecated</span> <span>deprecated since 2026-01-01T00:00:00Z</span>",
        "<span>ends at 2100-01-01T00:00:00Z</span> <span>successor: <a href=\"/apis/orders/v2\">v2</a>",
        "<a href=\"/apis/orders/v0\">v0</a> <span class=\"state retired\">",
        "<a href=\"/sign-in\">Sign in</a>",
    ] {
        assert!(home.contains(mention), "{mention} in {home}");
    }
    for hidden in ["secret", "theirs", "My keys", "acme\""] {
        assert!(!body(&home).contains(hidden), "{hidden} in {home}");
    }

    let page = get(&world, "/apis/orders/v1", &[]).await;
    check_page(&page, 200);
    for mention in [
        "<a href=\"https://api.acme.test/v2\" rel=\"noopener noreferrer nofollow\">Where its successor is</a>",
        "<td>api.acme.test</td><td><code>/v1…</code></td><td>any</td><td>an API key in x-api-key</td>",
        "<code>PUT /v1/orders/{id}</code>",
        "<p>Orders something</p>",
        "See [the rules](javascript:alert(1)).",
        "<code>id</code></th><td>path, required</td><td>integer<div>Example: <code>7</code>",
        "<h4>Body, required</h4>",
        "<a href=\"#schema-Order\">Order</a>",
        "<h3 id=\"schema-Order\">",
        "<a href=\"/apis/orders/v1/openapi.json\">",
    ] {
        assert!(page.contains(mention), "{mention} in {page}");
    }
    let gone = get(&world, "/apis/orders/v0", &[]).await;
    check_page(&gone, 200);
    assert!(gone.contains("This version is gone") && gone.contains("/apis/orders/v2"), "{gone}");

    let document = get(&world, "/apis/orders/v1/openapi.json", &[]).await;
    assert_eq!((status(&document), field(&document, "content-type")), (200, Some("application/json")), "{document}");
    assert!(field(&document, "content-disposition").unwrap().starts_with("attachment"));
    let document: Value = serde_json::from_str(body(&document)).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["servers"], json!([{"url": "https://api.acme.test"}]));
    let operation = &document["paths"]["/v1/orders/{id}"]["put"];
    assert_eq!(operation["operationId"], "putOrder");
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(schema, &json!({"$ref": "#/components/schemas/Order"}));
    let next = &document["components"]["schemas"]["Order"]["properties"]["next"];
    assert_eq!(next, &json!({"$ref": "#/components/schemas/Order"}));
    assert_eq!(document["components"]["securitySchemes"]["keys"]["type"], "apiKey");

    let style = get(&world, "/style.css", &[]).await;
    assert_eq!((status(&style), field(&style, "content-type")), (200, Some("text/css; charset=utf-8")));
    assert_eq!(field(&style, "cache-control"), Some("private, max-age=300"));
    assert!(style.contains("prefers-color-scheme: dark"));
    for nowhere in [
        "/x",
        "/apis/secret/v1",
        "/apis/theirs/v1",
        "/apis/orders/v9",
        "/apis/orders/v0/openapi.json",
        "/keys/x/revoke",
    ] {
        check_page(&get(&world, nowhere, &[]).await, 404);
    }
    for personal in ["/keys", "/usage"] {
        check_page(&get(&world, personal, &[]).await, 403);
    }
    check_problem(&post(&world, "/", &[FORM, ORIGIN], "").await, 405, "method_not_allowed");
    check_page(&post(&world, "/keys", &[FORM, ORIGIN], "token=00").await, 403);
    assert_eq!(*asked.lock().unwrap(), [""; 0]);
}

#[tokio::test]
async fn somebody_who_is_signed_in_makes_rotates_and_revokes_keys() {
    let provider = Provider::start().await;
    let world = world(&provider, Vec::new()).await;
    let asked = willing(&world);
    let browser = signed_in(&world, &provider).await;
    let cookie = cookie(&browser);
    let page = get(&world, "/keys", &[HTML, &cookie]).await;
    check_page(&page, 200);
    for mention in [
        "&lt;b&gt;mine<br><code>qg_live_abcdefgh…</code>",
        "active, ends in 9 days",
        "<label for=\"label\">",
        "name=\"scope:orders:write\"",
        "action=\"/keys/00000000000000ab/rotate\"",
        "aria-label=\"Revoke the key &lt;b&gt;mine\"",
        "<a href=\"/logout\">Sign out</a>",
    ] {
        assert!(page.contains(mention), "{mention} in {page}");
    }
    let token = token(&page);
    let fields = [FORM, ORIGIN, "sec-fetch-site: same-origin", &*cookie];
    let made = post(&world, "/keys", &fields, &format!("token={token}&label=+my+key+&scope%3Aorders%3Aread=on")).await;
    check_page(&made, 200);
    assert!(made.contains(&format!("<pre id=\"secret\">{SECRET}</pre>")), "{made}");
    let rotated = post(&world, "/keys/00000000000000ab/rotate", &fields, &format!("token={token}")).await;
    check_page(&rotated, 200);
    assert!(rotated.contains(SECRET) && rotated.contains("is good for another 1d"), "{rotated}");
    let revoked = post(&world, "/keys/00000000000000ab/revoke", &fields, &format!("token={token}")).await;
    assert_eq!((status(&revoked), field(&revoked, "location")), (303, Some("/keys?done=revoked")), "{revoked}");
    assert!(get(&world, "/keys?done=revoked", &[&cookie]).await.contains("The key is revoked"));
    let theirs = post(&world, "/keys/00000000000000ac/revoke", &fields, &format!("token={token}")).await;
    check_page(&theirs, 404);
    let more = post(&world, "/keys", &fields, &format!("token={token}&label=one+more")).await;
    check_page(&more, 409);

    let usage = get(&world, "/usage", &[&cookie]).await;
    check_page(&usage, 200);
    assert!(
        usage.contains("<th scope=\"row\">calls</th><td>all of your calls</td><td>3</td><td>9</td><td>40 s</td>"),
        "{usage}"
    );
    assert!(usage.contains("1 nodes did not answer") && usage.contains(">orders v1</a></th><td>41</td>"), "{usage}");

    let asked = asked.lock().unwrap();
    let writes: Vec<&String> = asked.iter().filter(|it| !it.starts_with("acme dev Keys")).collect();
    assert!(writes[0].starts_with("acme dev Create { scopes: [\"orders:read\"], label: \"my key\""), "{writes:?}");
    assert!(writes[1].starts_with("acme dev Rotate { id: 00000000000000ab"), "{writes:?}");
    assert_eq!(writes[2], "acme dev Revoke { id: 00000000000000ab }");
    // Of another owner's API nothing is asked.
    assert!(writes[5].contains("Usage") && !writes[5].contains("theirs"), "{writes:?}");
}

#[tokio::test]
async fn a_form_that_this_session_was_not_shown_here_changes_nothing() {
    let provider = Provider::start().await;
    let world = world(&provider, Vec::new()).await;
    let asked = willing(&world);
    let (browser, other) = (signed_in(&world, &provider).await, signed_in(&world, &provider).await);
    let (cookie, other) = (cookie(&browser), cookie(&other));
    let mine = token(&get(&world, "/keys", &[&cookie]).await);
    let theirs = token(&get(&world, "/keys", &[&other]).await);
    assert_ne!(mine, theirs, "bound to the session");
    world.key("acme", KEY);
    let key = format!("x-api-key: {KEY}");
    let good = format!("token={mine}");
    let before = asked.lock().unwrap().len();
    let long = format!("{good}&label={}", "x".repeat(9 << 10));
    let check = async |fields: &[&str], form: &str, expected: u16| {
        for path in ["/keys", "/keys/00000000000000ab/rotate", "/keys/00000000000000ab/revoke"] {
            let answer = post(&world, path, fields, form).await;
            assert_eq!(status(&answer), expected, "{path} {fields:?} {form} {answer}");
        }
    };
    check(&[FORM, ORIGIN, &cookie], "", 403).await;
    check(&[FORM, ORIGIN, &cookie], &format!("token={theirs}"), 403).await;
    check(&[FORM, ORIGIN, &cookie], &format!("token={mine}&token={mine}"), 403).await;
    check(&[FORM, ORIGIN, &cookie], "token=0123", 403).await;
    check(&[ORIGIN, "content-type: text/plain", &cookie], &good, 403).await;
    check(&[FORM, &cookie], &good, 403).await;
    check(&[FORM, "origin: null", &cookie], &good, 403).await;
    check(&[FORM, "origin: https://api.test", &cookie], &good, 403).await;
    check(&[FORM, "origin: http://evil.test", &cookie], &good, 403).await;
    check(&[FORM, ORIGIN, "sec-fetch-site: cross-site", &cookie], &good, 403).await;
    check(&[FORM, ORIGIN, "sec-fetch-site: same-site", &cookie], &good, 403).await;
    check(&[FORM, ORIGIN, &cookie], &long, 413).await;
    // A key that leaked makes no others, with a stolen token neither.
    check(&[FORM, ORIGIN, &key], &good, 403).await;
    check(&[FORM, ORIGIN], &good, 403).await;
    check_page(&get(&world, "/keys", &[&key]).await, 403);
    assert_eq!(asked.lock().unwrap().len(), before, "{:?}", asked.lock().unwrap());
    let unknown = post(&world, "/keys", &[FORM, ORIGIN, &cookie], &format!("{good}&scope%3Aall=on")).await;
    check_page(&unknown, 400);
    let label = post(&world, "/keys", &[FORM, ORIGIN, &cookie], &format!("{good}&label=a%0ab")).await;
    check_page(&label, 400);
    assert!(!asked.lock().unwrap().iter().any(|it| it.contains("Create")));
    // The same without what was wrong before is carried out.
    assert_eq!(status(&post(&world, "/keys", &[FORM, ORIGIN, &cookie], &good).await), 200);
    let revoke = "/keys/00000000000000ab/revoke";
    assert_eq!(status(&post(&world, revoke, &[FORM, "sec-fetch-site: same-origin", &cookie], &good).await), 303);
}

#[tokio::test]
async fn a_session_of_no_consumer_or_of_the_anonymous_one_is_nobodys() {
    let provider = Provider::start().await;
    let world = world(&provider, Vec::new()).await;
    let asked = willing(&world);
    *provider.twist.lock().unwrap() = json!({"team": "guest"});
    let browser = signed_in(&world, &provider).await;
    check_page(&get(&world, "/keys", &[&cookie(&browser)]).await, 403);
    assert_eq!(asked.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn without_a_control_plane_the_catalogue_stands_and_nothing_is_said_to_be_done() {
    let provider = Provider::start().await;
    let world = world(&provider, Vec::new()).await;
    let browser = signed_in(&world, &provider).await;
    let answer = get(&world, "/keys", &[&cookie(&browser)]).await;
    check_page(&answer, 503);
    assert_eq!(field(&answer, "retry-after"), Some("1"));
    check_page(&get(&world, "/", &[&cookie(&browser)]).await, 200);
}

#[tokio::test]
async fn hostile_words_are_words_and_huge_documents_have_an_end() {
    const EVIL: &str = "\"><script>alert(1)</script><img src=x onerror=alert(1)>";
    let provider = Provider::start().await;
    let mut deep = json!({"type": "string"});
    for _ in 0..40 {
        deep = json!({"type": "array", "items": deep});
    }
    let schema = json!({
        "type": "object", "title": EVIL, "description": EVIL, "required": [EVIL], "enum": [EVIL], "default": EVIL,
        "externalDocs": {"url": "javascript:alert(1)"}, "properties": {EVIL: {"$ref": format!("#/schemas/{EVIL}")}},
        "pattern": "a", "items": {"$ref": "javascript:alert(1)"},
    });
    let operations: Vec<Value> = (0..1_000)
        .map(|n| {
            json!({
                "method": "GET", "path": format!("/v3/o{n}"), "summary": EVIL, "description": EVIL.repeat(10),
                "responses": [{"status": "200", "content": [{"type": "application/json", "schema": schema}]}],
            })
        })
        .collect();
    let contract = json!({"name": "evil-contract", "contract": {
        "schemas": {EVIL: schema, "A": {"$ref": "#/schemas/B"}, "B": {"$ref": "#/schemas/A"}, "Deep": deep}, "operations": operations,
    }});
    let mut evil = version(
        "evil-v3",
        json!({
            "api": "evil", "version": "v3", "state": "deprecated", "deprecated_at": "2026-01-01T00:00:00Z",
            "deprecation_url": "https://a.test/'x'&y",
        }),
    );
    evil["description"] = json!(EVIL);
    let world = world(&provider, vec![contract, evil]).await;
    world.put(json!({"routes": [served("v3", "/v3", &["evil-v3", "evil-contract"])]}));
    for path in ["/", "/apis/evil/v3"] {
        let page = get(&world, path, &[HTML]).await;
        check_page(&page, 200);
        assert!(!page.contains("<img") && page.contains("&quot;&gt;&lt;script&gt;"), "{path}");
        assert!(page.len() < (1 << 20) + (64 << 10), "{}", page.len());
        for pair in [("<ul", "</ul>"), ("<section", "</section>"), ("<table", "</table>"), ("<li", "</li>")] {
            assert_eq!(
                page.matches(pair.0).count() - page.matches("<link").count() * usize::from(pair.0 == "<li"),
                page.matches(pair.1).count(),
                "{path} {pair:?}"
            );
        }
    }
    let page = get(&world, "/apis/evil/v3", &[HTML]).await;
    assert!(page.contains("href=\"https://a.test/&#39;x&#39;&amp;y\"") && page.contains("This page leaves off here"));
    let document = get(&world, "/apis/evil/v3/openapi.json", &[]).await;
    assert_eq!(status(&document), 200);
    assert_eq!(field(&document, "x-content-type-options"), Some("nosniff"));
}

#[tokio::test]
async fn what_others_add_to_an_api_and_what_is_of_a_draft_is_not_shown() {
    let provider = Provider::start().await;
    let world = world(&provider, Vec::new()).await;
    let of = |owner: &str, mut it: Value| {
        it["owner"] = json!(owner);
        it
    };
    world.put(json!({
        "policies": [
            {"name": "developers", "portal": {"apis": ["orders", "theirs", "mixed"]}},
            version("orders-v3", json!({"api": "orders", "version": "v3", "state": "retired", "successor": "v4"})),
            version("orders-v4", json!({"api": "orders", "version": "v4", "state": "draft"})),
            of("team-b", version("orders-v9", json!({"api": "orders", "version": "v9"}))),
            of("team-b", version("mixed-v1", json!({"api": "mixed", "version": "v1"}))),
            of("team-c", version("mixed-v2", json!({"api": "mixed", "version": "v2"}))),
        ],
        "routes": [
            of("team-b", served("foreign", "/foreign", &["orders-v2"])),
            served("drafted", "/drafted", &["secret-v1", "orders-v2"]),
        ],
    }));
    let home = get(&world, "/", &[HTML]).await;
    assert!(home.contains("/apis/orders/v3") && !home.contains("/apis/orders/v4"), "{home}");
    for nowhere in ["/apis/orders/v4", "/apis/orders/v9", "/apis/mixed/v1", "/apis/mixed/v2"] {
        check_page(&get(&world, nowhere, &[]).await, 404);
    }
    let page = get(&world, "/apis/orders/v2", &[]).await;
    assert!(page.contains("<code>/v2…") && !page.contains("/foreign") && !page.contains("/drafted"), "{page}");
    let theirs = get(&world, "/apis/theirs/v1", &[]).await;
    check_page(&theirs, 200);
    assert!(!theirs.contains("<code>/theirs…"), "{theirs}");
}

#[tokio::test]
async fn a_login_that_has_an_owner_speaks_for_its_consumers_alone() {
    let provider = Provider::start().await;
    let mut words = words(&provider, Vec::new());
    words["auth"][0]["owner"] = json!("team-b");
    let world = World::with_secrets(words, &[(FINGERPRINT, "s3cret")]).await;
    world.agree();
    let asked = willing(&world);
    let cookie = cookie(&signed_in(&world, &provider).await);
    check_page(&get(&world, "/keys", &[&cookie]).await, 403);
    assert_eq!(asked.lock().unwrap().len(), 0);
    world.put(json!({"consumers": [{"name": "acme", "owner": "team-b"}]}));
    check_page(&get(&world, "/keys", &[&cookie]).await, 200);
}

#[tokio::test]
async fn a_session_that_ends_while_its_form_is_on_its_way_changes_nothing() {
    let provider = Provider::start().await;
    let world = world(&provider, Vec::new()).await;
    let asked = willing(&world);
    let cookie = cookie(&signed_in(&world, &provider).await);
    let form = format!("token={}", token(&get(&world, "/keys", &[&cookie]).await));
    let before = asked.lock().unwrap().len();
    let mut stream = TcpStream::connect(world.gateway.address).await.unwrap();
    let head = format!(
        "POST /keys HTTP/1.1\r\nhost: api.test\r\nconnection: close\r\nexpect: 100-continue\r\n{FORM}\r\n{ORIGIN}\r\n{cookie}\r\ncontent-length: {}\r\n\r\n",
        form.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // Whoever is asked for the body was let in by the head.
    let mut interim = [0; 25];
    soon("the form is asked for", stream.read_exact(&mut interim)).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    let login = provider.auth();
    let issuer = login["oidc_login"]["issuer"].as_str().unwrap();
    world.revoke_before(SelectorKind::Subject, issuer.as_bytes(), b"ann", Some(now_s() + 1));
    // Refused before the form has come, the connection may be gone.
    let _ = stream.write_all(form.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = soon("the gateway closes the connection", stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || status(&answer) == 401, "{answer}");
    assert_eq!(asked.lock().unwrap().len(), before);
}

/// Who has asked a control plane that answers all of them alike.
fn asks(
    world: &World,
    answer: impl Fn() -> Result<Reply, NotDone> + Send + Sync + 'static,
) -> Arc<Mutex<Vec<Visitor>>> {
    let asked = Arc::<Mutex<Vec<Visitor>>>::default();
    let heard = asked.clone();
    world.answer(move |visitor, _| {
        heard.lock().unwrap().push(visitor.clone());
        answer()
    });
    asked
}

#[tokio::test]
async fn who_is_shut_out_while_a_question_waits_is_known_to_whoever_answers_it() {
    let provider = Provider::start().await;
    let world = world(&provider, Vec::new()).await;
    let asked = asks(&world, || Ok(Reply::Keys(Vec::new())));
    let cookie = cookie(&signed_in(&world, &provider).await);
    check_page(&get(&world, "/keys", &[&cookie]).await, 200);
    let visitor = asked.lock().unwrap().pop().unwrap();
    let directory = world.gateway.proxy.directory();
    assert_eq!((visitor.subject(), visitor.is_shut_out(&directory)), (Some("ann"), false));
    let login = provider.auth();
    let issuer = login["oidc_login"]["issuer"].as_str().unwrap();
    world.revoke_before(SelectorKind::Subject, issuer.as_bytes(), b"ann", Some(now_s() + 1));
    assert!(visitor.is_shut_out(&directory));
}

#[tokio::test]
async fn who_is_banned_while_a_question_waits_is_told_so() {
    let provider = Provider::start().await;
    let world = world(&provider, Vec::new()).await;
    let asked = asks(&world, || Err(NotDone::ShutOut));
    let cookie = cookie(&signed_in(&world, &provider).await);
    let answer = get(&world, "/keys", &[&cookie]).await;
    check_page(&answer, 403);
    assert!(answer.contains("while this waited"), "{answer}");
    let visitor = asked.lock().unwrap().pop().unwrap();
    let directory = world.gateway.proxy.directory();
    assert!(!visitor.is_shut_out(&directory));
    world.ban("consumer:acme");
    assert!(visitor.is_shut_out(&directory));
}

#[tokio::test]
async fn a_session_that_ends_and_a_consumer_that_goes_while_a_question_waits_are_shut_out() {
    let provider = Provider::start().await;
    let world = world(&provider, Vec::new()).await;
    let asked = asks(&world, || Ok(Reply::Keys(Vec::new())));
    let cookie = cookie(&signed_in(&world, &provider).await);
    check_page(&get(&world, "/keys", &[&cookie]).await, 200);
    let visitor = asked.lock().unwrap().pop().unwrap();
    let directory = world.gateway.proxy.directory();
    assert!(visitor.caller.expires.is_some_and(|at| at > now_s()) && !visitor.is_shut_out(&directory));
    let ended = Caller { expires: Some(now_s()), ..(*visitor.caller).clone() };
    assert!(Visitor { caller: Arc::new(ended), ..visitor.clone() }.is_shut_out(&directory));
    world.remove(Kind::Consumer, "acme");
    assert!(visitor.is_shut_out(&directory));
}

/// A contract, and the document of it; `import openapi` is held against the same.
const DOCUMENTED: &str = include_str!("../data/portal-document.json");

#[tokio::test]
async fn the_document_says_how_things_are_written_and_what_is_asked_for_together() {
    let documented: Value = serde_json::from_str(DOCUMENTED).unwrap();
    let provider = Provider::start().await;
    let contract = json!({"name": "search-contract", "contract": {"operations": documented["operations"]}});
    let world = world(&provider, vec![contract, version("search-v1", json!({"api": "search", "version": "v1"}))]).await;
    let with = |name: &str, auth: Value| {
        let mut route = served(name, "/v1/search", &["search-v1", "search-contract"]);
        route["auth"] = auth;
        route
    };
    world.put(json!({
        "auth": [{"name": "people", "basic": {}}],
        "routes": [
            with("search-all", json!({"all_of": ["keys", "people"]})),
            with("search-any", json!({"any_of": ["keys"], "anonymous": "guest"})),
        ],
    }));
    let answer = get(&world, "/apis/search/v1/openapi.json", &[]).await;
    assert_eq!(status(&answer), 200, "{answer}");
    let document: Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(document["paths"], documented["document"]["paths"]);
    let security = document["security"].as_array().unwrap();
    for it in [json!({"keys": [], "people": []}), json!({"keys": []}), json!({})] {
        assert!(security.contains(&it), "{it} in {security:?}");
    }
    assert_eq!(security.len(), 3, "{security:?}");
}
