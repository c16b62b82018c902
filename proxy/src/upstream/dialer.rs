//! How connections to an upstream's servers are made: TCP, then a PROXY header, then TLS, each as configured.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use quorumgate_model::resource::{CertificateAuthority, Protocol, ProxyProtocol, Upstream, UpstreamTls};
use rustls::sign::CertifiedKey;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use super::{
    Failure,
    endpoint::Endpoint,
    proxy_header,
    registry::Book,
    tls::{Speaks, Tls},
};

pub(super) struct Dialer {
    words: Words,
    /// None: cleartext.
    tls: Option<Result<Tls, String>>,
}

/// What a dialer is made of: as long as that stays, so do it and the connections that it made.
#[derive(PartialEq, Eq)]
struct Words {
    protocol: Protocol,
    tls: Option<UpstreamTls>,
    authority: Option<Arc<CertificateAuthority>>,
    shown: Option<Shown>,
    proxy_protocol: Option<ProxyProtocol>,
}

/// A certificate with its key, as it was read: another reading of the same is another one.
#[derive(Debug, Clone)]
pub(super) struct Shown(pub Arc<CertifiedKey>);

impl PartialEq for Shown {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Shown {}

/// A connection that nothing of HTTP was said on yet.
pub(super) enum Dialed<IO> {
    Plain(IO),
    Tls(Box<TlsStream<IO>>),
}

impl Dialer {
    pub fn build(config: &Upstream, book: &Book, before: Option<&Arc<Self>>) -> Arc<Self> {
        let words = Words {
            protocol: config.protocol,
            tls: config.tls.clone(),
            authority: book.authority(config).cloned(),
            shown: book.shown(config).cloned(),
            proxy_protocol: config.proxy_protocol,
        };
        if let Some(before) = before.filter(|before| before.words == words) {
            return before.clone();
        }
        let tls = words.tls.as_ref().map(|tls| {
            let shown = words.shown.as_ref().map(|shown| &*shown.0);
            Tls::new(tls, words.protocol, words.authority.as_deref(), shown)
        });
        let upstream = &*config.name;
        match (&tls, &words.tls) {
            (Some(Err(why)), _) => tracing::warn!(upstream, why, "TLS to this upstream cannot be spoken"),
            (_, Some(UpstreamTls { verify: false, .. })) => {
                tracing::warn!(upstream, "who the servers of this upstream are is not verified");
            }
            _ => (),
        }
        Arc::new(Self { words, tls })
    }

    pub fn protocol(&self) -> Protocol {
        self.words.protocol
    }

    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether a connection is for one client alone.
    pub fn tells_whom(&self) -> bool {
        self.words.proxy_protocol.is_some()
    }

    /// None: for the gateway itself.
    pub async fn connect(
        &self,
        endpoint: &Endpoint,
        whom: Option<SocketAddr>,
        limit: Duration,
    ) -> Result<TcpStream, Failure> {
        let connect = async {
            let mut stream = TcpStream::connect(endpoint.address).await?;
            // Fails only on a connection that is already gone, which the request will find out.
            let _ = stream.set_nodelay(true);
            if let Some(version) = self.words.proxy_protocol {
                stream.write_all(&proxy_header::of(version, whom, endpoint.address)).await?;
            }
            io::Result::Ok(stream)
        };
        match timeout(limit, connect).await {
            Err(_) => Err(Failure::ConnectTimeout),
            Ok(connected) => connected.map_err(Failure::Connect),
        }
    }

    pub async fn secure<IO>(
        &self,
        io: IO,
        endpoint: &Endpoint,
        speaks: Speaks,
        limit: Duration,
    ) -> Result<Dialed<IO>, Failure>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        match &self.tls {
            None => Ok(Dialed::Plain(io)),
            Some(Err(_)) => Err(Failure::NoTls),
            Some(Ok(tls)) => match timeout(limit, tls.connect(io, endpoint.host(), speaks)).await {
                Err(_) => Err(Failure::ConnectTimeout),
                Ok(secured) => Ok(Dialed::Tls(Box::new(secured.map_err(Failure::Tls)?))),
            },
        }
    }
}
