//! What an operator writes, parsed into types that cannot be wrong. The serde forms are the words of the YAML file.

#[cfg(test)]
pub(crate) mod arbitrary;
mod auth;
mod certificate;
mod certificate_authority;
pub mod check;
mod consumer;
mod guardrail;
mod limit;
mod listener;
mod name;
mod policy;
mod references;
mod route;
mod secret;
mod tenant;
mod upstream;
mod word;

use std::{collections::BTreeMap, fmt, sync::Arc};

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

pub use auth::*;
pub use certificate::*;
pub use certificate_authority::*;
pub use consumer::*;
pub use guardrail::*;
pub use limit::*;
pub use listener::*;
pub use name::Name;
pub use policy::*;
pub use references::*;
pub use route::*;
pub use secret::*;
pub use tenant::*;
pub use upstream::*;

/// The kinds of resources, in the order in which they are shown and stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Upstream,
    Route,
    Consumer,
    Auth,
    CertificateAuthority,
    Limit,
    Certificate,
    Listener,
    Policy,
    Tenant,
    Guardrail,
}

impl Kind {
    pub const ALL: [Kind; 11] = [
        Kind::Upstream,
        Kind::Route,
        Kind::Consumer,
        Kind::Auth,
        Kind::CertificateAuthority,
        Kind::Limit,
        Kind::Certificate,
        Kind::Listener,
        Kind::Policy,
        Kind::Tenant,
        Kind::Guardrail,
    ];

    /// `upstream`
    pub fn word(self) -> &'static str {
        match self {
            Kind::Upstream => "upstream",
            Kind::Route => "route",
            Kind::Consumer => "consumer",
            Kind::Auth => "auth",
            Kind::CertificateAuthority => "certificate_authority",
            Kind::Limit => "limit",
            Kind::Certificate => "certificate",
            Kind::Listener => "listener",
            Kind::Policy => "policy",
            Kind::Tenant => "tenant",
            Kind::Guardrail => "guardrail",
        }
    }

    /// The name of the list in a file: `upstreams`.
    pub fn list(self) -> &'static str {
        match self {
            Kind::Upstream => "upstreams",
            Kind::Route => "routes",
            Kind::Consumer => "consumers",
            Kind::Auth => "auth",
            Kind::CertificateAuthority => "certificate_authorities",
            Kind::Limit => "limits",
            Kind::Certificate => "certificates",
            Kind::Listener => "listeners",
            Kind::Policy => "policies",
            Kind::Tenant => "tenants",
            Kind::Guardrail => "guardrails",
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
    Consumer(Arc<Consumer>),
    Auth(Arc<Auth>),
    CertificateAuthority(Arc<CertificateAuthority>),
    Limit(Arc<Limit>),
    Certificate(Arc<Certificate>),
    Listener(Arc<Listener>),
    Policy(Arc<Policy>),
    Tenant(Arc<Tenant>),
    Guardrail(Arc<Guardrail>),
}

