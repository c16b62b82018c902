//! To which listeners a route attaches, and for which hosts (Gateway API, "ParentReference" and "Hostnames").

use std::collections::BTreeMap;

use super::{
    gateways::{Gateways, Open},
    no,
};
use crate::{
    api::{
        Id, Kind,
        gateway::{ParentRef, Selector},
    },
    conditions::{ACCEPTED, Condition},
    snapshot::Snapshot,
};

/// A listener of a Gateway and the hosts that a route has there; none: every host.
#[derive(Debug, Clone, PartialEq)]
pub struct Attached {
    pub gateway: Id,
    pub listener: String,
    pub port: u16,
    pub hosts: Vec<String>,
}

/// What asks to be attached.
pub struct Route<'r> {
    pub kind: Kind,
    pub id: &'r Id,
    pub hostnames: &'r [String],
}

/// None: the parent is not ours.
pub fn attach(
    route: &Route<'_>,
    parent: &ParentRef,
    gateways: &Gateways,
    snapshot: &Snapshot,
) -> Option<Result<Vec<Attached>, Condition>> {
    if !parent.is_gateway() {
        return None;
    }
    let id = Id::new(parent.namespace.as_deref().unwrap_or(&route.id.namespace), &parent.name);
    let gateway = gateways.all.get(&id)?;
    let refuse = |reason, why: String| Some(Err(no(ACCEPTED, reason, why)));
    if gateway.is_invalid() {
        return refuse("Pending", format!("Gateway {id} is not accepted"));
    }
    let named = |open: &&Open| {
        parent.section_name.as_ref().is_none_or(|name| *name == open.name)
            && parent.port.is_none_or(|port| port == open.port)
    };
    let found: Vec<&Open> = gateway.listeners.iter().filter(named).collect();
    if found.is_empty() {
        return refuse("NoMatchingParent", format!("Gateway {id} has no such listener"));
    }
    let lets_in = |open: &&Open| open.kinds.contains(&route.kind) && takes_namespace(open, &id, route.id, snapshot);
    let found: Vec<&Open> = found.into_iter().filter(lets_in).collect();
    if found.is_empty() {
        return refuse("NotAllowedByListeners", format!("no listener of Gateway {id} takes it from its namespace"));
    }
    let hosts = |open: &&Open| Some((hosts_of(open.hostname.as_deref(), route.hostnames)?, open.is_usable()));
    let found: Vec<(&Open, (Vec<String>, bool))> =
        found.into_iter().filter_map(|open| Some((open, hosts(&open)?))).collect();
    if found.is_empty() {
        let why = format!("no listener of Gateway {id} has any of its hostnames");
        return refuse("NoMatchingListenerHostname", why);
    }
    let usable = found.iter().filter(|(_, (_, usable))| *usable).map(|(open, (hosts, _))| Attached {
        gateway: id.clone(),
        listener: open.name.clone(),
        port: open.port,
        hosts: hosts.clone(),
    });
    let usable: Vec<Attached> = usable.collect();
    match usable.is_empty() {
        true => refuse("Pending", format!("its listeners of Gateway {id} are not programmed")),
        false => Some(Ok(usable)),
    }
}

/// The hosts of each port: those of all its listeners.
pub fn by_port(attached: &[Attached]) -> BTreeMap<u16, Vec<String>> {
    let mut ports: BTreeMap<u16, Option<Vec<String>>> = BTreeMap::new();
    for it in attached {
        let hosts = ports.entry(it.port).or_insert_with(|| Some(Vec::new()));
        match (it.hosts.is_empty(), hosts) {
            (true, hosts) => *hosts = None,
            (false, Some(hosts)) => hosts.extend(it.hosts.iter().cloned()),
            (false, None) => {}
        }
    }
    let sorted = |hosts: Option<Vec<String>>| {
        let mut hosts = hosts.unwrap_or_default();
        hosts.sort();
        hosts.dedup();
        hosts
    };
    ports.into_iter().map(|(port, hosts)| (port, sorted(hosts))).collect()
}

