//! Client certificates: every one is taken in the handshake, which proves that the client has its key, and judged by the
//! route that asks for one: by its authority, its time, its use and the revocation lists.

use std::sync::Arc;

use ::aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use quorumgate_model::resource::{CertificateAuthority, ConsumerFrom, Name};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime, pem::PemObject};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use super::{AuthFailure, CertificateMarks};

/// How long a judgement on a connection's certificate stands: its time may be over, or the lists be new.
pub(crate) const JUDGED_FOR_S: u64 = 30;

/// What an auth of kind `mtls` asks of a certificate.
#[derive(Debug)]
pub(crate) struct Mtls {
    verifier: Arc<dyn ClientCertVerifier>,
    consumer_from: ConsumerFrom,
}

/// A certificate that was what it has to be.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) marks: Arc<CertificateMarks>,
    /// SHA-256 in hex.
    pub(crate) fingerprint: Arc<str>,
    /// Whom it names, if that can be a consumer's name.
    pub(crate) consumer: Option<Name>,
    /// Seconds since 1970.
    pub(crate) expires: u64,
}

impl Mtls {
    /// The reason is for the operator.
    pub(crate) fn new(ca: &CertificateAuthority, consumer_from: ConsumerFrom) -> Result<Self, String> {
        Ok(Self { verifier: verifier(ca, Presence::Mandatory)?, consumer_from })
    }

    pub(crate) fn judge(&self, chain: &[CertificateDer<'_>], now_s: u64) -> Result<Certificate, AuthFailure> {
        let Some((leaf, between)) = chain.split_first() else { return Err(AuthFailure::Missing) };
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now_s));
        self.verifier.verify_client_cert(leaf, between, now).map_err(failure)?;
        let malformed = AuthFailure::Invalid("the client's certificate cannot be read");
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| malformed)?;
        let marks = marks(leaf, &parsed);
        Ok(Certificate {
            fingerprint: HEXLOWER.encode(&marks.sha256).into(),
            consumer: consumer(self.consumer_from, &parsed, &marks),
            expires: u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0),
            marks: Arc::new(marks),
        })
    }
}

/// Whether a client without a certificate is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Mandatory,
    Optional,
}

/// Of certificates that come from this authority, are of their time, for clients, and on none of the lists. The reason is
/// for the operator.
pub(crate) fn verifier(ca: &CertificateAuthority, presence: Presence) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.pem.as_bytes()) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    let crl = ca.crl.as_deref().unwrap_or_default();
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(crl.as_bytes()).collect();
    let lists = lists.map_err(|error| error.to_string())?;
    let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider());
    // With lists, a certificate that none of them speaks of is refused.
    let builder = builder.with_crls(lists).only_check_end_entity_revocation();
    let builder = match presence {
        Presence::Mandatory => builder,
        Presence::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| error.to_string())
}

fn failure(error: rustls::Error) -> AuthFailure {
    let rustls::Error::InvalidCertificate(error) = error else {
        return AuthFailure::Invalid("the client's certificate is not taken here");
    };
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => AuthFailure::Expired,
        CertificateError::Revoked => AuthFailure::Revoked,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            AuthFailure::Invalid("the client's certificate is not yet valid")
        }
        CertificateError::UnknownIssuer => AuthFailure::Invalid("the client's certificate is of an unknown issuer"),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            AuthFailure::Invalid("the certificate is not for TLS clients")
        }
        CertificateError::UnknownRevocationStatus => {
            AuthFailure::Invalid("no revocation list speaks of the client's certificate")
        }
        CertificateError::BadSignature => AuthFailure::SignatureInvalid,
        _ => AuthFailure::Invalid("the client's certificate is not taken here"),
    }
}

/// SHA-256 of a certificate: the `x5t#S256` of RFC 8705.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn marks(der: &[u8], parsed: &X509Certificate<'_>) -> CertificateMarks {
    let serial = parsed.raw_serial();
    let zeros = serial.iter().take_while(|byte| **byte == 0).count().min(serial.len().saturating_sub(1));
    CertificateMarks {
        issuer_sha256: sha256(parsed.issuer().as_raw()),
        serial: serial[zeros..].into(),
        spki_sha256: sha256(parsed.public_key().raw),
        sha256: sha256(der),
    }
}

