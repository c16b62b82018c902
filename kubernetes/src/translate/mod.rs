//! What the objects of a Kubernetes cluster ask of the gateway: objects of ours, and what is to be said of theirs. Pure
//! and deterministic; what cannot be carried out becomes a condition of the object that asks for it, and of no other.

mod attach;
mod backends;
mod filters;
mod gateways;
mod grants;
mod grpc;
mod http;
mod routes;
mod tls_policies;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use quorumgate_model::{
    convert,
    resource::{self, Resource},
    ruleset,
};
use quorumgate_proto::admin::v1::{self as admin, ConfigSet};
use serde_json::Value;

use self::{gateways::Gateways, grants::Grants, tls_policies::TlsPolicies};
use crate::{
    CONTROLLER, OWNER,
    api::{Id, Kind, Object},
    conditions::{ACCEPTED, Condition, Status, Told},
    snapshot::Snapshot,
};

/// What the controller is told beside the objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where the nodes listen.
    pub bind: IpAddr,
    /// The port that nodes open for a port of Gateways, where it is another one.
    pub ports: BTreeMap<u16, u16>,
    /// The service in front of the nodes: its addresses are those of Gateways.
    pub service: Option<Id>,
}

/// Whom an object of ours goes back to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    Port(u16),
    Secret(Id),
    ConfigMap(Id),
    Service(Id),
    Route(Kind, Id),
    /// The upstream that stands for what cannot be asked.
    Nowhere,
}

/// What was refused, by whom it goes back to, and why.
pub type Refusals = BTreeMap<Origin, String>;

#[derive(Debug, Clone, Default)]
pub struct Translation {
    /// In the order of `config`.
    pub objects: Vec<(Origin, admin::Resource)>,
    pub told: Vec<Told>,
}

/// `refused`: what the gateway did not take of an earlier translation.
pub fn translate(snapshot: &Snapshot, settings: &Settings, refused: &Refusals) -> Translation {
    let mut refused = refused.clone();
    // Each turn names an origin that no turn before has named.
    loop {
        let mut translation = draft(snapshot, settings, &refused);
        let found = check(&mut translation);
        if found.is_empty() {
            return translation;
        }
        refused.extend(found);
    }
}

fn draft(snapshot: &Snapshot, settings: &Settings, refused: &Refusals) -> Translation {
    let grants = Grants::of(snapshot);
    let mut gateways = Gateways::of(snapshot, settings, &grants, refused);
    let mut policies = TlsPolicies::of(snapshot, refused);
    let mut translation = Translation::default();
    let mut told = routes::translate(snapshot, &grants, &mut gateways, &mut policies, refused, &mut translation);
    let (mut objects, told_of_gateways) = gateways.finish(snapshot, settings);
    objects.extend(policies.authorities());
    objects.append(&mut translation.objects);
    told.extend(told_of_gateways);
    told.extend(policies.told());
    // By list, then by name: equal snapshots give equal bytes, whatever order things were met in.
    objects.sort_by_cached_key(|(_, object)| (list_of(object), name_of(object).to_owned()));
    told.sort_by_key(|it| (it.kind, it.id.clone()));
    Translation { objects, told }
}

/// What the gateway would refuse for its words; routes that an older one leaves nothing to are taken out.
fn check(translation: &mut Translation) -> Refusals {
    let mut refused = Refusals::new();
    let mut matches = HashMap::new();
    let mut shadowed: HashMap<(Kind, Id), String> = HashMap::new();
    translation.objects.retain(|(origin, object)| match convert::resource_from(object.clone()) {
        Err(invalid) => {
            refused.entry(origin.clone()).or_insert_with(|| invalid.to_string());
            true
        }
        Ok(Resource::Route(route)) => {
            // They come by name, and so the oldest first.
            let first = matches.entry(ruleset::match_fingerprint(&route)).or_insert_with(|| route.name.clone());
            let is_first = *first == route.name;
            if let Origin::Route(kind, id) = origin
                && !is_first
            {
                let text = format!("a match of it is taken by an older one already (route {first})");
                shadowed.entry((*kind, id.clone())).or_insert(text);
            }
            is_first
        }
        Ok(_) => true,
    });
    for told in &mut translation.told {
        let Some(text) = shadowed.get(&(told.kind, told.id.clone())) else { continue };
        let Status::Parents(parents) = &mut told.status else { continue };
        let conditions = parents.iter_mut().flat_map(|it| &mut it.conditions);
        conditions.filter(|it| it.kind == ACCEPTED && it.holds).for_each(|it| it.message.clone_from(text));
    }
    refused
}

