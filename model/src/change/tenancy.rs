//! Whose traffic is whose: what tenants own is nobody else's, and what an actor with an owner may not do beside staying
//! among the objects of that owner. Both are decided by the resources alone, so that apply holds them on every node.

use std::collections::BTreeSet;

use imbl::OrdMap;

use super::{
    Changed,
    overlap::{self, Pairs},
};
use crate::{
    command::{Reason, Rejected},
    invalid::Invalid,
    resource::{
        self, Action, Certificate, Consumer, HostPattern, Key, Kind, Name, PolicyKind, Receiver, Resource, Resources,
        Route, Tenant,
    },
};

/// What follows from the resources, kept with them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tenancy {
    /// The tenant that is about objects of this owner.
    tenant_of: OrdMap<String, Name>,
    /// How many objects of a kind have this owner; what has no owner is not counted.
    counts: OrdMap<(String, Kind), u32>,
}

impl Tenancy {
    pub fn add(&mut self, resource: &Resource) {
        if let Resource::Tenant(tenant) = resource {
            for owner in tenant.owners() {
                self.tenant_of.entry(owner.to_owned()).or_insert_with(|| tenant.name.clone());
            }
        }
        if let Some(counted) = counted(resource) {
            *self.counts.entry(counted).or_default() += 1;
        }
    }

    pub fn remove(&mut self, resource: &Resource) {
        if let Resource::Tenant(tenant) = resource {
            for owner in tenant.owners() {
                if self.tenant_of.get(owner) == Some(&tenant.name) {
                    self.tenant_of.remove(owner);
                }
            }
        }
        let Some(counted) = counted(resource) else { return };
        match self.counts.get_mut(&counted) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.counts.remove(&counted)),
        }
    }

    /// Whether the resources after the change are as tenants own them; `self` has followed them.
    pub fn hold(&self, after: &Resources, changed: &[Changed]) -> Result<(), Invalid> {
        let tenants_changed = changed.iter().any(|change| change.key.kind == Kind::Tenant);
        if self.tenant_of.is_empty() && !tenants_changed {
            return Ok(());
        }
        let world = World::new(self, after);
        let mut pairs = Pairs::default();
        let mut held = |resource: &Resource| {
            let held = world.within_tenant(resource, &mut pairs);
            held.map_err(|invalid| invalid.under(place(&resource.key())))
        };
        if tenants_changed {
            after.values().try_for_each(|stored| held(&stored.resource))?;
            return world.are_apart(changed, &mut pairs);
        }
        changed.iter().filter_map(|change| change.after.as_ref()).try_for_each(held)
    }

    /// Whether no tenant has more objects than its quotas say, of the kinds that the change adds to.
    pub fn within_quotas(&self, after: &Resources, changed: &[Changed]) -> Result<(), Rejected> {
        if self.tenant_of.is_empty() {
            return Ok(());
        }
        for tenant in World::new(self, after).tenants() {
            let ours = |it: &Resource| tenant.owners().any(|owner| owner == it.owner());
            let is_it = |change: &Changed| change.key.kind == Kind::Tenant && change.key.name == tenant.name;
            let anew = changed.iter().any(is_it);
            for kind in Kind::ALL {
                let adds = |change: &Changed| change.key.kind == kind && change.after.as_ref().is_some_and(ours);
                let Some(quota) = tenant.quotas.of(kind).filter(|_| anew || changed.iter().any(adds)) else { continue };
                let count = |owner: &str| self.counts.get(&(owner.to_owned(), kind)).copied().unwrap_or(0);
                let found = tenant.owners().map(count).fold(0, u32::saturating_add);
                if found > quota {
                    let list = kind.list();
                    let message = format!(
                        "{list}: found {found} of the owners of tenant \"{}\"; allowed: {quota} by its quotas",
                        tenant.name
                    );
                    return Err(Rejected { field: list.to_owned(), ..Reason::LimitReached.because(message) });
                }
            }
        }
        Ok(())
    }

    /// What an actor with this owner may not do, though every object be its own: it would reach into the traffic of
    /// others. What has no owner is common: it may be referred to and overlaid, never written.
    pub fn bound(&self, scope: &str, after: &Resources, changed: &[Changed]) -> Result<(), Invalid> {
        let world = World::new(self, after);
        let kin = world.tenant_of(scope).map(|tenant| tenant.owners().collect()).unwrap_or_default();
        let bounds = Bounds { scope, kin, world };
        let mut pairs = Pairs::default();
        for change in changed {
            bounds.of(change, &mut pairs).map_err(|invalid| invalid.under(place(&change.key)))?;
        }
        Ok(())
    }
}

