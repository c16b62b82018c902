//! What gRPC asks of a gateway: deadlines, status in trailers, trailers across protocols.

use std::convert::Infallible;

use crate::support::*;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn call(timeout: &str) -> Request<Full<Bytes>> {
    Request::post("http://a/s.S/M")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", timeout)
        .body(Full::from("\0\0\0\0\0"))
        .unwrap()
}

async fn status_of(answer: Response<Incoming>) -> String {
    assert_eq!(answer.status(), 200);
    if let Some(status) = answer.headers().get("grpc-status") {
        return status.to_str().unwrap().into();
    }
    let trailers = soon("trailers", answer.into_body().collect()).await.unwrap().trailers().cloned().unwrap();
    trailers["grpc-status"].to_str().unwrap().into()
}

#[tokio::test]
async fn the_smaller_of_grpc_timeout_and_the_routes_own_ends_a_call_with_its_status() {
    let target = upstream(|request: Request<Incoming>| async move {
        if request.uri().path() == "/s.S/M" && request.headers()["grpc-timeout"] != "250m" {
            std::future::pending::<()>().await;
        }
        // A head, one message, and then nothing.
        let first =
            futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"\0\0\0\0\x01x")))]);
        let parts = futures_util::StreamExt::chain(first, futures_util::stream::pending());
        Response::builder().header("content-type", "application/grpc").body(StreamBody::new(parts)).unwrap()
    })
    .await;
    let route = |total: &str| {
        json!({
            "upstreams": [{"name": "u", "targets": [target.to_string()], "protocol": "http2"}],
            "routes": [{"name": "r", "match": {"path_prefix": "/"}, "upstream": "u", "timeouts": {"total": total}}],
        })
    };
    let gateway = Gateway::start(route("60s"));
    let mut client = http2(TcpStream::connect(gateway.address).await.unwrap()).await;
    // Before the head of the answer, and in its midst.
    for timeout in ["200m", "250m"] {
        let answer = soon("an answer", client.send_request(call(timeout))).await.unwrap();
        assert_eq!(status_of(answer).await, "4", "{timeout}");
    }
    gateway.metric_becomes("quorumgate_rejects_total{reason=\"upstream_timeout\"}", 2).await;
    // The route waits for less than the client.
    gateway.proxy.publish(rules(route("200ms")));
    let answer = soon("an answer", client.send_request(call("1H"))).await.unwrap();
    assert_eq!(status_of(answer).await, "4");
    // No client is waited for forever by way of a number that is too large to add.
    let answer = soon("an answer", client.send_request(call("99999999H"))).await.unwrap();
    assert_eq!(status_of(answer).await, "4");
}

#[tokio::test]
async fn a_clients_deadline_tells_nothing_of_the_upstream() {
    let target = upstream(|request: Request<Incoming>| async move {
        if request.headers()["grpc-timeout"] != "40S" {
            std::future::pending::<()>().await;
        }
        let answer = Response::builder().header("content-type", "application/grpc").header("grpc-status", "4");
        answer.body(Full::new(Bytes::new())).unwrap()
    })
    .await;
    let words = |total: &str| {
        json!({
            "upstreams": [{
                "name": "u", "targets": [target.to_string()], "protocol": "grpc",
                "breaker": {"min_requests": 1, "error_percent": 1, "open": "1h"},
            }],
            "routes": [{"name": "r", "match": {"path_prefix": "/"}, "upstream": "u", "timeouts": {"total": total}}],
        })
    };
    let gateway = Gateway::start(words("60s"));
    let mut client = http2(TcpStream::connect(gateway.address).await.unwrap()).await;
    // By this gateway's clock and by the upstream's. Then the route's own is over, and the next finds the breaker open.
    for (timeout, expected) in [("50m", "4"), ("40S", "4"), ("50m", "4"), ("1H", "4"), ("1H", "14")] {
        if timeout == "1H" {
            gateway.proxy.publish(rules(words("200ms")));
        }
        let answer = soon("an answer", client.send_request(call(timeout))).await.unwrap();
        assert_eq!(status_of(answer).await, expected, "{timeout}");
    }
}

