//! Upstreams that behave as a test says, on threads of their own, and a worker that calls them.
#![allow(dead_code)] // Each test binary uses its part.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use quorumgate_model::{
    resource::{
        Action, Balance, BalancePolicy, BodyLimit, EncodedSlash, Match, OnStale, Protocol, Retries, Rewrite, Route,
        RouteRetries, RouteTimeouts, Target, Upstream, UpstreamTimeouts,
    },
    ruleset::{Rule, Ruleset},
};
use quorumgate_proxy::{
    body::{RequestBody, ResponseBody},
    client_body::{ClientBody, Patience},
    upstream::{Asks, Call, Failure, Pools, Registry, Trail},
};

pub const NAME: &str = "origin";

/// Long enough for a loaded machine; nothing waits for it when the code is right.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A listener whose connections are handed, numbered from 0, to threads of their own. Lives as long as the process.
pub struct Origin {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
}

pub fn origin(serve: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Origin {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let (serve, count) = (Arc::new(serve), connections.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, serve) = (stream.unwrap(), serve.clone());
            stream.set_nodelay(true).unwrap();
            let number = count.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || serve(stream, number));
        }
    });
    Origin { address, connections }
}

/// Answers every request on a connection with its own name as the body.
pub fn good(body: &'static str) -> Origin {
    origin(move |mut stream, _| while answer(&mut stream, body) {})
}

/// False at the end of the connection.
pub fn answer(stream: &mut TcpStream, body: &str) -> bool {
    match read_request(stream) {
        None => false,
        Some(_) => write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).is_ok(),
    }
}

/// Head and body of one request with a content-length or none; None at the end of the connection.
pub fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// An address where nobody listens.
pub fn closed_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub fn upstream(targets: &[SocketAddr]) -> Upstream {
    let target =
        |address: &SocketAddr| Target { address: address.to_string().parse().unwrap(), weight: 1.try_into().unwrap() };
    Upstream {
        name: NAME.parse().unwrap(),
        labels: BTreeMap::new(),
        owner: String::new(),
        description: String::new(),
        targets: targets.iter().map(target).collect(),
        protocol: Protocol::Http1,
        balance: Balance { policy: BalancePolicy::RoundRobin },
        health: None,
        retries: Retries::default(),
        timeouts: UpstreamTimeouts::default(),
        auth: None,
    }
}

pub fn route() -> Route {
    Route {
        name: "route".parse().unwrap(),
        labels: BTreeMap::new(),
        owner: String::new(),
        description: String::new(),
        priority: 0,
        matches: Match::default(),
        action: Action::Forward { upstream: NAME.parse().unwrap() },
        rewrite: Rewrite::default(),
        auth: None,
        authorize: Vec::new(),
        on_stale: OnStale::Allow,
        encoded_slash: EncodedSlash::default(),
        access_log: None,
        limits: Vec::new(),
        body: BodyLimit::default(),
        timeouts: RouteTimeouts::default(),
        retries: RouteRetries::default(),
    }
}

pub fn ruleset(upstreams: impl IntoIterator<Item = Upstream>) -> Arc<Ruleset> {
    let upstreams = upstreams.into_iter().map(|it| (it.name.clone(), Arc::new(it))).collect();
    let mut ruleset = Ruleset::default();
    ruleset.upstreams = upstreams;
    Arc::new(ruleset)
}

pub fn get() -> Request<RequestBody> {
    request(Method::GET, RequestBody::Empty)
}

pub fn post(body: &'static str) -> Request<RequestBody> {
    request(Method::POST, RequestBody::Full(body.into()))
}

pub fn request(method: Method, body: RequestBody) -> Request<RequestBody> {
    Request::builder().method(method).uri("/").header("host", "shop.test").body(body).unwrap()
}

/// One worker with one upstream.
pub struct Worker {
    pub registry: Arc<Registry>,
    pub pools: Pools,
    pub rule: Arc<Rule>,
}

impl Worker {
    pub fn new(upstream: Upstream) -> Self {
        Self::with(upstream, route())
    }

    pub fn with(upstream: Upstream, route: Route) -> Self {
        let registry = Arc::new(Registry::new());
        registry.publish(&ruleset([upstream]));
        let pools = Pools::new(registry.clone());
        Self { registry, pools, rule: Arc::new(Rule::new(Arc::new(route))) }
    }

    pub async fn send(&self, request: Request<RequestBody>) -> Result<Response<ResponseBody>, Failure> {
        self.trace(request).await.0
    }

    pub async fn trace(&self, request: Request<RequestBody>) -> (Result<Response<ResponseBody>, Failure>, Trail) {
        let mut trail = Trail::default();
        let call = Call { rule: &self.rule, upstream: NAME, deadline: None, asks: Asks::Answer, trail: &mut trail };
        let sent =
            tokio::time::timeout(PATIENCE, self.pools.send(call, request)).await.expect("an answer or a failure");
        (sent, trail)
    }

    /// The whole body of a response that must come.
    pub async fn fetch(&self, request: Request<RequestBody>) -> String {
        let response = self.send(request).await.unwrap();
        read(response).await.unwrap()
    }

    /// The value of one line of the metrics.
    pub fn metric(&self, line: &str) -> u64 {
        let mut text = String::new();
        self.registry.metrics(&mut text);
        let prefix = format!("quorumgate_upstream_{line} ");
        let value = text.lines().find_map(|it| it.strip_prefix(&prefix));
        value.unwrap_or_else(|| panic!("{line} is not in\n{text}")).parse().unwrap()
    }
}

pub async fn read(response: Response<ResponseBody>) -> Result<String, Failure> {
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

/// Runs a test as a worker runs: on one thread, with local tasks.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

pub fn bytes(length: usize) -> Bytes {
    (0..length).map(|i| i as u8).collect()
}

/// A client's streamed body, as a listener gets it: what is written to the other end comes out of the body.
pub async fn upload(head: &str) -> (RequestBody, tokio::io::DuplexStream) {
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let (bodies, body) = tokio::sync::oneshot::channel();
    let bodies = std::cell::Cell::new(Some(bodies));
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let _ = bodies.take().unwrap().send(request.into_body());
        std::future::pending::<Result<Response<http_body_util::Empty<Bytes>>, std::convert::Infallible>>()
    });
    let io = hyper_util::rt::TokioIo::new(server);
    tokio::task::spawn_local(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
    let head = format!("PUT / HTTP/1.1\r\nhost: shop.test\r\n{head}\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut client, head.as_bytes()).await.unwrap();
    let body = ClientBody::new(body.await.unwrap(), 0, Patience::Idle(PATIENCE));
    (RequestBody::Client(body), client)
}
