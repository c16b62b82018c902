//! Between model types and prost messages: resources here, commands and records beside.

mod access;
mod ai;
mod anomaly;
pub(crate) mod approvals;
mod auth;
pub(crate) mod ban;
mod command;
mod contract;
mod governance;
pub(crate) mod ledger;
mod limit;
mod mask;
mod policy;
mod portal;
pub(crate) mod purge;
mod resource;
pub(crate) mod sealing;
mod smaller;
mod tls;
mod traffic;
mod upstream;

use std::{collections::BTreeMap, sync::Arc};

use quorumgate_proto::admin::v1 as admin;

pub use command::*;

use crate::{
    invalid::Invalid,
    resource::{Key, Kind, Resource},
};

const KINDS: &str = "upstream, route, consumer, auth, certificate_authority, limit, certificate, listener, policy, \
    tenant or guardrail";

/// Checks everything that can be checked of one object alone; field paths are relative to the object.
pub fn resource_from(message: admin::Resource) -> Result<Resource, Invalid> {
    match message.kind {
        Some(admin::resource::Kind::Upstream(it)) => Ok(Resource::Upstream(Arc::new(upstream::upstream_from(it)?))),
        Some(admin::resource::Kind::Route(it)) => Ok(Resource::Route(Arc::new(resource::route_from(it)?))),
        Some(admin::resource::Kind::Consumer(it)) => Ok(Resource::Consumer(Arc::new(smaller::consumer_from(it)?))),
        Some(admin::resource::Kind::Auth(it)) => Ok(Resource::Auth(Arc::new(auth::auth_from(it)?))),
        Some(admin::resource::Kind::CertificateAuthority(it)) => {
            Ok(Resource::CertificateAuthority(Arc::new(smaller::certificate_authority_from(it)?)))
        }
        Some(admin::resource::Kind::Limit(it)) => Ok(Resource::Limit(Arc::new(limit::limit_from(it)?))),
        Some(admin::resource::Kind::Certificate(it)) => Ok(Resource::Certificate(Arc::new(tls::certificate_from(it)?))),
        Some(admin::resource::Kind::Listener(it)) => Ok(Resource::Listener(Arc::new(tls::listener_from(it)?))),
        Some(admin::resource::Kind::Policy(it)) => Ok(Resource::Policy(Arc::new(policy::policy_from(it)?))),
        Some(admin::resource::Kind::Tenant(it)) => Ok(Resource::Tenant(Arc::new(governance::tenant_from(it)?))),
        Some(admin::resource::Kind::Guardrail(it)) => {
            Ok(Resource::Guardrail(Arc::new(governance::guardrail_from(it)?)))
        }
        None => Err(Invalid::field("kind").found("none").allowed(KINDS)),
    }
}

/// As `resource_from`, for what the cluster has agreed on already (log, snapshot): a regular expression that this build
/// does not take makes the route `broken` in the ruleset, not the entry unreadable.
pub fn stored_resource_from(message: admin::Resource) -> Result<Resource, Invalid> {
    match message.kind {
        Some(admin::resource::Kind::Route(it)) => {
            Ok(Resource::Route(Arc::new(resource::route_words(it)?.uncompiled()?)))
        }
        kind => resource_from(admin::Resource { kind }),
    }
}

pub fn resource_to(resource: &Resource) -> admin::Resource {
    let kind = match resource {
        Resource::Upstream(it) => admin::resource::Kind::Upstream(upstream::upstream_to(it)),
        Resource::Route(it) => admin::resource::Kind::Route(resource::route_to(it)),
        Resource::Consumer(it) => admin::resource::Kind::Consumer(smaller::consumer_to(it)),
        Resource::Auth(it) => admin::resource::Kind::Auth(auth::auth_to(it)),
        Resource::CertificateAuthority(it) => {
            admin::resource::Kind::CertificateAuthority(smaller::certificate_authority_to(it))
        }
        Resource::Limit(it) => admin::resource::Kind::Limit(limit::limit_to(it)),
        Resource::Certificate(it) => admin::resource::Kind::Certificate(tls::certificate_to(it)),
        Resource::Listener(it) => admin::resource::Kind::Listener(tls::listener_to(it)),
        Resource::Policy(it) => admin::resource::Kind::Policy(policy::policy_to(it)),
        Resource::Tenant(it) => admin::resource::Kind::Tenant(governance::tenant_to(it)),
        Resource::Guardrail(it) => admin::resource::Kind::Guardrail(governance::guardrail_to(it)),
    };
    admin::Resource { kind: Some(kind) }
}

