//! What receivers and sign-outs want revoked, on its way to the control plane: it alone can have the cluster agree.

use std::{net::IpAddr, sync::Arc, time::Duration};

use quorumgate_model::command::NewRevocation;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::directory::Directory;

/// Requests whose revocations wait to be proposed; more are told to come again.
const WAITING_MAX: usize = 256;
/// How long a request waits for the cluster. Whoever sends such requests gives up after some ten seconds.
const AGREED_WITHIN: Duration = Duration::from_secs(5);

/// To be revoked, all or nothing. Dropped without `agreed`, it is told not to be.
#[derive(Debug)]
pub struct Handed {
    pub entries: Arc<[NewRevocation]>,
    pub reason: String,
    /// The route, and who asked there as far as is known.
    pub route: String,
    pub who: String,
    pub client_ip: IpAddr,
    answer: oneshot::Sender<()>,
}

/// Whether it will be is not known: whoever asks may ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAgreed;

/// Who asks for a revocation, for the audit.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub(crate) route: String,
    pub(crate) who: String,
    pub(crate) client_ip: IpAddr,
}

impl Handed {
    /// The cluster has committed it.
    pub fn agreed(self) {
        let _ = self.answer.send(());
    }
}

impl Directory {
    /// What is to be proposed from now on. None for everybody but the first who asks.
    pub fn handed(&self) -> Option<mpsc::Receiver<Handed>> {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        self.handing.set(sender).ok().map(|()| receiver)
    }

    /// Returns once the cluster has agreed.
    pub(crate) async fn revoke(
        &self,
        entries: Vec<NewRevocation>,
        reason: &str,
        asker: Asker,
    ) -> Result<(), NotAgreed> {
        if entries.is_empty() {
            return Ok(());
        }
        let Asker { route, who, client_ip } = asker;
        let (answer, answered) = oneshot::channel();
        let handed = Handed { entries: entries.into(), reason: reason.to_owned(), route, who, client_ip, answer };
        self.handing.get().ok_or(NotAgreed)?.try_send(handed).map_err(|_| NotAgreed)?;
        match timeout(AGREED_WITHIN, answered).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(NotAgreed),
        }
    }
}
