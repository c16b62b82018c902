//! What a route's policies of kind `ip` say to an imagined client.

use std::net::IpAddr;

use quorumgate_model::{
    resource::{Key, Kind, Name, PolicyKind, Resource, Resources},
    ruleset::{Rule, Ruleset, Shut},
};

/// In words, by which policies, and whether the client is shut out; None: the route has no policies.
pub fn told(rules: &Ruleset, rule: &Rule, resources: &Resources, address: IpAddr) -> Option<(String, String, bool)> {
    let policies = &rule.route.policies;
    if policies.is_empty() {
        return None;
    }
    let address = address.to_canonical();
    let Some(shut) = rules.shut_out(rule, address) else {
        let names: Vec<_> = policies.iter().map(Name::to_string).collect();
        return Some((format!("{address} is let in"), names.join(", "), false));
    };
    let net = match &resources.get(&Key { kind: Kind::Policy, name: shut.policy.clone() })?.resource {
        Resource::Policy(policy) => {
            let PolicyKind::Ip(ip) = &policy.kind;
            ip.deny.narrowest(address).copied()
        }
        _ => None,
    };
    let why = match (shut.how, net) {
        (Shut::Denied, Some(net)) => format!("refused: {address} is denied by {net}"),
        (Shut::Denied, None) => format!("refused: {address} is denied"),
        (Shut::NotAllowed, _) => format!("refused: {address} is not among those that are allowed"),
    };
    Some((why, shut.policy.to_string(), true))
}
