//! Requests that are due at fixed times, and connections that rest.

use std::{io::Write, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

use crate::{
    At, HOST,
    client::{self, PATIENCE, Wire},
    content::Content,
};

/// Connections that are opened at once.
const OPENING_MAX: usize = 64;

pub async fn paced(at: &At, rate: u32, connections: u32, lasts: Duration) -> anyhow::Result<Value> {
    let pause = Duration::from_secs(1) * connections / rate.max(1);
    let mut senders = Vec::new();
    for _ in 0..connections {
        senders.push(client::http1(at).await?);
    }
    let begins = Instant::now() + Duration::from_millis(10);
    let mut lanes = JoinSet::new();
    for (lane, mut sender) in (0..connections).zip(senders) {
        let first = begins + pause * lane / connections;
        lanes.spawn(async move {
            let mut took = Vec::new();
            for turn in 0.. {
                let due = first + pause * turn;
                if due >= begins + lasts {
                    break;
                }
                tokio::time::sleep_until(due).await;
                let request = Request::get("/").header("host", HOST).body(Content::default())?;
                let asked = async {
                    let response = sender.send_request(request).await?;
                    ensure!(response.status() == 200, "answered {}", response.status());
                    response.into_body().collect().await?;
                    sender.ready().await?;
                    anyhow::Ok(())
                };
                timeout(PATIENCE, asked).await.context("no answer")??;
                took.push(due.elapsed());
            }
            anyhow::Ok(took)
        });
    }
    let mut took = Vec::new();
    while let Some(lane) = lanes.join_next().await {
        took.extend(lane??);
    }
    Ok(figures(took, begins.elapsed()))
}

/// What wrk says too.
pub fn figures(mut took: Vec<Duration>, lasted: Duration) -> Value {
    took.sort_unstable();
    let ms = |of_a_thousand: usize| {
        let at = (took.len() * of_a_thousand / 1_000).min(took.len().saturating_sub(1));
        took.get(at).map_or(0.0, |it| it.as_secs_f64() * 1_000.0)
    };
    json!({
        "requests": took.len(),
        "requests_per_s": took.len() as f64 / lasted.as_secs_f64(),
        "p50_ms": ms(500),
        "p99_ms": ms(990),
        "p999_ms": ms(999),
    })
}

pub async fn idle(at: &At, connections: usize) -> anyhow::Result<()> {
    let (soft, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
    ensure!(hard as usize > connections + 100, "{hard} open files are allowed, too few");
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard.max(soft), hard)?;
    let tls = match &at.ca {
        Some(ca) => Some(TlsConnector::from(Arc::new(client::tls(ca, b"http/1.1")?))),
        None => None,
    };
    let (mut opening, mut open) = (JoinSet::new(), Vec::with_capacity(connections));
    for _ in 0..connections {
        if opening.len() >= OPENING_MAX {
            open.push(opening.join_next().await.context("one is on its way")???);
        }
        let (at, tls) = (at.clone(), tls.clone());
        opening.spawn(async move {
            let mut wire = client::connect_by(&at, tls.as_ref()).await?;
            timeout(PATIENCE, ask(&mut wire)).await.context("no answer")??;
            anyhow::Ok(wire)
        });
    }
    while let Some(opened) = opening.join_next().await {
        open.push(opened??);
    }
    println!("ready");
    std::io::stdout().flush()?;
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    Ok(())
}

async fn ask(wire: &mut Wire) -> anyhow::Result<()> {
    wire.write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).await?;
    let mut came = Vec::new();
    loop {
        ensure!(wire.read_buf(&mut came).await? > 0, "the connection was closed");
        let Some(head) = came.windows(4).position(|it| it == b"\r\n\r\n") else { continue };
        let words = String::from_utf8_lossy(&came[..head]).to_ascii_lowercase();
        ensure!(words.starts_with("http/1.1 200"), "answered {words}");
        let length = words.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        if came.len() >= head + 4 + length.context("a content-length")? {
            return Ok(());
        }
    }
}
