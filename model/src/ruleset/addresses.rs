//! Policies as requests meet them. Those of kind `ip` are compiled: the networks as ranges that do not touch, so that a look-up
//! in a million is twenty steps.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{Mask, Rule, Ruleset, agents::Agents};
use crate::resource::{IpPolicy, Name, Place, Places, Policy, PolicyKind, PolicyMode};

/// One policy as requests meet it.
#[derive(Debug, Clone)]
pub(super) enum Asked {
    Addresses(Arc<Addresses>),
    /// Of what a request says.
    Inspection(Arc<Policy>),
    /// How far the life of a version is.
    Version(Arc<Policy>),
    /// Where models are asked.
    Ai(Arc<Policy>),
    /// How callers behave.
    Watch(Arc<Policy>),
    /// What a client calls itself.
    Agents(Arc<Agents>),
    /// Of what its answer says.
    Mask(Arc<Mask>),
    /// What developers are shown.
    Portal(Arc<Policy>),
}

/// One policy of kind `ip`.
#[derive(Debug)]
pub(super) struct Addresses {
    /// None: everybody who is not denied.
    allow: Option<Ranges>,
    deny: Ranges,
    /// None: it does not go by them.
    places: Option<Places>,
}

/// From a route's policies: who is shut out, by which of them, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShutOut {
    pub policy: Name,
    pub how: Shut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shut {
    /// In `deny`.
    Denied,
    /// Not in `allow`.
    NotAllowed,
}

impl Shut {
    /// The list that decides.
    pub fn word(self) -> &'static str {
        match self {
            Shut::Denied => "deny",
            Shut::NotAllowed => "allow",
        }
    }
}

impl Ruleset {
    /// None: every policy of the route lets this address in. What is denied by any is told before what another does not
    /// allow. Where the address is, is asked of `place` by policies that want to know.
    pub fn shut_out(&self, rule: &Rule, address: IpAddr, place: impl Fn(IpAddr) -> Place) -> Option<ShutOut> {
        if rule.route.policies.is_empty() {
            return None;
        }
        let address = address.to_canonical();
        let verdict = |name: &Name| match self.policies.get(name) {
            Some(Asked::Addresses(it)) => it.shuts_out(address, &place),
            Some(Asked::Inspection(_) | Asked::Version(_) | Asked::Ai(_) | Asked::Mask(_)) => None,
            Some(Asked::Watch(_) | Asked::Agents(_) | Asked::Portal(_)) => None,
            // The state refuses a route whose policy is not there; should it be so all the same, nobody comes in.
            None => Some(Shut::NotAllowed),
        };
        let shut = rule.route.policies.iter().filter_map(|name| Some((name, verdict(name)?)));
        let (policy, how) = shut.min_by_key(|(_, how)| *how != Shut::Denied)?;
        Some(ShutOut { policy: policy.clone(), how })
    }

    /// The route's policies ask where somebody comes from, and nothing else.
    pub fn asks_addresses_only(&self, rule: &Rule) -> bool {
        rule.route.policies.iter().all(|name| matches!(self.policies.get(name), Some(Asked::Addresses(_))))
    }

    /// The route's policies that look at what a request says, in its order; those that are off are none. Free for routes
    /// without any.
    pub fn inspections(&self, rule: &Rule) -> Vec<Arc<Policy>> {
        let inspection = |name: &Name| match self.policies.get(name) {
            Some(Asked::Inspection(it)) if it.kind.look().is_some_and(|look| look.mode != PolicyMode::Off) => {
                Some(it.clone())
            }
            _ => None,
        };
        rule.route.policies.iter().filter_map(inspection).collect()
    }

    /// Of which version of an API the route is; of several, the first in its order. Free for routes without policies.
    pub fn version(&self, rule: &Rule) -> Option<&Arc<Policy>> {
        rule.route.policies.iter().find_map(|name| match self.policies.get(name) {
            Some(Asked::Version(it)) => Some(it),
            _ => None,
        })
    }

    /// Where the route's models are asked; of several, the first in its order. Free for routes without policies.
    pub fn ai(&self, rule: &Rule) -> Option<&Arc<Policy>> {
        rule.route.policies.iter().find_map(|name| match self.policies.get(name) {
            Some(Asked::Ai(it)) => Some(it),
            _ => None,
        })
    }

    /// The route's policies that watch how callers behave, in its order. Free for routes without policies.
    pub fn watches(&self, rule: &Rule) -> Vec<Arc<Policy>> {
        let watch = |name: &Name| match self.policies.get(name) {
            Some(Asked::Watch(it)) => Some(it.clone()),
            _ => None,
        };
        rule.route.policies.iter().filter_map(watch).collect()
    }

