//! What an OpenTelemetry collector is sent: a span for each sampled exchange, with what decided, and the metrics.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use prost::Message;
use quorumgate_model::units::Span;
use quorumgate_node::settings::Settings;
use quorumgate_proto::telemetry::v1::{self as otlp, any_value::Value, metric::Data};

use crate::cli_node::{Node, SHOP};

const PATIENCE: Duration = Duration::from_secs(60);

/// Takes everything; what it was sent, by path.
fn collector() -> (String, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sent, received) = channel();
    std::thread::Builder::new()
        .spawn(move || {
            for stream in listener.incoming() {
                // The test is over once nobody receives.
                if take(stream.unwrap()).is_none_or(|taken| sent.send(taken).is_err()) {
                    return;
                }
            }
        })
        .unwrap();
    (address, received)
}

fn take(mut stream: TcpStream) -> Option<(String, Vec<u8>)> {
    let taken = read(&stream)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
    Some(taken)
}

/// The path and the body of a request.
pub fn read(stream: &TcpStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut length, mut is_protobuf) = (0, false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().ok()?,
            Some(("content-type", value)) => is_protobuf = value == "application/x-protobuf",
            Some(_) => {}
            None => break,
        }
    }
    assert!(is_protobuf);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, body))
}

pub fn word<'a>(attributes: &'a [otlp::KeyValue], key: &str) -> Option<&'a Value> {
    attributes.iter().find(|it| it.key == key)?.value.as_ref()?.value.as_ref()
}

#[test]
fn a_collector_gets_a_span_with_the_deciding_phase_and_the_metrics() {
    let (endpoint, received) = collector();
    let node = Node::start_with(|settings| {
        settings.telemetry.otlp_endpoint = Some(endpoint);
        settings.telemetry.trace_ratio = 1.0;
        settings.telemetry.otlp_metrics_every = Span::secs(1);
    });
    node.json(&["apply", "-f", "-"], SHOP);
    let proxy = Settings::read(&node.data()).unwrap().proxy.listeners[0].address;
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let mut stream = TcpStream::connect(proxy).unwrap();
    write!(
        stream,
        "GET /orders/7 HTTP/1.1\r\nhost: shop.test\r\ntraceparent: 00-{trace}-{parent}-01\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    stream.read_to_string(&mut String::new()).unwrap();

    let (mut span, mut counted) = (None, None);
    while span.is_none() || counted.is_none() {
        let (path, body) = received.recv_timeout(PATIENCE).expect("the collector is sent both");
        match path.as_str() {
            "/v1/traces" => {
                let sent = otlp::TracesRequest::decode(&body[..]).unwrap();
                let resource = sent.resource_spans[0].resource.clone().unwrap();
                assert_eq!(word(&resource.attributes, "service.instance.id"), Some(&Value::StringValue("n1".into())));
                span = span.or(sent.resource_spans[0].scope_spans[0].spans.first().cloned());
            }
            _ => {
                let sent = otlp::MetricsRequest::decode(&body[..]).unwrap();
                let metrics = &sent.resource_metrics[0].scope_metrics[0].metrics;
                let requests = metrics.iter().find(|it| it.name == "quorumgate_http_requests_total");
                if let Some(Data::Sum(sum)) = requests.and_then(|it| it.data.as_ref()) {
                    counted = sum.data_points.iter().find(|it| it.as_double > Some(0.0)).cloned();
                }
            }
        }
    }
    let span = span.unwrap();
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    assert_eq!((hex(&span.trace_id).as_str(), hex(&span.parent_span_id).as_str()), (trace, parent));
    assert_eq!((span.name.as_str(), span.status.unwrap().code), ("GET orders", 2));
    let text = |key: &str| match word(&span.attributes, key) {
        Some(Value::StringValue(text)) => text.clone(),
        other => panic!("{key}: {other:?}"),
    };
    assert_eq!(text("error.type"), "no_healthy_upstream");
    assert_eq!((text("quorumgate.phase").as_str(), text("quorumgate.policy").as_str()), ("upstream", "orders"));
    assert!(span.end_time_unix_nano >= span.start_time_unix_nano && span.start_time_unix_nano > 0);
    assert!(!counted.unwrap().attributes.is_empty(), "by route");
}
