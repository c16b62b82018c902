//! The daemon, from its settings to its exit code: what starts in which order, and how it goes away.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use quorumgate_model::{command::Standing, ruleset::Ruleset};
use quorumgate_proxy::{
    Freshness, Limits, Proxy, RateLimitStyle,
    freshness::boottime_ns,
    identity::{directory::Directory, fetch::Fetcher},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    VERSION, admin,
    anomaly::{self, Anomalies},
    consensus::{Consensus, StartOptions},
    handed, init,
    leases::{Leases, Timekeeper},
    notify, portal,
    providers::Providers,
    publish::{self, Publisher},
    receive,
    reload::Reload,
    secrets::Opener,
    settings::{self, BOOT_GRACE, RateLimitHeaders, Settings, TrustedField},
    tasks::{Ended, Tasks},
    telemetry::{
        health::Health,
        lately::Lately,
        listener::{self, Telemetry},
        logs,
        otlp::{Exporter, Progress, Trail},
    },
    usage,
};

/// Raft, peers and the admin API share these threads, apart from the proxy's: a busy proxy cannot lose elections.
const CONTROL_THREADS: usize = 2;
/// How long control tasks may take to stop once asked.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How long handing over the leadership may take at shutdown.
const HAND_OVER_MAX: Duration = Duration::from_secs(3);

/// What `run` was asked to do.
pub struct Run {
    pub dir: PathBuf,
    pub settings: Settings,
}