fn consumer(from: ConsumerFrom, parsed: &X509Certificate<'_>, marks: &CertificateMarks) -> Option<Name> {
    let names = || {
        let extension = parsed.subject_alternative_name().ok().flatten();
        extension.into_iter().flat_map(|extension| &extension.value.general_names)
    };
    // More than one of the kind: which of them is meant cannot be told.
    let only = |kind: fn(&GeneralName<'_>) -> Option<String>| {
        let mut found = names().filter_map(kind);
        found.next().filter(|_| found.next().is_none())
    };
    let text = match from {
        ConsumerFrom::SanUri => only(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        })
        .and_then(|uri| last_segment(&uri).map(str::to_owned)),
        // Alone in that case says nothing (RFC 4343).
        ConsumerFrom::SanDns => only(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        }),
        ConsumerFrom::SanEmail => only(|name| match name {
            GeneralName::RFC822Name(address) => address.split('@').next().map(str::to_owned),
            _ => None,
        }),
        ConsumerFrom::SubjectCn => {
            let mut found = parsed.subject().iter_common_name().filter_map(|it| it.as_str().ok());
            found.next().filter(|_| found.next().is_none()).map(str::to_owned)
        }
        ConsumerFrom::Subject => hyphened(&parsed.subject().to_string()),
        // A name has 63 characters at most.
        ConsumerFrom::Fingerprint => Some(HEXLOWER.encode(&marks.sha256)[..32].to_owned()),
    };
    // Nothing is folded into a name: what two certificates say differently must not become one consumer.
    text?.parse().ok()
}

/// `spiffe://acme.test/ns/shop/acme` is `acme`. Of the path alone: what follows ? or # is no part of it.
fn last_segment(uri: &str) -> Option<&str> {
    let (_, behind_scheme) = uri.split_once("://").filter(|_| !uri.contains(['?', '#']))?;
    let (_, path) = behind_scheme.split_once('/')?;
    path.rsplit('/').next().filter(|segment| !segment.is_empty())
}

/// `CN=acme, O=shop` is `cn-acme--o-shop`. Only where that can be read back: a value has what a name may have, and no
/// hyphens that could be taken for those in between.
fn hyphened(subject: &str) -> Option<String> {
    let part = |part: &str| {
        let (kind, value) = part.split_once('=')?;
        let is_kind = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphabetic());
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        let is_apart = !value.starts_with('-') && !value.ends_with('-') && !value.contains("--");
        let is_value = !value.is_empty() && value.bytes().all(is_plain) && is_apart;
        (is_kind && is_value).then(|| format!("{}-{value}", kind.to_ascii_lowercase()))
    };
    let parts: Option<Vec<String>> = subject.split(", ").map(part).collect();
    parts.map(|parts| parts.join("--"))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Asks for a certificate and takes any whose key the client proves to have; whether it opens anything is for routes.
#[derive(Debug)]
pub(crate) struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyCertificate {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { algorithms: provider().signature_verification_algorithms })
    }
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_by_the_last_segment_of_its_path_alone() {
        for (uri, expected) in [
            ("spiffe://acme.test/ns/shop/acme", Some("acme")),
            ("spiffe://acme.test/acme", Some("acme")),
            ("spiffe://a/Acme", Some("Acme")),
            ("spiffe://acme", None),
            ("spiffe://a/acme/", None),
            ("spiffe://a/", None),
            ("https://a/x?as=/acme", None),
            ("https://a/x#/acme", None),
            ("https://a/acme?", None),
            ("urn:a/acme", None),
        ] {
            assert_eq!(last_segment(uri), expected, "{uri}");
        }
    }

    #[test]
    fn two_subjects_are_never_one_name() {
        assert_eq!(hyphened("CN=acme, O=shop").as_deref(), Some("cn-acme--o-shop"));
        assert_eq!(hyphened("CN=acme-1.eu").as_deref(), Some("cn-acme-1.eu"));
        for other in
            ["CN=Acme, O=shop", "CN=acme--o-shop", "CN=acme-, O=shop", "CN=acme, O=-shop", "CN=ac me", "CN=a + O=b", ""]
        {
            assert_eq!(hyphened(other), None, "{other}");
        }
    }
}
