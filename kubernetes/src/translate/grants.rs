//! References into other namespaces: allowed by the ReferenceGrants there, and by nothing else.

use std::collections::HashMap;

use crate::{
    api::{Id, Kind, gateway::GrantSpec},
    snapshot::Snapshot,
};

/// By the namespace that grants.
pub struct Grants(HashMap<String, Vec<GrantSpec>>);

impl Grants {
    /// One that is not understood grants nothing.
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut grants: HashMap<String, Vec<GrantSpec>> = HashMap::new();
        for (id, object) in snapshot.of(Kind::ReferenceGrant) {
            match object.spec() {
                Ok(spec) => grants.entry(id.namespace.clone()).or_default().push(spec),
                Err(why) => tracing::warn!(grant = %id, why, "a ReferenceGrant is not understood: it grants nothing"),
            }
        }
        Self(grants)
    }

    /// Whether an object of `kind` in `namespace` may refer to that one.
    pub fn allow(&self, kind: Kind, namespace: &str, to: Kind, id: &Id) -> bool {
        if namespace == id.namespace {
            return true;
        }
        let from_us = |grant: &&GrantSpec| {
            let mut from = grant.from.iter();
            from.any(|it| it.group == kind.group() && it.kind == kind.word() && it.namespace == namespace)
        };
        let to_it = |grant: &GrantSpec| {
            let named = |name: &Option<String>| name.as_deref().is_none_or(|name| name.is_empty() || name == id.name);
            grant.to.iter().any(|it| it.group == to.group() && it.kind == to.word() && named(&it.name))
        };
        self.0.get(&id.namespace).is_some_and(|grants| grants.iter().filter(from_us).any(to_it))
    }
}
