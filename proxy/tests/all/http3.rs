//! HTTP/3 over a real QUIC socket, with a client that looks at what it gets; and a wire in between that counts.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, Response, StatusCode};
use quinn::{Endpoint, crypto::rustls::QuicClientConfig};
use serde_json::{Value, json};
use tokio::net::UdpSocket;

use crate::{support::*, tls::*};

type Sender = h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>;

struct Http3 {
    endpoint: Endpoint,
    connection: quinn::Connection,
    send: Sender,
}

fn client(ca: &Authority, leaf: Option<&Leaf>) -> (Endpoint, quinn::ClientConfig) {
    let mut tls = (*ca.trusting(leaf, &[&rustls::version::TLS13]).0).clone();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    (Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap(), config)
}

impl Http3 {
    async fn connect(ca: &Authority, leaf: Option<&Leaf>, address: SocketAddr) -> Result<Self, quinn::ConnectionError> {
        let (endpoint, config) = client(ca, leaf);
        Self::over(endpoint, config, address).await
    }

    async fn over(
        endpoint: Endpoint,
        config: quinn::ClientConfig,
        address: SocketAddr,
    ) -> Result<Self, quinn::ConnectionError> {
        let connecting = endpoint.connect_with(config, address, "api.test").unwrap();
        let connection = soon("the handshake", connecting).await?;
        // A server refuses a certificate once its client counts the handshake as done.
        let Ok((mut driver, send)) = h3::client::new(h3_quinn::Connection::new(connection.clone())).await else {
            return Err(connection.close_reason().expect("nothing else ends it here"));
        };
        tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
        Ok(Self { endpoint, connection, send })
    }

    /// The answer, its body and its trailers; an error is a stream or a connection that was reset.
    async fn ask(&self, request: Request<()>, body: &[&str]) -> Result<(Response<()>, String, HeaderMap), String> {
        let asked = async {
            let mut stream = self.send.clone().send_request(request).await.map_err(|error| error.to_string())?;
            for part in body {
                let part = Bytes::copy_from_slice(part.as_bytes());
                stream.send_data(part).await.map_err(|error| error.to_string())?;
            }
            stream.finish().await.map_err(|error| error.to_string())?;
            let response = stream.recv_response().await.map_err(|error| error.to_string())?;
            let mut text = Vec::new();
            while let Some(mut data) = stream.recv_data().await.map_err(|error| error.to_string())? {
                text.extend_from_slice(&data.copy_to_bytes(data.remaining()));
            }
            let trailers = stream.recv_trailers().await.map_err(|error| error.to_string())?;
            Ok((response, String::from_utf8(text).unwrap(), trailers.unwrap_or_default()))
        };
        soon("the answer", asked).await
    }

    async fn get(&self, path: &str) -> Result<(Response<()>, String, HeaderMap), String> {
        self.ask(Request::get(format!("https://api.test{path}")).body(()).unwrap(), &[]).await
    }
}

fn words(at: SocketAddr, own: &Leaf) -> Value {
    json!({
        "certificates": [certificate("c", &[], own)],
        "listeners": [{ "name": "h", "address": at.to_string(), "certificates": ["c"], "http3": true }],
    })
}

struct Gate {
    it: Listening,
    ca: Authority,
    own: Leaf,
    at: SocketAddr,
}

impl Gate {
    async fn new() -> Self {
        let (ca, at) = (Authority::new("http3"), address());
        let own = ca.server(&["api.test"]);
        Self { it: Listening::new(words(at, &own)).await, ca, own, at }
    }

    async fn client(&self) -> Http3 {
        Http3::connect(&self.ca, None, self.at).await.unwrap()
    }
}