impl Resource {
    pub fn key(&self) -> Key {
        Key { kind: self.kind(), name: self.name().clone() }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Resource::Upstream(_) => Kind::Upstream,
            Resource::Route(_) => Kind::Route,
            Resource::Consumer(_) => Kind::Consumer,
            Resource::Auth(_) => Kind::Auth,
            Resource::CertificateAuthority(_) => Kind::CertificateAuthority,
            Resource::Limit(_) => Kind::Limit,
            Resource::Certificate(_) => Kind::Certificate,
            Resource::Listener(_) => Kind::Listener,
            Resource::Policy(_) => Kind::Policy,
            Resource::Tenant(_) => Kind::Tenant,
            Resource::Guardrail(_) => Kind::Guardrail,
        }
    }

    /// The feature level of the builds that know all that it says.
    pub fn level(&self) -> u32 {
        match self {
            Resource::Route(it) if it.body.buffer => 6,
            Resource::Route(it) if matches!(&it.action, Action::Receive(it) if it.receiver == Receiver::Portal) => 6,
            Resource::Route(it) if !it.matches.listeners.is_empty() || it.rewrite.body != Default::default() => 5,
            Resource::Route(it) if it.body.decompressed_max != Default::default() => 3,
            Resource::Policy(it) => it.kind.level(),
            Resource::Auth(it) if matches!(it.kind, AuthKind::UpstreamKey(_)) => 6,
            // What earlier builds know the word of, and no proxy of them counts.
            Resource::Limit(it) if matches!(it.cost, LimitCost::AiTokens(_)) => 6,
            Resource::Guardrail(it) if !it.approval_labels.is_empty() => 6,
            Resource::Tenant(_) | Resource::Guardrail(_) => 3,
            _ => 1,
        }
    }

    pub fn name(&self) -> &Name {
        match self {
            Resource::Upstream(it) => &it.name,
            Resource::Route(it) => &it.name,
            Resource::Consumer(it) => &it.name,
            Resource::Auth(it) => &it.name,
            Resource::CertificateAuthority(it) => &it.name,
            Resource::Limit(it) => &it.name,
            Resource::Certificate(it) => &it.name,
            Resource::Listener(it) => &it.name,
            Resource::Policy(it) => &it.name,
            Resource::Tenant(it) => &it.name,
            Resource::Guardrail(it) => &it.name,
        }
    }

    pub fn labels(&self) -> &BTreeMap<String, String> {
        match self {
            Resource::Upstream(it) => &it.labels,
            Resource::Route(it) => &it.labels,
            Resource::Consumer(it) => &it.labels,
            Resource::Auth(it) => &it.labels,
            Resource::CertificateAuthority(it) => &it.labels,
            Resource::Limit(it) => &it.labels,
            Resource::Certificate(it) => &it.labels,
            Resource::Listener(it) => &it.labels,
            Resource::Policy(it) => &it.labels,
            Resource::Tenant(it) => &it.labels,
            Resource::Guardrail(it) => &it.labels,
        }
    }

    /// The team that owns it; empty when nobody is named.
    pub fn owner(&self) -> &str {
        match self {
            Resource::Upstream(it) => &it.owner,
            Resource::Route(it) => &it.owner,
            Resource::Consumer(it) => &it.owner,
            Resource::Auth(it) => &it.owner,
            Resource::CertificateAuthority(it) => &it.owner,
            Resource::Limit(it) => &it.owner,
            Resource::Certificate(it) => &it.owner,
            Resource::Listener(it) => &it.owner,
            Resource::Policy(it) => &it.owner,
            Resource::Tenant(it) => &it.owner,
            Resource::Guardrail(it) => &it.owner,
        }
    }
}

impl Kind {
    /// A resource of this kind from the words of a file.
    pub fn parse(self, words: serde_json::Value) -> Result<Resource, serde_json::Error> {
        fn shared<T: serde::de::DeserializeOwned>(words: serde_json::Value) -> Result<Arc<T>, serde_json::Error> {
            serde_json::from_value(words).map(Arc::new)
        }
        Ok(match self {
            Kind::Upstream => Resource::Upstream(shared(words)?),
            Kind::Route => Resource::Route(shared(words)?),
            Kind::Consumer => Resource::Consumer(shared(words)?),
            Kind::Auth => Resource::Auth(shared(words)?),
            Kind::CertificateAuthority => Resource::CertificateAuthority(shared(words)?),
            Kind::Limit => Resource::Limit(shared(words)?),
            Kind::Certificate => Resource::Certificate(shared(words)?),
            Kind::Listener => Resource::Listener(shared(words)?),
            Kind::Policy => Resource::Policy(shared(words)?),
            Kind::Tenant => Resource::Tenant(shared(words)?),
            Kind::Guardrail => Resource::Guardrail(shared(words)?),
        })
    }
}

/// All resources at one instant; a clone costs O(1).
pub type Resources = OrdMap<Key, Stored>;

/// Those of one kind, by their names.
pub fn of_kind(resources: &Resources, kind: Kind) -> impl Iterator<Item = &Resource> {
    // Names begin with a digit or a letter: none comes before this one.
    let first = Key { kind, name: "0".parse().expect("it is a name") };
    resources.range(first..).take_while(move |(key, _)| key.kind == kind).map(|(_, stored)| &stored.resource)
}

/// A resource with the hash of its stored form, which is also its etag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub resource: Resource,
    pub etag: crate::digest::Digest,
}

#[cfg(test)]
mod identity_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
#[cfg(test)]
mod traffic_tests;
