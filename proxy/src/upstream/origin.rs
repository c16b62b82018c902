//! One upstream at one instant: its targets' addresses, in which order they come, and what outlives a change of them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use quorumgate_model::resource::{Authority, BalancePolicy, Upstream};

use super::{
    breaker::{Breaker, BreakerState},
    budget::Budget,
    counters::Counters,
    dialer::Dialer,
    endpoint::{Endpoint, nanos},
    maglev::{Seat, Table},
    outlier::Outliers,
    registry::Book,
};

pub(super) struct Origin {
    pub config: Arc<Upstream>,
    pub members: Vec<Member>,
    /// Who is asked first; every member is in one of them.
    pub ranks: Vec<Rank>,
    pub dialer: Arc<Dialer>,
    pub counters: Arc<Counters>,
    pub standing: Standing,
    /// Some name has not been looked up yet for the first time.
    pub resolving: bool,
    /// No longer in the ruleset: kept for one more publish, for exchanges that still run on the one before.
    pub retired: bool,
}

/// What the calls so far have shown, and what depends on that. Outlives changes of the configuration.
#[derive(Clone, Default)]
pub(super) struct Standing {
    pub budget: Arc<Budget>,
    pub outliers: Arc<Outliers>,
    pub breaker: Arc<Breaker>,
    /// When the last target that is new or back will have been here for long.
    settled_ns: Arc<AtomicU64>,
}

/// One address of a target.
#[derive(Clone)]
pub(super) struct Member {
    pub endpoint: Arc<Endpoint>,
    pub weight: u32,
    pub priority: u32,
    /// In another region than this node.
    pub far: bool,
}

/// Members that are alike in priority and nearness.
pub(super) struct Rank {
    /// By their places in `members`.
    pub members: Vec<usize>,
    /// Where a key decides.
    pub table: Option<Arc<Table>>,
}

/// One configured target as `upstream health` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetHealth {
    /// As configured: `host:port`.
    pub target: String,
    /// How many addresses it stands for now, and how many of those pass their checks.
    pub addresses: usize,
    pub healthy: usize,
    /// How many are left alone because of their answers, and until when at the latest.
    pub ejected: usize,
    pub ejected_for: Duration,
    /// Requests there now, with their answers.
    pub in_flight: u32,
    pub priority: u32,
    pub zone: Option<String>,
}

/// What this node knows of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamHealth {
    pub targets: Vec<TargetHealth>,
    /// None: the upstream has no breaker.
    pub breaker: Option<BreakerState>,
    pub breaker_opened: u64,
    pub retries_running: u32,
}

impl Member {
    #[cfg(test)]
    pub fn plain(endpoint: Arc<Endpoint>) -> Self {
        Self { endpoint, weight: 1, priority: 0, far: false }
    }
}

impl Origin {
    /// Members whose target and address are in `before` too keep their endpoint, and with it all that is known of them.
    pub fn build(config: &Arc<Upstream>, before: Option<&Arc<Origin>>, book: &Book) -> Arc<Self> {
        let dialer = Dialer::build(config, book, before.map(|before| &before.dialer));
        // Connections belong to endpoints, so another way of making them needs others.
        let reusable = before.filter(|before| Arc::ptr_eq(&before.dialer, &dialer));
        let standing = before.map(|before| before.standing.clone()).unwrap_or_default();
        let mut known = HashMap::new();
        for member in reusable.iter().flat_map(|before| &before.members) {
            known.insert((&*member.endpoint.target, member.endpoint.address), &member.endpoint);
        }
        let mut members = Vec::with_capacity(config.targets.len());
        for target in &config.targets {
            let text: Arc<str> = target.address.to_string().into();
            let far = target.zone.as_ref().is_some_and(|zone| !book.region.is_empty() && *zone != book.region);
            for address in book.addresses(&target.address) {
                let endpoint = match known.get(&(&*text, address)) {
                    Some(endpoint) => Arc::clone(endpoint),
                    None => {
                        let endpoint = Arc::new(Endpoint::new(address, text.clone()));
                        // Beside others that have been here for long; where all are new they are alike.
                        if !known.is_empty() {
                            standing.settle(&endpoint, nanos(Instant::now()), config.slow_start.0);
                        }
                        endpoint
                    }
                };
                if config.health.is_none() {
                    endpoint.set_healthy(true);
                }
                members.push(Member { endpoint, weight: target.weight.value(), priority: target.priority, far });
            }
        }
        let ranks = ranks(config, &members, before.map_or(&[], |before| &before.ranks));
        let counters = before.map(|before| before.counters.clone()).unwrap_or_default();
        let resolving = config.targets.iter().any(|target| book.is_pending(&target.address));
        let config = config.clone();
        Arc::new(Self { config, members, ranks, dialer, counters, standing, resolving, retired: false })
    }

