//! Services and where they run: upstreams, made for the routes that ask for them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use quorumgate_model::resource::check::LIST_MAX;
use quorumgate_proto::admin::v1 as admin;

use super::{Origin, Refusals, grants::Grants, meta, resource, tls_policies::TlsPolicies};
use crate::{
    api::{
        Id, Kind,
        core::{EndpointSlice, ServicePort},
        route::BackendRef,
    },
    conditions::{Condition, RESOLVED_REFS},
    names,
    snapshot::Snapshot,
};

/// As long as any time-out may be: what the route says counts.
const PATIENCE: prost_types::Duration = prost_types::Duration { seconds: 24 * 3600, nanos: 0 };

pub struct Backends<'s> {
    snapshot: &'s Snapshot,
    grants: &'s Grants,
    refused: &'s Refusals,
    slices: HashMap<Id, Vec<&'s EndpointSlice>>,
    made: BTreeMap<String, (Origin, admin::Upstream)>,
}

/// How a rule asks its backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    pub is_grpc: bool,
    /// The rule has time-outs of its own, so the upstream's are not to be met before them.
    pub is_patient: bool,
}

/// What a reference leads to.
pub enum Backend {
    Upstream(String),
    /// The service is there, and none of its endpoints is ready.
    Nobody,
}

impl<'s> Backends<'s> {
    pub fn new(snapshot: &'s Snapshot, grants: &'s Grants, refused: &'s Refusals) -> Self {
        Self { snapshot, grants, refused, slices: snapshot.slices_by_service(), made: BTreeMap::new() }
    }

    /// `gateways`: those by which the route is asked.
    pub fn resolve(
        &mut self,
        (kind, route): (Kind, &Id),
        reference: &BackendRef,
        manner: Manner,
        policies: &mut TlsPolicies,
        gateways: &BTreeSet<Id>,
    ) -> Result<Backend, Condition> {
        let refuse = |reason: &'static str, why: String| Err(super::no(RESOLVED_REFS, reason, why));
        let named = (reference.group.as_deref().unwrap_or_default(), reference.kind.as_deref().unwrap_or("Service"));
        if named != ("", Kind::Service.word()) {
            return refuse("InvalidKind", format!("backend {} is a {}; allowed: a Service", reference.name, named.1));
        }
        let id = Id::new(reference.namespace.as_deref().unwrap_or(&route.namespace), &reference.name);
        if !self.grants.allow(kind, &route.namespace, Kind::Service, &id) {
            let why = format!(
                "no ReferenceGrant in {} lets {kind}s of {} refer to Service {id}",
                id.namespace, route.namespace
            );
            return refuse("RefNotPermitted", why);
        }
        let Some(service) = self.snapshot.services.get(&id) else {
            return refuse("BackendNotFound", format!("Service {id} does not exist"));
        };
        let Some(port) = service.spec.ports.iter().find(|it| Some(it.port) == reference.port) else {
            let asked = reference.port.map_or("no port".to_owned(), |port| format!("port {port}"));
            return refuse("BackendNotFound", format!("Service {id} is asked for {asked}, which it does not have"));
        };
        if service.spec.kind == "ExternalName" {
            let why = format!("Service {id} is of type ExternalName, which could name any host");
            return refuse("UnsupportedValue", why);
        }
        let Some(protocol) = protocol(port, manner) else {
            let found = port.app_protocol.as_deref().unwrap_or(&port.protocol);
            return refuse("UnsupportedProtocol", format!("port {} of Service {id} speaks {found:?}", port.port));
        };
        if let Some(why) = self.refused.get(&Origin::Service(id.clone())) {
            return refuse("Refused", format!("Service {id}: {why}"));
        }
        let tls = match policies.find(&id, &port.name, gateways) {
            Ok(tls) => tls,
            Err(why) => return refuse("InvalidBackendTLSPolicy", why),
        };
        let variant = match (protocol, manner.is_patient) {
            ("grpc", true) => ".grpc.patient",
            ("grpc", false) => ".grpc",
            (_, true) => ".patient",
            (_, false) => "",
        };
        let name = names::upstream(&id, port.port, variant);
        if !self.made.contains_key(&name) {
            let targets = self.targets(&id, port);
            if targets.is_empty() {
                return Ok(Backend::Nobody);
            }
            let upstream = admin::Upstream {
                name: name.clone(),
                meta: meta(format!("Service {id}, port {}", port.port)),
                targets,
                protocol: protocol.to_owned(),
                timeouts: manner.is_patient.then(|| admin::UpstreamTimeouts {
                    response_header: Some(PATIENCE),
                    idle: Some(PATIENCE),
                    ..admin::UpstreamTimeouts::default()
                }),
                tls,
                ..admin::Upstream::default()
            };
            self.made.insert(name.clone(), (Origin::Service(id), upstream));
        }
        Ok(Backend::Upstream(name))
    }

