//! Clocks that end connections, draining without a lost request, counters and the access log.

use std::{sync::Arc, time::Duration};

use crate::support::*;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};

/// An upstream that answers once it is told to, and counts who waits.
async fn gated() -> (std::net::SocketAddr, watch::Sender<bool>, Arc<std::sync::atomic::AtomicUsize>) {
    let (go, wait) = watch::channel(false);
    let waiting = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = waiting.clone();
    let address = upstream(move |_| {
        let (mut wait, counted) = (wait.clone(), counted.clone());
        async move {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let _ = wait.wait_for(|go| *go).await;
            Response::new(Full::new(Bytes::from_static(b"ok")))
        }
    })
    .await;
    (address, go, waiting)
}

#[tokio::test]
async fn silent_and_slow_connections_are_cut() {
    let mut impatient = settings();
    impatient.limits.header_read = Duration::from_millis(200);
    impatient.limits.keep_alive_idle_h1 = Duration::from_millis(200);
    let (target, _) = echo().await;
    let gateway = Gateway::with(impatient, forward_all(target));
    assert_eq!(raw(gateway.address, "").await, "");
    gateway.metric_becomes("quorumgate_rejects_total{reason=\"silent_connection\"}", 1).await;
    check_problem(&raw(gateway.address, "GET / HTTP/1.1\r\nhost: a\r\n").await, 408, "request_timeout");
    gateway.metric_becomes("quorumgate_rejects_total{reason=\"slow_header\"}", 1).await;
    // Kept alive after its answer, then closed without a complaint.
    let answer = raw(gateway.address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(status(&answer), 200);
    gateway.metric_becomes("quorumgate_http_connections_open", 0).await;
}

/// A client that goes on with a body that was refused begins no request.
#[tokio::test]
async fn the_rest_of_a_refused_body_is_no_slow_header() {
    let mut impatient = settings();
    impatient.limits.header_read = Duration::from_millis(200);
    let gateway = Gateway::with(impatient, json!({}));
    for _ in 0..5 {
        let mut client = TcpStream::connect(gateway.address).await.unwrap();
        client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 8000000\r\n\r\n").await.unwrap();
        client.write_all(&vec![b'x'; 1 << 20]).await.unwrap();
        let mut answer = String::new();
        soon("the answer", client.read_to_string(&mut answer)).await.unwrap();
        check_problem(&answer, 404, "no_route");
        // Longer than a head may take.
        tokio::time::sleep(Duration::from_millis(500)).await;
        client.write_all(b"x").await.unwrap();
    }
    gateway.metric_becomes("quorumgate_http_connections_open", 0).await;
    assert_eq!(gateway.metric("quorumgate_rejects_total{reason=\"slow_header\"}"), 0);
}

#[tokio::test]
async fn an_address_has_a_limit_of_connections() {
    let mut strict = settings();
    strict.limits.connections_per_ip_max = 2;
    let gateway = Gateway::with(strict, json!({}));
    let _held =
        [TcpStream::connect(gateway.address).await.unwrap(), TcpStream::connect(gateway.address).await.unwrap()];
    gateway.metric_becomes("quorumgate_http_connections_open", 2).await;
    let mut third = TcpStream::connect(gateway.address).await.unwrap();
    let _ = third.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut answer = Vec::new();
    let _ = soon("the third is closed", third.read_to_end(&mut answer)).await;
    assert!(answer.is_empty());
    assert_eq!(gateway.metric("quorumgate_rejects_total{reason=\"too_many_connections\"}"), 1);
}

#[tokio::test]
async fn an_address_in_use_is_refused_at_start() {
    let gateway = Gateway::start(json!({}));
    let mut same = settings();
    same.listeners[0].address = gateway.address;
    let error = quorumgate_proxy::Proxy::start(same, rules(json!({})), Arc::default()).err().unwrap();
    assert!(format!("{error:#}").contains(&format!("listen on {}", gateway.address)), "{error:#}");
}

#[tokio::test]
async fn draining_finishes_what_was_begun() {
    let (target, go, waiting) = gated().await;
    let gateway = Gateway::start(forward_all(target));
    let mut clients = Vec::new();
    for n in 0..10 {
        let address = gateway.address;
        clients.push(tokio::spawn(async move { raw(address, format!("GET /{n} HTTP/1.1\r\nhost: a\r\n\r\n")).await }));
    }
    let mut two = http2(TcpStream::connect(gateway.address).await.unwrap()).await;
    let on_two = tokio::spawn(two.send_request(Request::get("http://a/").body(Full::default()).unwrap()));
    until("all are in flight", || (waiting.load(std::sync::atomic::Ordering::SeqCst) == 11).then_some(())).await;

    let proxy = gateway.proxy.clone();
    let drained = tokio::spawn(async move { proxy.drain(PATIENCE).await });
    until("the listener is closed", || std::net::TcpStream::connect(gateway.address).is_err().then_some(())).await;
    go.send(true).unwrap();
    for client in clients {
        let answer = client.await.unwrap();
        assert_eq!((status(&answer), field(&answer, "connection")), (200, Some("close")), "{answer}");
    }
    assert_eq!(text(on_two.await.unwrap().unwrap()).await, "ok");
    assert_eq!(soon("drained", drained).await.unwrap(), 0);
}

/// Clients that connect and ask all the time, until they are refused at connecting: none that was accepted is failed.
#[tokio::test]
async fn draining_loses_no_accepted_request() {
    let (target, _) = echo().await;
    let gateway = Gateway::start(forward_all(target));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let address = gateway.address;
            tokio::spawn(async move {
                let (mut served, mut reset) = (0, 0);
                while let Ok(mut stream) = TcpStream::connect(address).await {
                    // One connection, as many requests as the gateway lets it have.
                    for on_this in 0.. {
                        if stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.is_err() {
                            break;
                        }
                        let answer = read_answer(&mut stream).await;
                        if on_this == 0 && answer.is_empty() {
                            // The kernel took it between the listener's last look and its end: nobody has accepted it.
                            reset += 1;
                            break;
                        }
                        assert_eq!(status(&answer), 200, "after {served}");
                        served += 1;
                        if field(&answer, "connection") == Some("close") {
                            break;
                        }
                    }
                }
                (served, reset)
            })
        })
        .collect();
    until("traffic flows", || {
        let served = gateway.metric("quorumgate_http_requests_total{route=\"all\",method=\"GET\",code=\"200\"}");
        (served > 200).then_some(())
    })
    .await;
    assert_eq!(gateway.proxy.drain(PATIENCE).await, 0);
    let mut resets = 0;
    for client in clients {
        let (served, reset) = soon("a client ends", client).await.unwrap();
        assert!(served > 0);
        resets += reset;
    }
    assert!(resets <= 2, "{resets} of 8: the listener is closed with its queue full");
}

