//! The certificate and key that this node holds, on disk and in every TLS endpoint, swapped while they are in use.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use arc_swap::ArcSwap;
use rustls::{
    client::ResolvesClientCert,
    pki_types::{CertificateDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{NodeKey, TLS_DIR, files, verify::provider};

const CA_FILE: &str = "ca.pem";
const CERTIFICATE_FILE: &str = "node.pem";
const KEY_FILE: &str = "node.key";

/// Resolves to the newest certificate at every handshake.
pub struct Held {
    dir: PathBuf,
    key: NodeKey,
    ca: CertificateDer<'static>,
    current: ArcSwap<Current>,
}

struct Current {
    certified: Arc<CertifiedKey>,
    /// Seconds since 1970.
    not_before: i64,
    not_after: i64,
}

impl Held {
    /// From `<data-dir>/tls`.
    pub fn read(data_dir: &std::path::Path) -> anyhow::Result<Self> {
        let dir = data_dir.join(TLS_DIR);
        let key = files::read_private(&dir.join(KEY_FILE))?;
        let key = NodeKey::from_pem(std::str::from_utf8(&key).context("node.key is not PEM")?)?;
        let pem = |name: &str| {
            let file = dir.join(name);
            CertificateDer::from_pem_file(&file).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))
        };
        let ca = pem(CA_FILE)?;
        let current = Current::new(&key, pem(CERTIFICATE_FILE)?, &ca)?;
        Ok(Self { dir, key, ca, current: ArcSwap::from_pointee(current) })
    }

    /// Writes a node's first files.
    pub fn write(
        data_dir: &std::path::Path,
        key: &NodeKey,
        ca: &CertificateDer<'_>,
        certificate: &CertificateDer<'_>,
    ) -> anyhow::Result<()> {
        let dir = data_dir.join(TLS_DIR);
        files::write_private(&dir.join(KEY_FILE), key.to_pem().as_bytes())?;
        files::write_atomic(&dir.join(CA_FILE), to_pem(ca).as_bytes())?;
        files::write_atomic(&dir.join(CERTIFICATE_FILE), to_pem(certificate).as_bytes())
    }

    /// The key of a half-prepared directory, kept so that a repeated join is the same join; made if there is none.
    pub fn key_of(data_dir: &std::path::Path) -> anyhow::Result<NodeKey> {
        let file = data_dir.join(TLS_DIR).join(KEY_FILE);
        if file.exists() {
            return NodeKey::from_pem(std::str::from_utf8(&files::read_private(&file)?)?);
        }
        let key = NodeKey::generate()?;
        files::write_private(&file, key.to_pem().as_bytes())?;
        Ok(key)
    }

    /// Takes a renewed certificate into use, and writes it down.
    pub fn swap(&self, certificate: CertificateDer<'static>) -> anyhow::Result<()> {
        let current = Current::new(&self.key, certificate.clone(), &self.ca)?;
        files::write_atomic(&self.dir.join(CERTIFICATE_FILE), to_pem(&certificate).as_bytes())?;
        self.current.store(Arc::new(current));
        Ok(())
    }

    pub fn key(&self) -> &NodeKey {
        &self.key
    }

    pub fn ca(&self) -> &CertificateDer<'static> {
        &self.ca
    }

    pub fn ca_pem(&self) -> String {
        to_pem(&self.ca)
    }

    /// Seconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.current.load().not_after
    }

    /// How long until it should be renewed: zero once a third of the lifetime has passed, or it has ended.
    pub fn renewal_in(&self, now: Duration, lifetime: Duration) -> Duration {
        let current = self.current.load();
        // The certificate is backdated: its life, as far as renewal goes, is what the signer gave it.
        let whole = (current.not_after - current.not_before).max(0) as u64;
        let life = lifetime.min(Duration::from_secs(whole));
        let due = Duration::from_secs(current.not_after.max(0) as u64).saturating_sub(life * 2 / 3);
        due.saturating_sub(now)
    }

    pub fn is_expired(&self, now: Duration) -> bool {
        self.not_after() <= i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
    }
}

impl Current {
    /// The CA goes with the certificate, so that a joiner can pin it.
    fn new(key: &NodeKey, certificate: CertificateDer<'static>, ca: &CertificateDer<'static>) -> anyhow::Result<Self> {
        let (_, parsed) = X509Certificate::from_der(&certificate).context("the node's certificate")?;
        let (not_before, not_after) =
            (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        let signer = provider().key_provider.load_private_key(key.to_der())?;
        let certified = CertifiedKey::new(vec![certificate, ca.clone()], signer);
        certified.keys_match().context("the node's key and certificate")?;
        Ok(Self { certified: Arc::new(certified), not_before, not_after })
    }
}

impl ResolvesServerCert for Held {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().certified.clone())
    }
}

impl ResolvesClientCert for Held {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().certified.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Held({})", self.dir.display())
    }
}

fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let body = data_encoding::BASE64.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in body.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