/// Of a length that nobody says before, since HTTP/1.1 has trailers behind chunks only.
fn with_trailers(data: Bytes, trailers: HeaderMap) -> impl http_body::Body<Data = Bytes, Error = Infallible> + Unpin {
    StreamBody::new(futures_util::stream::iter([Ok(Frame::data(data)), Ok(Frame::trailers(trailers))]))
}

/// An upstream that sends the trailers it got, and one more.
async fn mirror() -> std::net::SocketAddr {
    upstream(|request: Request<Incoming>| async move {
        let collected = request.into_body().collect().await.unwrap();
        let mut trailers = collected.trailers().cloned().unwrap_or_default();
        trailers.insert("x-mine", "1".parse().unwrap());
        let body = with_trailers(collected.to_bytes(), trailers);
        Response::builder().header("trailer", "x-sum, x-mine").body(body).unwrap()
    })
    .await
}

#[tokio::test]
async fn trailers_of_answers_say_nothing_that_heads_say() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let count = stream.read(&mut head).await.unwrap();
            let more = if head[..count].starts_with(b"GET /more") { "x-a: 1\r\n" } else { "" };
            let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n";
            let trailers = format!("connection: close\r\ncontent-length: 9\r\nupgrade: x\r\n{more}\r\n");
            stream.write_all(format!("{answer}{trailers}").as_bytes()).await.unwrap();
        }
    });
    let gateway = Gateway::start(json!({
        "upstreams": [{"name": "u", "targets": [target.to_string()], "protocol": "http1"}],
        "routes": [{"name": "all", "match": {"path_prefix": "/"}, "upstream": "u"}],
    }));
    let mut client = http2(TcpStream::connect(gateway.address).await.unwrap()).await;
    for (path, expected) in [("more", &["x-a"][..]), ("none", &[])] {
        let request = Request::get(format!("http://a/{path}")).body(Full::default()).unwrap();
        let answer = soon("an answer", client.send_request(request)).await.unwrap();
        let collected = soon("the body", answer.into_body().collect()).await.unwrap();
        let trailers = collected.trailers().cloned().unwrap_or_default();
        assert_eq!(trailers.keys().map(|it| it.as_str()).collect::<Vec<_>>(), expected, "{path}");
        assert_eq!(collected.to_bytes(), "ab", "{path}");
    }
}

#[tokio::test]
async fn trailers_pass_in_both_directions_between_all_protocols() {
    let target = mirror().await;
    for upstream in ["http1", "http2"] {
        let gateway = Gateway::start(json!({
            "upstreams": [{"name": "u", "targets": [target.to_string()], "protocol": upstream}],
            "routes": [{"name": "all", "match": {"path_prefix": "/"}, "upstream": "u"}],
        }));
        let fields = ["transfer-encoding: chunked", "trailer: x-sum", "te: trailers"];
        let answer = ask(gateway.address, "POST /", &fields, "2\r\nab\r\n0\r\nx-sum: 42\r\n\r\n").await;
        assert_eq!(status(&answer), 200, "{upstream}: {answer}");
        assert!(answer.contains("\r\n2\r\nab\r\n"), "{upstream}: {answer:?}");
        let trailers = answer.rsplit_once("0\r\n").unwrap().1;
        assert!(trailers.contains("x-sum: 42\r\n") && trailers.contains("x-mine: 1\r\n"), "{upstream}: {answer:?}");

        let stream = TcpStream::connect(gateway.address).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut client, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        tokio::spawn(connection);
        let sum = HeaderMap::from_iter([("x-sum".parse().unwrap(), "42".parse().unwrap())]);
        let body = with_trailers(Bytes::from_static(b"ab"), sum);
        let request =
            Request::post("http://a/").header("te", "trailers").header("trailer", "x-sum").body(body).unwrap();
        let answer = soon("an answer", client.send_request(request)).await.unwrap();
        let collected = soon("the body", answer.into_body().collect()).await.unwrap();
        let trailers = collected.trailers().cloned().unwrap_or_default();
        assert_eq!(trailers.get("x-sum").map(|it| it.as_bytes()), Some(&b"42"[..]), "{upstream}: {trailers:?}");
        assert_eq!(trailers.get("x-mine").map(|it| it.as_bytes()), Some(&b"1"[..]), "{upstream}: {trailers:?}");
        assert_eq!(collected.to_bytes(), "ab");
    }
}
