//! TLS towards clients: which certificate a handshake shows, who may come, and the tickets that spare the next one.

mod certificate;
mod names;
mod tickets;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::aws_lc_rs::digest::{SHA256, digest};
use quorumgate_model::resource::{CertificateAuthority, ClientAuth};
use rustls::{
    HandshakeKind, ServerConfig, ServerConnection,
    crypto::aws_lc_rs,
    server::{NoServerSessionStorage, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio_rustls::TlsAcceptor;

pub use certificate::{Shown, chain_not_after, check_chain};
pub(crate) use names::Names;
pub use tickets::{TICKET_KEY_BYTES, TICKET_LIFETIME, TicketKeys};

use crate::identity::mtls::{self, AnyCertificate, Presence};

/// Everything that the handshakes of one listener need. Immutable; swapped whole.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) names: Arc<Names>,
    clients: Clients,
    /// With HTTP/3.
    #[cfg(feature = "http3")]
    pub(crate) quic: Option<crate::http3::Quic>,
}

/// Who may come, by certificate.
#[derive(Clone)]
pub(crate) struct Clients {
    auth: ClientAuth,
    /// None: any certificate is taken, and judged by routes.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// Of all that decides about a client: tickets are bound to it.
    digest: [u8; 32],
}

impl Clients {
    /// The reason is for the operator.
    pub(crate) fn new(auth: ClientAuth, ca: Option<&CertificateAuthority>) -> Result<Self, String> {
        let mut asked = format!("quorumgate listener {} ", auth.word()).into_bytes();
        for part in [ca.map(|ca| ca.pem.as_str()), ca.and_then(|ca| ca.crl.as_deref())] {
            let part = part.unwrap_or_default().as_bytes();
            asked.extend_from_slice(&(part.len() as u64).to_be_bytes());
            asked.extend_from_slice(part);
        }
        let digest = digest(&SHA256, &asked).as_ref().try_into().expect("SHA-256 has 32 bytes");
        let presence = if auth == ClientAuth::Require { Presence::Mandatory } else { Presence::Optional };
        let verifier = ca.map(|ca| mtls::verifier(ca, presence)).transpose()?;
        Ok(Self { auth, verifier, digest })
    }

    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// A resumed session has skipped the look at the certificate: its time may be over, or the lists be new.
    fn still_takes(&self, chain: Option<&[CertificateDer<'_>]>) -> bool {
        let Some(verifier) = &self.verifier else { return true };
        let Some((leaf, between)) = chain.and_then(|chain| chain.split_first()) else {
            return self.auth != ClientAuth::Require;
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        verifier.verify_client_cert(leaf, between, UnixTime::since_unix_epoch(now)).is_ok()
    }
}

impl Setup {
    /// TLS 1.2 and 1.3; HTTP/2 is preferred, HTTP/1.1 is what a client without ALPN gets.
    pub(crate) fn new(names: Names, clients: Clients, keys: &Arc<TicketKeys>) -> anyhow::Result<Self> {
        let names = Arc::new(names);
        let mut config = Self::config(&names, &clients, keys, rustls::DEFAULT_VERSIONS)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self {
            acceptor,
            names,
            clients,
            #[cfg(feature = "http3")]
            quic: None,
        })
    }

    /// The same certificates and clients over QUIC, which is TLS 1.3 alone.
    #[cfg(feature = "http3")]
    pub(crate) fn with_http3(
        mut self,
        keys: &Arc<TicketKeys>,
        tokens: &crate::http3::TokenKey,
    ) -> anyhow::Result<Self> {
        let config = Self::config(&self.names, &self.clients, keys, &[&rustls::version::TLS13])?;
        self.quic = Some(crate::http3::Quic::new(config, tokens)?);
        Ok(self)
    }

    fn config(
        names: &Arc<Names>,
        clients: &Clients,
        keys: &Arc<TicketKeys>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> anyhow::Result<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)?;
        let builder = match (clients.auth, &clients.verifier) {
            (ClientAuth::None, _) => builder.with_no_client_auth(),
            (_, Some(verifier)) => builder.with_client_cert_verifier(verifier.clone()),
            (_, None) => builder.with_client_cert_verifier(AnyCertificate::new()),
        };
        let mut config = builder.with_cert_resolver(names.clone());
        config.ticketer = tickets::Tickets::new(keys.clone(), clients.digest);
        // Tickets alone: what one node remembers is of no use at another.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(config)
    }

    /// What a finished handshake did not look at.
    pub(crate) fn still_takes(&self, session: &ServerConnection) -> bool {
        session.handshake_kind() != Some(HandshakeKind::Resumed)
            || self.clients.still_takes(session.peer_certificates())
    }

    /// Whether a client with this chain may come, in a handshake that may have been a resumed one.
    #[cfg(feature = "http3")]
    pub(crate) fn takes(&self, chain: Option<&[CertificateDer<'_>]>) -> bool {
        self.clients.still_takes(chain)
    }

    pub(crate) fn clients(&self) -> &Clients {
        &self.clients
    }
}
