//! Keeps this node's certificate alive: signed from its own state, or by a peer where the state is not there yet.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use quorumgate_model::{NodeId, state::State};
use quorumgate_proto::peer::v1::{self as pb, response::Answer};
use rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use super::member::Member;
use crate::pki::{self, Authority, Held, Keys, Names};

/// What the CA's key is sealed for.
pub const CA_KEY_PURPOSE: &str = "cluster CA key";

/// A renewal that failed is tried again after this long, or sooner where lives are short.
const RETRY: Duration = Duration::from_secs(30);
const ASK_MAX: Duration = Duration::from_secs(10);
/// The longest sleep: clocks are stepped now and then.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

pub(super) async fn run(member: Arc<Member>, stop: CancellationToken) -> anyhow::Result<()> {
    let lifetime = pki::lifetime();
    let mut states = member.states.clone();
    loop {
        states.borrow_and_update();
        member.follow_cas();
        let due = member.held.renewal_in(now(), lifetime);
        if !due.is_zero() && !member.is_by_another_ca() {
            let wait = async {
                tokio::select! {
                    () = tokio::time::sleep(due.min(LOOK_EVERY)) => {}
                    // The CA may have been replaced.
                    Ok(()) = states.changed() => {}
                }
            };
            let Some(()) = stop.run_until_cancelled(wait).await else {
                return Ok(());
            };
            continue;
        }
        let renewed = stop.run_until_cancelled(member.renew(lifetime)).await;
        match renewed {
            None => return Ok(()),
            Some(Ok(())) => tracing::info!(not_after = member.held.not_after(), "renewed this node's certificate"),
            Some(Err(error)) => {
                tracing::warn!(error = format!("{error:#}"), "this node's certificate was not renewed; trying again");
                let pause = RETRY.min(lifetime / 10);
                stop.run_until_cancelled(tokio::time::sleep(pause)).await;
            }
        }
    }
}

/// At start, before anybody is dialled: whatever the state allows.
pub(super) fn renew_if_due(held: &Held, names: &Names, state: &State, keys: &Keys, node: NodeId) -> anyhow::Result<()> {
    let lifetime = pki::lifetime();
    if !held.renewal_in(now(), lifetime).is_zero() {
        return Ok(());
    }
    let Some(facts) = &state.cluster else { return Ok(()) };
    if !state.nodes.contains_key(&node) {
        return Ok(());
    }
    let authority = authority(state, keys)?;
    held.swap(authority.sign(&held.key().request(names)?, facts.id, node, lifetime)?)
}

impl Member {
    async fn renew(&self, lifetime: Duration) -> anyhow::Result<()> {
        let request = self.held.key().request(&Names::of(&self.settings))?;
        let known = self.state().nodes.contains_key(&self.me.node);
        if known && let Ok(certificate) = self.sign_for(&request, self.me.node, lifetime) {
            return self.held.swap(certificate);
        }
        let mut last = anyhow::anyhow!("no other node is known");
        for target in self.others() {
            let asked = self.peers.call_renew(&target, pb::RenewRequest { csr: request.clone() }, ASK_MAX).await;
            match asked {
                Ok(Answer::Renew(answer)) => return self.held.swap(CertificateDer::from(answer.certificate)),
                Ok(Answer::Failure(failure)) => last = anyhow::anyhow!("node {}: {}", target.id, failure.message),
                Ok(_) => last = anyhow::anyhow!("node {}: an answer of another kind", target.id),
                Err(error) => last = anyhow::anyhow!("node {}: {error}", target.id),
            }
        }
        Err(last)
    }

    /// Signs as the cluster's CA, from this node's own state.
    pub(super) fn sign(&self, request: &[u8], node: NodeId) -> anyhow::Result<CertificateDer<'static>> {
        self.sign_for(request, node, pki::lifetime())
    }

    fn sign_for(&self, request: &[u8], node: NodeId, lifetime: Duration) -> anyhow::Result<CertificateDer<'static>> {
        let state = self.state();
        authority(&state, &self.keyring.at(&state))?.sign(request, self.me.cluster, node, lifetime)
    }
}

fn authority(state: &State, keys: &Keys) -> anyhow::Result<Authority> {
    let facts = state.cluster.as_ref().ok_or_else(|| anyhow::anyhow!("this node does not know the cluster yet"))?;
    Authority::from_der(&facts.ca_certificate, &keys.open(CA_KEY_PURPOSE, &facts.sealed_ca_key)?)
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