    /// The upstream that stands for backends that cannot be asked.
    pub fn nowhere(&mut self) -> String {
        let upstream = admin::Upstream {
            name: names::NOWHERE.to_owned(),
            meta: meta("backends that cannot be asked".to_owned()),
            targets: vec![admin::Target { address: "[100::]:1".to_owned(), ..admin::Target::default() }],
            retries: Some(admin::Retries { attempts: Some(0), ..admin::Retries::default() }),
            timeouts: Some(admin::UpstreamTimeouts {
                connect: Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 }),
                ..admin::UpstreamTimeouts::default()
            }),
            ..admin::Upstream::default()
        };
        self.made.insert(names::NOWHERE.to_owned(), (Origin::Nowhere, upstream));
        names::NOWHERE.to_owned()
    }

    pub fn finish(self) -> impl Iterator<Item = (Origin, admin::Resource)> {
        self.made.into_values().map(|(origin, upstream)| (origin, resource(admin::resource::Kind::Upstream(upstream))))
    }

    /// Those that are ready, in order; at most as many as an upstream may have.
    fn targets(&self, id: &Id, port: &ServicePort) -> Vec<admin::Target> {
        let mut addresses = BTreeSet::new();
        for slice in self.slices.get(id).into_iter().flatten() {
            let has_it = |it: &&crate::api::core::EndpointPort| it.name.as_deref().unwrap_or_default() == port.name;
            let Some(number) = slice.ports.iter().find(has_it).and_then(|it| it.port) else { continue };
            let ready = slice.endpoints.iter().filter(|it| it.conditions.ready.unwrap_or(true));
            for endpoint in ready {
                // All addresses of one endpoint are the same; clients take the first.
                let Some(address) = endpoint.addresses.first() else { continue };
                match slice.address_type.as_str() {
                    "IPv4" => drop(addresses.insert(format!("{address}:{number}"))),
                    "IPv6" => drop(addresses.insert(format!("[{address}]:{number}"))),
                    _ => {}
                }
            }
        }
        if addresses.len() > LIST_MAX {
            let endpoints = addresses.len();
            tracing::warn!(service = %id, endpoints, allowed = LIST_MAX, "more endpoints than an upstream has targets");
        }
        let target = |address| admin::Target { address, ..admin::Target::default() };
        addresses.into_iter().take(LIST_MAX).map(target).collect()
    }
}

/// None: it is not spoken.
fn protocol(port: &ServicePort, manner: Manner) -> Option<&'static str> {
    if !matches!(port.protocol.as_str(), "" | "TCP") {
        return None;
    }
    match port.app_protocol.as_deref().unwrap_or("http") {
        _ if manner.is_grpc => Some("grpc"),
        "http" | "kubernetes.io/ws" => Some("http1"),
        "kubernetes.io/h2c" => Some("http2"),
        "grpc" => Some("grpc"),
        _ => None,
    }
}
