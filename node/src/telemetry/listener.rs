//! The telemetry listener: /livez, /readyz, /startupz and /metrics over plain HTTP.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use axum::{
    Router,
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use quorumgate_proxy::{Freshness, Proxy};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{health::Health, metrics};
use crate::{consensus::Consensus, handed, settings::Settings};

#[derive(Clone)]
pub struct Telemetry {
    pub settings: Arc<Settings>,
    pub health: Arc<Health>,
    pub freshness: Arc<Freshness>,
    pub consensus: Consensus,
    pub proxy: Arc<Proxy>,
}

impl Telemetry {
    /// The listener is bound before this is called, so that a taken port ends the start and not a task.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
        let routes = Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/startupz", get(startupz))
            .route("/metrics", get(scrape))
            .with_state(self);
        axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await.context("telemetry listener")
    }
}

pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    handed::bind(address).await.with_context(|| format!("telemetry.listen {address}"))
}

async fn livez() -> &'static str {
    "ok\n"
}

async fn startupz(State(telemetry): State<Telemetry>) -> Response {
    answer(telemetry.health.is_started(), "starting: catching up with the cluster\n")
}

/// `?fresh` asks for more: that the node is also within max_staleness of the leader.
async fn readyz(State(telemetry): State<Telemetry>, RawQuery(query): RawQuery) -> Response {
    let fresh_wanted =
        query.is_some_and(|query| query.split('&').any(|word| word == "fresh" || word.starts_with("fresh=")));
    if telemetry.health.is_draining() {
        return answer(false, "draining\n");
    }
    if fresh_wanted && !telemetry.freshness.is_fresh() {
        return answer(false, "stale: out of touch with the leader for longer than max_staleness\n");
    }
    answer(telemetry.health.is_ready(), "starting: catching up with the cluster\n")
}

fn answer(good: bool, why_not: &'static str) -> Response {
    match good {
        true => "ok\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, why_not).into_response(),
    }
}

async fn scrape(State(telemetry): State<Telemetry>) -> Response {
    // With ten thousand routes it is long, and consensus must not wait for it.
    let text = tokio::task::spawn_blocking(move || metrics::text(&telemetry)).await.unwrap_or_default();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
