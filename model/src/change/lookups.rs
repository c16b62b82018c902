//! Indexes over the resources that make the checks cost by what changed, not by what exists. They follow from the
//! resources and are rebuilt with them, never stored.

use std::net::SocketAddr;

use imbl::OrdMap;

use super::{Changed, tenancy::Tenancy};
use crate::{
    digest::Digest,
    invalid::Invalid,
    resource::{GUARDRAILS_MAX, Key, Kind, Name, Policy, PolicyKind, Resource, Resources, Route},
    ruleset::match_fingerprint,
};

/// How many names an error message lists at most.
const NAMES_SHOWN_MAX: usize = 3;
/// The kinds whose objects may refer to others.
const REFERRING: [Kind; 5] = [Kind::Upstream, Kind::Route, Kind::Auth, Kind::Listener, Kind::Policy];

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lookups {
    /// The route that has this match set and priority.
    matches: OrdMap<Digest, Name>,
    /// How many references lead to an object.
    uses: OrdMap<Key, u32>,
    /// The listener that has this address.
    addresses: OrdMap<SocketAddr, Name>,
    /// The etags of the guardrails.
    guardrails: OrdMap<Name, Digest>,
    pub(crate) tenancy: Tenancy,
}

impl Lookups {
    pub fn of(resources: &Resources) -> Self {
        let mut lookups = Self::default();
        for stored in resources.values() {
            if let Resource::Route(route) = &stored.resource {
                lookups.matches.entry(match_fingerprint(route)).or_insert_with(|| route.name.clone());
            }
            if let Resource::Listener(listener) = &stored.resource {
                lookups.addresses.entry(listener.address).or_insert_with(|| listener.name.clone());
            }
            lookups.count_uses(&stored.resource);
            lookups.govern(&stored.resource, stored.etag);
        }
        lookups
    }

    /// Follows the resources to `after`, or says why `after` does not hold together; then `self` is of no more use.
    pub fn advance(&mut self, after: &Resources, changed: &[Changed]) -> Result<(), Invalid> {
        for resource in changed.iter().filter_map(|change| change.before.as_ref()) {
            self.forget(resource);
        }
        for change in changed {
            if let Some(resource) = &change.after {
                self.take(resource, after).map_err(|invalid| invalid.under(place(&change.key)))?;
            }
        }
        if self.guardrails.len() > GUARDRAILS_MAX {
            let found = format!("{} of them", self.guardrails.len());
            return Err(Invalid::field("guardrails").found(found).allowed(format!("at most {GUARDRAILS_MAX}")));
        }
        changed.iter().try_for_each(|change| self.still_wanted(change, after))
    }

    /// Of all guardrails together; None: there are none.
    pub fn guardrails(&self) -> Option<Digest> {
        let mut bytes = Vec::new();
        for (name, etag) in &self.guardrails {
            bytes.extend(name.as_bytes());
            // No name has it in it.
            bytes.push(0);
            bytes.extend(etag.0);
        }
        (!bytes.is_empty()).then(|| Digest::of(&bytes))
    }

    fn govern(&mut self, resource: &Resource, etag: Digest) {
        if let Resource::Guardrail(it) = resource {
            self.guardrails.insert(it.name.clone(), etag);
        }
        self.tenancy.add(resource);
    }