/// Runs until a signal, a removal from the cluster, or the end of a control task (which is an error). `settings::Bad` is
/// for what no restart will mend.
pub fn run(options: Run) -> anyhow::Result<()> {
    let log = &options.settings.telemetry.log;
    logs::start(log).map_err(|error| {
        settings::Bad(error.context(format!("telemetry.log: found {log:?}; allowed: a log filter")))
    })?;
    init::check_prepared(&options.dir).map_err(settings::Bad)?;
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()?;
    let outcome = control.block_on(daemon(options));
    // A blocking read of the disk must not hold up the exit.
    control.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn daemon(options: Run) -> anyhow::Result<()> {
    let settings = Arc::new(options.settings);
    handed::take(&settings);
    let mut signals = Signals::listen()?;
    let mut reload_signal = signal(SignalKind::hangup())?;
    let mut reload = Reload::new(options.dir.clone());
    let (tasks, mut endings) = Tasks::new();
    let freshness = Arc::new(Freshness::default());
    let health = Arc::new(Health::default());

    let dir = options.dir.clone();
    let opened = tokio::task::spawn_blocking(move || quorumgate_raft_store::open(&dir, Default::default())).await??;
    info!(node = %settings.node.name, id = opened.identity.node, version = VERSION, "data directory opened");
    let telemetry_listener = listener::bind(settings.telemetry.listen).await?;
    let consensus = Consensus::start(StartOptions {
        dir: options.dir.clone(),
        settings: Settings::clone(&settings),
        opened,
        tasks: tasks.clone(),
        freshness: freshness.clone(),
    })
    .await
    .context("starting consensus")?;

    // The proxy opens its ports with the last known rules: a restart without a quorum serves at once.
    let state = consensus.state();
    let rules = publish::compile(state.clone(), Arc::new(Ruleset::default())).await?;
    let limits = Arc::<Limits>::default();
    limits.publish(&state);
    let directory = Arc::<Directory>::default();
    let providers = Providers::new(&directory);
    let mut opener = Opener::new(consensus.keyring().clone());
    let opened = opener.open(&state);
    let (filled, known, secrets) = (directory.clone(), state.clone(), opened.clone());
    tokio::task::spawn_blocking(move || filled.publish(&known, secrets)).await.context("reading the credentials")?;
    let (geo, files) = (directory.clone(), settings.proxy.geo.files());
    let read = tokio::task::spawn_blocking(move || geo.geo.load(&files)).await?;
    read.map_err(settings::Bad)?;
    limits.expect_session(boottime_ns() / 1_000 + BOOT_GRACE.as_micros() as u64);
    let proxy = Proxy::start_with(proxy_settings(&settings), rules, freshness.clone(), directory, limits);
    let proxy = Arc::new(proxy.context("starting the proxy")?);
    info!(addresses = ?proxy.addresses(), "proxy listening");
    publish::publish_listeners(&proxy, &state, opened).await?;
    let (listeners, stop, told) = (proxy.listeners(), tasks.stop(), consensus.clone());
    tasks.start("listeners", async move {
        listeners.run(stop, |failed| told.set_problems(failed.iter().map(ToString::to_string).collect())).await;
        Ok(())
    });
    consensus.attach_proxy(proxy.clone());
    let lately = Arc::<Lately>::default();
    consensus.attach_lately(lately.clone());
    tasks.start("counts", lately.run(proxy.clone(), tasks.stop()));

    providers.start(consensus.clone(), &tasks);
    consensus.answer_spent_with(usage::spent(proxy.limits()));
    let leases = Leases { consensus: consensus.clone(), limits: proxy.limits(), workers: proxy.workers() };
    // They are given back before this node leaves the others, and after the last exchange that takes from them.
    let (giving_back, given_back) = (CancellationToken::new(), CancellationToken::new());
    let (told, done) = (giving_back.clone(), given_back.clone().drop_guard());
    tasks.start("leases", async move {
        let _done = done;
        leases.run(told).await
    });
    tasks.start("ledger", Timekeeper { consensus: consensus.clone() }.run(tasks.stop()));
    let watch = usage::watch::Watch { consensus: consensus.clone(), limits: proxy.limits() };
    tasks.start("limits near", watch.run(tasks.stop()));
    let publisher = Publisher { consensus: consensus.clone(), proxy: proxy.clone() };
    tasks.start("publish", publisher.run(tasks.stop()));
    let (webhooks, poster) = anomaly::webhooks(Fetcher::platform());
    tasks.start("anomaly webhooks", poster.run(tasks.stop()));
    let anomalies = Anomalies::new(proxy.clone(), webhooks);
    consensus.attach_anomalies(anomalies.clone());
    tasks.start("anomalies", anomaly::Watch { consensus: consensus.clone(), anomalies }.run(tasks.stop()));
    receive::start(&tasks, consensus.clone(), &proxy.directory());
    portal::start(&tasks, consensus.clone(), &proxy.directory());
    let checks = proxy.upstreams().run_health_checks(tasks.stop());
    tasks.start("upstreams", async move {
        checks.await;
        Ok(())
    });
    let (breakdown, stop) = (proxy.breakdown(), tasks.stop());
    tasks.start("proxy workers", async move {
        match stop.run_until_cancelled(breakdown).await {
            Some(()) => Err(anyhow!("a worker broke down")),
            None => Ok(()),
        }
    });
    tasks.start("health", health.clone().run(consensus.clone(), proxy.limits(), tasks.stop()));
    let telemetry = Telemetry {
        settings: settings.clone(),
        health: health.clone(),
        freshness,
        consensus: consensus.clone(),
        proxy: proxy.clone(),
    };
    if let Some(endpoint) = &settings.telemetry.otlp_endpoint {
        let exporter = Exporter {
            telemetry: telemetry.clone(),
            collector: endpoint.parse()?,
            trace_ratio: settings.telemetry.trace_ratio,
            metrics_every: settings.telemetry.otlp_metrics_every.0,
        };
        tasks.start("otlp", exporter.run(tasks.stop()));
        if settings.telemetry.otlp_audit {
            let progress = Arc::<Progress>::default();
            consensus.attach_audit_export(progress.clone());
            let (consensus, dir) = (consensus.clone(), options.dir.clone());
            let trail = Trail { consensus, collector: endpoint.parse()?, dir, progress };
            tasks.start("audit export", trail.run(tasks.stop()));
        }
    }
    tasks.start("telemetry", telemetry.run(telemetry_listener, tasks.stop()));
    let serving = proxy.clone();
    let admin = admin::AdminOptions {
        consensus: consensus.clone(),
        data_dir: options.dir,
        listen: settings.admin.listen,
        oidc: settings.admin.oidc.clone(),
        certificate: consensus.certificate_resolver(),
        serving: Arc::new(move || serving.ruleset()),
        directory: proxy.directory(),
        upstreams: proxy.upstreams(),
        ready: health.watch(),
    };
    admin::start(admin, &tasks).await.context("starting the admin API")?;

    let told = tell_manager(health.watch(), tasks.stop());
    tasks.start("service manager", told);
    let reason = loop {
        tokio::select! {
            reason = wait_for_end(&mut signals, &mut endings, &consensus) => break reason,
            _ = reload_signal.recv() => {
                notify::reloading();
                reload.reload(&proxy);
                notify::ready("settings read again");
            }
        }
    };
    notify::stopping();
    health.stop();
    let going = Going { lame_duck: settings.proxy.lame_duck.0, grace: settings.proxy.grace.0, giving_back, given_back };
    tokio::select! {
        () = going.shut_down(proxy, consensus, &tasks) => {}
        () = signals.next() => warn!("second signal: leaving at once"),
    }
    reason
}

/// Once the node is ready: whoever started it may go on with what needs it.
async fn tell_manager(mut ready: watch::Receiver<bool>, stop: CancellationToken) -> anyhow::Result<()> {
    if let Some(Ok(_)) = stop.run_until_cancelled(ready.wait_for(|ready| *ready)).await {
        notify::ready("ready");
    }
    stop.cancelled().await;
    Ok(())
}

/// Why the daemon ends: Ok for what somebody asked for.
async fn wait_for_end(
    signals: &mut Signals,
    endings: &mut mpsc::UnboundedReceiver<Ended>,
    consensus: &Consensus,
) -> anyhow::Result<()> {
    tokio::select! {
        () = signals.next() => {
            info!("asked to stop");
            Ok(())
        }
        Some(ended) = endings.recv() => {
            error!(task = %ended.name, why = ended.why, "a control task ended: leaving");
            Err(anyhow!("the task {} ended: {}", ended.name, ended.why))
        }
        () = left(consensus) => {
            info!("this node has left the cluster");
            Ok(())
        }
    }
}

/// A node that asked to leave is done once the others have removed it.
async fn left(consensus: &Consensus) {
    let id = consensus.view().id;
    let mut states = consensus.states();
    let mut leaving = false;
    loop {
        let state = states.borrow_and_update().clone();
        match state.nodes.get(&id) {
            Some(node) => leaving = node.standing == Standing::Leaving,
            None if leaving && state.removed.contains_key(&id) => return,
            None => {}
        }
        if states.changed().await.is_err() {
            // The state machine ends with the process: nothing to wait for.
            std::future::pending::<()>().await;
        }
    }
}

/// How this node goes away.
struct Going {
    /// How long connections are taken after readiness is off.
    lame_duck: Duration,
    /// For exchanges in flight.
    grace: Duration,
    giving_back: CancellationToken,
    given_back: CancellationToken,
}

impl Going {
    async fn shut_down(self, proxy: Arc<Proxy>, consensus: Consensus, tasks: &Tasks) {
        tokio::time::sleep(self.lame_duck).await;
        let cut = proxy.drain(self.grace).await;
        if cut > 0 {
            warn!(cut, "exchanges were cut off after the grace");
        }
        self.giving_back.cancel();
        // Bounded by the task itself.
        self.given_back.cancelled().await;
        consensus.shut_down(HAND_OVER_MAX).await;
        if !tasks.shut_down(STOP_PATIENCE).await {
            warn!("some tasks did not stop in time");
        }
        info!("stopped");
    }
}

fn proxy_settings(settings: &Settings) -> quorumgate_proxy::Settings {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    quorumgate_proxy::Settings {
        node: settings.node.name.to_string(),
        region: settings.node.region.clone(),
        listeners: settings.proxy.listeners.iter().map(listener).collect(),
        workers: match settings.proxy.workers {
            0 => cores.saturating_sub(1).max(1),
            workers => workers,
        },
        access_log: quorumgate_proxy::AccessLog {
            default_on: settings.proxy.access_log,
            path: settings.proxy.access_log_file.clone(),
        },
        trusted_proxies: settings.proxy.trusted_proxies.clone(),
        trusted_field: match settings.proxy.trusted_field {
            TrustedField::XForwardedFor => quorumgate_proxy::TrustedField::XForwardedFor,
            TrustedField::Forwarded => quorumgate_proxy::TrustedField::Forwarded,
        },
        name_servers: settings.proxy.name_servers.clone(),
        redaction: settings.proxy.redaction(),
        limits: quorumgate_proxy::ClientLimits {
            grace: settings.proxy.grace.0,
            buffered_bytes_max: settings.proxy.buffered_max.0,
            queue_delay_max: settings.proxy.queue_delay_max.0,
            rate_limit_style: match settings.proxy.rate_limit_headers {
                RateLimitHeaders::Draft10 => RateLimitStyle::Draft10,
                RateLimitHeaders::XRatelimit => RateLimitStyle::XRateLimit,
                RateLimitHeaders::Off => RateLimitStyle::Off,
            },
            ..Default::default()
        },
    }
}

fn listener(listener: &settings::Listener) -> quorumgate_proxy::Listener {
    let files = listener.certificate_file.clone().zip(listener.key_file.clone());
    quorumgate_proxy::Listener {
        address: listener.address,
        tls: files.map(|(certificate, key)| quorumgate_proxy::Tls {
            certificate,
            key,
            client_auth: listener.client_auth.into(),
        }),
        merge_slashes: listener.merge_slashes,
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
