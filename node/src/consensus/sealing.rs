//! Follows the replacement of the sealing key: every node writes the new one down and forgets the old one, and the leader
//! takes the next step once all have carried out the one before. What it does follows from the state alone, so the next
//! leader goes on with it.

use std::{collections::BTreeMap, time::Duration};

use quorumgate_model::{
    command::{Body, Resealed, RotateSealingKey},
    sealed::key_number,
    state::{RESEALED_MAX, SealingStage, State},
};
use tokio_util::sync::CancellationToken;

use super::{Consensus, drive::draft, member::Member};
use crate::{keyring, pki::Keys, secrets};

/// While there is something to do.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// After something has failed.
const RETRY: Duration = Duration::from_secs(5);
/// For the answers of all nodes.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
const PROPOSE_MAX: Duration = Duration::from_secs(5);
/// What one command seals anew, in bytes of what it replaces.
const RESEALED_BYTES_MAX: usize = 256 << 10;

/// How far a node is with the replacement of the sealing key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealingProgress {
    pub node: String,
    pub answers: bool,
    /// The newest key is in its file.
    pub holds: bool,
    /// And no other.
    pub alone: bool,
}

pub(super) async fn run(consensus: Consensus, stop: CancellationToken) -> anyhow::Result<()> {
    let mut states = consensus.states();
    // The first state that was seen to need an old key no more.
    let mut outlived: Option<u64> = None;
    loop {
        let state = states.borrow_and_update().clone();
        let next = async {
            match consensus.follow_sealing(&state, &mut outlived).await {
                Ok(false) => {
                    if states.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
                Ok(true) => tokio::time::sleep(LOOK_EVERY).await,
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(error, "the replacement of the sealing key does not go on here; trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        if stop.run_until_cancelled(next).await.is_none() {
            return Ok(());
        }
    }
}

impl Consensus {
    /// Every node of the state, as it says itself.
    pub async fn sealing_progress(&self, deadline: Duration) -> Vec<SealingProgress> {
        let answers: BTreeMap<_, _> = self.statuses(deadline).await.into_iter().collect();
        let state = self.state();
        let newest = state.sealing.newest();
        let progress = state.nodes.values().map(|node| {
            let held = answers.get(&node.id).and_then(Option::as_ref).map(|it| &it.sealing_keys[..]);
            SealingProgress {
                node: node.name.to_string(),
                answers: held.is_some(),
                holds: held.is_some_and(|held| held.contains(&newest)),
                alone: held == Some(&[newest]),
            }
        });
        progress.collect()
    }

    /// A new key, sealed for the state.
    pub fn new_sealing_key(&self) -> anyhow::Result<Vec<u8>> {
        keyring::introduced(&self.keys())
    }

    /// Whether something is left to do.
    async fn follow_sealing(&self, state: &State, outlived: &mut Option<u64>) -> anyhow::Result<bool> {
        let member = &self.member;
        if state.cluster.is_none() {
            return Ok(false);
        }
        member.keyring.keep(state)?;
        if state.sealing.rotation.is_some() {
            if self.leads()
                && member.stopped().is_none()
                && let Some(step) = self.next_sealing_step(state).await?
            {
                let proposed = self.propose(draft(Body::RotateSealingKey(step)), PROPOSE_MAX).await;
                tracing::debug!(?proposed, "the leader has taken a step of the replacement of the sealing key");
            }
            return Ok(true);
        }
        if !member.keyring.has_outlived(state) {
            *outlived = None;
            return Ok(false);
        }
        member.forget_keys(state, *outlived.get_or_insert(state.index)).await
    }

    /// None: not every node has carried out the one before.
    async fn next_sealing_step(&self, state: &State) -> anyhow::Result<Option<RotateSealingKey>> {
        let Some(rotation) = &state.sealing.rotation else { return Ok(None) };
        if rotation.stage == SealingStage::Replaced {
            let number = state.sealing.number;
            let resealed = resealed(state, &self.member.keyring.at(state))?;
            if !resealed.is_empty() {
                return Ok(Some(RotateSealingKey::Reseal { number, resealed: resealed.into() }));
            }
        }
        // The nodes of a later state are not among those that `End` speaks for.
        let answers = self.statuses(ANSWERS_WITHIN).await;
        let newest = state.sealing.newest();
        let holds = |id| {
            answers
                .iter()
                .any(|(it, answer)| it == id && answer.as_ref().is_some_and(|it| it.sealing_keys.contains(&newest)))
        };
        if !state.nodes.keys().all(holds) {
            return Ok(None);
        }
        Ok(Some(match rotation.stage {
            SealingStage::Introduced => RotateSealingKey::Replace { number: newest },
            SealingStage::Replaced => RotateSealingKey::End { number: newest, nodes_upto: state.index },
        }))
    }
}

impl Member {
    /// Once a restart without anybody in reach needs them no more: the newest snapshot and what is served are of `since`,
    /// in which nothing is sealed under them, or later. Whether that is still to come.
    async fn forget_keys(&self, state: &State, since: u64) -> anyhow::Result<bool> {
        if self.glance().snapshot.is_none_or(|snapshot| snapshot < since) {
            self.raft.trigger().snapshot().await?;
            return Ok(true);
        }
        if self.published.borrow().index < since {
            return Ok(true);
        }
        self.keyring.forget(state)?;
        tracing::info!(keys = ?self.keyring.on_disk(), "an old sealing key is forgotten");
        Ok(false)
    }
}

/// The next of what is sealed under another key than the one that seals.
fn resealed(state: &State, keys: &Keys) -> anyhow::Result<Vec<Resealed>> {
    let mut resealed = BTreeMap::new();
    let (mut bytes, mut first_error) = (0, None);
    for (purpose, before) in secrets::all(state) {
        if key_number(before) == state.sealing.number || resealed.contains_key(before) {
            continue;
        }
        match keys.open(&purpose, before).and_then(|secret| keys.seal(&purpose, &secret)) {
            Ok(after) => {
                bytes += before.len();
                resealed.insert(before, after);
            }
            // The others first: this one holds the end up until it is written anew.
            Err(error) => first_error = first_error.or(Some(error)),
        }
        if resealed.len() == RESEALED_MAX || bytes >= RESEALED_BYTES_MAX {
            break;
        }
    }
    match (resealed.is_empty(), first_error) {
        (true, Some(error)) => Err(error),
        _ => {
            let one = |(before, after): (&[u8], Vec<u8>)| Resealed { before: before.into(), after: after.into() };
            Ok(resealed.into_iter().map(one).collect())
        }
    }
}
