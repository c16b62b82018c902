//! The cluster's CA is replaced in three steps, each of which every node has carried out before the next is taken: the new
//! one is introduced and trusted beside the old, then it signs, then the old one is trusted no more.

use std::sync::Arc;

use super::{ClusterFacts, State, apply::Done};
use crate::{
    command::{Reason, Rejected, RotateCa},
    invalid::Invalid,
};

/// The largest certificate or sealed key of a CA, bytes.
const CA_BYTES_MAX: usize = 16 << 10;

/// A CA beside the one that signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherCa {
    pub stage: CaStage,
    /// DER.
    pub certificate: Vec<u8>,
    pub sealed_key: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaStage {
    /// It is to sign next.
    Introduced,
    /// It signed before.
    Replaced,
}

impl State {
    pub(super) fn rotate_ca(&mut self, it: &RotateCa) -> Result<Done, Rejected> {
        match (it, self.other_ca.as_deref()) {
            (RotateCa::Introduce { certificate, sealed_key }, None) => {
                for (field, bytes) in [("certificate", certificate), ("sealed_key", sealed_key)] {
                    if !(1..=CA_BYTES_MAX).contains(&bytes.len()) {
                        let found = format!("{} bytes", bytes.len());
                        let allowed = format!("1 to {CA_BYTES_MAX} bytes");
                        return Err(Invalid::field(field).found(found).allowed(allowed).into());
                    }
                }
                self.sealing.check(sealed_key)?;
                let (certificate, sealed_key) = (certificate.to_vec(), sealed_key.to_vec());
                self.other_ca = Some(Arc::new(OtherCa { stage: CaStage::Introduced, certificate, sealed_key }));
                Ok(Done::changed("a new CA introduced: it is trusted and does not sign yet".into()))
            }
            (RotateCa::Introduce { .. }, Some(_)) => {
                Err(Reason::AlreadyExists.because("the CA is being replaced already"))
            }
            (RotateCa::Replace, Some(other)) if other.stage == CaStage::Introduced => {
                let facts = self.cluster.as_ref().expect("apply has refused everything before Bootstrap");
                let before = OtherCa {
                    stage: CaStage::Replaced,
                    certificate: facts.ca_certificate.clone(),
                    sealed_key: facts.sealed_ca_key.clone(),
                };
                self.cluster = Some(Arc::new(ClusterFacts {
                    ca_certificate: other.certificate.clone(),
                    sealed_ca_key: other.sealed_key.clone(),
                    ..ClusterFacts::clone(facts)
                }));
                self.other_ca = Some(Arc::new(before));
                Ok(Done::changed("the CA replaced: the new one signs, the old one is trusted still".into()))
            }
            (RotateCa::Replace, _) => Err(Reason::NotFound.because("no new CA has been introduced")),
            (RotateCa::End, Some(other)) => {
                let summary = match other.stage {
                    CaStage::Introduced => "the new CA given up before it signed",
                    CaStage::Replaced => "the old CA is trusted no more",
                };
                self.other_ca = None;
                Ok(Done::changed(summary.into()))
            }
            (RotateCa::End, None) => Err(Reason::NotFound.because("the CA is not being replaced")),
        }
    }
}
