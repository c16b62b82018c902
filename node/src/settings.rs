//! A node's own settings: one TOML file in its data directory, with flags and environment above it.

mod people;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use quorumgate_model::{
    resource::Name,
    units::{Size, Span},
};
use serde::{Deserialize, Serialize};

pub use self::people::Oidc;
use crate::telemetry::otlp::Collector;

/// Fields that builds of level 5 do not know. Whatever is new goes here: a test says so.
const LATER_IN_PROXY: [&str; 5] = ["trusted_field", "lame_duck", "redact", "redact_values", "geo"];
/// The file's name inside a data directory.
pub const FILE: &str = "settings.toml";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub node: Node,
    pub proxy: Proxy,
    pub peer: Peer,
    pub admin: Admin,
    pub telemetry: Telemetry,
    #[serde(default)]
    pub audit: Audit,
}

/// What this node keeps of admin calls that it let in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    #[serde(default = "yes")]
    pub access: bool,
    /// How long.
    #[serde(default = "retention_default")]
    pub retention: Span,
    /// Fields that are not written down.
    #[serde(default)]
    pub redact: Vec<Redacted>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Redacted {
    Actor,
    Source,
}

impl Default for Audit {
    fn default() -> Self {
        Self { access: true, retention: retention_default(), redact: Vec::new() }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    pub name: Name,
    pub region: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    pub listeners: Vec<Listener>,
    /// 0: one less than the cores, at least one.
    #[serde(default)]
    pub workers: usize,
    #[serde(default)]
    pub access_log: bool,
    /// Empty: stdout.
    #[serde(default)]
    pub access_log_file: Option<PathBuf>,
    #[serde(default)]
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// By which field those say who asks: x-forwarded-for (or Forwarded, where there is none) or forwarded (and nothing else).
    #[serde(default)]
    pub trusted_field: TrustedField,
    /// Who is asked for the names of upstreams, as "address:port"; empty: whoever the system asks.
    #[serde(default)]
    pub name_servers: Vec<SocketAddr>,
    /// How long exchanges in flight may take to end at shutdown or drain.
    #[serde(default = "grace_default")]
    pub grace: Span,
    /// How long connections are still taken at shutdown after readiness is off, for balancers that look now and then.
    #[serde(default)]
    pub lame_duck: Span,
    /// Body bytes held for clients and upstreams that have not taken them, until requests are refused as `overloaded`.
    #[serde(default = "buffered_default")]
    pub buffered_max: Size,
    /// How long a worker's tasks may wait for their turn, for half a second without a break, until it refuses a part of the
    /// requests as `overloaded`, of the lowest route priorities first; 0s: however long.
    #[serde(default = "queue_delay_default")]
    pub queue_delay_max: Span,
    /// How answers tell clients where they stand with limits: draft10, x-ratelimit or off.
    #[serde(default)]
    pub rate_limit_headers: RateLimitHeaders,
    /// Fields of exchanges that are written down less exactly, or not at all.
    #[serde(default)]
    pub redact: Vec<RedactedField>,
    /// Values in paths that are not written down, by their names.
    #[serde(default = "redact_values_default")]
    pub redact_values: Vec<String>,
    /// What policies of kind `ip` know of countries and autonomous systems.
    #[serde(default)]
    pub geo: Geo,
}

/// Files in MaxMind's format (MMDB). SIGHUP reads them again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Geo {
    pub country: Option<PathBuf>,
    pub asn: Option<PathBuf>,
}

