//! What one worker counts, and the Prometheus text of all workers together.
//!
//! Each worker writes its own counters only, so that a write is a load and a store; readers sum.

mod reasons;

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

pub(crate) use self::reasons::REASONS;
use crate::{ai::Accounts, versions::Callers};

/// The label of requests that no route took: no route can have this name.
pub(crate) const NO_ROUTE: &str = "-";

/// The label of routes beyond `ROUTES_MAX`, which no route can have either.
pub(crate) const OTHER_ROUTES: &str = "_other";
/// Routes that one worker counts apart.
const ROUTES_MAX: usize = 16_384;
/// Auths that one worker counts apart; others go uncounted.
const AUTHS_MAX: usize = 1_024;
/// Policies that one worker counts apart; others go uncounted.
const POLICIES_MAX: usize = 1_024;

/// Pairs of method and status that one route counts apart; what is beyond is counted under code `other`.
const SERIES_MAX: usize = 32;
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "other"];
/// Upper bounds in microseconds; close enough that a p99.9 is told to a third.
pub const DURATION_BOUNDS_US: [u64; 20] = [
    500, 750, 1_000, 1_500, 2_500, 4_000, 6_000, 10_000, 15_000, 25_000, 40_000, 60_000, 100_000, 250_000, 500_000,
    1_000_000, 2_000_000, 3_000_000, 5_000_000, 10_000_000,
];
const OVERHEAD_BOUNDS_US: [u64; 12] = [25, 50, 75, 100, 150, 250, 500, 1_000, 2_500, 5_000, 25_000, 100_000];

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
pub struct RouteMetrics {
    series: [Series; SERIES_MAX],
    other: Counter,
    pub(crate) duration: Histogram<20>,
    pub(crate) overhead: Histogram<12>,
}

/// One pair of method and status; key 0 is free.
#[derive(Debug, Default)]
struct Series {
    key: AtomicU32,
    count: Counter,
}

impl RouteMetrics {
    pub fn new() -> Self {
        Self {
            series: std::array::from_fn(|_| Series::default()),
            other: Counter::default(),
            duration: Histogram::new(&DURATION_BOUNDS_US),
            overhead: Histogram::new(&OVERHEAD_BOUNDS_US),
        }
    }

    /// All that is counted of one exchange.
    pub fn ended(&self, method: &Method, status: u16, took: Duration, overhead: Duration) {
        self.count(method, status);
        self.duration.observe(took);
        self.overhead.observe(overhead);
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

    fn add_to(&self, stats: &mut RouteStats) {
        for series in &self.series {
            let (status, count) = (series.key.load(Relaxed) & 0xffff, series.count.value());
            match status {
                400..=499 => stats.client_errors += count,
                500..=599 => stats.server_errors += count,
                _ => (),
            }
            stats.requests += count;
        }
        stats.requests += self.other.value();
        let counts = self.duration.counts.iter().chain([&self.duration.above]);
        stats.durations.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count.value());
    }
}

impl Default for RouteMetrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The place in `METHODS`.
fn method_class(method: &Method) -> usize {
    match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        Method::POST => 2,
        Method::PUT => 3,
        Method::PATCH => 4,
        Method::DELETE => 5,
        Method::OPTIONS => 6,
        Method::CONNECT => 7,
        _ => METHODS.len() - 1,
    }
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

/// What one worker counts of one policy.
#[derive(Debug, Default)]
pub(crate) struct PolicyMetrics([Counter; PolicyResult::ALL.len()]);

/// What a policy found in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PolicyResult {
    Passed,
    Refused,
    /// It would be refused, if the policy enforced what it asks.
    Detected,
    /// What the policy could not look through, and let pass.
    Unseen,
}

impl PolicyResult {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Passed, "passed"), (Self::Refused, "refused"), (Self::Detected, "detected"), (Self::Unseen, "unseen")];
}

impl PolicyMetrics {
    pub(crate) fn count(&self, result: PolicyResult) {
        self.0[result as usize].add(1);
    }
}

/// What became of a copy for a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MirrorResult {
    Sent,
    Failed,
    /// Too many were under way.
    Busy,
    TooLarge,
    /// The request itself came to no end.
    Incomplete,
}

impl MirrorResult {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Sent, "sent"),
        (Self::Failed, "failed"),
        (Self::Busy, "busy"),
        (Self::TooLarge, "too_large"),
        (Self::Incomplete, "incomplete"),
    ];
}

