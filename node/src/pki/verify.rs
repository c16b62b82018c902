//! Who is at the other end: chains are verified against the cluster's CA by webpki, names by our own SAN URI.

use std::sync::{Arc, OnceLock};

use anyhow::Context;
use arc_swap::ArcSwap;
use quorumgate_model::{
    NodeId,
    mutants::{self, Mutant},
};
use rustls::{
    CertificateError,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, TrustAnchor, UnixTime},
};
use webpki::{EndEntityCert, KeyUsage};

use super::sha256;

/// The one crypto provider of the process.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())).clone()
}

/// The cluster's CA as the root of trust; two of them while it is being replaced. What is trusted changes for all clones.
#[derive(Debug, Clone)]
pub struct Anchor {
    anchors: Arc<ArcSwap<Vec<TrustAnchor<'static>>>>,
}

/// What a verified certificate says of its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerIdentity {
    pub cluster: [u8; 16],
    pub node: NodeId,
    pub spki_sha256: [u8; 32],
}

/// A chain that leads to the CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presented {
    Valid(PeerIdentity),
    /// In everything but its time.
    Expired(PeerIdentity),
}

impl Anchor {
    pub fn new(ca: &CertificateDer<'_>) -> anyhow::Result<Self> {
        Self::of(std::slice::from_ref(ca))
    }

    pub fn of(cas: &[CertificateDer<'_>]) -> anyhow::Result<Self> {
        Ok(Self { anchors: Arc::new(ArcSwap::from_pointee(anchors(cas)?)) })
    }

    /// These and no others, from the next handshake on.
    pub fn trust(&self, cas: &[CertificateDer<'_>]) -> anyhow::Result<()> {
        self.anchors.store(Arc::new(anchors(cas)?));
        Ok(())
    }

    /// What join tokens pin; of the first.
    pub fn spki_sha256(&self) -> [u8; 32] {
        self.anchors.load().first().map_or([0; 32], |anchor| sha256(&webpki::spki_for_anchor(anchor)))
    }

    /// Verifies the chain at `now`; an expired one is told apart, everything else is an error.
    pub fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        usage: KeyUsage,
        now: UnixTime,
    ) -> Result<Presented, rustls::Error> {
        let bad = |error: CertificateError| rustls::Error::InvalidCertificate(error);
        let certificate = EndEntityCert::try_from(end_entity).map_err(|_| bad(CertificateError::BadEncoding))?;
        let identity = identity(&certificate).ok_or(bad(CertificateError::NotValidForName))?;
        let anchors = self.anchors.load();
        let chain = |time| {
            let algorithms = provider().signature_verification_algorithms.all;
            certificate.verify_for_usage(algorithms, &anchors, &[], time, usage, None, None).map(|_| ())
        };
        match chain(now) {
            Ok(()) => Ok(Presented::Valid(identity)),
            Err(_) if mutants::is(Mutant::AnyIssuer) => Ok(Presented::Valid(identity)),
            Err(webpki::Error::CertExpired { not_after, .. }) => match chain(not_after) {
                Ok(()) => Ok(Presented::Expired(identity)),
                Err(error) => Err(bad(other(&error))),
            },
            Err(webpki::Error::CertNotValidYet { time, not_before }) => {
                Err(bad(CertificateError::NotValidYetContext { time, not_before }))
            }
            Err(webpki::Error::UnknownIssuer) => Err(bad(CertificateError::UnknownIssuer)),
            Err(error) => Err(bad(other(&error))),
        }
    }
}

fn anchors(cas: &[CertificateDer<'_>]) -> anyhow::Result<Vec<TrustAnchor<'static>>> {
    let anchor = |ca| Ok(webpki::anchor_from_trusted_cert(ca).context("the cluster CA's certificate")?.to_owned());
    cas.iter().map(anchor).collect()
}

fn other(error: &webpki::Error) -> CertificateError {
    match error {
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        _ => CertificateError::Other(rustls::OtherError(Arc::new(error.clone()))),
    }
}

/// From the one SAN URI of the form `quorumgate://<cluster hex>/<node id>`.
fn identity(certificate: &EndEntityCert<'_>) -> Option<PeerIdentity> {
    let mut uris = certificate.valid_uri_names();
    let (uri, None) = (uris.next()?, uris.next()) else { return None };
    let (cluster, node) = uri.strip_prefix("quorumgate://")?.split_once('/')?;
    let cluster = data_encoding::HEXLOWER.decode(cluster.as_bytes()).ok()?.try_into().ok()?;
    let spki_sha256 = sha256(&certificate.subject_public_key_info());
    Some(PeerIdentity { cluster, node: node.parse().ok()?, spki_sha256 })
}
