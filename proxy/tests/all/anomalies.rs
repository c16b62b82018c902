//! What a node sees of callers on watched routes, and what becomes of requests of those who were found.

use quorumgate_model::{
    anomaly::Finding,
    resource::{AnomalyFeature, PolicyKind},
};
use quorumgate_proxy::anomaly::{Outcome, Question, Row, Verdict};
use serde_json::{Value, json};

use crate::{
    support::*,
    tokens::{Signer, jwks},
    world::{World, now_s},
};

/// Found that many seconds ago, and for an hour.
pub fn verdict(gateway: &Gateway, policy: &str, key: &str, value: u64, ago_s: u64) -> Verdict {
    let rules = gateway.proxy.ruleset();
    let spec = rules.all_watches().find(|it| *it.name == *policy).and_then(|it| match &it.kind {
        PolicyKind::Anomaly(it) => Some(it.spec()),
        _ => None,
    });
    let spec = spec.expect("the policy is there");
    let now_ms = now_s() * 1_000;
    Verdict {
        policy: policy.parse().unwrap(),
        key: key.into(),
        finding: Finding { feature: AnomalyFeature::Objects, value, over: 200 },
        nodes: 3,
        since_ms: now_ms - ago_s * 1_000,
        ends_ms: now_ms + 3_600_000,
        known_ms: now_ms + 3_600_000,
        spec,
        outcome: Outcome::InForce,
    }
}

fn watch(name: &str, words: Value) -> Value {
    json!({"name": name, "anomaly": words})
}

async fn seen(gateway: &Gateway, policy: &str, key: &str) -> Option<Row> {
    let asked = vec![(policy.parse().unwrap(), key.to_owned())];
    let rows = gateway.proxy.seen(Question { parts: 1, asked }).await;
    rows.into_iter().find(|row| *row.policy == *policy && row.key == key)
}

/// What is counted is counted behind an answer's last byte.
pub async fn sees(gateway: &Gateway, policy: &str, key: &str, expected: &[(AnomalyFeature, u64)]) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let row = seen(gateway, policy, key).await;
        let all = |row: &Row| expected.iter().all(|(feature, value)| row.seen.of(*feature) == *value);
        if row.as_ref().is_some_and(all) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{policy} {key}: {row:?} instead of {expected:?}");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

/// A stolen list is tried out on one of several credentials, while the others stay the same.
#[tokio::test]
async fn what_is_shown_counts_as_a_whole() {
    let over = json!({"credentials": 1000});
    let words = json!({"per": "ip", "over": over, "failure_statuses": [400, 401, 403]});
    let world = World::new(json!({
        "auth": [
            {"name": "first", "api_key": {"header": "x-first"}}, {"name": "second", "api_key": {"header": "x-second"}},
            {"name": "people", "basic": {}},
        ],
        "policies": [watch("stuffing", words)],
        "routes": [{
            "name": "orders", "match": {"path_prefix": "/"}, "upstream": "u",
            "auth": {"any_of": ["first", "second", "people"]}, "policies": ["stuffing"],
        }],
    }))
    .await;
    let it = &world.gateway;
    let ask_with = async |fields: &[&str]| {
        let status = status(&ask(it.address, "GET /", fields, "").await);
        assert!((400..=401).contains(&status), "{fields:?}: {status}");
    };
    for guess in 0..4 {
        ask_with(&["x-first: qg_a", &format!("x-second: qg_{guess}")]).await;
        ask_with(&[&format!("x-first: qg_{guess}"), "x-second: qg_b"]).await;
    }
    sees(it, "stuffing", "127.0.0.1", &[(AnomalyFeature::Credentials, 8)]).await;
    // Of a user the name alone counts, whatever the password.
    for basic in ["YW5uOmE=", "YW5uOmI=", "Ym9iOmE="] {
        ask_with(&[&format!("authorization: Basic {basic}")]).await;
    }
    sees(it, "stuffing", "127.0.0.1", &[(AnomalyFeature::Credentials, 10), (AnomalyFeature::Failures, 11)]).await;
}