fn counted(resource: &Resource) -> Option<(String, Kind)> {
    let owner = resource.owner();
    (!owner.is_empty()).then(|| (owner.to_owned(), resource.kind()))
}

/// `routes/orders`
fn place(key: &Key) -> String {
    format!("{}/{}", key.kind.list(), key.name)
}

/// The resources after a change.
#[derive(Clone, Copy)]
struct World<'r> {
    tenancy: &'r Tenancy,
    after: &'r Resources,
}

impl<'r> World<'r> {
    fn new(tenancy: &'r Tenancy, after: &'r Resources) -> Self {
        Self { tenancy, after }
    }

    fn of_kind(self, kind: Kind) -> impl Iterator<Item = &'r Resource> {
        resource::of_kind(self.after, kind)
    }

    fn tenants(self) -> impl Iterator<Item = &'r Tenant> {
        self.of_kind(Kind::Tenant).filter_map(|it| if let Resource::Tenant(it) = it { Some(&**it) } else { None })
    }

    fn routes(self) -> impl Iterator<Item = &'r Route> {
        self.of_kind(Kind::Route).filter_map(|it| if let Resource::Route(it) = it { Some(&**it) } else { None })
    }

    fn certificates(self) -> impl Iterator<Item = &'r Certificate> {
        let all = self.of_kind(Kind::Certificate);
        all.filter_map(|it| if let Resource::Certificate(it) = it { Some(&**it) } else { None })
    }

    fn tenant_of(self, owner: &str) -> Option<&'r Tenant> {
        let name = self.tenancy.tenant_of.get(owner)?.clone();
        match &self.after.get(&Key { kind: Kind::Tenant, name })?.resource {
            Resource::Tenant(tenant) => Some(tenant),
            _ => None,
        }
    }

    /// That of the owner, if any traffic is its own.
    fn lord_of(self, owner: &str) -> Option<&'r Tenant> {
        self.tenant_of(owner).filter(|tenant| tenant.has_traffic())
    }

    /// No two tenants are about one owner, or own a host and path in common.
    fn are_apart(self, changed: &[Changed], pairs: &mut Pairs) -> Result<(), Invalid> {
        let now = changed.iter().filter_map(|change| change.after.as_ref());
        for tenant in now.filter_map(|it| if let Resource::Tenant(it) = it { Some(it) } else { None }) {
            let under = |invalid: Invalid| invalid.under(format!("tenants/{}", tenant.name));
            for owner in tenant.owners() {
                let holder = &self.tenancy.tenant_of[owner];
                if *holder != tenant.name {
                    let found = format!("{owner:?}, whose objects tenant \"{holder}\" is about");
                    return Err(under(Invalid::field("owners").found(found).allowed("each owner in one tenant")));
                }
            }
            let others = self.tenants().filter(|other| other.name != tenant.name && other.has_traffic());
            for other in others.filter(|_| tenant.has_traffic()) {
                let prefix = |prefix: &String| {
                    overlap::path_meets(&crate::resource::PathPattern::Prefix(prefix.clone()), &other.path_prefixes)
                };
                pairs.take(tenant.path_prefixes.len(), other.path_prefixes.len()).map_err(under)?;
                let paths_meet = tenant.path_prefixes.is_empty() || tenant.path_prefixes.iter().any(prefix);
                if paths_meet && pairs.hosts_meet(&tenant.hosts, &other.hosts).map_err(under)? {
                    let found = format!("hosts and paths that tenant \"{}\" owns too", other.name);
                    return Err(under(Invalid::field("hosts").found(found).allowed("each in one tenant")));
                }
            }
        }
        Ok(())
    }

    /// A tenant's routes and certificates stay within what it owns, those of other owners out of it.
    fn within_tenant(self, resource: &Resource, pairs: &mut Pairs) -> Result<(), Invalid> {
        let owner = resource.owner();
        if owner.is_empty() {
            return Ok(());
        }
        match (resource, self.lord_of(owner)) {
            (Resource::Route(route), Some(tenant)) => route_within(route, tenant, pairs),
            (Resource::Route(route), None) => self.tenants().filter(|it| it.has_traffic()).try_for_each(|tenant| {
                pairs.take(1, tenant.path_prefixes.len())?;
                let meets = overlap::path_meets(&route.matches.path, &tenant.path_prefixes);
                match meets && pairs.hosts_meet(&route.matches.hosts, &tenant.hosts)? {
                    true => Err(taken_by("match", tenant)),
                    false => Ok(()),
                }
            }),
            (Resource::Certificate(it), Some(tenant)) => certificate_within(it, tenant, pairs),
            (Resource::Certificate(it), None) => {
                let hosts: Vec<_> = it.hosts.iter().map(overlap::certificate_host).collect();
                self.tenants().filter(|it| !it.hosts.is_empty() && !hosts.is_empty()).try_for_each(|tenant| match pairs
                    .hosts_meet(&hosts, &tenant.hosts)?
                {
                    true => Err(taken_by("hosts", tenant)),
                    false => Ok(()),
                })
            }
            _ => Ok(()),
        }
    }
}

