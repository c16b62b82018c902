//! The demo's upstreams: small servers in this process that answer with their name.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, task::JoinSet};

/// Ends when dropped.
pub struct Origins {
    pub addresses: Vec<SocketAddr>,
    _running: JoinSet<()>,
}

impl Origins {
    pub async fn start(names: &[&'static str]) -> anyhow::Result<Self> {
        let mut running = JoinSet::new();
        let mut addresses = Vec::new();
        for name in names {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            addresses.push(listener.local_addr()?);
            running.spawn(serve(listener, name));
        }
        Ok(Self { addresses, _running: running })
    }
}

async fn serve(listener: TcpListener, name: &'static str) {
    let mut connections = JoinSet::new();
    loop {
        // Ended connections are forgotten as new ones come.
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else { continue };
        let answer = service_fn(move |request: Request<Incoming>| async move {
            let text = format!("{name} {}\n", request.uri().path());
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
        });
        connections.spawn(async move {
            // A client that goes away ends its connection and nothing else.
            let mut http = hyper::server::conn::http1::Builder::new();
            let _ = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}