/// As clients are shown it: sealed secrets by their fingerprints alone.
pub fn resource_shown(resource: &Resource) -> admin::Resource {
    let mut message = resource_to(resource);
    match &mut message.kind {
        Some(admin::resource::Kind::Auth(auth)) => auth::hide_secrets(auth),
        Some(admin::resource::Kind::Policy(it)) => {
            policy::hide_secrets(it);
            policy::spell_out(it);
        }
        Some(admin::resource::Kind::Certificate(it)) => it.key.iter_mut().for_each(smaller::hide),
        _ => {}
    }
    message
}

/// `routes[3].match.path_regex` style paths; refuses a name that is there twice.
pub fn config_from(config: admin::ConfigSet) -> Result<Vec<Resource>, Invalid> {
    let mut resources = Vec::new();
    let mut places: BTreeMap<Key, usize> = BTreeMap::new();
    for (kind, place, it) in entries(config) {
        let under = |invalid: Invalid| invalid.under(format!("{}[{place}]", kind.list()));
        let resource = resource_from(admin::Resource { kind: Some(it) }).map_err(under)?;
        if let Some(first) = places.insert(resource.key(), place) {
            let twice = Invalid::field("name").found(resource.key().name);
            return Err(under(twice.allowed(format!("each name once; {}[{first}] has it too", kind.list()))));
        }
        resources.push(resource);
    }
    Ok(resources)
}

/// Every object with its kind and its place in the list of that kind.
fn entries(config: admin::ConfigSet) -> impl Iterator<Item = (Kind, usize, admin::resource::Kind)> {
    use admin::resource::Kind as Message;
    fn list<T>(kind: Kind, list: Vec<T>, wrap: fn(T) -> Message) -> impl Iterator<Item = (Kind, usize, Message)> {
        list.into_iter().enumerate().map(move |(place, it)| (kind, place, wrap(it)))
    }
    list(Kind::Upstream, config.upstreams, Message::Upstream)
        .chain(list(Kind::Route, config.routes, Message::Route))
        .chain(list(Kind::Consumer, config.consumers, Message::Consumer))
        .chain(list(Kind::Auth, config.auth, Message::Auth))
        .chain(list(Kind::CertificateAuthority, config.certificate_authorities, Message::CertificateAuthority))
        .chain(list(Kind::Limit, config.limits, Message::Limit))
        .chain(list(Kind::Certificate, config.certificates, Message::Certificate))
        .chain(list(Kind::Listener, config.listeners, Message::Listener))
        .chain(list(Kind::Policy, config.policies, Message::Policy))
        .chain(list(Kind::Tenant, config.tenants, Message::Tenant))
        .chain(list(Kind::Guardrail, config.guardrails, Message::Guardrail))
}

/// The names in each list, in its order.
pub fn names_of(config: &admin::ConfigSet) -> [(Kind, Vec<&str>); 11] {
    [
        (Kind::Upstream, config.upstreams.iter().map(|it| it.name.as_str()).collect()),
        (Kind::Route, config.routes.iter().map(|it| it.name.as_str()).collect()),
        (Kind::Consumer, config.consumers.iter().map(|it| it.name.as_str()).collect()),
        (Kind::Auth, config.auth.iter().map(|it| it.name.as_str()).collect()),
        (Kind::CertificateAuthority, config.certificate_authorities.iter().map(|it| it.name.as_str()).collect()),
        (Kind::Limit, config.limits.iter().map(|it| it.name.as_str()).collect()),
        (Kind::Certificate, config.certificates.iter().map(|it| it.name.as_str()).collect()),
        (Kind::Listener, config.listeners.iter().map(|it| it.name.as_str()).collect()),
        (Kind::Policy, config.policies.iter().map(|it| it.name.as_str()).collect()),
        (Kind::Tenant, config.tenants.iter().map(|it| it.name.as_str()).collect()),
        (Kind::Guardrail, config.guardrails.iter().map(|it| it.name.as_str()).collect()),
    ]
}

