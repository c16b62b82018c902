//! Active health checks: one checker per target address and process, on connections of its own.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use quorumgate_model::resource::{HealthCheck, Name, Protocol};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Registry,
    dialer::{Dialed, Dialer},
    endpoint::Endpoint,
    resolve,
    tls::{Speaks, agreed_on_http2},
};

/// Checks under way at any one time, over all targets.
const CHECKS_AT_ONCE_MAX: usize = 256;
/// A check's interval is made shorter by up to this share, so that nodes and targets drift apart.
const JITTER_PERCENT: u32 = 20;
/// More of a response than this is not read.
const BODY_BYTES_MAX: usize = 64 << 10;
const USER_AGENT: &str = concat!("quorumgate-health/", env!("CARGO_PKG_VERSION"));

/// Who is checked, and how: a checker starts over when any of it changes.
struct Checker {
    registry: Arc<Registry>,
    endpoint: Arc<Endpoint>,
    upstream: Name,
    check: HealthCheck,
    dialer: Arc<Dialer>,
    random: RandomState,
}

/// A checker that runs.
struct Running {
    check: HealthCheck,
    dialer: Arc<Dialer>,
    task: AbortHandle,
}

impl Registry {
    /// Active checks and DNS, on the control runtime: a target is healthy until its first checks have failed. Names
    /// are only resolved while this runs.
    pub async fn run_health_checks(self: Arc<Self>, stop: CancellationToken) {
        tokio::join!(resolve::run(self.clone(), stop.clone()), check_all(self, stop));
    }
}

async fn check_all(registry: Arc<Registry>, stop: CancellationToken) {
    let mut changes = registry.changes();
    let mut tasks = JoinSet::new();
    let mut running = HashMap::new();
    let slots = Arc::new(Semaphore::new(CHECKS_AT_ONCE_MAX));
    loop {
        changes.mark_unchanged();
        reconcile(&registry, &mut running, &mut tasks, &slots);
        // Aborted checkers are collected here; a panic in one is not to be lost.
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        let Some(Ok(())) = stop.run_until_cancelled(changes.changed()).await else { return };
    }
}

/// Starts checkers for new targets, stops those of gone ones, leaves the rest alone.
fn reconcile(
    registry: &Arc<Registry>,
    running: &mut HashMap<usize, Running>,
    tasks: &mut JoinSet<()>,
    slots: &Arc<Semaphore>,
) {
    let mut before = std::mem::take(running);
    for (name, origin) in registry.origins().iter().filter(|(_, origin)| !origin.retired) {
        let Some(check) = &origin.config.health else { continue };
        let dialer = &origin.dialer;
        for member in &origin.members {
            let key = Arc::as_ptr(&member.endpoint) as usize;
            if let Some(it) = before.remove(&key) {
                if it.check == *check && Arc::ptr_eq(&it.dialer, dialer) {
                    running.insert(key, it);
                    continue;
                }
                it.task.abort();
            }
            let checker = Checker {
                registry: registry.clone(),
                endpoint: member.endpoint.clone(),
                upstream: name.clone(),
                check: check.clone(),
                dialer: dialer.clone(),
                random: RandomState::new(),
            };
            let task = tasks.spawn(checker.run(slots.clone()));
            running.insert(key, Running { check: check.clone(), dialer: dialer.clone(), task });
        }
    }
    before.values().for_each(|it| it.task.abort());
}

impl Checker {
    /// Ends by being aborted.
    async fn run(self, slots: Arc<Semaphore>) {
        let mut streak = 0;
        for round in 0u64.. {
            let Ok(slot) = slots.acquire().await else { return };
            let passed = timeout(self.check.timeout.0, self.probe()).await.unwrap_or(Err("no answer in time"));
            drop(slot);
            streak = self.judge(streak, passed);
            sleep(self.pause(round)).await;
        }
    }

