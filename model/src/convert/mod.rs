//! Between model types and prost messages: resources here, commands and records beside.

mod command;
mod resource;

use std::{collections::BTreeMap, sync::Arc};

use quorumgate_proto::admin::v1 as admin;

pub use command::*;

use crate::{
    invalid::Invalid,
    resource::{Key, Kind, Resource},
};

const KINDS: &str = "upstream or route";

/// Checks everything that can be checked of one object alone; field paths are relative to the object.
pub fn resource_from(message: admin::Resource) -> Result<Resource, Invalid> {
    match message.kind {
        Some(admin::resource::Kind::Upstream(it)) => Ok(Resource::Upstream(Arc::new(resource::upstream_from(it)?))),
        Some(admin::resource::Kind::Route(it)) => Ok(Resource::Route(Arc::new(resource::route_from(it)?))),
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
        Resource::Upstream(it) => admin::resource::Kind::Upstream(resource::upstream_to(it)),
        Resource::Route(it) => admin::resource::Kind::Route(resource::route_to(it)),
    };
    admin::Resource { kind: Some(kind) }
}

/// `routes[3].match.path_regex` style paths; refuses a name that is there twice.
pub fn config_from(config: admin::ConfigSet) -> Result<Vec<Resource>, Invalid> {
    let upstreams = config.upstreams.into_iter().map(admin::resource::Kind::Upstream).enumerate();
    let routes = config.routes.into_iter().map(admin::resource::Kind::Route).enumerate();
    let mut resources = Vec::new();
    let mut places: BTreeMap<Key, usize> = BTreeMap::new();
    let upstreams = upstreams.map(|(place, it)| (Kind::Upstream, place, it));
    for (kind, place, it) in upstreams.chain(routes.map(|(place, it)| (Kind::Route, place, it))) {
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

pub fn config_to<'r>(resources: impl Iterator<Item = &'r Resource>) -> admin::ConfigSet {
    let mut config = admin::ConfigSet::default();
    for resource in resources {
        match resource {
            Resource::Upstream(it) => config.upstreams.push(resource::upstream_to(it)),
            Resource::Route(it) => config.routes.push(resource::route_to(it)),
        }
    }
    config
}

pub fn kind_from(kind: i32) -> Result<Kind, Invalid> {
    match admin::Kind::try_from(kind) {
        Ok(admin::Kind::Upstream) => Ok(Kind::Upstream),
        Ok(admin::Kind::Route) => Ok(Kind::Route),
        Ok(admin::Kind::Unspecified) | Err(_) => Err(Invalid::field("kind").found(kind).allowed(KINDS)),
    }
}

pub fn kind_to(kind: Kind) -> admin::Kind {
    match kind {
        Kind::Upstream => admin::Kind::Upstream,
        Kind::Route => admin::Kind::Route,
    }
}

pub fn key_from(reference: &admin::ResourceRef) -> Result<Key, Invalid> {
    Ok(Key { kind: kind_from(reference.kind)?, name: resource::name_from("name", &reference.name)? })
}

#[cfg(test)]
mod tests;
