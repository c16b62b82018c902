//! Answers that come before the request's body was read: the client gets them, whoever closed first.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
};

use crate::support::*;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Reads the head, sends `answer` and closes with the body unread, which resets the connection.
fn hasty(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                    head.push(byte[0]);
                }
                stream.read_exact(&mut byte).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            });
        }
    });
    address
}

/// A client as many are: it sends everything before it looks for an answer.
async fn post(address: SocketAddr, field: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("POST / HTTP/1.1\r\nhost: a\r\n{field}\r\n\r\n").as_bytes()).await.unwrap();
    soon("the body is taken", stream.write_all(body)).await.unwrap();
    let mut answer = Vec::new();
    let end = soon("the answer", stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(end.is_ok(), "{end:?} behind {answer:?}");
    answer
}

#[tokio::test]
async fn an_upstream_that_answers_early_and_closes_is_heard() {
    let upload = vec![b'x'; 8 << 20];
    for answer in [
        "HTTP/1.1 413 Payload Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig",
        "HTTP/1.1 413 Payload Too Large\r\ntransfer-encoding: chunked\r\n\r\n3\r\nbig\r\n0\r\n\r\n",
    ] {
        let gateway = Gateway::start(forward_all(hasty(answer)));
        // Which comes first, the answer or the reset, is a matter of luck.
        for _ in 0..20 {
            let answer = post(gateway.address, &format!("content-length: {}", upload.len()), &upload).await;
            assert_eq!(status(&answer), 413, "{answer}");
            assert!(body(&answer).contains("big"), "{answer}");
        }
        gateway.metric_becomes("quorumgate_http_requests_in_flight", 0).await;
    }
}

#[tokio::test]
async fn an_upstream_that_resets_without_an_answer_is_a_502() {
    let gateway = Gateway::start(forward_all(hasty("")));
    let upload = vec![b'x'; 8 << 20];
    for _ in 0..5 {
        let answer = post(gateway.address, &format!("content-length: {}", upload.len()), &upload).await;
        check_problem(&answer, 502, "upstream_reset");
    }
}

#[tokio::test]
async fn a_client_that_sends_too_much_gets_its_413() {
    let (target, _) = echo().await;
    let gateway = Gateway::start(json!({
        "upstreams": [{"name": "u", "targets": [target.to_string()]}],
        "routes": [{"name": "all", "match": {"path_prefix": "/"}, "upstream": "u", "body": {"max": "1KiB"}}],
    }));
    let upload = vec![b'x'; 8 << 20];
    for _ in 0..5 {
        let answer = post(gateway.address, &format!("content-length: {}", upload.len()), &upload).await;
        check_problem(&answer, 413, "content_too_large");
        let mut chunked = format!("{:x}\r\n", upload.len()).into_bytes();
        chunked.extend_from_slice(&upload);
        chunked.extend_from_slice(b"\r\n0\r\n\r\n");
        let answer = post(gateway.address, "transfer-encoding: chunked", &chunked).await;
        check_problem(&answer, 413, "content_too_large");
    }
    gateway.metric_becomes("quorumgate_http_connections_open", 0).await;
}
