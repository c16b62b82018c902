//! Clients of one limited route, on keep-alive connections to every node, each at a rate of its own. Every admission is
//! kept for the auditor.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet};

use super::auditor::Admission;
use crate::load::Connection;

/// Connections a node.
const LANES: u64 = 4;
/// After a connection was refused or lost.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a client waits for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// A lane that is behind by more than this lets the rest go: clients do not queue up for ever.
const BEHIND_MAX: Duration = Duration::from_millis(200);

/// What the clients of one node saw.
#[derive(Debug, Default)]
pub struct Tally {
    pub admitted: AtomicU64,
    pub refused: AtomicU64,
    pub unavailable: AtomicU64,
    /// Other answers, and connections that brought none.
    pub failed: AtomicU64,
    /// Thousandths of requests a second.
    rate_milli: watch::Sender<u64>,
}

/// Runs until it is stopped.
pub struct Crowd {
    pub since: Instant,
    pub tallies: Vec<Arc<Tally>>,
    log: Arc<Mutex<Vec<Admission>>>,
    strange: Arc<Mutex<Option<String>>>,
    running: JoinSet<()>,
}

impl Crowd {
    /// `rates` are requests a second at each node; they may be changed while it runs.
    pub fn start(nodes: &[SocketAddr], host: &'static str, rates: &[f64]) -> Self {
        let (since, log) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let strange = Arc::new(Mutex::new(None));
        let mut running = JoinSet::new();
        let tallies: Vec<Arc<Tally>> = nodes.iter().map(|_| Arc::default()).collect();
        for (address, tally) in nodes.iter().zip(&tallies) {
            for dice in 1..=LANES {
                let lane = Lane {
                    dice: dice * u64::from(address.port()),
                    address: *address,
                    host,
                    since,
                    tally: tally.clone(),
                    log: log.clone(),
                    strange: strange.clone(),
                };
                running.spawn(lane.run());
            }
        }
        let crowd = Self { since, tallies, log, strange, running };
        crowd.set_rates(rates);
        crowd
    }

    pub fn set_rates(&self, rates: &[f64]) {
        for (tally, rate) in self.tallies.iter().zip(rates) {
            let milli = (rate * 1_000.0) as u64;
            tally.rate_milli.send_if_modified(|before| std::mem::replace(before, milli) != milli);
        }
    }

    pub fn now_us(&self) -> u64 {
        self.since.elapsed().as_micros() as u64
    }

    pub fn admitted(&self) -> u64 {
        self.tallies.iter().map(|it| it.admitted.load(Ordering::Relaxed)).sum()
    }

    pub fn asked(&self) -> u64 {
        let all = |it: &Arc<Tally>| {
            [&it.admitted, &it.refused, &it.unavailable, &it.failed].map(|it| it.load(Ordering::Relaxed))
        };
        self.tallies.iter().flat_map(all).sum()
    }

    pub async fn stop(mut self) -> anyhow::Result<Vec<Admission>> {
        self.running.shutdown().await;
        if let Some(strange) = self.strange.lock().expect("no panic while it is held").take() {
            anyhow::bail!("an unexpected answer: {strange}");
        }
        Ok(std::mem::take(&mut *self.log.lock().expect("no panic while it is held")))
    }
}

struct Lane {
    /// For gaps between requests that no two lanes share: in step they would all come when a slot has just gone.
    dice: u64,
    address: SocketAddr,
    host: &'static str,
    since: Instant,
    tally: Arc<Tally>,
    log: Arc<Mutex<Vec<Admission>>>,
    strange: Arc<Mutex<Option<String>>>,
}

impl Lane {
    async fn run(mut self) {
        let mut due = tokio::time::Instant::now();
        let mut connection = None;
        let mut rates = self.tally.rate_milli.subscribe();
        loop {
            let rate = *rates.borrow_and_update();
            if rate == 0 {
                if rates.changed().await.is_err() {
                    return;
                }
                due = tokio::time::Instant::now();
                continue;
            }
            // xorshift64: from half the gap to one and a half of it.
            self.dice ^= self.dice << 13;
            self.dice ^= self.dice >> 7;
            self.dice ^= self.dice << 17;
            let thousandths = 500 + self.dice % 1_001;
            due += Duration::from_micros(1_000_000 * LANES * thousandths / rate);
            // Whoever is told to hurry does not sleep out a gap of before.
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                Ok(()) = rates.changed() => {
                    due = tokio::time::Instant::now();
                    continue;
                }
            }
            due = due.max(tokio::time::Instant::now() - BEHIND_MAX);
            self.ask(&mut connection).await;
        }
    }

    async fn ask(&self, connection: &mut Option<Connection>) {
        let first_us = self.since.elapsed().as_micros() as u64;
        let answer = tokio::time::timeout(ANSWER_MAX, super::get_on(connection, self.address, self.host)).await;
        let answer_us = self.since.elapsed().as_micros() as u64;
        let counter = match answer {
            Ok(Ok(answer)) => match answer.status {
                200 => {
                    self.log.lock().expect("no panic while it is held").push(Admission { first_us, answer_us });
                    &self.tally.admitted
                }
                429 => &self.tally.refused,
                503 => &self.tally.unavailable,
                status => {
                    let mut strange = self.strange.lock().expect("no panic while it is held");
                    strange.get_or_insert_with(|| format!("{status} {}", answer.body));
                    &self.tally.failed
                }
            },
            Ok(Err(_)) | Err(_) => {
                *connection = None;
                tokio::time::sleep(PAUSE).await;
                &self.tally.failed
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
