//! One certificate as handshakes use it: its chain and key read once, by the same code that checks what operators bring.

use std::sync::Arc;

use quorumgate_model::{invalid::Invalid, resource::Certificate};
use rustls::{Error, InconsistentKeys, SignatureScheme, crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a handshake shows, and until when it is good.
#[derive(Debug, Clone)]
pub struct Shown {
    pub(crate) key: Arc<CertifiedKey>,
    /// Seconds since 1970.
    pub(crate) not_after_s: i64,
}

impl Shown {
    /// From the resource and its open key (PEM: PKCS#8, SEC1 or PKCS#1). Field paths are relative to the resource.
    pub fn read(it: &Certificate, key: &[u8]) -> Result<Self, Invalid> {
        let mut shown = Self::from_pem(it.chain.as_bytes(), key)?;
        if let Some(ocsp) = &it.ocsp {
            Arc::make_mut(&mut shown.key).ocsp = Some(ocsp.clone());
        }
        Ok(shown)
    }

    pub(crate) fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, Invalid> {
        let chain = read_chain(chain)?;
        let not_after_s = not_after(&chain[0])?;
        // Nothing of what stands there is repeated: it may be a key.
        let wrong = |found: &str, allowed: &str| Invalid::field("key").found(found).allowed(allowed);
        let der = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
            wrong("no private key", "an unencrypted private key as PEM: PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY")
        })?;
        let signing = aws_lc_rs::sign::any_supported_type(&der).map_err(|_| {
            wrong("a key that cannot sign here", "RSA of 2048 to 8192 bits, ECDSA (P-256, P-384, P-521) or Ed25519")
        })?;
        let key = CertifiedKey::new(chain, signing);
        match key.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => {
                return Err(wrong("a key of another certificate", "the key of the first certificate in chain"));
            }
            Err(error) => return Err(unreadable(0, &error.to_string())),
        }
        Ok(Self { key: Arc::new(key), not_after_s })
    }

    /// Whether the key makes signatures that this client can check.
    pub(crate) fn suits(&self, schemes: &[SignatureScheme]) -> bool {
        self.key.key.choose_scheme(schemes).is_some()
    }

    pub(crate) fn leaf(&self) -> &CertificateDer<'static> {
        &self.key.cert[0]
    }
}

/// The chain alone, for where its key is sealed.
pub fn check_chain(it: &Certificate) -> Result<(), Invalid> {
    let chain = read_chain(it.chain.as_bytes())?;
    not_after(&chain[0]).map(drop)
}

/// Until when the first certificate of a chain is good, in seconds since 1970.
pub fn chain_not_after(it: &Certificate) -> Option<i64> {
    not_after(read_chain(it.chain.as_bytes()).ok()?.first()?).ok()
}

/// At least one, and each of them X.509.
fn read_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Invalid> {
    let mut chain = Vec::new();
    for (place, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let certificate = certificate.map_err(|error| unreadable(place, &error.to_string()))?;
        X509Certificate::from_der(&certificate).map_err(|error| unreadable(place, &error.to_string()))?;
        chain.push(certificate);
    }
    match chain.is_empty() {
        true => Err(Invalid::field("chain").found("no certificate").allowed("PEM, the server's certificate first")),
        false => Ok(chain),
    }
}

fn not_after(certificate: &CertificateDer<'_>) -> Result<i64, Invalid> {
    let parsed = X509Certificate::from_der(certificate).map_err(|error| unreadable(0, &error.to_string()));
    parsed.map(|(_, parsed)| parsed.validity().not_after.timestamp())
}

fn unreadable(place: usize, why: &str) -> Invalid {
    let found = format!("block {} of it, which is no certificate ({why})", place + 1);
    Invalid::field("chain").found(found).allowed("X.509 certificates as PEM, the server's first")
}
