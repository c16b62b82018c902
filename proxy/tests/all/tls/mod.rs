//! Certificates made on the spot, listeners on addresses of this process's own, and clients that look at what they get.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use quorumgate_model::resource::{Fingerprint, Kind, Resource};
use quorumgate_proxy::identity::directory::Opened;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::*;

/// An address that no other test has: of the loopback network each process has its own.
pub fn address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, 64 | high & 63, middle, low);
    SocketAddr::new(IpAddr::V4(ip), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub struct Authority(pub CertifiedIssuer<'static, KeyPair>);

/// A chain and its key.
pub struct Leaf {
    pub der: CertificateDer<'static>,
    pub pem: String,
    pub key: KeyPair,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn server(&self, names: &[&str]) -> Leaf {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.leaf(params)
    }

    pub fn client(&self, uri: &str) -> Leaf {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.leaf(params)
    }

    fn leaf(&self, params: CertificateParams) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Leaf { der: certificate.der().clone(), pem: certificate.pem(), key }
    }

    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    /// A client that trusts this authority; of TLS 1.2 alone, if `versions` says so.
    pub fn trusting(&self, client: Option<&Leaf>, versions: &[&'static rustls::SupportedProtocolVersion]) -> Client {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots());
        let config = match client {
            Some(leaf) => {
                let key = PrivateKeyDer::try_from(leaf.key.serialize_der()).unwrap();
                config.with_client_auth_cert(vec![leaf.der.clone()], key).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        Client(Arc::new(config))
    }
}

/// Resumes where it can, as browsers do.
#[derive(Clone)]
pub struct Client(pub Arc<ClientConfig>);

pub type Stream = TlsStream<TcpStream>;

impl Client {
    pub async fn connect(&self, address: SocketAddr, name: &str) -> std::io::Result<Stream> {
        let stream = TcpStream::connect(address).await?;
        let name = name.to_owned().try_into().unwrap();
        soon("the handshake", TlsConnector::from(self.0.clone()).connect(name, stream)).await
    }

    /// One request on a connection of its own; the stream shows how it came about. An error is a handshake that failed,
    /// which a client of TLS 1.3 may only learn behind it.
    pub async fn ask(&self, address: SocketAddr, name: &str) -> std::io::Result<(String, Stream)> {
        let mut stream = self.connect(address, name).await?;
        let request = format!("GET / HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        soon("the answer", stream.read_to_end(&mut answer)).await?;
        Ok((String::from_utf8_lossy(&answer).into_owned(), stream))
    }
}

pub fn leaf_of(stream: &Stream) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// One keep-alive request.
pub async fn ask_on<T>(stream: &mut T, name: &str) -> String
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: {name}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok") {
        let n = soon("the answer", stream.read_buf(&mut answer)).await.unwrap();
        assert!(n > 0, "cut off: {}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).unwrap()
}

/// The words of a certificate, whose key `open` finds.
pub fn certificate(name: &str, hosts: &[&str], leaf: &Leaf) -> Value {
    json!({ "name": name, "hosts": hosts, "chain": leaf.pem, "key": format!("plain:{}", leaf.key.serialize_pem()) })
}

/// The words with their keys sealed, and the secrets as the control plane opens them.
pub fn sealed(mut words: Value) -> (Value, Arc<Opened>) {
    let mut of_resources = BTreeMap::new();
    for it in words.get_mut("certificates").and_then(Value::as_array_mut).into_iter().flatten() {
        let plain = it["key"].as_str().unwrap().strip_prefix("plain:").unwrap().to_owned();
        let fingerprint = Fingerprint::of(plain.as_bytes());
        it["key"] = json!(format!("sealed:{fingerprint}"));
        assert!(matches!(Kind::Certificate.parse(it.clone()).unwrap(), Resource::Certificate(_)));
        of_resources.insert(fingerprint, plain.into_bytes().into());
    }
    (words, Arc::new(Opened { of_resources, ..Opened::default() }))
}

/// A gateway whose listeners come from its resources.
pub struct Listening {
    pub gateway: Gateway,
    pub heard: Heard,
    upstream: SocketAddr,
}

impl Listening {
    pub async fn new(words: Value) -> Self {
        let (upstream, heard) = echo().await;
        let it = Self { gateway: Gateway::start(json!({})), heard, upstream };
        it.publish(words);
        it
    }

    /// A route `all` to an upstream that answers `ok` is always there.
    pub fn publish(&self, words: Value) {
        let (mut words, opened) = sealed(words);
        let own = forward_all(self.upstream);
        for list in ["upstreams", "routes"] {
            let more = words[list].as_array().cloned().unwrap_or_default();
            words[list] = own[list].as_array().unwrap().iter().cloned().chain(more).collect();
        }
        let state = state(words);
        let rules = quorumgate_model::ruleset::Ruleset::compile(&state, None);
        self.gateway.proxy.publish(Arc::new(rules));
        self.gateway.proxy.listeners().publish(&state.resources, &opened);
    }
}