impl Translation {
    pub fn config(&self) -> ConfigSet {
        let mut config = ConfigSet::default();
        for (_, object) in &self.objects {
            use admin::resource::Kind;
            match object.kind.clone() {
                Some(Kind::Upstream(it)) => config.upstreams.push(it),
                Some(Kind::Route(it)) => config.routes.push(it),
                Some(Kind::CertificateAuthority(it)) => config.certificate_authorities.push(it),
                Some(Kind::Certificate(it)) => config.certificates.push(it),
                Some(Kind::Listener(it)) => config.listeners.push(it),
                other => unreachable!("nothing is translated to {other:?}"),
            }
        }
        config
    }

    /// Whom a complaint about a field such as `routes[3].match` or `routes/a.match` goes back to.
    pub fn origin_of(&self, field: &str) -> Option<&Origin> {
        let list = field.split(['[', '/']).next()?;
        let rest = &field[list.len()..];
        let mut objects = self.objects.iter().filter(|(_, object)| list_of(object) == list);
        let found = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((place, _)) => objects.nth(place.parse().ok()?),
            None => {
                let named = rest.strip_prefix('/')?;
                let is_it = |name: &str| {
                    named.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
                };
                // Names may hold dots: the longest counts.
                objects.filter(|(_, object)| is_it(name_of(object))).max_by_key(|(_, object)| name_of(object).len())
            }
        };
        found.map(|(origin, _)| origin)
    }
}

/// The name of the list in a configuration.
pub fn list_of(object: &admin::Resource) -> &'static str {
    use admin::resource::Kind;
    let kind = match object.kind {
        Some(Kind::Upstream(_)) => resource::Kind::Upstream,
        Some(Kind::Route(_)) => resource::Kind::Route,
        Some(Kind::CertificateAuthority(_)) => resource::Kind::CertificateAuthority,
        Some(Kind::Certificate(_)) => resource::Kind::Certificate,
        Some(Kind::Listener(_)) => resource::Kind::Listener,
        _ => return "",
    };
    kind.list()
}

pub fn name_of(object: &admin::Resource) -> &str {
    use admin::resource::Kind;
    match &object.kind {
        Some(Kind::Upstream(it)) => &it.name,
        Some(Kind::Route(it)) => &it.name,
        Some(Kind::CertificateAuthority(it)) => &it.name,
        Some(Kind::Certificate(it)) => &it.name,
        Some(Kind::Listener(it)) => &it.name,
        _ => "",
    }
}

fn meta(description: String) -> Option<admin::Meta> {
    Some(admin::Meta { owner: OWNER.to_owned(), description, ..admin::Meta::default() })
}

fn resource(kind: admin::resource::Kind) -> admin::Resource {
    admin::Resource { kind: Some(kind) }
}

/// Seconds since 1970; what has no time counts as new.
fn age(object: &Object) -> u32 {
    let text = &object.metadata.creation_timestamp;
    let time = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339);
    time.ok().and_then(|it| u32::try_from(it.unix_timestamp()).ok()).unwrap_or(u32::MAX)
}

/// The oldest first; of one age by name.
fn by_age<'s>(objects: impl Iterator<Item = (&'s Id, &'s std::sync::Arc<Object>)>) -> Vec<(&'s Id, &'s Object)> {
    let mut sorted: Vec<_> = objects.map(|(id, object)| (id, &**object)).collect();
    sorted.sort_by_key(|(id, object)| (age(object), id.to_string()));
    sorted
}

/// Whether something in the status was written by us once.
fn mentions_us(status: &Value, list: &str) -> bool {
    let entries = status[list].as_array();
    entries.is_some_and(|it| it.iter().any(|entry| entry["controllerName"] == CONTROLLER))
}

/// As a condition's message goes: at most so many characters are allowed.
const MESSAGE_CHARS_MAX: usize = 1_000;

fn shortened(text: &str) -> String {
    match text.chars().count() {
        0..=MESSAGE_CHARS_MAX => text.to_owned(),
        _ => text.chars().take(MESSAGE_CHARS_MAX).chain(['…']).collect(),
    }
}

fn no(kind: &'static str, reason: &'static str, message: impl AsRef<str>) -> Condition {
    Condition::no(kind, reason, shortened(message.as_ref()))
}