    /// All that watch how callers behave, whether or not a route has them.
    pub fn all_watches(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.values().filter_map(|it| match it {
            Asked::Watch(it) => Some(it),
            _ => None,
        })
    }

    /// Whether any policy goes by countries, and by autonomous systems.
    pub fn asks_places(&self) -> (bool, bool) {
        let all = self.policies.values().filter_map(|it| match it {
            Asked::Addresses(it) => it.places.as_ref(),
            _ => None,
        });
        all.fold((false, false), |(countries, asns), it| (countries | it.asks_countries(), asns | it.asks_asns()))
    }

    /// What the route hides of its upstreams' answers. Free for routes without policies.
    pub fn masks(&self, rule: &Rule) -> Vec<Arc<Mask>> {
        let mask = |name: &Name| match self.policies.get(name) {
            Some(Asked::Mask(it)) => Some(it.clone()),
            _ => None,
        };
        rule.route.policies.iter().filter_map(mask).collect()
    }

    /// Whether any policy that looks at what requests say is of this kind.
    pub fn has_inspection(&self, is: impl Fn(&PolicyKind) -> bool) -> bool {
        self.policies.values().any(|it| matches!(it, Asked::Inspection(it) if is(&it.kind)))
    }

    /// Those of this kind that look at what requests say.
    pub fn inspections_of(&self, is: impl Fn(&PolicyKind) -> bool) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.values().filter_map(move |it| match it {
            Asked::Inspection(it) if is(&it.kind) => Some(it),
            _ => None,
        })
    }

    /// Whether there is one of this name.
    pub fn has_policy(&self, name: &Name) -> bool {
        self.policies.contains_key(name)
    }

    /// Whether this very policy is asked still.
    pub fn asks(&self, policy: &Arc<Policy>) -> bool {
        let same = match self.policies.get(&policy.name) {
            Some(Asked::Inspection(it) | Asked::Version(it) | Asked::Ai(it) | Asked::Watch(it) | Asked::Portal(it)) => {
                it
            }
            _ => return false,
        };
        Arc::ptr_eq(same, policy)
    }
}

impl Asked {
    pub(super) fn of(policy: &Arc<Policy>) -> Self {
        match &policy.kind {
            PolicyKind::Ip(ip) => Self::Addresses(Arc::new(Addresses::new(ip))),
            PolicyKind::Version(_) => Self::Version(policy.clone()),
            PolicyKind::Ai(_) => Self::Ai(policy.clone()),
            PolicyKind::Anomaly(_) => Self::Watch(policy.clone()),
            PolicyKind::Bot(it) => Self::Agents(Arc::new(Agents::new(policy, it))),
            PolicyKind::Mask(it) => Self::Mask(Arc::new(Mask::new(policy.name.clone(), it))),
            PolicyKind::Portal(_) => Self::Portal(policy.clone()),
            _ => Self::Inspection(policy.clone()),
        }
    }
}

impl Addresses {
    fn new(ip: &IpPolicy) -> Self {
        let allow = ip.allow.as_slice();
        Self {
            allow: (!allow.is_empty()).then(|| Ranges::of(allow)),
            deny: Ranges::of(ip.deny.as_slice()),
            places: (!ip.places.is_empty()).then(|| ip.places.clone()),
        }
    }

    fn shuts_out(&self, address: IpAddr, place: impl Fn(IpAddr) -> Place) -> Option<Shut> {
        if self.deny.has(address) {
            return Some(Shut::Denied);
        }
        let by_net = self.allow.as_ref().map(|allow| allow.has(address));
        let Some(places) = &self.places else { return (by_net == Some(false)).then_some(Shut::NotAllowed) };
        let place = place(address);
        if places.denies(place) {
            return Some(Shut::Denied);
        }
        let by_place = places.allows_some().then(|| places.allows(place));
        let asked = by_net.is_some() || by_place.is_some();
        (asked && by_net != Some(true) && by_place != Some(true)).then_some(Shut::NotAllowed)
    }
}

#[derive(Debug, Default)]
struct Ranges {
    v4: Spans<u32>,
    v6: Spans<u128>,
}

/// First and last of each range, in order. Apart, since a search looks at the firsts alone.
#[derive(Debug, Default)]
struct Spans<T> {
    firsts: Vec<T>,
    lasts: Vec<T>,
}

impl Ranges {
    /// Of networks in their order, which is that of their first addresses.
    fn of(nets: &[IpNet]) -> Self {
        let mut ranges = Self::default();
        for net in nets {
            match net {
                IpNet::V4(it) => ranges.v4.push(it.network().to_bits(), it.broadcast().to_bits()),
                IpNet::V6(it) => ranges.v6.push(it.network().to_bits(), it.broadcast().to_bits()),
            }
        }
        ranges
    }

