//! Revocations that the proxy's receivers were told of: proposed here, and answered once they are committed and seen by
//! this node's own requests.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use quorumgate_model::command::{Actor, Body, Revoke};
use quorumgate_proxy::identity::{directory::Directory, handed::Handed};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    consensus::{Consensus, Draft},
    tasks::Tasks,
};

/// Proposals under way at once.
const AT_ONCE_MAX: usize = 32;
/// Less than the proxy waits.
const PROPOSE_MAX: Duration = Duration::from_secs(4);

pub fn start(tasks: &Tasks, consensus: Consensus, directory: &Directory) {
    if let Some(handed) = directory.handed() {
        tasks.start("receivers", run(consensus, handed, tasks.stop()));
    }
}

async fn run(consensus: Consensus, mut handed: mpsc::Receiver<Handed>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(()) = under_way.next() => {}
            next = handed.recv(), if under_way.len() < AT_ONCE_MAX => match next {
                Some(next) => under_way.push(propose(consensus.clone(), next)),
                None => return Ok(()),
            },
        }
    }
}

async fn propose(consensus: Consensus, handed: Handed) {
    let actor = Actor {
        name: handed.who.clone(),
        source: handed.client_ip.to_string(),
        rpc: format!("route {}", handed.route),
        owner_scope: String::new(),
    };
    let revoke = Revoke { entries: handed.entries.clone(), reason: handed.reason.clone() };
    let draft = Draft { request_id: None, asked: None, actor: Arc::new(actor), body: Body::Revoke(revoke) };
    let mut published = consensus.published();
    match consensus.propose(draft, PROPOSE_MAX).await.map(|applied| (applied.index, applied.outcome)) {
        Ok((index, Ok(_))) => {
            // It is committed whether or not this node shows it in time.
            let _ = timeout(PROPOSE_MAX, published.wait_for(|it| it.index >= index)).await;
            handed.agreed();
        }
        Ok((_, Err(rejected))) => warn!(route = handed.route, %rejected, "a revocation from outside is refused"),
        Err(error) => warn!(route = handed.route, %error, "a revocation from outside is not agreed on"),
    }
}
