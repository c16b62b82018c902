//! One worker: a thread with a single-threaded runtime that accepts, serves and forwards on its own; it shares the
//! ruleset and nothing else that is locked per request.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use hyper::server::conn::http1;
use quorumgate_model::ruleset::Ruleset;
use tokio::{
    net::TcpListener,
    runtime::{Builder, LocalOptions},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use crate::{
    access_log::AccessLog,
    ai::Models,
    anomaly::{self, Verdicts},
    cache::{Flights, Store},
    connection::{self, Conn},
    freshness::{self, Freshness},
    identity::{Identity, directory::Directory, ladder::Kept, streams},
    ids::Ids,
    inspect::{Contracts, Inspectors},
    limits::Limits,
    listeners::Order,
    live::{Grant, LiveTable},
    metrics::{NO_ROUTE, RouteMetrics, WorkerMetrics},
    overload::Overload,
    passthrough,
    per_ip::PerIp,
    plan::Plans,
    recent::{self, Ask, Recent},
    reception::Open,
    settings::Settings,
    upstream::{Pools, Registry},
    versions::Versions,
};

/// How exact the clocks of connections are.
const TICK: Duration = Duration::from_millis(100);
/// Turns of tasks between looks for what has come in, if so many wait: measured, 61 (the default) cost 2 to 3 % more
/// processor time a request, as what is sent in one go wakes those who wait for it less often; 1,000 gained no more.
const TURNS_PER_LOOK: u32 = 256;
/// So often the allocator is asked for a piece of this size. With such a piece it gives what has been unused for a second
/// back to the system; left alone it waits for one, and after a burst of connections none may come.
const TRIM_EVERY_MS: u64 = 1_000;
const TRIM_BYTES: usize = 1 << 20;
pub(crate) const SCRATCH_BYTES: usize = 16 << 10;
/// How long what lasts may take to end in good order once the grace is over: longer than a tunnel's last words.
const FAREWELL: Duration = Duration::from_millis(700);
const FAREWELL_POLL: Duration = Duration::from_millis(10);
/// After an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) ruleset: ArcSwap<Ruleset>,
    pub(crate) freshness: Arc<Freshness>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) cache: Store,
    pub(crate) contracts: Contracts,
    /// Who was found to behave unlike others.
    pub(crate) verdicts: Arc<Verdicts>,
    pub(crate) per_ip: PerIp,
    /// Traces whose id is below it are sampled, of 2^62; 0: none is looked at.
    pub(crate) trace_below: AtomicU64,
    /// Stop accepting and ask clients to go.
    pub(crate) drain: CancellationToken,
    /// End at once.
    pub(crate) stop: CancellationToken,
    /// Workers that have not ended.
    pub(crate) running: AtomicUsize,
    /// A worker has broken down, and what it served is not served.
    pub(crate) broken: CancellationToken,
    /// Makes a worker's clock panic, as its test asks for.
    #[cfg(test)]
    pub(crate) break_clock: std::sync::atomic::AtomicBool,
    /// Exchanges that the end of a drain cut off.
    pub(crate) cut: AtomicUsize,
}

/// A worker before it has a thread.
pub(crate) struct Seed {
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: Arc<WorkerMetrics>,
    pub(crate) access_log: AccessLog,
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) asked: mpsc::Receiver<Ask>,
}

pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: Arc<WorkerMetrics>,
    pub(crate) access_log: AccessLog,
    pub(crate) pools: Pools,
    pub(crate) ids: Ids,
    pub(crate) http1: http1::Builder,
    pub(crate) conns: RefCell<HashMap<usize, Rc<Conn>>>,
    /// Where heads are read to be looked at; used within one poll only.
    pub(crate) scratch: RefCell<Vec<u8>>,
    /// Where bytes of tunnels are read to; used within one poll only.
    pub(crate) tunnel_scratch: RefCell<Vec<u8>>,
    pub(crate) live: LiveTable,
    /// The connections that were asked to go since their listener is gone or asks for more, and when.
    leaving: RefCell<Vec<(u64, Weak<Conn>)>>,
    /// What was looked up for authentication.
    pub(crate) kept: Kept,
    pub(crate) plans: Plans,
    pub(crate) inspectors: Inspectors,
    pub(crate) versions: Versions,
    pub(crate) models: Models,
    pub(crate) server_names: passthrough::Cache,
    /// What it has seen of callers whose routes are watched.
    pub(crate) watched: anomaly::Table,
    /// The exchanges that it served last.
    pub(crate) recent: Recent,
    /// Copies of requests for mirrors that are under way.
    pub(crate) mirrors: Cell<usize>,
    /// What is asked for a cache.
    pub(crate) cache_flights: Flights,
    /// Counts requests that no route took.
    pub(crate) unmatched: Arc<RouteMetrics>,
    pub(crate) overload: Overload,
    started: Instant,
    /// Coarse, advanced by each tick.
    now_ms: Cell<u64>,
    /// The wall clock at the last tick.
    wall: Cell<(Instant, u64)>,
    /// Listeners that still accept.
    accepting: Cell<usize>,
}

