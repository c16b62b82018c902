//! The sockets that workers accept on, one set per worker (SO_REUSEPORT), and the TLS that their connections speak.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use anyhow::Context;
use quorumgate_model::canonical::Slashes;
use rustls::{ServerConfig, client::verify_server_name, crypto::aws_lc_rs, server::ParsedCertificate};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use socket2::{Domain, Protocol, Socket, Type};
use tokio_rustls::TlsAcceptor;

use crate::{
    connection::Reception,
    identity::mtls::AnyCertificate,
    settings::{ClientAuth, Listener, Tls},
};

/// Connections that may wait to be accepted; the kernel cuts it to its own limit.
const BACKLOG: i32 = 16_384;

/// Each worker's sockets in the order of `listeners`, and the addresses that port 0 became.
pub(crate) fn bind(listeners: &[Listener], workers: usize) -> anyhow::Result<(Vec<Sockets>, Vec<SocketAddr>)> {
    let mut of_worker: Vec<Sockets> = (0..workers).map(|_| Vec::new()).collect();
    let mut addresses = Vec::new();
    for listener in listeners {
        let reception = reception(listener)?;
        let mut address = listener.address;
        // SO_REUSEPORT would share an address with another process in silence: the first socket must have it alone.
        drop(alone(address).with_context(|| format!("listen on {address}"))?);
        for sockets in &mut of_worker {
            let socket = listen(address).with_context(|| format!("listen on {address}"))?;
            address = socket.local_addr()?;
            sockets.push((socket, reception.clone()));
        }
        addresses.push(address);
    }
    Ok((of_worker, addresses))
}

pub(crate) type Sockets = Vec<(TcpListener, Reception)>;

fn socket(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn alone(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = socket(address)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn reception(listener: &Listener) -> anyhow::Result<Reception> {
    let slashes = if listener.merge_slashes { Slashes::Merge } else { Slashes::Keep };
    let Some(tls) = &listener.tls else { return Ok(Reception { tls: None, covered: None, slashes }) };
    let (acceptor, certificate) = acceptor(tls)?;
    Ok(Reception { tls: Some(acceptor), covered: Some(Covered(Arc::new(certificate))), slashes })
}

/// The names for which a listener's certificate speaks.
#[derive(Clone)]
pub(crate) struct Covered(Arc<CertificateDer<'static>>);

impl Covered {
    pub(crate) fn has(&self, host: &str) -> bool {
        let host = host.strip_prefix('[').and_then(|v6| v6.strip_suffix(']')).unwrap_or(host);
        let Ok(name) = ServerName::try_from(host) else { return false };
        // Asked for names only that differ from the one of the handshake: not worth keeping it parsed.
        ParsedCertificate::try_from(&*self.0).is_ok_and(|certificate| verify_server_name(&certificate, &name).is_ok())
    }
}

/// TLS 1.2 and 1.3; HTTP/2 is preferred, HTTP/1.1 is what a client without ALPN gets.
fn acceptor(tls: &Tls) -> anyhow::Result<(TlsAcceptor, CertificateDer<'static>)> {
    let chain = CertificateDer::pem_file_iter(&tls.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("certificate {}", tls.certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).with_context(|| format!("key {}", tls.key.display()))?;
    let certificate =
        chain.first().cloned().with_context(|| format!("no certificate in {}", tls.certificate.display()))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?;
    let builder = match tls.client_auth {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Request => builder.with_client_cert_verifier(AnyCertificate::new()),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .with_context(|| format!("certificate {} with key {}", tls.certificate.display(), tls.key.display()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok((TlsAcceptor::from(Arc::new(config)), certificate))
}
