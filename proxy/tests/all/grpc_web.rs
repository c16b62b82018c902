//! gRPC-Web in binary and in text, over both versions of HTTP, for an upstream that speaks gRPC.

use std::{convert::Infallible, net::SocketAddr};

use crate::support::*;
use data_encoding::BASE64;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use serde_json::json;
use tokio::net::TcpStream;

const CALL: &[u8] = b"\0\0\0\0\x02hi";
const BAD_CALL: &[u8] = b"\0\0\0\0\x03bad";

/// Says every message back, twice over, then `grpc-status: 0`; a body that is `bad` has no answer but its status.
async fn twice() -> SocketAddr {
    upstream(|request: Request<Incoming>| async move {
        assert_eq!(request.headers()["content-type"], "application/grpc+proto");
        assert_eq!(request.headers()["te"], "trailers");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let answer = Response::builder().header("content-type", "application/grpc+proto");
        if body == BAD_CALL {
            let answer = answer.header("grpc-status", "3").header("grpc-message", "bad");
            return answer.body(StreamBody::new(futures_util::stream::iter(Vec::new()))).unwrap();
        }
        let status = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        let frames =
            vec![Ok::<_, Infallible>(Frame::data(body.clone())), Ok(Frame::data(body)), Ok(Frame::trailers(status))];
        answer.body(StreamBody::new(futures_util::stream::iter(frames))).unwrap()
    })
    .await
}

fn to_http2(target: SocketAddr) -> serde_json::Value {
    json!({
        "upstreams": [{"name": "u", "targets": [target.to_string()], "protocol": "http2"}],
        "routes": [{"name": "all", "match": {"path_prefix": "/s.S"}, "upstream": "u"}],
    })
}

fn trailers() -> Vec<u8> {
    [&[0x80, 0, 0, 0, 16][..], b"grpc-status: 0\r\n"].concat()
}

/// The chunks of an answer in HTTP/1.1, joined.
fn chunks(answer: &str) -> Vec<u8> {
    let mut rest = body(answer);
    let mut whole = Vec::new();
    while let Some((size, behind)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        whole.extend_from_slice(&behind.as_bytes()[..size]);
        rest = &behind[(size + 2).min(behind.len())..];
    }
    whole
}

#[tokio::test]
async fn calls_in_text_over_http1_get_their_trailers_as_a_message() {
    let gateway = Gateway::start(to_http2(twice().await));
    // Two messages, each padded on its own.
    let call = format!("{}{}", BASE64.encode(CALL), BASE64.encode(CALL));
    let fields =
        ["content-type: application/grpc-web-text+proto", "x-grpc-web: 1", &format!("content-length: {}", call.len())];
    let answer = ask(gateway.address, "POST /s.S/M", &fields, &call).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(field(&answer, "content-type"), Some("application/grpc-web-text+proto"));
    let expected = [CALL, CALL, CALL, CALL, &trailers()].concat();
    assert_eq!(BASE64.decode(&chunks(&answer)).unwrap(), expected, "{answer}");
    // What is no base64 is the client's fault, in its own words.
    let fields = ["content-type: application/grpc-web-text+proto", "content-length: 4"];
    let answer = ask(gateway.address, "POST /s.S/M", &fields, "!!!!").await;
    assert_eq!((status(&answer), field(&answer, "grpc-status")), (200, Some("13")), "{answer}");
}

#[tokio::test]
async fn calls_in_binary_over_http2_too() {
    let gateway = Gateway::start(to_http2(twice().await));
    let mut client = http2(TcpStream::connect(gateway.address).await.unwrap()).await;
    let mut call = async |path: &str, kind: &str, body: &'static [u8]| {
        let request = Request::post(format!("http://a{path}")).header("content-type", kind);
        let answer = client.send_request(request.body(Full::from(body)).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap();
        assert_eq!(body.trailers(), None);
        (head.headers, body.to_bytes())
    };
    let (head, body) = call("/s.S/M", "application/grpc-web+proto", CALL).await;
    assert_eq!(head["content-type"], "application/grpc-web+proto");
    assert_eq!(body, [CALL, CALL, &trailers()].concat());
    // A status without an answer stays in the head.
    let (head, body) = call("/s.S/M", "application/grpc-web+proto", BAD_CALL).await;
    assert_eq!(
        (&head["grpc-status"], &head["grpc-message"], body.len()),
        (&"3".parse().unwrap(), &"bad".parse().unwrap(), 0)
    );
    // And so does what this gateway says by itself.
    let (head, body) = call("/none", "application/grpc-web-text", CALL).await;
    assert_eq!((&head["grpc-status"], body.len()), (&"12".parse().unwrap(), 0));
    assert_eq!(head["content-type"], "application/grpc-web-text");
}

/// An upstream over HTTP/1 cannot speak gRPC: if it speaks gRPC-Web by itself, that is its own affair.
#[tokio::test]
async fn an_upstream_over_http1_gets_what_came_in() {
    let (target, heard) = echo().await;
    let gateway = Gateway::start(forward_all(target));
    let fields = ["content-type: application/grpc-web+proto", "content-length: 2"];
    assert_eq!(body(&ask(gateway.address, "POST /s.S/M", &fields, "hi").await), "ok");
    assert!(heard.last().contains("content-type: application/grpc-web+proto\n"), "{}", heard.last());
}
