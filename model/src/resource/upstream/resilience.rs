//! What an upstream does about targets that fail, and who keeps to which of them.

use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::super::Name;
use crate::{invalid::Invalid, units::Span};

/// When a target is left alone for a while because of what its answers were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Outlier {
    /// 5xx, connection errors and time-outs in a row; 0 switches ejection off.
    pub consecutive_errors: u32,
    /// The first time; each further one is longer by as much.
    pub ejection: Span,
    /// 0..=100; one target always may be ejected.
    pub max_ejected_percent: u32,
}

impl Default for Outlier {
    fn default() -> Self {
        Self { consecutive_errors: 5, ejection: Span::secs(30), max_ejected_percent: 10 }
    }
}

/// When an upstream as a whole is left alone, and how much its targets are given at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Breaker {
    /// 0..=100, of the calls within `window`; 0: it never opens.
    pub error_percent: u32,
    pub window: Span,
    pub min_requests: u32,
    pub open: Span,
    /// Requests at one target at once, of one node; 0: any number.
    pub max_in_flight: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        let (window, open) = (Span::secs(10), Span::secs(10));
        Self { error_percent: 50, window, min_requests: 20, open, max_in_flight: 0 }
    }
}

/// What keeps a caller with its target. In a file: a word, or `{ header: x-user }`, `{ cookie: session }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "HashOnWords", into = "HashOnWords")]
pub enum HashOn {
    Ip,
    Consumer,
    /// Lower case.
    Header(String),
    Cookie(String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HashOnWords {
    Word(String),
    Object(HashOnObject),
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HashOnObject {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    header: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cookie: Option<String>,
}

impl TryFrom<HashOnWords> for HashOn {
    type Error = Invalid;

    fn try_from(words: HashOnWords) -> Result<Self, Invalid> {
        // The one place where it may stand: what reads the words around it says no more.
        let wrong = |found: &str| {
            let allowed = "ip, consumer, { header: x-user } or { cookie: session }";
            Err(Invalid::field("balance.hash_on").found(found).allowed(allowed))
        };
        match words {
            HashOnWords::Word(word) if word == "ip" => Ok(Self::Ip),
            HashOnWords::Word(word) if word == "consumer" => Ok(Self::Consumer),
            HashOnWords::Word(word) => wrong(&format!("{word:?}")),
            HashOnWords::Object(HashOnObject { header: Some(name), cookie: None }) => {
                Ok(Self::Header(name.to_ascii_lowercase()))
            }
            HashOnWords::Object(HashOnObject { header: None, cookie: Some(name) }) => Ok(Self::Cookie(name)),
            HashOnWords::Object(_) => wrong("both or neither of header and cookie"),
        }
    }
}

impl From<HashOn> for HashOnWords {
    fn from(it: HashOn) -> Self {
        match it {
            HashOn::Ip => Self::Word("ip".into()),
            HashOn::Consumer => Self::Word("consumer".into()),
            HashOn::Header(name) => Self::Object(HashOnObject { header: Some(name), cookie: None }),
            HashOn::Cookie(name) => Self::Object(HashOnObject { header: None, cookie: Some(name) }),
        }
    }
}

/// By which form of the PROXY protocol the servers are told whom a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// Text.
    V1,
    /// Binary.
    V2,
}

impl ProxyProtocol {
    pub const ALL: [Self; 2] = [Self::V1, Self::V2];

    pub fn word(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTls {
    /// What the certificate must be for, and SNI. None: the target's own host.
    pub server_name: Option<String>,
    /// Who vouches for the servers. None: those that the machine trusts.
    pub ca: Option<Name>,
    /// What the gateway shows of itself.
    pub client_certificate: Option<Name>,
    pub verify: bool,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self { server_name: None, ca: None, client_certificate: None, verify: true }
    }
}

/// What is tried again. In a file: a word, or a status as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RetryOn {
    ConnectFailure,
    /// Nothing of an answer came: the connection or stream ended, or `timeouts.response_header` was over.
    Reset,
    RefusedStream,
    /// Any status from 500 on.
    ServerError,
    /// 400..=599.
    Status(u16),
}

impl RetryOn {
    pub const WORDS: [Self; 4] = [Self::ConnectFailure, Self::Reset, Self::RefusedStream, Self::ServerError];
    /// No status: an answer is the client's, unless the operator says otherwise.
    pub const UNLESS_SAID: [Self; 3] = [Self::ConnectFailure, Self::Reset, Self::RefusedStream];
    pub const ALLOWED: &str = "connect_failure, reset, refused_stream, 5xx, or a status from 400 to 599";

    pub fn word(self) -> Cow<'static, str> {
        match self {
            Self::ConnectFailure => "connect_failure".into(),
            Self::Reset => "reset".into(),
            Self::RefusedStream => "refused_stream".into(),
            Self::ServerError => "5xx".into(),
            Self::Status(status) => status.to_string().into(),
        }
    }

    pub fn is_status(self) -> bool {
        matches!(self, Self::ServerError | Self::Status(_))
    }

    pub fn takes(self, status: u16) -> bool {
        match self {
            Self::ServerError => status >= 500,
            Self::Status(it) => it == status,
            _ => false,
        }
    }
}

impl FromStr for RetryOn {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let status = || text.parse().ok().filter(|it| (400..=599).contains(it)).map(Self::Status);
        let word = Self::WORDS.into_iter().find(|it| it.word() == text);
        word.or_else(status).ok_or_else(|| Invalid::field("").found(format!("{text:?}")).allowed(Self::ALLOWED))
    }
}

impl Serialize for RetryOn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Status(status) => serializer.serialize_u16(*status),
            word => serializer.serialize_str(&word.word()),
        }
    }
}

struct RetryOnVisitor;

impl de::Visitor<'_> for RetryOnVisitor {
    type Value = RetryOn;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(RetryOn::ALLOWED)
    }

    fn visit_u64<E: de::Error>(self, status: u64) -> Result<RetryOn, E> {
        self.visit_str(&status.to_string())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<RetryOn, E> {
        text.parse().map_err(|it: Invalid| E::custom(format!("found {}; allowed: {}", it.found, it.allowed)))
    }
}

impl<'de> Deserialize<'de> for RetryOn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RetryOnVisitor)
    }
}