/// What a cache made of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheResult {
    Hit,
    /// Answered from what is stale: the upstream is asked beside, or fails.
    Stale,
    /// Answered by what another request has brought.
    Collapsed,
    Miss,
    /// The upstream said that what is kept is good still.
    Revalidated,
    /// Of a kind that no cache answers.
    Bypass,
}

impl CacheResult {
    const ALL: [Self; 6] = [Self::Hit, Self::Stale, Self::Collapsed, Self::Miss, Self::Revalidated, Self::Bypass];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Collapsed => "collapsed",
            Self::Miss => "miss",
            Self::Revalidated => "revalidated",
            Self::Bypass => "bypass",
        }
    }
}

/// Everything that one worker counts.
#[derive(Debug, Default)]
pub(crate) struct WorkerMetrics {
    routes: Mutex<BTreeMap<Arc<str>, Arc<RouteMetrics>>>,
    auths: Mutex<BTreeMap<Name, Arc<AuthMetrics>>>,
    policies: Mutex<BTreeMap<Name, Arc<PolicyMetrics>>>,
    rejects: Rejects,
    /// Plans whose route is counted under `OTHER_ROUTES`. Not on the way of an exchange.
    overflow: Counter,
    pub(crate) in_flight: Counter,
    pub(crate) connections: Counter,
    pub(crate) connections_open: Counter,
    pub(crate) tunnels_open: Counter,
    pub(crate) connections_resting: Counter,
    /// Of bodies, held for those who have not taken them yet.
    pub(crate) buffered_bytes: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) panics: Counter,
    mirrors: [Counter; MirrorResult::ALL.len()],
    caches: [Counter; CacheResult::ALL.len()],
    /// Who calls versions that are on their way out.
    pub(crate) callers: Callers,
    /// What models were asked.
    pub(crate) models: Accounts,
    pub(crate) anomalies: crate::anomaly::Counts,
}

/// In the order of `REASONS`.
#[derive(Debug)]
struct Rejects([Counter; REASONS.len()]);

impl Default for Rejects {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl WorkerMetrics {
    pub(crate) fn reject(&self, reason: &str) {
        let slot = REASONS.iter().position(|it| *it == reason).unwrap_or(REASONS.len() - 1);
        self.rejects.0[slot].add(1);
    }

    pub(crate) fn cached(&self, result: CacheResult) {
        self.caches[result as usize].add(1);
    }

    pub(crate) fn mirrored(&self, result: MirrorResult) {
        self.mirrors[result as usize].add(1);
    }

    pub(crate) fn route(&self, name: &str) -> Arc<RouteMetrics> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = routes.get(name) {
            return metrics.clone();
        }
        let mut name = name;
        if routes.len() >= ROUTES_MAX && name != NO_ROUTE {
            self.overflow.add(1);
            name = OTHER_ROUTES;
            if let Some(metrics) = routes.get(name) {
                return metrics.clone();
            }
        }
        let metrics = Arc::new(RouteMetrics::new());
        routes.insert(name.into(), metrics.clone());
        metrics
    }

    pub(crate) fn auth(&self, name: &Name) -> Arc<AuthMetrics> {
        let mut auths = self.auths.lock().unwrap_or_else(PoisonError::into_inner);
        if auths.len() >= AUTHS_MAX && !auths.contains_key(name) {
            return Arc::default();
        }
        auths.entry(name.clone()).or_default().clone()
    }

    pub(crate) fn policy(&self, name: &Name) -> Arc<PolicyMetrics> {
        let mut policies = self.policies.lock().unwrap_or_else(PoisonError::into_inner);
        if policies.len() >= POLICIES_MAX && !policies.contains_key(name) {
            return Arc::default();
        }
        policies.entry(name.clone()).or_default().clone()
    }

    /// Drops what was counted for routes and policies that are gone: memory follows the configuration. Not on the worker's time.
    pub(crate) fn keep_only(&self, rules: &Ruleset) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let is_kept = |name: &str| name == NO_ROUTE || name == OTHER_ROUTES || rules.rules.contains_key(name);
        routes.retain(|name, _| is_kept(name));
        let mut policies = self.policies.lock().unwrap_or_else(PoisonError::into_inner);
        policies.retain(|name, _| rules.has_policy(name));
        drop(policies);
        self.callers.keep_only(rules);
    }
}

