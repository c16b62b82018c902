//! One worker's view of the upstreams: its connections, and whose turn it is.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use quorumgate_model::resource::Name;

use super::{
    Registry,
    balance::{Balancer, Random},
    counters::Gauge,
    endpoint::Endpoint,
    latencies::Latencies,
    origin::Origin,
    pool::Pool,
};

/// How often idle connections are looked through.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Worker {
    pub registry: Arc<Registry>,
    pub random: Random,
    number: usize,
    views: RefCell<HashMap<Name, Rc<View>>>,
    sweeping: Cell<bool>,
}

/// One upstream as this worker sees it: stays as it is while a call uses it.
pub(super) struct View {
    pub origin: Arc<Origin>,
    pub slots: Vec<Slot>,
    pub balancer: Balancer,
    pub gauge: Gauge,
    /// Kept where slow answers are asked for twice.
    pub latencies: Rc<Latencies>,
    /// Some answers are tried again for their status.
    pub retries_statuses: bool,
    /// The registry's version at which this view was last seen to be right.
    version: Cell<u64>,
}

pub(super) struct Slot {
    pub endpoint: Arc<Endpoint>,
    pub weight: u32,
    pub pool: Rc<Pool>,
}

impl Worker {
    pub fn new(registry: Arc<Registry>) -> Self {
        let number = registry.enlist();
        Self { registry, random: Random::new(), number, views: RefCell::default(), sweeping: Cell::new(false) }
    }

    /// None: no upstream of this name.
    pub fn view(self: &Rc<Self>, name: &str) -> Option<Rc<View>> {
        let version = self.registry.version();
        if let Some(view) = self.views.borrow().get(name)
            && view.version.get() == version
        {
            return Some(view.clone());
        }
        self.renew(name, version)
    }

    fn renew(self: &Rc<Self>, name: &str, version: u64) -> Option<Rc<View>> {
        self.sweep_from_now_on();
        let mut views = self.views.borrow_mut();
        let Some(origin) = self.registry.origin(name) else {
            views.remove(name);
            return None;
        };
        let before = views.get(name);
        if let Some(view) = before.filter(|view| Arc::ptr_eq(&view.origin, &origin)) {
            view.version.set(version);
            return Some(view.clone());
        }
        let view = Rc::new(View::build(origin, before.map(|view| &**view), self.number, version));
        views.insert(view.origin.config.name.clone(), view.clone());
        Some(view)
    }

    fn sweep_from_now_on(self: &Rc<Self>) {
        if !self.sweeping.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(self)));
        }
    }

    fn sweep(&self) {
        let origins = self.registry.origins();
        let mut views = self.views.borrow_mut();
        views.retain(|name, _| origins.contains_key(name));
        for slot in views.values().flat_map(|view| &view.slots) {
            slot.pool.sweep();
        }
    }
}

/// Ends with its worker.
async fn sweep(worker: Weak<Worker>) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        ticks.tick().await;
        let Some(worker) = worker.upgrade() else { return };
        worker.sweep();
    }
}

impl View {
    fn build(origin: Arc<Origin>, before: Option<&View>, worker: usize, version: u64) -> Self {
        let gauge = Gauge::new(origin.counters.clone(), worker);
        let mut known = HashMap::new();
        for slot in before.iter().flat_map(|view| &view.slots) {
            known.insert(Arc::as_ptr(&slot.endpoint), &slot.pool);
        }
        let slot = |endpoint: &Arc<Endpoint>, weight| {
            let pool = match known.get(&Arc::as_ptr(endpoint)) {
                Some(pool) => Rc::clone(pool),
                None => Rc::new(Pool::new(endpoint.clone(), origin.dialer.clone(), gauge.clone())),
            };
            Slot { endpoint: endpoint.clone(), weight, pool }
        };
        let slots: Vec<_> = origin.members.iter().map(|member| slot(&member.endpoint, member.weight)).collect();
        let balancer = Balancer::new(&origin, &slots);
        let latencies = before.map(|view| view.latencies.clone()).unwrap_or_default();
        let retries_statuses = origin.config.retries.on.iter().any(|on| on.is_status());
        Self { origin, slots, balancer, gauge, latencies, retries_statuses, version: Cell::new(version) }
    }
}
