//! Indexes over the resources that make the checks cost by what changed, not by what exists. They follow from the
//! resources and are rebuilt with them, never stored.

use std::net::SocketAddr;

use imbl::OrdMap;

use super::{Changed, tenancy::Tenancy};
use crate::{
    digest::Digest,
    invalid::Invalid,
    resource::{
        self, Action, AuthKind, GUARDRAILS_MAX, Key, Kind, Name, PathPattern, Policy, PolicyKind, PortalPolicy,
        Receiver, Resource, Resources, Route,
    },
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
            portals(route, after)?;
        }
        if let Resource::Policy(policy) = resource
            && let PolicyKind::Portal(it) = &policy.kind
        {
            known_apis(it, after).map_err(|invalid| invalid.under("portal"))?;
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
            (Some(Resource::Policy(before)), Some(Resource::Policy(now)))
                if is_ai(before) != is_ai(now) || is_portal(before) != is_portal(now) =>
            {
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

fn is_portal(policy: &Policy) -> bool {
    matches!(policy.kind, PolicyKind::Portal(_))
}

/// A portal's route has one policy that says what is shown there, and people sign in by the auth that it names; on another
/// route such a policy would do nothing.
fn portals(route: &Route, after: &Resources) -> Result<(), Invalid> {
    let is_one = |name: &Name| {
        let key = Key { kind: Kind::Policy, name: name.clone() };
        matches!(after.get(&key).map(|stored| &stored.resource), Some(Resource::Policy(it)) if is_portal(it))
    };
    let mut named = route.policies.iter().enumerate().filter(|(_, name)| is_one(name));
    let receive = match &route.action {
        Action::Receive(it) if it.receiver == Receiver::Portal => it,
        _ => {
            return match named.next() {
                None => Ok(()),
                Some((place, name)) => {
                    let found = format!("{:?}, which is of kind portal", &**name);
                    let allowed = "such a policy beside respond.receiver portal";
                    Err(Invalid::field(format!("policies[{place}]")).found(found).allowed(allowed))
                }
            };
        }
    };
    if named.next().is_none() {
        let allowed = "a policy of kind portal: it says what is shown";
        return Err(Invalid::field("policies").found("none of that kind").allowed(allowed));
    }
    if let Some((place, name)) = named.next() {
        let found = format!("{:?}, a second policy of kind portal", &**name);
        return Err(Invalid::field(format!("policies[{place}]")).found(found).allowed("one of that kind"));
    }
    if !matches!(route.matches.path, PathPattern::Any | PathPattern::Prefix(_)) {
        let allowed = "path_prefix, or every path: a portal has pages below it";
        return Err(Invalid::field("match").found("another path").allowed(allowed));
    }
    let key = Key { kind: Kind::Auth, name: receive.auth.clone() };
    match after.get(&key).map(|stored| &stored.resource) {
        Some(Resource::Auth(auth)) if !matches!(auth.kind, AuthKind::OidcLogin(_)) => {
            let found = format!("{:?}, which is of kind {}", &*receive.auth, auth.kind.word());
            Err(Invalid::field("respond.auth").found(found).allowed("an auth of kind oidc_login"))
        }
        // What is not there, references tell of.
        _ => Ok(()),
    }
}

/// Each that is named has a version.
fn known_apis(it: &PortalPolicy, after: &Resources) -> Result<(), Invalid> {
    if it.apis.is_empty() {
        return Ok(());
    }
    let versions = resource::of_kind(after, Kind::Policy).filter_map(|it| match it {
        Resource::Policy(policy) => match &policy.kind {
            PolicyKind::Version(version) => Some(&version.api),
            _ => None,
        },
        _ => None,
    });
    let known: std::collections::BTreeSet<&Name> = versions.collect();
    match it.apis.iter().enumerate().find(|(_, api)| !known.contains(api)) {
        None => Ok(()),
        Some((place, api)) => {
            let allowed = "an API that a policy of kind version is about";
            Err(Invalid::field(format!("apis[{place}]")).found(format!("{:?}", &**api)).allowed(allowed))
        }
    }
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
    fn a_portal_has_one_policy_and_a_login() {
        let portal = |name: &str, words: Value| (Kind::Policy, json!({ "name": name, "portal": words }));
        let version = (Kind::Policy, json!({ "name": "v", "version": { "api": "orders", "version": "v1" } }));
        let login =
            json!({ "issuer": "https://idp.test", "client_id": "web", "client_secret": "sealed:0123456789abcdef" });
        let login = (Kind::Auth, json!({ "name": "login", "oidc_login": login }));
        let keys = (Kind::Auth, json!({ "name": "keys", "api_key": {} }));
        let route = |auth: &str, policies: Value| {
            let respond = json!({ "receiver": "portal", "auth": auth });
            (Kind::Route, json!({ "name": "r", "respond": respond, "policies": policies }))
        };
        let none = Resources::default();
        let with = |it: (Kind, Value)| {
            let listed = portal("b", json!({ "apis": ["orders"] }));
            resources(&[portal("a", json!({})), listed, version.clone(), login.clone(), keys.clone(), it])
        };
        check(&none, &with(route("login", json!(["v", "a"]))), Ok(()));
        check(&none, &with(route("login", json!(["v"]))), Err("routes/r.policies"));
        check(&none, &with(route("login", json!(["a", "b"]))), Err("routes/r.policies[1]"));
        check(&none, &with(route("keys", json!(["a"]))), Err("routes/r.respond.auth"));
        check(&none, &with(route("none", json!(["a"]))), Err("routes/r.respond.auth"));
        let mut exact = route("login", json!(["a"]));
        exact.1["match"] = json!({ "path_exact": "/dev" });
        check(&none, &with(exact), Err("routes/r.match"));
        let plain = json!({ "name": "r", "respond": { "status": 200 }, "policies": ["v", "b"] });
        check(&none, &with((Kind::Route, plain)), Err("routes/r.policies[1]"));
        let unknown = portal("c", json!({ "apis": ["orders", "billing"] }));
        check(&none, &with(unknown), Err("policies/c.portal.apis[1]"));
        let before = with(route("login", json!(["a"])));
        let mut after = before.clone();
        let json = Kind::Policy.parse(json!({ "name": "a", "json": {} })).unwrap();
        after.insert(json.key(), stored(json));
        check(&before, &after, Err("policies/a"));
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
