//! The admin API: gRPC over a unix socket and over TLS, for operators, the CLI and scripts.
//!
//! A request passes the doors in this order: `listen` (sockets, TLS, bounds) → `gate` (who is it, may it) → one of the
//! services (`config`, `credentials`, `cluster`, `observe`), which know the cluster only through `Consensus`.

mod access;
mod ai;
mod anomalies;
mod apis;
mod approvals;
mod authority;
mod bans;
mod caches;
mod cluster;
mod config;
mod credentials;
mod desk;
mod explain;
mod failure;
mod gate;
mod identity;
mod json;
mod limit_usage;
mod listen;
mod maintenance;
pub(crate) mod nodes;
mod observe;
mod overview;
mod people;
mod standard;
#[cfg(test)]
pub(crate) mod tests;
mod tls;
mod ui;
mod upstreams;

pub(crate) use credentials::own_key;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context;
use quorumgate_model::ruleset::Ruleset;
use quorumgate_proto::admin::v1::{
    ai_server::AiServer, anomalies_server::AnomaliesServer, apis_server::ApisServer, approvals_server::ApprovalsServer,
    bans_server::BansServer, caches_server::CachesServer, cluster_server::ClusterServer, config_server::ConfigServer,
    key_server::KeyServer, limit_usage_server::LimitUsageServer, maintenance_server::MaintenanceServer,
    observe_server::ObserveServer, overview_server::OverviewServer, revocation_server::RevocationServer,
    upstreams_server::UpstreamsServer,
};
use quorumgate_proxy::{identity::directory::Directory, upstream::Registry};
use rustls::server::ResolvesServerCert;
use tokio::sync::watch;
use tonic::service::Routes;

use crate::{consensus::Consensus, denials::Denials, handed, settings::Oidc, tasks::Tasks};

/// The largest message that is read or written; more is RESOURCE_EXHAUSTED.
pub const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// The socket's name inside a data directory.
pub const SOCKET: &str = "admin.sock";

/// What this node's proxy serves right now (`Proxy::ruleset`).
pub type Serving = Arc<dyn Fn() -> Arc<Ruleset> + Send + Sync>;

pub struct AdminOptions {
    pub consensus: Consensus,
    /// Holds the unix socket.
    pub data_dir: PathBuf,
    /// TCP with TLS; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Where people sign in.
    pub oidc: Option<Oidc>,
    /// The node's certificate; asked at each handshake, so that a renewed one is used at once.
    pub certificate: Arc<dyn ResolvesServerCert>,
    pub serving: Serving,
    /// What this node's proxy looks credentials and revocations up in (`Proxy::directory`).
    pub directory: Arc<Directory>,
    /// What this node's proxy knows of the servers behind it (`Proxy::upstreams`).
    pub upstreams: Arc<Registry>,
    /// What grpc.health.v1 reports.
    pub ready: watch::Receiver<bool>,
}

/// Where the API listens.
#[derive(Debug, Clone)]
pub struct AdminHandle {
    pub address: SocketAddr,
    pub socket: PathBuf,
}

/// Binds both listeners and serves until `tasks` stop.
pub async fn start(options: AdminOptions, tasks: &Tasks) -> anyhow::Result<AdminHandle> {
    let AdminOptions { consensus, data_dir, listen, oidc, certificate, serving, directory, upstreams, ready } = options;
    let trusting = consensus.clone();
    let tls = tls::Acceptor::new(certificate, Arc::new(move || trusting.cluster_cas()))?;
    let socket = data_dir.join(SOCKET);
    let unix = listen::bind_unix(&socket)?;
    let tcp = handed::bind(listen).await.with_context(|| format!("admin.listen: binding {listen}"))?;
    let address = tcp.local_addr()?;

    let denials = consensus.denials().clone();
    tasks.start("denials", denials.clone().run(tasks.stop()));
    let access = consensus.access().clone();
    tasks.start("accesses", access.run(consensus.keyring().clone(), consensus.states(), tasks.stop()));
    let people = oidc.map(|oidc| people::People::new(oidc, directory.clone())).transpose().context("admin.oidc")?;
    let people = people.map(Arc::new);
    if let Some(people) = people.clone() {
        tasks.start("keys of the admin API's provider", people.run(tasks.stop()));
    }
    let routes = routes(consensus.clone(), serving, directory, upstreams, ready, denials.clone(), tasks)?;
    let gate = Arc::new(gate::Gate::new(consensus, routes, denials, people));
    let door = listen::Door::new(gate, tasks.clone());
    tasks.start("admin unix socket", door.clone().serve_unix(unix));
    tasks.start("admin tls", door.serve_tls(tcp, tls));
    tracing::info!(%address, socket = %socket.display(), "admin API listens");
    Ok(AdminHandle { address, socket })
}

fn routes(
    consensus: Consensus,
    serving: Serving,
    directory: Arc<Directory>,
    upstreams: Arc<Registry>,
    ready: watch::Receiver<bool>,
    denials: Arc<Denials>,
    tasks: &Tasks,
) -> anyhow::Result<Routes> {
    let config = ConfigServer::new(config::Service::new(consensus.clone(), tasks.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let observe = ObserveServer::new(observe::Service::new(consensus.clone(), serving, denials, tasks.clone()))
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let credentials = credentials::Service::new(consensus.clone(), directory);
    let keys = KeyServer::new(credentials.clone()).max_encoding_message_size(MESSAGE_BYTES_MAX);
    let revocations = RevocationServer::new(credentials).max_encoding_message_size(MESSAGE_BYTES_MAX);
    let limits = LimitUsageServer::new(limit_usage::Service::new(consensus.clone()));
    let mut routes = Routes::builder();
    routes.add_service(limits.max_encoding_message_size(MESSAGE_BYTES_MAX));
    routes.add_service(MaintenanceServer::new(maintenance::Service::new(consensus.clone(), tasks.clone())));
    let desk = desk::Desk { consensus: consensus.clone() };
    routes.add_service(AiServer::new(desk.clone()).max_encoding_message_size(MESSAGE_BYTES_MAX));
    routes.add_service(AnomaliesServer::new(desk.clone()).max_encoding_message_size(MESSAGE_BYTES_MAX));
    routes.add_service(ApisServer::new(desk).max_encoding_message_size(MESSAGE_BYTES_MAX));
    routes.add_service(
        ApprovalsServer::new(approvals::Service::new(consensus.clone())).max_encoding_message_size(MESSAGE_BYTES_MAX),
    );
    routes.add_service(
        BansServer::new(bans::Service::new(consensus.clone())).max_encoding_message_size(MESSAGE_BYTES_MAX),
    );
    routes.add_service(CachesServer::new(caches::Service::new(consensus.clone())));
    routes.add_service(UpstreamsServer::new(upstreams::Service::new(consensus.clone(), upstreams)));
    routes.add_service(OverviewServer::new(overview::Service::new(consensus.clone(), tasks)));
    routes.add_service(keys).add_service(revocations);
    routes.add_service(config).add_service(ClusterServer::new(cluster::Service::new(consensus))).add_service(observe);
    standard::add_health(&mut routes, ready, tasks);
    standard::add_reflection(&mut routes)?;
    Ok(routes.routes().prepare())
}