/// What both name, the more exact of two that meet; None: nothing.
fn hosts_of(listener: Option<&str>, route: &[String]) -> Option<Vec<String>> {
    let Some(listener) = listener else {
        return Some(route.iter().map(|it| it.to_ascii_lowercase()).collect());
    };
    if route.is_empty() {
        return Some(vec![listener.to_owned()]);
    }
    let met: Vec<String> = route.iter().filter_map(|it| meet(listener, &it.to_ascii_lowercase())).collect();
    (!met.is_empty()).then_some(met)
}

/// The names that both patterns have in common, as a pattern.
pub fn meet(a: &str, b: &str) -> Option<String> {
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (None, None) => (a == b).then(|| a.to_owned()),
        (Some(suffix), None) => takes(suffix, b).then(|| b.to_owned()),
        (None, Some(suffix)) => takes(suffix, a).then(|| a.to_owned()),
        (Some(one), Some(two)) if one.ends_with(two) => Some(a.to_owned()),
        (Some(one), Some(two)) => two.ends_with(one).then(|| b.to_owned()),
    }
}

fn takes(suffix: &str, host: &str) -> bool {
    host.len() > suffix.len() && host.ends_with(suffix)
}

fn takes_namespace(open: &Open, gateway: &Id, route: &Id, snapshot: &Snapshot) -> bool {
    let namespaces = open.allowed.namespaces.clone().unwrap_or_default();
    match namespaces.from.as_deref().unwrap_or("Same") {
        "All" => true,
        "Same" => gateway.namespace == route.namespace,
        "Selector" => {
            let found = snapshot.namespaces.get(&Id::new("", &route.namespace));
            let labels = found.map(|it| &it.metadata.labels);
            namespaces.selector.is_some_and(|it| labels.is_some_and(|labels| selects(&it, labels)))
        }
        _ => false,
    }
}

/// An operator that is not known selects nothing.
fn selects(selector: &Selector, labels: &BTreeMap<String, String>) -> bool {
    selector.match_labels.iter().all(|(name, value)| labels.get(name) == Some(value))
        && selector.match_expressions.iter().all(|it| {
            let value = labels.get(&it.key);
            match it.operator.as_str() {
                "In" => value.is_some_and(|value| it.values.contains(value)),
                "NotIn" => value.is_none_or(|value| !it.values.contains(value)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_those_that_route_and_listener_both_name() {
        let check = |listener: Option<&str>, route: &[&str], expected: Option<&[&str]>| {
            let route: Vec<String> = route.iter().map(ToString::to_string).collect();
            let expected = expected.map(|it| it.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(hosts_of(listener, &route), expected, "{listener:?} {route:?}");
        };
        check(None, &[], Some(&[]));
        check(None, &["A.test"], Some(&["a.test"]));
        check(Some("a.test"), &[], Some(&["a.test"]));
        check(Some("a.test"), &["a.test", "b.test"], Some(&["a.test"]));
        check(Some("a.test"), &["b.test"], None);
        check(Some("*.test"), &["a.test", "x.a.test", "test"], Some(&["a.test", "x.a.test"]));
        check(Some("a.test"), &["*.test"], Some(&["a.test"]));
        check(Some("*.a.test"), &["*.test"], Some(&["*.a.test"]));
        check(Some("*.test"), &["*.a.test"], Some(&["*.a.test"]));
        check(Some("*.b.test"), &["*.a.test"], None);
        check(Some("*.a.test"), &["xa.test", "*.ba.test"], None);
    }

    #[test]
    fn selectors_select_by_labels() {
        let labels = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
        let check = |words: serde_json::Value, expected: bool| {
            assert_eq!(selects(&serde_json::from_value(words.clone()).unwrap(), &labels), expected, "{words}");
        };
        use serde_json::json;
        let one = |operator: &str, key: &str, values: &[&str]| json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] });
        check(json!({}), true);
        check(json!({ "matchLabels": { "team": "a" } }), true);
        check(json!({ "matchLabels": { "team": "b" } }), false);
        check(one("In", "team", &["a", "b"]), true);
        check(one("In", "team", &["b"]), false);
        check(one("NotIn", "team", &["b"]), true);
        check(one("NotIn", "team", &["a"]), false);
        check(one("NotIn", "other", &["a"]), true);
        check(one("Exists", "team", &[]), true);
        check(one("DoesNotExist", "team", &[]), false);
        check(one("Like", "team", &["a"]), false);
    }
}
