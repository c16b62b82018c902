//! Claims of the README as runnable experiments: each returns what it measured, or the reason why the claim is false.
//! `tests/` runs them small; `prove` runs them in full.

pub mod anomalies;
pub mod bans;
pub mod bulk;
pub mod caches;
pub mod chaos;
pub mod configuration;
pub mod faults;
pub mod initials;
pub mod leaving;
pub mod limits;
pub mod portal;
pub mod quorum;
pub mod revocation;
pub mod rolling;
pub mod scrape;
pub mod sealing;
pub mod streams;
pub mod targets;
pub mod unknown;
pub mod upgrade;
pub mod wan;

use std::net::SocketAddr;

use anyhow::Context;
use quorumgate_proto::admin::v1::{ConfigSet, Match, Route, Target, Upstream, r#match, route};

use crate::Cluster;

/// Applies a file through a follower, as an operator does.
pub async fn apply_file(cluster: &Cluster, words: &serde_json::Value) -> anyhow::Result<()> {
    let file = cluster.dir.path().join("applied.json");
    std::fs::write(&file, words.to_string())?;
    let leader = cluster.leader().await?;
    let file = file.to_str().context("a path in UTF-8")?;
    cluster.follower(leader).cli(&["apply", "-f", file]).map(drop)
}

/// `routes` routes on their own hosts, all to one upstream, plus `load.test` for load.
pub fn config(routes: usize, origin: SocketAddr) -> ConfigSet {
    let mut config = ConfigSet {
        upstreams: vec![upstream(origin)],
        routes: vec![route("load", "load.test", "/")],
        ..ConfigSet::default()
    };
    for n in 1..routes {
        config.routes.push(route(&format!("route-{n}"), &format!("h{n}.test"), &format!("/v{n}")));
    }
    config
}

pub fn upstream(origin: SocketAddr) -> Upstream {
    let target = Target { address: origin.to_string(), weight: 1, ..Default::default() };
    Upstream { name: "origin".into(), targets: vec![target], ..Default::default() }
}

pub fn route(name: &str, host: &str, prefix: &str) -> Route {
    Route {
        name: name.into(),
        r#match: Some(Match {
            hosts: vec![host.into()],
            path: Some(r#match::Path::PathPrefix(prefix.into())),
            ..Default::default()
        }),
        action: Some(route::Action::Upstream("origin".into())),
        ..Default::default()
    }
}
