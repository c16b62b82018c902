//! Certificates that the gateway shows to clients: the chain as PEM, and its key, which is sealed in the cluster.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{Name, Secret, check, is_host};
use crate::invalid::Invalid;

/// Bytes of the chain, as PEM.
pub const CHAIN_BYTES_MAX: usize = 256 << 10;
/// Bytes of a stapled OCSP answer.
pub const OCSP_BYTES_MAX: usize = 16 << 10;
/// Names that one certificate may be shown for.
pub const CERTIFICATE_HOSTS_MAX: usize = 1_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "CertificateWords", into = "CertificateWords")]
pub struct Certificate {
    pub name: Name,
    pub labels: BTreeMap<String, String>,
    pub owner: String,
    pub description: String,
    /// The server names that it is shown for; empty: the default, for every name that no other certificate has.
    pub hosts: Vec<CertificateHost>,
    /// The certificate and those between it and a root, as PEM. What is inside is read by the node, which refuses it
    /// before it is proposed.
    pub chain: String,
    pub key: Secret,
    /// A DER response (RFC 6960) to be stapled.
    pub ocsp: Option<Vec<u8>>,
}

/// `api.acme.test`, or `*.acme.test` for one label, as in certificates (RFC 9525 section 6.3).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertificateHost {
    Exact(String),
    /// Without the `*.`.
    Wildcard(String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateWords {
    pub name: Name,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub owner: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub hosts: Vec<String>,
    pub chain: String,
    pub key: Secret,
    /// Base64.
    #[serde(default)]
    pub ocsp: Option<String>,
}

impl TryFrom<CertificateWords> for Certificate {
    type Error = Invalid;

    fn try_from(it: CertificateWords) -> Result<Self, Invalid> {
        check::meta(&it.labels, &it.owner, &it.description)?;
        check::count("hosts", it.hosts.len(), CERTIFICATE_HOSTS_MAX)?;
        let hosts =
            it.hosts.iter().enumerate().map(|(place, text)| host(place, text)).collect::<Result<Vec<_>, _>>()?;
        check::once("hosts", &hosts, CertificateHost::to_string)?;
        check::pem("chain", &it.chain, "CERTIFICATE", CHAIN_BYTES_MAX)?;
        it.key.check("key")?;
        let ocsp = it.ocsp.as_deref().map(ocsp).transpose()?;
        let CertificateWords { name, labels, owner, description, chain, key, .. } = it;
        Ok(Self { name, labels, owner, description, hosts, chain, key, ocsp })
    }
}

impl From<Certificate> for CertificateWords {
    fn from(it: Certificate) -> Self {
        Self {
            name: it.name,
            labels: it.labels,
            owner: it.owner,
            description: it.description,
            hosts: it.hosts.iter().map(CertificateHost::to_string).collect(),
            chain: it.chain,
            key: it.key,
            ocsp: it.ocsp.map(|der| data_encoding::BASE64.encode(&der)),
        }
    }
}

fn host(place: usize, text: &str) -> Result<CertificateHost, Invalid> {
    match text.strip_prefix("*.") {
        // The parent of a wildcard has two labels at least: nobody is the server of every name under a top-level domain.
        Some(parent) if is_host(parent) && parent.contains('.') => {
            Ok(CertificateHost::Wildcard(parent.to_ascii_lowercase()))
        }
        None if is_host(text) => Ok(CertificateHost::Exact(text.to_ascii_lowercase())),
        _ => Err(Invalid::field(format!("hosts[{place}]")).found(format!("{text:?}")).allowed(
            "a host name, such as api.acme.test, or *. and one of two labels or more, such as *.acme.test; \
             no hosts at all make it the default",
        )),
    }
}

fn ocsp(text: &str) -> Result<Vec<u8>, Invalid> {
    let wrong = |found: String| Invalid::field("ocsp").found(found).allowed("an OCSP response as base64 of DER");
    let der = data_encoding::BASE64.decode(text.trim().as_bytes()).map_err(|_| wrong("no base64".into()))?;
    match der.len() {
        0 => Err(wrong("nothing".into())),
        found if found > OCSP_BYTES_MAX => {
            Err(wrong(format!("{found} bytes")).allowed(format!("at most {OCSP_BYTES_MAX} bytes")))
        }
        // An OCSPResponse is a SEQUENCE.
        _ if der[0] != 0x30 => Err(wrong("another form".into())),
        _ => Ok(der),
    }
}

impl fmt::Display for CertificateHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CertificateHost::Exact(host) => f.write_str(host),
            CertificateHost::Wildcard(parent) => write!(f, "*.{parent}"),
        }
    }
}
