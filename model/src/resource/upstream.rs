//! Upstreams: where requests go, how the targets are chosen and watched, and what is tried again.

mod resilience;
mod words;

use std::{collections::BTreeMap, fmt, num::NonZeroU32, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use resilience::{Breaker, HashOn, HashOnWords, Outlier, ProxyProtocol, RetryOn, UpstreamTls};
pub use words::{HEALTH_COUNT_MAX, PRIORITY_MAX, UpstreamWords};

use super::Name;
use crate::units::Span;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UpstreamWords")]
pub struct Upstream {
    pub name: Name,
    pub labels: BTreeMap<String, String>,
    pub owner: String,
    pub description: String,
    /// At least one, no address twice.
    pub targets: Vec<Target>,
    pub protocol: Protocol,
    pub balance: Balance,
    /// Without it every target counts as healthy.
    pub health: Option<HealthCheck>,
    pub retries: Retries,
    pub timeouts: UpstreamTimeouts,
    /// The auth of kind client_credentials or upstream_key by which the gateway proves itself to the servers.
    pub auth: Option<Name>,
    pub outlier: Outlier,
    /// None: there is none.
    pub breaker: Option<Breaker>,
    /// How long a target's share grows once it is new or back; zero: it has its whole share at once.
    pub slow_start: Span,
    pub proxy_protocol: Option<ProxyProtocol>,
    /// None: cleartext.
    pub tls: Option<UpstreamTls>,
}

/// `host:port`, where the host is an IP address or a DNS name (which stands for every address it resolves to).
/// In a file: the text alone, or `{ address: "host:port", weight: 2 }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    pub address: Authority,
    pub weight: Weight,
    /// The lowest that can serve does.
    pub priority: u32,
    /// The region it is in; None: it is near to every node.
    pub zone: Option<String>,
}

impl Target {
    /// With a share of one, first in line, near to all.
    pub fn new(address: Authority) -> Self {
        Self { address, weight: Weight::default(), priority: 0, zone: None }
    }
}

/// 1..=1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Weight(NonZeroU32);

/// `host:port`; an IPv6 host is written in brackets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Authority {
    pub host: String,
    pub port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    #[default]
    Http1,
    /// Without TLS by prior knowledge.
    Http2,
    /// HTTP/2 whose failures may also be told by a `grpc-status`.
    Grpc,
    /// What TLS agrees on (ALPN); without TLS it is HTTP/1.
    Auto,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Balance {
    pub policy: BalancePolicy,
    /// With `Maglev`: None is the client's address. With `P2cEwma`: each key has its two targets. With others: None.
    pub hash_on: Option<HashOn>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BalancePolicy {
    /// Power of two choices over peak-EWMA latency times requests in flight.
    #[default]
    P2cEwma,
    RoundRobin,
    LeastRequests,
    /// The same key meets the same target, on every node, for as long as the targets stay (Eisenbud et al., NSDI 2016).
    Maglev,
    Random,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// Begins with `/`.
    pub path: String,
    #[serde(default = "HealthCheck::interval_default")]
    pub interval: Span,
    #[serde(default = "HealthCheck::timeout_default")]
    pub timeout: Span,
    #[serde(default = "HealthCheck::unhealthy_after_default")]
    pub unhealthy_after: u32,
    #[serde(default = "HealthCheck::healthy_after_default")]
    pub healthy_after: u32,
    #[serde(default)]
    pub expect: StatusRange,
}

impl HealthCheck {
    pub fn interval_default() -> Span {
        Span::secs(3)
    }
    pub fn timeout_default() -> Span {
        Span::secs(1)
    }
    pub fn unhealthy_after_default() -> u32 {
        3
    }
    pub fn healthy_after_default() -> u32 {
        1
    }
}

/// `200` or `200-399`, within 100..=599.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusRange {
    pub first: u16,
    pub last: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retries {
    /// Extra attempts, 0..=10.
    pub attempts: u32,
    pub on: Vec<RetryOn>,
    /// 0..=100: the share of active requests that may be retries; three are always allowed.
    pub budget_percent: u32,
    /// Ask a second target once the first takes longer than all but one in twenty do.
    pub hedge: bool,
}

impl Default for Retries {
    fn default() -> Self {
        Self { attempts: 2, on: RetryOn::UNLESS_SAID.to_vec(), budget_percent: 20, hedge: false }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTimeouts {
    pub connect: Span,
    pub response_header: Span,
    /// Between two reads of a response body.
    pub idle: Span,
    /// The whole exchange; 0s means no limit.
    pub total: Span,
}

impl Default for UpstreamTimeouts {
    fn default() -> Self {
        Self { connect: Span::secs(5), response_header: Span::secs(30), idle: Span::secs(60), total: Span::default() }
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(NonZeroU32::MIN)
    }
}

impl Weight {
    pub fn value(self) -> u32 {
        self.0.get()
    }
}

impl TryFrom<u32> for Weight {
    type Error = String;

    fn try_from(weight: u32) -> Result<Self, String> {
        match NonZeroU32::new(weight) {
            Some(value) if weight <= 1000 => Ok(Self(value)),
            _ => Err(format!("found {weight}; allowed: 1 to 1000")),
        }
    }
}

impl From<Weight> for u32 {
    fn from(weight: Weight) -> u32 {
        weight.value()
    }
}

impl FromStr for Authority {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("found {text:?}; allowed: host:port, such as 10.1.0.4:9000, orders.internal:80 or [::1]:80");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let fits = match inside {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => is_host(host),
        };
        match fits {
            true => Ok(Self { host: inside.unwrap_or(host).to_ascii_lowercase(), port }),
            false => Err(wrong()),
        }
    }
}

/// An IPv4 address or a DNS name (RFC 1123).
pub fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    !host.is_empty() && host.len() <= 253 && host.split('.').all(label)
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Serialize for Authority {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Authority {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetWords {
    address: Authority,
    #[serde(default)]
    weight: Weight,
    #[serde(default)]
    priority: u32,
    #[serde(default)]
    zone: Option<String>,
}

struct TargetVisitor;

impl<'de> de::Visitor<'de> for TargetVisitor {
    type Value = Target;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("host:port, or an object with address, weight, priority and zone")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Target, E> {
        Ok(Target::new(text.parse().map_err(E::custom)?))
    }

    fn visit_map<M: de::MapAccess<'de>>(self, map: M) -> Result<Target, M::Error> {
        let words = TargetWords::deserialize(de::value::MapAccessDeserializer::new(map))?;
        Ok(Target { address: words.address, weight: words.weight, priority: words.priority, zone: words.zone })
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TargetVisitor)
    }
}

impl Default for StatusRange {
    fn default() -> Self {
        Self { first: 200, last: 399 }
    }
}

impl FromStr for StatusRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("found {text:?}; allowed: a status or a range within 100-599, such as 200-399");
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let status = |text: &str| text.parse::<u16>().ok().filter(|status| (100..=599).contains(status));
        match (status(first), status(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl Serialize for StatusRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

struct StatusRangeVisitor;

impl de::Visitor<'_> for StatusRangeVisitor {
    type Value = StatusRange;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a status or a range, such as 200-399")
    }

    fn visit_u64<E: de::Error>(self, status: u64) -> Result<StatusRange, E> {
        status.to_string().parse().map_err(E::custom)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<StatusRange, E> {
        text.parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for StatusRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StatusRangeVisitor)
    }
}
