//! What all workers share about the upstreams: targets, their health and load, and the counters.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use imbl::{OrdMap, ordmap::DiffItem};
use quorumgate_model::{
    resource::{Authority, Name, Upstream},
    ruleset::Ruleset,
};
use tokio::sync::watch;

use super::{
    counters::{Counters, FAMILIES, Family},
    endpoint::Endpoint,
};

/// Process-wide. Rebuilt on publish; a target that did not change keeps its health, load and connections.
pub struct Registry {
    origins: ArcSwap<Origins>,
    /// What only those who change the origins need.
    book: Mutex<Book>,
    /// Moves with every change of `origins`, so that a worker sees by one load whether its view still holds.
    version: AtomicU64,
    /// The same for those who wait.
    changed: watch::Sender<u64>,
    workers: AtomicUsize,
}

pub(super) type Origins = OrdMap<Name, Arc<Origin>>;

/// One upstream at one instant.
pub(super) struct Origin {
    pub config: Arc<Upstream>,
    pub members: Vec<Member>,
    pub counters: Arc<Counters>,
    /// Retries under way.
    pub retrying: Arc<AtomicU32>,
    /// Some name has not been looked up yet for the first time.
    pub resolving: bool,
    /// No longer in the ruleset: kept for one more publish, for exchanges that still run on the one before.
    pub retired: bool,
}

/// One address of a target.
pub(super) struct Member {
    pub endpoint: Arc<Endpoint>,
    pub weight: u32,
}

#[derive(Default)]
struct Book {
    /// Of the last publish.
    upstreams: OrdMap<Name, Arc<Upstream>>,
    /// Those that the last publish retired.
    retired: Vec<Name>,
    /// None: not looked up yet. A failed look-up keeps the last addresses.
    names: BTreeMap<String, Option<Vec<IpAddr>>>,
}

/// One configured target as `upstream ls` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetHealth {
    /// As configured: `host:port`.
    pub target: String,
    /// How many addresses it stands for now, and how many of those are healthy.
    pub addresses: usize,
    pub healthy: usize,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            origins: ArcSwap::default(),
            book: Mutex::default(),
            version: AtomicU64::new(1),
            changed: watch::Sender::new(1),
            workers: AtomicUsize::new(0),
        }
    }
}

impl Registry {
    pub fn new() -> Self {
        Self::default()
    }

    /// When this returns, every worker uses the new upstreams for its next call. The cost goes with the number of
    /// differences. Names are resolved by `run_health_checks`; calls to an upstream whose names were never looked up
    /// wait for that.
    pub fn publish(&self, ruleset: &Ruleset) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut book.upstreams, ruleset.upstreams.clone());
        if before.ptr_eq(&book.upstreams) {
            return;
        }
        book.follow_names();
        let mut origins = Origins::clone(&self.origins.load());
        let retired = std::mem::take(&mut book.retired);
        for difference in before.diff(&ruleset.upstreams) {
            match difference {
                DiffItem::Add(name, config) | DiffItem::Update { new: (name, config), .. } => {
                    let origin = Origin::build(config, origins.get(name), &book);
                    origins.insert(name.clone(), origin);
                }
                DiffItem::Remove(name, _) => {
                    let Some(origin) = origins.get(name).map(|origin| origin.retire()) else { continue };
                    origins.insert(name.clone(), Arc::new(origin));
                    book.retired.push(name.clone());
                }
            }
        }
        for name in retired {
            // Unless it has come back.
            if origins.get(&name).is_some_and(|origin| origin.retired) {
                origins.remove(&name);
            }
        }
        self.swap(origins);
    }

    /// What the resolver found for some names.
    pub(super) fn resolved(&self, found: Vec<(String, Vec<IpAddr>)>) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let mut moved = false;
        for (name, addresses) in found {
            if let Some(known) = book.names.get_mut(&name) {
                moved |= known.as_ref() != Some(&addresses);
                *known = Some(addresses);
            }
        }
        if !moved {
            return;
        }
        let before = self.origins();
        let mut origins = Origins::clone(&before);
        let named = |origin: &Origin| origin.config.targets.iter().any(|target| !is_ip(&target.address));
        for (name, origin) in before.iter().filter(|(_, origin)| !origin.retired && named(origin)) {
            origins.insert(name.clone(), Origin::build(&origin.config, Some(origin), &book));
        }
        self.swap(origins);
    }

    fn swap(&self, origins: Origins) {
        self.origins.store(Arc::new(origins));
        let version = self.version.fetch_add(1, Ordering::Release) + 1;
        self.changed.send_replace(version);
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn origins(&self) -> Arc<Origins> {
        self.origins.load_full()
    }

    pub(super) fn origin(&self, name: &str) -> Option<Arc<Origin>> {
        self.origins.load().get(name).cloned()
    }

    /// The names to look up, each with its last good addresses; None before the first look-up.
    pub(super) fn names(&self) -> BTreeMap<String, Option<Vec<IpAddr>>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner).names.clone()
    }

    /// A number for the next worker.
    pub(super) fn enlist(&self) -> usize {
        self.workers.fetch_add(1, Ordering::Relaxed)
    }

    /// By target, in the order of the configuration. Empty for an unknown upstream.
    pub fn health(&self, upstream: &str) -> Vec<TargetHealth> {
        self.origin(upstream).map(|origin| origin.health()).unwrap_or_default()
    }

    /// Appends the Prometheus text of the `quorumgate_upstream_*` families.
    pub fn metrics(&self, out: &mut String) {
        let origins = self.origins();
        let origins = || origins.iter().filter(|(_, origin)| !origin.retired);
        for family in &FAMILIES {
            family.write_head(out);
            origins().for_each(|(name, origin)| origin.counters.write(family, name, out));
        }
        Family::HEALTHY.write_head(out);
        for (name, origin) in origins() {
            for TargetHealth { target, healthy, .. } in origin.health() {
                let healthy = u8::from(healthy > 0);
                let _ =
                    writeln!(out, "quorumgate_upstream_healthy{{upstream=\"{name}\",target=\"{target}\"}} {healthy}");
            }
        }
    }
}

