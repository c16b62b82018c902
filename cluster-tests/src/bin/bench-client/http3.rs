//! HTTP/3: many requests, or one large body.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytes::{Buf, Bytes};
use http::Request;
use quinn::{Endpoint, crypto::rustls::QuicClientConfig};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    At, HOST,
    client::{self, PATIENCE, uri},
    content::Content,
    load::figures,
};

type Sender = h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>;

async fn connect(at: &At) -> anyhow::Result<(Endpoint, Sender)> {
    let tls = client::tls(at.ca.as_deref().context("HTTP/3 needs --ca")?, b"h3")?;
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into())?;
    let connecting = endpoint.connect_with(config, at.address, HOST)?;
    let connection = tokio::time::timeout(PATIENCE, connecting).await.context("connecting")??;
    let (mut driver, sender) = h3::client::new(h3_quinn::Connection::new(connection)).await?;
    tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
    Ok((endpoint, sender))
}

pub async fn load(at: &At, connections: usize, streams: usize, lasts: Duration) -> anyhow::Result<Value> {
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(connect(at).await?);
    }
    let begun = Instant::now();
    let mut lanes = JoinSet::new();
    for (_, sender) in &clients {
        for _ in 0..streams {
            let (mut sender, uri) = (sender.clone(), uri(at, "/"));
            lanes.spawn(async move {
                let mut took = Vec::new();
                while begun.elapsed() < lasts {
                    let asked = Instant::now();
                    let asking = exchange(&mut sender, Request::get(&uri).body(())?, Content::default());
                    tokio::time::timeout(PATIENCE, asking).await.context("no answer")??;
                    took.push(asked.elapsed());
                }
                anyhow::Ok(took)
            });
        }
    }
    let mut took = Vec::new();
    while let Some(lane) = lanes.join_next().await {
        took.extend(lane??);
    }
    Ok(figures(took, begun.elapsed()))
}

pub async fn body(at: &At, bytes: u64, upload: bool) -> anyhow::Result<Value> {
    let (_endpoint, mut sender) = connect(at).await?;
    let begun = Instant::now();
    let received = match upload {
        true => {
            let request = Request::put(uri(at, "/sink")).header("content-length", bytes).body(())?;
            exchange(&mut sender, request, Content::of(bytes)).await?
        }
        false => {
            let request = Request::get(uri(at, &format!("/bytes/{bytes}"))).body(())?;
            exchange(&mut sender, request, Content::default()).await?
        }
    };
    ensure!(upload || received == bytes, "{received} of {bytes} bytes");
    Ok(json!({ "bytes": bytes, "seconds": begun.elapsed().as_secs_f64() }))
}

/// How many bytes the answer had.
async fn exchange(sender: &mut Sender, request: Request<()>, mut content: Content) -> anyhow::Result<u64> {
    let mut stream = sender.send_request(request).await?;
    while let Some(chunk) = content.chunk() {
        stream.send_data(chunk).await?;
    }
    stream.finish().await?;
    let response = stream.recv_response().await?;
    ensure!(response.status() == 200, "answered {}", response.status());
    let mut bytes = 0;
    while let Some(data) = stream.recv_data().await? {
        bytes += data.remaining() as u64;
    }
    Ok(bytes)
}
