//! What a node knows of the servers behind it, and what a write says of those it cannot know.

use quorumgate_model::ruleset::Ruleset;
use quorumgate_proto::admin::v1 as admin;
use tonic::Code;

use super::fixture::{Fixture, config, fields, upstream};

fn ask(name: &str) -> admin::GetUpstreamHealthRequest {
    admin::GetUpstreamHealthRequest { name: name.into() }
}

#[tokio::test]
async fn the_health_of_an_upstream_has_its_targets_and_its_breaker() {
    let node = Fixture::start().await;
    let client = node.local().await;
    let missing = client.upstreams().get_upstream_health(ask("a")).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let far = admin::Target { address: "127.0.0.1:2".into(), priority: 1, zone: "us".into(), ..Default::default() };
    let mut it = upstream("a", "");
    it.targets = vec![admin::Target { address: "127.0.0.1:1".into(), ..Default::default() }, far];
    it.breaker = Some(admin::Breaker::default());
    client.apply(config(vec![it], vec![])).await.unwrap();
    node.upstreams.publish(&Ruleset::compile(&node.consensus.state(), None));
    let health = client.upstreams().get_upstream_health(ask("a")).await.unwrap().into_inner();
    assert_eq!((health.name.as_str(), health.breaker.as_str(), health.breaker_opened), ("a", "closed", 0));
    let targets: Vec<_> =
        health.targets.iter().map(|it| (it.address.as_str(), it.addresses, it.healthy, it.ejected)).collect();
    assert_eq!(targets, [("127.0.0.1:1", 1, 1, 0), ("127.0.0.1:2", 1, 1, 0)]);
    assert_eq!((health.targets[1].priority, health.targets[1].zone.as_str()), (1, "us"));
    let [own] = &health.nodes[..] else { panic!("{:?}", health.nodes) };
    assert_eq!((&own.targets, own.breaker.as_str(), own.node.as_str()), (&health.targets, "closed", "n1"));
    assert!(health.unanswered.is_empty());
}

#[tokio::test]
async fn tls_that_verifies_nobody_is_warned_of() {
    let node = Fixture::start().await;
    let client = node.local().await;
    let with_tls = |tls| admin::Upstream { tls: Some(tls), ..upstream("a", "") };
    let open = admin::UpstreamTls { verify: Some(false), ..Default::default() };
    let written = client.apply(config(vec![with_tls(open)], vec![])).await.unwrap();
    assert!(written.warnings[0].contains("upstream/a: tls.verify is false"), "{:?}", written.warnings);
    let written = client.apply(config(vec![with_tls(admin::UpstreamTls::default())], vec![])).await.unwrap();
    assert!(written.warnings.is_empty());
    let unknown = admin::UpstreamTls { ca: "nobody".into(), ..Default::default() };
    let refused = client.apply(config(vec![with_tls(unknown)], vec![])).await.unwrap_err();
    assert_eq!(fields(&refused), ["upstreams[0].tls.ca"]);
}
