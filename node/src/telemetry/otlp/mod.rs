//! Traces, metrics and audit trails for an OpenTelemetry collector: OTLP as protobuf over HTTP, in batches. Spans and metrics
//! that the collector does not take are dropped and counted; an exchange never waits for it. Audit entries are kept until it
//! has taken them.

mod collector;
mod metrics;
mod place;
mod progress;
mod records;
mod spans;
mod trail;

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prost::Message;
use quorumgate_proto::telemetry::v1 as otlp;
use quorumgate_proxy::recent::{Exchange, Filter};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

pub use self::{
    collector::Collector,
    progress::{Delivered, Progress},
    trail::Trail,
};
use super::{listener::Telemetry, metrics as prometheus};
use crate::{VERSION, consensus::Consensus};

/// Spans of one request to the collector, and how long they may wait for others.
const BATCH_SPANS_MAX: usize = 512;
const BATCH_EVERY: Duration = Duration::from_secs(1);
/// Exchanges that wait for their span.
const QUEUE_MAX: usize = 4_096;

static SENT: AtomicU64 = AtomicU64::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);

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
        let resource_spans =
            vec![otlp::ResourceSpans { resource: Some(resource(&self.telemetry.consensus)), scope_spans }];
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
        let resource_metrics =
            vec![otlp::ResourceMetrics { resource: Some(resource(&self.telemetry.consensus)), scope_metrics }];
        self.send("/v1/metrics", &otlp::MetricsRequest { resource_metrics }).await;
    }

    /// Whether the collector has taken it.
    async fn send(&self, path: &str, message: &impl Message) -> bool {
        let error = match self.collector.post(path, message).await {
            Ok(reply) if reply.status.is_success() => return true,
            Ok(reply) => format!("it answers {}", reply.status),
            Err(error) => format!("{error:#}"),
        };
        tracing::debug!(path, error, "the collector has not taken it");
        false
    }
}

/// Appends the Prometheus text of what was sent.
pub fn write_metrics(consensus: &Consensus, out: &mut String) {
    for (name, help, count) in [
        ("quorumgate_otlp_spans_sent_total", "Spans that the collector has taken.", &SENT),
        ("quorumgate_otlp_spans_lost_total", "Spans that it has not taken, or that came too fast.", &LOST),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {}", count.load(Relaxed));
    }
    let audit = consensus.audit_export().unwrap_or_default();
    let (sent, lost, waiting) = (audit.sent, audit.lost, audit.waiting);
    for (name, kind, help, value) in [
        ("sent_total", "counter", "Audit entries that the collector has taken.", sent as f64),
        (
            "lost_total",
            "counter",
            "Audit entries that are not kept any more, or that it refused for good.",
            lost as f64,
        ),
        ("waiting", "gauge", "Audit entries that it does not have yet.", waiting as f64),
        ("stuck_seconds", "gauge", "For how long it has taken none while there were some.", audit.stuck.as_secs_f64()),
    ] {
        let name = format!("quorumgate_otlp_audit_{name}");
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    }
}

/// Who speaks.
fn resource(consensus: &Consensus) -> otlp::TelemetryResource {
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

fn scope() -> otlp::Scope {
    otlp::Scope { name: "quorumgate".into(), version: VERSION.into() }
}

fn text(key: &str, value: &str) -> otlp::KeyValue {
    let value = otlp::AnyValue { value: Some(otlp::any_value::Value::StringValue(value.to_owned())) };
    otlp::KeyValue { key: key.to_owned(), value: Some(value) }
}

fn words(key: &str, words: impl Iterator<Item = String>) -> otlp::KeyValue {
    let word = |it| otlp::AnyValue { value: Some(otlp::any_value::Value::StringValue(it)) };
    let values = otlp::ArrayValue { values: words.map(word).collect() };
    let value = otlp::AnyValue { value: Some(otlp::any_value::Value::ArrayValue(values)) };
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
