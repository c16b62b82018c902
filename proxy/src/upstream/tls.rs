//! TLS to an upstream's servers: who is believed, what is shown, which protocol is agreed on.

use std::{io, sync::Arc};

use quorumgate_model::resource::{CertificateAuthority, Protocol, UpstreamTls};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime, pem::PemObject};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

const ALPN_HTTP1: &[u8] = b"http/1.1";
const ALPN_HTTP2: &[u8] = b"h2";

pub(super) struct Tls {
    /// As the upstream's protocol has it.
    config: Arc<ClientConfig>,
    /// For what only HTTP/1.1 can do.
    http1: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

/// Which protocols a connection may be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    Configured,
    Http1,
}

impl Tls {
    /// The error is for the operator.
    pub fn new(
        words: &UpstreamTls,
        protocol: Protocol,
        authority: Option<&CertificateAuthority>,
        shown: Option<&CertifiedKey>,
    ) -> Result<Self, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = verifier(words, authority, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?;
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match (shown, &words.client_certificate) {
            (Some(shown), _) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown.clone()))),
            // A server that asks for it would refuse us, and one that does not would not know who asks.
            (None, Some(name)) => return Err(format!("the certificate {name} cannot be shown on this node")),
            (None, None) => builder.with_no_client_auth(),
        };
        let mut http1 = config.clone();
        http1.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
        config.alpn_protocols = match protocol {
            Protocol::Http1 => vec![ALPN_HTTP1.to_vec()],
            Protocol::Http2 | Protocol::Grpc => vec![ALPN_HTTP2.to_vec()],
            Protocol::Auto => vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()],
        };
        let server_name = words.server_name.clone().map(ServerName::try_from).transpose();
        let server_name = server_name.map_err(|error| error.to_string())?;
        Ok(Self { config: Arc::new(config), http1: Arc::new(http1), server_name })
    }

    /// `host`: of the target, without a port.
    pub async fn connect<IO>(&self, io: IO, host: &str, speaks: Speaks) -> io::Result<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        let config = match speaks {
            Speaks::Configured => &self.config,
            Speaks::Http1 => &self.http1,
        };
        TlsConnector::from(config.clone()).connect(name, io).await
    }
}

pub(super) fn agreed_on_http2<IO>(stream: &TlsStream<IO>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(ALPN_HTTP2)
}

fn verifier(
    words: &UpstreamTls,
    authority: Option<&CertificateAuthority>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    if !words.verify {
        return Ok(Arc::new(Anyone(provider.clone())));
    }
    let Some(authority) = authority else {
        return match &words.ca {
            Some(name) => Err(format!("the certificate authority {name} is not there")),
            None => Ok(Arc::new(Verifier::new(provider.clone()).map_err(|error| text(&error))?)),
        };
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.pem.as_bytes()) {
        roots.add(certificate.map_err(|error| text(&error))?).map_err(|error| text(&error))?;
    }
    let lists = authority.crl.as_deref().unwrap_or_default();
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(lists.as_bytes()).collect();
    let lists = lists.map_err(|error| text(&error))?;
    let builder = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone());
    let verifier = builder.with_crls(lists).only_check_end_entity_revocation().build();
    Ok(verifier.map_err(|error| text(&error))?)
}

/// `verify: false`: whoever answers is believed; that it holds the key of what it shows is still checked.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
