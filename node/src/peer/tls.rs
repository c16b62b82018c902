//! The TLS of the peers' endpoint, by hand: no tickets, no 0-RTT, our own verifiers.

use std::{sync::Arc, time::Duration};

use quinn::{
    IdleTimeout, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use quorumgate_model::mutants::{self, Mutant};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use webpki::KeyUsage;

use crate::pki::{Anchor, Held, Presented, provider};

const ALPN: &[u8] = b"quorumgate-peer/1";
/// What clients put into SNI; servers ignore it.
pub const SERVER_NAME: &str = "quorumgate";

const STREAMS_MAX: u32 = 1024;
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
const WINDOW_BYTES: u32 = 64 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(1);
const IDLE_MAX: Duration = Duration::from_secs(8);
/// Lets a lost first packet be sent again soon; measured round trips take over from there.
const FIRST_RTT: Duration = Duration::from_millis(30);

pub fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(u64::from(WINDOW_BYTES))
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MAX.as_millis() as u32))))
        .initial_rtt(FIRST_RTT);
    Arc::new(transport)
}

/// Takes clients without a certificate (joiners) and with an expired one (renewals): what they may do is decided by
/// the connection's rights, after the handshake.
pub fn server(held: Arc<Held>, anchor: Anchor) -> anyhow::Result<quinn::ServerConfig> {
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(Clients { anchor }))
        .with_cert_resolver(held);
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.send_tls13_tickets = 0;
    tls.max_early_data_size = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    server.transport_config(transport()).migration(false);
    Ok(server)
}

/// A member dialling a member.
pub fn member(held: Arc<Held>, anchor: Anchor) -> anyhow::Result<quinn::ClientConfig> {
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Servers { trust: Trust::Anchor(anchor) }))
        .with_client_cert_resolver(held);
    client(tls)
}

/// A joiner, who knows the CA by its SPKI's hash alone and has no certificate yet.
pub fn joiner(ca_spki_sha256: [u8; 32]) -> anyhow::Result<quinn::ClientConfig> {
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Servers { trust: Trust::Pin(ca_spki_sha256) }))
        .with_no_client_auth();
    client(tls)
}

fn client(mut tls: rustls::ClientConfig) -> anyhow::Result<quinn::ClientConfig> {
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.enable_early_data = false;
    tls.resumption = Resumption::disabled();
    let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    client.transport_config(transport());
    Ok(client)
}

#[derive(Debug)]
struct Clients {
    anchor: Anchor,
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.anchor.verify(end_entity, KeyUsage::client_auth(), now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("QUIC is TLS 1.3".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

#[derive(Debug)]
struct Servers {
    trust: Trust,
}

#[derive(Debug)]
enum Trust {
    Anchor(Anchor),
    /// The CA is the certificate of the chain whose SPKI has this hash.
    Pin([u8; 32]),
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let presented = match &self.trust {
            Trust::Anchor(anchor) => anchor.verify(end_entity, KeyUsage::server_auth(), now)?,
            Trust::Pin(pin) => {
                let anchors = intermediates.iter().filter_map(|certificate| Anchor::new(certificate).ok());
                let Some(anchor) =
                    anchors.into_iter().find(|it| it.spki_sha256() == *pin || mutants::is(Mutant::AnyCaPinned))
                else {
                    return Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
                };
                anchor.verify(end_entity, KeyUsage::server_auth(), now)?
            }
        };
        match presented {
            Presented::Valid(_) => Ok(ServerCertVerified::assertion()),
            Presented::Expired(_) => Err(rustls::Error::InvalidCertificate(CertificateError::Expired)),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("QUIC is TLS 1.3".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn verify_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let algorithms = &provider().signature_verification_algorithms;
    rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
}