    fn forget(&mut self, resource: &Resource) {
        if let Resource::Guardrail(it) = resource {
            self.guardrails.remove(&it.name);
        }
        self.tenancy.remove(resource);
        if let Resource::Route(route) = resource {
            let fingerprint = match_fingerprint(route);
            if self.matches.get(&fingerprint) == Some(&route.name) {
                self.matches.remove(&fingerprint);
            }
        }
        if let Resource::Listener(listener) = resource
            && self.addresses.get(&listener.address) == Some(&listener.name)
        {
            self.addresses.remove(&listener.address);
        }
        for reference in resource.references() {
            match self.uses.get_mut(&reference.key) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.uses.remove(&reference.key)),
            }
        }
    }

    fn take(&mut self, resource: &Resource, after: &Resources) -> Result<(), Invalid> {
        if let Resource::Route(route) = resource {
            self.take_match(route)?;
            models(route, after)?;
        }
        if let Resource::Listener(listener) = resource
            && let Some(twin) = self.addresses.insert(listener.address, listener.name.clone())
        {
            let found = format!("{}, which listener \"{twin}\" has", listener.address);
            return Err(Invalid::field("address").found(found).allowed("an address that no other listener has"));
        }
        self.count_uses(resource);
        if let Some(stored) = after.get(&resource.key()) {
            self.govern(resource, stored.etag);
        }
        for reference in resource.references() {
            let wrong = || Invalid::field(&reference.field).found(format!("{:?}", &*reference.key.name));
            match after.get(&reference.key).map(|stored| &stored.resource) {
                None => return Err(wrong().allowed(existing(after, &reference.key))),
                Some(Resource::Auth(auth)) if !reference.wants.met_by(auth) => {
                    return Err(wrong().allowed(reference.wants.allowed()));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn take_match(&mut self, route: &Route) -> Result<(), Invalid> {
        let Some(twin) = self.matches.insert(match_fingerprint(route), route.name.clone()) else { return Ok(()) };
        let found = format!("the same match and priority as route \"{twin}\"");
        Err(Invalid::field("match").found(found).allowed("another match, or another priority"))
    }

    fn count_uses(&mut self, resource: &Resource) {
        for reference in resource.references() {
            *self.uses.entry(reference.key).or_default() += 1;
        }
    }

    /// What others refer to is neither deleted nor made into something else.
    fn still_wanted(&self, change: &Changed, after: &Resources) -> Result<(), Invalid> {
        if !self.uses.contains_key(&change.key) {
            return Ok(());
        }
        let kind = change.key.kind;
        let shown = || users(after, &change.key);
        match (&change.before, &change.after) {
            (_, None) => {
                let article = if matches!(kind, Kind::Upstream | Kind::Auth) { "an" } else { "a" };
                let allowed = format!("to delete {article} {kind} that nothing uses; {}", shown());
                Err(Invalid::field(place(&change.key)).found("deleted").allowed(allowed))
            }
            (Some(Resource::Auth(before)), Some(Resource::Auth(now)))
                if before.proves_ourselves() != now.proves_ourselves() =>
            {
                let found = format!("kind {} in place of {}", now.kind.word(), before.kind.word());
                let allowed = format!("another name for an auth of that kind; {}", shown());
                Err(Invalid::field(place(&change.key)).found(found).allowed(allowed))
            }
            (Some(Resource::Policy(before)), Some(Resource::Policy(now))) if is_ai(before) != is_ai(now) => {
                let found = format!("kind {} in place of {}", now.kind.word(), before.kind.word());
                let allowed = format!("another name for a policy of that kind; {}", shown());
                Err(Invalid::field(place(&change.key)).found(found).allowed(allowed))
            }
            _ => Ok(()),
        }
    }
}

fn is_ai(policy: &Policy) -> bool {
    matches!(policy.kind, PolicyKind::Ai(_))
}

/// Of a route to models: one policy says which, and nobody else gets what was not judged yet.
fn models(route: &Route, after: &Resources) -> Result<(), Invalid> {
    let is_models = |name: &Name| {
        let key = Key { kind: Kind::Policy, name: name.clone() };
        matches!(after.get(&key).map(|stored| &stored.resource), Some(Resource::Policy(it)) if is_ai(it))
    };
    let mut named = route.policies.iter().enumerate().filter(|(_, name)| is_models(name));
    if named.next().is_none() {
        return Ok(());
    }
    if let Some((place, name)) = named.next() {
        let found = format!("{:?}, a second policy of kind ai", &**name);
        return Err(Invalid::field(format!("policies[{place}]")).found(found).allowed("one of that kind"));
    }
    match &route.mirror {
        Some(mirror) => Err(Invalid::field("mirror")
            .found(format!("upstream {:?}", &*mirror.upstream))
            .allowed("none on a route with a policy of kind ai: it would get what no policy has let pass")),
        None => Ok(()),
    }
}

/// `routes/orders`
fn place(key: &Key) -> String {
    format!("{}/{}", key.kind.list(), key.name)
}

/// `it is used by route "a", "b" and 7 more`
fn users(resources: &Resources, used: &Key) -> String {
    let mut shown = Vec::new();
    for kind in REFERRING {
        let ours = resources.values().map(|stored| &stored.resource).filter(|it| it.kind() == kind);
        let using = ours.filter(|it| it.references().iter().any(|reference| reference.key == *used));
        let names: Vec<_> = using.map(|it| format!("\"{}\"", it.name())).collect();
        let listed = names[..names.len().min(NAMES_SHOWN_MAX)].join(", ");
        match (names.len(), names.len().saturating_sub(NAMES_SHOWN_MAX)) {
            (0, _) => {}
            (_, 0) => shown.push(format!("{kind} {listed}")),
            (_, more) => shown.push(format!("{kind} {listed} and {more} more")),
        }
    }
    format!("it is used by {}", shown.join(" and by "))
}

/// The objects of that kind that there are, those first whose names are nearest to the one asked for.
fn existing(resources: &Resources, asked: &Key) -> String {
    let Key { kind, name } = asked;
    let article = if matches!(kind, Kind::Upstream | Kind::Auth) { "an" } else { "a" };
    let ours = resources.keys().filter(|key| key.kind == *kind).map(|key| &key.name);
    let mut names: Vec<_> = ours.map(|ours| (distance(name, ours), ours)).collect();
    names.sort();
    let shown: Vec<_> = names.iter().take(NAMES_SHOWN_MAX).map(|(_, name)| format!("\"{name}\"")).collect();
    match (shown.len(), names.len().saturating_sub(NAMES_SHOWN_MAX)) {
        (0, _) => format!("the name of {article} {kind}; there is none yet"),
        (_, 0) => format!("the name of {article} {kind}: {}", shown.join(", ")),
        (_, more) => format!("the name of {article} {kind}: {} or one of {more} more", shown.join(", ")),
    }
}

/// Edits between two names (Levenshtein 1966). Names are ASCII and at most 63 bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::change::stored;

    fn resources(words: &[(Kind, Value)]) -> Resources {
        let all = words.iter().map(|(kind, it)| kind.parse(it.clone()).unwrap());
        all.map(|it| (it.key(), stored(it))).collect()
    }

    fn check(before: &Resources, after: &Resources, expected: Result<(), &str>) {
        let changed = |key: &Key| {
            let of = |it: &Resources| it.get(key).map(|stored| stored.resource.clone());
            Changed { key: key.clone(), before: of(before), after: of(after) }
        };
        let keys: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
        let changed: Vec<_> = keys.into_iter().map(changed).filter(|it| it.before != it.after).collect();
        let found = Lookups::of(before).advance(after, &changed);
        assert_eq!(found.as_ref().copied().map_err(|it| &*it.field), expected, "{found:?}");
    }

    #[test]
    fn a_route_to_models_has_one_policy_of_them_and_no_mirror() {
        let models = json!([{ "name": "m", "targets": [{ "model": "m" }] }]);
        let ai = |name: &str| (Kind::Policy, json!({ "name": name, "ai": { "provider": "openai", "models": models } }));
        let upstream = (Kind::Upstream, json!({ "name": "u", "targets": ["127.0.0.1:1"] }));
        let route = |more: Value| {
            let mut words = json!({ "name": "r", "upstream": "u" });
            more.as_object().unwrap().iter().for_each(|(name, it)| words[name] = it.clone());
            (Kind::Route, words)
        };
        let with = |it: (Kind, Value)| resources(&[upstream.clone(), ai("a"), ai("b"), it]);
        let none = Resources::default();
        check(&none, &with(route(json!({ "policies": ["a"] }))), Ok(()));
        check(&none, &with(route(json!({ "mirror": { "upstream": "u" } }))), Ok(()));
        let both = json!({ "policies": ["a"], "mirror": { "upstream": "u" } });
        check(&none, &with(route(both)), Err("routes/r.mirror"));
        check(&none, &with(route(json!({ "policies": ["a", "b"] }))), Err("routes/r.policies[1]"));
        // Nor by the way round: what routes have already is made into one.
        let plain = (Kind::Policy, json!({ "name": "a", "json": {} }));
        let mirrored = || route(json!({ "policies": ["a"], "mirror": { "upstream": "u" } }));
        let before = resources(&[upstream.clone(), plain, mirrored()]);
        check(&none, &before, Ok(()));
        check(&before, &resources(&[upstream.clone(), ai("a"), mirrored()]), Err("policies/a"));
    }
}
