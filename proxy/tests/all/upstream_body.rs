//! Bodies: streamed with back-pressure both ways, sent again within a bound, cut off cleanly.

use std::{
    io::{Read, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use crate::upstream_support::*;
use http::Method;
use http_body_util::BodyExt;
use quorumgate_model::units::Span;
use quorumgate_proxy::upstream::Failure;
use tokio::io::AsyncWriteExt;

/// The first connection reads one request with its body and resets; the others answer with the length of the body.
fn resets_once() -> Origin {
    origin(|mut stream, number| {
        let (_, body) = read_request(&mut stream).unwrap();
        match number {
            0 => socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
            _ => {
                let text = body.len().to_string();
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()).unwrap();
            }
        }
    })
}

async fn check_replay(method: Method, length: usize, expected: Option<&str>) {
    let origin = resets_once();
    let worker = Worker::new(upstream(&[origin.address]));
    let (body, mut client) = upload(&format!("content-length: {length}")).await;
    let sending = async {
        client.write_all(&bytes(length)).await.unwrap();
        client
    };
    let (sent, _client) = tokio::join!(worker.send(request(method.clone(), body)), sending);
    let got = match sent {
        Ok(response) => Some(read(response).await.unwrap()),
        Err(failure) => {
            assert!(matches!(failure, Failure::Reset), "{method} {length}: {failure}");
            None
        }
    };
    assert_eq!(got.as_deref(), expected, "{method} {length}");
}

#[test]
fn a_body_is_sent_again_only_if_idempotent_and_within_the_bound() {
    run(async {
        check_replay(Method::PUT, 10, Some("10")).await;
        check_replay(Method::PUT, 64 << 10, Some("65536")).await;
        check_replay(Method::PUT, (64 << 10) + 1, None).await;
        check_replay(Method::POST, 10, None).await;
    });
}

#[test]
fn a_body_that_is_half_sent_is_sent_again_whole() {
    run(async {
        let (read_half, half_is_read) = mpsc::channel();
        let read_half = std::sync::Mutex::new(read_half);
        let origin = origin(move |mut stream, number| {
            if number > 0 {
                let (_, body) = read_request(&mut stream).unwrap();
                let body = String::from_utf8(body).unwrap();
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
                return;
            }
            let mut seen = Vec::new();
            while !seen.ends_with(b"first ") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                seen.push(byte[0]);
            }
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            drop(stream);
            read_half.lock().unwrap().send(()).unwrap();
        });
        let worker = Worker::new(upstream(&[origin.address]));
        let (body, mut client) = upload("content-length: 12").await;
        let sending = async {
            client.write_all(b"first ").await.unwrap();
            tokio::task::spawn_blocking(move || half_is_read.recv().unwrap()).await.unwrap();
            client.write_all(b"second").await.unwrap();
        };
        let (sent, ()) = tokio::join!(worker.send(request(Method::PUT, body)), sending);
        assert_eq!(read(sent.unwrap()).await.unwrap(), "first second");
    });
}

#[test]
fn a_chunked_upload_arrives_chunked_and_whole() {
    run(async {
        let origin = origin(|mut stream, _| {
            let mut seen = String::new();
            while !seen.ends_with("0\r\n\r\n") {
                let mut part = [0; 1024];
                let read = stream.read(&mut part).unwrap();
                seen += std::str::from_utf8(&part[..read]).unwrap();
            }
            assert!(seen.contains("transfer-encoding: chunked"), "{seen}");
            assert!(seen.ends_with("5\r\nhello\r\n0\r\n\r\n"), "{seen}");
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        });
        let worker = Worker::new(upstream(&[origin.address]));
        let (body, mut client) = upload("transfer-encoding: chunked").await;
        client.write_all(b"5\r\nhello\r\n0\r\n\r\n").await.unwrap();
        assert_eq!(worker.send(request(Method::POST, body)).await.unwrap().status(), 204);
    });
}

#[test]
fn an_upload_may_take_longer_than_the_response_header() {
    run(async {
        let good = good("fine");
        let mut upstream = upstream(&[good.address]);
        upstream.timeouts.response_header = Span::millis(1000);
        let worker = Worker::new(upstream);
        let (body, mut client) = upload("content-length: 12").await;
        let sending = async {
            client.write_all(b"first ").await.unwrap();
            tokio::time::sleep(Duration::from_millis(2500)).await;
            client.write_all(b"second").await.unwrap();
        };
        let (sent, ()) = tokio::join!(worker.send(request(Method::POST, body)), sending);
        assert_eq!(read(sent.unwrap()).await.unwrap(), "fine");
    });
}

