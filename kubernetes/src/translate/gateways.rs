//! GatewayClasses and Gateways: each port that some listener of a Gateway asks for is one listener of ours, with the
//! certificates of all.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use data_encoding::BASE64;
use quorumgate_proto::admin::v1 as admin;
use serde_json::{Value, json};

use super::{Origin, Refusals, Settings, age, by_age, grants::Grants, meta, no, resource};
use crate::{
    CONTROLLER, GROUP,
    api::{
        Id, Kind, Object,
        core::Secret,
        gateway::{AllowedRoutes, Belongs, ClassSpec, GatewaySpec, Listener, ListenerTls, ObjectRef},
    },
    conditions::{ACCEPTED, CONFLICTED, Condition, ListenerStatus, PROGRAMMED, RESOLVED_REFS, Status, Told},
    names,
    snapshot::Snapshot,
};

/// The Gateways that are ours.
pub struct Gateways {
    pub all: BTreeMap<Id, Gateway>,
    told: Vec<Told>,
    ports: BTreeMap<u16, Port>,
}

pub struct Gateway {
    generation: i64,
    /// Why it is not accepted at all: reason and message.
    invalid: Option<(&'static str, String)>,
    pub listeners: Vec<Open>,
}

/// A listener of a Gateway.
pub struct Open {
    pub name: String,
    pub port: u16,
    pub hostname: Option<String>,
    pub allowed: AllowedRoutes,
    pub kinds: Vec<Kind>,
    pub attached: usize,
    protocol: Option<Protocol>,
    accepted: Condition,
    conflicted: Condition,
    resolved: Condition,
    /// It goes down with the port's listener.
    port_refused: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http,
    Https,
}

struct Port {
    protocol: Protocol,
    node_port: u16,
    /// By secret, and whether it is for names that no other has: the names.
    certificates: BTreeMap<(Id, bool), BTreeSet<String>>,
    /// Some listener of it can be programmed.
    is_used: bool,
}

const NO_CONFLICTS: &str = "NoConflicts";

impl Gateways {
    pub fn of(snapshot: &Snapshot, settings: &Settings, grants: &Grants, refused: &Refusals) -> Self {
        let mut it = Self { all: BTreeMap::new(), told: Vec::new(), ports: BTreeMap::new() };
        let mut classes = BTreeSet::new();
        for (id, object) in snapshot.of(Kind::GatewayClass) {
            if belongs(object).controller_name != CONTROLLER {
                continue;
            }
            let condition = class(object);
            if condition.holds {
                classes.insert(id.name.clone());
            }
            let status = Status::Class(vec![condition.at_once()]);
            let generation = object.metadata.generation;
            it.told.push(Told { kind: Kind::GatewayClass, id: id.clone(), generation, status });
        }
        let ours = |object: &&std::sync::Arc<Object>| classes.contains(&belongs(object).gateway_class_name);
        let gateways = snapshot.of(Kind::Gateway).filter(|(_, object)| ours(object));
        for (id, object) in by_age(gateways) {
            let gateway = it.gateway(id, object, settings, refused);
            it.all.insert(id.clone(), gateway);
        }
        it.read_certificates(snapshot, grants, refused);
        it
    }

    fn gateway(&mut self, id: &Id, object: &Object, settings: &Settings, refused: &Refusals) -> Gateway {
        let generation = object.metadata.generation;
        let invalid = |reason, why: String| Gateway { generation, invalid: Some((reason, why)), listeners: Vec::new() };
        let spec: GatewaySpec = match object.spec() {
            Ok(spec) => spec,
            Err(why) => return invalid("Invalid", why),
        };
        if !spec.addresses.is_empty() {
            let why = "spec.addresses: Gateways have the addresses of the service in front of the nodes".to_owned();
            return invalid("UnsupportedAddress", why);
        }
        let mut listeners: Vec<Open> = spec.listeners.iter().map(Open::new).collect();
        conflicts(&mut listeners);
        for open in &mut listeners {
            let Some(protocol) = open.protocol.filter(|_| open.accepted.holds && !open.conflicted.holds) else {
                continue;
            };
            if let Err(why) = self.take_port(open.port, protocol, settings) {
                open.accepted = no(ACCEPTED, "PortUnavailable", format!("port {}: {why}", open.port));
            }
            open.port_refused = refused.get(&Origin::Port(open.port)).cloned();
        }
        tracing::trace!(gateway = %id, age = age(object), listeners = listeners.len(), "a Gateway of ours");
        Gateway { generation, invalid: None, listeners }
    }