#[tokio::test]
async fn a_request_over_http3_goes_the_way_of_all_others() {
    let gate = Gate::new().await;
    let client = gate.client().await;
    let (response, body, _) = client.get("/a//b?x=1").await.unwrap();
    assert_eq!((response.status(), body.as_str()), (StatusCode::OK, "ok"));
    assert!(response.headers().contains_key("x-request-id") && !response.headers().contains_key("alt-svc"));
    let heard = gate.it.heard.last();
    assert!(heard.starts_with("GET /a/b?x=1\n"), "{heard}");
    for field in ["host: api.test\n", "via: 3 quorumgate", "x-forwarded-for: 127.0.0.1\n", "x-forwarded-proto: https\n"]
    {
        assert!(heard.contains(field), "{heard}");
    }
    assert!(!heard.contains("transfer-encoding"), "a request without a body has none: {heard}");

    let post = Request::post("https://api.test/p").header("content-length", 6).body(()).unwrap();
    let (response, ..) = client.ask(post, &["one", "two"]).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(gate.it.heard.last().ends_with("\n\nonetwo"), "{}", gate.it.heard.last());
    let head = Request::head("https://api.test/").body(()).unwrap();
    let (response, body, _) = client.ask(head, &[]).await.unwrap();
    assert_eq!((response.status().as_u16(), body.as_str()), (200, ""));

    // What is refused is refused here too, by the same exit.
    let (response, body, _) = client.get("/%00").await.unwrap();
    assert_eq!(response.status(), 400);
    assert!(response.headers()["date"].to_str().unwrap().ends_with(" GMT"));
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["code"], "bad_path");
    gate.it.gateway.metric_becomes("quorumgate_http_requests_in_flight", 0).await;
    let other = Request::get("https://other.test/").body(()).unwrap();
    assert_eq!(client.ask(other, &[]).await.unwrap().0.status(), 421);
}

#[tokio::test]
async fn other_protocols_say_that_http3_is_spoken() {
    let gate = Gate::new().await;
    let tcp = gate.ca.trusting(None, rustls::DEFAULT_VERSIONS);
    let (answer, _) = tcp.ask(gate.at, "api.test").await.unwrap();
    let offered = format!("h3=\":{}\"; ma=86400", gate.at.port());
    assert_eq!(field(&answer, "alt-svc"), Some(&*offered));
    let standing = gate.client().await;
    standing.get("/").await.unwrap();
    let mut without = words(gate.at, &gate.own);
    without["listeners"][0]["http3"] = json!(false);
    gate.it.publish(without);
    let (answer, _) = tcp.ask(gate.at, "api.test").await.unwrap();
    assert_eq!(field(&answer, "alt-svc"), None);
    soon("the QUIC connection is asked to go", standing.connection.closed()).await;
}

#[tokio::test]
async fn a_malformed_request_ends_its_own_stream() {
    let gate = Gate::new().await;
    let client = gate.client().await;
    for (name, value) in
        [("connection", "close"), ("transfer-encoding", "chunked"), ("te", "gzip"), ("content-length", "1x")]
    {
        let bad = Request::get("https://api.test/").header(name, value).body(()).unwrap();
        assert!(client.ask(bad, &[]).await.is_err(), "{name}");
    }
    let whole = |bytes: u32| Request::post("https://api.test/").header("content-length", bytes).body(()).unwrap();
    for bytes in [2, 4] {
        let answer = client.ask(whole(bytes), &["one"]).await;
        assert!(!answer.is_ok_and(|(response, ..)| response.status() == 200), "{bytes} for 3");
    }
    assert_eq!(client.ask(whole(3), &["one"]).await.unwrap().0.status(), 200);
}

#[tokio::test]
async fn a_connection_goes_on_when_its_client_has_another_address() {
    let gate = Gate::new().await;
    let client = gate.client().await;
    client.get("/").await.unwrap();
    let before = client.endpoint.local_addr().unwrap();
    client.endpoint.rebind(std::net::UdpSocket::bind("127.0.0.2:0").unwrap()).unwrap();
    assert_ne!(client.endpoint.local_addr().unwrap(), before);
    for _ in 0..3 {
        assert_eq!(client.get("/").await.unwrap().0.status(), 200);
    }
    assert_eq!(gate.it.gateway.metric("quorumgate_http_connections_total"), 1);
}

#[tokio::test]
async fn a_certificate_is_asked_for_over_quic_too() {
    let gate = Gate::new().await;
    let (clients, others) = (Authority::new("clients"), Authority::new("others"));
    let mut words = words(gate.at, &gate.own);
    words["certificate_authorities"] = json!([{ "name": "p", "pem": clients.0.pem() }]);
    words["listeners"][0]["client_ca"] = json!("p");
    gate.it.publish(words);
    let friend = clients.client("spiffe://a/friend");
    let come = Http3::connect(&gate.ca, Some(&friend), gate.at).await.unwrap();
    assert_eq!(come.get("/").await.unwrap().0.status(), 200);
    let stranger = others.client("spiffe://a/stranger");
    for leaf in [None, Some(&stranger)] {
        let came = match Http3::connect(&gate.ca, leaf, gate.at).await {
            Ok(client) => client.get("/").await.is_ok(),
            Err(_) => false,
        };
        assert!(!came);
    }
}