pub fn config_to<'r>(resources: impl Iterator<Item = &'r Resource>) -> admin::ConfigSet {
    collected(resources.map(resource_to))
}

/// As `resource_shown`.
pub fn config_shown<'r>(resources: impl Iterator<Item = &'r Resource>) -> admin::ConfigSet {
    collected(resources.map(resource_shown))
}

fn collected(resources: impl Iterator<Item = admin::Resource>) -> admin::ConfigSet {
    let mut config = admin::ConfigSet::default();
    for kind in resources.filter_map(|resource| resource.kind) {
        match kind {
            admin::resource::Kind::Upstream(it) => config.upstreams.push(it),
            admin::resource::Kind::Route(it) => config.routes.push(it),
            admin::resource::Kind::Consumer(it) => config.consumers.push(it),
            admin::resource::Kind::Auth(it) => config.auth.push(it),
            admin::resource::Kind::CertificateAuthority(it) => config.certificate_authorities.push(it),
            admin::resource::Kind::Limit(it) => config.limits.push(it),
            admin::resource::Kind::Certificate(it) => config.certificates.push(it),
            admin::resource::Kind::Listener(it) => config.listeners.push(it),
            admin::resource::Kind::Policy(it) => config.policies.push(it),
            admin::resource::Kind::Tenant(it) => config.tenants.push(it),
            admin::resource::Kind::Guardrail(it) => config.guardrails.push(it),
        }
    }
    config
}

pub fn kind_from(kind: i32) -> Result<Kind, Invalid> {
    match admin::Kind::try_from(kind) {
        Ok(admin::Kind::Upstream) => Ok(Kind::Upstream),
        Ok(admin::Kind::Route) => Ok(Kind::Route),
        Ok(admin::Kind::Consumer) => Ok(Kind::Consumer),
        Ok(admin::Kind::Auth) => Ok(Kind::Auth),
        Ok(admin::Kind::CertificateAuthority) => Ok(Kind::CertificateAuthority),
        Ok(admin::Kind::Limit) => Ok(Kind::Limit),
        Ok(admin::Kind::Certificate) => Ok(Kind::Certificate),
        Ok(admin::Kind::Listener) => Ok(Kind::Listener),
        Ok(admin::Kind::Policy) => Ok(Kind::Policy),
        Ok(admin::Kind::Tenant) => Ok(Kind::Tenant),
        Ok(admin::Kind::Guardrail) => Ok(Kind::Guardrail),
        Ok(admin::Kind::Unspecified) | Err(_) => Err(Invalid::field("kind").found(kind).allowed(KINDS)),
    }
}

pub fn kind_to(kind: Kind) -> admin::Kind {
    match kind {
        Kind::Upstream => admin::Kind::Upstream,
        Kind::Route => admin::Kind::Route,
        Kind::Consumer => admin::Kind::Consumer,
        Kind::Auth => admin::Kind::Auth,
        Kind::CertificateAuthority => admin::Kind::CertificateAuthority,
        Kind::Limit => admin::Kind::Limit,
        Kind::Certificate => admin::Kind::Certificate,
        Kind::Listener => admin::Kind::Listener,
        Kind::Policy => admin::Kind::Policy,
        Kind::Tenant => admin::Kind::Tenant,
        Kind::Guardrail => admin::Kind::Guardrail,
    }
}

pub fn key_from(reference: &admin::ResourceRef) -> Result<Key, Invalid> {
    Ok(Key { kind: kind_from(reference.kind)?, name: resource::name_from("name", &reference.name)? })
}

#[cfg(test)]
mod tests;
