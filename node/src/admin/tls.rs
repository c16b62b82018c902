//! TLS of the admin listener: the node's certificate, and client certificates of the cluster's CA for those who have one.

use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    server::{NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier},
};
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// The CAs that client certificates may be by, as the cluster has them now.
pub type Cas = Arc<dyn Fn() -> Arc<Vec<CertificateDer<'static>>> + Send + Sync>;

/// Made anew when the cluster's CAs are others.
#[derive(Clone)]
pub struct Acceptor {
    certificate: Arc<dyn ResolvesServerCert>,
    cas: Cas,
    current: Arc<ArcSwap<(Arc<Vec<CertificateDer<'static>>>, TlsAcceptor)>>,
}

impl Acceptor {
    pub fn new(certificate: Arc<dyn ResolvesServerCert>, cas: Cas) -> anyhow::Result<Self> {
        let trusted = cas();
        let acceptor = Self::trusting(certificate.clone(), &trusted)?;
        Ok(Self { certificate, cas, current: Arc::new(ArcSwap::from_pointee((trusted, acceptor))) })
    }

    fn trusting(
        certificate: Arc<dyn ResolvesServerCert>,
        cas: &[CertificateDer<'static>],
    ) -> anyhow::Result<TlsAcceptor> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for root in cas {
            roots.add(root.clone()).context("reading the cluster's CA")?;
        }
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .context("the cluster's CA for client certificates")?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(certificate);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A resumed session would keep the rights of a certificate that was removed since.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    pub async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let trusted = (self.cas)();
        let mut current = self.current.load_full();
        if !Arc::ptr_eq(&current.0, &trusted) {
            let acceptor = Self::trusting(self.certificate.clone(), &trusted).map_err(std::io::Error::other)?;
            current = Arc::new((trusted, acceptor));
            self.current.store(current.clone());
        }
        current.1.accept(stream).await
    }
}