impl Worker {
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    /// Milliseconds since 1970, for whoever has just read the other clock.
    pub(crate) fn wall_ms(&self, now: Instant) -> u64 {
        let (at, wall_ms) = self.wall.get();
        wall_ms + now.saturating_duration_since(at).as_millis() as u64
    }

    /// Which part of its share its clients and upstreams leave with this worker.
    pub(crate) fn held(&self) -> f64 {
        let settings = &self.shared.settings;
        let share = settings.limits.buffered_bytes_max / settings.workers as u64;
        self.metrics.buffered_bytes.value() as f64 / share.max(1) as f64
    }

    /// They leave more than that.
    pub(crate) fn is_overloaded(&self) -> bool {
        self.held() > 1.0
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.shared.drain.is_cancelled()
    }

    fn take(self: &Rc<Self>, order: Order) {
        match order {
            Order::Accept(listener, open) => {
                self.accepting.set(self.accepting.get() + 1);
                let worker = self.clone();
                tokio::task::spawn_local(async move {
                    let _alarm = Alarm(worker.shared.clone());
                    match TcpListener::from_std(listener) {
                        Ok(listener) => accept(&worker, listener, &open).await,
                        Err(error) => tracing::error!(%error, "a listener cannot be used"),
                    }
                    worker.accepting.set(worker.accepting.get() - 1);
                });
            }
            #[cfg(feature = "http3")]
            Order::Quic(opened) => {
                self.accepting.set(self.accepting.get() + 1);
                let worker = self.clone();
                tokio::task::spawn_local(async move {
                    let _alarm = Alarm(worker.shared.clone());
                    crate::http3::listen(&worker, opened).await;
                    worker.accepting.set(worker.accepting.get() - 1);
                });
            }
            #[cfg(feature = "http3")]
            Order::Connect(incoming, open) => {
                tokio::task::spawn_local(crate::http3::serve(self.clone(), *incoming, open));
            }
            Order::Recheck(open) => {
                let now = open.reception.load();
                self.ask_to_go(&open, |conn| !now.lets_stay(&conn.reception));
            }
        }
    }

    fn ask_to_go(&self, open: &Arc<Open>, which: impl Fn(&Conn) -> bool) {
        let conns = self.conns.borrow();
        for conn in conns.values().filter(|conn| Arc::ptr_eq(&conn.listener, open) && which(conn)) {
            if !conn.is_draining() {
                self.has_to_go(conn);
            }
            conn.drain();
        }
    }

    /// Once the grace is over.
    pub(crate) fn has_to_go(&self, conn: &Rc<Conn>) {
        self.leaving.borrow_mut().push((self.now_ms(), Rc::downgrade(conn)));
    }

    /// Ends what lasts on connections that should have gone, as at the end of the node.
    fn see_off(&self) {
        let mut leaving = self.leaving.borrow_mut();
        if leaving.is_empty() || self.is_draining() {
            return;
        }
        let grace = self.shared.settings.limits.grace;
        let stays = |since_ms: u64, longest: Duration| self.now_ms() < since_ms + longest.as_millis() as u64;
        let told = leaving.iter().filter(|(since_ms, _)| !stays(*since_ms, grace));
        let told: HashSet<usize> = told.map(|(_, conn)| conn.as_ptr() as usize).collect();
        if !told.is_empty() {
            self.live.drain(|grant| told.contains(&grant.conn));
        }
        leaving.retain(|(since_ms, conn)| {
            let Some(conn) = conn.upgrade() else { return false };
            let stays = stays(*since_ms, grace + FAREWELL);
            if !stays {
                conn.close("drain_grace_over");
            }
            stays
        });
    }
}