impl Book {
    /// Forgets names that no upstream has any more, and learns new ones.
    fn follow_names(&mut self) {
        let mut known = std::mem::take(&mut self.names);
        let targets = self.upstreams.values().flat_map(|upstream| &upstream.targets);
        for target in targets.filter(|target| !is_ip(&target.address)) {
            let host = &target.address.host;
            if !self.names.contains_key(host) {
                self.names.insert(host.clone(), known.remove(host).flatten());
            }
        }
    }

    /// Empty if the name is not resolved.
    fn addresses(&self, target: &Authority) -> Vec<SocketAddr> {
        let ips = match target.host.parse() {
            Ok(ip) => vec![ip],
            Err(_) => self.names.get(&target.host).cloned().flatten().unwrap_or_default(),
        };
        ips.into_iter().map(|ip| SocketAddr::new(ip, target.port)).collect()
    }

    fn is_pending(&self, target: &Authority) -> bool {
        matches!(self.names.get(&target.host), Some(None))
    }
}

fn is_ip(target: &Authority) -> bool {
    target.host.parse::<IpAddr>().is_ok()
}

impl Origin {
    /// Members whose target and address are in `before` too keep their endpoint, and with it all that is known of them.
    fn build(config: &Arc<Upstream>, before: Option<&Arc<Origin>>, book: &Book) -> Arc<Self> {
        // Connections belong to endpoints, so another protocol needs others.
        let reusable = before.filter(|before| before.config.protocol == config.protocol);
        let mut known = HashMap::new();
        for member in reusable.iter().flat_map(|before| &before.members) {
            known.insert((&*member.endpoint.target, member.endpoint.address), &member.endpoint);
        }
        let mut members = Vec::with_capacity(config.targets.len());
        for target in &config.targets {
            let text: Arc<str> = target.address.to_string().into();
            for address in book.addresses(&target.address) {
                let endpoint = match known.get(&(&*text, address)) {
                    Some(endpoint) => Arc::clone(endpoint),
                    None => Arc::new(Endpoint::new(address, text.clone())),
                };
                if config.health.is_none() {
                    endpoint.set_healthy(true);
                }
                members.push(Member { endpoint, weight: target.weight.value() });
            }
        }
        let counters = before.map(|before| before.counters.clone()).unwrap_or_default();
        let retrying = before.map(|before| before.retrying.clone()).unwrap_or_default();
        let resolving = config.targets.iter().any(|target| book.is_pending(&target.address));
        Arc::new(Self { config: config.clone(), members, counters, retrying, resolving, retired: false })
    }

    fn retire(&self) -> Self {
        let copy = |member: &Member| Member { endpoint: member.endpoint.clone(), weight: member.weight };
        Self {
            config: self.config.clone(),
            members: self.members.iter().map(copy).collect(),
            counters: self.counters.clone(),
            retrying: self.retrying.clone(),
            resolving: false,
            retired: true,
        }
    }

    fn health(&self) -> Vec<TargetHealth> {
        let of = |target: &Authority| {
            let target = target.to_string();
            let members = || self.members.iter().filter(|member| *member.endpoint.target == *target);
            let healthy = members().filter(|member| member.endpoint.is_healthy()).count();
            TargetHealth { addresses: members().count(), healthy, target }
        };
        self.config.targets.iter().map(|target| of(&target.address)).collect()
    }
}
