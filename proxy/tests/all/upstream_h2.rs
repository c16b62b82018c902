//! HTTP/2 upstreams: shared connections, refused streams, GOAWAY.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
};

use crate::upstream_support::*;
use bytes::Bytes;
use h2::{Reason, server::SendResponse};
use http::{Request, Response};
use quorumgate_model::resource::{Protocol, Upstream};
use quorumgate_proxy::upstream::Failure;
use tokio::net::TcpListener;

type Handler = dyn Fn(&Seen, Request<h2::RecvStream>, SendResponse<Bytes>);

/// Where a request came in.
struct Seen {
    connection: usize,
    /// Over all connections, from 0.
    request: usize,
}

/// Runs on the worker's own thread. `handler` says after each request whether the connection goes away.
async fn origin(
    streams_max: u32,
    goes_away_after: usize,
    handler: impl Fn(&Seen, Request<h2::RecvStream>, SendResponse<Bytes>) + 'static,
) -> (SocketAddr, Rc<Cell<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Rc::new(Cell::new(0));
    let (count, requests, handler) = (connections.clone(), Rc::new(Cell::new(0)), Rc::new(handler));
    tokio::task::spawn_local(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let connection = count.get();
            count.set(connection + 1);
            let handler: Rc<Handler> = handler.clone();
            tokio::task::spawn_local(serve(
                stream,
                streams_max,
                goes_away_after,
                connection,
                requests.clone(),
                handler,
            ));
        }
    });
    (address, connections)
}

async fn serve(
    stream: tokio::net::TcpStream,
    streams_max: u32,
    goes_away_after: usize,
    connection: usize,
    requests: Rc<Cell<usize>>,
    handler: Rc<Handler>,
) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(streams_max);
    let Ok(mut h2) = builder.handshake::<_, Bytes>(stream).await else { return };
    let mut served = 0;
    while let Some(Ok((request, respond))) = h2.accept().await {
        let seen = Seen { connection, request: requests.get() };
        requests.set(seen.request + 1);
        handler(&seen, request, respond);
        served += 1;
        if served == goes_away_after {
            h2.graceful_shutdown();
        }
    }
}

fn respond(mut to: SendResponse<Bytes>, body: &str) {
    let mut stream = to.send_response(Response::new(()), false).unwrap();
    stream.send_data(Bytes::copy_from_slice(body.as_bytes()), true).unwrap();
}

fn h2(address: SocketAddr) -> Upstream {
    let mut upstream = upstream(&[address]);
    upstream.protocol = Protocol::Http2;
    upstream
}

const NEVER: usize = usize::MAX;

#[test]
fn requests_share_a_connection() {
    const AT_ONCE: usize = 50;
    run(async {
        // Nobody is answered before all are there.
        let waiting = RefCell::new(Vec::new());
        let (address, connections) = origin(100, NEVER, move |_, request, to| {
            assert_eq!(request.uri().to_string(), "http://shop.test/");
            assert!(!request.headers().contains_key("host"));
            waiting.borrow_mut().push(to);
            if waiting.borrow().len() == AT_ONCE {
                waiting.take().into_iter().for_each(|to| respond(to, "fine"));
            }
        })
        .await;
        let worker = Worker::new(h2(address));
        for _ in 0..3 {
            let all = futures_util::future::join_all((0..AT_ONCE).map(|_| worker.fetch(get()))).await;
            assert!(all.iter().all(|body| body == "fine"));
        }
        assert_eq!(connections.get(), 1);
    });
}

#[test]
fn more_streams_than_a_connection_takes_open_another() {
    const AT_ONCE: usize = 250;
    run(async {
        let waiting = RefCell::new(Vec::new());
        let (address, connections) = origin(1000, NEVER, move |_, _, to| {
            waiting.borrow_mut().push(to);
            if waiting.borrow().len() == AT_ONCE {
                waiting.take().into_iter().for_each(|to| respond(to, "fine"));
            }
        })
        .await;
        let worker = Worker::new(h2(address));
        let all = futures_util::future::join_all((0..AT_ONCE).map(|_| worker.fetch(get()))).await;
        assert!(all.iter().all(|body| body == "fine"));
        assert_eq!(connections.get(), 3);
    });
}

