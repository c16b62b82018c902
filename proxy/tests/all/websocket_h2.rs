//! WebSockets over HTTP/2 (RFC 8441): one stream each, behind the same checks as over HTTP/1.

use std::{net::SocketAddr, time::Duration};

use crate::support::*;
use bytes::Bytes;
use h2::{RecvStream, SendStream, client::SendRequest, ext::Protocol};
use http::{Request, Response};
use quorumgate_proxy::freshness::boottime_ns;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Takes a handshake, answers `no` to any path but /chat, and sends back what comes in.
async fn chat() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                if !head.starts_with("GET /chat HTTP/1.1\r\n") {
                    let no = "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno";
                    return stream.write_all(no.as_bytes()).await.unwrap();
                }
                assert_eq!(field(&head, "upgrade"), Some("websocket"), "{head}");
                assert_eq!(field(&head, "host"), Some("api.test"), "{head}");
                assert_eq!(field(&head, "sec-websocket-protocol"), Some("chat"), "{head}");
                let key = format!("{}258EAFA5-E914-47DA-95CA-C5AB0DC85B11", field(&head, "sec-websocket-key").unwrap());
                let sha1 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes());
                let accept = data_encoding::BASE64.encode(sha1.as_ref());
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                     sec-websocket-protocol: chat\r\nsec-websocket-accept: {accept}\r\n\r\n\x01\x05hello"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

async fn client(gateway: &Gateway) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    while !client.is_extended_connect_protocol_enabled() {
        tokio::time::sleep(Duration::from_millis(1)).await;
        client = client.ready().await.unwrap();
    }
    client
}

async fn connect(
    client: &mut SendRequest<Bytes>,
    path: &str,
    protocol: &'static str,
) -> (Response<RecvStream>, SendStream<Bytes>) {
    let mut request = Request::connect(format!("http://api.test{path}"))
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat")
        .body(())
        .unwrap();
    request.extensions_mut().insert(Protocol::from_static(protocol));
    let (answer, stream) = client.send_request(request, false).unwrap();
    (soon("an answer", answer).await.unwrap(), stream)
}

async fn expect(body: &mut RecvStream, expected: &[u8]) {
    let mut read = Vec::new();
    while read.len() < expected.len() {
        let part = soon("bytes of the tunnel", body.data()).await.unwrap().unwrap();
        body.flow_control().release_capacity(part.len()).unwrap();
        read.extend_from_slice(&part);
    }
    assert_eq!(read, expected);
}

async fn end(body: &mut RecvStream) {
    // An empty part may carry the end.
    while let Some(part) = soon("the end", body.data()).await {
        assert_eq!(part.unwrap(), "");
    }
}

#[tokio::test]
async fn bytes_go_both_ways_on_several_streams_of_one_connection() {
    let gateway = Gateway::start(forward_all(chat().await));
    let mut client = client(&gateway).await;
    let mut open = Vec::new();
    for n in 0..3u8 {
        let (answer, mut stream) = connect(&mut client, "/chat", "websocket").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
        for of_http1 in ["connection", "upgrade", "sec-websocket-accept", "content-length"] {
            assert!(!answer.headers().contains_key(of_http1), "{of_http1}");
        }
        let mut body = answer.into_body();
        stream.send_data(Bytes::from(vec![0x82, 1, n]), false).unwrap();
        expect(&mut body, b"\x01\x05hello").await;
        expect(&mut body, &[0x82, 1, n]).await;
        open.push((body, stream));
    }
    gateway.metric_becomes("quorumgate_http_tunnels_open", 3).await;
    // A request beside them is one like any other.
    let (answer, _) = client.send_request(Request::get("http://api.test/").body(()).unwrap(), true).unwrap();
    assert_eq!(soon("an answer", answer).await.unwrap().status(), 403);
    let (mut body, mut stream) = open.pop().unwrap();
    stream.send_data(Bytes::new(), true).unwrap();
    end(&mut body).await;
    gateway.metric_becomes("quorumgate_http_tunnels_open", 2).await;
    drop((open, client));
    gateway.metric_becomes("quorumgate_http_tunnels_open", 0).await;
    gateway.metric_becomes("quorumgate_http_requests_in_flight", 0).await;
    gateway.metric_becomes("quorumgate_http_requests_total{route=\"all\",method=\"GET\",code=\"200\"}", 3).await;
}

#[tokio::test]
async fn without_a_handshake_there_is_no_tunnel() {
    let target = chat().await;
    let (plain, _) = echo().await;
    let gateway = Gateway::start(json!({
        "upstreams": [
            {"name": "chat", "targets": [target.to_string()]}, {"name": "plain", "targets": [plain.to_string()]},
        ],
        "routes": [
            {"name": "chat", "match": {"path_prefix": "/"}, "upstream": "chat"},
            {"name": "plain", "match": {"path_prefix": "/plain"}, "upstream": "plain"},
            {"name": "here", "match": {"path_exact": "/here"}, "respond": {"status": 200, "body": "hi"}},
        ],
    }));
    let mut client = client(&gateway).await;
    for (path, protocol, status) in [
        ("/other", "websocket", 403),
        // A good answer, and no 101.
        ("/plain", "websocket", 501),
        ("/here", "websocket", 501),
        ("/chat", "connect-udp", 501),
        ("/chat", "websocket", 200),
    ] {
        let (answer, _stream) = connect(&mut client, path, protocol).await;
        assert_eq!(answer.status(), status, "{path} {protocol}");
    }
    let request = Request::connect("api.test:443").body(()).unwrap();
    let (answer, _) = client.send_request(request, false).unwrap();
    assert_eq!(soon("an answer", answer).await.unwrap().status(), 501);
}

