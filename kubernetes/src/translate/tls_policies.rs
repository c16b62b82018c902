//! BackendTLSPolicies: which services are asked over TLS, who they must be and who vouches for them. A service whose
//! policy is not understood is not asked at all: cleartext is not what was meant.

use std::collections::{BTreeMap, BTreeSet};

use quorumgate_proto::admin::v1 as admin;
use serde_json::json;

use super::{Origin, Refusals, by_age, mentions_us, meta, no, resource};
use crate::{
    GROUP,
    api::{
        Id, Kind, Object,
        core::ConfigMap,
        gateway::{TargetRef, TlsPolicySpec},
    },
    conditions::{ACCEPTED, Condition, Party, RESOLVED_REFS, Status, Told},
    names,
    snapshot::Snapshot,
};

/// Gateways that one policy names in its status; the Gateway API allows no more.
const ANCESTORS_MAX: usize = 16;

pub struct TlsPolicies {
    /// By service and, where the policy says it, the name of a port.
    targets: BTreeMap<(Id, Option<String>), Id>,
    policies: BTreeMap<Id, Policy>,
}

struct Policy {
    generation: i64,
    outcome: Result<Asks, Wrong>,
    /// It has something of ours in its status.
    was_told: bool,
    gateways: BTreeSet<Id>,
}

struct Asks {
    hostname: String,
    authority: Option<(Id, String)>,
}

/// Which condition fails, and why.
#[derive(Clone)]
struct Wrong {
    accepted: Condition,
    resolved: Option<Condition>,
}

impl TlsPolicies {
    pub fn of(snapshot: &Snapshot, refused: &Refusals) -> Self {
        let mut it = Self { targets: BTreeMap::new(), policies: BTreeMap::new() };
        for (id, object) in by_age(snapshot.of(Kind::BackendTlsPolicy)) {
            let outcome = it.read(id, object, snapshot, refused);
            let was_told = mentions_us(&object.status, "ancestors");
            let generation = object.metadata.generation;
            it.policies.insert(id.clone(), Policy { generation, outcome, was_told, gateways: BTreeSet::new() });
        }
        it
    }

    fn read(&mut self, id: &Id, object: &Object, snapshot: &Snapshot, refused: &Refusals) -> Result<Asks, Wrong> {
        let spec: Result<TlsPolicySpec, String> = object.spec();
        let targets = match &spec {
            Ok(spec) => spec.target_refs.clone(),
            // Whom it is for must be known all the same: they are not to be asked in cleartext.
            Err(_) => serde_json::from_value(object.spec["targetRefs"].clone()).unwrap_or_default(),
        };
        let mut taken = None;
        for target in targets.iter().filter(|it| is_service(it)) {
            let key = (Id::new(&id.namespace, &target.name), target.section_name.clone());
            match self.targets.get(&key) {
                Some(older) => taken = Some(format!("BackendTLSPolicy {older} is older and has Service {} too", key.0)),
                None => drop(self.targets.insert(key, id.clone())),
            }
        }
        let spec = spec.map_err(|why| Wrong::words(&why))?;
        if let Some(why) = taken {
            return Err(Wrong { accepted: no(ACCEPTED, "Conflicted", why), resolved: None });
        }
        if let Some(target) = targets.iter().find(|it| !is_service(it)) {
            let why = format!("spec.targetRefs: found {:?} {}; allowed: Services", target.kind, target.name);
            return Err(Wrong { accepted: no(ACCEPTED, "TargetNotFound", why), resolved: None });
        }
        if !spec.validation.subject_alt_names.is_empty() {
            return Err(Wrong::words("spec.validation.subjectAltNames: the hostname alone is compared"));
        }
        if !spec.options.is_empty() {
            return Err(Wrong::words("spec.options: none are known"));
        }
        let hostname = spec.validation.hostname.clone();
        match (spec.validation.ca_certificate_refs.as_slice(), spec.validation.well_known_ca_certificates.as_deref()) {
            ([], Some("System")) => Ok(Asks { hostname, authority: None }),
            ([], Some(other)) => {
                Err(Wrong::words(&format!("spec.validation.wellKnownCACertificates: found {other:?}; allowed: System")))
            }
            ([], None) => Err(Wrong::words("spec.validation: one of caCertificateRefs and wellKnownCACertificates")),
            ([reference], None | Some("")) => {
                let kind = reference.kind.as_deref().unwrap_or("ConfigMap");
                if (reference.group.as_deref().unwrap_or_default(), kind) != ("", "ConfigMap") {
                    let why = format!("spec.validation.caCertificateRefs[0]: found {kind}; allowed: a ConfigMap");
                    return Err(Wrong::authority("InvalidKind", &why));
                }
                let map = Id::new(&id.namespace, &reference.name);
                let invalid = |why: &str| Wrong::authority("InvalidCACertificateRef", why);
                let found = snapshot.config_maps.get(&map);
                let pem = found
                    .and_then(|it| it.data.get(ConfigMap::CA))
                    .ok_or_else(|| invalid(&format!("ConfigMap {map} does not exist, or has no {}", ConfigMap::CA)))?;
                if let Some(why) = refused.get(&Origin::ConfigMap(map.clone())) {
                    return Err(invalid(&format!("ConfigMap {map}: {why}")));
                }
                Ok(Asks { hostname, authority: Some((map, pem.clone())) })
            }
            _ => Err(Wrong::words("spec.validation: allowed: one of caCertificateRefs, or wellKnownCACertificates")),
        }
    }

