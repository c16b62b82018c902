//! What one worker counts, and the Prometheus text of all workers together.
//!
//! Each worker writes its own counters only, so that a write is a load and a store; readers sum.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{Method, StatusCode};
use quorumgate_model::{resource::Name, ruleset::Ruleset};

/// The label of requests that no route took: no route can have this name.
pub(crate) const NO_ROUTE: &str = "-";

/// Pairs of method and status that one route counts apart; what is beyond is counted under code `other`.
const SERIES_MAX: usize = 32;
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "other"];
const DURATION_BOUNDS_US: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];
const OVERHEAD_BOUNDS_US: [u64; 10] = [25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 25_000, 100_000];

/// Written by one thread only.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub(crate) fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[derive(Debug)]
pub(crate) struct Histogram<const N: usize> {
    bounds_us: &'static [u64; N],
    /// Not cumulative.
    counts: [Counter; N],
    above: Counter,
    sum_ns: Counter,
}

impl<const N: usize> Histogram<N> {
    fn new(bounds_us: &'static [u64; N]) -> Self {
        let counts = std::array::from_fn(|_| Counter::default());
        Self { bounds_us, counts, above: Counter::default(), sum_ns: Counter::default() }
    }

    pub(crate) fn observe(&self, took: Duration) {
        let ns = took.as_nanos() as u64;
        let slot = self.bounds_us.iter().position(|bound| ns <= bound * 1_000);
        slot.map_or(&self.above, |slot| &self.counts[slot]).add(1);
        self.sum_ns.add(ns);
    }
}

/// What one worker counts of one route.
#[derive(Debug)]
pub(crate) struct RouteMetrics {
    series: [Series; SERIES_MAX],
    other: Counter,
    pub(crate) duration: Histogram<14>,
    pub(crate) overhead: Histogram<10>,
}

/// One pair of method and status; key 0 is free.
#[derive(Debug, Default)]
struct Series {
    key: AtomicU32,
    count: Counter,
}

impl RouteMetrics {
    pub(crate) fn new() -> Self {
        Self {
            series: std::array::from_fn(|_| Series::default()),
            other: Counter::default(),
            duration: Histogram::new(&DURATION_BOUNDS_US),
            overhead: Histogram::new(&OVERHEAD_BOUNDS_US),
        }
    }

    pub(crate) fn count(&self, method: &Method, status: u16) {
        let key = (method_class(method) as u32) << 16 | u32::from(status);
        for series in &self.series {
            match series.key.load(Relaxed) {
                0 => series.key.store(key, Relaxed),
                taken if taken != key => continue,
                _ => (),
            }
            return series.count.add(1);
        }
        self.other.add(1);
    }
}

fn method_class(method: &Method) -> usize {
    METHODS.iter().position(|name| *name == method.as_str()).unwrap_or(METHODS.len() - 1)
}

/// What one worker counts of one auth.
#[derive(Debug, Default)]
pub(crate) struct AuthMetrics([Counter; AuthResult::ALL.len()]);

/// What became of a request at one auth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthResult {
    Ok,
    Missing,
    Invalid,
    Expired,
    Revoked,
    SignatureInvalid,
    Unavailable,
    Ambiguous,
    RateLimited,
}

impl AuthResult {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Ok, "ok"),
        (Self::Missing, "missing"),
        (Self::Invalid, "invalid"),
        (Self::Expired, "expired"),
        (Self::Revoked, "revoked"),
        (Self::SignatureInvalid, "signature_invalid"),
        (Self::Unavailable, "unavailable"),
        (Self::Ambiguous, "ambiguous"),
        (Self::RateLimited, "rate_limited"),
    ];
}

impl AuthMetrics {
    pub(crate) fn count(&self, result: AuthResult) {
        self.0[result as usize].add(1);
    }
}

/// Everything that one worker counts.
#[derive(Debug, Default)]
pub(crate) struct WorkerMetrics {
    routes: Mutex<BTreeMap<Arc<str>, Arc<RouteMetrics>>>,
    auths: Mutex<BTreeMap<Name, Arc<AuthMetrics>>>,
    rejects: Rejects,
    pub(crate) in_flight: Counter,
    pub(crate) connections: Counter,
    pub(crate) connections_open: Counter,
    pub(crate) tunnels_open: Counter,
    /// Of bodies, held for those who have not taken them yet.
    pub(crate) buffered_bytes: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) panics: Counter,
}

/// In the order of `REASONS`.
#[derive(Debug)]
struct Rejects([Counter; REASONS.len()]);

