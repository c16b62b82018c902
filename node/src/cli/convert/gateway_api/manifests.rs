//! The manifests of files as one snapshot: what is in them, made whole where a cluster would have more.

use std::collections::{BTreeMap, BTreeSet};

use quorumgate_kubernetes::{
    CONTROLLER, GROUP,
    api::{Id, Kind},
    snapshot::Snapshot,
};
use serde_json::{Value as Json, json};

use crate::cli::{
    convert::{effects::CLOSED, reader::Item},
    failure::{Failure, Outcome},
};

/// The class of all Gateways, whatever theirs is.
const CLASS: &str = "converted";
const NAMESPACE: &str = "default";
/// Kinds that are no part of a gateway. All others may keep somebody out.
const HARMLESS_KINDS: [&str; 34] = [
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "ReplicaSet",
    "Pod",
    "Job",
    "CronJob",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "StorageClass",
    "CustomResourceDefinition",
    "PriorityClass",
    "LimitRange",
    "ResourceQuota",
    "Endpoints",
    "NetworkPolicy",
    "TCPRoute",
    "TLSRoute",
    "UDPRoute",
    "Certificate",
    "Issuer",
    "ClusterIssuer",
    "ServiceMonitor",
    "PodMonitor",
    "PrometheusRule",
    "BackendLBPolicy",
    "HealthCheckPolicy",
];
/// How names of annotations begin that keep nobody out. All others may.
const HARMLESS_ANNOTATIONS: [&str; 15] = [
    "kubectl.kubernetes.io/",
    "deployment.kubernetes.io/",
    "app.kubernetes.io/",
    "meta.helm.sh/",
    "helm.sh/",
    "argocd.argoproj.io/",
    "kustomize.toolkit.fluxcd.io/",
    "cert-manager.io/",
    "external-dns.alpha.kubernetes.io/",
    "prometheus.io/",
    "service.beta.kubernetes.io/",
    "service.kubernetes.io/",
    "cloud.google.com/",
    "endpoints.kubernetes.io/",
    "description",
];
/// Parts of those that say all the same who may come.
const WHO_MAY_COME: [&str; 9] = [
    "source-ranges",
    "allowed-ip-ranges",
    "allowed-service-tags",
    "security-groups",
    "allow-rules",
    "deny-rules",
    "firewall",
    "-acl-",
    "backend-config",
];
/// Fields of routes, rules and Gateways that we do not have and that keep nobody out. All others may.
const HARMLESS_FIELDS: [&str; 6] =
    ["retry", "sessionPersistence", "useDefaultGateways", "infrastructure", "allowedListeners", "defaultScope"];
const RULE_FIELDS: [&str; 5] = ["name", "matches", "filters", "backendRefs", "timeouts"];
const ROUTE_FIELDS: [&str; 3] = ["parentRefs", "hostnames", "rules"];
const GATEWAY_FIELDS: [&str; 3] = ["gatewayClassName", "listeners", "addresses"];
const HARMLESS_FILTERS: [&str; 2] = ["RequestHeaderModifier", "ResponseHeaderModifier"];

pub struct Manifests<'d> {
    /// All but the routes.
    pub snapshot: Snapshot,
    pub routes: BTreeMap<(Kind, Id), Json>,
    /// What is not in the files.
    pub made_up: BTreeSet<(Kind, Id)>,
    items: BTreeMap<(Kind, Id), Item<'d>>,
    first: Item<'d>,
    /// Routes that something not understood is about.
    closed: BTreeSet<(Kind, Id)>,
    /// Something not understood may be about any of them.
    is_all_closed: bool,
}