    /// How a port of a service is asked; None: in cleartext. `gateways`: those that do.
    pub fn find(
        &mut self,
        service: &Id,
        port: &str,
        gateways: &BTreeSet<Id>,
    ) -> Result<Option<admin::UpstreamTls>, String> {
        let named = self.targets.get(&(service.clone(), Some(port.to_owned())));
        let Some(id) = named.or_else(|| self.targets.get(&(service.clone(), None))) else { return Ok(None) };
        let policy = self.policies.get_mut(id).expect("each that has targets is read");
        policy.gateways.extend(gateways.iter().cloned());
        match &policy.outcome {
            Ok(asks) => Ok(Some(admin::UpstreamTls {
                server_name: asks.hostname.clone(),
                ca: asks.authority.as_ref().map(|(map, _)| names::authority(map)).unwrap_or_default(),
                ..admin::UpstreamTls::default()
            })),
            Err(wrong) => Err(format!("BackendTLSPolicy {id} is not valid: {}", wrong.accepted.message)),
        }
    }

    /// Those that some service is asked by.
    pub fn authorities(&self) -> Vec<(Origin, admin::Resource)> {
        let used = self.policies.values().filter(|it| !it.gateways.is_empty());
        let authorities: BTreeMap<&Id, &String> =
            used.filter_map(|it| it.outcome.as_ref().ok()?.authority.as_ref()).map(|(map, pem)| (map, pem)).collect();
        let object = |(map, pem): (&Id, &String)| {
            let authority = admin::CertificateAuthority {
                name: names::authority(map),
                meta: meta(format!("ConfigMap {map}")),
                pem: pem.clone(),
                ..admin::CertificateAuthority::default()
            };
            let kind = admin::resource::Kind::CertificateAuthority(authority);
            (Origin::ConfigMap(map.clone()), resource(kind))
        };
        authorities.into_iter().map(object).collect()
    }

    pub fn told(self) -> Vec<Told> {
        let policies = self.policies.into_iter().filter(|(_, it)| it.was_told || !it.gateways.is_empty());
        let told = |(id, policy): (Id, Policy)| {
            let conditions = match policy.outcome {
                Ok(_) => {
                    vec![Condition::yes(ACCEPTED, "Accepted", ""), Condition::yes(RESOLVED_REFS, RESOLVED_REFS, "")]
                }
                Err(wrong) => [Some(wrong.accepted), wrong.resolved].into_iter().flatten().collect(),
            };
            let party = |gateway: &Id| Party {
                reference: json!({
                    "group": GROUP, "kind": Kind::Gateway.word(), "namespace": gateway.namespace, "name": gateway.name,
                }),
                conditions: conditions.clone(),
            };
            let status = Status::Ancestors(policy.gateways.iter().take(ANCESTORS_MAX).map(party).collect());
            Told { kind: Kind::BackendTlsPolicy, id, generation: policy.generation, status }
        };
        policies.map(told).collect()
    }
}

impl Wrong {
    fn words(why: &str) -> Self {
        Self { accepted: no(ACCEPTED, "Invalid", why), resolved: None }
    }

    fn authority(reason: &'static str, why: &str) -> Self {
        Self { accepted: no(ACCEPTED, "NoValidCACertificate", why), resolved: Some(no(RESOLVED_REFS, reason, why)) }
    }
}

fn is_service(target: &TargetRef) -> bool {
    (target.group.as_str(), target.kind.as_str()) == ("", Kind::Service.word())
}