#[tokio::test]
async fn a_tunnel_on_a_deny_route_is_closed_when_the_node_goes_stale() {
    let target = chat().await;
    let gateway = Gateway::start(json!({
        "upstreams": [{"name": "u", "targets": [target.to_string()]}],
        "routes": [{"name": "all", "match": {"path_prefix": "/"}, "upstream": "u", "on_stale": "deny"}],
    }));
    gateway.freshness.extend(boottime_ns() + Duration::from_millis(1500).as_nanos() as u64);
    let mut client = client(&gateway).await;
    let (answer, mut stream) = connect(&mut client, "/chat", "websocket").await;
    let mut body = answer.into_body();
    stream.send_data(Bytes::from_static(b"\x82\x03abc"), false).unwrap();
    expect(&mut body, b"\x01\x05hello\x82\x03abc").await;
    expect(&mut body, &[&[0x88, 13, 0x03, 0xf0][..], b"state_stale"].concat()).await;
    end(&mut body).await;
}

/// Over HTTP/2: takes the handshake for /chat, says `no` to all else, and sends back what comes in.
async fn chat_h2(takes_connect: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|mut request: Request<hyper::body::Incoming>| async move {
                let protocol = request.extensions().get::<hyper::ext::Protocol>().cloned();
                let mut answer = Response::new(http_body_util::Full::new(Bytes::from_static(b"no")));
                if protocol.is_none_or(|it| it.as_str() != "websocket") || request.uri().path() != "/chat" {
                    *answer.status_mut() = http::StatusCode::FORBIDDEN;
                    return Ok::<_, std::convert::Infallible>(answer);
                }
                assert_eq!(request.uri().authority().unwrap(), "api.test");
                assert_eq!(request.headers()["sec-websocket-protocol"], "chat");
                for of_http1 in ["connection", "upgrade", "sec-websocket-key"] {
                    assert!(!request.headers().contains_key(of_http1), "{of_http1}");
                }
                let upgrade = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let stream = hyper_util::rt::TokioIo::new(upgrade.await.unwrap());
                    let (mut read, mut write) = tokio::io::split(stream);
                    write.write_all(b"\x01\x05hello").await.unwrap();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    let _ = write.shutdown().await;
                });
                let mut answer = Response::new(http_body_util::Full::default());
                answer.headers_mut().insert("sec-websocket-protocol", "chat".parse().unwrap());
                Ok(answer)
            });
            let mut server = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
            if takes_connect {
                server.enable_connect_protocol();
            }
            tokio::spawn(server.serve_connection(hyper_util::rt::TokioIo::new(stream), service));
        }
    });
    address
}

fn over_h2(target: SocketAddr) -> Gateway {
    Gateway::start(json!({
        "upstreams": [{"name": "u", "targets": [target.to_string()], "protocol": "http2"}],
        "routes": [{"name": "all", "match": {"path_prefix": "/"}, "upstream": "u"}],
    }))
}

const HANDSHAKE: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                         sec-websocket-protocol: chat\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[tokio::test]
async fn an_upstream_that_speaks_http2_is_asked_for_a_stream_by_clients_of_both_kinds() {
    let gateway = over_h2(chat_h2(true).await);
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let head = format!("GET /chat HTTP/1.1\r\nhost: api.test\r\n{HANDSHAKE}");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(b"\x82\x03abc").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\x01\x05hello\x82\x03abc") {
        assert!(soon("the answer", stream.read_buf(&mut answer)).await.unwrap() > 0);
    }
    let answer = String::from_utf8_lossy(&answer);
    assert_eq!(status(&answer), 101, "{answer}");
    assert_eq!(field(&answer, "sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(field(&answer, "sec-websocket-protocol"), Some("chat"));

    // Beside it on the same connection to the upstream.
    let mut client = client(&gateway).await;
    let (answer, mut sends) = connect(&mut client, "/chat", "websocket").await;
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    sends.send_data(Bytes::from_static(b"\x82\x01x"), false).unwrap();
    expect(&mut body, b"\x01\x05hello\x82\x01x").await;
    gateway.metric_becomes("quorumgate_http_tunnels_open", 2).await;
    sends.send_data(Bytes::new(), true).unwrap();
    end(&mut body).await;
    drop(stream);
    gateway.metric_becomes("quorumgate_http_tunnels_open", 0).await;
}

#[tokio::test]
async fn an_http2_upstream_that_says_no_or_takes_no_such_streams_gives_no_tunnel() {
    let head = format!("HTTP/1.1\r\nhost: api.test\r\n{HANDSHAKE}");
    let gateway = over_h2(chat_h2(true).await);
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(format!("GET /other {head}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"no") {
        assert!(soon("the answer", stream.read_buf(&mut answer)).await.unwrap() > 0);
    }
    assert_eq!(status(&String::from_utf8_lossy(&answer)), 403);
    let gateway = over_h2(chat_h2(false).await);
    let refused = raw(gateway.address, format!("GET /chat {head}")).await;
    assert_eq!(status(&refused), 501, "{refused}");
}
