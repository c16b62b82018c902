//! Who may call what, over which listener.

use std::time::Duration;

use prost::Message;
use quorumgate_proto::{admin::v1 as admin, store::v1::DenialRecord};
use quorumgate_raft_store::own_chain::OwnChain;
use tonic::{Code, Request};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::fixture::{Fixture, config, fields, reason, route, upstream};
use crate::{
    join::{JoinToken, join},
    settings::Settings,
};

#[tokio::test]
async fn nobody_calls_over_tcp_without_credentials() {
    let node = Fixture::start().await;
    let refused = node.remote(None).await.cluster().get_status(admin::GetStatusRequest {}).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "NO_CREDENTIALS"));

    let client = node.remote(Some("qga_unknown")).await;
    let refused = client.cluster().get_status(admin::GetStatusRequest {}).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "TOKEN_UNKNOWN"));
}

#[tokio::test]
async fn a_viewer_reads_and_writes_nothing() {
    let node = Fixture::start().await;
    let token = node.admin_token("watcher", "viewer", "").await;
    let viewer = node.remote(Some(&token)).await;
    let status = viewer.cluster().get_status(admin::GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.leader, "n1");

    let refused = viewer.apply(config(vec![upstream("a", "")], vec![])).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "ROLE_TOO_LOW"));
    let rollback = admin::RollbackRequest::default();
    assert_eq!(reason(&viewer.config().rollback(rollback).await.unwrap_err()), "ROLE_TOO_LOW");
    let mut rehearsal = config(vec![upstream("a", "")], vec![]);
    rehearsal.validate_only = true;
    let shown = viewer.apply(rehearsal).await.unwrap();
    assert_eq!((shown.changes.len(), shown.revision), (1, 0), "a dry run is a reading");
    let refused = viewer.cluster().list_admin_tokens(admin::ListAdminTokensRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_removed_token_is_unknown() {
    let node = Fixture::start().await;
    let token = node.admin_token("gone", "admin", "").await;
    let client = node.remote(Some(&token)).await;
    let tokens = client.cluster().list_admin_tokens(admin::ListAdminTokensRequest {}).await.unwrap().into_inner();
    assert_eq!(tokens.tokens[0].name, "gone");
    assert_eq!(tokens.tokens[0].state, "active");

    let remove = admin::RemoveAdminTokenRequest { name: "gone".into() };
    node.local().await.cluster().remove_admin_token(remove).await.unwrap();
    let refused = client.cluster().get_status(admin::GetStatusRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_token_expires_while_nothing_is_written() {
    let node = Fixture::start().await;
    let local = node.local().await;
    let ttl = Some(prost_types::Duration { seconds: 0, nanos: 300_000_000 });
    let create =
        admin::CreateAdminTokenRequest { name: "brief".into(), role: "admin".into(), ttl, ..Default::default() };
    let token = local.cluster().create_admin_token(create).await.unwrap().into_inner().token;
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;

    let client = node.remote(Some(&token)).await;
    let refused = client.cluster().get_status(admin::GetStatusRequest {}).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "TOKEN_EXPIRED"));
    let listed = local.cluster().list_admin_tokens(admin::ListAdminTokensRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.tokens[0].state, "expired");
}

#[tokio::test]
async fn a_scoped_token_writes_its_owners_objects_alone() {
    let node = Fixture::start().await;
    node.local().await.apply(config(vec![upstream("theirs", "other")], vec![])).await.unwrap();
    let token = node.admin_token("team", "operator", "team").await;
    let team = node.remote(Some(&token)).await;

    team.apply(config(vec![upstream("ours", "team")], vec![])).await.unwrap();
    for request in [config(vec![upstream("ours", "other")], vec![]), config(vec![upstream("theirs", "team")], vec![])] {
        let refused = team.apply(request).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "OWNER_FORBIDDEN"));
    }
    let drain = admin::NodeRequest { node: "n1".into(), force: false };
    let refused = team.cluster().drain_node(drain).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "OWNER_FORBIDDEN"));
}

#[tokio::test]
async fn health_and_reflection_are_there() {
    let node = Fixture::start().await;
    let mut health = HealthClient::new(node.channel().await);
    let check = HealthCheckRequest { service: "quorumgate.admin.v1.Config".into() };
    let serving = health.check(check).await.unwrap().into_inner();
    assert_eq!(serving.status, tonic_health::pb::health_check_response::ServingStatus::Serving as i32);

    assert_eq!(
        listed_services(&node).await,
        [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "quorumgate.admin.v1.Ai",
            "quorumgate.admin.v1.Anomalies",
            "quorumgate.admin.v1.Apis",
            "quorumgate.admin.v1.Approvals",
            "quorumgate.admin.v1.Bans",
            "quorumgate.admin.v1.Caches",
            "quorumgate.admin.v1.Cluster",
            "quorumgate.admin.v1.Config",
            "quorumgate.admin.v1.Key",
            "quorumgate.admin.v1.LimitUsage",
            "quorumgate.admin.v1.Maintenance",
            "quorumgate.admin.v1.Observe",
            "quorumgate.admin.v1.Overview",
            "quorumgate.admin.v1.Revocation",
            "quorumgate.admin.v1.Upstreams",
        ]
    );
}

