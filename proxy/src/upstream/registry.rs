//! What all workers share about the upstreams: targets, their health and load, and the counters.

use std::{
    collections::BTreeMap,
    fmt::Write,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use imbl::{OrdMap, ordmap::DiffItem};
use quorumgate_model::{
    resource::{Authority, CertificateAuthority, Name, Upstream},
    ruleset::Ruleset,
};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use super::{
    breaker::BreakerState,
    counters::{FAMILIES, Family},
    dialer::Shown,
    origin::{Origin, TargetHealth, UpstreamHealth, is_ip},
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
    /// Who is asked for names; empty: whoever the system asks.
    name_servers: Vec<SocketAddr>,
}

pub(super) type Origins = OrdMap<Name, Arc<Origin>>;

#[derive(Default)]
pub(super) struct Book {
    /// Where this node is.
    pub region: String,
    /// Of the last publish.
    upstreams: OrdMap<Name, Arc<Upstream>>,
    authorities: OrdMap<Name, Arc<CertificateAuthority>>,
    /// What this node can show.
    certificates: BTreeMap<Name, Shown>,
    /// Those that the last publish retired.
    retired: Vec<Name>,
    /// None: not looked up yet. A failed look-up keeps the last addresses.
    names: BTreeMap<String, Option<Vec<IpAddr>>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            origins: ArcSwap::default(),
            book: Mutex::default(),
            version: AtomicU64::new(1),
            changed: watch::Sender::new(1),
            workers: AtomicUsize::new(0),
            name_servers: Vec::new(),
        }
    }
}

impl Registry {
    pub fn new() -> Self {
        Self::default()
    }

    /// Of a node that prefers the targets of this region.
    pub fn in_region(region: &str) -> Self {
        Self { book: Mutex::new(Book::in_region(region)), ..Self::default() }
    }

    /// Names are asked of these servers, and of nobody else.
    pub fn asking(mut self, name_servers: &[SocketAddr]) -> Self {
        self.name_servers = name_servers.to_vec();
        self
    }

    /// When this returns, every worker uses the new upstreams for its next call. The cost goes with the number of
    /// differences. Names are resolved by `run_health_checks`; calls to an upstream whose names were never looked up
    /// wait for that.
    pub fn publish(&self, ruleset: &Ruleset) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut book.upstreams, ruleset.upstreams.clone());
        let vouched_by = std::mem::replace(&mut book.authorities, ruleset.authorities.clone());
        if before.ptr_eq(&book.upstreams) && vouched_by.ptr_eq(&book.authorities) {
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
        if !vouched_by.ptr_eq(&book.authorities) {
            for (name, config) in book.upstreams.iter().filter(|(_, config)| config.tls.is_some()) {
                let origin = Origin::build(config, origins.get(name), &book);
                origins.insert(name.clone(), origin);
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

    /// The certificates that this node can show, all of them: connections made with one that is gone are closed.
    pub fn show(&self, certificates: BTreeMap<Name, Arc<CertifiedKey>>) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let certificates = certificates.into_iter().map(|(name, key)| (name, Shown(key))).collect();
        if book.certificates == certificates {
            return;
        }
        book.certificates = certificates;
        let before = self.origins();
        let mut origins = Origins::clone(&before);
        let shows = |origin: &Origin| origin.config.tls.as_ref().is_some_and(|tls| tls.client_certificate.is_some());
        for (name, origin) in before.iter().filter(|(_, origin)| !origin.retired && shows(origin)) {
            origins.insert(name.clone(), Origin::build(&origin.config, Some(origin), &book));
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

    pub(super) fn name_servers(&self) -> &[SocketAddr] {
        &self.name_servers
    }

    /// A number for the next worker.
    pub(super) fn enlist(&self) -> usize {
        self.workers.fetch_add(1, Ordering::Relaxed)
    }

    /// None: no such upstream is served here.
    pub fn state(&self, upstream: &str) -> Option<UpstreamHealth> {
        self.origin(upstream).filter(|origin| !origin.retired).map(|origin| origin.state())
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
        let targets: Vec<(&Name, Vec<TargetHealth>)> = origins().map(|(name, it)| (name, it.health())).collect();
        let by_target = |family: Family, value: fn(&TargetHealth) -> usize, out: &mut String| {
            family.write_head(out);
            for (name, target) in targets.iter().flat_map(|(name, all)| all.iter().map(move |it| (name, it))) {
                let (family, value, target) = (family.name, value(target), &target.target);
                let labels = format!("upstream=\"{name}\",target=\"{target}\"");
                let _ = writeln!(out, "quorumgate_upstream_{family}{{{labels}}} {value}");
            }
        };
        by_target(Family::HEALTHY, |it| usize::from(it.healthy > 0), out);
        by_target(Family::EJECTED, |it| it.ejected, out);
        by_target(Family::IN_FLIGHT, |it| it.in_flight as usize, out);
        let states: Vec<(&Name, UpstreamHealth)> = origins().map(|(name, origin)| (name, origin.state())).collect();
        Family::BREAKER.write_head(out);
        for (name, breaker) in states.iter().filter_map(|(name, state)| Some((name, state.breaker?))) {
            let open = match breaker {
                BreakerState::Closed => "0",
                BreakerState::HalfOpen => "0.5",
                BreakerState::Open => "1",
            };
            let _ = writeln!(out, "quorumgate_upstream_breaker_open{{upstream=\"{name}\"}} {open}");
        }
        Family::OPENED.write_head(out);
        for (name, state) in states.iter().filter(|(_, state)| state.breaker.is_some()) {
            let opened = state.breaker_opened;
            let _ = writeln!(out, "quorumgate_upstream_breaker_opened_total{{upstream=\"{name}\"}} {opened}");
        }
    }
}

impl Book {
    pub fn in_region(region: &str) -> Self {
        Self { region: region.to_owned(), ..Self::default() }
    }

    /// Who vouches for the upstream's servers, where the configuration says who.
    pub fn authority(&self, config: &Upstream) -> Option<&Arc<CertificateAuthority>> {
        config.tls.as_ref().and_then(|tls| self.authorities.get(tls.ca.as_ref()?))
    }

    /// What the upstream's servers are shown, where the configuration says what.
    pub fn shown(&self, config: &Upstream) -> Option<&Shown> {
        config.tls.as_ref().and_then(|tls| self.certificates.get(tls.client_certificate.as_ref()?))
    }

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
    pub fn addresses(&self, target: &Authority) -> Vec<SocketAddr> {
        let ips = match target.host.parse() {
            Ok(ip) => vec![ip],
            Err(_) => self.names.get(&target.host).cloned().flatten().unwrap_or_default(),
        };
        ips.into_iter().map(|ip| SocketAddr::new(ip, target.port)).collect()
    }

    pub fn is_pending(&self, target: &Authority) -> bool {
        matches!(self.names.get(&target.host), Some(None))
    }
}