/// Held by what a worker cannot be without; tells of a panic there, which otherwise nobody would notice: the other workers
/// go on, and the kernel goes on handing connections to this one.
struct Alarm(Arc<Shared>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(thread = std::thread::current().name(), "a proxy worker broke down");
            self.0.broken.cancel();
        }
    }
}

/// The body of a worker's thread, which says whether it could begin.
pub(crate) fn run(seed: Seed, told: &std::sync::mpsc::SyncSender<std::io::Result<()>>) {
    let shared = seed.shared.clone();
    let _running = Running(shared.clone());
    let _alarm = Alarm(shared);
    // Tasks of its own scheduler: those of a `LocalSet` would be queued twice.
    let made =
        Builder::new_current_thread().enable_all().event_interval(TURNS_PER_LOOK).build_local(LocalOptions::default());
    let (runtime, result) = match made {
        Ok(runtime) => (Some(runtime), Ok(())),
        Err(error) => (None, Err(error)),
    };
    // Whoever started it waits for this.
    let _ = told.send(result);
    let Some(runtime) = runtime else { return };
    runtime.block_on(run_local(seed));
    // Connections that are still there end here, and with them their exchanges' records.
    drop(runtime);
}

struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Release);
    }
}

async fn run_local(seed: Seed) {
    let Seed { shared, metrics, access_log, mut orders, asked } = seed;
    let limits = &shared.settings.limits;
    let worker = Rc::new(Worker {
        pools: Pools::new(shared.registry.clone()),
        ids: Ids::new(),
        http1: connection::http1(limits),
        conns: RefCell::default(),
        scratch: RefCell::new(vec![0; SCRATCH_BYTES]),
        tunnel_scratch: RefCell::new(vec![0; SCRATCH_BYTES]),
        live: LiveTable::default(),
        leaving: RefCell::default(),
        kept: Kept::default(),
        plans: Plans::new(metrics.clone()),
        inspectors: Inspectors::new(metrics.clone(), shared.clone()),
        versions: Versions::default(),
        models: Models::new(metrics.clone()),
        server_names: passthrough::Cache::default(),
        watched: anomaly::Table::default(),
        recent: Recent::default(),
        mirrors: Cell::new(0),
        cache_flights: Flights::default(),
        unmatched: metrics.route(NO_ROUTE),
        overload: Overload::default(),
        started: Instant::now(),
        now_ms: Cell::new(0),
        wall: Cell::new((Instant::now(), recent::now_ms())),
        accepting: Cell::new(0),
        shared,
        metrics,
        access_log,
    });
    // At once: an early drain must find the sockets.
    while let Ok(order) = orders.try_recv() {
        worker.take(order);
    }
    tokio::task::spawn_local(take_orders(worker.clone(), orders));
    let stop = worker.shared.stop.clone();
    stop.run_until_cancelled(keep_time(&worker, asked)).await;
    farewell(&worker).await;
    let cut: usize = worker.metrics.in_flight.value() as usize;
    worker.shared.cut.fetch_add(cut, Ordering::Relaxed);
    for _ in 0..cut {
        worker.metrics.reject("drain_grace_over");
    }
}

/// WebSockets, event streams and whatever else lasts: their clients are told that this node goes.
async fn farewell(worker: &Worker) {
    if worker.live.is_empty() {
        return;
    }
    worker.live.drain(|_| true);
    let told = async {
        while !worker.live.is_empty() {
            tokio::time::sleep(FAREWELL_POLL).await;
        }
        // The last words are on their way.
        tokio::time::sleep(FAREWELL_POLL).await;
    };
    // Whoever does not listen is cut off.
    let _ = tokio::time::timeout(FAREWELL, told).await;
}

/// Opens what comes, until nobody can ask for more.
async fn take_orders(worker: Rc<Worker>, mut orders: mpsc::Receiver<Order>) {
    let _alarm = Alarm(worker.shared.clone());
    while let Some(order) = orders.recv().await {
        worker.take(order);
    }
}