async fn read_answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match soon("an answer", stream.read(&mut buffer)).await {
            Ok(0) | Err(_) => return String::new(),
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
        }
        if answer.ends_with(b"\r\n\r\nok") {
            return String::from_utf8(answer).unwrap();
        }
    }
}

#[tokio::test]
async fn a_connection_at_rest_goes_on_as_if_nothing_had_been() {
    let (target, heard) = echo().await;
    let gateway = Gateway::start(forward_all(target));
    let resting = "quorumgate_http_connections_resting";
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
    assert_eq!(status(&read_answer(&mut stream).await), 200);
    gateway.metric_becomes(resting, 1).await;
    // A head in parts, and another behind it.
    stream.write_all(b"GET /a HTT").await.unwrap();
    gateway.metric_becomes(resting, 0).await;
    for (rest, path) in [("P/1.1\r\nhost: a\r\n\r\nGET /b HTTP/1.1\r\nho", "/a"), ("st: a\r\n\r\n", "/b")] {
        stream.write_all(rest.as_bytes()).await.unwrap();
        assert_eq!(status(&read_answer(&mut stream).await), 200);
        assert!(heard.last().starts_with(&format!("GET {path}\n")), "{}", heard.last());
    }
    // Nor is what nobody may send let through by it.
    gateway.metric_becomes(resting, 1).await;
    let smuggled = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    stream.write_all(smuggled).await.unwrap();
    let mut refused = String::new();
    soon("the end", stream.read_to_string(&mut refused)).await.unwrap();
    check_problem(&refused, 400, "malformed_request");
    assert_eq!(heard.count(), 3);
    gateway.metric_becomes("quorumgate_http_connections_open", 0).await;
    assert_eq!(gateway.metric(resting), 0);
}

