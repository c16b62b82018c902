//! The certificate that let somebody in, kept for as long as their streams: where its authority or the revocation lists
//! are replaced, it is judged anew.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use quorumgate_model::resource::Name;
use rustls_pki_types::CertificateDer;

use super::{
    auths::{Kind, Plan},
    directory::Facts,
};

#[derive(Debug)]
pub(crate) struct Presented {
    chain: Rc<[CertificateDer<'static>]>,
    consumer: Name,
    /// The auth that took it last, as it was then.
    by: RefCell<Arc<Plan>>,
}

impl Presented {
    pub(crate) fn new(chain: Rc<[CertificateDer<'static>]>, consumer: Name, by: Arc<Plan>) -> Self {
        Self { chain, consumer, by: RefCell::new(by) }
    }

    /// Whether the auth as it is now takes it too, for the same consumer. Costs next to nothing while nothing changes.
    pub(crate) fn still_holds(&self, facts: &Facts, now_s: u64) -> bool {
        let mut by = self.by.borrow_mut();
        let Some(plan) = facts.auths.find(by.name()) else { return false };
        if Arc::ptr_eq(plan, &by) {
            return true;
        }
        let Kind::Mtls(mtls) = &plan.kind else { return false };
        let holds = mtls.judge(&self.chain, now_s).is_ok_and(|it| it.consumer.as_ref() == Some(&self.consumer));
        if holds {
            *by = plan.clone();
        }
        holds
    }
}
