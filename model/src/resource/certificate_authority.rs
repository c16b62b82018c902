//! Certificate authorities: whose certificates clients may come with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Name, check};
use crate::invalid::Invalid;

/// Bytes of the certificates, and of the revocation lists.
pub const PEM_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "CertificateAuthorityWords")]
pub struct CertificateAuthority {
    pub name: Name,
    pub labels: BTreeMap<String, String>,
    pub owner: String,
    pub description: String,
    /// One certificate or more, as PEM. What is inside is read by the node, which refuses it before it is proposed.
    pub pem: String,
    /// Revocation lists, as PEM.
    pub crl: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateAuthorityWords {
    pub name: Name,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub owner: String,
    #[serde(default)]
    pub description: String,
    pub pem: String,
    #[serde(default)]
    pub crl: Option<String>,
}

impl TryFrom<CertificateAuthorityWords> for CertificateAuthority {
    type Error = Invalid;

    fn try_from(it: CertificateAuthorityWords) -> Result<Self, Invalid> {
        check::meta(&it.labels, &it.owner, &it.description)?;
        check::pem("pem", &it.pem, "CERTIFICATE", PEM_BYTES_MAX)?;
        if let Some(crl) = &it.crl {
            check::pem("crl", crl, "X509 CRL", PEM_BYTES_MAX)?;
        }
        let CertificateAuthorityWords { name, labels, owner, description, pem, crl } = it;
        Ok(Self { name, labels, owner, description, pem, crl })
    }
}
