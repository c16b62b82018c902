//! What let somebody in, kept for as long as their streams: where the auth, its authority, its lists or its keys are
//! replaced, it is judged anew.

use std::{cell::RefCell, mem::discriminant, rc::Rc, sync::Arc};

use quorumgate_model::resource::{AuthKind, Name, SignatureKey, VerifyingKey};
use rustls_pki_types::CertificateDer;

use super::{
    auths::{Kind, Plan},
    directory::Facts,
    jwt::{self, VerifiedToken},
};

#[derive(Debug, Clone)]
pub(crate) struct Presented {
    what: What,
    by: RefCell<Judge>,
}

#[derive(Debug, Clone)]
enum What {
    Certificate {
        chain: Rc<[CertificateDer<'static>]>,
        consumer: Name,
    },
    /// The id of the key that has signed the request.
    SignatureKey(Arc<str>),
    Token(Arc<VerifiedToken>),
}

/// Who took it last, as it was then.
#[derive(Debug, Clone)]
struct Judge {
    plan: Arc<Plan>,
    /// The id of the key set that a token was held against; 0: none yet.
    keys: u64,
}

impl Presented {
    pub(crate) fn certificate(chain: Rc<[CertificateDer<'static>]>, consumer: Name, by: Arc<Plan>) -> Self {
        Self::new(What::Certificate { chain, consumer }, by)
    }

    pub(crate) fn signature_key(id: Arc<str>, by: Arc<Plan>) -> Self {
        Self::new(What::SignatureKey(id), by)
    }

    pub(crate) fn token(token: Arc<VerifiedToken>, by: Arc<Plan>) -> Self {
        Self::new(What::Token(token), by)
    }

    fn new(what: What, plan: Arc<Plan>) -> Self {
        Self { what, by: RefCell::new(Judge { plan, keys: 0 }) }
    }

    /// Whether the auth as it is now takes it too, for the same consumer. Costs next to nothing while nothing changes.
    pub(crate) fn still_holds(&self, facts: &Facts, now_s: u64) -> bool {
        let mut by = self.by.borrow_mut();
        let Some(plan) = facts.auths.find(by.plan.name()) else { return false };
        let same = Arc::ptr_eq(plan, &by.plan);
        let holds = match &self.what {
            What::Certificate { chain, consumer } => match &plan.kind {
                Kind::Mtls(_) if same => true,
                Kind::Mtls(mtls) => mtls.judge(chain, now_s).is_ok_and(|it| it.consumer.as_ref() == Some(consumer)),
                _ => false,
            },
            What::SignatureKey(id) => {
                let (now, then) = (signature_key(plan, id), signature_key(&by.plan, id));
                same || now.zip(then).is_some_and(|(now, then)| is_same(now, then))
            }
            What::Token(_) if discriminant(&plan.auth.kind) != discriminant(&by.plan.auth.kind) => false,
            What::Token(token) => match &plan.kind {
                // A secret or keys that are not to be had: nothing is known that speaks against the token.
                Kind::Broken(_) => return true,
                Kind::Jwt { plan: jwt, keys } => match keys.at_hand() {
                    None => return true,
                    // Its keys change on their own.
                    Some(set) if same && set.id() == by.keys => true,
                    Some(set) => {
                        let holds = jwt::still_holds(jwt, &set, token, now_s);
                        if holds {
                            by.keys = set.id();
                        }
                        holds
                    }
                },
                // What an endpoint or a session's cookie vouches for is not asked about twice.
                _ => true,
            },
        };
        if holds && !same {
            by.plan = plan.clone();
        }
        holds
    }
}

/// Another key, algorithm or consumer under the same id is another credential; a secret that is sealed anew is the same.
fn is_same(one: &SignatureKey, other: &SignatureKey) -> bool {
    let same_key = match (&one.key, &other.key) {
        (VerifyingKey::Secret(one), VerifyingKey::Secret(other)) => one.fingerprint() == other.fingerprint(),
        (one, other) => one == other,
    };
    same_key && (one.algorithm, &one.consumer) == (other.algorithm, &other.consumer)
}

fn signature_key<'a>(plan: &'a Plan, id: &str) -> Option<&'a SignatureKey> {
    match &plan.auth.kind {
        AuthKind::Signature(it) => it.keys.iter().find(|key| key.id == *id),
        _ => None,
    }
}
