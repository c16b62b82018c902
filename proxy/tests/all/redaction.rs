//! What of exchanges is told less exactly, by a node's settings.

use crate::{support::*, world::World};
use quorumgate_proxy::{AccessLog, Redaction, recent::Exchange};
use serde_json::{Value, json};

const KEY: &str = "qg_live_0123456789abcdefghijklmnopqrstuv_00000000";

/// The line in the log, and what is remembered, of a request that shows who asks.
async fn told(redaction: Redaction) -> (Value, Exchange) {
    let files = tempfile::tempdir().unwrap();
    let log = files.path().join("access.log");
    let mut settings = settings();
    settings.access_log = AccessLog { default_on: true, path: Some(log.clone()) };
    settings.redaction = redaction;
    let route = json!({"name": "users", "match": {"path_template": "/users/{id}"}, "upstream": "u", "auth": {"any_of": ["keys"]}});
    let auth = json!({"name": "keys", "api_key": {"query": "key"}});
    let world = World::with(settings, json!({"auth": [auth], "routes": [route]})).await;
    world.key("acme", KEY);
    let answer =
        ask(world.gateway.address, &format!("GET /users/ann;Token=hunter2;v=1?key={KEY}&code=c0de"), &[], "").await;
    assert_eq!(status(&answer), 200, "{answer}");
    let line = until("the log line", || std::fs::read_to_string(&log).ok().filter(|it| it.ends_with('\n'))).await;
    for secret in ["hunter2", "c0de", KEY] {
        assert!(!line.contains(secret), "{secret} in {line}");
    }
    let id = field(&answer, "x-request-id").unwrap().parse().unwrap();
    let remembered = world.gateway.proxy.exchange(id).await.expect("its line is written");
    (serde_json::from_str(&line).unwrap(), remembered)
}

#[tokio::test]
async fn log_and_memory_have_no_more_than_the_settings_let() {
    let (line, remembered) = told(Redaction::default()).await;
    let path = "/users/ann;Token=[redacted];v=1";
    assert_eq!(
        (&line["path"], &line["client_ip"], &line["consumer"]),
        (&json!(path), &json!("127.0.0.1"), &json!("acme"))
    );
    assert_eq!((&*remembered.path, remembered.consumer.as_deref()), (path, Some("acme")));

    let all = Redaction { client_ip: true, path: true, consumer: true, credential: true, ..Redaction::default() };
    let (line, remembered) = told(all).await;
    for (name, expected) in [
        ("path", json!("/users/{id}")),
        ("client_ip", json!("127.0.0.0")),
        ("consumer", json!(null)),
        ("credential", json!(null)),
        ("auth_method", json!("api_key")),
    ] {
        assert_eq!(line[name], expected, "{name} in {line}");
    }
    assert_eq!((&*remembered.path, &*remembered.client_ip.to_string()), ("/users/{id}", "127.0.0.0"));
    assert_eq!((remembered.consumer, remembered.credential), (None, None));
}
