//! The data plane: listeners, TLS, HTTP, one exchange, upstreams. Works without the control plane.

mod access_log;
pub mod ai;
pub mod anomaly;
pub mod bans;
pub mod body;
pub mod cache;
pub mod client_body;
pub mod codes;
mod connection;
mod exchange;
mod framescan;
pub mod freshness;
#[doc(hidden)]
pub mod fuzzing;
pub mod geo;
mod grpc_web;
mod headscan;
mod held;
#[cfg(feature = "http3")]
mod http3;
pub mod identity;
mod ids;
pub mod inspect;
mod interim;
mod io;
pub mod limits;
mod listener;
pub mod listeners;
mod live;
mod metrics;
mod overload;
mod pace;
mod passthrough;
mod per_ip;
mod plan;
pub mod portal;
mod proxy_protocol;
mod received;
pub mod recent;
mod reception;
mod record;
mod redaction;
mod refusal;
mod relay;
mod rfc3339;
pub mod settings;
pub mod tls;
mod told;
pub mod traffic;
mod trailers;
mod tunnel;
#[cfg(feature = "compression")]
mod unpack;
mod unread;
pub mod upstream;
pub mod versions;
mod websocket;
mod worker;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use arc_swap::ArcSwap;
use quorumgate_model::{
    purge::{PurgeTarget, Purges},
    ruleset::Ruleset,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use freshness::Freshness;
pub use limits::{Limits, Style as RateLimitStyle};
pub use listener::{hand_over, handed};
#[doc(hidden)]
pub use metrics::metrics_of;
pub use metrics::{DURATION_BOUNDS_US, RouteMetrics, RouteStats, Stats};
pub use redaction::Redaction;
pub use settings::{AccessLog, ClientAuth, ClientLimits, Listener, Settings, Tls, TrustedField};

use crate::{
    identity::directory::Directory,
    listeners::{Listeners, ORDERS_MAX, Order},
    metrics::WorkerMetrics,
    recent::{Ask, Exchange, Filter, Tap, Watcher},
    reception::{Keys, Open, Reception},
    tls::TicketKeys,
    upstream::Registry,
    worker::Shared,
};

/// How often `drain` looks whether the workers are done.
const DRAIN_POLL: Duration = Duration::from_millis(5);
/// How long a worker may take to answer what it remembers.
const ASK_MAX: Duration = Duration::from_secs(1);
/// How long workers that were told to stop may take, and then the access log for its last lines.
const STOP_MAX: Duration = Duration::from_secs(1);

/// The running data plane: worker threads that share nothing but the ruleset and their counters.
///
/// Dropping it ends the workers at once.
pub struct Proxy {
    shared: Arc<Shared>,
    workers: Vec<Arc<WorkerMetrics>>,
    addresses: Vec<SocketAddr>,
    listeners: Arc<Listeners>,
    ticket_keys: Arc<TicketKeys>,
    access_log: access_log::AccessLog,
    asks: Vec<mpsc::Sender<Ask>>,
}

impl Proxy {
    /// Binds every listener on every worker (SO_REUSEPORT) and starts the worker threads.
    pub fn start(settings: Settings, rules: Arc<Ruleset>, freshness: Arc<Freshness>) -> anyhow::Result<Self> {
        Self::start_with(settings, rules, freshness, Arc::default(), Arc::default())
    }

    /// With a directory and limits that have been published into before: the first request meets the last known credentials,
    /// and every limit that its route names.
    pub fn start_with(
        settings: Settings,
        rules: Arc<Ruleset>,
        freshness: Arc<Freshness>,
        directory: Arc<Directory>,
        limits: Arc<Limits>,
    ) -> anyhow::Result<Self> {
        let ticket_keys = TicketKeys::own();
        let (senders, orders): (Vec<_>, Vec<_>) = (0..settings.workers).map(|_| mpsc::channel(ORDERS_MAX)).unzip();
        let mut addresses = Vec::new();
        for it in &settings.listeners {
            let open = Open::new(Reception::of_settings(it, &ticket_keys)?);
            let bound = listener::bind(it.address, settings.workers);
            let (sockets, address) = bound.with_context(|| format!("listen on {}", it.address))?;
            for (worker, socket) in senders.iter().zip(sockets) {
                worker.try_send(Order::Accept(socket, open.clone())).context("too many listeners")?;
            }
            addresses.push(address);
        }
        let access_log = access_log::AccessLog::start(settings.access_log.path.clone())?;
        let registry = Arc::new(Registry::in_region(&settings.region).asking(&settings.name_servers));
        registry.publish(&rules);
        let shared = Arc::new(Shared {
            running: AtomicUsize::new(settings.workers),
            settings,
            ruleset: ArcSwap::new(rules),
            freshness,
            directory,
            registry,
            limits,
            cache: Default::default(),
            contracts: Default::default(),
            verdicts: Default::default(),
            per_ip: Default::default(),
            trace_below: Default::default(),
            drain: CancellationToken::new(),
            stop: CancellationToken::new(),
            broken: CancellationToken::new(),
            #[cfg(test)]
            break_clock: Default::default(),
            cut: AtomicUsize::new(0),
        });
        let mut workers = Vec::new();
        let mut asks = Vec::new();
        for (number, orders) in orders.into_iter().enumerate() {
            let metrics = Arc::new(WorkerMetrics::default());
            workers.push(metrics.clone());
            let (ask, asked) = mpsc::channel(recent::ASKS_MAX);
            asks.push(ask);
            let (shared, access_log) = (shared.clone(), access_log.clone());
            let seed = worker::Seed { shared, metrics, access_log, orders, asked };
            // A runtime of local tasks is made on the thread that it stays on.
            let (told, made) = std::sync::mpsc::sync_channel(1);
            std::thread::Builder::new()
                .name(format!("proxy-{number}"))
                .spawn(move || worker::run(seed, &told))
                .context("start a worker thread")?;
            made.recv().context("a worker thread broke down")?.context("make a worker's runtime")?;
        }
        let keys = Keys {
            tickets: ticket_keys.clone(),
            #[cfg(feature = "http3")]
            tokens: http3::TokenKey::new()?,
        };
        let listeners = Arc::new(Listeners::new(senders, keys));
        Ok(Self { shared, workers, addresses, listeners, ticket_keys, access_log, asks })
    }

    /// What the cluster's resources ask to be open. Whoever owns the process publishes them behind the rules, and runs
    /// `Listeners::run`.
    pub fn listeners(&self) -> Arc<Listeners> {
        self.listeners.clone()
    }

    /// The keys of session tickets, which whoever owns the process makes the same on all nodes.
    pub fn ticket_keys(&self) -> Arc<TicketKeys> {
        self.ticket_keys.clone()
    }

    /// The addresses that are really bound, in the order of `Settings::listeners` (port 0 is resolved).
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Swaps the ruleset: when this returns, every worker serves it for the next exchange.
    pub fn publish(&self, ruleset: Arc<Ruleset>) {
        inspect::prepare(&ruleset);
        self.shared.contracts.prepare(&ruleset);
        self.shared.registry.publish(&ruleset);
        self.shared.ruleset.store(ruleset.clone());
        self.workers.iter().for_each(|worker| worker.keep_only(&ruleset));
        self.shared.verdicts.keep_only(|policy| ruleset.has_policy(policy));
    }

    pub fn ruleset(&self) -> Arc<Ruleset> {
        self.shared.ruleset.load_full()
    }

    /// What the workers know of consumers, credentials and revocations; whoever owns the process publishes into it.
    pub fn directory(&self) -> Arc<Directory> {
        self.shared.directory.clone()
    }

    /// The upstreams' health and load. Whoever owns the process runs `Registry::run_health_checks`.
    pub fn upstreams(&self) -> Arc<Registry> {
        self.shared.registry.clone()
    }

    /// Lets go of answers that are kept; says of how many URLs.
    pub fn purge(&self, targets: &[PurgeTarget]) -> u64 {
        self.shared.cache.purge(targets)
    }

    /// Lets go of what the cluster has agreed to purge since the index `seen`; None: at the start, when nothing is kept.
    pub fn follow_purges(&self, purges: &Purges, seen: Option<u64>) {
        self.shared.cache.follow(purges, seen);
    }

    /// How many workers serve.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// What this node spends of the cluster's budgets. Whoever owns the process publishes the limits of a state before its
    /// rules, and drives what is behind them.
    pub fn limits(&self) -> Arc<Limits> {
        self.shared.limits.clone()
    }

    /// What one of the last exchanges came to, while a worker remembers it.
    pub async fn exchange(&self, id: Uuid) -> Option<Exchange> {
        let asked = self.asks.iter().map(|worker| async move {
            let (told, heard) = oneshot::channel();
            worker.try_send(Ask::Find(id, told)).ok()?;
            tokio::time::timeout(ASK_MAX, heard).await.ok()?.ok()?
        });
        futures_util::future::join_all(asked).await.into_iter().flatten().max_by_key(|it| it.ended_ms)
    }

    /// What all workers together have seen of callers: of those that are asked about, and of those that may be a part of something.
    pub async fn seen(&self, question: anomaly::Question) -> Vec<anomaly::Row> {
        let parts = question.parts.saturating_mul(self.workers.len() as u64);
        let question = Arc::new(anomaly::Question { parts, ..question });
        let asked = self.asks.iter().map(|worker| {
            let question = question.clone();
            async move {
                let (told, heard) = oneshot::channel();
                worker.try_send(Ask::Seen(question, told)).ok()?;
                tokio::time::timeout(ASK_MAX, heard).await.ok()?.ok()
            }
        });
        anomaly::merged(futures_util::future::join_all(asked).await.into_iter().flatten().flatten())
    }

    /// Who was found to behave unlike others; whoever owns the process keeps it as the cluster has it.
    pub fn verdicts(&self) -> Arc<anomaly::Verdicts> {
        self.shared.verdicts.clone()
    }

    /// Exchanges as they end, until the receiver is dropped. What nobody takes in time is dropped and counted.
    pub fn tap(&self, filter: Filter, room: usize) -> Tap {
        let (shown, exchanges) = mpsc::channel(room);
        let watcher = Watcher { filter, shown, dropped: Arc::default() };
        for worker in &self.asks {
            // A worker with a full queue of questions shows nothing: it is stuck.
            let _ = worker.try_send(Ask::Tap(watcher.clone()));
        }
        Tap { exchanges, dropped: watcher.dropped }
    }

    /// Takes part in traces from now on, of those that begin here in this part of them, 0 to 1; 0: in none.
    pub fn sample_traces(&self, ratio: f64) {
        let below = (ratio.clamp(0.0, 1.0) * (1u64 << 62) as f64) as u64;
        self.shared.trace_below.store(below, std::sync::atomic::Ordering::Relaxed);
    }

    /// Lines that the access log has lost.
    pub fn access_log_dropped(&self) -> u64 {
        self.access_log.dropped()
    }

    /// What was counted of each route, by all workers together.
    pub fn stats(&self) -> Stats {
        metrics::stats(&self.workers)
    }

    /// The next access log lines go to a file that is opened anew.
    pub fn reopen_access_log(&self) {
        self.access_log.reopen();
    }

    /// Appends the Prometheus text of all `quorumgate_http_*`, `quorumgate_upstream_*` and `quorumgate_rejects_total` families.
    pub fn metrics(&self, out: &mut String) {
        metrics::write(&self.workers, out);
        self.access_log.metrics(out);
        self.listeners.metrics(out);
        self.shared.registry.metrics(out);
        self.shared.limits.metrics(&self.shared.settings.region, out);
        self.shared.cache.metrics(out);
        ai::metrics(&self.workers, out);
        anomaly::write(&self.workers, &self.shared.verdicts, out);
    }

    /// Who called versions that are on their way out, since this node started; the last first.
    pub fn callers(&self) -> Vec<versions::Called> {
        versions::callers(&self.workers)
    }

    /// What models were asked and answered, by consumer, model and day, since this node started; the last days alone.
    pub fn ai_usage(&self) -> Vec<ai::Used> {
        ai::usage(&self.workers)
    }

    /// Stops accepting (after emptying the accept queues), asks clients to go (GOAWAY, Connection: close), waits for
    /// exchanges in flight, at most `grace`. Returns how many were cut off.
    pub async fn drain(&self, grace: Duration) -> usize {
        self.shared.drain.cancel();
        self.wait_ended(grace).await;
        self.shared.stop.cancel();
        self.wait_ended(STOP_MAX).await;
        self.access_log.flush(STOP_MAX);
        self.shared.cut.load(Ordering::Relaxed)
    }

    /// Ends when a worker has broken down: whoever owns the process ends it, since a part of the connections that come in
    /// would find nobody.
    pub fn breakdown(&self) -> impl Future<Output = ()> + Send + use<> {
        self.shared.broken.clone().cancelled_owned()
    }

    async fn wait_ended(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.shared.running.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    use super::*;

    fn ask(address: SocketAddr, fields: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{fields}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap_or_default();
        answer
    }

    fn settings() -> Settings {
        Settings {
            node: "n1".into(),
            region: "eu".into(),
            listeners: vec![Listener { address: "127.0.0.1:0".parse().unwrap(), tls: None, merge_slashes: true }],
            workers: 1,
            access_log: AccessLog { default_on: false, path: None },
            trusted_proxies: Vec::new(),
            trusted_field: Default::default(),
            name_servers: Vec::new(),
            redaction: Default::default(),
            limits: ClientLimits::default(),
        }
    }

    #[test]
    fn a_panic_ends_its_own_exchange_only_and_is_counted() {
        let proxy = Proxy::start(settings(), Arc::default(), Arc::default()).unwrap();
        let address = proxy.addresses()[0];
        for _ in 0..3 {
            assert_eq!(ask(address, "x-panic: 1\r\n"), "");
            assert!(ask(address, "").starts_with("HTTP/1.1 404 "));
        }
        let mut metrics = String::new();
        proxy.metrics(&mut metrics);
        assert!(metrics.contains("quorumgate_http_panics_total 3\n"), "{metrics}");
        assert!(metrics.contains("quorumgate_http_requests_in_flight 0\n"), "{metrics}");
        assert!(metrics.contains("requests_total{route=\"-\",method=\"GET\",code=\"404\"} 3\n"), "{metrics}");
    }

    #[tokio::test]
    async fn a_worker_that_breaks_down_is_noticed() {
        let proxy = Proxy::start(settings(), Arc::default(), Arc::default()).unwrap();
        assert!(ask(proxy.addresses()[0], "").starts_with("HTTP/1.1 404 "));
        proxy.shared.break_clock.store(true, Ordering::Relaxed);
        let noticed = tokio::time::timeout(Duration::from_secs(20), proxy.breakdown()).await;
        noticed.expect("the breakdown is told");
        assert!(TcpStream::connect(proxy.addresses()[0]).is_err());
        // Nobody is waited for who is not there.
        let drained = tokio::time::timeout(Duration::from_secs(20), proxy.drain(Duration::from_secs(600))).await;
        assert_eq!(drained, Ok(0));
    }
}
