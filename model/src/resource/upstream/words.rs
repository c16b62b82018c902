//! The words of an upstream in a file, and the checks that make an `Upstream` of them.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    super::{Name, check},
    Balance, BalancePolicy, Breaker, HashOn, HealthCheck, Outlier, Protocol, ProxyProtocol, Retries, Target, Upstream,
    UpstreamTimeouts, UpstreamTls,
};
use crate::{invalid::Invalid, units::Span};

/// How many failures or successes in a row a health check may ask for.
pub const HEALTH_COUNT_MAX: u32 = 100;
pub const PRIORITY_MAX: u32 = 100;
/// Errors in a row, calls of a window, requests in flight: what a breaker or ejection may be told to count to.
const COUNT_MAX: u32 = 1_000_000;
const SLOW_START_DEFAULT: Span = Span::secs(30);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamWords {
    pub name: Name,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub owner: String,
    #[serde(default)]
    pub description: String,
    pub targets: Vec<Target>,
    #[serde(default)]
    pub protocol: Protocol,
    #[serde(default)]
    pub balance: Balance,
    #[serde(default)]
    pub health: Option<HealthCheck>,
    #[serde(default)]
    pub retries: Retries,
    #[serde(default)]
    pub timeouts: UpstreamTimeouts,
    #[serde(default)]
    pub auth: Option<Name>,
    #[serde(default)]
    pub outlier: Outlier,
    #[serde(default)]
    pub breaker: Option<Breaker>,
    #[serde(default = "UpstreamWords::slow_start_default")]
    pub slow_start: Span,
    #[serde(default)]
    pub proxy_protocol: Option<ProxyProtocol>,
    #[serde(default)]
    pub tls: Option<UpstreamTls>,
}

impl UpstreamWords {
    pub fn slow_start_default() -> Span {
        SLOW_START_DEFAULT
    }
}

impl TryFrom<UpstreamWords> for Upstream {
    type Error = Invalid;

    fn try_from(words: UpstreamWords) -> Result<Self, Invalid> {
        check::meta(&words.labels, &words.owner, &words.description)?;
        if words.targets.is_empty() {
            return Err(Invalid::field("targets").found("none").allowed("at least one host:port"));
        }
        check::count("targets", words.targets.len(), check::LIST_MAX)?;
        let addresses: Vec<_> = words.targets.iter().map(|target| target.address.clone()).collect();
        check::once("targets", &addresses, ToString::to_string)?;
        for (place, it) in words.targets.iter().enumerate() {
            target(it).map_err(|invalid| invalid.under(format!("targets[{place}]")))?;
        }
        balance(&words.balance).map_err(|invalid| invalid.under("balance"))?;
        if let Some(it) = &words.health {
            health(it).map_err(|invalid| invalid.under("health"))?;
        }
        retries(&words.retries).map_err(|invalid| invalid.under("retries"))?;
        timeouts(&words.timeouts).map_err(|invalid| invalid.under("timeouts"))?;
        outlier(&words.outlier).map_err(|invalid| invalid.under("outlier"))?;
        if let Some(it) = &words.breaker {
            breaker(it).map_err(|invalid| invalid.under("breaker"))?;
        }
        check::span_or_zero("slow_start", words.slow_start)?;
        if words.proxy_protocol.is_some() && words.protocol != Protocol::Http1 {
            let allowed = "protocol http1 with it: one connection is for one client";
            return Err(Invalid::field("proxy_protocol").found(words.protocol.word()).allowed(allowed));
        }
        if let Some(it) = &words.tls {
            tls(it).map_err(|invalid| invalid.under("tls"))?;
        }
        Ok(Self {
            name: words.name,
            labels: words.labels,
            owner: words.owner,
            description: words.description,
            targets: words.targets,
            protocol: words.protocol,
            balance: words.balance,
            health: words.health,
            retries: words.retries,
            timeouts: words.timeouts,
            auth: words.auth,
            outlier: words.outlier,
            breaker: words.breaker,
            slow_start: words.slow_start,
            proxy_protocol: words.proxy_protocol,
            tls: words.tls,
        })
    }
}

