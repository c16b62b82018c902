//! What each node tells the cluster of itself without being asked: the build that it runs, and the heads of the chains that
//! it keeps for itself.

use std::{sync::Arc, time::Duration};

use quorumgate_model::{
    LEVEL,
    command::{Actor, Body, NoteChain, UpdateNode},
    state::{AuditHead, ChainKind, State},
};
use tokio_util::sync::CancellationToken;

use super::{Consensus, Draft, member::Member};
use crate::VERSION;

/// How often the heads of its own chains are noted, where they have moved.
const CHAINS_EVERY: Duration = Duration::from_secs(60);
/// A proposal that was not taken is made again after this.
const RETRY: Duration = Duration::from_secs(2);
const PROPOSE_MAX: Duration = Duration::from_secs(5);

/// After an upgrade: the record that the others have of this node is of the build before.
pub(super) async fn build(consensus: Consensus, stop: CancellationToken) -> anyhow::Result<()> {
    let mut states = consensus.states();
    loop {
        let due = consensus.member.outdated(&states.borrow_and_update());
        let told = async {
            let Some(update) = due else {
                if states.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                return;
            };
            if !consensus.member.tell(&consensus, Body::UpdateNode(update)).await {
                tokio::time::sleep(RETRY).await;
            }
        };
        if stop.run_until_cancelled(told).await.is_none() {
            return Ok(());
        }
    }
}

/// Each minute, and only where the cluster has not heard of it.
pub(super) async fn chains(consensus: Consensus, stop: CancellationToken) -> anyhow::Result<()> {
    let mut minute = tokio::time::interval(CHAINS_EVERY);
    minute.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(minute.tick()).await.is_some() {
        if stop.run_until_cancelled(consensus.note_chains()).await.is_none() {
            break;
        }
    }
    Ok(())
}

impl Consensus {
    /// The heads that have moved since they were noted last.
    pub async fn note_chains(&self) {
        let (state, node) = (self.state(), self.member.me.node);
        let heads = [(ChainKind::Denials, self.member.denials.head()), (ChainKind::Access, self.member.access.head())];
        for (kind, head) in heads {
            let Some(head) = head.filter(|head| head.count > 0 && state.chain(node, kind) != Some(*head)) else {
                continue;
            };
            if state.nodes.contains_key(&node) && state.common_level() >= 2 {
                self.member.tell(self, Body::NoteChain(NoteChain { node, kind, head })).await;
            }
        }
    }

    /// What the cluster knows of a chain of this node's.
    pub fn noted_chain(&self, kind: ChainKind) -> Option<AuditHead> {
        self.state().chain(self.member.me.node, kind)
    }
}

impl Member {
    fn outdated(&self, state: &State) -> Option<UpdateNode> {
        let known = state.nodes.get(&self.me.node)?;
        let is_so = known.level == LEVEL && known.version == VERSION;
        (!is_so).then(|| UpdateNode {
            id: self.me.node,
            level: Some(LEVEL),
            version: Some(VERSION.into()),
            ..UpdateNode::default()
        })
    }

    /// Whether it was taken.
    async fn tell(&self, consensus: &Consensus, body: Body) -> bool {
        let what = body.word();
        let actor = Actor { name: format!("node/{}", self.settings.node.name), ..Actor::default() };
        let draft = Draft { request_id: None, asked: None, actor: Arc::new(actor), body };
        match consensus.propose(draft, PROPOSE_MAX).await {
            Ok(applied) => match applied.outcome {
                Ok(_) => true,
                Err(rejected) => {
                    tracing::warn!(what, %rejected, "the cluster refuses what this node tells of itself");
                    false
                }
            },
            Err(error) => {
                tracing::debug!(what, %error, "not told yet");
                false
            }
        }
    }
}
