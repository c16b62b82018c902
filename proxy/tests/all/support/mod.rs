//! A gateway on port 0, upstreams in this process, and clients as small as the tests need.
#![allow(dead_code)]

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use quorumgate_model::{change, resource::Kind, ruleset::Ruleset, state::State};
use quorumgate_proxy::{AccessLog, ClientLimits, Freshness, Limits, Listener, Proxy, Settings};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// No step of a test takes longer, on a busy machine either.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// `{"upstreams": [...], "routes": [...]}` in the words of the configuration file.
pub fn rules(words: Value) -> Arc<Ruleset> {
    Arc::new(Ruleset::compile(&state(words), None))
}

/// A state with these resources, and nothing else.
pub fn state(words: Value) -> State {
    let mut state = State::default();
    for (kind, list) in words.as_object().unwrap() {
        for it in list.as_array().unwrap().clone() {
            let kind = Kind::ALL.into_iter().find(|it| it.list() == kind).unwrap_or_else(|| panic!("no kind {kind}"));
            let resource = kind.parse(it).unwrap();
            state.resources.insert(resource.key(), change::stored(resource));
        }
    }
    state.revision = 7;
    state
}

/// A route `all` that sends everything to `address`.
pub fn forward_all(address: SocketAddr) -> Value {
    serde_json::json!({
        "upstreams": [{"name": "u", "targets": [address.to_string()]}],
        "routes": [{"name": "all", "match": {"path_prefix": "/"}, "upstream": "u"}],
    })
}

pub struct Gateway {
    pub proxy: Arc<Proxy>,
    pub freshness: Arc<Freshness>,
    pub address: SocketAddr,
    _stop: DropGuard,
}

pub fn settings() -> Settings {
    Settings {
        node: "n1".into(),
        region: "eu".into(),
        listeners: vec![Listener { address: "127.0.0.1:0".parse().unwrap(), tls: None, merge_slashes: true }],
        workers: 2,
        access_log: AccessLog { default_on: false, path: None },
        trusted_proxies: Vec::new(),
        trusted_field: Default::default(),
        name_servers: Vec::new(),
        redaction: Default::default(),
        limits: ClientLimits::default(),
    }
}

impl Gateway {
    pub fn start(words: Value) -> Self {
        Self::with(settings(), words)
    }

    pub fn with(settings: Settings, words: Value) -> Self {
        Self::with_rules(settings, rules(words))
    }

    pub fn with_rules(settings: Settings, rules: Arc<Ruleset>) -> Self {
        Self::with_limits(settings, rules, Arc::default())
    }

    pub fn with_limits(settings: Settings, rules: Arc<Ruleset>, limits: Arc<Limits>) -> Self {
        let freshness = Arc::new(Freshness::default());
        let proxy = Proxy::start_with(settings, rules, freshness.clone(), Arc::default(), limits);
        let proxy = Arc::new(proxy.unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(proxy.upstreams().run_health_checks(stop.clone()));
        let address = proxy.addresses()[0];
        Self { proxy, freshness, address, _stop: stop.drop_guard() }
    }

    pub fn metrics(&self) -> String {
        let mut out = String::new();
        self.proxy.metrics(&mut out);
        out
    }

    /// The value of one series, 0 if it is not there.
    pub fn metric(&self, series: &str) -> u64 {
        let text = self.metrics();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// Waits until the series has the value: counters are written just after the last byte.
    pub async fn metric_becomes(&self, series: &str, expected: u64) {
        until(series, || (self.metric(series) == expected).then_some(())).await
    }
}

/// Polls until there is something.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("too long: {what}"))
}

/// An upstream over HTTP/1.1 that answers by a function.
pub async fn upstream<F, A, B>(answer: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let answer = answer(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let mut server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                server.http1().preserve_header_case(true);
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// What an upstream was asked, as text: request line, then sorted fields, then the body.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    pub fn last(&self) -> String {
        self.0.lock().unwrap().last().cloned().unwrap_or_default()
    }

    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// Answers 200 `ok` and remembers what it heard.
pub async fn echo() -> (SocketAddr, Heard) {
    let heard = Heard::default();
    let address = {
        let heard = heard.clone();
        upstream(move |request| {
            let heard = heard.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                let mut fields: Vec<String> = parts
                    .headers
                    .iter()
                    .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
                    .collect();
                fields.sort();
                let text = format!(
                    "{} {}\n{}\n\n{}",
                    parts.method,
                    parts.uri,
                    fields.join("\n"),
                    String::from_utf8_lossy(&body)
                );
                heard.0.lock().unwrap().push(text);
                Response::new(Full::new(Bytes::from_static(b"ok")))
            }
        })
        .await
    };
    (address, heard)
}

/// Sends the bytes and reads what comes until the other side closes.
pub async fn raw(address: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_ref()).await.unwrap();
    let mut answer = Vec::new();
    let end = soon("the gateway closes the connection", stream.read_to_end(&mut answer)).await;
    drop(end);
    String::from_utf8_lossy(&answer).into_owned()
}

/// One request on a connection of its own; fields are `name: value` lines.
pub async fn ask(address: SocketAddr, line: &str, fields: &[&str], body: &str) -> String {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    raw(address, format!("{line} HTTP/1.1\r\nhost: api.test\r\nconnection: close\r\n{fields}\r\n{body}")).await
}

pub fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

pub fn field<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next().unwrap_or_default();
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

pub fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

pub fn problem(answer: &str) -> Value {
    assert_eq!(field(answer, "content-type"), Some("application/problem+json"), "{answer}");
    serde_json::from_str(body(answer)).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

#[track_caller]
pub fn check_problem(answer: &str, expected_status: u16, code: &str) {
    assert_eq!(status(answer), expected_status, "{answer}");
    let problem = problem(answer);
    assert_eq!(problem["code"], code, "{answer}");
    assert_eq!(problem["status"], expected_status);
    let id = problem["request_id"].as_str().unwrap();
    assert_eq!(problem["instance"], format!("urn:uuid:{id}"));
    assert_eq!(field(answer, "x-request-id"), Some(id));
}

pub type Http2 = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

/// HTTP/2 by prior knowledge over any stream.
pub async fn http2<T>(stream: T) -> Http2
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}