fn target(it: &Target) -> Result<(), Invalid> {
    check::number("priority", it.priority, 0, PRIORITY_MAX)?;
    let Some(zone) = &it.zone else { return Ok(()) };
    check::length("zone", zone, check::WORD_BYTES_MAX)?;
    match zone.is_empty() {
        true => Err(Invalid::field("zone").found("\"\"").allowed("the name of a region")),
        false => Ok(()),
    }
}

fn balance(it: &Balance) -> Result<(), Invalid> {
    let Some(on) = &it.hash_on else { return Ok(()) };
    if !matches!(it.policy, BalancePolicy::Maglev | BalancePolicy::P2cEwma) {
        let allowed = "policy maglev or p2c_ewma with it";
        return Err(Invalid::field("hash_on").found(it.policy.word()).allowed(allowed));
    }
    match on {
        HashOn::Ip | HashOn::Consumer => Ok(()),
        HashOn::Header(name) => check::header_name("hash_on.header", name).map(drop),
        HashOn::Cookie(name) => check::header_name("hash_on.cookie", name).map(drop),
    }
}

fn outlier(it: &Outlier) -> Result<(), Invalid> {
    check::number("consecutive_errors", it.consecutive_errors, 0, COUNT_MAX)?;
    check::span("ejection", it.ejection)?;
    check::number("max_ejected_percent", it.max_ejected_percent, 0, 100)
}

fn breaker(it: &Breaker) -> Result<(), Invalid> {
    check::number("error_percent", it.error_percent, 0, 100)?;
    check::span("window", it.window)?;
    check::number("min_requests", it.min_requests, 1, COUNT_MAX)?;
    check::span("open", it.open)?;
    check::number("max_in_flight", it.max_in_flight, 0, COUNT_MAX)
}

fn tls(it: &UpstreamTls) -> Result<(), Invalid> {
    let Some(name) = &it.server_name else { return Ok(()) };
    check::host("server_name", name).map(drop)
}

fn health(it: &HealthCheck) -> Result<(), Invalid> {
    check::length("path", &it.path, check::PATH_BYTES_MAX)?;
    if !it.path.starts_with('/') || !it.path.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        let allowed = "a path that begins with /, such as /healthz";
        return Err(Invalid::field("path").found(format!("{:?}", it.path)).allowed(allowed));
    }
    check::span("interval", it.interval)?;
    check::span("timeout", it.timeout)?;
    check::number("unhealthy_after", it.unhealthy_after, 1, HEALTH_COUNT_MAX)?;
    check::number("healthy_after", it.healthy_after, 1, HEALTH_COUNT_MAX)
}

fn retries(it: &Retries) -> Result<(), Invalid> {
    check::number("attempts", it.attempts, 0, check::ATTEMPTS_MAX)?;
    if it.on.is_empty() {
        return Err(Invalid::field("on").found("none").allowed("at least one; attempts: 0 switches retries off"));
    }
    check::once("on", &it.on, |on| on.word().into_owned())?;
    check::number("budget_percent", it.budget_percent, 0, 100)
}

fn timeouts(it: &UpstreamTimeouts) -> Result<(), Invalid> {
    check::span("connect", it.connect)?;
    check::span("response_header", it.response_header)?;
    check::span("idle", it.idle)?;
    check::span_or_zero("total", it.total)
}

impl Protocol {
    pub const ALL: [Self; 4] = [Self::Http1, Self::Http2, Self::Grpc, Self::Auto];

    pub fn word(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Auto => "auto",
        }
    }
}

impl BalancePolicy {
    pub const ALL: [Self; 5] = [Self::P2cEwma, Self::RoundRobin, Self::LeastRequests, Self::Maglev, Self::Random];

    pub fn word(self) -> &'static str {
        match self {
            Self::P2cEwma => "p2c_ewma",
            Self::RoundRobin => "round_robin",
            Self::LeastRequests => "least_requests",
            Self::Maglev => "maglev",
            Self::Random => "random",
        }
    }
}