    fn has(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(it) => self.v4.has(it.to_bits()),
            IpAddr::V6(it) => self.v6.has(it.to_bits()),
        }
    }
}

impl<T: Ord + Copy> Spans<T> {
    /// Networks are one in the other or apart: what begins within the last range ends there too.
    fn push(&mut self, first: T, last: T) {
        match self.lasts.last() {
            Some(end) if first <= *end => assert!(last <= *end, "networks out of order"),
            _ => {
                self.firsts.push(first);
                self.lasts.push(last);
            }
        }
    }

    fn has(&self, address: T) -> bool {
        let behind = self.firsts.partition_point(|first| *first <= address);
        behind.checked_sub(1).is_some_and(|place| address <= self.lasts[place])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Nets;

    fn ranges(nets: &[&str]) -> Ranges {
        let nets = nets.iter().map(|it| it.parse().unwrap()).collect();
        Ranges::of(Nets::new("x", nets).unwrap().as_slice())
    }

    #[test]
    fn addresses_are_found_in_their_ranges_alone() {
        let it =
            ranges(&["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32", "0.0.0.0/32", "255.255.255.255/32", "2001:db8::/32"]);
        assert_eq!(it.v4.firsts.len(), 4, "what is in another range is none of its own");
        for (address, expected) in [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("9.255.255.255", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("0.0.0.0", true),
            ("0.0.0.1", false),
            ("255.255.255.255", true),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("::", false),
        ] {
            assert_eq!(it.has(address.parse().unwrap()), expected, "{address}");
        }
        assert!(ranges(&["0.0.0.0/0", "::/0"]).has("::1".parse().unwrap()));
        assert!(!Ranges::default().has("1.2.3.4".parse().unwrap()));
    }

    #[test]
    fn networks_and_places_are_asked_together() {
        let at = |country: &str, asn| Place { country: country.parse().ok(), asn };
        let words =
            |it: serde_json::Value| crate::resource::Kind::Policy.parse(serde_json::json!({ "name": "p", "ip": it }));
        let shut = |it: serde_json::Value, address: &str, place: Place| {
            let crate::resource::Resource::Policy(it) = words(it).unwrap() else { panic!("another kind") };
            let PolicyKind::Ip(ip) = &it.kind else { panic!("another kind") };
            let shut = Addresses::new(ip).shuts_out(address.parse().unwrap(), |_| place);
            shut.map(Shut::word).unwrap_or_default()
        };
        let it = serde_json::json!({ "allow": ["10.0.0.0/8"], "allow_countries": ["DE"], "deny_asns": [64500] });
        for (address, place, expected) in [
            ("10.0.0.1", at("", None), ""),
            ("192.0.2.1", at("DE", None), ""),
            ("192.0.2.1", at("FR", None), "allow"),
            ("192.0.2.1", at("", None), "allow"),
            ("10.0.0.1", at("DE", Some(64_500)), "deny"),
        ] {
            assert_eq!(shut(it.clone(), address, place), expected, "{address} {place:?}");
        }
        let only_denied = serde_json::json!({ "deny_countries": ["KP"], "deny": ["192.0.2.0/24"] });
        assert_eq!(shut(only_denied.clone(), "10.0.0.1", at("KP", None)), "deny");
        assert_eq!(shut(only_denied.clone(), "192.0.2.1", at("DE", None)), "deny");
        assert_eq!(shut(only_denied, "10.0.0.1", at("", None)), "");
        let strict = serde_json::json!({ "deny_countries": ["KP"], "unknown_place": "deny" });
        assert_eq!(shut(strict, "10.0.0.1", at("", Some(1))), "deny");
    }

    #[test]
    fn a_million_networks_are_looked_up_like_one_by_one() {
        // Every other /24 of 10.0.0.0/8 and around: what is in them follows from the address alone.
        let nets = (0..1_000_000u32).map(|n| {
            let first = n.wrapping_mul(2) << 8;
            IpNet::new(IpAddr::V4(first.into()), 24).unwrap()
        });
        let it = Ranges::of(Nets::new("x", nets.collect()).unwrap().as_slice());
        assert_eq!(it.v4.firsts.len(), 1_000_000);
        let mut address = 1u32;
        for _ in 0..100_000 {
            address = address.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let expected = (address >> 8) < 2_000_000 && (address >> 8).is_multiple_of(2);
            assert_eq!(it.has(IpAddr::V4(address.into())), expected, "{address:x}");
        }
    }
}