#[tokio::test]
async fn older_tools_reflect_by_v1alpha() {
    use tonic_reflection::pb::v1alpha::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let node = Fixture::start().await;
    let symbol = MessageRequest::FileContainingSymbol("quorumgate.admin.v1.Config".into());
    let ask = ServerReflectionRequest { host: String::new(), message_request: Some(symbol) };
    let mut client = ServerReflectionClient::new(node.channel().await);
    let mut answers = client.server_reflection_info(tokio_stream::once(ask)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    assert!(matches!(answer, MessageResponse::FileDescriptorResponse(_)), "{answer:?}");
}

/// As grpcurl's `list` asks.
async fn listed_services(node: &Fixture) -> Vec<String> {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let mut client = ServerReflectionClient::new(node.channel().await);
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let request = Request::new(tokio_stream::once(list));
    let mut answers = client.server_reflection_info(request).await.unwrap().into_inner();
    match answers.message().await.unwrap().unwrap().message_response.unwrap() {
        MessageResponse::ListServicesResponse(list) => {
            let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
            names.sort();
            names
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_oversized_message_is_a_clear_error_and_the_connection_lives() {
    let node = Fixture::start().await;
    let client = node.local().await;
    let mut fat = upstream("fat", "");
    fat.meta.as_mut().unwrap().description = "x".repeat(33 << 20);
    let refused = client.apply(config(vec![fat], vec![])).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
        "{refused}"
    );
    client.apply(config(vec![upstream("a", "")], vec![route("a", "a")])).await.unwrap();
}

#[tokio::test]
async fn whatever_is_called_waits_for_the_revision_that_was_asked_for() {
    fn far<T>(message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("quorumgate-min-revision", "1000000".parse().unwrap());
        request.set_timeout(std::time::Duration::from_millis(500));
        request
    }
    let node = Fixture::start().await;
    let client = node.local().await;
    let what = Some(admin::check_token_request::What::Token("x".into()));
    let check = admin::CheckTokenRequest { what, stale: true };
    let inspect = admin::InspectTokenRequest { token: "x".into(), stale: true };
    let url = admin::ExplainMatchRequest { url: "http://a.test/".into(), method: "GET".into(), ..Default::default() };
    let asked = [
        client.observe().list_audit(far(admin::ListAuditRequest::default())).await.map(drop),
        client.observe().explain_match(far(url)).await.map(drop),
        client.observe().state_hash(far(admin::StateHashRequest::default())).await.map(drop),
        client.limit_usage().get_usage(far(admin::GetUsageRequest::default())).await.map(drop),
        client.revocations().check_token(far(check)).await.map(drop),
        client.revocations().inspect_token(far(inspect)).await.map(drop),
        client.cluster().list_nodes(far(admin::ListNodesRequest {})).await.map(drop),
        client.cluster().create_join_token(far(admin::CreateJoinTokenRequest::default())).await.map(drop),
    ];
    for asked in &asked {
        let late = asked.as_ref().unwrap_err();
        assert_eq!((late.code(), reason(late).as_str()), (Code::DeadlineExceeded, "DEADLINE"), "{late}");
    }
    assert!(node.consensus.state().join_tokens.is_empty());
    let mut seen = Request::new(admin::ListAuditRequest::default());
    let index = node.consensus.state().index.to_string();
    seen.metadata_mut().insert("quorumgate-min-revision", index.parse().unwrap());
    client.observe().list_audit(seen).await.unwrap();
}

#[tokio::test]
async fn what_is_followed_says_where_it_comes_from() {
    let node = Fixture::start().await;
    let client = node.local().await;
    let watch = admin::WatchAuditRequest { since: Some(0), denials: false };
    let mut made = client.observe().watch_audit(watch).await.unwrap().into_inner();
    client.apply(config(vec![upstream("a", "")], vec![])).await.unwrap();
    let header = made.message().await.unwrap().unwrap().header.unwrap();
    assert_eq!(header.node, "n1");
    assert!(!header.cluster_id.is_empty() && header.term > 0 && header.index > 0, "{header:?}");
}

/// Of a node that nothing runs.
fn joining() -> Settings {
    let text = r#"
        node = { name = "n2", region = "eu" }
        proxy = { listeners = [{ address = "127.0.0.1:0" }] }
        peer = { listen = "127.0.0.1:1" }
        admin = { listen = "127.0.0.1:0" }
        telemetry = { listen = "127.0.0.1:0" }
    "#;
    toml::from_str(text).unwrap()
}

#[tokio::test]
async fn a_ca_goes_no_step_further_than_every_node_has_come() {
    let node = Fixture::start().await;
    let client = node.local().await;
    let create = admin::CreateJoinTokenRequest { role: "replica".into(), ..Default::default() };
    let token = client.cluster().create_join_token(create).await.unwrap().into_inner().token;
    let seeds = [node.consensus.state().nodes.values().next().unwrap().peer_address.clone()];
    let dir = tempfile::tempdir().unwrap();
    join(&seeds, &token.parse().unwrap(), dir.path(), &joining(), None).await.unwrap();
    let advance = || admin::RotateCaRequest { step: admin::rotate_ca_request::Step::Advance.into() };
    let introduced = client.maintenance().rotate_ca(advance()).await.unwrap().into_inner();
    assert_eq!(introduced.stage, "introduced");
    let refused = client.maintenance().rotate_ca(advance()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "NODES_BEHIND"));
    assert!(refused.message().contains("node n2 does not answer"), "{refused}");
    let look = client.maintenance().rotate_ca(admin::RotateCaRequest::default()).await.unwrap().into_inner();
    assert_eq!(look.stage, "introduced", "nothing was changed");
}

#[tokio::test]
async fn a_refused_join_is_a_denial_and_no_entry_of_the_log() {
    let node = Fixture::start().await;
    let watch = admin::WatchAuditRequest { since: Some(0), denials: true };
    let mut denied = node.local().await.observe().watch_audit(watch).await.unwrap().into_inner();
    let state = node.consensus.state();
    let token = JoinToken::generate(&state.cluster.as_ref().unwrap().ca_certificate).unwrap();
    let seeds = [state.nodes.values().next().unwrap().peer_address.clone()];
    let (dir, settings) = (tempfile::tempdir().unwrap(), joining());
    let mut told = Vec::new();
    for _ in 0..30 {
        let refused = join(&seeds, &token, dir.path(), &settings, None).await.unwrap_err();
        told.push(format!("{refused:#}"));
    }
    assert!(told[19].contains("the join token is unknown"), "{}", told[19]);
    assert!(told[20].contains("too many joins"), "{}", told[20]);
    // What the leader looks after by itself may come between.
    let after = node.consensus.linearize(Duration::from_secs(10)).await.unwrap().index;
    assert!(after < state.index + 20, "{} entries", after - state.index);
    let entry = tokio::time::timeout(Duration::from_secs(60), denied.message()).await.unwrap().unwrap().unwrap();
    assert_eq!((entry.rpc.as_str(), entry.summary.as_str()), ("Join", "token_unknown"));
    assert_eq!(entry.actor, format!("join token {}", token.id));
}

/// More than one call lists.
#[tokio::test]
async fn who_follows_from_far_behind_misses_nothing_that_is_kept() {
    const WRITTEN: u64 = 10_050;
    let node = Fixture::start_in(None, |dir| {
        let record = DenialRecord { reason: "TOKEN_UNKNOWN".into(), count: 1, ..Default::default() };
        let written = vec![record.encode_to_vec(); WRITTEN as usize];
        OwnChain::open(&dir.join("denials")).unwrap().append(&written).unwrap();
    })
    .await;
    let watch = admin::WatchAuditRequest { since: Some(0), denials: true };
    let mut denied = node.local().await.observe().watch_audit(watch).await.unwrap().into_inner();
    for sequence in 1..=WRITTEN {
        let entry = tokio::time::timeout(Duration::from_secs(60), denied.message()).await.unwrap().unwrap().unwrap();
        assert_eq!(entry.sequence, sequence);
    }
}

#[tokio::test]
async fn a_negative_length_of_time_is_a_field_that_is_wrong() {
    let node = Fixture::start().await;
    let ttl = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    let create = admin::CreateJoinTokenRequest { ttl, ..Default::default() };
    let refused = node.local().await.cluster().create_join_token(create).await.unwrap_err();
    assert_eq!((refused.code(), fields(&refused)), (Code::InvalidArgument, vec!["ttl".to_owned()]));
}

#[tokio::test]
async fn a_node_does_not_remove_itself() {
    let node = Fixture::start().await;
    for force in [false, true] {
        let itself = admin::NodeRequest { node: "n1".into(), force };
        let refused = node.local().await.cluster().remove_node(itself).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "ASKED_ITSELF"));
    }
}
