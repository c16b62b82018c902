//! The cluster's own secrets: made once by whoever leads first, sealed in the state, opened on every node for its proxy.

use std::sync::Arc;

use quorumgate_model::{
    command::{Body, RotateTicketKeys, SetSecret},
    resource::{Name, Resources},
    state::{Secrets, State, TICKET_KEY_EVERY_US, TicketKeys},
};
use quorumgate_proxy::{identity::directory::Opened, tls::TICKET_KEY_BYTES};
use tracing::{debug, error};

use crate::{
    consensus::CA_KEY_PURPOSE,
    keyring::Keyring,
    pki::{self, Keys},
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
pub fn missing(state: &State, keys: &Keys) -> Option<Body> {
    state.cluster.as_ref()?;
    let name: Name = ALL.iter().find(|name| !state.secrets.contains_key(**name))?.parse().ok()?;
    let made = pki::random::<SECRET_BYTES>().and_then(|secret| keys.seal(&purpose(&name), &secret));
    match made {
        Ok(sealed) => Some(Body::SetSecret(SetSecret { name, sealed: sealed.into() })),
        Err(error) => {
            error!(%error, %name, "a secret of the cluster cannot be made");
            None
        }
    }
}

/// The next key of session tickets, once the newest is old enough on the log clock.
pub fn rotated(state: &State, keys: &Keys, now_us: u64) -> Option<Body> {
    state.cluster.as_ref()?;
    let newest = state.ticket_keys.back();
    if newest.is_some_and(|newest| now_us < newest.made_at_us + TICKET_KEY_EVERY_US) {
        return None;
    }
    let made = pki::random::<TICKET_KEY_BYTES>().and_then(|secret| keys.seal(TICKET_KEY, &secret));
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
pub fn pepper(state: &State, keys: &Keys) -> anyhow::Result<Option<[u8; 32]>> {
    let Some(sealed) = state.secrets.get(KEY_PEPPER) else { return Ok(None) };
    let secret = keys.open(&purpose(KEY_PEPPER), sealed)?;
    let wrong = |_| anyhow::anyhow!("the key pepper has not {SECRET_BYTES} bytes");
    secret.as_slice().try_into().map(Some).map_err(wrong)
}

/// Everything that the state holds sealed, with what it is sealed for: as `State::all_sealed`.
pub fn all(state: &State) -> impl Iterator<Item = (String, &[u8])> {
    let cas = state.cluster.iter().map(|it| &it.sealed_ca_key).chain(state.other_ca.iter().map(|it| &it.sealed_key));
    let cas = cas.map(|sealed| (CA_KEY_PURPOSE.to_owned(), &**sealed));
    let own = state.secrets.iter().map(|(name, sealed)| (purpose(name), &**sealed));
    let tickets = state.ticket_keys.iter().map(|key| (TICKET_KEY.to_owned(), &*key.sealed));
    let stored = [&state.resources].into_iter().chain(state.trial.iter().map(|it| &it.prior));
    let resources = stored.flat_map(sealed::all).chain(state.pending_objects().flat_map(sealed::of));
    cas.chain(own).chain(tickets).chain(resources.map(|(purpose, sealed)| (purpose, &**sealed)))
}

/// Opens what changed since the last time, which is next to nothing.
pub struct Opener {
    keyring: Arc<Keyring>,
    /// What is open.
    secrets: Secrets,
    ticket_keys: TicketKeys,
    /// Whose secrets are open.
    resources: Resources,
    opened: Arc<Opened>,
}

impl Opener {
    pub fn new(keyring: Arc<Keyring>) -> Self {
        let (secrets, ticket_keys, resources, opened) = Default::default();
        Self { keyring, secrets, ticket_keys, resources, opened }
    }

    /// What cannot be opened is left out, and said.
    pub fn open(&mut self, state: &State) -> Arc<Opened> {
        // A handful of each, compared by their bytes: sealed anew, they may open here where they did not before.
        let others = self.secrets != state.secrets || self.ticket_keys != state.ticket_keys;
        if others || !self.resources.ptr_eq(&state.resources) {
            let keys = self.keyring.at(state);
            let mut opened = Opened { of_resources: sealed::open_all(&keys, &state.resources), ..Opened::default() };
            for (name, sealed) in &state.secrets {
                match keys.open(&purpose(name), sealed) {
                    Ok(secret) => drop(opened.secrets.insert(name.clone(), secret.into())),
                    Err(error) if keys.is_past(sealed) => debug!(%error, "a secret of an older state is not opened"),
                    Err(error) => error!(%error, %name, "a secret of the cluster cannot be opened on this node"),
                }
            }
            opened.pepper = opened.secrets.get(KEY_PEPPER).and_then(|secret| secret[..].try_into().ok());
            for sealed in state.ticket_keys.iter().rev().map(|key| &key.sealed) {
                match keys.open(TICKET_KEY, sealed).map(|secret| secret.try_into()) {
                    Ok(Ok(secret)) => opened.ticket_keys.push(secret),
                    Ok(Err(_)) => error!("a key of session tickets has another length"),
                    Err(error) if keys.is_past(sealed) => debug!(%error, "a secret of an older state is not opened"),
                    Err(error) => error!(%error, "a key of session tickets cannot be opened on this node"),
                }
            }
            self.ticket_keys = state.ticket_keys.clone();
            self.secrets = state.secrets.clone();
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