impl Default for Rejects {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

/// The values of `reason`: the codes of refusals, and why connections are turned away or cut.
const REASONS: [&str; 43] = [
    "malformed_request",
    "bad_path",
    "no_route",
    "method_not_allowed",
    "request_timeout",
    "content_too_large",
    "uri_too_long",
    "header_fields_too_large",
    "broken_rule",
    "credentials_missing",
    "credentials_invalid",
    "token_expired",
    "token_revoked",
    "signature_invalid",
    "insufficient_scope",
    "access_denied",
    "rate_limited",
    "quota_exceeded",
    "concurrency_limited",
    "limit_unavailable",
    "auth_unavailable",
    "upgrade_not_supported",
    "upstream_protocol_error",
    "upstream_reset",
    "no_healthy_upstream",
    "state_stale",
    "upstream_timeout",
    "loop_detected",
    "misdirected_request",
    "overloaded",
    "client_gone",
    "too_many_connections",
    "tls_handshake",
    "proxy_protocol",
    "silent_connection",
    "slow_header",
    "h2_flood",
    "h2_protocol_error",
    "stalled_client",
    "tunnel_idle",
    "drain_grace_over",
    "internal_error",
    "other",
];

impl WorkerMetrics {
    pub(crate) fn reject(&self, reason: &str) {
        let slot = REASONS.iter().position(|it| *it == reason).unwrap_or(REASONS.len() - 1);
        self.rejects.0[slot].add(1);
    }

    pub(crate) fn route(&self, name: &str) -> Arc<RouteMetrics> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = routes.get(name) {
            return metrics.clone();
        }
        let metrics = Arc::new(RouteMetrics::new());
        routes.insert(name.into(), metrics.clone());
        metrics
    }

    pub(crate) fn auth(&self, name: &Name) -> Arc<AuthMetrics> {
        let mut auths = self.auths.lock().unwrap_or_else(PoisonError::into_inner);
        auths.entry(name.clone()).or_default().clone()
    }

    /// Drops what was counted for routes that are gone: memory follows the configuration. Not on the worker's time.
    pub(crate) fn keep_only(&self, rules: &Ruleset) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.retain(|name, _| &**name == NO_ROUTE || rules.rules.contains_key(&**name));
    }
}

/// The sums over all workers, as text.
pub(crate) fn write(workers: &[Arc<WorkerMetrics>], out: &mut String) {
    // Writing to a String cannot fail.
    let _ = write_all(workers, out);
}

fn write_all(workers: &[Arc<WorkerMetrics>], out: &mut String) -> std::fmt::Result {
    let mut routes: BTreeMap<Arc<str>, Vec<Arc<RouteMetrics>>> = BTreeMap::new();
    for worker in workers {
        let of_worker = worker.routes.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, metrics) in &*of_worker {
            routes.entry(name.clone()).or_default().push(metrics.clone());
        }
    }
    write_requests(&routes, out)?;
    family(
        out,
        "quorumgate_http_request_duration_seconds",
        "histogram",
        "From the request head to the last byte of the answer.",
    )?;
    for (route, parts) in &routes {
        write_histogram(out, "quorumgate_http_request_duration_seconds", route, parts.iter().map(|it| &it.duration))?;
    }
    family(
        out,
        "quorumgate_overhead_duration_seconds",
        "histogram",
        "Time spent in the gateway alone, before the answer's head.",
    )?;
    for (route, parts) in &routes {
        write_histogram(out, "quorumgate_overhead_duration_seconds", route, parts.iter().map(|it| &it.overhead))?;
    }
    family(
        out,
        "quorumgate_rejects_total",
        "counter",
        "Requests and connections that were refused, cut or left, by reason.",
    )?;
    for (slot, reason) in REASONS.iter().enumerate() {
        let count: u64 = workers.iter().map(|it| it.rejects.0[slot].value()).sum();
        writeln!(out, "quorumgate_rejects_total{{reason=\"{reason}\"}} {count}")?;
    }
    write_auths(workers, out)?;
    let mut single = |name, kind, help, value: fn(&WorkerMetrics) -> &Counter| {
        // A sum of differences: a single worker's part of a gauge never wraps.
        let sum = workers.iter().fold(0u64, |sum, it| sum.wrapping_add(value(it).value()));
        family(out, name, kind, help)?;
        writeln!(out, "{name} {sum}")
    };
    single("quorumgate_http_requests_in_flight", "gauge", "Exchanges that are being served.", |it| &it.in_flight)?;
    single("quorumgate_http_connections_total", "counter", "Client connections accepted.", |it| &it.connections)?;
    single("quorumgate_http_connections_open", "gauge", "Client connections that are open.", |it| {
        &it.connections_open
    })?;
    single(
        "quorumgate_http_tunnels_open",
        "gauge",
        "WebSocket tunnels and relayed connections that are open.",
        |it| &it.tunnels_open,
    )?;
    single("quorumgate_http_buffered_bytes", "gauge", "Body bytes held until clients or upstreams take them.", |it| {
        &it.buffered_bytes
    })?;
    single("quorumgate_http_received_bytes_total", "counter", "Body bytes from clients.", |it| &it.received_bytes)?;
    single("quorumgate_http_sent_bytes_total", "counter", "Body bytes to clients.", |it| &it.sent_bytes)?;
    single("quorumgate_http_panics_total", "counter", "Exchanges that ended in a panic.", |it| &it.panics)
}

