//! Secrets inside of resources: sealed before they are proposed, opened on every node for its proxy. What an export shows
//! of one is its fingerprint, which, applied again, keeps it.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context;
use quorumgate_model::{
    invalid::Invalid,
    resource::{Auth, Fingerprint, Key, Kind, Name, Resource, Resources, Secret, Stored},
};
use tracing::error;

use crate::pki::ClusterKey;

/// Sealed bytes open only in the object and the field that they were sealed for: nobody moves them to where they would
/// be sent to someone else.
fn purpose(object: &Key, field: &str) -> String {
    format!("secret of {object} {field}")
}

/// What a client wrote, ready to be proposed: no open secret left, and one that says nothing new is the stored one.
/// Field paths are relative to the object.
pub fn seal(key: &ClusterKey, resource: Resource, stored: Option<&Resource>) -> Result<Resource, Invalid> {
    let Resource::Auth(auth) = &resource else { return Ok(resource) };
    if auth.secrets().is_empty() {
        return Ok(resource);
    }
    let object = resource.key();
    let before = match stored {
        Some(Resource::Auth(before)) => before.secrets(),
        _ => Vec::new(),
    };
    let mut auth = Auth::clone(auth);
    for (field, secret) in auth.secrets_mut() {
        let same_field = || before.iter().find(|(at, _)| *at == field).map(|(_, secret)| *secret);
        let sealed = match &*secret {
            Secret::Plain(plain) => {
                let known = same_field().filter(|known| is(key, &object, &field, known, plain.as_bytes()));
                match known {
                    Some(known) => known.clone(),
                    None => sealed(key, &object, &field, plain.as_bytes())?,
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
    Ok(Resource::Auth(Arc::new(auth)))
}

fn sealed(key: &ClusterKey, object: &Key, field: &str, plain: &[u8]) -> Result<Secret, Invalid> {
    match key.seal(&purpose(object, field), plain) {
        Ok(bytes) => Ok(Secret::sealed(bytes)),
        // Without random numbers nothing else works either.
        Err(error) => Err(Invalid::field(field).allowed(error)),
    }
}

fn is(key: &ClusterKey, object: &Key, field: &str, stored: &Secret, plain: &[u8]) -> bool {
    open(key, object, field, stored).is_ok_and(|known| subtle::ConstantTimeEq::ct_eq(&known[..], plain).into())
}

fn open(key: &ClusterKey, object: &Key, field: &str, stored: &Secret) -> anyhow::Result<Vec<u8>> {
    match stored {
        Secret::Sealed { bytes, .. } => key.open(&purpose(object, field), bytes),
        Secret::Plain(_) | Secret::Kept(_) => anyhow::bail!("a state holds sealed secrets only"),
    }
}

/// Every secret of every auth, by its fingerprint. One that does not open is left out, and said.
pub fn open_all(key: &ClusterKey, resources: &Resources) -> BTreeMap<Fingerprint, Box<[u8]>> {
    let mut opened = BTreeMap::new();
    for (object, stored) in of_kind(resources, Kind::Auth) {
        let Resource::Auth(auth) = &stored.resource else { continue };
        for (field, secret) in auth.secrets() {
            let Some(fingerprint) = secret.fingerprint() else { continue };
            match open(key, object, &field, secret).with_context(|| format!("{object} {field}")) {
                Ok(plain) => drop(opened.insert(fingerprint, plain.into())),
                Err(error) => error!(error = format!("{error:#}"), "a secret cannot be opened on this node"),
            }
        }
    }
    opened
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

    fn auth(name: &str, secret: &str) -> Resource {
        let words = json!({ "name": name, "client_credentials": {
            "token_endpoint": "https://idp.test/", "client_id": "c", "client_secret": secret,
        } });
        Kind::Auth.parse(words).unwrap()
    }

    fn shown(resource: &Resource) -> String {
        serde_json::to_value(resource).unwrap()["client_credentials"]["client_secret"].as_str().unwrap().to_owned()
    }

    fn opened(key: &ClusterKey, resource: &Resource) -> Vec<Vec<u8>> {
        let stored = quorumgate_model::change::stored(resource.clone());
        let resources = Resources::unit(resource.key(), stored);
        open_all(key, &resources).into_values().map(Vec::from).collect()
    }

    #[test]
    fn a_secret_goes_in_is_kept_and_comes_out_only_here() {
        let key = ClusterKey::generate().unwrap();
        let first = seal(&key, auth("a", "plain:hunter2"), None).unwrap();
        assert!(shown(&first).starts_with("sealed:"));
        assert_eq!(opened(&key, &first), [b"hunter2"]);
        assert_eq!(opened(&ClusterKey::generate().unwrap(), &first), [b""; 0]);

        // The same again, as itself or as an export shows it, is no change.
        assert_eq!(seal(&key, auth("a", "plain:hunter2"), Some(&first)).unwrap(), first);
        assert_eq!(seal(&key, auth("a", &shown(&first)), Some(&first)).unwrap(), first);
        let second = seal(&key, auth("a", "plain:hunter3"), Some(&first)).unwrap();
        assert_eq!(opened(&key, &second), [b"hunter3"]);
        assert_ne!(shown(&second), shown(&first));
    }

    #[test]
    fn sealed_bytes_are_of_no_use_elsewhere() {
        let key = ClusterKey::generate().unwrap();
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
