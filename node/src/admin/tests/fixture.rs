//! A node with its admin API on a temporary directory, and clients that reach it over both listeners.

use std::{
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use quorumgate_model::{ruleset::Ruleset, timing};
use quorumgate_proto::admin::v1::{
    self as admin, approvals_client::ApprovalsClient, cluster_client::ClusterClient, config_client::ConfigClient,
    key_client::KeyClient, limit_usage_client::LimitUsageClient, maintenance_client::MaintenanceClient,
    observe_client::ObserveClient, revocation_client::RevocationClient, upstreams_client::UpstreamsClient,
};
use quorumgate_proxy::{identity::directory::Directory, upstream::Registry};
use rustls::{RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    sync::watch,
};
use tonic::{
    Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use crate::{
    admin::{AdminHandle, AdminOptions, start},
    consensus::{Consensus, Published, StartOptions},
    init, receive,
    secrets::Opener,
    settings::{Oidc, Settings},
    tasks::Tasks,
};

pub struct Fixture {
    pub consensus: Consensus,
    pub directory: Arc<Directory>,
    /// Filled by the test.
    pub upstreams: Arc<Registry>,
    handle: AdminHandle,
    _tasks: Tasks,
    _ready: watch::Sender<bool>,
    _dir: TempDir,
}

impl Fixture {
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    pub async fn start_with(oidc: Option<Oidc>) -> Self {
        Self::start_in(oidc, |_| {}).await
    }

    /// `prepare`: what lies in the data directory at the start.
    pub async fn start_in(oidc: Option<Oidc>, prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (tasks, _ended) = Tasks::new();
        let consensus = single_node(&dir, &tasks, prepare).await;
        let directory = Arc::<Directory>::default();
        publish(consensus.clone(), directory.clone());
        let looked_up = directory.clone();
        let (ready, is_ready) = watch::channel(true);
        let states = consensus.states();
        let upstreams = Arc::new(Registry::new());
        let options = AdminOptions {
            consensus: consensus.clone(),
            data_dir: dir.path().to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            oidc,
            certificate: consensus.certificate_resolver(),
            serving: Arc::new(move || Arc::new(Ruleset::compile(&states.borrow(), None))),
            directory,
            upstreams: upstreams.clone(),
            ready: is_ready,
        };
        receive::start(&tasks, consensus.clone(), &looked_up);
        let handle = start(options, &tasks).await.unwrap();
        Self { consensus, directory: looked_up, upstreams, handle, _tasks: tasks, _ready: ready, _dir: dir }
    }

    /// With the consumer `acme`, for whom keys can be made.
    pub async fn with_consumer() -> Self {
        let fixture = Self::start().await;
        let consumers = vec![admin::Consumer { name: "acme".into(), ..Default::default() }];
        let config = Some(admin::ConfigSet { consumers, ..Default::default() });
        fixture.local().await.apply(admin::ApplyConfigRequest { config, ..Default::default() }).await.unwrap();
        let mut states = fixture.consensus.states();
        states.wait_for(|state| state.secrets.contains_key("key-pepper")).await.unwrap();
        fixture
    }

    /// Over the unix socket, as the user who runs the test.
    pub async fn local(&self) -> Client {
        self.client(Way::Unix(self.handle.socket.clone()), None).await
    }

    /// Over TLS, with a token or nothing.
    pub async fn remote(&self, token: Option<&str>) -> Client {
        let ca = CertificateDer::from_pem_slice(self.consensus.cluster_ca_pem().as_bytes()).unwrap();
        self.client(Way::Tls(self.handle.address, ca), token).await
    }

    /// One request as a browser makes it.
    pub async fn browse(&self, request: http::Request<String>) -> http::Response<String> {
        let ca = CertificateDer::from_pem_slice(self.consensus.cluster_ca_pem().as_bytes()).unwrap();
        let stream = TokioIo::new(Way::Tls(self.handle.address, ca).open().await.unwrap());
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
        let asked = async {
            let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            http::Response::from_parts(parts, String::from_utf8(body.to_vec()).unwrap())
        };
        tokio::select! {
            response = asked => response,
            _ = connection => panic!("the connection is closed"),
        }
    }

    pub fn origin(&self) -> String {
        format!("https://{}", self.handle.address)
    }

    pub async fn channel(&self) -> Channel {
        dial(Way::Unix(self.handle.socket.clone())).await
    }

    async fn client(&self, way: Way, token: Option<&str>) -> Client {
        let bearer = Bearer(token.map(|token| format!("Bearer {token}").parse().unwrap()));
        let channel = InterceptedService::new(dial(way).await, bearer);
        Client { channel }
    }

    pub async fn admin_token(&self, name: &str, role: &str, owner: &str) -> String {
        let request =
            admin::CreateAdminTokenRequest { name: name.into(), role: role.into(), owner: owner.into(), ttl: None };
        self.local().await.cluster().create_admin_token(request).await.unwrap().into_inner().token
    }
}

async fn single_node(dir: &TempDir, tasks: &Tasks, prepare: impl FnOnce(&Path)) -> Consensus {
    // A member's address has a port, so the system chooses one first.
    let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut settings: Settings = toml::from_str(
        r#"
        node = { name = "n1", region = "eu" }
        proxy = { listeners = [{ address = "127.0.0.1:0" }] }
        peer = { listen = "127.0.0.1:0" }
        admin = { listen = "127.0.0.1:0" }
        telemetry = { listen = "127.0.0.1:0" }
        "#,
    )
    .unwrap();
    settings.peer.listen = peer;
    init::init(dir.path(), &settings, timing::MAX_RTT_DEFAULT).unwrap();
    prepare(dir.path());
    let opened = quorumgate_raft_store::open(dir.path(), Default::default()).unwrap();
    let options = StartOptions {
        dir: dir.path().to_owned(),
        settings,
        opened,
        tasks: tasks.clone(),
        freshness: Default::default(),
    };
    let consensus = Consensus::start(options).await.unwrap();
    // A member of its own cluster from the first entry on.
    consensus.wait_applied(1, Duration::from_secs(10)).await.unwrap();
    consensus.states().wait_for(|state| state.cluster.is_some()).await.unwrap();
    consensus
}

/// What `publish` does, without a proxy.
#[expect(clippy::disallowed_methods, reason = "it lives as long as the test's runtime")]
fn publish(consensus: Consensus, directory: Arc<Directory>) {
    tokio::spawn(async move {
        let mut states = consensus.states();
        let mut opener = Opener::new(consensus.keyring().clone());
        loop {
            let (index, revision) = {
                let state = states.borrow_and_update();
                directory.publish(&state, opener.open(&state));
                (state.index, state.revision)
            };
            consensus.set_published(Published { index, revision, at_ms: 1 });
            if states.changed().await.is_err() {
                return;
            }
        }
    });
}

/// Every service of one node, with or without a token.
#[derive(Clone)]
pub struct Client {
    channel: InterceptedService<Channel, Bearer>,
}

type Authenticated = InterceptedService<Channel, Bearer>;

impl Client {
    pub fn config(&self) -> ConfigClient<Authenticated> {
        ConfigClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    pub fn approvals(&self) -> ApprovalsClient<Authenticated> {
        ApprovalsClient::new(self.channel.clone())
    }

    pub fn keys(&self) -> KeyClient<Authenticated> {
        KeyClient::new(self.channel.clone())
    }

    pub fn revocations(&self) -> RevocationClient<Authenticated> {
        RevocationClient::new(self.channel.clone())
    }

    pub fn cluster(&self) -> ClusterClient<Authenticated> {
        ClusterClient::new(self.channel.clone())
    }

    pub fn maintenance(&self) -> MaintenanceClient<Authenticated> {
        MaintenanceClient::new(self.channel.clone())
    }

    pub fn upstreams(&self) -> UpstreamsClient<Authenticated> {
        UpstreamsClient::new(self.channel.clone())
    }

    pub fn limit_usage(&self) -> LimitUsageClient<Authenticated> {
        LimitUsageClient::new(self.channel.clone())
    }

    pub fn observe(&self) -> ObserveClient<Authenticated> {
        ObserveClient::new(self.channel.clone())
    }

    pub async fn apply(&self, request: admin::ApplyConfigRequest) -> Result<admin::WriteResponse, Status> {
        self.config().apply_config(request).await.map(|response| response.into_inner())
    }
}

#[derive(Clone)]
pub struct Bearer(Option<tonic::metadata::AsciiMetadataValue>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

pub fn upstream(name: &str, owner: &str) -> admin::Upstream {
    admin::Upstream {
        name: name.into(),
        meta: Some(admin::Meta { owner: owner.into(), ..Default::default() }),
        targets: vec![admin::Target { address: "127.0.0.1:9000".into(), weight: 1, ..Default::default() }],
        ..Default::default()
    }
}

pub fn route(name: &str, upstream: &str) -> admin::Route {
    admin::Route {
        name: name.into(),
        r#match: Some(admin::Match {
            path: Some(admin::r#match::Path::PathPrefix(format!("/{name}"))),
            ..Default::default()
        }),
        action: Some(admin::route::Action::Upstream(upstream.into())),
        ..Default::default()
    }
}

pub fn config(upstreams: Vec<admin::Upstream>, routes: Vec<admin::Route>) -> admin::ApplyConfigRequest {
    admin::ApplyConfigRequest {
        config: Some(admin::ConfigSet { upstreams, routes, ..Default::default() }),
        ..Default::default()
    }
}

/// The ErrorInfo's reason.
pub fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

/// The field paths of the BadRequest.
pub fn fields(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|it| it.field_violations.clone()).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}

#[derive(Clone)]
enum Way {
    Unix(PathBuf),
    Tls(SocketAddr, CertificateDer<'static>),
}

async fn dial(way: Way) -> Channel {
    Endpoint::from_static("http://node.test").connect_with_connector(Dial(way)).await.unwrap()
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Way {
    async fn open(self) -> std::io::Result<Box<dyn Stream>> {
        match self {
            Way::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Way::Tls(address, ca) => {
                let mut roots = RootCertStore::empty();
                roots.add(ca).unwrap();
                let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                    .with_safe_default_protocol_versions()
                    .unwrap()
                    .with_root_certificates(roots)
                    .with_no_client_auth();
                config.alpn_protocols = vec![b"h2".to_vec()];
                let name = ServerName::IpAddress(address.ip().into());
                let tcp = TcpStream::connect(address).await?;
                Ok(Box::new(tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await?))
            }
        }
    }
}

#[derive(Clone)]
struct Dial(Way);

impl tower_service::Service<Uri> for Dial {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let way = self.0.clone();
        Box::pin(async move { way.open().await.map(TokioIo::new) })
    }
}