#[tokio::test]
async fn what_callers_do_is_seen_by_whom_it_is_and_on_all_workers_together() {
    use AnomalyFeature::{BytesOut, Credentials, Failures, Objects, Requests, Sequential};
    let over =
        json!({"objects": 1000, "sequential": 1000, "failures": 1000, "credentials": 1000, "bytes_out": 1_000_000});
    let (by_ip, by_key, by_page) = (
        json!({"per": "ip", "v4_prefix": 24, "over": over.clone()}),
        json!({"per": "consumer", "over": over.clone(), "object": "params.id", "exempt_consumers": ["guest"]}),
        json!({"per": "credential", "over": over, "object": "query.page"}),
    );
    let world = World::new(json!({
        "auth": [{"name": "keys", "api_key": {}}],
        "policies": [
            watch("nets", by_ip),
            watch("people", by_key),
            watch("pages", by_page),
            watch("spared", json!({"per": "ip", "action": "throttle", "over": {"requests": 1000}, "exempt_consumers": ["acme"]})),
            watch("not-us", json!({"per": "ip", "over": {"requests": 1}, "exempt_cidrs": ["127.0.0.0/8"]})),
        ],
        "routes": [{
            "name": "orders", "match": {"path_template": "/orders/{id}"}, "upstream": "u",
            "auth": {"any_of": ["keys"]}, "policies": ["nets", "people", "pages", "not-us"],
        }, {
            "name": "closed", "match": {"path_exact": "/closed"}, "upstream": "u", "auth": {"any_of": ["keys"]},
            "authorize": [{"name": "nobody", "deny": {}}], "policies": ["nets", "spared"],
        }],
    }))
    .await;
    let it = &world.gateway;
    let id = world.key("acme", "qg_acme").to_string();
    world.key("guest", "qg_guest");
    // Each on a connection of its own, and so on whichever worker it meets.
    for number in [7, 8, 9, 9, 20] {
        let line = format!("GET /orders/{number}?pa%67e={}&page=1", number / 2);
        assert_eq!(status(&ask(it.address, &line, &["x-api-key: qg_acme"], "").await), 200);
    }
    for guess in ["qg_a", "qg_b", "qg_b"] {
        assert_eq!(status(&ask(it.address, "GET /orders/1", &[&format!("x-api-key: {guess}")], "").await), 401);
    }
    assert_eq!(status(&ask(it.address, "GET /orders/1", &["x-api-key: qg_guest"], "").await), 200);
    // Whose key is good does not guess, whatever the rules say.
    assert_eq!(status(&ask(it.address, "GET /closed", &["x-api-key: qg_acme"], "").await), 403);
    let acme = [(Requests, 5), (Failures, 0), (Objects, 4), (Sequential, 2), (Credentials, 0), (BytesOut, 10)];
    sees(it, "people", "acme", &acme).await;
    sees(it, "pages", &id, &[(Requests, 5), (Objects, 4), (Sequential, 1)]).await;
    let all = [(Requests, 10), (Failures, 4), (Objects, 6), (Sequential, 2), (Credentials, 2)];
    sees(it, "nets", "127.0.0.0/24", &all).await;
    assert_eq!(seen(it, "people", "guest").await, None, "who is exempt is not watched");
    assert_eq!(seen(it, "not-us", "127.0.0.1").await, None);

    // Who is exempt is let in where his address is held up.
    it.proxy.verdicts().replace([verdict(it, "spared", "127.0.0.1", 214, 0)]);
    assert_eq!(status(&ask(it.address, "GET /closed", &["x-api-key: qg_acme"], "").await), 403);
    world.put(json!({"routes": [{
        "name": "closed", "match": {"path_exact": "/closed"}, "upstream": "u", "auth": {"any_of": ["keys"]},
        "policies": ["spared"],
    }]}));
    assert_eq!(status(&ask(it.address, "GET /closed", &["x-api-key: qg_acme"], "").await), 200);
    assert_eq!(status(&ask(it.address, "GET /closed", &["x-api-key: qg_guest"], "").await), 429);
}

