//! HTTPRoutes and GRPCRoutes: one route of ours for each match, rule and port. Everything that is the same for both kinds.

use std::collections::{BTreeMap, BTreeSet};

use quorumgate_proto::admin::v1 as admin;
use serde_json::Value;

use super::{
    Origin, Refusals, Translation, age,
    attach::{self, Attached, Route, attach},
    backends::{Backend, Backends, Manner},
    by_age,
    filters::{self, Filters, Redirecting},
    gateways::{Gateways, belongs},
    grants::Grants,
    grpc, http, mentions_us, meta, no, resource,
    tls_policies::TlsPolicies,
};
use crate::{
    api::{
        Id, Kind, Object,
        gateway::ParentRef,
        route::{BackendRef, RouteSpec},
    },
    conditions::{ACCEPTED, Condition, Party, RESOLVED_REFS, Status, Told},
    names,
    snapshot::Snapshot,
};

/// Why a route as a whole is not taken.
pub struct Unsupported {
    pub reason: &'static str,
    pub why: String,
}

impl Unsupported {
    pub fn value(why: String) -> Self {
        Self { reason: "UnsupportedValue", why }
    }

    pub fn under(self, place: &str) -> Self {
        Self { why: format!("{place}.{}", self.why), ..self }
    }
}

/// One rule, of either kind, in our words.
pub struct Rule<'r> {
    /// Without hosts and listeners.
    pub matches: Vec<admin::Match>,
    pub filters: Filters<'r>,
    pub backends: &'r [BackendRef],
    /// None: nothing is said of it. Zero: no end.
    pub total: Option<prost_types::Duration>,
    /// None: the upstream's.
    pub attempts: Option<u32>,
}

/// A rule whose backends are known.
struct Ready {
    matches: Vec<admin::Match>,
    action: Action,
    rest: admin::Route,
}

enum Action {
    Redirect(Redirecting),
    Other(admin::route::Action),
}

/// Everything that routes are held against; borrowed for one translation.
struct World<'s, 'w> {
    snapshot: &'s Snapshot,
    gateways: &'w mut Gateways,
    policies: &'w mut TlsPolicies,
    refused: &'s Refusals,
    backends: Backends<'s>,
    /// Who of which kind has hosts at a listener already: only one of the two kinds may have a host.
    hosts: BTreeMap<(Id, String), Vec<Holder>>,
}

/// A route with hosts at a listener; none: all of them.
struct Holder {
    kind: Kind,
    id: Id,
    hosts: Vec<String>,
}

/// What is said of the routes; what they come to goes into `out`.
pub fn translate<'s>(
    snapshot: &'s Snapshot,
    grants: &'s Grants,
    gateways: &mut Gateways,
    policies: &mut TlsPolicies,
    refused: &'s Refusals,
    out: &mut Translation,
) -> Vec<Told> {
    let backends = Backends::new(snapshot, grants, refused);
    let mut world = World { snapshot, gateways, policies, refused, backends, hosts: BTreeMap::new() };
    let kinds = [Kind::HttpRoute, Kind::GrpcRoute];
    let mut all: Vec<(Kind, &Id, &Object)> = Vec::new();
    for kind in kinds {
        all.extend(by_age(snapshot.of(kind)).into_iter().map(|(id, object)| (kind, id, object)));
    }
    all.sort_by_key(|(kind, id, object)| (age(object), id.to_string(), *kind));
    let told = all.into_iter().filter_map(|(kind, id, object)| world.route(kind, id, object, out)).collect();
    out.objects.extend(world.backends.finish());
    told
}

impl World<'_, '_> {
    /// None: it has nothing to do with us.
    fn route(&mut self, kind: Kind, id: &Id, object: &Object, out: &mut Translation) -> Option<Told> {
        let parties = match kind {
            Kind::GrpcRoute => match object.spec() {
                Ok(spec) => self.understood(kind, id, object, &spec, grpc::rules, out),
                Err(why) => self.not_understood(id, object, &why),
            },
            _ => match object.spec() {
                Ok(spec) => self.understood(kind, id, object, &spec, http::rules, out),
                Err(why) => self.not_understood(id, object, &why),
            },
        };
        let is_told = !parties.is_empty() || mentions_us(&object.status, "parents");
        let status = Status::Parents(parties);
        is_told.then(|| Told { kind, id: id.clone(), generation: object.metadata.generation, status })
    }

