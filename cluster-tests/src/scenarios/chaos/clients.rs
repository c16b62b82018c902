//! Clients of registers: a register is a consumer whose plan is its value. They ask any node, over gRPC or JSON over HTTP,
//! and write down what they were told. A write that nobody answered is repeated under its request id, or given up.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    line::{Line, Said, Way, Words},
    plan::Dice,
    world::Node,
};
use crate::history::{Call, Operation, Outcome};

const CLIENTS: u32 = 10;
const PAUSE_MS: Range<u64> = 5..60;
const DEADLINES_MS: [u64; 3] = [500, 1_500, 3_000];
/// Of a write that nobody answered.
const TRIES_MAX: u32 = 4;
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// Operations that one round may have: what is beyond them is not asked.
const OPERATIONS_MAX: usize = 20_000;

/// What clients have seen, in the order of answers.
#[derive(Default)]
pub struct Log {
    pub operations: Vec<Operation>,
    /// Of each write, its request id.
    pub requests: Vec<String>,
    /// The first answer that no client should get.
    pub strange: Option<String>,
}

impl Log {
    pub fn note(&mut self, operation: Operation, request: String) {
        self.operations.push(operation);
        self.requests.push(request);
    }
}

pub type Shared = Arc<Mutex<Log>>;

/// Values are never written twice, in a whole run.
#[derive(Debug, Clone, Default)]
pub struct Values(Arc<AtomicU64>);

impl Values {
    pub fn fresh(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

pub struct Clients {
    stop: CancellationToken,
    running: JoinSet<()>,
}

/// What all clients of a round share.
#[derive(Clone)]
pub struct Field {
    pub since: Instant,
    pub nodes: Arc<[Node]>,
    pub keys: Range<u32>,
    pub values: Values,
    pub log: Shared,
    /// Reads from a node's own state are taken for consistent ones: a mistake on purpose.
    pub stale: bool,
}

impl Field {
    pub fn now_us(&self) -> u64 {
        self.since.elapsed().as_micros() as u64
    }
}

impl Clients {
    pub fn start(field: &Field, dice: impl Fn(u64) -> Dice) -> Self {
        let stop = CancellationToken::new();
        let mut running = JoinSet::new();
        for id in 0..CLIENTS {
            let way = if id % 2 == 0 { Way::Grpc } else { Way::Json };
            let client = Client {
                id,
                dice: dice(u64::from(id)),
                lines: field.nodes.iter().map(|_| None).collect(),
                known: vec![None; field.keys.len()],
                revision: 0,
                field: field.clone(),
                way,
            };
            running.spawn(client.run(stop.clone()));
        }
        Self { stop, running }
    }

    /// Waits for what is under way.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.running.join_next().await {
            ended?;
        }
        Ok(())
    }
}

struct Client {
    id: u32,
    dice: Dice,
    field: Field,
    way: Way,
    lines: Vec<Option<Line>>,
    /// What this client has read last, with the etag.
    known: Vec<Option<(Option<u64>, String)>>,
    /// The last one that it was told.
    revision: u64,
}

impl Client {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            let pause = Duration::from_millis(self.dice.within(PAUSE_MS));
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            if self.field.log.lock().expect("no panic while it is held").operations.len() >= OPERATIONS_MAX {
                return;
            }
            let key = self.dice.roll(self.field.keys.len() as u64) as u32;
            let (call, etag) = self.choose(key);
            self.ask(key, call, etag, &stop).await;
        }
    }

    fn choose(&mut self, key: u32) -> (Call, Option<String>) {
        let known = self.known[key as usize].clone();
        let value = self.field.values.fresh();
        match (self.dice.roll(10), known) {
            (0..4, _) | (7.., None) => (Call::Read, None),
            (4..6, _) => (Call::Write(value), None),
            (6, _) if self.revision > 0 => (Call::WriteAt { revision: self.revision, value }, None),
            (6, _) => (Call::Write(value), None),
            // The JSON API has no word for "must not exist yet".
            (7.., Some((None, _))) if self.way == Way::Json => (Call::Write(value), None),
            (7.., Some((expect, etag))) => (Call::Swap { expect, value }, Some(etag)),
        }
    }

    async fn ask(&mut self, key: u32, call: Call, etag: Option<String>, stop: &CancellationToken) {
        // The version and variant of a UUID, and 122 bits that no other request of a run has.
        let unique = self.field.values.fresh();
        let request = format!("{:08x}-0000-4000-8000-{unique:012x}", self.id);
        let words = Words {
            name: format!("register-{}", self.field.keys.start + key),
            call,
            etag,
            request: request.clone(),
            stale: self.field.stale,
        };
        let invoked_us = self.field.now_us();
        let repeats = self.dice.roll(2) == 0;
        let mut node = self.dice.roll(self.field.nodes.len() as u64) as usize;
        let mut said = self.once(node, &words).await;
        // Once it may have been written, only an answer to the same request says whether it was.
        for _ in 1..TRIES_MAX {
            if said != Said::Unknown || call == Call::Read || !repeats || stop.is_cancelled() {
                break;
            }
            tokio::time::sleep(TRY_AGAIN).await;
            node = self.dice.roll(self.field.nodes.len() as u64) as usize;
            said = match self.once(node, &words).await {
                Said::Failed => Said::Unknown,
                said => said,
            };
        }
        let outcome = match said {
            Said::Found { value, etag, revision } => {
                self.known[key as usize] = Some((value, etag));
                self.revision = revision.unwrap_or(self.revision);
                Outcome::Found { value, revision }
            }
            Said::Written { revision } => {
                self.revision = revision;
                Outcome::Written { revision }
            }
            Said::Conflict => Outcome::Conflict,
            Said::Failed => Outcome::Failed,
            Said::Unknown => Outcome::Unknown,
            Said::Strange(answer) => {
                let mut log = self.field.log.lock().expect("no panic while it is held");
                log.strange.get_or_insert_with(|| format!("{} to {words:?}: {answer}", self.field.nodes[node].name));
                Outcome::Unknown
            }
        };
        let operation = Operation {
            client: self.id,
            node: self.field.nodes[node].name.clone(),
            key: self.field.keys.start + key,
            call,
            invoked_us,
            returned_us: self.field.now_us(),
            outcome,
        };
        self.field.log.lock().expect("no panic while it is held").note(operation, request);
    }

    async fn once(&mut self, node: usize, words: &Words) -> Said {
        let deadline = Duration::from_millis(self.dice.of(&DEADLINES_MS));
        let line = match self.lines[node].take() {
            Some(line) => line,
            // Nothing was sent.
            None => match Line::open(&self.field.nodes[node].socket, self.way).await {
                Ok(line) => line,
                Err(_) => return Said::Failed,
            },
        };
        let (said, line) = line.ask(words, deadline).await;
        self.lines[node] = line;
        said
    }
}