fn taken_by(field: &str, tenant: &Tenant) -> Invalid {
    let found = format!("hosts and paths that belong to tenant \"{}\"", tenant.name);
    let owners: Vec<_> = tenant.owners().map(|owner| format!("{owner:?}")).collect();
    Invalid::field(field).found(found).allowed(format!("others, or one of its owners: {}", owners.join(", ")))
}

fn joined(hosts: &[HostPattern]) -> String {
    hosts.iter().map(HostPattern::to_string).collect::<Vec<_>>().join(", ")
}

fn route_within(route: &Route, tenant: &Tenant, pairs: &mut Pairs) -> Result<(), Invalid> {
    let matches = &route.matches;
    if !overlap::path_within(&matches.path, &tenant.path_prefixes) {
        let allowed = format!(
            "path_prefix, path_exact or path_template within {}: these belong to tenant \"{}\"",
            tenant.path_prefixes.join(", "),
            tenant.name
        );
        return Err(Invalid::field("match").found("a path outside of it, or one that may be").allowed(allowed));
    }
    if tenant.hosts.is_empty() {
        return Ok(());
    }
    let allowed = format!("hosts of tenant \"{}\": {}", tenant.name, joined(&tenant.hosts));
    if matches.hosts.is_empty() {
        return Err(Invalid::field("match.hosts").found("none, which is every host").allowed(allowed));
    }
    match pairs.stray(&matches.hosts, &tenant.hosts)? {
        Some((at, host)) => {
            Err(Invalid::field(format!("match.hosts[{at}]")).found(format!("\"{host}\"")).allowed(allowed))
        }
        None => Ok(()),
    }
}

/// What a host shows is for who owns all of its paths.
fn certificate_within(it: &Certificate, tenant: &Tenant, pairs: &mut Pairs) -> Result<(), Invalid> {
    let allowed = match tenant.hosts.is_empty() || !tenant.path_prefixes.is_empty() {
        true => format!("no certificates: tenant \"{}\" owns paths, and no whole host", tenant.name),
        false => format!("hosts of tenant \"{}\": {}", tenant.name, joined(&tenant.hosts)),
    };
    if it.hosts.is_empty() {
        return Err(Invalid::field("hosts").found("none, which is every host").allowed(allowed));
    }
    if tenant.hosts.is_empty() || !tenant.path_prefixes.is_empty() {
        return Err(Invalid::field("hosts").found(format!("\"{}\"", it.hosts[0])).allowed(allowed));
    }
    let hosts: Vec<_> = it.hosts.iter().map(overlap::certificate_host).collect();
    match pairs.stray(&hosts, &tenant.hosts)? {
        Some((at, _)) => {
            Err(Invalid::field(format!("hosts[{at}]")).found(format!("\"{}\"", it.hosts[at])).allowed(allowed))
        }
        None => Ok(()),
    }
}

/// What an actor may do whose objects are those of one owner.
struct Bounds<'r> {
    scope: &'r str,
    /// The owners whose objects are as good as its own.
    kin: BTreeSet<&'r str>,
    world: World<'r>,
}