/// What all workers have counted so far, for `top`.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// In the order of their names; `-` are requests that no route took.
    pub routes: Vec<RouteStats>,
    pub in_flight: u64,
    pub connections_open: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// Those that there were any of.
    pub rejects: Vec<(&'static str, u64)>,
    /// Upper bounds of `RouteStats::durations`; one more counts what is above.
    pub bounds_us: &'static [u64],
}

#[derive(Debug, Clone)]
pub struct RouteStats {
    pub route: Arc<str>,
    pub requests: u64,
    /// 4xx.
    pub client_errors: u64,
    /// 5xx.
    pub server_errors: u64,
    /// Not cumulative.
    pub durations: Vec<u64>,
}

pub(crate) fn stats(workers: &[Arc<WorkerMetrics>]) -> Stats {
    let sum = |value: fn(&WorkerMetrics) -> &Counter| {
        workers.iter().fold(0u64, |sum, it| sum.wrapping_add(value(it).value()))
    };
    let mut routes: BTreeMap<Arc<str>, RouteStats> = BTreeMap::new();
    for worker in workers {
        for (name, metrics) in &*worker.routes.lock().unwrap_or_else(PoisonError::into_inner) {
            let empty = || RouteStats {
                route: name.clone(),
                requests: 0,
                client_errors: 0,
                server_errors: 0,
                durations: vec![0; DURATION_BOUNDS_US.len() + 1],
            };
            metrics.add_to(routes.entry(name.clone()).or_insert_with(empty));
        }
    }
    let rejects = REASONS.iter().enumerate().map(|(slot, reason)| {
        let count: u64 = workers.iter().map(|it| it.rejects.0[slot].value()).sum();
        (*reason, count)
    });
    Stats {
        routes: routes.into_values().collect(),
        in_flight: sum(|it| &it.in_flight),
        connections_open: sum(|it| &it.connections_open),
        received_bytes: sum(|it| &it.received_bytes),
        sent_bytes: sum(|it| &it.sent_bytes),
        rejects: rejects.filter(|(_, count)| *count > 0).collect(),
        bounds_us: &DURATION_BOUNDS_US,
    }
}

/// What so many workers have counted of so many routes, for the benchmark.
pub struct Counted(Vec<Arc<WorkerMetrics>>);

/// Every route was asked for on every worker.
pub fn metrics_of(routes: usize, workers: usize) -> Counted {
    let worker = |_| {
        let metrics = WorkerMetrics::default();
        for number in 0..routes {
            let took = Duration::from_micros(number as u64 * 37 % 20_000_000);
            metrics.route(&format!("route-{number}")).ended(&Method::GET, 200, took, took / 100);
        }
        Arc::new(metrics)
    };
    Counted((0..workers).map(worker).collect())
}

