//! Between model types and prost messages: resources here, commands and records beside.

mod command;

use quorumgate_proto::admin::v1 as admin;

pub use command::*;

use crate::{
    invalid::Invalid,
    resource::{Key, Kind, Resource},
};

/// Checks everything that can be checked of one object alone; field paths are relative to the object.
pub fn resource_from(_message: admin::Resource) -> Result<Resource, Invalid> {
    todo!("H1")
}

pub fn resource_to(_resource: &Resource) -> admin::Resource {
    todo!("H1")
}

/// `routes[3].match.path_regex` style paths; refuses a name that is there twice.
pub fn config_from(_config: admin::ConfigSet) -> Result<Vec<Resource>, Invalid> {
    todo!("H1")
}

pub fn config_to<'r>(_resources: impl Iterator<Item = &'r Resource>) -> admin::ConfigSet {
    todo!("H1")
}

pub fn kind_from(_kind: i32) -> Result<Kind, Invalid> {
    todo!("H1")
}

pub fn kind_to(kind: Kind) -> admin::Kind {
    match kind {
        Kind::Upstream => admin::Kind::Upstream,
        Kind::Route => admin::Kind::Route,
    }
}

pub fn key_from(_reference: &admin::ResourceRef) -> Result<Key, Invalid> {
    todo!("H1")
}
