//! What a portal asks of the control plane for somebody who is signed in: it alone knows all of a consumer's keys and what
//! is used on other nodes, and can have the cluster agree.

use std::{net::IpAddr, sync::Arc, time::Duration};

use quorumgate_model::{
    credential::{CredentialId, Standing},
    resource::{Key, Kind, Name, PortalKeys},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    identity::{Caller, directory::Directory},
    worker::wall_s,
};

/// Questions that wait; whoever asks more is told to come again.
const WAITING_MAX: usize = 64;
/// How long somebody waits for a page.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// Who asks: somebody who is signed in as this consumer, at this route.
#[derive(Debug, Clone)]
pub struct Visitor {
    pub consumer: Name,
    pub route: String,
    pub client_ip: IpAddr,
    pub caller: Arc<Caller>,
}

impl Visitor {
    /// Whether somebody who was let in would not be by now, as questions wait: revoked or banned, the session over, or the
    /// consumer gone.
    pub fn is_shut_out(&self, directory: &Directory) -> bool {
        let (bans, now_us) = (&directory.bans, || directory.now_us());
        let consumer = Key { kind: Kind::Consumer, name: self.consumer.clone() };
        // Of sessions no skew is granted.
        if self.caller.expires.is_some_and(|at| wall_s() >= at)
            || !directory.load_facts().resources.contains_key(&consumer)
        {
            return true;
        }
        directory.is_revoked(&self.caller.subject).is_some()
            || bans.of_caller(&self.caller, now_us).is_some()
            || bans.of_address(self.client_ip, now_us).is_some()
    }

    /// Whom the session is of, as the provider says.
    pub fn subject(&self) -> Option<&str> {
        self.caller.subject.token.as_ref()?.subject.as_deref()
    }
}

#[derive(Debug, Clone)]
pub enum Question {
    /// Of the visitor's consumer, as are all others.
    Keys {
        given: Option<PortalKeys>,
    },
    Create {
        /// Of those that the portal gives.
        scopes: Vec<String>,
        label: String,
        given: PortalKeys,
    },
    Rotate {
        id: CredentialId,
        given: PortalKeys,
    },
    Revoke {
        id: CredentialId,
    },
    Usage {
        limits: Vec<Name>,
        /// Policies of kind version.
        versions: Vec<Name>,
    },
}

/// To be answered once. Dropped, nobody knows what came of it.
#[derive(Debug)]
pub struct Asked {
    pub visitor: Visitor,
    pub question: Question,
    answer: oneshot::Sender<Result<Reply, NotDone>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Keys(Vec<OwnKey>),
    /// The only time that the secret is told.
    Made {
        id: CredentialId,
        secret: String,
    },
    Revoked,
    Usage(OwnUsage),
}

/// A key as its owner is shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnKey {
    pub id: CredentialId,
    pub label: String,
    /// How it begins.
    pub prefix: String,
    pub scopes: Vec<String>,
    pub standing: Standing,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// None: it does not end by itself, or has ended.
    pub ends_in: Option<Duration>,
    /// Whether `Question::Rotate` would be carried out.
    pub rotates: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnUsage {
    pub limits: Vec<LimitUse>,
    pub calls: Vec<Calls>,
    /// How many nodes did not say what was used there.
    pub unanswered: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitUse {
    pub limit: Name,
    /// Of the key that it is about, its label and how it begins; None: of all of the consumer's together.
    pub key: Option<String>,
    pub used: u64,
    pub of: u64,
    pub resets_in: Option<Duration>,
}

/// Of a version that is on its way out, since the nodes started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calls {
    pub policy: Name,
    pub count: u64,
    /// Milliseconds since 1970.
    pub last_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotDone {
    /// The visitor was shut out while the question waited.
    ShutOut,
    /// The consumer has no such key.
    NotTheirs,
    /// The portal would not have given such a key.
    NotGiven,
    /// The consumer has as many as it may.
    TooMany,
    /// The consumer asks too often; after so many seconds it may again.
    TooOften(u64),
    Refused(String),
    /// Certainly not done.
    Unavailable,
    /// Perhaps done.
    Unknown,
}

impl Asked {
    /// Nobody waits for the answer any more: who asked was told that it is not known.
    pub fn is_given_up(&self) -> bool {
        self.answer.is_closed()
    }

    pub fn answer(self, reply: Result<Reply, NotDone>) {
        let _ = self.answer.send(reply);
    }
}

impl Directory {
    /// What portals ask from now on. None for everybody but the first who wants to know.
    pub fn asked(&self) -> Option<mpsc::Receiver<Asked>> {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        self.asking.set(sender).ok().map(|()| receiver)
    }

    pub(super) async fn ask(&self, visitor: Visitor, question: Question) -> Result<Reply, NotDone> {
        let (answer, answered) = oneshot::channel();
        let asked = Asked { visitor, question, answer };
        self.asking.get().ok_or(NotDone::Unavailable)?.try_send(asked).map_err(|_| NotDone::Unavailable)?;
        match timeout(ANSWERED_WITHIN, answered).await {
            Ok(Ok(reply)) => reply,
            _ => Err(NotDone::Unknown),
        }
    }
}