    fn take_port(&mut self, port: u16, protocol: Protocol, settings: &Settings) -> Result<(), String> {
        let node_port = settings.ports.get(&port).copied().unwrap_or(port);
        if let Some(known) = self.ports.get(&port) {
            return match known.protocol == protocol {
                true => Ok(()),
                false => Err("an older Gateway has it with the other of HTTP and HTTPS".into()),
            };
        }
        if let Some((other, _)) = self.ports.iter().find(|(_, it)| it.node_port == node_port) {
            return Err(format!("the nodes open {node_port} for port {other} already"));
        }
        self.ports.insert(port, Port { protocol, node_port, certificates: BTreeMap::new(), is_used: false });
        Ok(())
    }

    fn read_certificates(&mut self, snapshot: &Snapshot, grants: &Grants, refused: &Refusals) {
        for (id, gateway) in &mut self.all {
            let Some(object) = snapshot.get(Kind::Gateway, id) else { continue };
            let Ok(spec) = object.spec::<GatewaySpec>() else { continue };
            for (open, words) in gateway.listeners.iter_mut().zip(&spec.listeners) {
                let Some(port) = self.ports.get_mut(&open.port).filter(|_| open.is_accepted()) else { continue };
                if open.protocol == Some(Protocol::Https) {
                    match certificate(&id.namespace, words.tls.as_ref(), snapshot, grants, refused) {
                        Ok(secret) => {
                            let hosts = port.certificates.entry((secret, open.hostname.is_none())).or_default();
                            hosts.extend(open.hostname.clone());
                        }
                        Err((reason, why)) => open.resolved = no(RESOLVED_REFS, reason, why),
                    }
                }
                port.is_used |= open.is_usable();
            }
        }
    }

    /// Our listeners and certificates, and what is said of classes and Gateways.
    pub fn finish(self, snapshot: &Snapshot, settings: &Settings) -> (Vec<(Origin, admin::Resource)>, Vec<Told>) {
        use admin::resource::Kind as Ours;
        let mut objects = Vec::new();
        for (number, port) in self.ports.iter().filter(|(_, port)| port.is_used) {
            let mut certificates = Vec::new();
            for ((secret, is_default), hosts) in &port.certificates {
                let Some(found) = snapshot.secrets.get(secret) else { continue };
                let name = names::certificate(*number, secret, *is_default);
                let certificate = admin::Certificate {
                    name: name.clone(),
                    meta: meta(format!("Secret {secret}")),
                    hosts: hosts.iter().cloned().collect(),
                    chain: decoded(found, "tls.crt").unwrap_or_default(),
                    key: decoded(found, "tls.key")
                        .ok()
                        .map(|plain| admin::Secret { plain, ..admin::Secret::default() }),
                    ..admin::Certificate::default()
                };
                objects.push((Origin::Secret(secret.clone()), resource(Ours::Certificate(certificate))));
                certificates.push(name);
            }
            let listener = admin::Listener {
                name: names::listener(*number),
                meta: meta(format!("port {number} of Gateways")),
                address: std::net::SocketAddr::new(settings.bind, port.node_port).to_string(),
                protocol: if port.protocol == Protocol::Https { "https" } else { "http" }.to_owned(),
                certificates,
                ..admin::Listener::default()
            };
            objects.push((Origin::Port(*number), resource(Ours::Listener(listener))));
        }
        let addresses = settings.service.as_ref().map(|id| addresses(snapshot, id)).unwrap_or_default();
        let mut told = self.told;
        for (id, gateway) in self.all {
            let generation = gateway.generation;
            let status = gateway.status(snapshot.get(Kind::Gateway, &id), &addresses);
            told.push(Told { kind: Kind::Gateway, id, generation, status });
        }
        (objects, told)
    }
}

impl Open {
    fn new(words: &Listener) -> Self {
        let hostname = words.hostname.clone().filter(|it| !it.is_empty()).map(|it| it.to_ascii_lowercase());
        let mut it = Self {
            name: words.name.clone(),
            port: words.port,
            hostname,
            allowed: words.allowed_routes.clone().unwrap_or_default(),
            kinds: vec![Kind::HttpRoute, Kind::GrpcRoute],
            attached: 0,
            protocol: match words.protocol.as_str() {
                "HTTP" => Some(Protocol::Http),
                "HTTPS" => Some(Protocol::Https),
                _ => None,
            },
            accepted: Condition::yes(ACCEPTED, "Accepted", ""),
            conflicted: Condition { holds: false, ..Condition::no(CONFLICTED, NO_CONFLICTS, "") },
            resolved: Condition::yes(RESOLVED_REFS, RESOLVED_REFS, ""),
            port_refused: None,
        };
        let refuse = |reason, why: String| no(ACCEPTED, reason, why);
        match it.protocol {
            None => {
                it.kinds.clear();
                let why = format!("protocol: found {:?}; allowed: HTTP, HTTPS", words.protocol);
                it.accepted = refuse("UnsupportedProtocol", why);
            }
            Some(Protocol::Http) if words.tls.is_some() => {
                it.accepted = refuse("UnsupportedValue", "tls: only with protocol HTTPS".into());
            }
            Some(_) if words.port == 0 => it.accepted = refuse("PortUnavailable", "port: allowed: 1 to 65535".into()),
            Some(_) => {}
        }
        if let Some(tls) = &words.tls {
            if tls.mode.as_deref().unwrap_or("Terminate") != "Terminate" {
                it.accepted = refuse("UnsupportedValue", "tls.mode: allowed: Terminate".into());
            } else if !tls.options.is_empty() {
                it.accepted = refuse("UnsupportedValue", "tls.options: none are known".into());
            }
        }
        it.read_kinds();
        it
    }

