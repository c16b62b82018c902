//! Which certificate a handshake shows: that of the exact server name, else of the wildcard, else the default; with none
//! of them the handshake is refused.

use std::{collections::HashMap, sync::Arc};

use quorumgate_model::resource::CertificateHost;
use rustls::{
    SignatureScheme,
    client::verify_server_name,
    server::{ClientHello, ParsedCertificate, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::ServerName;

use super::Shown;

#[derive(Debug, Default)]
pub(crate) struct Names {
    exact: HashMap<String, Vec<Shown>>,
    /// By the parent of the `*`.
    wildcards: HashMap<String, Vec<Shown>>,
    default: Vec<Shown>,
}

impl Names {
    /// Without hosts it is a default. Of several for one name the first wins whose key suits the client.
    pub(crate) fn add(&mut self, hosts: &[CertificateHost], shown: &Shown) {
        for host in hosts {
            let list = match host {
                CertificateHost::Exact(host) => self.exact.entry(host.clone()),
                CertificateHost::Wildcard(parent) => self.wildcards.entry(parent.clone()),
            };
            list.or_default().push(shown.clone());
        }
        if hosts.is_empty() {
            self.default.push(shown.clone());
        }
    }

    pub(crate) fn one(shown: Shown) -> Self {
        Self { default: vec![shown], ..Self::default() }
    }

    /// The best of those for this name (lower case); of equals, the first.
    fn candidates(&self, name: Option<&str>) -> &[Shown] {
        let Some(name) = name else { return &self.default };
        let wildcard = || name.split_once('.').and_then(|(_, parent)| self.wildcards.get(parent));
        self.exact.get(name).or_else(wildcard).unwrap_or(&self.default)
    }

    /// Whether what was shown for `name` speaks for `host` too.
    pub(crate) fn covers(&self, name: &str, host: &str) -> bool {
        let host = host.strip_prefix('[').and_then(|v6| v6.strip_suffix(']')).unwrap_or(host);
        let Ok(server) = ServerName::try_from(host) else { return false };
        // Asked for names only that differ from the one of the handshake: not worth keeping it parsed.
        self.candidates(Some(name)).first().is_some_and(|shown| {
            ParsedCertificate::try_from(shown.leaf()).is_ok_and(|it| verify_server_name(&it, &server).is_ok())
        })
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let name = name.map(str::to_ascii_lowercase);
        let candidates = self.candidates(name.as_deref());
        let chosen = candidates.iter().find(|it| it.suits(schemes)).or(candidates.first());
        chosen.map(|it| it.key.clone())
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}
