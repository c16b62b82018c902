//! Connections of HTTP/1.1 and HTTP/2, with TLS where there is an authority for it.

use std::{
    path::Path,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{At, HOST, Protocol, content::Content};

/// For any one step; a single large body may take longer than that.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

pub type Wire = Pin<Box<dyn Stream>>;

pub fn tls(ca: &Path, alpn: &[u8]) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

pub async fn connect(at: &At, alpn: &[u8]) -> anyhow::Result<Wire> {
    let connector = match &at.ca {
        Some(ca) => Some(TlsConnector::from(Arc::new(tls(ca, alpn)?))),
        None => None,
    };
    connect_by(at, connector.as_ref()).await
}

pub async fn connect_by(at: &At, tls: Option<&TlsConnector>) -> anyhow::Result<Wire> {
    let connecting = async {
        let stream = TcpStream::connect(at.address).await?;
        stream.set_nodelay(true)?;
        Ok(match tls {
            None => Box::pin(stream) as Wire,
            Some(tls) => Box::pin(tls.connect(ServerName::try_from(HOST)?, stream).await?),
        })
    };
    tokio::time::timeout(PATIENCE, connecting).await.context("connecting")?
}

pub async fn http1(at: &At) -> anyhow::Result<http1::SendRequest<Content>> {
    let (sender, connection) = http1::handshake(TokioIo::new(connect(at, b"http/1.1").await?)).await?;
    // Its end shows in the sender.
    tokio::spawn(connection);
    Ok(sender)
}

/// One large body; how many bytes arrived, here or there, and how long it took.
pub async fn body(at: &At, protocol: Protocol, bytes: u64, upload: bool) -> anyhow::Result<Value> {
    let mut request = match upload {
        true => Request::put(uri(at, "/sink")).body(Content::of(bytes))?,
        false => Request::get(uri(at, &format!("/bytes/{bytes}"))).body(Content::default())?,
    };
    let begun = Instant::now();
    let response = match protocol {
        Protocol::H2 => {
            let mut client = http2::Builder::new(TokioExecutor::new());
            client.initial_stream_window_size(1 << 20).initial_connection_window_size(4 << 20);
            let (mut sender, connection) = client.handshake(TokioIo::new(connect(at, b"h2").await?)).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?
        }
        _ => {
            *request.uri_mut() = request.uri().path().parse()?;
            request.headers_mut().insert("host", HeaderValue::from_static(HOST));
            let (mut sender, connection) = http1::handshake(TokioIo::new(connect(at, b"http/1.1").await?)).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?
        }
    };
    let received = received(response).await?;
    ensure!(upload || received == bytes, "{received} of {bytes} bytes");
    Ok(json!({ "bytes": bytes, "seconds": begun.elapsed().as_secs_f64() }))
}

pub fn uri(at: &At, path: &str) -> String {
    format!("{}://{HOST}{path}", if at.ca.is_some() { "https" } else { "http" })
}

async fn received(response: Response<Incoming>) -> anyhow::Result<u64> {
    ensure!(response.status() == 200, "answered {}", response.status());
    let mut body = response.into_body();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(bytes)
}