#[test]
fn an_early_response_passes_and_its_connection_is_closed() {
    run(async {
        let origin = origin(|mut stream, number| {
            if number > 0 {
                while answer(&mut stream, "fine") {}
                return;
            }
            let mut part = [0; 16];
            stream.read_exact(&mut part).unwrap();
            stream.write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig").unwrap();
            while matches!(stream.read(&mut part), Ok(1..)) {}
        });
        let worker = Worker::new(upstream(&[origin.address]));
        let (body, _client) = upload("content-length: 1000000").await;
        let response = worker.send(request(Method::POST, body)).await.unwrap();
        assert_eq!(response.status(), 413);
        assert_eq!(read(response).await.unwrap(), "big");
        assert_eq!(worker.fetch(get()).await, "fine");
        assert_eq!(origin.connections.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn a_client_that_goes_away_amid_its_body_is_not_the_upstreams_fault() {
    run(async {
        let silent = origin(|mut stream, _| while matches!(stream.read(&mut [0; 1024]), Ok(1..)) {});
        let worker = Worker::new(upstream(&[silent.address]));
        let (body, mut client) = upload("content-length: 12").await;
        let sending = async {
            client.write_all(b"first ").await.unwrap();
            drop(client);
        };
        let (sent, ()) = tokio::join!(worker.send(request(Method::PUT, body)), sending);
        assert!(matches!(sent, Err(Failure::RequestBody)), "{sent:?}");
        assert_eq!(worker.metric(r#"retries_total{upstream="origin"}"#), 0);
    });
}

const BIG: usize = 96 << 20;
/// What socket buffers on both sides may hold at most.
const HELD_MAX: usize = 32 << 20;

/// Waits until the count stands still.
async fn settled(count: &AtomicUsize) -> usize {
    loop {
        let before = count.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(200)).await;
        if before > 0 && count.load(Ordering::SeqCst) == before {
            return before;
        }
    }
}

#[test]
fn an_upstream_that_does_not_read_holds_the_client_back() {
    run(async {
        let (go, wait) = mpsc::channel();
        let wait = std::sync::Mutex::new(wait);
        let origin = origin(move |mut stream, _| {
            wait.lock().unwrap().recv().unwrap();
            let (_, body) = read_request(&mut stream).unwrap();
            let text = body.len().to_string();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()).unwrap();
        });
        let worker = Worker::new(upstream(&[origin.address]));
        let (body, mut client) = upload(&format!("content-length: {BIG}")).await;
        let written = Arc::new(AtomicUsize::new(0));
        let count = written.clone();
        let sending = tokio::task::spawn_local(async move {
            let part = bytes(64 << 10);
            for _ in 0..BIG / part.len() {
                client.write_all(&part).await.unwrap();
                count.fetch_add(part.len(), Ordering::SeqCst);
            }
            client
        });
        let watching = async {
            let held = settled(&written).await;
            assert!(held < HELD_MAX, "{held}");
            go.send(()).unwrap();
        };
        let (sent, ()) = tokio::join!(worker.send(request(Method::POST, body)), watching);
        assert_eq!(read(sent.unwrap()).await.unwrap(), BIG.to_string());
        drop(sending.await.unwrap());
    });
}

#[test]
fn a_client_that_does_not_read_holds_the_upstream_back() {
    run(async {
        let written = Arc::new(AtomicUsize::new(0));
        let count = written.clone();
        let origin = origin(move |mut stream, _| {
            read_request(&mut stream).unwrap();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {BIG}\r\n\r\n").unwrap();
            let part = bytes(64 << 10);
            for _ in 0..BIG / part.len() {
                stream.write_all(&part).unwrap();
                count.fetch_add(part.len(), Ordering::SeqCst);
            }
            let _ = stream.read(&mut [0; 1]);
        });
        let worker = Worker::new(upstream(&[origin.address]));
        let mut body = worker.send(get()).await.unwrap().into_body();
        let held = settled(&written).await;
        assert!(held < HELD_MAX, "{held}");
        let mut read = 0;
        while let Some(frame) = body.frame().await {
            read += frame.unwrap().into_data().unwrap().len();
        }
        assert_eq!(read, BIG);
        assert_eq!(worker.metric(r#"connections{upstream="origin",state="idle"}"#), 1);
    });
}
