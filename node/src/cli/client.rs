//! The connection to a node's admin API: over its unix socket, or TLS with the cluster's CA.

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use quorumgate_proto::admin::v1::{
    ai_client::AiClient, anomalies_client::AnomaliesClient, apis_client::ApisClient, approvals_client::ApprovalsClient,
    bans_client::BansClient, caches_client::CachesClient, cluster_client::ClusterClient, config_client::ConfigClient,
    key_client::KeyClient, limit_usage_client::LimitUsageClient, maintenance_client::MaintenanceClient,
    observe_client::ObserveClient, revocation_client::RevocationClient, upstreams_client::UpstreamsClient,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;
use tonic::{
    Request,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};

use super::{
    args::Global,
    failure::{Exit, Failure, Outcome},
    input,
};

/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// Calls to one node; every call carries the deadline and the token.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    timeout: Duration,
    token: Option<MetadataValue<tonic::metadata::Ascii>>,
}

impl Client {
    pub async fn connect(global: &Global) -> Outcome<Self> {
        Self::connect_to(global, global.endpoint()).await
    }

    pub async fn connect_to(global: &Global, endpoint: &str) -> Outcome<Self> {
        let connector = Connector(Arc::new(Way::parse(global, endpoint)?));
        let token = connector.0.token(global)?;
        let channel = Endpoint::from_static("http://quorumgate.admin")
            .origin(connector.0.origin())
            .connect_timeout(global.timeout().min(CONNECT_TIMEOUT_MAX))
            .http2_keep_alive_interval(Duration::from_secs(10))
            .connect_with_connector(connector)
            .await
            .map_err(|error| unreachable(endpoint, &error))?;
        Ok(Self { channel, timeout: global.timeout(), token })
    }

    pub fn config(&self) -> ConfigClient<Channel> {
        ConfigClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn keys(&self) -> KeyClient<Channel> {
        KeyClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn revocations(&self) -> RevocationClient<Channel> {
        RevocationClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn ai(&self) -> AiClient<Channel> {
        AiClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn anomalies(&self) -> AnomaliesClient<Channel> {
        AnomaliesClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn apis(&self) -> ApisClient<Channel> {
        ApisClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn approvals(&self) -> ApprovalsClient<Channel> {
        ApprovalsClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn bans(&self) -> BansClient<Channel> {
        BansClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn caches(&self) -> CachesClient<Channel> {
        CachesClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn limit_usage(&self) -> LimitUsageClient<Channel> {
        LimitUsageClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn observe(&self) -> ObserveClient<Channel> {
        ObserveClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn upstreams(&self) -> UpstreamsClient<Channel> {
        UpstreamsClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The `authorization` of every call.
    #[cfg(feature = "kubernetes")]
    pub fn token(&self) -> Option<MetadataValue<tonic::metadata::Ascii>> {
        self.token.clone()
    }

    /// A call that is answered once.
    pub fn ask<T>(&self, message: T) -> Request<T> {
        let mut request = self.stream(message);
        request.set_timeout(self.timeout);
        request
    }

    /// A call whose answers go on until somebody hangs up.
    pub fn stream<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        request
    }
}

fn unreachable(endpoint: &str, error: &tonic::transport::Error) -> Failure {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Failure::new(Exit::Unavailable, format!("cannot reach {endpoint}: {cause}"))
        .help("name a running node with --endpoint or QUORUMGATE_ENDPOINT, such as unix:DATA_DIR/admin.sock")
}

/// Whether the words and the files could lead to a node; nobody is asked.
pub fn check(global: &Global, endpoint: &str) -> Outcome {
    Way::parse(global, endpoint).map(drop)
}

/// How to get to the node.
enum Way {
    Unix(PathBuf),
    Tls { host: String, port: u16, name: ServerName<'static>, tls: TlsConnector },
}

impl Way {
    fn parse(global: &Global, endpoint: &str) -> Outcome<Self> {
        let wrong = || {
            Failure::usage(format!("--endpoint: found {endpoint:?}"))
                .help("write unix:PATH or https://HOST:PORT, such as unix:/var/lib/quorumgate/admin.sock")
        };
        if let Some(path) = endpoint.strip_prefix("unix:") {
            return match path.trim_start_matches("//") {
                "" => Err(wrong()),
                path => Ok(Way::Unix(path.into())),
            };
        }
        let uri: Uri = endpoint.parse().map_err(|_| wrong())?;
        let (Some("https"), Some(host), Some(port)) = (uri.scheme_str(), uri.host(), uri.port_u16()) else {
            return Err(wrong());
        };
        let host = host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
        let tls = TlsConnector::from(Arc::new(tls_config(global)?));
        Ok(Way::Tls { host, port, name, tls })
    }

    fn origin(&self) -> Uri {
        let text = match self {
            Way::Unix(_) => "http://quorumgate.admin".to_owned(),
            Way::Tls { host, port, .. } if host.contains(':') => format!("https://[{host}]:{port}"),
            Way::Tls { host, port, .. } => format!("https://{host}:{port}"),
        };
        Uri::try_from(text).expect("made of a host and a port that were parsed before")
    }

    fn token(&self, global: &Global) -> Outcome<Option<MetadataValue<tonic::metadata::Ascii>>> {
        let Some(file) = &global.admin_token_file else { return Ok(None) };
        let text = input::secret(file)?;
        let wrong = |_| Failure::usage(format!("{}: this is not a token", file.display()));
        let mut value: MetadataValue<_> = format!("Bearer {text}").parse().map_err(wrong)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    async fn open(&self) -> std::io::Result<Box<dyn Stream>> {
        match self {
            Way::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Way::Tls { host, port, name, tls } => {
                let tcp = TcpStream::connect((host.as_str(), *port)).await?;
                tcp.set_nodelay(true)?;
                Ok(Box::new(tls.connect(name.clone(), tcp).await?))
            }
        }
    }
}

fn tls_config(global: &Global) -> Outcome<rustls::ClientConfig> {
    let Some(ca) = &global.ca else {
        return Err(Failure::usage("an https endpoint needs the cluster's CA certificate")
            .help("give it with --ca FILE or QUORUMGATE_CA; every data directory has it as tls/ca.pem"));
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|error| Failure::usage(format!("{}: {error}", ca.display())))?;
    }
    let builder = rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(Failure::internal)?
        .with_root_certificates(roots);
    let mut config = match (&global.client_cert, &global.client_key) {
        (Some(chain), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| Failure::usage(format!("{}: {error}", key.display())))?;
            builder
                .with_client_auth_cert(certificates(chain)?, private)
                .map_err(|error| Failure::usage(format!("{}: {error}", chain.display())))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(file: &Path) -> Outcome<Vec<CertificateDer<'static>>> {
    let wrong = |error: rustls_pki_types::pem::Error| Failure::usage(format!("{}: {error}", file.display()));
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(file).and_then(|found| found.collect::<Result<_, _>>()).map_err(wrong)?;
    match chain.is_empty() {
        true => Err(Failure::usage(format!("{}: there is no certificate in it", file.display()))),
        false => Ok(chain),
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

#[derive(Clone)]
struct Connector(Arc<Way>);

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let way = self.0.clone();
        Box::pin(async move { Ok(TokioIo::new(way.open().await?)) })
    }
}
