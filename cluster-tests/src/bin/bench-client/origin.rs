//! The server behind the peers: it must cost little and take bodies of any size.

use std::{convert::Infallible, net::SocketAddr};

use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::TcpListener;

use crate::content::Content;

const ANSWER_BYTES: u64 = 1024;
/// The frame of an empty message.
const GRPC_BYTES: u64 = 5;

pub async fn run(listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut server = auto::Builder::new(TokioExecutor::new());
            let mut http2 = server.http2();
            http2
                .max_concurrent_streams(1_000)
                .initial_stream_window_size(1 << 20)
                .initial_connection_window_size(4 << 20);
            // A peer that goes away ends its connection and nothing else.
            let _ = server.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Content>, Infallible> {
    let (head, mut body) = request.into_parts();
    while let Some(Ok(_)) = body.frame().await {}
    if head.headers.get(header::CONTENT_TYPE).is_some_and(|it| it.as_bytes().starts_with(b"application/grpc")) {
        let trailers = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))]);
        let mut response = Response::new(Content::with_trailers(GRPC_BYTES, trailers));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        return Ok(response);
    }
    let bytes = head.uri.path().strip_prefix("/bytes/").and_then(|it| it.parse().ok());
    Ok(Response::new(Content::of(bytes.unwrap_or(ANSWER_BYTES))))
}
