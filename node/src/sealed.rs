//! Secrets inside of resources: sealed before they are proposed, opened on every node for its proxy. What an export shows
//! of one is its fingerprint, which, applied again, keeps it.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context;
use quorumgate_model::{
    invalid::Invalid,
    mutants::{self, Mutant},
    resource::{Fingerprint, Key, Kind, Name, Resource, Resources, Secret, Stored},
    state::SECRETIVE,
};
use quorumgate_proxy::tls::Shown;
use tracing::{debug, error};

use crate::pki::Keys;

/// Sealed bytes open only in the object and the field that they were sealed for: nobody moves them to where they would
/// be sent to someone else.
fn purpose(object: &Key, field: &str) -> String {
    if mutants::is(Mutant::SealedForAnyField) {
        return "secret".into();
    }
    format!("secret of {object} {field}")
}

/// What a client wrote, ready to be proposed: no open secret left, and one that says nothing new is the stored one.
/// Field paths are relative to the object.
pub fn seal(keys: &Keys, mut resource: Resource, stored: Option<&Resource>) -> Result<Resource, Invalid> {
    if resource.secrets().is_empty() {
        return Ok(resource);
    }
    let object = resource.key();
    let before = stored.map(Resource::secrets).unwrap_or_default();
    for (field, secret) in resource.secrets_mut() {
        let same_field = || before.iter().find(|(at, _)| *at == field).map(|(_, secret)| *secret);
        let sealed = match &*secret {
            Secret::Plain(plain) => {
                let known = same_field().filter(|known| is(keys, &object, &field, known, plain.as_bytes()));
                match known {
                    Some(known) => known.clone(),
                    None => sealed(keys, &object, &field, plain.as_bytes())?,
                }
            }
            Secret::Kept(fingerprint) => {
                let known = same_field().filter(|known| known.fingerprint() == Some(*fingerprint));
                let Some(known) = known else {
                    let allowed = "the fingerprint of the secret that this object has there now, or the secret itself";
                    return Err(Invalid::field(field).found(format!("sealed:{fingerprint}")).allowed(allowed));
                };
                known.clone()
            }
            Secret::Sealed { .. } => {
                let allowed = "an open secret, or the fingerprint of the one that this object has";
                return Err(Invalid::field(field).found("sealed bytes").allowed(allowed));
            }
        };
        *secret = sealed;
    }
    Ok(resource)
}

/// What no state can check: a key that is kept must be the one of a chain that is new.
pub fn check(keys: &Keys, resource: &Resource) -> Result<(), Invalid> {
    let Resource::Certificate(it) = resource else { return Ok(()) };
    let opened = open(keys, &resource.key(), "key", &it.key);
    let opened = opened.map_err(|error| Invalid::field("key").allowed(format!("a key that opens ({error:#})")))?;
    Shown::read(it, &opened).map(drop)
}

fn sealed(keys: &Keys, object: &Key, field: &str, plain: &[u8]) -> Result<Secret, Invalid> {
    match keys.seal(&purpose(object, field), plain) {
        Ok(bytes) => Ok(Secret::sealed(bytes)),
        // Without random numbers nothing else works either.
        Err(error) => Err(Invalid::field(field).allowed(error)),
    }
}

fn is(keys: &Keys, object: &Key, field: &str, stored: &Secret, plain: &[u8]) -> bool {
    open(keys, object, field, stored).is_ok_and(|known| subtle::ConstantTimeEq::ct_eq(&known[..], plain).into())
}

/// One secret of an object of the state.
pub fn opened(keys: &Keys, object: &Key, field: &str, secret: &Secret) -> anyhow::Result<Vec<u8>> {
    open(keys, object, field, secret)
}

fn open(keys: &Keys, object: &Key, field: &str, stored: &Secret) -> anyhow::Result<Vec<u8>> {
    match stored {
        Secret::Sealed { bytes, .. } => keys.open(&purpose(object, field), bytes),
        Secret::Plain(_) | Secret::Kept(_) => anyhow::bail!("a state holds sealed secrets only"),
    }
}

