//! Without a quorum: traffic flows on, writes say so, readiness stays.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use quorumgate_proto::admin::v1::{ConfigSet, Route, RouteAuth};

use super::{config, revocation, route};
use crate::{
    Cluster,
    cluster::until,
    issuer::Issuer,
    load::{self, Answer, Connection},
    origin::Origin,
};

const TOKEN_LIFE: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub struct Outage {
    /// From the loss of the quorum to the last request that a deny route let in, before its 503 `state_stale`.
    pub fresh_until: Duration,
}

/// Two of three nodes die; what the third still does.
pub async fn lose(cluster: &mut Cluster) -> anyhow::Result<Outage> {
    let origin = Origin::start("origin").await?;
    let mut wanted = config(2, origin.address);
    let issuer = Issuer::new()?;
    revocation::guard(cluster, &issuer, origin.address).await?;
    let token = issuer.token("alice", "outage", TOKEN_LIFE)?;
    // One that says nothing of staleness, and one that lets it pass; both ask who calls.
    let auth = Some(RouteAuth { any_of: vec!["idp".into()], ..Default::default() });
    wanted.routes.push(Route { auth: auth.clone(), ..route("strict", "strict.test", "/") });
    wanted.routes.push(Route { auth, on_stale: "allow".into(), ..route("lenient", "lenient.test", "/") });
    let leader = cluster.leader().await?;
    cluster.follower(leader).client().await?.apply(wanted).await?;
    let max_staleness =
        cluster.members[leader].client().await?.status().await?.max_staleness.context("max_staleness")?;
    let max_staleness = Duration::try_from(max_staleness)?;

    let survivor = (leader + 1) % cluster.members.len();
    let alive = cluster.members[leader].name.clone();
    let output = cluster.members[survivor].cli_output(&["node", "rm", &alive, "--yes"])?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(5) && told.contains("error[node_alive]"), "a live node: {output:?}");
    for at in 0..cluster.members.len() {
        if at != survivor {
            cluster.members[at].kill();
        }
    }
    let lost = Instant::now();
    let survivor = &cluster.members[survivor];
    let fresh = with_token(survivor.proxy, "strict.test", &token).await?;
    ensure!(fresh.status == 200, "an authenticated route serves for max_staleness: {} {}", fresh.status, fresh.body);

    let output = survivor.cli_output(&["--timeout", "2s", "route", "rm", "load", "--yes"])?;
    let code = output.status.code();
    ensure!(code == Some(6) || code == Some(7), "a write without a quorum exits {code:?}: {output:?}");

    let output = survivor.cli_output(&["--timeout", "2s", "token", "check", &token])?;
    let code = output.status.code();
    ensure!(code == Some(6) || code == Some(7), "whether it is revoked, nobody knows without a quorum: {output:?}");
    let output = survivor.cli_output(&["token", "check", "--stale", &token])?;
    ensure!(output.status.success(), "as far as this node knows it is not: {output:?}");

    // Of the last request that was let in, the moment when it was sent.
    let mut fresh_until = lost.elapsed();
    until("the authenticated route to go stale", async || {
        let asked = lost.elapsed();
        let answer = with_token(survivor.proxy, "strict.test", &token).await?;
        if answer.status == 200 {
            fresh_until = asked;
        }
        ensure!(answer.status == 503 && answer.body.contains("state_stale"), "{} {}", answer.status, answer.body);
        Ok(())
    })
    .await?;
    ensure!(fresh_until <= max_staleness + Duration::from_secs(1), "fresh still after {fresh_until:?}");

    let lenient = with_token(survivor.proxy, "lenient.test", &token).await?;
    ensure!(lenient.status == 200, "on_stale: allow flows on: {} {}", lenient.status, lenient.body);
    let nobody = load::get_host(survivor.proxy, "lenient.test", "/").await?;
    ensure!(nobody.status == 401, "on_stale: allow still asks who calls: {} {}", nobody.status, nobody.body);
    let open = load::get_host(survivor.proxy, "load.test", "/").await?;
    ensure!(open.status == 200, "a route without authentication flows on: {} {}", open.status, open.body);
    let ready = load::get(survivor.telemetry, "/readyz").await?;
    ensure!(ready.status == 200, "readyz stays 200: {} {}", ready.status, ready.body);
    let fresh = load::get(survivor.telemetry, "/readyz?fresh").await?;
    ensure!(fresh.status == 503, "readyz?fresh turns 503: {} {}", fresh.status, fresh.body);
    let again = ConfigSet { routes: vec![route("never", "never.test", "/")], ..Default::default() };
    let refused = survivor.client().await?.apply(again).await;
    let refused = refused.err().context("a write without a quorum succeeded")?;
    let codes = [tonic::Code::Unavailable, tonic::Code::DeadlineExceeded];
    ensure!(codes.contains(&refused.code()), "{refused:?}");
    Ok(Outage { fresh_until })
}

async fn with_token(proxy: SocketAddr, host: &str, token: &str) -> anyhow::Result<Answer> {
    let mut connection = Connection::open(proxy).await?;
    connection.get_with(host, "/", &[("authorization", &format!("Bearer {token}"))]).await
}
