//! What an operator writes, parsed into types that cannot be wrong. The serde forms are the words of the YAML file.

#[cfg(test)]
pub(crate) mod arbitrary;
pub mod check;
mod name;
mod route;
mod upstream;

use std::{fmt, sync::Arc};

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

pub use name::Name;
pub use route::*;
pub use upstream::*;

/// The kinds of resources, in the order in which they are shown and stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Upstream,
    Route,
}

impl Kind {
    pub const ALL: [Kind; 2] = [Kind::Upstream, Kind::Route];

    /// `upstream`
    pub fn word(self) -> &'static str {
        match self {
            Kind::Upstream => "upstream",
            Kind::Route => "route",
        }
    }

    /// The name of the list in a file: `upstreams`.
    pub fn list(self) -> &'static str {
        match self {
            Kind::Upstream => "upstreams",
            Kind::Route => "routes",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Which resource: unique in a cluster. Shown as `route/orders`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    pub kind: Kind,
    pub name: Name,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// One resource of any kind; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Resource {
    Upstream(Arc<Upstream>),
    Route(Arc<Route>),
}

impl Resource {
    pub fn key(&self) -> Key {
        match self {
            Resource::Upstream(it) => Key { kind: Kind::Upstream, name: it.name.clone() },
            Resource::Route(it) => Key { kind: Kind::Route, name: it.name.clone() },
        }
    }

    /// The team that owns it; empty when nobody is named.
    pub fn owner(&self) -> &str {
        match self {
            Resource::Upstream(it) => &it.owner,
            Resource::Route(it) => &it.owner,
        }
    }
}

/// All resources at one instant; a clone costs O(1).
pub type Resources = OrdMap<Key, Stored>;

/// A resource with the hash of its stored form, which is also its etag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub resource: Resource,
    pub etag: crate::digest::Digest,
}

#[cfg(test)]
mod tests;