impl Bounds<'_> {
    fn is_foreign(&self, owner: &str) -> bool {
        !owner.is_empty() && owner != self.scope && !self.kin.contains(owner)
    }

    fn of(&self, change: &Changed, pairs: &mut Pairs) -> Result<(), Invalid> {
        let kind = change.key.kind;
        if matches!(kind, Kind::Listener | Kind::Tenant | Kind::Guardrail) {
            let found = format!("a {kind} written for the owner {:?} alone", self.scope);
            let allowed = format!("{} by operators of the whole cluster: they concern all owners", kind.list());
            return Err(Invalid::field("").found(found).allowed(allowed));
        }
        let Some(now) = &change.after else { return Ok(()) };
        if let Resource::Policy(it) = now
            && let PolicyKind::Portal(_) = it.kind
        {
            let found = format!("a portal written for the owner {:?} alone", self.scope);
            let allowed = "portals by operators of the whole cluster: they show what others own, and give out keys";
            return Err(Invalid::field("portal").found(found).allowed(allowed));
        }
        let before = change.before.as_ref();
        self.refers_to_its_own(before, now)?;
        match (now, before) {
            (Resource::Consumer(now), _) => self.counts_for_itself(now),
            (Resource::Route(now), Some(Resource::Route(before)))
                if (&before.matches, before.priority) == (&now.matches, now.priority) =>
            {
                self.receives_its_own(now)
            }
            (Resource::Route(now), _) => {
                self.receives_its_own(now)?;
                self.route_takes_nobody_elses(now, pairs)
            }
            (Resource::Certificate(now), Some(Resource::Certificate(before))) if before.hosts == now.hosts => Ok(()),
            (Resource::Certificate(now), _) => self.certificate_takes_nobody_elses(now, pairs),
            _ => Ok(()),
        }
    }

    /// Another owner's upstream, key or budget is used by who was given it, as it was before.
    fn refers_to_its_own(&self, before: Option<&Resource>, now: &Resource) -> Result<(), Invalid> {
        let given = before.map(Resource::references).unwrap_or_default();
        for reference in now.references().into_iter().filter(|it| given.iter().all(|before| before.key != it.key)) {
            let owner = self.world.after.get(&reference.key).map_or("", |stored| stored.resource.owner());
            if self.is_foreign(owner) {
                let found = format!("{}, which is of owner {owner:?}", reference.key);
                let allowed = format!("a {} of owner {:?}, or of no owner", reference.key.kind, self.scope);
                return Err(Invalid::field(reference.field).found(found).allowed(allowed));
            }
        }
        Ok(())
    }

    /// Limits per tenant count by this label.
    fn counts_for_itself(&self, it: &Consumer) -> Result<(), Invalid> {
        match it.labels.get("tenant") {
            Some(tenant) if self.is_foreign(tenant) => {
                let allowed = format!("{:?}, whose budgets it counts for, or none", self.scope);
                Err(Invalid::field("labels.tenant").found(format!("{tenant:?}")).allowed(allowed))
            }
            _ => Ok(()),
        }
    }

    /// These endpoints end tokens of whoever they are told of.
    fn receives_its_own(&self, it: &Route) -> Result<(), Invalid> {
        match &it.action {
            Action::Receive(receive) if !matches!(receive.receiver, Receiver::Jwks | Receiver::LoginCallback) => {
                let allowed = "jwks or login_callback: the others are about what belongs to all owners";
                Err(Invalid::field("respond.receiver").found(receive.receiver.word()).allowed(allowed))
            }
            _ => Ok(()),
        }
    }

    /// Where no tenant says whose a host is, it is theirs who were there first.
    fn route_takes_nobody_elses(&self, now: &Route, pairs: &mut Pairs) -> Result<(), Invalid> {
        if self.world.lord_of(self.scope).is_some() {
            return Ok(());
        }
        let others = |it: &&Route| self.is_foreign(&it.owner);
        for other in self.world.routes().filter(others) {
            pairs.take(1, 1)?;
            let meet = overlap::paths_meet(&now.matches.path, &other.matches.path)
                && pairs.hosts_meet(&now.matches.hosts, overlap::names(&other.matches))?;
            if meet {
                let found = format!("requests that route \"{}\" of owner {:?} takes", other.name, other.owner);
                let allowed = "hosts and paths of no other owner, or those of a tenant of yours";
                return Err(Invalid::field("match").found(found).allowed(allowed));
            }
        }
        Ok(())
    }

    fn certificate_takes_nobody_elses(&self, now: &Certificate, pairs: &mut Pairs) -> Result<(), Invalid> {
        if self.world.lord_of(self.scope).is_some() {
            return Ok(());
        }
        if now.hosts.is_empty() {
            let allowed = "the names that it is for: the one for all others is the whole cluster's";
            return Err(Invalid::field("hosts").found("none").allowed(allowed));
        }
        let hosts: Vec<_> = now.hosts.iter().map(overlap::certificate_host).collect();
        let wrong = |what: String| {
            Invalid::field("hosts").found(what).allowed("hosts of no other owner, or those of a tenant of yours")
        };
        for other in self.world.certificates().filter(|it| self.is_foreign(&it.owner) && !it.hosts.is_empty()) {
            let theirs: Vec<_> = other.hosts.iter().map(overlap::certificate_host).collect();
            if pairs.hosts_meet(&hosts, &theirs)? {
                return Err(wrong(format!("hosts of certificate \"{}\" of owner {:?}", other.name, other.owner)));
            }
        }
        for other in self.world.routes().filter(|it| self.is_foreign(&it.owner)) {
            pairs.take(1, 1)?;
            let theirs = overlap::names(&other.matches);
            if !theirs.is_empty() && pairs.hosts_meet(&hosts, theirs)? {
                return Err(wrong(format!("hosts of route \"{}\" of owner {:?}", other.name, other.owner)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
