//! Policies as requests meet them. Those of kind `ip` are compiled: the networks as ranges that do not touch, so that a look-up
//! in a million is twenty steps.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{Rule, Ruleset};
use crate::resource::{IpPolicy, Name, Policy, PolicyKind, PolicyMode};

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
}

/// One policy of kind `ip`.
#[derive(Debug)]
pub(super) struct Addresses {
    /// None: everybody who is not denied.
    allow: Option<Ranges>,
    deny: Ranges,
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
    /// allow.
    pub fn shut_out(&self, rule: &Rule, address: IpAddr) -> Option<ShutOut> {
        if rule.route.policies.is_empty() {
            return None;
        }
        let address = address.to_canonical();
        let verdict = |name: &Name| match self.policies.get(name) {
            Some(Asked::Addresses(it)) => it.shuts_out(address),
            Some(Asked::Inspection(_) | Asked::Version(_) | Asked::Ai(_)) => None,
            // The state refuses a route whose policy is not there; should it be so all the same, nobody comes in.
            None => Some(Shut::NotAllowed),
        };
        let shut = rule.route.policies.iter().filter_map(|name| Some((name, verdict(name)?)));
        let (policy, how) = shut.min_by_key(|(_, how)| *how != Shut::Denied)?;
        Some(ShutOut { policy: policy.clone(), how })
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
        matches!(self.policies.get(&policy.name), Some(Asked::Inspection(it) | Asked::Version(it) | Asked::Ai(it)) if Arc::ptr_eq(it, policy))
    }
}

impl Asked {
    pub(super) fn of(policy: &Arc<Policy>) -> Self {
        match &policy.kind {
            PolicyKind::Ip(ip) => Self::Addresses(Arc::new(Addresses::new(ip))),
            PolicyKind::Version(_) => Self::Version(policy.clone()),
            PolicyKind::Ai(_) => Self::Ai(policy.clone()),
            _ => Self::Inspection(policy.clone()),
        }
    }
}

impl Addresses {
    fn new(ip: &IpPolicy) -> Self {
        let allow = ip.allow.as_slice();
        Self { allow: (!allow.is_empty()).then(|| Ranges::of(allow)), deny: Ranges::of(ip.deny.as_slice()) }
    }

    fn shuts_out(&self, address: IpAddr) -> Option<Shut> {
        if self.deny.has(address) {
            return Some(Shut::Denied);
        }
        let allowed = self.allow.as_ref().is_none_or(|allow| allow.has(address));
        (!allowed).then_some(Shut::NotAllowed)
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
