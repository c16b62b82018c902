//! An exchange as a span, in the words of the semantic conventions for HTTP; what decided is in words of our own.

use quorumgate_proto::telemetry::v1 as otlp;
use quorumgate_proxy::recent::Exchange;

use super::{number, text};

const SERVER: i32 = 2;
const ERROR: i32 = 2;
const SAMPLED: u32 = 1;

pub fn span(it: &Exchange) -> otlp::Span {
    let ended_ns = it.ended_ms * 1_000_000;
    let mut attributes = vec![
        text("http.request.method", it.method.as_str()),
        number("http.response.status_code", it.status.into()),
        text("url.scheme", if it.tls { "https" } else { "http" }),
        text("url.path", &it.path),
        text("server.address", &it.host),
        text("client.address", &it.client_ip.to_string()),
        text("network.protocol.version", version(it.protocol)),
        number("http.request.body.size", it.received_bytes),
        number("http.response.body.size", it.sent_bytes),
        text("quorumgate.request_id", &it.request_id.to_string()),
        number("quorumgate.revision", it.revision),
        number("quorumgate.gateway_us", it.gateway.as_micros() as u64),
    ];
    let words = [
        ("http.route", it.route.as_deref()),
        ("error.type", Some(it.code)),
        ("quorumgate.detail", Some(it.detail)),
        ("quorumgate.phase", Some(it.phase)),
        ("quorumgate.policy", it.policy.as_deref()),
        ("quorumgate.rule", it.rule.as_deref()),
        ("quorumgate.consumer", it.consumer.as_deref()),
        ("quorumgate.upstream", it.upstream.as_deref()),
    ];
    attributes.extend(words.iter().filter_map(|(key, word)| Some(text(key, word.filter(|it| !it.is_empty())?))));
    attributes.extend(it.numbers.iter().map(|(name, value)| number(&format!("quorumgate.{name}"), *value)));
    if it.attempts > 1 {
        attributes.push(number("http.request.resend_count", u64::from(it.attempts) - 1));
    }
    otlp::Span {
        trace_id: data_encoding::HEXLOWER.decode(it.trace_id.as_bytes()).unwrap_or_default(),
        span_id: it.traced.span_id.to_be_bytes().to_vec(),
        parent_span_id: it.traced.parent_id.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default(),
        name: match &it.route {
            Some(route) => format!("{} {route}", it.method),
            None => it.method.to_string(),
        },
        kind: SERVER,
        start_time_unix_nano: ended_ns.saturating_sub(it.total.as_nanos() as u64),
        end_time_unix_nano: ended_ns,
        attributes,
        status: (it.status >= 500).then(|| otlp::SpanStatus { message: it.code.to_owned(), code: ERROR }),
        flags: SAMPLED,
    }
}

/// `HTTP/1.1` → `1.1`
fn version(protocol: &str) -> &str {
    protocol.rsplit('/').next().unwrap_or(protocol)
}