fn write_auths(workers: &[Arc<WorkerMetrics>], out: &mut String) -> std::fmt::Result {
    let mut auths: BTreeMap<Name, [u64; AuthResult::ALL.len()]> = BTreeMap::new();
    for worker in workers {
        for (name, metrics) in &*worker.auths.lock().unwrap_or_else(PoisonError::into_inner) {
            let sums = auths.entry(name.clone()).or_default();
            sums.iter_mut().zip(&metrics.0).for_each(|(sum, count)| *sum += count.value());
        }
    }
    family(out, "quorumgate_auth_total", "counter", "What became of requests at each auth of their route.")?;
    for (name, sums) in &auths {
        for ((_, result), count) in AuthResult::ALL.iter().zip(sums).filter(|(_, count)| **count > 0) {
            writeln!(out, "quorumgate_auth_total{{auth=\"{name}\",result=\"{result}\"}} {count}")?;
        }
    }
    Ok(())
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn write_requests(routes: &BTreeMap<Arc<str>, Vec<Arc<RouteMetrics>>>, out: &mut String) -> std::fmt::Result {
    family(out, "quorumgate_http_requests_total", "counter", "Exchanges that ended.")?;
    for (route, parts) in routes {
        let mut sums: BTreeMap<u32, u64> = BTreeMap::new();
        for series in parts.iter().flat_map(|part| &part.series) {
            let key = series.key.load(Relaxed);
            if key != 0 {
                *sums.entry(key).or_default() += series.count.value();
            }
        }
        for (key, count) in sums {
            let (method, code) = (METHODS[(key >> 16) as usize], StatusCode::from_u16(key as u16));
            let code = code.as_ref().map_or("other", StatusCode::as_str);
            writeln!(
                out,
                "quorumgate_http_requests_total{{route=\"{}\",method=\"{method}\",code=\"{code}\"}} {count}",
                escape(route)
            )?;
        }
        let other: u64 = parts.iter().map(|part| part.other.value()).sum();
        if other != 0 {
            writeln!(
                out,
                "quorumgate_http_requests_total{{route=\"{}\",method=\"other\",code=\"other\"}} {other}",
                escape(route)
            )?;
        }
    }
    Ok(())
}

fn write_histogram<'a, const N: usize>(
    out: &mut String,
    name: &str,
    route: &str,
    parts: impl Iterator<Item = &'a Histogram<N>> + Clone,
) -> std::fmt::Result {
    let Some(bounds) = parts.clone().next().map(|part| part.bounds_us) else { return Ok(()) };
    let route = escape(route);
    let mut count = 0;
    for (slot, bound) in bounds.iter().enumerate() {
        count += parts.clone().map(|part| part.counts[slot].value()).sum::<u64>();
        let le = Duration::from_micros(*bound).as_secs_f64();
        writeln!(out, "{name}_bucket{{route=\"{route}\",le=\"{le}\"}} {count}")?;
    }
    count += parts.clone().map(|part| part.above.value()).sum::<u64>();
    let sum_s = parts.map(|part| part.sum_ns.value()).sum::<u64>() as f64 / 1e9;
    writeln!(out, "{name}_bucket{{route=\"{route}\",le=\"+Inf\"}} {count}")?;
    writeln!(out, "{name}_sum{{route=\"{route}\"}} {sum_s}")?;
    writeln!(out, "{name}_count{{route=\"{route}\"}} {count}")
}

pub(crate) fn escape(label: &str) -> std::borrow::Cow<'_, str> {
    match label.contains(['"', '\\', '\n']) {
        false => label.into(),
        true => label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_counts_a_bounded_number_of_series() {
        let metrics = WorkerMetrics::default();
        let route = metrics.route("orders");
        for status in 200..300 {
            route.count(&Method::GET, status);
        }
        route.count(&Method::GET, 200);
        route.duration.observe(Duration::from_millis(2));
        let mut out = String::new();
        write(&[Arc::new(metrics)], &mut out);
        assert!(
            out.contains("quorumgate_http_requests_total{route=\"orders\",method=\"GET\",code=\"200\"} 2\n"),
            "{out}"
        );
        assert!(out.contains("method=\"other\",code=\"other\"} 68\n"), "{out}");
        assert!(out.contains("duration_seconds_bucket{route=\"orders\",le=\"0.0025\"} 1\n"), "{out}");
        assert!(out.contains("duration_seconds_bucket{route=\"orders\",le=\"0.001\"} 0\n"), "{out}");
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
