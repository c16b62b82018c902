//! What a route's policies of kind `ip` say to an imagined client.

use std::net::IpAddr;

use quorumgate_model::{
    resource::{Key, Kind, Name, PolicyKind, Resource, Resources},
    ruleset::{Rule, Ruleset, Shut},
};
use quorumgate_proxy::geo::Geo;

/// In words, by which policies, and whether the client is shut out; None: the route has none.
pub fn told(
    rules: &Ruleset,
    rule: &Rule,
    resources: &Resources,
    address: IpAddr,
    geo: &Geo,
) -> Option<(String, String, bool)> {
    let nets = |name: &Name| match &resources.get(&Key { kind: Kind::Policy, name: name.clone() })?.resource {
        Resource::Policy(policy) => match &policy.kind {
            PolicyKind::Ip(ip) => Some(ip.clone()),
            _ => None,
        },
        _ => None,
    };
    let names: Vec<_> = rule.route.policies.iter().filter(|name| nets(name).is_some()).map(Name::to_string).collect();
    if names.is_empty() {
        return None;
    }
    let address = address.to_canonical();
    let asks_places = rule.route.policies.iter().filter_map(nets).any(|ip| !ip.places.is_empty());
    let place = match asks_places.then(|| geo.place(address)) {
        Some(place) => {
            let country = place.country.map_or_else(|| "nowhere known".to_owned(), |it| it.to_string());
            let asn = place.asn.map(|it| format!(" (AS{it})")).unwrap_or_default();
            format!(", which is in {country}{asn},")
        }
        None => String::new(),
    };
    let Some(shut) = rules.shut_out(rule, address, |it| geo.place(it)) else {
        return Some((format!("{address}{place} is let in"), names.join(", "), false));
    };
    let net = nets(&shut.policy).and_then(|ip| ip.deny.narrowest(address).copied());
    let why = match (shut.how, net) {
        (Shut::Denied, Some(net)) => format!("refused: {address}{place} is denied by {net}"),
        (Shut::Denied, None) => format!("refused: {address}{place} is denied"),
        (Shut::NotAllowed, _) => format!("refused: {address}{place} is not among those that are allowed"),
    };
    Some((why, shut.policy.to_string(), true))
}
