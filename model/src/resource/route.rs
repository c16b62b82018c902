//! Routes: which requests they take and what becomes of those.

mod access;
mod security;
mod traffic;
pub(super) mod words;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

pub use access::*;
pub use security::SecurityHeaders;
pub use traffic::*;
pub use words::{FieldWords, MatchWords, RESPOND_BODY_BYTES_MAX, RespondWords, RouteWords};

use super::Name;
use crate::units::{Size, Span};

/// The default of a route's body limit.
pub const BODY_MAX_DEFAULT: Size = Size(10 << 20);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "words::RouteWords", into = "words::RouteWords")]
pub struct Route {
    pub name: Name,
    pub labels: BTreeMap<String, String>,
    pub owner: String,
    pub description: String,
    pub priority: i32,
    pub matches: Match,
    pub action: Action,
    pub rewrite: Rewrite,
    /// None: anyone may come.
    pub auth: Option<RouteAuth>,
    /// With any rule here the default is to deny.
    pub authorize: Vec<AuthorizeRule>,
    /// What was asked for, or else the default: deny with `auth`, allow without.
    pub on_stale: OnStale,
    pub encoded_slash: EncodedSlash,
    /// None: the node's setting decides.
    pub access_log: Option<bool>,
    /// Names of limits, all of which must admit.
    pub limits: Vec<Name>,
    pub body: BodyLimit,
    pub timeouts: RouteTimeouts,
    pub retries: RouteRetries,
    pub mirror: Option<Mirror>,
    pub cors: Option<Cors>,
    /// None: answers stay as the upstream encodes them.
    pub compression: Option<Compression>,
    /// None: every request goes to the upstream.
    pub cache: Option<Cache>,
    pub policies: Vec<Name>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Forward {
        upstream: Name,
    },
    /// To one of several upstreams.
    Split(Split),
    Redirect(Redirect),
    Respond(Respond),
    /// A standard endpoint that the gateway serves itself.
    Receive(Receive),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Match {
    /// Empty: every host. Lower case; `*.` stands for one label or more.
    pub hosts: Vec<HostPattern>,
    pub path: PathPattern,
    /// Empty: every method. Upper case.
    pub methods: Vec<String>,
    pub headers: Vec<FieldMatch>,
    pub query: Vec<FieldMatch>,
    pub cookies: Vec<FieldMatch>,
    pub client_cidrs: Vec<ipnet::IpNet>,
    pub sni: Vec<HostPattern>,
    /// By which listeners requests may come in; empty: by any, those of the nodes' own settings too.
    pub listeners: Vec<Name>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    Exact(String),
    /// The part after `*`, with its dot: `.shop.test`.
    Suffix(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PathPattern {
    #[default]
    Any,
    /// Segment-aware: `/foo` takes `/foo` and `/foo/x`, not `/foobar`.
    Prefix(String),
    Exact(String),
    /// `/orders/{id}`: a parameter is one whole segment that is not empty.
    Template(String),
    /// Matches the whole path, as Envoy does: `/a` does not take `/a/b`; `/a(/.*)?` does.
    Regex(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldMatch {
    /// Lower case for headers.
    pub name: String,
    pub test: FieldTest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldTest {
    Exact(String),
    /// Matches the whole value.
    Regex(String),
    Present,
    Absent,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "Redirect::status_default")]
    pub status: u16,
    #[serde(default)]
    pub scheme: Option<String>,
    #[serde(default)]
    pub host: Option<String>,
    #[serde(default)]
    pub port: Option<u16>,
    #[serde(default)]
    pub path: Option<String>,
}

impl Redirect {
    pub fn status_default() -> u16 {
        308
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Respond {
    /// 200..=599.
    #[serde(default = "Respond::status_default")]
    pub status: u16,
    #[serde(default)]
    pub body: String,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

impl Respond {
    pub fn status_default() -> u16 {
        200
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rewrite {
    pub host: HostRewrite,
    /// At most one of the three.
    pub path_prefix: Option<String>,
    /// A whole path, with values: `/v2/${params.id}`.
    pub path: Option<String>,
    pub path_regex: Option<PathRegex>,
    pub query: QueryEdits,
    /// Their values may have values of the request in them: `${client_ip}`.
    pub headers: HeaderRewrites,
    pub body: BodyRewrites,
}

/// Texts of JSON that are sent in the place of what came in, with values of it and of the request in them: see
/// `ruleset::JsonText`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BodyRewrites {
    pub request: Option<String>,
    /// Of answers with a status of 200..=299.
    pub response: Option<String>,
    /// Of what comes in, unpacked, and of what is made of it.
    pub max: Size,
}

pub const BODY_REWRITE_MAX_DEFAULT: Size = Size(1 << 20);

impl Default for BodyRewrites {
    fn default() -> Self {
        Self { request: None, response: None, max: BODY_REWRITE_MAX_DEFAULT }
    }
}

/// What matches is replaced, wherever in the path it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathRegex {
    pub pattern: String,
    /// With `$1` and `${name}` for what groups of the pattern took.
    pub to: String,
}

/// Carried out in the order remove, set, add. Names as they are after decoding.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueryEdits {
    pub set: BTreeMap<String, String>,
    pub add: BTreeMap<String, String>,
    pub remove: Vec<String>,
}

impl QueryEdits {
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// `preserve`, `target`, or a host name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum HostRewrite {
    #[default]
    Preserve,
    Target,
    Name(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderRewrites {
    pub request: HeaderEdits,
    pub response: HeaderEdits,
}

/// Carried out in the order remove, set, add.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderEdits {
    pub set: BTreeMap<String, String>,
    pub add: BTreeMap<String, String>,
    pub remove: Vec<String>,
}

/// What a node that has lost touch with the leader does on this route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnStale {
    Deny,
    Allow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncodedSlash {
    #[default]
    Refuse,
    Preserve,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BodyLimit {
    /// 0: no limit.
    pub max: Size,
    /// Of what a body with a Content-Encoding unpacks into; 0: nobody looks.
    pub decompressed_max: Size,
    /// The body is read whole before the upstream hears of the request.
    pub buffer: bool,
}

impl Default for BodyLimit {
    fn default() -> Self {
        Self { max: BODY_MAX_DEFAULT, decompressed_max: Size(0), buffer: false }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteTimeouts {
    /// The whole exchange; 0s: the upstream's.
    pub total: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteRetries {
    /// None: the upstream's.
    pub attempts: Option<u32>,
}

impl From<String> for HostRewrite {
    fn from(text: String) -> Self {
        match text.as_str() {
            "" | "preserve" => Self::Preserve,
            "target" => Self::Target,
            _ => Self::Name(text),
        }
    }
}

impl From<HostRewrite> for String {
    fn from(host: HostRewrite) -> String {
        match host {
            HostRewrite::Preserve => "preserve".into(),
            HostRewrite::Target => "target".into(),
            HostRewrite::Name(name) => name,
        }
    }
}

impl HostPattern {
    /// `host` is in lower case.
    pub fn takes(&self, host: &str) -> bool {
        match self {
            HostPattern::Exact(name) => name == host,
            HostPattern::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(name) => f.write_str(name),
            HostPattern::Suffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}

impl OnStale {
    /// Of a route that does not say: what asks for credentials must know the newest revocations.
    pub fn default_with(auth: Option<&RouteAuth>) -> Self {
        match auth {
            Some(_) => Self::Deny,
            None => Self::Allow,
        }
    }

    pub const ALL: [Self; 2] = [Self::Deny, Self::Allow];

    pub fn word(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}

impl EncodedSlash {
    pub const ALL: [Self; 2] = [Self::Refuse, Self::Preserve];

    pub fn word(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Preserve => "preserve",
        }
    }
}