impl Geo {
    pub fn files(&self) -> quorumgate_proxy::geo::Files {
        quorumgate_proxy::geo::Files { country: self.country.clone(), asn: self.asn.clone() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedactedField {
    /// Its network is.
    ClientIp,
    /// Its route's pattern is.
    Path,
    Consumer,
    Credential,
}

impl Proxy {
    pub fn redaction(&self) -> quorumgate_proxy::Redaction {
        let has = |field| self.redact.contains(&field);
        quorumgate_proxy::Redaction {
            client_ip: has(RedactedField::ClientIp),
            path: has(RedactedField::Path),
            consumer: has(RedactedField::Consumer),
            credential: has(RedactedField::Credential),
            names: self.redact_values.iter().map(|it| it.to_ascii_lowercase()).collect(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrustedField {
    #[default]
    XForwardedFor,
    Forwarded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RateLimitHeaders {
    /// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10).
    #[default]
    Draft10,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset`, in seconds from now.
    XRatelimit,
    Off,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    pub address: SocketAddr,
    /// PEM files; both or none.
    #[serde(default)]
    pub certificate_file: Option<PathBuf>,
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// `request`: clients are asked for a certificate, which routes may then want by an auth of kind mtls.
    #[serde(default)]
    pub client_auth: ClientAuth,
    #[serde(default = "yes")]
    pub merge_slashes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    #[default]
    None,
    Request,
}

impl From<ClientAuth> for quorumgate_proxy::ClientAuth {
    fn from(it: ClientAuth) -> Self {
        match it {
            ClientAuth::None => Self::None,
            ClientAuth::Request => Self::Request,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    pub listen: SocketAddr,
    /// host:port at which the other nodes reach this one; absent: `listen`.
    #[serde(default)]
    pub advertise: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    pub listen: SocketAddr,
    /// Lets people sign in to the web page at an OpenID provider. Here and not in the cluster's configuration: whoever may
    /// write that would otherwise decide who is an admin.
    #[serde(default)]
    pub oidc: Option<Oidc>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    pub listen: SocketAddr,
    /// A tracing filter: `info`, `quorumgate_node=debug`.
    #[serde(default = "log_default")]
    pub log: String,
    /// An OpenTelemetry collector nearby, `http://127.0.0.1:4318`: it gets traces and metrics over HTTP.
    #[serde(default)]
    pub otlp_endpoint: Option<String>,
    /// Which part of the traces that begin here it gets, 0 to 1; 0: no traces.
    #[serde(default = "trace_ratio_default")]
    pub trace_ratio: f64,
    /// How often it gets the metrics; 0s: never.
    #[serde(default = "otlp_metrics_every_default")]
    pub otlp_metrics_every: Span,
    /// Whether it gets the cluster's audit trail and this node's own denials, each entry at least once.
    #[serde(default)]
    pub otlp_audit: bool,
}

impl Telemetry {
    pub fn at(listen: SocketAddr) -> Self {
        let (trace_ratio, otlp_metrics_every) = (trace_ratio_default(), otlp_metrics_every_default());
        Self { listen, log: log_default(), otlp_endpoint: None, trace_ratio, otlp_metrics_every, otlp_audit: false }
    }
}

fn yes() -> bool {
    true
}

fn grace_default() -> Span {
    Span::secs(30)
}

pub fn buffered_default() -> Size {
    Size(quorumgate_proxy::ClientLimits::default().buffered_bytes_max)
}

pub fn queue_delay_default() -> Span {
    Span(quorumgate_proxy::ClientLimits::default().queue_delay_max)
}

pub fn redact_values_default() -> Vec<String> {
    quorumgate_proxy::Redaction::default().names
}

fn trace_ratio_default() -> f64 {
    0.01
}

fn otlp_metrics_every_default() -> Span {
    Span::secs(60)
}

fn retention_default() -> Span {
    Span::secs(90 * 86_400)
}

fn log_default() -> String {
    "info".into()
}

/// A node that was asked to go must go.
const LAME_DUCK_MAX: Duration = Duration::from_secs(300);

/// All of them may be asked for one name.
const NAME_SERVERS_MAX: usize = 8;

/// Each is looked for in every path that has a sign of equality.
const REDACT_VALUES_MAX: usize = 64;

/// Settings, or a data directory, that no restart will mend: the daemon exits 78.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct Bad(pub anyhow::Error);

/// After this long without a leader a starting node reports ready on its last state.
pub const BOOT_GRACE: Duration = Duration::from_secs(10);

impl Settings {
    pub fn read(dir: &Path) -> anyhow::Result<Self> {
        Self::read_file(&dir.join(FILE))
    }

    pub fn read_file(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("reading the settings {}", file.display()))?;
        let settings: Self = toml::from_str(&text).with_context(|| format!("in {}", file.display()))?;
        settings.check()?;
        Ok(settings)
    }

    /// What is younger than a build that may come back (level 5 and on) is written only where it is needed: an older one
    /// refuses fields that it does not know.
    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let mut proxy = toml::Table::try_from(&self.proxy)?;
        for field in LATER_IN_PROXY {
            let mut without = proxy.clone();
            without.remove(field);
            if without.clone().try_into::<Proxy>().is_ok_and(|it| it == self.proxy) {
                proxy = without;
            }
        }
        let mut all = toml::Table::try_from(self)?;
        all.insert("proxy".into(), proxy.into());
        let file = dir.join(FILE);
        std::fs::write(&file, toml::to_string_pretty(&all)?).with_context(|| format!("writing {}", file.display()))
    }

    /// The address that other nodes dial.
    pub fn peer_address(&self) -> String {
        self.peer.advertise.clone().unwrap_or_else(|| self.peer.listen.to_string())
    }

    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.proxy.listeners.is_empty(), "proxy.listeners: found none; allowed: one or more");
        anyhow::ensure!(
            self.proxy.buffered_max.0 > 0,
            "proxy.buffered_max: found 0; allowed: 1 byte or more, such as 512MiB"
        );
        anyhow::ensure!(
            self.proxy.lame_duck.0 <= LAME_DUCK_MAX,
            "proxy.lame_duck: found {}; allowed: at most {}",
            self.proxy.lame_duck,
            Span(LAME_DUCK_MAX)
        );
        let servers = self.proxy.name_servers.len();
        anyhow::ensure!(
            servers <= NAME_SERVERS_MAX,
            "proxy.name_servers: found {servers}; allowed: at most {NAME_SERVERS_MAX}"
        );
        let names = &self.proxy.redact_values;
        anyhow::ensure!(
            names.len() <= REDACT_VALUES_MAX,
            "proxy.redact_values: found {}; allowed: at most {REDACT_VALUES_MAX}",
            names.len()
        );
        let is_name = |it: &String| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
            !it.is_empty() && it.len() <= 64 && it.bytes().all(plain)
        };
        if let Some(wrong) = names.iter().find(|it| !is_name(it)) {
            anyhow::bail!("proxy.redact_values: found {wrong:?}; allowed: 1 to 64 letters, digits and _ - .");
        }
        if let Some(endpoint) = &self.telemetry.otlp_endpoint {
            endpoint.parse::<Collector>()?;
        }
        anyhow::ensure!(
            !self.telemetry.otlp_audit || self.telemetry.otlp_endpoint.is_some(),
            "telemetry.otlp_audit: found true; allowed: only beside otlp_endpoint"
        );
        if let Some(oidc) = &self.admin.oidc {
            oidc.check().context("admin.oidc")?;
        }
        let ratio = self.telemetry.trace_ratio;
        anyhow::ensure!((0.0..=1.0).contains(&ratio), "telemetry.trace_ratio: found {ratio}; allowed: 0 to 1");
        for (at, listener) in self.proxy.listeners.iter().enumerate() {
            anyhow::ensure!(
                listener.certificate_file.is_some() == listener.key_file.is_some(),
                "proxy.listeners[{at}]: certificate_file and key_file go together"
            );
            for file in listener.certificate_file.iter().chain(&listener.key_file) {
                std::fs::File::open(file)
                    .with_context(|| format!("proxy.listeners[{at}]: {} cannot be read", file.display()))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (String, toml::Table) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/settings.toml");
        let text = std::fs::read_to_string(file).unwrap();
        let table = toml::from_str(&text).unwrap();
        (text, table)
    }

    /// The names of all fields, as paths.
    fn names(under: &str, table: &toml::Table, found: &mut Vec<String>) {
        for (name, value) in table {
            let path = format!("{under}{name}");
            match value {
                toml::Value::Table(table) => names(&format!("{path}."), table, found),
                toml::Value::Array(values) if values.first().is_some_and(toml::Value::is_table) => {
                    values
                        .iter()
                        .filter_map(toml::Value::as_table)
                        .for_each(|it| names(&format!("{path}."), it, found));
                }
                _ => found.push(path),
            }
        }
    }

    #[test]
    fn the_example_has_every_field_with_its_default() {
        let (text, table) = example();
        let settings: Settings = toml::from_str(&text).unwrap();
        settings.check().unwrap();
        let (mut written, mut all) = (Vec::new(), Vec::new());
        names("", &table, &mut written);
        names("", &toml::Table::try_from(&settings).unwrap(), &mut all);
        all.retain(|it| !written.contains(it));
        assert_eq!(all, [""; 0], "examples/settings.toml lacks these");
        for absent in [
            "access_log_file",
            "certificate_file",
            "key_file",
            "geo.country",
            "geo.asn",
            "advertise",
            "[admin.oidc]",
            "otlp_endpoint",
        ] {
            assert!(text.contains(absent), "{absent}, which is absent by default");
        }
        let telemetry = Telemetry::at(settings.telemetry.listen);
        assert_eq!((settings.telemetry, settings.audit), (telemetry, Audit::default()));
        let proxy: Proxy = toml::from_str("listeners = [{ address = '0.0.0.0:8080' }]").unwrap();
        assert_eq!(settings.proxy, proxy);
    }

    #[test]
    fn a_file_that_needs_nothing_new_is_read_by_older_builds() {
        let mut settings: Settings = toml::from_str(&example().0).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let written = |settings: &Settings| {
            settings.write(dir.path()).unwrap();
            let table = toml::from_str(&std::fs::read_to_string(dir.path().join(FILE)).unwrap()).unwrap();
            let mut found = Vec::new();
            names("", &table, &mut found);
            found.sort();
            found
        };
        // Of level 5. A field that is new is no line here: it goes to `LATER_IN_PROXY`.
        let of_old = [
            "admin.listen",
            "audit.access",
            "audit.redact",
            "audit.retention",
            "node.name",
            "node.region",
            "peer.listen",
            "proxy.access_log",
            "proxy.buffered_max",
            "proxy.grace",
            "proxy.listeners.address",
            "proxy.listeners.client_auth",
            "proxy.listeners.merge_slashes",
            "proxy.name_servers",
            "proxy.queue_delay_max",
            "proxy.rate_limit_headers",
            "proxy.trusted_proxies",
            "proxy.workers",
            "telemetry.listen",
            "telemetry.log",
            "telemetry.otlp_audit",
            "telemetry.otlp_metrics_every",
            "telemetry.trace_ratio",
        ];
        assert_eq!(written(&settings), of_old);
        settings.proxy.lame_duck = Span::secs(3);
        assert!(written(&settings).contains(&"proxy.lame_duck".to_owned()));
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert_eq!(toml::from_str::<Settings>(&text).unwrap(), settings);
    }

    #[test]
    fn audit_trails_go_nowhere_without_an_endpoint() {
        let (text, _) = example();
        let mut settings: Settings = toml::from_str(&text).unwrap();
        settings.telemetry.otlp_audit = true;
        let error = settings.check().unwrap_err().to_string();
        assert!(error.contains("telemetry.otlp_audit") && error.contains("otlp_endpoint"), "{error}");
        settings.telemetry.otlp_endpoint = Some("http://127.0.0.1:4318".into());
        settings.check().unwrap();
    }
}
