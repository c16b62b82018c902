//! Listeners: what every node opens for clients, beside the listeners of its own settings.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Name, check, word::word_enum};
use crate::invalid::Invalid;

/// How many certificates one listener may choose from.
pub const LISTENER_CERTIFICATES_MAX: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ListenerWords")]
pub struct Listener {
    pub name: Name,
    pub labels: BTreeMap<String, String>,
    pub owner: String,
    pub description: String,
    /// No two listeners of a cluster have the same.
    pub address: SocketAddr,
    pub protocol: ListenerProtocol,
    /// With https, at least one; otherwise none.
    pub certificates: Vec<Name>,
    /// With https.
    pub client_ca: Option<Name>,
    pub client_auth: ClientAuth,
    /// With https: one QUIC socket a node beside the TCP port.
    pub http3: bool,
    /// Peers that begin with a PROXY header, v1 or v2; from all others none is taken.
    pub proxy_protocol_from: Vec<ipnet::IpNet>,
    /// With tcp: where every connection goes. With tls_passthrough: where those go that no route takes by its `sni`.
    pub upstream: Option<Name>,
    pub merge_slashes: bool,
}

word_enum! {
    ListenerProtocol {
        Http = "http",
        Https = "https",
        /// TLS that is not ended here: routed by its server name.
        TlsPassthrough = "tls_passthrough",
        /// Bytes, to one upstream.
        Tcp = "tcp",
    }
}

word_enum! {
    /// Whether clients are asked for a certificate in the handshake.
    ClientAuth {
        None = "none",
        /// One that is shown must be of the listener's `client_ca`, if it has one.
        Request = "request",
        /// Without one of `client_ca` there is no handshake.
        Require = "require",
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerWords {
    pub name: Name,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub owner: String,
    #[serde(default)]
    pub description: String,
    pub address: String,
    /// None: https with certificates, else http.
    #[serde(default)]
    pub protocol: Option<ListenerProtocol>,
    #[serde(default)]
    pub certificates: Vec<Name>,
    #[serde(default)]
    pub client_ca: Option<Name>,
    /// None: require with a `client_ca`, else none.
    #[serde(default)]
    pub client_auth: Option<ClientAuth>,
    #[serde(default)]
    pub http3: bool,
    #[serde(default)]
    pub proxy_protocol_from: Vec<ipnet::IpNet>,
    #[serde(default)]
    pub upstream: Option<Name>,
    #[serde(default = "yes")]
    pub merge_slashes: bool,
}

fn yes() -> bool {
    true
}

impl TryFrom<ListenerWords> for Listener {
    type Error = Invalid;

    fn try_from(it: ListenerWords) -> Result<Self, Invalid> {
        check::meta(&it.labels, &it.owner, &it.description)?;
        let address = address(&it.address)?;
        let default = if it.certificates.is_empty() { ListenerProtocol::Http } else { ListenerProtocol::Https };
        let protocol = it.protocol.unwrap_or(default);
        check::count("certificates", it.certificates.len(), LISTENER_CERTIFICATES_MAX)?;
        check::once("certificates", &it.certificates, Name::to_string)?;
        check::count("proxy_protocol_from", it.proxy_protocol_from.len(), check::LIST_MAX)?;
        let client_auth = it.client_auth.unwrap_or(ClientAuth::default_with(it.client_ca.as_ref()));
        let listener = Self {
            name: it.name,
            labels: it.labels,
            owner: it.owner,
            description: it.description,
            address,
            protocol,
            certificates: it.certificates,
            client_ca: it.client_ca,
            client_auth,
            http3: it.http3,
            proxy_protocol_from: it.proxy_protocol_from,
            upstream: it.upstream,
            merge_slashes: it.merge_slashes,
        };
        listener.fits_together()?;
        Ok(listener)
    }
}

impl ClientAuth {
    /// What it is where it is not said.
    pub fn default_with(client_ca: Option<&Name>) -> Self {
        if client_ca.is_some() { Self::Require } else { Self::None }
    }
}

impl Listener {
    /// Each word where its protocol has a use for it.
    fn fits_together(&self) -> Result<(), Invalid> {
        let wrong = |field: &str, found: &str, allowed: &str| {
            Err(Invalid::field(field).found(format!("{found} with protocol {}", self.protocol.word())).allowed(allowed))
        };
        if self.protocol == ListenerProtocol::Https {
            if self.certificates.is_empty() {
                return wrong("certificates", "none", "at least one certificate");
            }
        } else {
            let https = "protocol https";
            if !self.certificates.is_empty() {
                return wrong("certificates", "certificates", https);
            }
            if self.client_ca.is_some() {
                return wrong("client_ca", "a certificate authority", https);
            }
            if self.client_auth != ClientAuth::None {
                return wrong("client_auth", self.client_auth.word(), https);
            }
            if self.http3 {
                return wrong("http3", "true", https);
            }
        }
        match (self.protocol, &self.upstream) {
            (ListenerProtocol::Tcp, None) => return wrong("upstream", "none", "the upstream that connections go to"),
            (ListenerProtocol::Http | ListenerProtocol::Https, Some(_)) => {
                return wrong("upstream", "an upstream", "protocol tcp or tls_passthrough; HTTP goes by routes");
            }
            _ => {}
        }
        match (self.client_auth, &self.client_ca) {
            (ClientAuth::Require, None) => Err(Invalid::field("client_ca")
                .found("none with client_auth require")
                .allowed("a certificate authority")),
            (ClientAuth::None, Some(_)) => {
                Err(Invalid::field("client_auth").found("none with a client_ca").allowed("request, require"))
            }
            _ => Ok(()),
        }
    }
}

fn address(text: &str) -> Result<SocketAddr, Invalid> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(address),
        _ => Err(Invalid::field("address")
            .found(format!("{text:?}"))
            .allowed("an IP address and a port from 1 to 65535, such as 0.0.0.0:8443 or [::]:8443")),
    }
}
