//! What one call costs this side of the network: `cargo bench -p quorumgate-proxy --bench upstream_send`.
//! The upstream is a thread that writes the same answer to whatever it reads.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use http::{Method, Request};
use http_body_util::BodyExt;
use quorumgate_proxy::{
    body::RequestBody,
    upstream::{Asks, Call, Pools, Registry, Trail},
};
use tokio::{runtime::Runtime, task::LocalSet};

#[path = "../tests/all/upstream_support/mod.rs"]
mod upstream_support;

use upstream_support::{CALLER, NAME, route, ruleset, upstream};

#[global_allocator]
static ALLOCATIONS: divan::AllocProfiler = divan::AllocProfiler::system();

/// Calls of one sample.
const CALLS: usize = 100;

const FIELDS: [(&str, &str); 8] = [
    ("host", "shop.test"),
    ("user-agent", "bench/1.0"),
    ("accept", "*/*"),
    ("accept-encoding", "gzip, br"),
    ("x-request-id", "0198c3f0-0000-7000-8000-000000000000"),
    ("x-forwarded-for", "192.0.2.1"),
    ("x-forwarded-proto", "https"),
    ("via", "1.1 quorumgate"),
];

fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1024\r\n\r\n{}", "x".repeat(1024));
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                while matches!(stream.read(&mut request), Ok(1..)) && stream.write_all(answer.as_bytes()).is_ok() {}
            });
        }
    });
    address
}

fn request(method: &Method) -> Request<RequestBody> {
    let body = match *method {
        Method::POST => RequestBody::Full("order".into()),
        _ => RequestBody::Empty,
    };
    let request = Request::builder().method(method.clone()).uri("/orders/7");
    FIELDS.iter().fold(request, |it, (name, value)| it.header(*name, *value)).body(body).unwrap()
}

#[divan::bench(args = [Method::GET, Method::POST])]
fn call(bencher: divan::Bencher<'_, '_>, method: &Method) {
    let registry = Arc::new(Registry::new());
    registry.publish(&ruleset([upstream(&[origin()])]));
    let rule = Arc::new(quorumgate_model::ruleset::Rule::new(Arc::new(route())));
    let runtime: Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = LocalSet::new();
    let pools = Pools::new(registry);
    let template = request(method);
    let one = async || {
        let mut trail = Trail::default();
        let (rule, trail) = (&rule, &mut trail);
        let call = Call {
            rule,
            upstream: NAME,
            started: tokio::time::Instant::now(),
            deadline: None,
            asks: Asks::Answer,
            expects: false,
            interim: None,
            caller: CALLER,
            trail,
        };
        let response = pools.send(call, again(&template)).await.unwrap();
        response.into_body().collect().await.unwrap().to_bytes().len()
    };
    // Batched, so that entering the runtime does not count.
    let batch = || {
        local.block_on(&runtime, async {
            for _ in 0..CALLS {
                divan::black_box(one().await);
            }
        })
    };
    bencher.counter(divan::counter::ItemsCount::new(CALLS)).bench_local(batch);
}

/// As a listener passes it on: every value is a slice of one buffer, so that a copy allocates nothing for it.
fn again(template: &Request<RequestBody>) -> Request<RequestBody> {
    let body = match template.body() {
        RequestBody::Full(bytes) => RequestBody::Full(bytes.clone()),
        _ => RequestBody::Empty,
    };
    let mut request = Request::new(body);
    *request.method_mut() = template.method().clone();
    *request.uri_mut() = template.uri().clone();
    *request.headers_mut() = template.headers().clone();
    request
}

fn main() {
    divan::main();
}