impl Counted {
    pub fn text(&self) -> String {
        let mut out = String::new();
        write(&self.0, &mut out);
        out
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
    write_policies(workers, out)?;
    family(out, "quorumgate_cache_requests_total", "counter", "Requests on routes with a cache.")?;
    for (slot, result) in CacheResult::ALL.iter().enumerate() {
        let count: u64 = workers.iter().map(|it| it.caches[slot].value()).sum();
        writeln!(out, "quorumgate_cache_requests_total{{result=\"{}\"}} {count}", result.word())?;
    }
    family(out, "quorumgate_mirror_total", "counter", "Copies of requests for mirrors; those not sent, by reason.")?;
    for (slot, (_, result)) in MirrorResult::ALL.iter().enumerate() {
        let count: u64 = workers.iter().map(|it| it.mirrors[slot].value()).sum();
        writeln!(out, "quorumgate_mirror_total{{result=\"{result}\"}} {count}")?;
    }
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
        "quorumgate_http_connections_resting",
        "gauge",
        "HTTP/1 connections without a request for a second or more, which hold next to no memory.",
        |it| &it.connections_resting,
    )?;
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
    const OVERFLOW: &str = "Routes counted under route _other: there are more than are counted apart.";
    single("quorumgate_metrics_overflow_total", "counter", OVERFLOW, |it| &it.overflow)?;
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

fn write_policies(workers: &[Arc<WorkerMetrics>], out: &mut String) -> std::fmt::Result {
    let mut policies: BTreeMap<Name, [u64; PolicyResult::ALL.len()]> = BTreeMap::new();
    for worker in workers {
        for (name, metrics) in &*worker.policies.lock().unwrap_or_else(PoisonError::into_inner) {
            let sums = policies.entry(name.clone()).or_default();
            sums.iter_mut().zip(&metrics.0).for_each(|(sum, count)| *sum += count.value());
        }
    }
    family(out, "quorumgate_policy_total", "counter", "What policies that look through requests found in them.")?;
    for (name, sums) in &policies {
        for ((_, result), count) in PolicyResult::ALL.iter().zip(sums).filter(|(_, count)| **count > 0) {
            writeln!(out, "quorumgate_policy_total{{policy=\"{name}\",result=\"{result}\"}} {count}")?;
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
        let route = escape(route);
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
                "quorumgate_http_requests_total{{route=\"{route}\",method=\"{method}\",code=\"{code}\"}} {count}"
            )?;
        }
        let other: u64 = parts.iter().map(|part| part.other.value()).sum();
        if other != 0 {
            writeln!(
                out,
                "quorumgate_http_requests_total{{route=\"{route}\",method=\"other\",code=\"other\"}} {other}"
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
    // Ten thousand routes have half a million lines: what is the same in all of one is put together once.
    let bucket = format!("{name}_bucket{{route=\"{route}\",le=\"");
    let mut count = 0;
    for (slot, bound) in bounds.iter().enumerate() {
        count += parts.clone().map(|part| part.counts[slot].value()).sum::<u64>();
        out.push_str(&bucket);
        write_seconds(out, *bound);
        out.push_str("\"} ");
        write_number(out, count);
    }
    count += parts.clone().map(|part| part.above.value()).sum::<u64>();
    let sum_us = parts.map(|part| part.sum_ns.value()).sum::<u64>() / 1_000;
    out.push_str(&bucket);
    out.push_str("+Inf\"} ");
    write_number(out, count);
    write!(out, "{name}_sum{{route=\"{route}\"}} ")?;
    write_seconds(out, sum_us);
    writeln!(out, "\n{name}_count{{route=\"{route}\"}} {count}")
}

/// With its line's end.
fn write_number(out: &mut String, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    digits[at..].iter().for_each(|digit| out.push(char::from(*digit)));
    out.push('\n');
}

/// Microseconds as seconds: `0.0025`, `10`.
fn write_seconds(out: &mut String, micros: u64) {
    let (seconds, mut rest) = (micros / 1_000_000, micros % 1_000_000);
    write_number(out, seconds);
    out.pop();
    if rest > 0 {
        out.push('.');
        let mut unit = 100_000;
        while rest > 0 {
            out.push(char::from(b'0' + (rest / unit) as u8));
            rest %= unit;
            unit /= 10;
        }
    }
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
    fn numbers_are_written_as_prometheus_reads_them() {
        for (micros, expected) in
            [(0, "0"), (25, "0.000025"), (2_500, "0.0025"), (1_000_000, "1"), (10_050_000, "10.05")]
        {
            let mut out = String::new();
            write_seconds(&mut out, micros);
            assert_eq!(out, expected);
        }
        let mut out = String::new();
        [0, 7, 1_234_567, u64::MAX].into_iter().for_each(|number| write_number(&mut out, number));
        assert_eq!(out, format!("0\n7\n1234567\n{}\n", u64::MAX));
    }

    #[test]
    fn routes_beyond_the_bound_share_one_label() {
        let metrics = WorkerMetrics::default();
        for number in 0..ROUTES_MAX + 3 {
            metrics.route(&format!("r{number}")).count(&Method::GET, 200);
        }
        assert_eq!(metrics.routes.lock().unwrap().len(), ROUTES_MAX + 1);
        let mut out = String::new();
        write(&[Arc::new(metrics)], &mut out);
        assert!(out.contains("quorumgate_http_requests_total{route=\"_other\",method=\"GET\",code=\"200\"} 3\n"));
        assert!(out.contains("quorumgate_metrics_overflow_total 3\n"));
    }

    #[test]
    fn policies_that_are_gone_make_room_for_others() {
        let metrics = WorkerMetrics::default();
        for number in 0..POLICIES_MAX + 1 {
            metrics.policy(&format!("p{number}").parse().unwrap()).count(PolicyResult::Passed);
        }
        assert_eq!(metrics.policies.lock().unwrap().len(), POLICIES_MAX);
        metrics.keep_only(&Ruleset::default());
        metrics.policy(&"next".parse().unwrap()).count(PolicyResult::Passed);
        let mut out = String::new();
        write(&[Arc::new(metrics)], &mut out);
        assert!(out.contains("quorumgate_policy_total{policy=\"next\",result=\"passed\"} 1\n"), "{out}");
        assert!(!out.contains("policy=\"p0\""), "{out}");
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
