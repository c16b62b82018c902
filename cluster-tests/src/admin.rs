//! The admin API over a node's unix socket.

use std::path::{Path, PathBuf};

use anyhow::Context;
use hyper_util::rt::TokioIo;
use quorumgate_proto::admin::v1::{
    ApplyConfigRequest, ConfigSet, CreateJoinTokenRequest, CreateJoinTokenResponse, GetConfigRequest,
    GetConfigResponse, GetStatusRequest, GetStatusResponse, ListNodesRequest, ListNodesResponse, StateHashRequest,
    StateHashResponse, TransferLeaderRequest, TransferLeaderResponse, WriteResponse, cluster_client::ClusterClient,
    config_client::ConfigClient, key_client::KeyClient, observe_client::ObserveClient,
    revocation_client::RevocationClient,
};
use tokio::net::UnixStream;
use tonic::{
    Status,
    transport::{Channel, Endpoint, Uri},
};

/// A connection to one node.
#[derive(Clone)]
pub struct Admin {
    channel: Channel,
}

const MESSAGE_MAX: usize = 32 << 20;

impl Admin {
    pub async fn connect(socket: &Path) -> anyhow::Result<Self> {
        let socket: PathBuf = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://unix.invalid").connect_with_connector(connector).await;
        Ok(Self { channel: channel.context("connecting to the admin socket")? })
    }

    pub fn config(&self) -> ConfigClient<Channel> {
        ConfigClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX)
    }

    pub fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
    }

    pub fn keys(&self) -> KeyClient<Channel> {
        KeyClient::new(self.channel.clone())
    }

    pub fn revocations(&self) -> RevocationClient<Channel> {
        RevocationClient::new(self.channel.clone())
    }

    pub async fn apply(&self, config: ConfigSet) -> Result<WriteResponse, Status> {
        let request = ApplyConfigRequest { config: Some(config), ..Default::default() };
        Ok(self.config().apply_config(request).await?.into_inner())
    }

    pub async fn get_config(&self, stale: bool) -> Result<GetConfigResponse, Status> {
        Ok(self.config().get_config(GetConfigRequest { revision: None, stale }).await?.into_inner())
    }

    pub async fn status(&self) -> Result<GetStatusResponse, Status> {
        Ok(self.cluster().get_status(GetStatusRequest {}).await?.into_inner())
    }

    pub async fn nodes(&self) -> Result<ListNodesResponse, Status> {
        Ok(self.cluster().list_nodes(ListNodesRequest {}).await?.into_inner())
    }

    pub async fn transfer_leader(&self, to: &str) -> Result<TransferLeaderResponse, Status> {
        let request = TransferLeaderRequest { to: to.to_owned() };
        Ok(self.cluster().transfer_leader(request).await?.into_inner())
    }

    pub async fn create_join_token(&self) -> Result<CreateJoinTokenResponse, Status> {
        Ok(self.cluster().create_join_token(CreateJoinTokenRequest::default()).await?.into_inner())
    }

    pub async fn state_hash(&self, index: u64) -> Result<StateHashResponse, Status> {
        let mut observe = ObserveClient::new(self.channel.clone());
        Ok(observe.state_hash(StateHashRequest { index }).await?.into_inner())
    }
}
