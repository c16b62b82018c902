//! Objects of Kubernetes as far as they concern us. Those of the Gateway API refuse fields that they do not know, so that
//! nothing that is asked for is passed over in silence; of all others only what is needed is read.

pub mod core;
pub mod gateway;
pub mod route;

use std::{collections::BTreeMap, fmt};

use serde::Deserialize;
use serde_json::Value;

use crate::GROUP;

/// The kinds that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    GatewayClass,
    Gateway,
    HttpRoute,
    GrpcRoute,
    ReferenceGrant,
    BackendTlsPolicy,
    Service,
    EndpointSlice,
    Secret,
    ConfigMap,
    Namespace,
}

impl Kind {
    pub const ALL: [Kind; 11] = [
        Kind::GatewayClass,
        Kind::Gateway,
        Kind::HttpRoute,
        Kind::GrpcRoute,
        Kind::ReferenceGrant,
        Kind::BackendTlsPolicy,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::Secret,
        Kind::ConfigMap,
        Kind::Namespace,
    ];

    /// As manifests have it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::GatewayClass => "GatewayClass",
            Kind::Gateway => "Gateway",
            Kind::HttpRoute => "HTTPRoute",
            Kind::GrpcRoute => "GRPCRoute",
            Kind::ReferenceGrant => "ReferenceGrant",
            Kind::BackendTlsPolicy => "BackendTLSPolicy",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::Secret => "Secret",
            Kind::ConfigMap => "ConfigMap",
            Kind::Namespace => "Namespace",
        }
    }

    pub fn group(self) -> &'static str {
        match self {
            Kind::Service | Kind::Secret | Kind::ConfigMap | Kind::Namespace => "",
            Kind::EndpointSlice => "discovery.k8s.io",
            _ => GROUP,
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Kind::GatewayClass => "gatewayclasses",
            Kind::Gateway => "gateways",
            Kind::HttpRoute => "httproutes",
            Kind::GrpcRoute => "grpcroutes",
            Kind::ReferenceGrant => "referencegrants",
            Kind::BackendTlsPolicy => "backendtlspolicies",
            Kind::Service => "services",
            Kind::EndpointSlice => "endpointslices",
            Kind::Secret => "secrets",
            Kind::ConfigMap => "configmaps",
            Kind::Namespace => "namespaces",
        }
    }

    /// The versions that are understood, the newest first.
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            Kind::ReferenceGrant => &["v1", "v1beta1"],
            Kind::BackendTlsPolicy => &["v1", "v1alpha3"],
            _ => &["v1"],
        }
    }

    /// Where all of them are listed, in every namespace.
    pub fn path(self, version: &str) -> String {
        match self.group() {
            "" => format!("/api/{version}/{}", self.plural()),
            group => format!("/apis/{group}/{version}/{}", self.plural()),
        }
    }

    /// Where the status of one is written.
    pub fn status_path(self, version: &str, id: &Id) -> String {
        let root = format!("/apis/{}/{version}", self.group());
        match id.namespace.is_empty() {
            true => format!("{root}/{}/{}/status", self.plural(), id.name),
            false => format!("{root}/namespaces/{}/{}/{}/status", id.namespace, self.plural(), id.name),
        }
    }

    /// What a list leaves out at the server already.
    pub fn selector(self) -> &'static str {
        match self {
            Kind::Secret => "&fieldSelector=type%3Dkubernetes.io%2Ftls",
            _ => "",
        }
    }

    /// Whether a cluster may do without: its definition need not be installed.
    pub fn is_optional(self) -> bool {
        self.group() == GROUP
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Namespace and name; without a namespace for kinds of the whole cluster. Shown as `shop/orders`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id {
    pub namespace: String,
    pub name: String,
}

impl Id {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.is_empty() {
            true => f.write_str(&self.name),
            false => write!(f, "{}/{}", self.namespace, self.name),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    pub name: String,
    pub namespace: String,
    pub generation: i64,
    pub resource_version: String,
    /// RFC 3339, to the second.
    pub creation_timestamp: String,
    pub labels: BTreeMap<String, String>,
}

impl Meta {
    pub fn id(&self) -> Id {
        Id::new(&self.namespace, &self.name)
    }
}

/// An object of the Gateway API: its spec is read when it is translated, and then says itself what is wrong with it.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Object {
    pub metadata: Meta,
    pub spec: Value,
    pub status: Value,
}

impl Object {
    /// The words, or what in them is not understood.
    pub fn spec<T: for<'de> Deserialize<'de>>(&self) -> Result<T, String> {
        T::deserialize(&self.spec).map_err(|error| format!("spec: {error}"))
    }
}