impl<'d> Manifests<'d> {
    pub fn read(documents: &[Item<'d>]) -> Outcome<Self> {
        let Some(first) = documents.first().cloned() else {
            return Err(Failure::usage("found nothing in the files; allowed: manifests of the Gateway API"));
        };
        let mut it = Self {
            snapshot: Snapshot::default(),
            routes: BTreeMap::new(),
            made_up: BTreeSet::new(),
            items: BTreeMap::new(),
            first,
            closed: BTreeSet::new(),
            is_all_closed: false,
        };
        for document in documents {
            it.document(document)?;
        }
        if it.routes.is_empty() {
            return Err(Failure::usage("found no HTTPRoute and no GRPCRoute; allowed: manifests of the Gateway API"));
        }
        let class = json!({ "metadata": { "name": CLASS }, "spec": { "controllerName": CONTROLLER } });
        it.put(Kind::GatewayClass, class)?;
        it.complete()?;
        Ok(it)
    }

    pub fn item(&self, kind: Kind, id: &Id) -> Item<'d> {
        self.items.get(&(kind, id.clone())).unwrap_or(&self.first).clone()
    }

    /// For what is of no object.
    pub fn anything(&self) -> Item<'d> {
        self.first.clone()
    }

    pub fn is_closed(&self, kind: Kind, id: &Id) -> bool {
        self.is_all_closed || self.closed.contains(&(kind, id.clone()))
    }

    pub fn rules_of(&self, kind: Kind, id: &Id) -> usize {
        let rules = self.routes.get(&(kind, id.clone())).and_then(|it| it.pointer("/spec/rules")?.as_array());
        rules.map_or(0, Vec::len)
    }

    fn put(&mut self, kind: Kind, object: Json) -> Outcome {
        self.snapshot.put(kind, object).map_err(|why| self.first.wrong(&format!("a {kind} ({why})")))
    }

    fn document(&mut self, it: &Item<'d>) -> Outcome {
        let Some(word) = it.text("kind")? else { return Err(it.wrong("a manifest with a kind")) };
        if word.ends_with("List") && it.get("items").is_some() {
            it.skip_fields(&["apiVersion", "metadata"]);
            return it.list("items")?.iter().try_for_each(|item| self.document(item));
        }
        let version = it.text("apiVersion")?.unwrap_or_default();
        let meta = it.map("metadata")?;
        let text = |field: &str| meta.as_ref().map_or(Ok(None), |meta| meta.text(field));
        let (name, namespace) = (text("name")?.unwrap_or_default(), text("namespace")?);
        let id = Id::new(&namespace.unwrap_or_else(|| NAMESPACE.into()), &name);
        let it = &it.named(&format!("{word} {id}"));
        let meta = it.map("metadata")?;
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let kind =
            Kind::ALL.into_iter().find(|kind| kind.word() == word && (kind.group() == group || version.is_empty()));
        let Some(kind) = kind else { return self.unknown(it, &word, &id) };
        if let Some(meta) = &meta
            && !matches!(kind, Kind::Secret | Kind::ConfigMap | Kind::EndpointSlice)
        {
            self.annotations(kind, &id, meta)?;
        }
        match kind {
            Kind::GatewayClass => {
                if let Some(parameters) = it.map("spec")?.and_then(|it| it.get("parametersRef")) {
                    parameters.left_out("parameters of another gateway");
                }
                it.skip();
                return Ok(());
            }
            Kind::HttpRoute | Kind::GrpcRoute => self.tell_route(kind, &id, it)?,
            Kind::Gateway => {
                let spec = it.map("spec")?;
                self.is_all_closed |= tell_unknown(spec.as_ref(), &GATEWAY_FIELDS, "a Gateway");
                let infrastructure = spec.as_ref().map(|it| it.map("infrastructure")).transpose()?.flatten();
                if let Some(infrastructure) = infrastructure {
                    self.annotations(kind, &id, &infrastructure)?;
                }
                if let Some(addresses) = spec.and_then(|it| it.get("addresses")) {
                    addresses.left_out("nodes listen at all of their addresses; write listeners' address by hand");
                }
            }
            _ => {}
        }
        let mut object = it.json();
        let is_of_all = matches!(kind, Kind::Namespace);
        if object["metadata"].is_object() && !is_of_all {
            object["metadata"]["namespace"] = json!(id.namespace);
        }
        if self.items.insert((kind, id.clone()), it.clone()).is_some() {
            return Err(it.wrong("each object once"));
        }
        match kind {
            Kind::HttpRoute | Kind::GrpcRoute => {
                reduce_route(&mut object);
                self.routes.insert((kind, id), object);
                Ok(())
            }
            Kind::Gateway => {
                object["spec"]["gatewayClassName"] = json!(CLASS);
                if let Some(spec) = object["spec"].as_object_mut() {
                    spec.retain(|field, _| GATEWAY_FIELDS.contains(&field.as_str()) && field != "addresses");
                }
                self.put(kind, object)
            }
            _ => self.put(kind, object),
        }
    }

    fn unknown(&mut self, it: &Item<'d>, word: &str, id: &Id) -> Outcome {
        if HARMLESS_KINDS.contains(&word) {
            it.skip();
            it.left_out(format!("objects of kind {word} are not read"));
            return Ok(());
        }
        let mut targets: Vec<Item<'d>> = Vec::new();
        let mut is_of_all = false;
        if let Some(spec) = it.map("spec")? {
            targets.extend(spec.get("targetRef"));
            targets.extend(spec.get("targetRefs").map(|it| it.entries()).unwrap_or_default());
            // Beside those that it names, whatever has such labels.
            is_of_all = spec.get("targetSelectors").is_some();
        }
        is_of_all |= targets.is_empty();
        for target in &targets {
            let (kind, name) = (target.text("kind")?.unwrap_or_default(), target.text("name")?.unwrap_or_default());
            let namespace = target.text("namespace")?.unwrap_or_else(|| id.namespace.clone());
            match [Kind::HttpRoute, Kind::GrpcRoute].into_iter().find(|it| it.word() == kind) {
                Some(kind) => drop(self.closed.insert((kind, Id::new(&namespace, &name)))),
                None => is_of_all = true,
            }
        }
        self.is_all_closed |= is_of_all;
        it.skip();
        it.closed(format!(
            "a {word} is not known here, and may keep somebody out: {} let nobody in; see to what it does, then take the rule \
             {CLOSED} away",
            if is_of_all { "all routes" } else { "the routes that it names" }
        ));
        Ok(())
    }

    fn annotations(&mut self, kind: Kind, id: &Id, meta: &Item<'d>) -> Outcome {
        let Some(annotations) = meta.map("annotations")? else { return Ok(()) };
        for (name, value) in annotations.members() {
            value.skip();
            let is_harmless = HARMLESS_ANNOTATIONS.iter().any(|it| name.starts_with(it));
            if is_harmless && !WHO_MAY_COME.iter().any(|it| name.contains(it)) {
                continue;
            }
            match kind {
                Kind::HttpRoute | Kind::GrpcRoute => drop(self.closed.insert((kind, id.clone()))),
                // Whatever is attached to it, or asks it.
                _ => self.is_all_closed = true,
            }
            let which =
                if matches!(kind, Kind::HttpRoute | Kind::GrpcRoute) { "the route lets" } else { "all routes let" };
            value.closed(format!(
                "an annotation that is not known here may keep somebody out: {which} nobody in; see to it, then take the rule {CLOSED} away"
            ));
        }
        Ok(())
    }

    fn tell_route(&mut self, kind: Kind, id: &Id, it: &Item<'d>) -> Outcome {
        let spec = it.map("spec")?;
        let parents = spec.as_ref().map_or(Ok(Vec::new()), |it| it.list("parentRefs"))?;
        if parents.is_empty() {
            it.left_out("it has no parentRefs, so that no Gateway has it: nothing is made of it");
        }
        let Some(spec) = spec else { return Ok(()) };
        let mut is_closed = tell_unknown(Some(&spec), &ROUTE_FIELDS, "a route");
        for rule in spec.list("rules")? {
            is_closed |= tell_unknown(Some(&rule), &RULE_FIELDS, "a rule");
            for backend in rule.list("backendRefs")? {
                for filter in backend.list("filters")? {
                    let form = filter.text("type")?.unwrap_or_default();
                    if HARMLESS_FILTERS.contains(&form.as_str()) {
                        filter.left_out("filters of single backends: filters of the rule are carried out");
                    }
                }
            }
        }
        if is_closed {
            self.closed.insert((kind, id.clone()));
        }
        Ok(())
    }

    /// Gateways that routes name, services that they ask, where those run, and secrets of listeners.
    fn complete(&mut self) -> Outcome {
        let routes = self.routes.clone();
        for ((kind, id), object) in &routes {
            for parent in object.pointer("/spec/parentRefs").and_then(Json::as_array).into_iter().flatten() {
                self.parent(*kind, id, parent)?;
            }
            for rule in object.pointer("/spec/rules").and_then(Json::as_array).into_iter().flatten() {
                let list = |field: &str| rule[field].as_array().cloned().unwrap_or_default();
                let mirrored = list("filters").into_iter().map(|it| it["requestMirror"]["backendRef"].clone());
                for backend in list("backendRefs").into_iter().chain(mirrored) {
                    self.backend(*kind, id, &backend)?;
                }
            }
        }
        self.endpoints()?;
        self.secrets()
    }

    fn parent(&mut self, kind: Kind, id: &Id, parent: &Json) -> Outcome {
        let text = |field: &str| parent[field].as_str();
        if text("group").unwrap_or(GROUP) != GROUP || text("kind").unwrap_or("Gateway") != "Gateway" {
            self.item(kind, id).left_out("a parent that is no Gateway: routes of services are not translated");
            return Ok(());
        }
        let gateway = Id::new(text("namespace").unwrap_or(&id.namespace), text("name").unwrap_or_default());
        let is_made_up = self.made_up.contains(&(Kind::Gateway, gateway.clone()));
        if self.snapshot.get(Kind::Gateway, &gateway).is_some() && !is_made_up {
            return Ok(());
        }
        self.item(kind, id).differs(format!(
            "Gateway {gateway} is not in the files: its listener is taken for one of HTTP at port 80, for all hosts"
        ));
        if is_made_up {
            return Ok(());
        }
        let listener = |name: &str, port: u64| json!({ "name": name, "port": port, "protocol": "HTTP", "allowedRoutes": { "namespaces": { "from": "All" } } });
        let section = text("sectionName").unwrap_or("http");
        let object = json!({
            "metadata": { "name": gateway.name, "namespace": gateway.namespace },
            "spec": { "gatewayClassName": CLASS, "listeners": [listener(section, parent["port"].as_u64().unwrap_or(80))] },
        });
        self.made_up.insert((Kind::Gateway, gateway));
        self.put(Kind::Gateway, object)
    }

    fn backend(&mut self, kind: Kind, id: &Id, backend: &Json) -> Outcome {
        let text = |field: &str| backend[field].as_str();
        let (Some(name), Some(port)) = (text("name"), backend["port"].as_u64()) else { return Ok(()) };
        if text("group").unwrap_or_default() != "" || text("kind").unwrap_or("Service") != "Service" {
            return Ok(());
        }
        let service = Id::new(text("namespace").unwrap_or(&id.namespace), name);
        let known = self.snapshot.services.get(&service);
        let is_made_up = self.made_up.contains(&(Kind::Service, service.clone()));
        let mut ports: Vec<u64> =
            known.map(|it| it.spec.ports.iter().map(|it| it.port.into()).collect()).unwrap_or_default();
        if (known.is_some() && !is_made_up) || ports.contains(&port) {
            return Ok(());
        }
        ports.push(port);
        self.item(kind, id)
            .differs(format!("Service {service} is not in the files: it is asked by its name in DNS, port {port}"));
        let ports: Vec<Json> = ports.iter().map(|port| json!({ "name": format!("p{port}"), "port": port })).collect();
        let object = json!({
            "metadata": { "name": service.name, "namespace": service.namespace }, "spec": { "ports": ports },
        });
        self.made_up.insert((Kind::Service, service));
        self.put(Kind::Service, object)
    }

    /// Of services without any: their names in DNS.
    fn endpoints(&mut self) -> Outcome {
        let known: BTreeSet<Id> = self.snapshot.slices_by_service().into_keys().collect();
        let services: Vec<_> = self.snapshot.services.iter().map(|(id, it)| (id.clone(), it.clone())).collect();
        for (id, service) in services.into_iter().filter(|(id, _)| !known.contains(id)) {
            if service.spec.kind == "ExternalName" {
                continue;
            }
            let name = format!("{}.{}.svc.cluster.local", id.name, id.namespace);
            if !self.made_up.contains(&(Kind::Service, id.clone())) {
                self.item(Kind::Service, &id).differs(format!(
                    "its endpoints are not in the files: it is asked as {name}, which nodes outside of the cluster do not know"
                ));
            }
            let ports: Vec<Json> =
                service.spec.ports.iter().map(|it| json!({ "name": it.name, "port": it.port })).collect();
            // The address may be a name: a target is a host and a port in any case.
            let slice = json!({
                "metadata": {
                    "name": id.name, "namespace": id.namespace, "labels": { "kubernetes.io/service-name": id.name },
                },
                "addressType": "IPv4", "endpoints": [{ "addresses": [name] }], "ports": ports,
            });
            self.put(Kind::EndpointSlice, slice)?;
        }
        Ok(())
    }

    /// Secrets that listeners show and that are not here: stand-ins, of which nothing is written.
    fn secrets(&mut self) -> Outcome {
        let gateways: Vec<(Id, Json)> =
            self.snapshot.of(Kind::Gateway).map(|(id, object)| (id.clone(), object.spec.clone())).collect();
        for (id, spec) in gateways {
            for listener in spec["listeners"].as_array().into_iter().flatten() {
                for reference in listener["tls"]["certificateRefs"].as_array().into_iter().flatten() {
                    let name = reference["name"].as_str().unwrap_or_default();
                    let secret = Id::new(reference["namespace"].as_str().unwrap_or(&id.namespace), name);
                    if self.snapshot.secrets.contains_key(&secret) {
                        continue;
                    }
                    let encoded = |text: &str| data_encoding::BASE64.encode(text.as_bytes());
                    let chain = encoded("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
                    let object = json!({
                        "metadata": { "name": secret.name, "namespace": secret.namespace }, "type": "kubernetes.io/tls",
                        "data": { "tls.crt": chain, "tls.key": encoded("none") },
                    });
                    self.made_up.insert((Kind::Secret, secret));
                    self.put(Kind::Secret, object)?;
                }
            }
        }
        Ok(())
    }
}