    /// `streak` counts the checks in a row that contradict the present state.
    fn judge(&self, streak: u32, passed: Result<(), &'static str>) -> u32 {
        let healthy = self.endpoint.is_healthy();
        if passed.is_ok() == healthy {
            return 0;
        }
        let streak = streak + 1;
        let enough = if healthy { self.check.unhealthy_after } else { self.check.healthy_after };
        if streak < enough {
            return streak;
        }
        if !healthy {
            self.endpoint.forget();
            if let Some(origin) = self.registry.origin(&self.upstream) {
                origin.is_back(&self.endpoint, Instant::now().into_std());
            }
        }
        self.endpoint.set_healthy(!healthy);
        let (upstream, target, address) = (&*self.upstream, &*self.endpoint.target, self.endpoint.address);
        match passed {
            Ok(()) => tracing::info!(upstream, target, %address, "target is healthy again"),
            Err(why) => tracing::warn!(upstream, target, %address, why, "target is unhealthy"),
        }
        0
    }

    fn pause(&self, round: u64) -> Duration {
        let interval = self.check.interval.0;
        let share = (self.random.hash_one(round) % 1000) as u32;
        interval - interval * JITTER_PERCENT / 100 * share / 1000
    }

    async fn probe(&self) -> Result<(), &'static str> {
        // The whole check has a limit of its own.
        let limit = self.check.timeout.0;
        let stream = self.dialer.connect(&self.endpoint, None, limit).await.map_err(|_| "connect failed")?;
        let dialed = self.dialer.secure(stream, &self.endpoint, Speaks::Configured, limit).await;
        let by_configuration = matches!(self.dialer.protocol(), Protocol::Http2 | Protocol::Grpc);
        let status = match dialed.map_err(|_| "TLS failed")? {
            Dialed::Plain(stream) => self.ask(stream, by_configuration).await?,
            Dialed::Tls(stream) => {
                let http2 = agreed_on_http2(&stream);
                self.ask(*stream, http2 || by_configuration).await?
            }
        };
        let expect = self.check.expect;
        match (expect.first..=expect.last).contains(&status) {
            true => Ok(()),
            false => Err("unexpected status"),
        }
    }

    async fn ask(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        http2: bool,
    ) -> Result<u16, &'static str> {
        let io = TokioIo::new(io);
        if !http2 {
            let (mut sender, connection) = http1::handshake(io).await.map_err(|_| "handshake failed")?;
            let request = self.request(&self.check.path).header(header::HOST, &*self.endpoint.target);
            let request = request.header(header::CONNECTION, "close").body(Empty::<Bytes>::new());
            let request = request.map_err(|_| "the path is no URI")?;
            return drive(connection, async move { sender.send_request(request).await }).await;
        }
        let handshake = http2::handshake(TokioExecutor::new(), io);
        let (mut sender, connection) = handshake.await.map_err(|_| "handshake failed")?;
        let scheme = if self.dialer.is_tls() { "https" } else { "http" };
        let uri = format!("{scheme}://{}{}", self.endpoint.target, self.check.path);
        let request = self.request(&uri).body(Empty::<Bytes>::new()).map_err(|_| "the path is no URI")?;
        drive(connection, async move { sender.send_request(request).await }).await
    }

    fn request(&self, uri: &str) -> http::request::Builder {
        Request::builder().method(Method::GET).uri(uri).header(header::USER_AGENT, USER_AGENT)
    }
}

/// Runs a connection for one exchange; the response is read to its end, within bounds, so that the target is not
/// left with a reset.
async fn drive<C, E>(
    connection: C,
    exchange: impl Future<Output = hyper::Result<http::Response<hyper::body::Incoming>>>,
) -> Result<u16, &'static str>
where
    C: Future<Output = Result<(), E>>,
{
    let exchange = async {
        let response = exchange.await.map_err(|_| "no valid response")?;
        let status = response.status().as_u16();
        let _ = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        Ok(status)
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        done = &mut exchange => done,
        _ = &mut connection => exchange.await,
    }
}