#[tokio::test]
async fn draining_says_goaway_and_lets_requests_end() {
    let (slow, hold) = (tokio::sync::Notify::new(), Arc::new(tokio::sync::Notify::new()));
    let (slow, begun) = (Arc::new(slow), hold.clone());
    let upstream = {
        let slow = slow.clone();
        upstream(move |_| {
            let (slow, hold) = (slow.clone(), hold.clone());
            async move {
                hold.notify_one();
                slow.notified().await;
                Response::new(http_body_util::Full::new(Bytes::from_static(b"late")))
            }
        })
        .await
    };
    let gate = Gate::new().await;
    let mut words = words(gate.at, &gate.own);
    words["upstreams"] = json!([{ "name": "slow", "targets": [upstream.to_string()] }]);
    words["routes"] = json!([{ "name": "slow", "match": { "path_exact": "/slow" }, "upstream": "slow" }]);
    gate.it.publish(words);
    let client = Arc::new(gate.client().await);
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.get("/slow").await }
    });
    soon("the request is there", begun.notified()).await;
    let proxy = gate.it.gateway.proxy.clone();
    let draining = tokio::spawn(async move { proxy.drain(PATIENCE).await });
    // GOAWAY: the next request is refused at once, by the client itself or by a reset.
    let refused = async {
        while client.get("/").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    soon("the client is told to go", refused).await;
    slow.notify_one();
    let (response, body, _) = asking.await.unwrap().unwrap();
    assert_eq!((response.status().as_u16(), body.as_str()), (200, "late"));
    assert_eq!(soon("the drain ends", draining).await.unwrap(), 0);
    soon("the connection ends", client.connection.closed()).await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_exchanges() {
    let begun = Arc::new(tokio::sync::Notify::new());
    let silent = {
        let begun = begun.clone();
        upstream(move |_| {
            let begun = begun.clone();
            async move {
                begun.notify_one();
                std::future::pending::<Response<http_body_util::Full<Bytes>>>().await
            }
        })
        .await
    };
    let gate = Gate::new().await;
    let mut words = words(gate.at, &gate.own);
    // Longer than the test waits.
    let timeouts = json!({ "response_header": "10m" });
    words["upstreams"] = json!([{ "name": "silent", "targets": [silent.to_string()], "timeouts": timeouts }]);
    words["routes"] = json!([{ "name": "silent", "match": { "path_exact": "/silent" }, "upstream": "silent" }]);
    gate.it.publish(words);
    let client = gate.client().await;
    let connection = client.connection.clone();
    let asking = tokio::spawn(async move { client.get("/silent").await });
    soon("the request is there", begun.notified()).await;
    assert_eq!(gate.it.gateway.metric("quorumgate_http_requests_in_flight"), 1);
    connection.close(0u32.into(), b"");
    assert!(asking.await.unwrap().is_err());
    gate.it.gateway.metric_becomes("quorumgate_http_requests_in_flight", 0).await;
}

/// What passed a wire: the first byte of each datagram and its length, by direction.
#[derive(Clone, Default)]
struct Wire {
    up: Arc<Mutex<Vec<(u8, usize)>>>,
    down: Arc<Mutex<Vec<(u8, usize)>>>,
    /// Sent back before this many datagrams of the client had passed.
    early: Arc<AtomicUsize>,
}

impl Wire {
    /// Between one client and the gateway.
    async fn to(gateway: SocketAddr) -> (SocketAddr, Self) {
        let wire = Self::default();
        let outside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let inside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        inside.connect(gateway).await.unwrap();
        let address = outside.local_addr().unwrap();
        let kept = wire.clone();
        tokio::spawn(async move {
            let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
            let mut client = None;
            loop {
                tokio::select! {
                    Ok((n, from)) = outside.recv_from(&mut up) => {
                        client = Some(from);
                        kept.up.lock().unwrap().push((up[0], n));
                        let _ = inside.send(&up[..n]).await;
                    }
                    Ok(n) = inside.recv(&mut down) => {
                        kept.down.lock().unwrap().push((down[0], n));
                        if kept.up.lock().unwrap().len() < 2 {
                            kept.early.fetch_add(n, Ordering::Relaxed);
                        }
                        if let Some(client) = client {
                            let _ = outside.send_to(&down[..n], client).await;
                        }
                    }
                }
            }
        });
        (address, wire)
    }

    fn first_down(&self) -> u8 {
        self.down.lock().unwrap()[0].0
    }
}

/// The type of a packet with a long header (RFC 9000 section 17.2).
fn is_retry(first: u8) -> bool {
    first & 0x80 != 0 && (first >> 4) & 3 == 3
}

#[tokio::test]
async fn an_unknown_address_gets_a_retry_and_a_known_one_none() {
    let gate = Gate::new().await;
    let (endpoint, config) = client(&gate.ca, None);
    let (through, wire) = Wire::to(gate.at).await;
    let first = Http3::over(endpoint.clone(), config.clone(), through).await.unwrap();
    first.get("/").await.unwrap();
    assert!(is_retry(wire.first_down()), "{:x}", wire.first_down());
    let sent = wire.up.lock().unwrap()[0].1;
    assert!(wire.early.load(Ordering::Relaxed) <= 3 * sent);
    first.connection.close(0u32.into(), b"");
    // One for each datagram of the client's first flight.
    let retries = || wire.down.lock().unwrap().iter().filter(|(first, _)| is_retry(*first)).count();
    let before = retries();
    // The token that came along spares the next connection the detour.
    let next = Http3::over(endpoint, config, through).await.unwrap();
    next.get("/").await.unwrap();
    assert_eq!(retries(), before);
}

#[tokio::test]
async fn a_flood_of_first_packets_is_answered_by_little_and_kept_by_nobody() {
    let gate = Gate::new().await;
    // What a client sends first, caught before any server saw it.
    let trap = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (endpoint, config) = client(&gate.ca, None);
    let _connecting = endpoint.connect_with(config, trap.local_addr().unwrap(), "api.test").unwrap();
    let mut initial = vec![0; 65_536];
    let (bytes, _) = soon("the first packet", trap.recv_from(&mut initial)).await.unwrap();
    for _ in 0..50 {
        let spoofed = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        spoofed.send_to(&initial[..bytes], gate.at).await.unwrap();
        let mut answer = [0; 2048];
        let (answered, _) = soon("the answer", spoofed.recv_from(&mut answer)).await.unwrap();
        assert!(is_retry(answer[0]) && answered < bytes, "{answered} for {bytes}");
    }
    // Those that come at once, and have the id of another, are answered each for itself.
    let spoofed = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for _ in 0..50 {
        spoofed.send_to(&initial[..bytes], gate.at).await.unwrap();
    }
    for _ in 0..50 {
        let mut answer = [0; 2048];
        let (answered, _) = soon("the answer", spoofed.recv_from(&mut answer)).await.unwrap();
        assert!(is_retry(answer[0]) && answered < bytes, "{answered} for {bytes}");
    }
    assert_eq!(gate.it.gateway.metric("quorumgate_http_connections_total"), 0);
    assert_eq!(gate.client().await.get("/").await.unwrap().0.status(), 200);
}

#[tokio::test]
async fn interim_answers_come_before_the_answer() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(String::from_utf8_lossy(&head).contains("expect: 100-continue\r\n"));
        let interim =
            "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\nkeep-alive: 1\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
        stream.write_all(interim.as_bytes()).await.unwrap();
        let mut body = [0; 4];
        stream.read_exact(&mut body).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    });
    let gate = Gate::new().await;
    let mut words = words(gate.at, &gate.own);
    words["upstreams"] = json!([{ "name": "hints", "targets": [upstream.to_string()] }]);
    words["routes"] = json!([{ "name": "hints", "match": { "path_exact": "/hints" }, "upstream": "hints" }]);
    gate.it.publish(words);
    let client = gate.client().await;
    let request = Request::post("https://api.test/hints").header("content-length", 4).header("expect", "100-continue");
    let mut stream = client.send.clone().send_request(request.body(()).unwrap()).await.unwrap();
    let hints = soon("hints", stream.recv_response()).await.unwrap();
    assert_eq!((hints.status().as_u16(), hints.headers().len()), (103, 1));
    assert_eq!(hints.headers()["link"], "</a.css>");
    assert_eq!(soon("to be asked", stream.recv_response()).await.unwrap().status(), 100);
    stream.send_data(Bytes::from_static(b"body")).await.unwrap();
    stream.finish().await.unwrap();
    let answer = soon("the answer", stream.recv_response()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut text = Vec::new();
    while let Some(mut data) = soon("the body", stream.recv_data()).await.unwrap() {
        text.extend_from_slice(&data.copy_to_bytes(data.remaining()));
    }
    assert_eq!(text, b"ok");
}
