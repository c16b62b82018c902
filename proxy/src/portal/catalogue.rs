//! Which versions of which APIs a portal shows, with the routes and contracts of each. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use quorumgate_model::{
    resource::{
        self, Kind, Name, Policy, PolicyKind, PortalPolicy, Resource, Resources, Route, VersionPolicy, VersionState,
    },
    units::Moment,
};

/// APIs by their names, with their versions by theirs.
pub(super) struct Catalogue(pub(super) BTreeMap<Name, BTreeMap<String, Entry>>);

pub(super) struct Entry {
    pub(super) policy: Arc<Policy>,
    pub(super) words: VersionPolicy,
    /// In the order of their names.
    pub(super) routes: Vec<Arc<Route>>,
    /// Each once.
    pub(super) contracts: Vec<Arc<Policy>>,
}

/// What the version is to those who look at it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Now {
    Published,
    Deprecated,
    Retired,
}

impl Catalogue {
    /// Drafts are not there. Of two policies of one version the first by name counts. Who owns an API says what is of it.
    pub(super) fn of(resources: &Resources, owner: &str, portal: &PortalPolicy) -> Self {
        let owners = owners(resources, owner);
        let is_shown = |policy: &Policy, version: &VersionPolicy| match portal.apis.is_empty() {
            true => policy.owner == owner,
            false => {
                let is_of_owner = owners.get(&version.api).is_some_and(|it| it.is_some_and(|it| it == policy.owner));
                is_of_owner && portal.apis.contains(&version.api)
            }
        };
        let mut apis: BTreeMap<Name, BTreeMap<String, Entry>> = BTreeMap::new();
        // Every policy of kind version; None: it is not shown.
        let mut places: BTreeMap<&Name, Option<(Name, String)>> = BTreeMap::new();
        for policy in policies(resources) {
            let PolicyKind::Version(version) = &policy.kind else { continue };
            let place = places.entry(&policy.name).or_default();
            if version.state == VersionState::Draft || !is_shown(policy, version) {
                continue;
            }
            let versions = apis.entry(version.api.clone()).or_default();
            if !versions.contains_key(&version.version) {
                let entry = Entry {
                    policy: policy.clone(),
                    words: VersionPolicy::clone(version),
                    routes: Vec::new(),
                    contracts: Vec::new(),
                };
                versions.insert(version.version.clone(), entry);
                *place = Some((version.api.clone(), version.version.clone()));
            }
        }
        for it in resource::of_kind(resources, Kind::Route) {
            let Resource::Route(route) = it else { continue };
            // Of several versions a route is of the first, shown or not.
            let Some(Some((api, version))) = route.policies.iter().find_map(|name| places.get(name)) else { continue };
            let Some(entry) = apis.get_mut(api).and_then(|it| it.get_mut(version)) else { continue };
            let owner = &entry.policy.owner;
            if route.owner != *owner {
                continue;
            }
            entry.routes.push(route.clone());
            for name in &route.policies {
                if entry.contracts.iter().any(|it| it.name == *name) {
                    continue;
                }
                let found = contract(resources, name).filter(|it| it.owner == *owner || it.owner.is_empty());
                entry.contracts.extend(found);
            }
        }
        for versions in apis.values_mut() {
            let shown: BTreeSet<String> = versions.keys().cloned().collect();
            for entry in versions.values_mut().filter(|it| !shown.contains(&it.words.successor)) {
                entry.words.successor.clear();
            }
        }
        Self(apis)
    }

    pub(super) fn find(&self, api: &str, version: &str) -> Option<&Entry> {
        self.0.iter().find(|(name, _)| ***name == *api)?.1.get(version)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.values().flat_map(BTreeMap::values)
    }
}

impl Entry {
    pub(super) fn now(&self, now: Moment) -> Now {
        let words = &self.words;
        match words.state {
            VersionState::Retired => Now::Retired,
            _ if words.sunset.is_some_and(|sunset| sunset <= now) => Now::Retired,
            VersionState::Deprecated => Now::Deprecated,
            VersionState::Published | VersionState::Draft => Now::Published,
        }
    }
}

impl Now {
    pub(super) fn word(self) -> &'static str {
        match self {
            Now::Published => "published",
            Now::Deprecated => "deprecated",
            Now::Retired => "retired",
        }
    }
}

/// Whose each API is: of `owner`, who has a version of it in any state; else of whoever has them all. None: of several.
fn owners<'a>(resources: &'a Resources, owner: &str) -> BTreeMap<&'a Name, Option<&'a str>> {
    let mut owners: BTreeMap<&Name, Option<&str>> = BTreeMap::new();
    for policy in policies(resources) {
        let PolicyKind::Version(version) = &policy.kind else { continue };
        let theirs = policy.owner.as_str();
        let known = owners.entry(&version.api).or_insert(Some(theirs));
        if theirs == owner {
            *known = Some(theirs);
        } else if known.is_some_and(|it| it != owner && it != theirs) {
            *known = None;
        }
    }
    owners
}

fn policies(resources: &Resources) -> impl Iterator<Item = &Arc<Policy>> {
    resource::of_kind(resources, Kind::Policy).filter_map(|it| match it {
        Resource::Policy(policy) => Some(policy),
        _ => None,
    })
}

fn contract(resources: &Resources, name: &Name) -> Option<Arc<Policy>> {
    let key = resource::Key { kind: Kind::Policy, name: name.clone() };
    match &resources.get(&key)?.resource {
        Resource::Policy(policy) if matches!(policy.kind, PolicyKind::Contract(_)) => Some(policy.clone()),
        _ => None,
    }
}