#[tokio::test]
async fn what_outlasts_the_grace_is_cut_and_counted() {
    let (target, _go, waiting) = gated().await;
    let gateway = Gateway::start(forward_all(target));
    let address = gateway.address;
    let client = tokio::spawn(async move { raw(address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await });
    until("it is in flight", || (waiting.load(std::sync::atomic::Ordering::SeqCst) == 1).then_some(())).await;
    assert_eq!(gateway.metric("quorumgate_http_requests_in_flight"), 1);
    assert_eq!(gateway.proxy.drain(Duration::from_millis(50)).await, 1);
    assert_eq!(client.await.unwrap(), "");
    assert_eq!(gateway.metric("quorumgate_http_requests_in_flight"), 0);
}

#[tokio::test]
async fn a_client_that_has_said_all_gets_its_answers() {
    let (target, go, waiting) = gated().await;
    let gateway = Gateway::start(forward_all(target));
    let mut asked = 0;
    for (requests, answers) in [
        ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", 1),
        ("GET / HTTP/1.0\r\nhost: a\r\n\r\n", 1),
        ("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n", 1),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc", 1),
        ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 1),
        ("GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", 2),
    ] {
        go.send_replace(false);
        let mut client = TcpStream::connect(gateway.address).await.unwrap();
        client.write_all(requests.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        asked += 1;
        until("it is in flight", || (waiting.load(std::sync::atomic::Ordering::SeqCst) == asked).then_some(())).await;
        go.send_replace(true);
        let mut got = String::new();
        soon("the end behind the answers", client.read_to_string(&mut got)).await.unwrap();
        assert!(got.matches("HTTP/1.").count() == answers && got.ends_with("\r\n\r\nok"), "{requests:?}: {got:?}");
        asked += answers - 1;
    }
    assert_eq!(gateway.metric("quorumgate_rejects_total{reason=\"client_gone\"}"), 0);
    gateway.metric_becomes("quorumgate_http_connections_open", 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_is_in_the_log_and_in_the_counters() {
    let (target, _go, waiting) = gated().await;
    let gateway = Gateway::start(forward_all(target));
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    until("it is in flight", || (waiting.load(std::sync::atomic::Ordering::SeqCst) == 1).then_some(())).await;
    drop(client);
    gateway.metric_becomes("quorumgate_rejects_total{reason=\"client_gone\"}", 1).await;
    gateway.metric_becomes("quorumgate_http_requests_total{route=\"all\",method=\"GET\",code=\"499\"}", 1).await;
    gateway.metric_becomes("quorumgate_http_requests_in_flight", 0).await;
}

#[tokio::test]
async fn the_access_log_has_a_line_per_exchange_and_survives_rotation() {
    let (target, _) = echo().await;
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("access.log");
    let mut logging = settings();
    logging.access_log.default_on = true;
    logging.access_log.path = Some(path.clone());
    let gateway = Gateway::with(
        logging,
        json!({
            "upstreams": [{"name": "u", "targets": [target.to_string()]}],
            "routes": [
                {"name": "all", "match": {"path_prefix": "/"}, "upstream": "u"},
                {"name": "quiet", "match": {"path_prefix": "/quiet"}, "upstream": "u", "access_log": false},
            ],
        }),
    );
    let lines = |path: &std::path::Path| -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    ask(gateway.address, "GET /quiet", &[], "").await;
    let answer = ask(gateway.address, "POST /a/../b%22?q=secret", &["content-length: 3"], "abc").await;
    let line = until("a line", || lines(&path).pop()).await;
    assert_eq!(line["request_id"], field(&answer, "x-request-id").unwrap());
    for (name, expected) in [
        ("route", json!("all")),
        ("status", json!(200)),
        ("code", json!("")),
        ("method", json!("POST")),
        ("path", json!("/b%22")),
        ("host", json!("api.test")),
        ("node", json!("n1")),
        ("revision", json!(7)),
        ("client_ip", json!("127.0.0.1")),
        ("received_bytes", json!(3)),
        ("sent_bytes", json!(2)),
    ] {
        assert_eq!(line[name], expected, "{name} in {line}");
    }
    assert_eq!(line["upstream"]["address"], target.to_string(), "{line}");
    assert_eq!(lines(&path).len(), 1);
    let refused = raw(gateway.address, "GET /\r\n\r\n").await;
    let line = until("a line", || lines(&path).into_iter().nth(1)).await;
    assert_eq!((&line["code"], &line["status"]), (&json!("malformed_request"), &json!(400)), "{line}");
    assert_eq!(line["request_id"], field(&refused, "x-request-id").unwrap());
    ask(gateway.address, "GET /bad%zz", &[], "").await;
    let line = until("a line", || lines(&path).into_iter().nth(2)).await;
    for (name, expected) in [("code", "bad_path"), ("path", "/bad%zz"), ("host", "api.test"), ("method", "GET")] {
        assert_eq!(line[name], expected, "{name} in {line}");
    }

    std::fs::rename(&path, files.path().join("access.log.1")).unwrap();
    gateway.proxy.reopen_access_log();
    until("the new file", || path.exists().then_some(())).await;
    ask(gateway.address, "GET /after", &[], "").await;
    until("a line in the new file", || (lines(&path).last()?["path"] == "/after").then_some(())).await;
    gateway.metric_becomes("quorumgate_access_log_lines_total", 4).await;
    assert_eq!(gateway.metric("quorumgate_access_log_dropped_total"), 0);
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let (target, _) = echo().await;
    let gateway = Gateway::start(forward_all(target));
    ask(gateway.address, "GET /", &[], "").await;
    let text = gateway.metrics();
    let mut families = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            assert!(families.insert(kind.split(' ').next().unwrap().to_string()), "twice: {line}");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = series.split('{').next().unwrap();
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(families.contains(family) || families.contains(name), "no TYPE before {line}");
            assert!(series.ends_with('}') == series.contains('{'), "{line}");
        }
    }
    for family in [
        "quorumgate_http_requests_total",
        "quorumgate_http_request_duration_seconds",
        "quorumgate_overhead_duration_seconds",
        "quorumgate_http_requests_in_flight",
        "quorumgate_rejects_total",
    ] {
        assert!(families.contains(family), "{family}");
    }
}

/// Each answer comes from one ruleset or the other, whatever is published meanwhile.
#[tokio::test]
async fn no_request_fails_while_rules_change() {
    let (first, _) = echo().await;
    let (second, _) = echo().await;
    let gateway = Gateway::start(forward_all(first));
    let done = tokio_util::sync::CancellationToken::new();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (address, done) = (gateway.address, done.clone());
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let mut served = 0;
                while !done.is_cancelled() {
                    stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc").await.unwrap();
                    let answer = read_answer(&mut stream).await;
                    assert_eq!(status(&answer), 200, "after {served}");
                    served += 1;
                }
                served
            })
        })
        .collect();
    const SERVED: &str = "quorumgate_http_requests_total{route=\"all\",method=\"POST\",code=\"200\"}";
    for round in 0..100u64 {
        let target = if round % 2 == 0 { second } else { first };
        // Another upstream under the same name, and a route beside that changes with it.
        let mut words = forward_all(target);
        words["routes"].as_array_mut().unwrap().push(json!({
            "name": format!("r{round}"), "match": {"path_prefix": "/other"}, "respond": {"status": 200},
        }));
        gateway.proxy.publish(rules(words));
        let before = gateway.metric(SERVED);
        until("a request is served", || (gateway.metric(SERVED) > before).then_some(())).await;
    }
    done.cancel();
    for client in clients {
        assert!(soon("a client ends", client).await.unwrap() > 0);
    }
}
