//! Follows the cluster's CA as it is replaced: whom this node trusts, and what every node has got to.

use std::{sync::Arc, time::Duration};

use quorumgate_model::state::{CaStage, State};
use rustls::pki_types::CertificateDer;

use super::{Consensus, member::Member, renew::CA_KEY_PURPOSE};
use crate::pki::{self, Authority};

/// How far a node is with the replacement of the CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaProgress {
    pub node: String,
    pub answers: bool,
    /// It trusts every CA of the state and no other.
    pub trusts: bool,
    /// Its certificate is by the CA that signs now.
    pub holds: bool,
}

/// The CA that signs, then the other one while there is one.
fn trusted(state: &State) -> Vec<CertificateDer<'static>> {
    let signs = state.cluster.iter().map(|facts| facts.ca_certificate.clone());
    let other = state.other_ca.iter().map(|other| other.certificate.clone());
    signs.chain(other).map(CertificateDer::from).collect()
}

impl Member {
    /// Trusts what the state says, and writes it down, so that a restart without anybody in reach trusts the same.
    pub(super) fn follow_cas(&self) {
        let wanted = trusted(&self.state());
        if wanted.is_empty() || *self.held.cas() == wanted {
            return;
        }
        match self.held.trust(wanted.clone()).and_then(|()| self.peers.trust(&wanted)) {
            Ok(()) => tracing::info!(cas = wanted.len(), "the CAs that this node trusts have changed"),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the CAs that the cluster trusts are not written down here");
            }
        }
    }

    /// Of this node's certificate: whether the CA that signs now has not signed it.
    pub(super) fn is_by_another_ca(&self) -> bool {
        let state = self.state();
        let signs = state.cluster.as_ref().map(|facts| pki::sha256(&facts.ca_certificate));
        // Not before the node trusts it: its own certificate must be by one that it does.
        let known = self.held.cas().first().map(|ca| pki::sha256(ca));
        signs.is_some_and(|signs| known == Some(signs) && signs != self.held.issuer_sha256())
    }
}

impl Consensus {
    /// The CAs that this node trusts, the one that signs first.
    pub fn cluster_cas(&self) -> Arc<Vec<CertificateDer<'static>>> {
        self.member.held.cas()
    }

    /// A new CA, its key sealed for the state.
    pub fn new_ca(&self) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
        let authority = Authority::generate(self.member.me.cluster)?;
        let sealed = self.keys().seal(CA_KEY_PURPOSE, authority.key_der())?;
        Ok((authority.certificate().to_vec(), sealed))
    }

    /// Every node of the state, as it says itself.
    pub async fn ca_progress(&self, deadline: Duration) -> Vec<CaProgress> {
        let reports = self.reports(deadline).await;
        let state = self.state();
        let wanted: Vec<_> = trusted(&state).iter().map(|ca| pki::sha256(ca).to_vec()).collect();
        let progress = reports.into_iter().map(|it| match it.report {
            None => CaProgress { node: it.name, answers: false, trusts: false, holds: false },
            Some(report) => CaProgress {
                node: it.name,
                answers: true,
                trusts: report.trusted_cas == wanted,
                holds: Some(&report.certificate_issuer) == wanted.first(),
            },
        });
        progress.collect()
    }
}

/// Whether every node has got so far that the next step may be taken.
pub fn may_go_on(stage: CaStage, nodes: &[CaProgress]) -> bool {
    match stage {
        CaStage::Introduced => nodes.iter().all(|it| it.trusts),
        CaStage::Replaced => nodes.iter().all(|it| it.trusts && it.holds),
    }
}