#[tokio::test]
async fn who_was_found_is_told_held_up_or_asked_anew() {
    let signer = Signer::es256("k1");
    let keys: Value = serde_json::from_str(&jwks(&[&signer])).unwrap();
    let over = json!({"objects": 200});
    let policy = |action: &str| watch(action, json!({"over": over, "action": action}));
    let route = |action: &str| {
        json!({
            "name": action, "match": {"path_prefix": format!("/{action}")}, "upstream": "u",
            "auth": {"any_of": ["idp"]}, "policies": [action],
        })
    };
    let actions = ["log", "header", "throttle", "challenge", "ban"];
    let mut policies: Vec<Value> = actions.iter().map(|it| policy(it)).collect();
    policies.push(watch("gate", json!({"per": "ip", "over": over, "action": "throttle"})));
    let mut routes: Vec<Value> = actions.iter().map(|it| route(it)).collect();
    routes.push(json!({"name": "gate", "match": {"path_prefix": "/gate"}, "upstream": "u", "auth": {"any_of": ["idp"]}, "policies": ["gate"]}));
    let world = World::new(json!({
        "auth": [{"name": "idp", "jwt": {"issuer": "https://idp.test", "audience": ["a"], "jwks_inline": keys, "consumer_claim": "azp"}}],
        "policies": policies,
        "routes": routes,
    }))
    .await;
    let it = &world.gateway;
    let token = |consumer: &str, auth_time: u64| {
        let claims = json!({
            "iss": "https://idp.test", "aud": "a", "exp": now_s() + 600, "iat": now_s(), "azp": consumer,
            "jti": consumer, "auth_time": auth_time,
        });
        format!("authorization: Bearer {}", signer.token(&claims))
    };
    let old = token("acme", now_s() - 3_600);
    let forged = "x-anomaly: nobody";
    let get = |path: &str, token: String| {
        let line = format!("GET /{path}");
        async move { ask(it.address, &line, &[&token, forged], "").await }
    };
    for action in actions {
        assert_eq!(status(&get(action, old.clone()).await), 200);
    }
    let told = || world.heard.last().lines().find_map(|line| line.strip_prefix("x-anomaly: ").map(str::to_owned));
    assert_eq!(told(), None, "what a client says of itself goes no further");

    let found: Vec<_> = actions.iter().map(|action| verdict(it, action, "acme", 214, 60)).collect();
    it.proxy.verdicts().replace(found.into_iter().chain([verdict(it, "gate", "127.0.0.1", 300, 1)]));
    let answer = get("log", old.clone()).await;
    assert_eq!((status(&answer), told()), (200, None));
    assert_eq!(status(&get("header", old.clone()).await), 200);
    assert_eq!(told().unwrap(), "\"header\";objects=214;over=200");
    let answer = get("throttle", old.clone()).await;
    assert_eq!(status(&answer), 429);
    assert!(answer.contains("\"code\":\"abnormal_usage\"") && answer.contains("retry-after: 3"), "{answer}");
    let answer = get("challenge", old.clone()).await;
    assert_eq!(status(&answer), 401);
    let challenge = "www-authenticate: bearer error=\"insufficient_user_authentication\"";
    assert!(answer.to_lowercase().contains(challenge) && answer.contains("max_age=\"6"), "{answer}");
    assert_eq!(status(&get("ban", old.clone()).await), 200, "the cluster's bans are asked, not the verdict");
    assert_eq!(status(&get("gate", "x-none: 1".into()).await), 429, "before anybody is asked who he is");

    // Others are none of it, nor is who has proved since then who he is.
    assert_eq!(status(&get("throttle", token("other", 0)).await), 200);
    assert_eq!(status(&get("challenge", token("acme", now_s())).await), 200);
    for (action, count) in [("throttle", 2), ("challenge", 1), ("header", 1), ("log", 1), ("ban", 1)] {
        it.metric_becomes(&format!("quorumgate_anomaly_requests_total{{action=\"{action}\"}}"), count).await;
    }
    // What was refused for that adds nothing to what is known.
    let before = seen(it, "throttle", "acme").await.map(|it| it.seen.requests);
    assert_eq!(before, Some(1));
    it.proxy.verdicts().replace([]);
    assert_eq!(status(&get("throttle", old.clone()).await), 200);
}

#[tokio::test]
async fn the_log_says_by_which_policy_a_caller_was_found() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut settings = settings();
    settings.access_log = quorumgate_proxy::AccessLog { default_on: true, path: Some(file.path().to_owned()) };
    let words = json!({
        "policies": [watch("walks", json!({"per": "ip", "over": {"objects": 200}}))],
        "routes": [{"name": "r", "match": {"path_prefix": "/"}, "respond": {"status": 200}, "policies": ["walks"]}],
    });
    let it = Gateway::with_rules(settings, rules(words));
    assert_eq!(status(&ask(it.address, "GET /before", &[], "").await), 200);
    it.proxy.verdicts().replace([verdict(&it, "walks", "127.0.0.1", 214, 0)]);
    assert_eq!(status(&ask(it.address, "GET /after", &[], "").await), 200);
    let lines = until("two lines", || {
        let text = std::fs::read_to_string(file.path()).unwrap();
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.len() == 2).then_some(lines)
    })
    .await;
    let of = |path: &str| lines.iter().find(|it| it["path"] == path).unwrap().clone();
    assert_eq!(of("/before")["anomaly"], Value::Null);
    assert_eq!(of("/after")["anomaly"], "walks");
    assert_eq!(of("/after")["decision"]["shadow"], json!(["walks: objects 214 over 200"]));
}