/// Whether some field may keep somebody out.
fn tell_unknown(it: Option<&Item<'_>>, known: &[&str], of: &str) -> bool {
    let mut is_closed = false;
    for (name, field) in it.map(Item::members).unwrap_or_default() {
        if known.contains(&name) {
            continue;
        }
        field.skip();
        if HARMLESS_FIELDS.contains(&name) {
            field.left_out(format!("it is no part of {of} here"));
        } else {
            is_closed = true;
            field.closed(format!(
                "it is no part of {of} here, and may keep somebody out: routes that it is about let nobody in; see to it, then take \
                 the rule {CLOSED} away"
            ));
        }
    }
    is_closed
}

/// Without what was told already.
fn reduce_route(object: &mut Json) {
    if let Some(spec) = object["spec"].as_object_mut() {
        spec.retain(|field, _| ROUTE_FIELDS.contains(&field.as_str()));
    }
    for rule in object.pointer_mut("/spec/rules").and_then(Json::as_array_mut).into_iter().flatten() {
        if let Some(rule) = rule.as_object_mut() {
            rule.retain(|field, _| RULE_FIELDS.contains(&field.as_str()));
        }
        for backend in rule.get_mut("backendRefs").and_then(Json::as_array_mut).into_iter().flatten() {
            if let Some(filters) = backend.get_mut("filters").and_then(Json::as_array_mut) {
                filters.retain(|it| !HARMLESS_FILTERS.iter().any(|form| it["type"] == *form));
            }
        }
    }
}