/// Until drained: the clock of all connections, and the answers to those who ask what was served.
async fn keep_time(worker: &Worker, mut asked: mpsc::Receiver<Ask>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut draining = false;
    let mut trimmed_ms = 0;
    loop {
        tokio::select! {
            due = tick.tick() => {
                let limits = &worker.shared.settings.limits;
                worker.overload.tick(due.elapsed(), limits.queue_delay_max, worker.held());
            }
            Some(ask) = asked.recv() => {
                match ask {
                    // Nobody waits any more: fine.
                    Ask::Seen(question, told) => drop(told.send(worker.watched.answer(&question, &worker.shared.verdicts, worker.now_ms()))),
                    ask => worker.recent.answer(ask),
                }
                continue;
            }
            () = worker.shared.drain.cancelled(), if !draining => {
                draining = true;
                worker.conns.borrow().values().for_each(|conn| conn.drain());
            }
        }
        #[cfg(test)]
        assert!(!worker.shared.break_clock.load(Ordering::Relaxed), "as the test of alarms asks for");
        worker.now_ms.set(worker.started.elapsed().as_millis() as u64);
        worker.wall.set((Instant::now(), recent::now_ms()));
        worker.plans.prune(&worker.shared.ruleset.load());
        worker.inspectors.prune(&worker.shared.ruleset.load());
        worker.versions.prune(&worker.shared.ruleset.load());
        worker.models.prune(&worker.shared.ruleset.load());
        sweep(worker);
        worker.see_off();
        if worker.now_ms() >= trimmed_ms + TRIM_EVERY_MS {
            trimmed_ms = worker.now_ms();
            drop(std::hint::black_box(Vec::<u8>::with_capacity(TRIM_BYTES)));
        }
        let limits = &worker.shared.settings.limits;
        worker.conns.borrow().values().for_each(|conn| conn.check_clocks(limits));
        if draining && worker.accepting.get() == 0 && worker.conns.borrow().is_empty() {
            return;
        }
    }
}

/// Ends streams that what has changed, or the time, forbids.
fn sweep(worker: &Worker) {
    let directory = &worker.shared.directory;
    let facts = directory.load_facts();
    let gone = |identity: &Identity| streams::is_over(directory, &facts, identity);
    let changed = worker.kept.swept_index.replace(facts.index) != facts.index;
    let revoked: Option<&dyn Fn(&Identity) -> bool> = if changed { Some(&gone) } else { None };
    let shut_out = |grant: &Grant| {
        let now_us = || directory.now_us();
        let mut callers = grant.identity.iter().flat_map(|it| it.callers());
        directory.bans.of_address(grant.client_ip, now_us).is_some()
            || callers.any(|caller| directory.bans.of_caller(caller, now_us).is_some())
    };
    let banned: Option<&dyn Fn(&Grant) -> bool> =
        if changed && !directory.bans.is_empty() { Some(&shut_out) } else { None };
    worker.live.sweep_held(freshness::boottime_ns() / 1_000);
    let lapsed = |identity: &Identity| streams::lapsed(directory, &facts, identity);
    worker.live.sweep(wall_s(), worker.shared.freshness.is_fresh(), banned, revoked, &lapsed);
}

/// Seconds since 1970.
pub(crate) fn wall_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Accepts until drained or closed; then first what waits in the queue, so that no client that connected is turned away.
async fn accept(worker: &Rc<Worker>, listener: TcpListener, open: &Arc<Open>) {
    let drain = worker.shared.drain.clone();
    loop {
        match drain.run_until_cancelled(open.close.run_until_cancelled(listener.accept())).await.flatten() {
            Some(Ok((stream, peer))) => {
                tokio::task::spawn_local(connection::serve(worker.clone(), stream, peer, open.clone()));
            }
            Some(Err(error)) if is_of_one_connection(&error) => (),
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            None => break,
        }
    }
    worker.ask_to_go(open, |_| true);
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, peer)) = listener.accept() {
        let stream = stream.set_nonblocking(true).and_then(|()| tokio::net::TcpStream::from_std(stream));
        if let Ok(stream) = stream {
            tokio::task::spawn_local(connection::serve(worker.clone(), stream, peer, open.clone()));
        }
    }
}

/// The peer gave up before it was accepted: the next accept is not affected.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
    )
}
