//! The cluster's own secrets: made once by whoever leads first, sealed in the state, opened on every node for its proxy.

use std::sync::Arc;

use quorumgate_model::{
    command::{Body, RotateTicketKeys, SetSecret},
    resource::{Name, Resources},
    state::{State, TICKET_KEY_EVERY_US},
};
use quorumgate_proxy::{identity::directory::Opened, tls::TICKET_KEY_BYTES};
use tracing::error;

use crate::{
    pki::{self, ClusterKey},
    sealed,
};

/// Hashes API keys and the names of Basic users.
pub const KEY_PEPPER: &str = "key-pepper";
/// Seals the cookies of browser logins.
pub const COOKIE_KEY: &str = "cookie-key";

/// What a key of session tickets is sealed for.
const TICKET_KEY: &str = "session ticket key";

const ALL: [&str; 2] = [KEY_PEPPER, COOKIE_KEY];
const SECRET_BYTES: usize = 32;

/// The next secret that the state is to have and does not.
pub fn missing(state: &State, key: &ClusterKey) -> Option<Body> {
    state.cluster.as_ref()?;
    let name: Name = ALL.iter().find(|name| !state.secrets.contains_key(**name))?.parse().ok()?;
    let made = pki::random::<SECRET_BYTES>().and_then(|secret| key.seal(&purpose(&name), &secret));
    match made {
        Ok(sealed) => Some(Body::SetSecret(SetSecret { name, sealed: sealed.into() })),
        Err(error) => {
            error!(%error, %name, "a secret of the cluster cannot be made");
            None
        }
    }
}

/// The next key of session tickets, once the newest is old enough on the log clock.
pub fn rotated(state: &State, key: &ClusterKey, now_us: u64) -> Option<Body> {
    state.cluster.as_ref()?;
    let newest = state.ticket_keys.back();
    if newest.is_some_and(|newest| now_us < newest.made_at_us + TICKET_KEY_EVERY_US) {
        return None;
    }
    let made = pki::random::<TICKET_KEY_BYTES>().and_then(|secret| key.seal(TICKET_KEY, &secret));
    match made {
        Ok(sealed) => {
            let newest = newest.map_or(0, |newest| newest.index);
            Some(Body::RotateTicketKeys(RotateTicketKeys { sealed: sealed.into(), newest }))
        }
        Err(error) => {
            error!(%error, "a key of session tickets cannot be made");
            None
        }
    }
}

/// The pepper of this state; None before the first leader has made it.
pub fn pepper(state: &State, key: &ClusterKey) -> anyhow::Result<Option<[u8; 32]>> {
    let Some(sealed) = state.secrets.get(KEY_PEPPER) else { return Ok(None) };
    let secret = key.open(&purpose(KEY_PEPPER), sealed)?;
    let wrong = |_| anyhow::anyhow!("the key pepper has not {SECRET_BYTES} bytes");
    secret.as_slice().try_into().map(Some).map_err(wrong)
}

/// Opens what changed since the last time, which is next to nothing.
pub struct Opener {
    key: ClusterKey,
    /// Of how many: they are written once and never removed.
    known: usize,
    /// The index of the newest ticket key.
    ticket_key: u64,
    /// Whose secrets are open.
    resources: Resources,
    opened: Arc<Opened>,
}

impl Opener {
    pub fn new(key: ClusterKey) -> Self {
        Self { key, known: 0, ticket_key: 0, resources: Resources::default(), opened: Arc::default() }
    }

    /// What cannot be opened is left out, and said.
    pub fn open(&mut self, state: &State) -> Arc<Opened> {
        let ticket_key = state.ticket_keys.back().map_or(0, |key| key.index);
        let others = self.known != state.secrets.len() || self.ticket_key != ticket_key;
        if others || !self.resources.ptr_eq(&state.resources) {
            let of_resources = sealed::open_all(&self.key, &state.resources);
            let mut opened = Opened { of_resources, ..Opened::default() };
            for (name, sealed) in &state.secrets {
                match self.key.open(&purpose(name), sealed) {
                    Ok(secret) => drop(opened.secrets.insert(name.clone(), secret.into())),
                    Err(error) => error!(%error, %name, "a secret of the cluster cannot be opened on this node"),
                }
            }
            opened.pepper = opened.secrets.get(KEY_PEPPER).and_then(|secret| secret[..].try_into().ok());
            for sealed in state.ticket_keys.iter().rev().map(|key| &key.sealed) {
                match self.key.open(TICKET_KEY, sealed).map(|secret| secret.try_into()) {
                    Ok(Ok(secret)) => opened.ticket_keys.push(secret),
                    Ok(Err(_)) => error!("a key of session tickets has another length"),
                    Err(error) => error!(%error, "a key of session tickets cannot be opened on this node"),
                }
            }
            self.ticket_key = ticket_key;
            self.known = state.secrets.len();
            self.resources = state.resources.clone();
            self.opened = Arc::new(opened);
        }
        self.opened.clone()
    }
}

/// Sealed bytes open under their own name only.
fn purpose(name: &str) -> String {
    format!("cluster secret {name}")
}