    /// What `allowedRoutes.kinds` leaves of the kinds that are supported.
    fn read_kinds(&mut self) {
        if self.allowed.kinds.is_empty() || self.kinds.is_empty() {
            return;
        }
        let supported = |kind: &&Kind| {
            let named = |it: &crate::api::gateway::RouteKind| {
                it.kind == kind.word() && it.group.as_deref().unwrap_or(GROUP) == GROUP
            };
            self.allowed.kinds.iter().any(named)
        };
        let kept: Vec<Kind> = self.kinds.iter().filter(supported).copied().collect();
        if kept.len() < self.allowed.kinds.len() {
            let why = "allowedRoutes.kinds: allowed: HTTPRoute and GRPCRoute, each once";
            self.resolved = no(RESOLVED_REFS, "InvalidRouteKinds", why);
        }
        self.kinds = kept;
    }

    fn is_accepted(&self) -> bool {
        self.accepted.holds && !self.conflicted.holds
    }

    /// Whether what is attached to it is served.
    pub fn is_usable(&self) -> bool {
        let is_open = self.protocol != Some(Protocol::Https) || self.resolved.reason != "InvalidCertificateRef";
        let may_refer = self.resolved.reason != "RefNotPermitted";
        self.is_accepted() && is_open && may_refer && self.port_refused.is_none()
    }

    fn status(self) -> ListenerStatus {
        let programmed = match (self.is_usable(), self.port_refused) {
            (true, _) => Condition::yes(PROGRAMMED, PROGRAMMED, ""),
            (false, Some(why)) => no(PROGRAMMED, "Invalid", why),
            (false, None) => no(PROGRAMMED, "Invalid", "see the other conditions"),
        };
        ListenerStatus {
            name: self.name,
            kinds: self.kinds,
            attached: self.attached,
            conditions: vec![self.accepted, self.conflicted, self.resolved, programmed],
        }
    }
}

impl Gateway {
    /// Why routes find no listener here that serves them.
    pub fn is_invalid(&self) -> bool {
        self.invalid.is_some()
    }