/// Every secret of every object, by its fingerprint. One that does not open is left out, and said.
pub fn open_all(keys: &Keys, resources: &Resources) -> BTreeMap<Fingerprint, Box<[u8]>> {
    let mut opened = BTreeMap::new();
    let objects = SECRETIVE.into_iter().flat_map(|kind| of_kind(resources, kind));
    for (object, stored) in objects {
        for (field, secret) in stored.resource.secrets() {
            let Some(fingerprint) = secret.fingerprint() else { continue };
            match open(keys, object, &field, secret).with_context(|| format!("{object} {field}")) {
                Ok(plain) => drop(opened.insert(fingerprint, plain.into())),
                Err(error) if secret.bytes().is_some_and(|bytes| keys.is_past(bytes)) => {
                    debug!(error = format!("{error:#}"), "a secret of an older state is not opened");
                }
                Err(error) => error!(error = format!("{error:#}"), "a secret cannot be opened on this node"),
            }
        }
    }
    opened
}

/// Every secret of every object, with what it is sealed for.
pub fn all(resources: &Resources) -> impl Iterator<Item = (String, &Arc<[u8]>)> {
    let objects = SECRETIVE.into_iter().flat_map(|kind| of_kind(resources, kind));
    objects.flat_map(|(_, stored)| of(&stored.resource))
}

pub fn of(resource: &Resource) -> impl Iterator<Item = (String, &Arc<[u8]>)> {
    let object = resource.key();
    let secrets = resource.secrets().into_iter();
    secrets.filter_map(move |(field, secret)| Some((purpose(&object, &field), secret.bytes()?)))
}

/// Without a look at the others, of which there may be a million.
fn of_kind(resources: &Resources, kind: Kind) -> impl Iterator<Item = (&Key, &Stored)> {
    let first: Name = "0".parse().expect("the least of all names is one");
    resources.range(Key { kind, name: first }..).take_while(move |(object, _)| object.kind == kind)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pki::ClusterKey;

    fn some_key() -> Keys {
        Keys::of(vec![ClusterKey::generate().unwrap()])
    }

    fn auth(name: &str, secret: &str) -> Resource {
        let words = json!({ "name": name, "client_credentials": {
            "token_endpoint": "https://idp.test/", "client_id": "c", "client_secret": secret,
        } });
        Kind::Auth.parse(words).unwrap()
    }

    fn shown(resource: &Resource) -> String {
        serde_json::to_value(resource).unwrap()["client_credentials"]["client_secret"].as_str().unwrap().to_owned()
    }

    fn opened(key: &Keys, resource: &Resource) -> Vec<Vec<u8>> {
        let stored = quorumgate_model::change::stored(resource.clone());
        let resources = Resources::unit(resource.key(), stored);
        open_all(key, &resources).into_values().map(Vec::from).collect()
    }

    #[test]
    fn a_secret_goes_in_is_kept_and_comes_out_only_here() {
        let key = some_key();
        let first = seal(&key, auth("a", "plain:hunter2"), None).unwrap();
        assert!(shown(&first).starts_with("sealed:"));
        assert_eq!(opened(&key, &first), [b"hunter2"]);
        assert_eq!(opened(&some_key(), &first), [b""; 0]);

        // The same again, as itself or as an export shows it, is no change.
        assert_eq!(seal(&key, auth("a", "plain:hunter2"), Some(&first)).unwrap(), first);
        assert_eq!(seal(&key, auth("a", &shown(&first)), Some(&first)).unwrap(), first);
        let second = seal(&key, auth("a", "plain:hunter3"), Some(&first)).unwrap();
        assert_eq!(opened(&key, &second), [b"hunter3"]);
        assert_ne!(shown(&second), shown(&first));
    }

    #[test]
    fn sealed_bytes_are_of_no_use_elsewhere() {
        let key = some_key();
        let first = seal(&key, auth("a", "plain:hunter2"), None).unwrap();
        // By fingerprint: into another object, or after the secret has changed.
        for stored in [None, Some(seal(&key, auth("b", "plain:x"), None).unwrap())] {
            let refused = seal(&key, auth("b", &shown(&first)), stored.as_ref()).unwrap_err();
            assert_eq!(refused.field, "client_credentials.client_secret");
            assert!(refused.allowed.contains("this object has there now"), "{refused}");
        }
        // As bytes, from a client.
        assert_eq!(seal(&key, first.clone(), Some(&first)).unwrap_err().found, "sealed bytes");
        // As bytes, in a state.
        let (Resource::Auth(mut moved), other) = (auth("b", "plain:x"), first) else { panic!() };
        let Resource::Auth(other) = other else { panic!() };
        let stolen = other.secrets()[0].1.clone();
        *Arc::make_mut(&mut moved).secrets_mut()[0].1 = stolen;
        assert_eq!(opened(&key, &Resource::Auth(moved)), [b""; 0]);
    }
}
