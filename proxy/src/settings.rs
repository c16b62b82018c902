//! What the data plane takes from a node's settings file.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{limits::Style, redaction::Redaction};

#[derive(Debug, Clone)]
pub struct Settings {
    pub node: String,
    pub region: String,
    /// At least one.
    pub listeners: Vec<Listener>,
    /// At least one.
    pub workers: usize,
    pub access_log: AccessLog,
    /// Peers whose X-Forwarded-For, Forwarded and X-Request-Id are believed.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    pub trusted_field: TrustedField,
    /// Who is asked for the names of upstreams; empty: whoever the system asks.
    pub name_servers: Vec<SocketAddr>,
    pub redaction: Redaction,
    pub limits: ClientLimits,
}

/// By which field trusted peers say who asks; what a client has written into another may have come through them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrustedField {
    /// Or Forwarded, where there is none.
    #[default]
    XForwardedFor,
    /// RFC 7239, and nothing else.
    Forwarded,
}

#[derive(Debug, Clone)]
pub struct Listener {
    pub address: SocketAddr,
    /// None: cleartext (HTTP/1.1 and HTTP/2 by prior knowledge).
    pub tls: Option<Tls>,
    pub merge_slashes: bool,
}

#[derive(Debug, Clone)]
pub struct Tls {
    /// PEM files.
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub client_auth: ClientAuth,
}

/// Whether clients are asked for a certificate in the handshake. What it is worth is for each route's auths to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    #[default]
    None,
    Request,
}

#[derive(Debug, Clone)]
pub struct AccessLog {
    /// For routes that do not say.
    pub default_on: bool,
    /// None: stdout.
    pub path: Option<PathBuf>,
}

/// See the table "Limits and timeouts on the client side" in docs/ARCHITECTURE.md.
#[derive(Debug, Clone)]
pub struct ClientLimits {
    pub header_read: Duration,
    pub tls_handshake: Duration,
    pub body_idle: Duration,
    /// A client that takes nothing of its answer for this long is given up on.
    pub write_stall: Duration,
    pub keep_alive_idle_h1: Duration,
    pub keep_alive_idle_h2: Duration,
    /// What is under way may take so long to end, once its listener is gone or asks for more of its clients.
    pub grace: Duration,
    pub header_fields_max: usize,
    pub header_bytes_max: usize,
    pub uri_bytes_max: usize,
    pub connections_per_ip_max: usize,
    /// Of bodies, in the whole node, until no further request is let in; each worker has an equal share.
    pub buffered_bytes_max: u64,
    /// How long a worker's tasks may wait for their turn until it refuses a part of the requests; zero: however long.
    pub queue_delay_max: Duration,
    /// How answers tell clients where they stand with the limits.
    pub rate_limit_style: Style,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            header_read: Duration::from_secs(10),
            tls_handshake: Duration::from_secs(10),
            body_idle: Duration::from_secs(15),
            write_stall: Duration::from_secs(30),
            keep_alive_idle_h1: Duration::from_secs(75),
            keep_alive_idle_h2: Duration::from_secs(300),
            grace: Duration::from_secs(30),
            header_fields_max: 128,
            header_bytes_max: 64 << 10,
            uri_bytes_max: 16 << 10,
            connections_per_ip_max: 10_000,
            buffered_bytes_max: 512 << 20,
            queue_delay_max: Duration::from_millis(500),
            rate_limit_style: Style::default(),
        }
    }
}