    pub fn retire(&self) -> Self {
        let rank = |rank: &Rank| Rank { members: rank.members.clone(), table: rank.table.clone() };
        Self {
            config: self.config.clone(),
            members: self.members.clone(),
            ranks: self.ranks.iter().map(rank).collect(),
            dialer: self.dialer.clone(),
            counters: self.counters.clone(),
            standing: self.standing.clone(),
            resolving: false,
            retired: true,
        }
    }

    /// An answer of a target was an error, or there was none. Whether that was one too many.
    pub fn failed(&self, endpoint: &Endpoint, now: Instant) -> bool {
        let now_ns = nanos(now);
        let Some(length) = self.standing.outliers.erred(&self.config.outlier, &self.members, endpoint, now_ns) else {
            return false;
        };
        let settled = now_ns + (length + self.config.slow_start.0).as_nanos() as u64;
        self.standing.settled_ns.fetch_max(settled, Relaxed);
        let (upstream, target, address) = (&*self.config.name, &*endpoint.target, endpoint.address);
        tracing::warn!(upstream, target, %address, ?length, "target is left alone: too many errors in a row");
        true
    }

    /// A target passes its checks again.
    pub fn is_back(&self, endpoint: &Endpoint, now: Instant) {
        self.standing.settle(endpoint, nanos(now), self.config.slow_start.0);
    }

    /// The length of slow start, while any target is in it.
    pub fn slow_start_ns(&self, now_ns: u64) -> Option<u64> {
        let any = self.standing.settled_ns.load(Relaxed) > now_ns;
        any.then(|| self.config.slow_start.0.as_nanos() as u64)
    }

    /// 0: any number.
    pub fn in_flight_max(&self) -> u32 {
        self.config.breaker.as_ref().map_or(0, |breaker| breaker.max_in_flight)
    }

    pub fn health(&self) -> Vec<TargetHealth> {
        let now_ns = nanos(Instant::now());
        let mut by_target: BTreeMap<&str, Vec<&Member>> = BTreeMap::new();
        for member in &self.members {
            by_target.entry(&member.endpoint.target).or_default().push(member);
        }
        let of = |target: &quorumgate_model::resource::Target| {
            let name = target.address.to_string();
            let members = by_target.get(&*name).map(Vec::as_slice).unwrap_or_default();
            let ejected = members.iter().filter_map(|member| member.endpoint.ejected_for(now_ns));
            TargetHealth {
                addresses: members.len(),
                healthy: members.iter().filter(|member| member.endpoint.is_healthy()).count(),
                ejected: ejected.clone().count(),
                ejected_for: ejected.max().unwrap_or_default(),
                in_flight: members.iter().map(|member| member.endpoint.in_flight()).sum(),
                priority: target.priority,
                zone: target.zone.clone(),
                target: name,
            }
        };
        self.config.targets.iter().map(of).collect()
    }

    pub fn state(&self) -> UpstreamHealth {
        let breaker = &self.standing.breaker;
        UpstreamHealth {
            targets: self.health(),
            breaker: self.config.breaker.as_ref().map(|_| breaker.state(nanos(Instant::now()))),
            breaker_opened: breaker.opened(),
            retries_running: self.standing.budget.running(),
        }
    }
}

impl Standing {
    fn settle(&self, endpoint: &Endpoint, now_ns: u64, slow_start: Duration) {
        endpoint.is_here_since(now_ns);
        self.settled_ns.fetch_max(now_ns + slow_start.as_nanos() as u64, Relaxed);
    }
}

/// By priority, then nearness.
fn ranks(config: &Upstream, members: &[Member], before: &[Rank]) -> Vec<Rank> {
    let mut places: BTreeMap<(u32, bool), Vec<usize>> = BTreeMap::new();
    for (i, member) in members.iter().enumerate() {
        places.entry((member.priority, member.far)).or_default().push(i);
    }
    let keyed = config.balance.policy == BalancePolicy::Maglev || config.balance.hash_on.is_some();
    let rank = |members: Vec<usize>, seats: Vec<Seat>| {
        let table = keyed.then(|| {
            let known = before.iter().filter_map(|rank| rank.table.as_ref()).find(|table| table.is_of(&seats));
            known.cloned().unwrap_or_else(|| Arc::new(Table::build(seats)))
        });
        Rank { members, table }
    };
    let seat = |i: &usize| {
        let Member { endpoint, weight, .. } = &members[*i];
        Seat { target: endpoint.target.clone(), address: endpoint.address, weight: *weight }
    };
    places.into_values().map(|places| (places.iter().map(seat).collect(), places)).map(|(s, p)| rank(p, s)).collect()
}

/// Whether the target is an address, not a name.
pub(super) fn is_ip(target: &Authority) -> bool {
    target.host.parse::<std::net::IpAddr>().is_ok()
}
