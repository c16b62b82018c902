//! The certificate and key that this node holds, on disk and in every TLS endpoint, swapped while they are in use.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use arc_swap::ArcSwap;
use rustls::{
    client::ResolvesClientCert,
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use webpki::KeyUsage;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Anchor, NodeKey, TLS_DIR, files, sha256, verify::provider};

const CA_FILE: &str = "ca.pem";
const CERTIFICATE_FILE: &str = "node.pem";
const KEY_FILE: &str = "node.key";

/// Resolves to the newest certificate at every handshake.
pub struct Held {
    dir: PathBuf,
    key: NodeKey,
    /// Those that are trusted, the one that signs first.
    cas: ArcSwap<Vec<CertificateDer<'static>>>,
    current: ArcSwap<Current>,
}

struct Current {
    certified: Arc<CertifiedKey>,
    /// Seconds since 1970.
    not_before: i64,
    not_after: i64,
    /// SHA-256 of the certificate of the CA that has signed it; zeros if it is none of those that are trusted.
    issuer_sha256: [u8; 32],
}

impl Held {
    /// From `<data-dir>/tls`.
    pub fn read(data_dir: &std::path::Path) -> anyhow::Result<Self> {
        let dir = data_dir.join(TLS_DIR);
        let key = files::read_private(&dir.join(KEY_FILE))?;
        let key = NodeKey::from_pem(std::str::from_utf8(&key).context("node.key is not PEM")?)?;
        let pem = |name: &str| {
            let file = dir.join(name);
            let all = CertificateDer::pem_file_iter(&file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let all = all.map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
            anyhow::ensure!(!all.is_empty(), "{}: it holds no certificate", file.display());
            Ok(all)
        };
        let cas = pem(CA_FILE)?;
        let current = Current::new(&key, pem(CERTIFICATE_FILE)?.swap_remove(0), &cas)?;
        Ok(Self { dir, key, cas: ArcSwap::from_pointee(cas), current: ArcSwap::from_pointee(current) })
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
        let current = Current::new(&self.key, certificate.clone(), &self.cas.load())?;
        files::write_atomic(&self.dir.join(CERTIFICATE_FILE), to_pem(&certificate).as_bytes())?;
        self.current.store(Arc::new(current));
        Ok(())
    }

    pub fn key(&self) -> &NodeKey {
        &self.key
    }

    /// The one that signs first.
    pub fn cas(&self) -> Arc<Vec<CertificateDer<'static>>> {
        self.cas.load_full()
    }

    /// Writes down which CAs are trusted from now on, the one that signs first.
    pub fn trust(&self, cas: Vec<CertificateDer<'static>>) -> anyhow::Result<()> {
        let pem: String = cas.iter().map(to_pem).collect();
        files::write_atomic(&self.dir.join(CA_FILE), pem.as_bytes())?;
        self.cas.store(Arc::new(cas));
        Ok(())
    }

    pub fn ca_pem(&self) -> String {
        self.cas.load().iter().map(to_pem).collect()
    }

    /// SHA-256 of the certificate of the CA that has signed this node's.
    pub fn issuer_sha256(&self) -> [u8; 32] {
        self.current.load().issuer_sha256
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
    fn new(
        key: &NodeKey,
        certificate: CertificateDer<'static>,
        cas: &[CertificateDer<'static>],
    ) -> anyhow::Result<Self> {
        let signed_by = issuer(&certificate, cas);
        let ca = signed_by.or(cas.first()).context("no CA is trusted")?;
        let (_, parsed) = X509Certificate::from_der(&certificate).context("the node's certificate")?;
        let (not_before, not_after) =
            (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        let signer = provider().key_provider.load_private_key(key.to_der())?;
        let certified = CertifiedKey::new(vec![certificate, ca.clone()], signer);
        certified.keys_match().context("the node's key and certificate")?;
        let issuer_sha256 = signed_by.map_or([0; 32], |ca| sha256(ca));
        Ok(Self { certified: Arc::new(certified), not_before, not_after, issuer_sha256 })
    }
}

/// Which of them has signed it.
fn issuer<'a>(
    certificate: &CertificateDer<'_>,
    cas: &'a [CertificateDer<'static>],
) -> Option<&'a CertificateDer<'static>> {
    // One that has ended is verified as of its last instant.
    let signed = |ca: &&CertificateDer<'static>| {
        Anchor::new(ca).is_ok_and(|it| it.verify(certificate, KeyUsage::client_auth(), UnixTime::now()).is_ok())
    };
    cas.iter().find(signed)
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