    fn status(self, object: Option<&std::sync::Arc<Object>>, addresses: &[Value]) -> Status {
        if let Some((reason, why)) = self.invalid {
            let listener = |name: String| ListenerStatus {
                name,
                kinds: Vec::new(),
                attached: 0,
                conditions: vec![
                    no(ACCEPTED, "Pending", "the Gateway is not accepted"),
                    no(PROGRAMMED, "Invalid", "the Gateway is not accepted"),
                ],
            };
            let names = object.map(|it| belongs(it).listeners).unwrap_or_default();
            return Status::Gateway {
                conditions: vec![no(ACCEPTED, reason, &why), no(PROGRAMMED, "Invalid", &why)],
                listeners: names.into_iter().map(|it| listener(it.name)).collect(),
                addresses: Vec::new(),
            };
        }
        let bad: Vec<&str> = self.listeners.iter().filter(|it| !it.is_usable()).map(|it| it.name.as_str()).collect();
        let why = format!("not valid: {}", bad.join(", "));
        let conditions = match (bad.len(), self.listeners.len()) {
            (0, _) => vec![Condition::yes(ACCEPTED, "Accepted", ""), Condition::yes(PROGRAMMED, PROGRAMMED, "")],
            (bad, all) if bad == all => {
                vec![no(ACCEPTED, "ListenersNotValid", &why), no(PROGRAMMED, "Invalid", &why)]
            }
            _ => vec![
                Condition::yes(ACCEPTED, "ListenersNotValid", why.clone()),
                Condition::yes(PROGRAMMED, PROGRAMMED, why),
            ],
        };
        let listeners = self.listeners.into_iter().map(Open::status).collect();
        Status::Gateway { conditions, listeners, addresses: addresses.to_vec() }
    }
}

/// What can be read of a spec that may not be understood as a whole.
pub fn belongs(object: &Object) -> Belongs {
    object.spec().unwrap_or_default()
}

fn class(object: &Object) -> Condition {
    match object.spec::<ClassSpec>() {
        Err(why) => no(ACCEPTED, "InvalidParameters", why),
        Ok(spec) if spec.parameters_ref.is_some() => {
            no(ACCEPTED, "InvalidParameters", "spec.parametersRef: there are no parameters")
        }
        Ok(_) => Condition::yes(ACCEPTED, "Accepted", ""),
    }
}

/// Within one Gateway: a port has one protocol, and each hostname of it once.
fn conflicts(listeners: &mut [Open]) {
    let mut protocols: HashMap<u16, BTreeSet<bool>> = HashMap::new();
    let mut hosts: HashMap<(u16, Option<String>), usize> = HashMap::new();
    for open in listeners.iter().filter(|it| it.accepted.holds) {
        protocols.entry(open.port).or_default().insert(open.protocol == Some(Protocol::Https));
        *hosts.entry((open.port, open.hostname.clone())).or_default() += 1;
    }
    for open in listeners.iter_mut().filter(|it| it.accepted.holds) {
        let (reason, why) = match hosts.get(&(open.port, open.hostname.clone())) {
            _ if protocols[&open.port].len() > 1 => {
                ("ProtocolConflict", "another listener has the port for another protocol")
            }
            Some(2..) => ("HostnameConflict", "another listener has the port and the hostname"),
            _ => continue,
        };
        open.conflicted = Condition { holds: true, ..no(CONFLICTED, reason, why) };
        open.accepted = no(ACCEPTED, reason, why);
    }
}

/// The secret that a listener shows, or the reason and why there is none.
fn certificate(
    namespace: &str,
    tls: Option<&ListenerTls>,
    snapshot: &Snapshot,
    grants: &Grants,
    refused: &Refusals,
) -> Result<Id, (&'static str, String)> {
    let wrong = |why: String| Err(("InvalidCertificateRef", why));
    let [reference] = tls.map(|it| it.certificate_refs.as_slice()).unwrap_or_default() else {
        return wrong("tls.certificateRefs: allowed: exactly one".into());
    };
    let ObjectRef { group, kind, name, namespace: other } = reference;
    if (group.as_deref().unwrap_or_default(), kind.as_deref().unwrap_or("Secret")) != ("", "Secret") {
        return wrong("tls.certificateRefs[0]: allowed: a Secret".into());
    }
    let id = Id::new(other.as_deref().unwrap_or(namespace), name);
    if !grants.allow(Kind::Gateway, namespace, Kind::Secret, &id) {
        let why = format!("no ReferenceGrant in {} lets Gateways of {namespace} refer to Secret {id}", id.namespace);
        return Err(("RefNotPermitted", why));
    }
    let Some(secret) = snapshot.secrets.get(&id) else {
        return wrong(format!("Secret {id} of type {} does not exist", Secret::TYPE));
    };
    for word in ["tls.crt", "tls.key"] {
        if let Err(why) = decoded(secret, word) {
            return wrong(format!("Secret {id}: {why}"));
        }
    }
    match refused.get(&Origin::Secret(id.clone())) {
        Some(why) => wrong(format!("Secret {id}: {why}")),
        None => Ok(id),
    }
}

fn decoded(secret: &Secret, word: &str) -> Result<String, String> {
    let text = secret.data.get(word).ok_or_else(|| format!("it has no {word}"))?;
    let bytes = BASE64.decode(text.as_bytes()).map_err(|_| format!("{word} is not base64"))?;
    String::from_utf8(bytes).map_err(|_| format!("{word} is not PEM"))
}

fn addresses(snapshot: &Snapshot, service: &Id) -> Vec<Value> {
    let Some(service) = snapshot.services.get(service) else { return Vec::new() };
    let ip = |value: &str| json!({ "type": "IPAddress", "value": value });
    let ingress = service.status.load_balancer.ingress.iter();
    let told: Vec<Value> = ingress
        .filter_map(|it| match (it.ip.as_str(), it.hostname.as_str()) {
            ("", "") => None,
            ("", name) => Some(json!({ "type": "Hostname", "value": name })),
            (address, _) => Some(ip(address)),
        })
        .collect();
    match (told.is_empty(), service.spec.cluster_ip.as_str()) {
        (true, "" | "None") => Vec::new(),
        (true, address) => vec![ip(address)],
        (false, _) => told,
    }
}
