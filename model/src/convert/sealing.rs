//! The replacement of the sealing key, as a command and as a part of the state's head.

use std::sync::Arc;

use quorumgate_proto::store::v1 as store;
use store::rotate_sealing_key::Step;

use crate::{
    command::{Resealed, RotateSealingKey},
    invalid::Invalid,
    state::{Sealing, SealingRotation, SealingStage},
};

pub(crate) fn command_to(it: &RotateSealingKey) -> store::RotateSealingKey {
    let mut message = store::RotateSealingKey::default();
    let step = match it {
        RotateSealingKey::Introduce { sealed_key } => {
            message.sealed_key = sealed_key.to_vec();
            Step::Introduce
        }
        RotateSealingKey::Abandon => Step::Abandon,
        RotateSealingKey::Replace { number } => {
            message.number = *number;
            Step::Replace
        }
        RotateSealingKey::Reseal { number, resealed } => {
            message.number = *number;
            let one = |it: &Resealed| store::Resealed { before: it.before.to_vec(), after: it.after.to_vec() };
            message.resealed = resealed.iter().map(one).collect();
            Step::Reseal
        }
        RotateSealingKey::End { number, nodes_upto } => {
            (message.number, message.nodes_upto) = (*number, *nodes_upto);
            Step::End
        }
    };
    store::RotateSealingKey { step: step.into(), ..message }
}

pub(crate) fn command_from(it: store::RotateSealingKey) -> Result<RotateSealingKey, Invalid> {
    let number = it.number;
    Ok(match it.step() {
        Step::Introduce => RotateSealingKey::Introduce { sealed_key: it.sealed_key.into() },
        Step::Abandon => RotateSealingKey::Abandon,
        Step::Replace => RotateSealingKey::Replace { number },
        Step::Reseal => {
            let one = |it: store::Resealed| Resealed { before: it.before.into(), after: it.after.into() };
            RotateSealingKey::Reseal { number, resealed: it.resealed.into_iter().map(one).collect() }
        }
        Step::End => RotateSealingKey::End { number, nodes_upto: it.nodes_upto },
        Step::Unspecified => return Err(Invalid::field("step").found(it.step).allowed("a known step")),
    })
}

/// A cluster that has never replaced its key leaves the head as it was before that could be.
pub(crate) fn into_head(it: &Sealing, head: store::StateHead) -> store::StateHead {
    let head = store::StateHead { sealing_number: it.number, ..head };
    let Some(rotation) = it.rotation.as_deref() else { return head };
    store::StateHead {
        other_sealing_number: rotation.other,
        sealed_sealing_key: rotation.sealed_key.to_vec(),
        other_sealing_replaced: rotation.stage == SealingStage::Replaced,
        ..head
    }
}

pub(crate) fn from_head(head: &store::StateHead) -> Sealing {
    let rotation = (!head.sealed_sealing_key.is_empty()).then(|| SealingRotation {
        stage: if head.other_sealing_replaced { SealingStage::Replaced } else { SealingStage::Introduced },
        other: head.other_sealing_number,
        sealed_key: head.sealed_sealing_key.as_slice().into(),
    });
    Sealing { number: head.sealing_number, rotation: rotation.map(Arc::new) }
}