    fn is_ours(&self, id: &Id, parent: &ParentRef) -> bool {
        let gateway = Id::new(parent.namespace.as_deref().unwrap_or(&id.namespace), &parent.name);
        parent.is_gateway() && self.gateways.all.contains_key(&gateway)
    }

    fn not_understood(&self, id: &Id, object: &Object, why: &str) -> Vec<Party> {
        let references = references(object);
        let parents = belongs(object).parent_refs.into_iter().zip(references);
        let ours = parents.filter(|(parent, _)| self.is_ours(id, parent));
        let refused = || vec![no(ACCEPTED, "UnsupportedValue", why)];
        ours.map(|(_, reference)| Party { reference, conditions: refused() }).collect()
    }

    fn understood<'r, R>(
        &mut self,
        kind: Kind,
        id: &Id,
        object: &Object,
        spec: &'r RouteSpec<R>,
        rules: fn(&'r [R]) -> Result<Vec<Rule<'r>>, Unsupported>,
        out: &mut Translation,
    ) -> Vec<Party> {
        let route = Route { kind, id, hostnames: &spec.hostnames };
        let rules = match self.refused.get(&Origin::Route(kind, id.clone())) {
            Some(why) => Err(Unsupported::value(why.clone())),
            None => rules(&spec.rules),
        };
        let mut parents = Vec::new();
        for (parent, reference) in spec.parent_refs.iter().zip(references(object)) {
            if let Some(attached) = attach(&route, parent, self.gateways, self.snapshot) {
                // One that is not carried out has no host that others would have to leave to it.
                let attached = if rules.is_ok() { attached.and_then(|it| self.alone(kind, id, it)) } else { attached };
                parents.push((reference, attached));
            }
        }
        if parents.is_empty() {
            return Vec::new();
        }
        let attached: Vec<Attached> =
            parents.iter().filter_map(|(_, attached)| attached.as_ref().ok()).flatten().cloned().collect();
        let gateways: BTreeSet<Id> = attached.iter().map(|it| it.gateway.clone()).collect();
        let mut resolved = None;
        let ready = rules.map(|rules| {
            let rules = rules.into_iter();
            rules.map(|rule| self.ready((kind, id), rule, &gateways, &mut resolved)).collect::<Vec<_>>()
        });
        let accepted = match &ready {
            Ok(_) => Ok(()),
            Err(it) => Err(no(ACCEPTED, it.reason, &it.why)),
        };
        if let Ok(ready) = ready {
            self.count(&attached);
            write(kind, id, object, &ready, &attached, out);
        }
        let resolved = resolved.unwrap_or_else(|| Condition::yes(RESOLVED_REFS, RESOLVED_REFS, ""));
        let party = |(reference, attached): (Value, Result<Vec<Attached>, Condition>)| {
            let accepted = attached.and(accepted.clone());
            let accepted = accepted.map(|()| Condition::yes(ACCEPTED, "Accepted", "")).unwrap_or_else(|no| no);
            Party { reference, conditions: vec![accepted, resolved.clone()] }
        };
        parents.into_iter().map(party).collect()
    }

    /// A host at a listener is of HTTPRoutes or of GRPCRoutes: the older has it.
    fn alone(&mut self, kind: Kind, id: &Id, attached: Vec<Attached>) -> Result<Vec<Attached>, Condition> {
        for it in &attached {
            let known = self.hosts.entry((it.gateway.clone(), it.listener.clone())).or_default();
            let meets = |hosts: &[String]| {
                let one_of = |a: &String| it.hosts.iter().any(|b| attach::meet(a, b).is_some());
                hosts.is_empty() || it.hosts.is_empty() || hosts.iter().any(one_of)
            };
            if let Some(older) = known.iter().find(|it| it.kind != kind && meets(&it.hosts)) {
                let Holder { kind: other, id: older, .. } = older;
                let why = format!("{other} {older} is older and has hosts of it at listener {} too", it.listener);
                return Err(no(ACCEPTED, "HostnameConflict", why));
            }
        }
        for it in &attached {
            let known = self.hosts.entry((it.gateway.clone(), it.listener.clone())).or_default();
            known.push(Holder { kind, id: id.clone(), hosts: it.hosts.clone() });
        }
        Ok(attached)
    }

    fn count(&mut self, attached: &[Attached]) {
        let once: BTreeSet<(&Id, &str)> = attached.iter().map(|it| (&it.gateway, it.listener.as_str())).collect();
        for (gateway, listener) in once {
            let gateway = self.gateways.all.get_mut(gateway).expect("it was attached to");
            gateway.listeners.iter_mut().filter(|it| it.name == listener).for_each(|it| it.attached += 1);
        }
    }

