//! The words of an upstream in a file, and the checks that make an `Upstream` of them.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    super::{Name, check},
    Balance, BalancePolicy, HealthCheck, Protocol, Retries, RetryOn, Target, Upstream, UpstreamTimeouts,
};
use crate::invalid::Invalid;

/// How many failures or successes in a row a health check may ask for.
pub const HEALTH_COUNT_MAX: u32 = 100;

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
        if let Some(it) = &words.health {
            health(it).map_err(|invalid| invalid.under("health"))?;
        }
        retries(&words.retries).map_err(|invalid| invalid.under("retries"))?;
        timeouts(&words.timeouts).map_err(|invalid| invalid.under("timeouts"))?;
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
        })
    }
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
    check::once("on", &it.on, |on| on.word().to_owned())?;
    check::number("budget_percent", it.budget_percent, 0, 100)
}

fn timeouts(it: &UpstreamTimeouts) -> Result<(), Invalid> {
    check::span("connect", it.connect)?;
    check::span("response_header", it.response_header)?;
    check::span("idle", it.idle)?;
    check::span_or_zero("total", it.total)
}

impl Protocol {
    pub const ALL: [Self; 2] = [Self::Http1, Self::Http2];

    pub fn word(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
        }
    }
}

impl BalancePolicy {
    pub const ALL: [Self; 4] = [Self::P2cEwma, Self::RoundRobin, Self::LeastRequests, Self::Random];

    pub fn word(self) -> &'static str {
        match self {
            Self::P2cEwma => "p2c_ewma",
            Self::RoundRobin => "round_robin",
            Self::LeastRequests => "least_requests",
            Self::Random => "random",
        }
    }
}

impl RetryOn {
    pub const ALL: [Self; 3] = [Self::ConnectFailure, Self::Reset, Self::RefusedStream];

    pub fn word(self) -> &'static str {
        match self {
            Self::ConnectFailure => "connect_failure",
            Self::Reset => "reset",
            Self::RefusedStream => "refused_stream",
        }
    }
}
