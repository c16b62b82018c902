//! What the proxy fetches from identity providers, and how the cluster keeps the last good keys of each.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use quorumgate_model::{
    command::{Actor, Body, StoreJwks},
    resource::Name,
};
use quorumgate_proxy::identity::{directory::Directory, fetch::Fetcher, keeper::Keeper, schedule::Timing};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    consensus::{Consensus, Draft},
    publish::wall_ms,
    tasks::Tasks,
};

/// Key sets that wait to be proposed; what finds no room is handed over again after its next fetch.
const WAITING_MAX: usize = 64;
const PROPOSE_MAX: Duration = Duration::from_secs(5);

/// Lets the directory's auths ask their providers. Before the directory's first publication.
pub struct Providers {
    keeper: Arc<Keeper>,
    found: mpsc::Receiver<(Name, Bytes)>,
}

impl Providers {
    pub fn new(directory: &Directory) -> Self {
        let (tell, found) = mpsc::channel(WAITING_MAX);
        let on_jwks = move |auth: &Name, body: &Bytes| {
            let _ = tell.try_send((auth.clone(), body.clone()));
        };
        let fetcher = Fetcher::platform();
        let keeper = Arc::new(Keeper::new(fetcher.clone(), Timing::default(), Arc::new(on_jwks)));
        directory.reach_out(fetcher, keeper.clone());
        Self { keeper, found }
    }

    pub fn start(self, consensus: Consensus, tasks: &Tasks) {
        let (keeper, stop) = (self.keeper, tasks.stop());
        tasks.start("keys of issuers", async move {
            keeper.run(stop).await;
            Ok(())
        });
        tasks.start("keys for the cluster", hand_over(self.found, consensus, tasks.stop()));
    }
}

/// New nodes, and those whose provider is out of reach, verify with what another one has fetched.
async fn hand_over(
    mut found: mpsc::Receiver<(Name, Bytes)>,
    consensus: Consensus,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let actor = Arc::new(Actor { name: "node".into(), rpc: "jwks".into(), ..Actor::default() });
    while let Some(Some((auth, body))) = stop.run_until_cancelled(found.recv()).await {
        // Every node fetches on its own: most find that another one was first.
        if consensus.state().jwks.get(&auth).is_some_and(|known| known.body[..] == body[..]) {
            continue;
        }
        let store = StoreJwks { auth: auth.clone(), body: body[..].into(), fetched_wall_ms: wall_ms() };
        let draft = Draft { request_id: None, asked: None, actor: actor.clone(), body: Body::StoreJwks(store) };
        let proposed = stop.run_until_cancelled(consensus.propose(draft, PROPOSE_MAX)).await;
        // Without a quorum this node verifies with its own; the next fetch that brings new keys tries again.
        if let Some(Err(error)) = proposed {
            debug!(%auth, %error, "the keys of an issuer were not replicated");
        }
    }
    Ok(())
}
