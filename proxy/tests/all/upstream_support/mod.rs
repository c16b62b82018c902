//! Upstreams that behave as a test says, on threads of their own, and a worker that calls them.
#![allow(dead_code)] // Each test binary uses its part.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
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
        Action, Balance, BalancePolicy, BodyLimit, EncodedSlash, HealthCheck, Match, OnStale, Outlier, Protocol,
        Retries, Rewrite, Route, RouteRetries, RouteTimeouts, Target, Upstream, UpstreamTimeouts,
    },
    ruleset::{Rule, Ruleset},
    units::Span,
};
use quorumgate_proxy::{
    body::{RequestBody, ResponseBody},
    client_body::{ClientBody, Patience},
    upstream::{Asks, Call, Caller, Failure, Pools, Registry, Trail},
};
use tokio_util::sync::CancellationToken;

pub const NAME: &str = "origin";
pub const CALLER: Caller<'static> =
    Caller { address: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 50_000), consumer: Some("ada") };

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
    let target = |address: &SocketAddr| Target::new(address.to_string().parse().unwrap());
    Upstream {
        name: NAME.parse().unwrap(),
        labels: BTreeMap::new(),
        owner: String::new(),
        description: String::new(),
        targets: targets.iter().map(target).collect(),
        protocol: Protocol::Http1,
        balance: Balance { policy: BalancePolicy::RoundRobin, hash_on: None },
        health: None,
        retries: Retries::default(),
        timeouts: UpstreamTimeouts::default(),
        auth: None,
        outlier: Outlier::default(),
        breaker: None,
        // So that who gets how much does not depend on when.
        slow_start: Span::default(),
        proxy_protocol: None,
        tls: None,
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
        mirror: None,
        cors: None,
        compression: None,
        cache: None,
        policies: Vec::new(),
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
        let (rule, asks) = (&self.rule, Asks::Answer);
        let call = Call {
            rule,
            upstream: NAME,
            started: tokio::time::Instant::now(),
            deadline: None,
            asks,
            expects: false,
            interim: None,
            caller: CALLER,
            trail: &mut trail,
        };
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

pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never {what}"));
}

pub fn with_checks(mut upstream: Upstream) -> Upstream {
    upstream.health = Some(HealthCheck {
        path: "/healthz".into(),
        interval: Span::millis(10),
        timeout: Span::secs(5),
        unhealthy_after: 3,
        healthy_after: 2,
        expect: "200-299".parse().unwrap(),
    });
    upstream
}

/// Runs the checks on a runtime of their own, as the control runtime does, until dropped.
pub struct Checks(CancellationToken, Option<std::thread::JoinHandle<()>>);

impl Checks {
    pub fn start(registry: &Arc<Registry>) -> Self {
        let (stop, registry) = (CancellationToken::new(), registry.clone());
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(registry.run_health_checks(stopped));
        });
        Self(stop, Some(thread))
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        self.0.cancel();
        self.1.take().unwrap().join().unwrap();
    }
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
