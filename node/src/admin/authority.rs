//! The replacement of the cluster's CA, a step a call: introduced, trusted everywhere, signs, held everywhere, alone.
//! That of the sealing key goes on by itself once it is begun.

use std::time::Duration;

use quorumgate_model::{
    command::{Body, RotateCa, RotateSealingKey},
    state::{CaStage, SealingStage, State},
};
use quorumgate_proto::admin::v1::{
    self as admin, rotate_ca_request::Step, rotate_sealing_key_request::Step as SealingStep,
};
use tonic::{Code, Status};

use super::{
    desk::{self, Desk, Read},
    failure,
    gate::Call,
};
use crate::{
    consensus::{CaProgress, SealingProgress, may_go_on},
    pki,
};

const REPORTS_WITHIN: Duration = Duration::from_secs(3);

impl Desk {
    pub async fn rotate_ca(&self, call: &Call, step: Step) -> Result<admin::RotateCaResponse, Status> {
        let state = self.read(call, Read::Linear).await?;
        let taken = match step {
            Step::Look => None,
            Step::Advance => Some(self.next_step(call, &state).await?),
            Step::Abandon => Some(abandon(&state)?),
        };
        let mut revision = 0;
        if let Some(step) = taken {
            let applied = self.propose_once(call, Body::RotateCa(step)).await?;
            revision = desk::written(&applied)?.index;
        }
        let nodes = self.consensus.ca_progress(REPORTS_WITHIN.min(call.left())).await;
        let state = self.consensus.state();
        let facts = state.cluster.as_ref().ok_or_else(|| Status::internal("a cluster without its facts"))?;
        let hash = |der: &[u8]| data_encoding::HEXLOWER.encode(&pki::sha256(der));
        Ok(admin::RotateCaResponse {
            header: Some(self.header_at(&state)),
            stage: ca_word(&state).into(),
            ca_sha256: hash(&facts.ca_certificate),
            other_sha256: state.other_ca.as_ref().map(|other| hash(&other.certificate)).unwrap_or_default(),
            nodes: nodes.into_iter().map(shown).collect(),
            revision,
        })
    }

    pub async fn rotate_sealing_key(
        &self,
        call: &Call,
        step: SealingStep,
    ) -> Result<admin::RotateSealingKeyResponse, Status> {
        let state = self.read(call, Read::Linear).await?;
        let taken = match step {
            SealingStep::Begin if state.sealing.rotation.is_none() => {
                let made = self.consensus.new_sealing_key();
                let sealed_key = made.map_err(|error| {
                    failure::status(Code::Internal, "INTERNAL", format!("no new key could be made: {error:#}"))
                })?;
                Some(RotateSealingKey::Introduce { sealed_key: sealed_key.into() })
            }
            SealingStep::Look | SealingStep::Begin => None,
            SealingStep::Abandon => Some(RotateSealingKey::Abandon),
        };
        let mut revision = 0;
        if let Some(step) = taken {
            let applied = self.propose_once(call, Body::RotateSealingKey(step)).await?;
            revision = desk::written(&applied)?.index;
        }
        let nodes = self.consensus.sealing_progress(REPORTS_WITHIN.min(call.left())).await;
        let state = self.consensus.state();
        let shown = |it: SealingProgress| admin::rotate_sealing_key_response::Node {
            name: it.node,
            unreachable: !it.answers,
            holds: it.holds,
            alone: it.alone,
        };
        Ok(admin::RotateSealingKeyResponse {
            header: Some(self.header_at(&state)),
            stage: sealing_word(&state).into(),
            number: state.sealing.newest(),
            left: match state.sealing.rotation.as_ref().map(|it| it.stage) {
                Some(SealingStage::Introduced) => state.all_sealed().count() as u32,
                Some(SealingStage::Replaced) | None => state.sealed_before() as u32,
            },
            nodes: nodes.into_iter().map(shown).collect(),
            revision,
        })
    }

    /// Refused while a node has not carried out the one before: it would be shut out, or shut others out.
    async fn next_step(&self, call: &Call, state: &State) -> Result<RotateCa, Status> {
        let Some(other) = &state.other_ca else {
            let (certificate, sealed_key) = self.consensus.new_ca().map_err(|error| {
                failure::status(Code::Internal, "INTERNAL", format!("no new CA could be made: {error:#}"))
            })?;
            return Ok(RotateCa::Introduce { certificate: certificate.into(), sealed_key: sealed_key.into() });
        };
        let nodes = self.consensus.ca_progress(REPORTS_WITHIN.min(call.left())).await;
        if !may_go_on(other.stage, &nodes) {
            let behind: Vec<_> = nodes.iter().filter_map(|it| lacks(other.stage, it)).collect();
            return Err(failure::precondition("NODES_BEHIND", "cluster", &behind.join("; ")));
        }
        Ok(match other.stage {
            CaStage::Introduced => RotateCa::Replace,
            CaStage::Replaced => RotateCa::End,
        })
    }
}

fn abandon(state: &State) -> Result<RotateCa, Status> {
    let why = match state.other_ca.as_ref().map(|other| other.stage) {
        Some(CaStage::Introduced) => return Ok(RotateCa::End),
        Some(CaStage::Replaced) => "the new CA signs already: go on, and rotate once more to be rid of it",
        None => "the CA is not being replaced",
    };
    Err(failure::precondition("NOT_INTRODUCED", "cluster", why))
}

pub fn ca_word(state: &State) -> &'static str {
    match state.other_ca.as_ref().map(|other| other.stage) {
        None => "none",
        Some(CaStage::Introduced) => "introduced",
        Some(CaStage::Replaced) => "replaced",
    }
}

pub fn sealing_word(state: &State) -> &'static str {
    match state.sealing.rotation.as_ref().map(|it| it.stage) {
        None => "none",
        Some(SealingStage::Introduced) => "introduced",
        Some(SealingStage::Replaced) => "replaced",
    }
}

fn lacks(stage: CaStage, it: &CaProgress) -> Option<String> {
    let CaProgress { node, answers, trusts, holds } = it;
    match (answers, trusts, holds) {
        (false, ..) => {
            Some(format!("node {node} does not answer: bring it back, or remove it (quorumgate node rm {node})"))
        }
        (_, false, _) => Some(format!("node {node} does not trust both CAs yet")),
        (_, _, false) if stage == CaStage::Replaced => {
            Some(format!("node {node} has no certificate by the new CA yet"))
        }
        _ => None,
    }
}

fn shown(it: CaProgress) -> admin::rotate_ca_response::Node {
    let CaProgress { node, answers, trusts, holds } = it;
    admin::rotate_ca_response::Node { name: node, unreachable: !answers, trusts, holds }
}
