//! Traces and metrics for an OpenTelemetry collector: OTLP as protobuf over HTTP, in batches. What the collector does not take
//! is dropped and counted; an exchange never waits for it.

mod metrics;
mod spans;

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::Message;
use quorumgate_proto::telemetry::v1 as otlp;
use quorumgate_proxy::recent::{Exchange, Filter};
use tokio::{net::TcpStream, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{listener::Telemetry, metrics as prometheus};
use crate::VERSION;

/// Spans of one request to the collector, and how long they may wait for others.
const BATCH_SPANS_MAX: usize = 512;
const BATCH_EVERY: Duration = Duration::from_secs(1);
/// Exchanges that wait for their span.
const QUEUE_MAX: usize = 4_096;
const SEND_WITHIN: Duration = Duration::from_secs(5);
/// Of what the collector answers.
const ANSWER_BYTES_MAX: usize = 64 << 10;

static SENT: AtomicU64 = AtomicU64::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);

/// Where the collector is: `http://host:port` and what comes before `/v1/traces`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    authority: String,
    path: String,
}

impl std::str::FromStr for Collector {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let wrong =
            || format!("telemetry.otlp_endpoint: found {text:?}; allowed: http://host:port, of a collector nearby");
        let uri: Uri = text.parse().with_context(wrong)?;
        ensure!(uri.scheme_str() == Some("http") && uri.query().is_none(), wrong());
        let authority = uri.authority().filter(|it| it.port().is_some()).with_context(wrong)?;
        Ok(Self { authority: authority.to_string(), path: uri.path().trim_end_matches('/').to_owned() })
    }
}

pub struct Exporter {
    pub telemetry: Telemetry,
    pub collector: Collector,
    /// Which part of the traces that begin here is sent, 0 to 1.
    pub trace_ratio: f64,
    /// Zero: no metrics.
    pub metrics_every: Duration,
}

impl Exporter {
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let filter =
            Filter { route: None, status: (0, u16::MAX), code: None, consumer: None, every: 1, sampled_only: true };
        self.telemetry.proxy.sample_traces(self.trace_ratio);
        let mut tap = self.telemetry.proxy.tap(filter, QUEUE_MAX);
        let mut flush = tokio::time::interval(BATCH_EVERY);
        let mut scrape = tokio::time::interval(self.metrics_every.max(Duration::from_secs(1)));
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        scrape.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting = Vec::new();
        let mut dropped = 0;
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    self.send_spans(&mut waiting).await;
                    return Ok(());
                }
                Some(exchange) = tap.exchanges.recv() => waiting.push(exchange),
                _ = flush.tick() => {
                    let now = tap.dropped.load(Relaxed);
                    LOST.fetch_add(now - dropped, Relaxed);
                    dropped = now;
                    self.send_spans(&mut waiting).await;
                }
                _ = scrape.tick(), if !self.metrics_every.is_zero() => self.send_metrics().await,
            }
            if waiting.len() >= BATCH_SPANS_MAX {
                self.send_spans(&mut waiting).await;
            }
        }
    }

    async fn send_spans(&self, waiting: &mut Vec<Exchange>) {
        if waiting.is_empty() {
            return;
        }
        let spans: Vec<_> = waiting.drain(..).map(|exchange| spans::span(&exchange)).collect();
        let count = spans.len() as u64;
        let scope_spans = vec![otlp::ScopeSpans { scope: Some(scope()), spans }];
        let resource_spans = vec![otlp::ResourceSpans { resource: Some(self.resource()), scope_spans }];
        let counter = match self.send("/v1/traces", &otlp::TracesRequest { resource_spans }).await {
            true => &SENT,
            false => &LOST,
        };
        counter.fetch_add(count, Relaxed);
    }

    async fn send_metrics(&self) {
        let telemetry = self.telemetry.clone();
        // With ten thousand routes it is long, and consensus must not wait for it.
        let read = tokio::task::spawn_blocking(move || metrics::read(&prometheus::text(&telemetry), now_ns()));
        let Ok(metrics) = read.await else { return };
        let scope_metrics = vec![otlp::ScopeMetrics { scope: Some(scope()), metrics }];
        let resource_metrics = vec![otlp::ResourceMetrics { resource: Some(self.resource()), scope_metrics }];
        self.send("/v1/metrics", &otlp::MetricsRequest { resource_metrics }).await;
    }

    /// Who speaks.
    fn resource(&self) -> otlp::TelemetryResource {
        let consensus = &self.telemetry.consensus;
        let cluster = consensus.state().cluster.as_ref().map(|facts| facts.name.clone()).unwrap_or_default();
        let attributes = vec![
            text("service.name", "quorumgate"),
            text("service.version", VERSION),
            text("service.namespace", &cluster),
            text("service.instance.id", &consensus.view().name),
            text("cloud.region", consensus.region()),
        ];
        otlp::TelemetryResource { attributes }
    }

    /// Whether the collector has taken it.
    async fn send(&self, path: &str, message: &impl Message) -> bool {
        let sent = tokio::time::timeout(SEND_WITHIN, self.post(path, message.encode_to_vec())).await;
        match sent.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {SEND_WITHIN:?}"))) {
            Ok(()) => true,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::debug!(path, error, "the collector has not taken it");
                false
            }
        }
    }

    async fn post(&self, path: &str, body: Vec<u8>) -> anyhow::Result<()> {
        let stream = TcpStream::connect(&self.collector.authority).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::post(format!("{}{path}", self.collector.path))
            .header(header::HOST, &self.collector.authority)
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .body(Full::new(Bytes::from(body)))?;
        let asking = async move {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            body.map_err(|error| anyhow::anyhow!("its answer: {error}"))?;
            ensure!(status.is_success(), "it answers {status}");
            anyhow::Ok(())
        };
        // The connection ends once its sender is gone.
        let (answered, _) = tokio::join!(asking, connection);
        answered
    }
}

/// Appends the Prometheus text of what was sent.
pub fn write_metrics(out: &mut String) {
    for (name, help, count) in [
        ("quorumgate_otlp_spans_sent_total", "Spans that the collector has taken.", &SENT),
        ("quorumgate_otlp_spans_lost_total", "Spans that it has not taken, or that came too fast.", &LOST),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {}", count.load(Relaxed));
    }
}

fn scope() -> otlp::Scope {
    otlp::Scope { name: "quorumgate".into(), version: VERSION.into() }
}

fn text(key: &str, value: &str) -> otlp::KeyValue {
    let value = otlp::AnyValue { value: Some(otlp::any_value::Value::StringValue(value.to_owned())) };
    otlp::KeyValue { key: key.to_owned(), value: Some(value) }
}

fn number(key: &str, value: u64) -> otlp::KeyValue {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    let value = otlp::AnyValue { value: Some(otlp::any_value::Value::IntValue(value)) };
    otlp::KeyValue { key: key.to_owned(), value: Some(value) }
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_an_http_address_with_a_port() {
        let parsed: Collector = "http://127.0.0.1:4318/base/".parse().unwrap();
        assert_eq!((parsed.authority.as_str(), parsed.path.as_str()), ("127.0.0.1:4318", "/base"));
        for wrong in ["127.0.0.1:4318", "https://c.test:4318", "http://c.test", "http://c.test:1/?x=1", ""] {
            let error = wrong.parse::<Collector>().unwrap_err();
            assert!(format!("{error:#}").contains("telemetry.otlp_endpoint"), "{wrong}: {error:#}");
        }
    }
}