#[test]
fn a_peer_that_takes_few_streams_gets_more_connections() {
    const AT_ONCE: usize = 40;
    run(async {
        let waiting = RefCell::new(Vec::new());
        let (address, connections) = origin(10, NEVER, move |seen, _, to| {
            if seen.request == 0 {
                return respond(to, "fine");
            }
            waiting.borrow_mut().push(to);
            if waiting.borrow().len() == AT_ONCE {
                waiting.take().into_iter().for_each(|to| respond(to, "fine"));
            }
        })
        .await;
        let worker = Worker::new(h2(address));
        // By the second the peer's SETTINGS are known.
        worker.fetch(get()).await;
        let all = futures_util::future::join_all((0..AT_ONCE).map(|_| worker.fetch(get()))).await;
        assert!(all.iter().all(|body| body == "fine"));
        assert_eq!(connections.get(), 4);
    });
}

#[test]
fn a_refused_stream_is_tried_again_whatever_the_method() {
    run(async {
        let (address, connections) = origin(100, NEVER, |seen, _, mut to| match seen.request {
            0 => to.send_reset(Reason::REFUSED_STREAM),
            _ => respond(to, "fine"),
        })
        .await;
        let worker = Worker::new(h2(address));
        assert_eq!(worker.fetch(post("order")).await, "fine");
        assert_eq!(connections.get(), 1);
        assert_eq!(worker.metric(r#"retries_total{upstream="origin"}"#), 1);
    });
}

#[test]
fn a_reset_stream_is_tried_again_only_if_idempotent() {
    run(async {
        let (address, _) = origin(100, NEVER, |seen, _, mut to| match seen.request % 2 {
            0 => to.send_reset(Reason::INTERNAL_ERROR),
            _ => respond(to, "fine"),
        })
        .await;
        let worker = Worker::new(h2(address));
        assert_eq!(worker.fetch(get()).await, "fine");
        let sent = worker.send(post("order")).await;
        assert!(matches!(sent, Err(Failure::Reset)), "{sent:?}");
    });
}

#[test]
fn a_connection_that_goes_away_never_shows() {
    run(async {
        let (address, connections) = origin(100, 3, |_, _, to| respond(to, "fine")).await;
        let worker = Worker::new(h2(address));
        for round in 0..100 {
            let all = futures_util::future::join_all((0..5).map(|_| worker.fetch(post("order")))).await;
            assert!(all.iter().all(|body| body == "fine"), "round {round}");
        }
        assert!(connections.get() > 30, "{}", connections.get());
        assert!(worker.metric(r#"connections{upstream="origin",state="open"}"#) <= 5);
    });
}

/// The connections end without a GOAWAY as soon as they have answered.
#[test]
fn a_connection_that_breaks_never_shows_to_an_idempotent_request() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut h2 = h2::server::handshake(stream).await.unwrap();
                let (_, to) = h2.accept().await.unwrap().unwrap();
                respond(to, "fine");
                // Runs the connection until the next request, which it lets fall.
                let _ = h2.accept().await;
            }
        });
        let worker = Worker::new(h2(address));
        for round in 0..100 {
            assert_eq!(worker.fetch(get()).await, "fine", "round {round}");
        }
    });
}

#[test]
fn a_body_that_nobody_reads_ends_its_stream_only() {
    run(async {
        let (address, connections) = origin(100, NEVER, |seen, _, mut to| {
            assert_eq!(seen.connection, 0);
            if seen.request > 0 {
                return respond(to, "fine");
            }
            let mut stream = to.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from_static(b"half"), false).unwrap();
            tokio::task::spawn_local(async move {
                let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
            });
        })
        .await;
        let worker = Worker::new(h2(address));
        drop(worker.send(get()).await.unwrap());
        assert_eq!(worker.fetch(get()).await, "fine");
        assert_eq!(connections.get(), 1);
    });
}
