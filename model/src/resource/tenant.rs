//! Tenants: which hosts and paths belong to the objects of some owners, and how many objects they may have.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    HostPattern, Kind, Name, check,
    route::words::{hosts, parse_prefix},
};
use crate::invalid::Invalid;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TenantWords", into = "TenantWords")]
pub struct Tenant {
    pub name: Name,
    pub labels: BTreeMap<String, String>,
    /// Of this object; whose objects it is about, `owners` says.
    pub owner: String,
    pub description: String,
    /// None: the tenant's own name.
    pub owners: Vec<String>,
    /// None beside `path_prefixes`: every host.
    pub hosts: Vec<HostPattern>,
    /// None: every path of the hosts.
    pub path_prefixes: Vec<String>,
    pub quotas: Quotas,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantWords {
    pub name: Name,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub owner: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub owners: Vec<String>,
    #[serde(default)]
    pub hosts: Vec<String>,
    #[serde(default)]
    pub path_prefixes: Vec<String>,
    #[serde(default)]
    pub quotas: Quotas,
}

/// How many objects of a kind its owners may have together; None: as many as they like. No listeners are here: these
/// are nobody's but the whole cluster's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    pub upstreams: Option<u32>,
    pub routes: Option<u32>,
    pub consumers: Option<u32>,
    pub auth: Option<u32>,
    pub certificate_authorities: Option<u32>,
    pub limits: Option<u32>,
    pub certificates: Option<u32>,
    pub policies: Option<u32>,
}

impl Quotas {
    pub fn of(&self, kind: Kind) -> Option<u32> {
        match kind {
            Kind::Upstream => self.upstreams,
            Kind::Route => self.routes,
            Kind::Consumer => self.consumers,
            Kind::Auth => self.auth,
            Kind::CertificateAuthority => self.certificate_authorities,
            Kind::Limit => self.limits,
            Kind::Certificate => self.certificates,
            Kind::Policy => self.policies,
            Kind::Listener | Kind::Tenant | Kind::Guardrail => None,
        }
    }
}

impl Tenant {
    /// The owners whose objects it is about.
    pub fn owners(&self) -> impl Iterator<Item = &str> {
        let own = self.owners.is_empty().then_some(&*self.name);
        self.owners.iter().map(String::as_str).chain(own)
    }

    /// Whether any traffic is its own: a tenant may have quotas alone.
    pub fn has_traffic(&self) -> bool {
        !self.hosts.is_empty() || !self.path_prefixes.is_empty()
    }
}

impl TryFrom<TenantWords> for Tenant {
    type Error = Invalid;

    fn try_from(it: TenantWords) -> Result<Self, Invalid> {
        check::meta(&it.labels, &it.owner, &it.description)?;
        check::count("owners", it.owners.len(), check::LIST_MAX)?;
        for (place, owner) in it.owners.iter().enumerate() {
            check::text(&format!("owners[{place}]"), owner, check::WORD_BYTES_MAX)?;
        }
        check::once("owners", &it.owners, String::clone)?;
        check::count("path_prefixes", it.path_prefixes.len(), check::LIST_MAX)?;
        let prefix = |(place, text): (usize, &String)| parse_prefix(&format!("path_prefixes[{place}]"), text);
        let prefixes = it.path_prefixes.iter().enumerate().map(prefix).collect::<Result<Vec<_>, _>>()?;
        check::once("path_prefixes", &prefixes, String::clone)?;
        Ok(Self {
            hosts: hosts("hosts", &it.hosts)?,
            path_prefixes: prefixes,
            name: it.name,
            labels: it.labels,
            owner: it.owner,
            description: it.description,
            owners: it.owners,
            quotas: it.quotas,
        })
    }
}

impl From<Tenant> for TenantWords {
    fn from(it: Tenant) -> Self {
        Self {
            name: it.name,
            labels: it.labels,
            owner: it.owner,
            description: it.description,
            owners: it.owners,
            hosts: it.hosts.iter().map(HostPattern::to_string).collect(),
            path_prefixes: it.path_prefixes,
            quotas: it.quotas,
        }
    }
}