    /// `resolved`: the first reference that leads nowhere.
    fn ready(
        &mut self,
        route: (Kind, &Id),
        rule: Rule<'_>,
        gateways: &BTreeSet<Id>,
        resolved: &mut Option<Condition>,
    ) -> Ready {
        let manner = Manner { is_grpc: route.0 == Kind::GrpcRoute, is_patient: rule.total.is_some() };
        let mut weights: BTreeMap<String, u64> = BTreeMap::new();
        let (mut wrong, mut nobody) = (0, 0);
        for reference in rule.backends {
            let weight = u64::from(reference.weight.unwrap_or(1));
            match self.backends.resolve(route, reference, manner, self.policies, gateways) {
                Ok(Backend::Upstream(name)) => *weights.entry(name).or_default() += weight,
                Ok(Backend::Nobody) => nobody += weight,
                Err(condition) => {
                    wrong += weight;
                    resolved.get_or_insert(condition);
                }
            }
        }
        weights.retain(|_, weight| *weight > 0);
        let mut rest = admin::Route {
            rewrite: Some(rule.filters.rewrite),
            // The Gateway API knows no limit.
            body: Some(admin::BodyLimit { max: Some(0), ..admin::BodyLimit::default() }),
            timeouts: rule.total.map(|total| admin::RouteTimeouts { total: Some(total) }),
            retries: rule.attempts.map(|attempts| admin::RouteRetries { attempts: Some(attempts) }),
            cors: rule.filters.cors,
            ..admin::Route::default()
        };
        let respond = |status| admin::route::Action::Respond(admin::Respond { status, ..admin::Respond::default() });
        let action = match rule.filters.redirect {
            Some(redirect) => Action::Redirect(redirect),
            None if weights.is_empty() => Action::Other(respond(if wrong == 0 && nobody > 0 { 503 } else { 500 })),
            None => {
                if let Some((mirror, percent)) = rule.filters.mirror {
                    match self.backends.resolve(route, &mirror.backend_ref, manner, self.policies, gateways) {
                        Ok(Backend::Upstream(name)) => rest.mirror = Some(filters::mirror(name, percent)),
                        Ok(Backend::Nobody) => {}
                        Err(condition) => drop(resolved.get_or_insert(condition)),
                    }
                }
                if wrong + nobody > 0 {
                    weights.insert(self.backends.nowhere(), wrong + nobody);
                }
                Action::Other(forward(weights))
            }
        };
        Ready { matches: rule.matches, action, rest }
    }
}

fn forward(weights: BTreeMap<String, u64>) -> admin::route::Action {
    if weights.len() == 1
        && let Some(name) = weights.keys().next()
    {
        return admin::route::Action::Upstream(name.clone());
    }
    let arm = |(upstream, weight): (String, u64)| admin::SplitArm {
        upstream,
        // One that is too large is refused with the route.
        weight: u32::try_from(weight).unwrap_or(u32::MAX),
        from: None,
    };
    let arms = weights.into_iter().map(arm).collect();
    admin::route::Action::Split(admin::Split { arms, ..admin::Split::default() })
}

/// One route for each port, rule and match.
fn write(kind: Kind, id: &Id, object: &Object, rules: &[Ready], attached: &[Attached], out: &mut Translation) {
    let age = age(object);
    for (port, hosts) in attach::by_port(attached) {
        for (rule, it) in rules.iter().enumerate() {
            for (place, matches) in it.matches.iter().enumerate() {
                let route = admin::Route {
                    name: names::route(age, kind, id, (rule, place), port),
                    meta: meta(format!("{kind} {id}, rule {rule}, match {place}, port {port}")),
                    r#match: Some(admin::Match {
                        hosts: hosts.clone(),
                        listeners: vec![names::listener(port)],
                        ..matches.clone()
                    }),
                    action: Some(match &it.action {
                        Action::Redirect(redirect) => admin::route::Action::Redirect(redirect.at(port)),
                        Action::Other(action) => action.clone(),
                    }),
                    ..it.rest.clone()
                };
                out.objects.push((Origin::Route(kind, id.clone()), resource(admin::resource::Kind::Route(route))));
            }
        }
    }
}

/// The parents as they were written: a status repeats them.
fn references(object: &Object) -> Vec<Value> {
    object.spec["parentRefs"].as_array().cloned().unwrap_or_default()
}
