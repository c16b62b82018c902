//! Clients that ask and then take nothing: their answers end, and their upstream connections with them.

use std::{convert::Infallible, time::Duration};

use crate::support::*;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const STALLED: &str = "quorumgate_rejects_total{reason=\"stalled_client\"}";
const GONE: &str = "quorumgate_rejects_total{reason=\"client_gone\"}";
const OPEN: &str = "quorumgate_upstream_connections{upstream=\"u\",state=\"open\"}";
const BUFFERED: &str = "quorumgate_http_buffered_bytes";
const IN_FLIGHT: &str = "quorumgate_http_requests_in_flight";

/// Answers without an end.
async fn endless() -> std::net::SocketAddr {
    upstream(|_| async {
        let parts =
            futures_util::stream::repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![0; 32 << 10]))));
        Response::new(StreamBody::new(parts))
    })
    .await
}

fn impatient() -> quorumgate_proxy::Settings {
    let mut settings = settings();
    settings.limits.write_stall = Duration::from_millis(300);
    settings
}

#[tokio::test]
async fn an_http2_stream_that_takes_nothing_is_reset_and_its_upstream_connection_freed() {
    let target = endless().await;
    let gateway = Gateway::with(impatient(), forward_all(target));
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (mut client, connection) =
        h2::client::Builder::new().initial_window_size(0).handshake::<_, Bytes>(stream).await.unwrap();
    tokio::spawn(connection);
    let mut answers = Vec::new();
    for _ in 0..10 {
        let request = Request::get("http://a/").body(()).unwrap();
        client = client.ready().await.unwrap();
        let (answer, _) = client.send_request(request, true).unwrap();
        answers.push(answer);
    }
    for answer in answers {
        let mut body = soon("an answer", answer).await.unwrap().into_body();
        let end = soon("the stream is reset", body.data()).await.unwrap().unwrap_err();
        assert_eq!(end.reason(), Some(h2::Reason::CANCEL), "{end}");
    }
    gateway.metric_becomes(STALLED, 10).await;
    gateway.metric_becomes(IN_FLIGHT, 0).await;
    assert!(gateway.metrics().contains(OPEN));
    gateway.metric_becomes(OPEN, 0).await;
    assert_eq!(gateway.metric(GONE), 0);
    // The connection goes on.
    gateway.proxy.publish(rules(serde_json::json!({})));
    let request = Request::get("http://a/").body(()).unwrap();
    let (answer, _) = client.ready().await.unwrap().send_request(request, true).unwrap();
    assert_eq!(soon("an answer", answer).await.unwrap().status(), 404);
}

/// The silence of the upstream is not the client's.
#[tokio::test]
async fn an_http2_client_may_wait_for_its_upstream_for_longer() {
    let target = upstream(|_| async {
        let parts = futures_util::stream::unfold(0, |n| async move {
            tokio::time::sleep(Duration::from_millis(700)).await;
            (n < 2).then(|| (Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x"))), n + 1))
        });
        Response::new(StreamBody::new(Box::pin(parts)))
    })
    .await;
    let gateway = Gateway::with(impatient(), forward_all(target));
    let mut client = http2(TcpStream::connect(gateway.address).await.unwrap()).await;
    let request = Request::get("http://a/").body(Default::default()).unwrap();
    assert_eq!(text(client.send_request(request).await.unwrap()).await, "xx");
    assert_eq!(gateway.metric(STALLED), 0);
}

#[tokio::test]
async fn an_http1_client_that_reads_nothing_is_cut_and_its_upstream_connection_freed() {
    let target = endless().await;
    let gateway = Gateway::with(impatient(), forward_all(target));
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    gateway.metric_becomes(STALLED, 1).await;
    gateway.metric_becomes(IN_FLIGHT, 0).await;
    assert!(gateway.metrics().contains(OPEN));
    gateway.metric_becomes(OPEN, 0).await;
    assert_eq!(gateway.metric(GONE), 0);
    let mut rest = Vec::new();
    let _ = soon("the connection ends", client.read_to_end(&mut rest)).await;
}

#[tokio::test]
async fn a_node_that_holds_too_much_for_its_clients_lets_no_more_in() {
    let target = endless().await;
    let mut small = settings();
    small.workers = 1;
    small.limits.buffered_bytes_max = 256 << 10;
    let gateway = Gateway::with(small, forward_all(target));
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    let (mut client, connection) = builder.initial_window_size(0).handshake::<_, Bytes>(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut stalled = Vec::new();
    while gateway.metric(BUFFERED) <= 256 << 10 {
        let request = Request::get("http://a/").body(()).unwrap();
        client = client.ready().await.unwrap();
        stalled.push(soon("an answer", client.send_request(request, true).unwrap().0).await.unwrap());
        assert!(stalled.len() < 100, "nothing is counted");
    }
    // A part of them was refused already where a tick fell between three quarters and the bound.
    let shed = stalled.iter().filter(|answer| answer.status() == 503).count() as u64;
    let refused = ask(gateway.address, "GET /", &[], "").await;
    check_problem(&refused, 503, "overloaded");
    assert!(field(&refused, "retry-after").is_some(), "{refused}");
    assert_eq!(gateway.metric("quorumgate_rejects_total{reason=\"overloaded\"}"), shed + 1);
    connection.abort();
    gateway.metric_becomes(BUFFERED, 0).await;
    let (target, _) = echo().await;
    gateway.proxy.publish(rules(forward_all(target)));
    assert_eq!(status(&ask(gateway.address, "GET /", &[], "").await), 200);
}

/// What an upload keeps for a second attempt, and what its upstream does not take, counts too.
#[tokio::test]
async fn what_is_held_of_an_upload_is_counted() {
    let target = upstream(|_| std::future::pending::<Response<http_body_util::Empty<Bytes>>>()).await;
    let gateway = Gateway::start(forward_all(target));
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n").await.unwrap();
    client.write_all(&[b'x'; 10_000]).await.unwrap();
    gateway.metric_becomes(BUFFERED, 10_000).await;
    drop(client);
    gateway.metric_becomes(BUFFERED, 0).await;
}
