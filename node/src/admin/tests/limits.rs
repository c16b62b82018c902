//! What is used of limits, and what an operator gives and forgives, through the API.

use std::sync::Arc;

use quorumgate_model::{convert, resource::Resource};
use quorumgate_proto::admin::v1 as admin;
use serde_json::json;
use tonic::Code;

use super::fixture::{Client, Fixture, reason};

async fn with_limits(node: &Fixture) -> Client {
    let limit = |name: &str, kind: serde_json::Value| {
        let mut words = json!({ "name": name, "per": "consumer", "limit": 100 });
        kind.as_object().unwrap().iter().for_each(|(word, value)| words[word] = value.clone());
        Resource::Limit(Arc::new(serde_json::from_value(words).unwrap()))
    };
    let limits = [
        limit("free", json!({ "window": "1m" })),
        limit("shield", json!({ "window": "1m", "mode": "local" })),
        limit("busy", json!({ "kind": "concurrency" })),
    ];
    let client = node.local().await;
    let config = Some(convert::config_to(limits.iter()));
    client.apply(admin::ApplyConfigRequest { config, ..Default::default() }).await.unwrap();
    client
}

fn grant(limit: &str, amount: u64) -> admin::GrantBonusRequest {
    let message = "a launch".to_owned();
    admin::GrantBonusRequest { limit: limit.into(), key: "acme".into(), amount, message, ..Default::default() }
}

fn reset(limit: &str) -> admin::ResetUsageRequest {
    admin::ResetUsageRequest { limit: limit.into(), ..Default::default() }
}

#[tokio::test]
async fn a_bonus_shows_in_the_usage_and_in_the_audit_trail_and_is_given_once() {
    let node = Fixture::start().await;
    let client = with_limits(&node).await;
    let request_id = uuid::Uuid::new_v4().to_string();
    for _ in 0..2 {
        let given = admin::GrantBonusRequest { request_id: request_id.clone(), ..grant("free", 50) };
        client.limit_usage().grant_bonus(given).await.unwrap();
    }
    let asked = admin::GetUsageRequest { limit: "free".into(), key: Some("acme".into()), top: 0 };
    let usage = client.limit_usage().get_usage(asked).await.unwrap().into_inner();
    let key = &usage.limits[0].keys[0];
    assert_eq!((key.key.as_str(), key.used, key.limit, key.bonus), ("acme", 0, 150, 50));
    assert!(key.in_ledger && key.free == 150 && key.bonus_ends_in.is_some(), "{key:?}");
    let audit = client
        .observe()
        .list_audit(admin::ListAuditRequest { limit: 1, ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (audit.entries[0].message.as_str(), audit.entries[0].rpc.as_str()),
        ("a launch", "LimitUsage/GrantBonus")
    );
    assert_eq!(audit.entries[0].summary, "limit free: 50 more for key \"acme\" for 1m");

    let all = client.limit_usage().get_usage(admin::GetUsageRequest::default()).await.unwrap().into_inner();
    let names: Vec<_> = all.limits.iter().map(|it| (it.limit.as_str(), it.kind.as_str(), it.mode.as_str())).collect();
    let expected = [("busy", "concurrency", "leased"), ("free", "sliding", "leased"), ("shield", "sliding", "local")];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn what_cannot_be_given_or_forgiven_says_why() {
    let node = Fixture::start().await;
    let client = with_limits(&node).await;
    let mut limits = client.limit_usage();
    assert_eq!(limits.reset_usage(reset("nothing")).await.unwrap_err().code(), Code::NotFound);
    let local = limits.reset_usage(reset("shield")).await.unwrap_err();
    assert!(local.message().contains("of mode local"), "{local:?}");
    let flights = limits.reset_usage(reset("busy")).await.unwrap_err();
    assert!(flights.message().contains("in flight"), "{flights:?}");
    assert_eq!(limits.grant_bonus(grant("free", 0)).await.unwrap_err().code(), Code::InvalidArgument);
    let unknown = admin::GetUsageRequest { limit: "nothing".into(), ..Default::default() };
    assert_eq!(limits.get_usage(unknown).await.unwrap_err().code(), Code::NotFound);

    let token = node.admin_token("watcher", "viewer", "").await;
    let mut viewer = node.remote(Some(&token)).await.limit_usage();
    viewer.get_usage(admin::GetUsageRequest::default()).await.unwrap();
    let refused = viewer.reset_usage(reset("free")).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "ROLE_TOO_LOW"));
}
