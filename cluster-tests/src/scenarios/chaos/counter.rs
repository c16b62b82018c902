//! A number that only grows, in the answer of a route: no process may serve less of it than it, or a receipt for it, has
//! said before.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use quorumgate_proto::admin::v1::{
    ApplyConfigRequest, ConfigSet, Match, Respond, Route, WriteResponse, r#match, route::Action,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    clients::Field,
    plan::Dice,
    world::{Node, Processes},
};
use crate::{
    Admin,
    cluster::PATIENCE,
    history::{Call, Operation, Outcome},
};

const HOST: &str = "counter.test";
/// The register that stands for it in the history.
pub const KEY: u32 = u32::MAX;
const CLIENT: u32 = 100;
const DEADLINE: Duration = Duration::from_millis(1_500);
const WRITE_PAUSE: Duration = Duration::from_millis(100);
const READ_PAUSE: Duration = Duration::from_millis(15);
const TRY_AGAIN: Duration = Duration::from_millis(50);
const ANSWER_MAX: Duration = Duration::from_secs(10);

pub struct Counter {
    stop: CancellationToken,
    writer: JoinSet<anyhow::Result<()>>,
    readers: JoinSet<()>,
    pub reads: Arc<AtomicU64>,
    wrong: Arc<Mutex<Option<String>>>,
}

impl Counter {
    pub fn start(field: &Field, processes: &Processes, mut dice: Dice) -> Self {
        let stop = CancellationToken::new();
        let (reads, wrong) = (Arc::<AtomicU64>::default(), Arc::<Mutex<Option<String>>>::default());
        let mut writer = JoinSet::new();
        let (field_, processes_, stop_) = (field.clone(), processes.clone(), stop.clone());
        writer.spawn(async move {
            while stop_.run_until_cancelled(tokio::time::sleep(WRITE_PAUSE)).await.is_some() {
                write(&field_, &processes_, &mut dice).await?;
            }
            Ok(())
        });
        let mut readers = JoinSet::new();
        for (at, node) in field.nodes.iter().cloned().enumerate() {
            readers.spawn(read(at, node, processes.clone(), reads.clone(), wrong.clone()));
        }
        Self { stop, writer, readers, reads, wrong }
    }

    /// Once the last number is agreed on: one that came late would go back in the next round.
    pub async fn stop(mut self) -> anyhow::Result<u64> {
        self.stop.cancel();
        let writing = async {
            while let Some(ended) = self.writer.join_next().await {
                ended??;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, writing).await.context("the counter's last write is not answered")??;
        self.readers.shutdown().await;
        match self.wrong.lock().expect("no panic while it is held").take() {
            Some(wrong) => bail!(wrong),
            None => Ok(self.reads.load(Ordering::Relaxed)),
        }
    }
}

pub fn route(number: u64) -> Route {
    Route {
        name: "counter".into(),
        r#match: Some(Match {
            hosts: vec![HOST.into()],
            path: Some(r#match::Path::PathPrefix("/".into())),
            ..Default::default()
        }),
        action: Some(Action::Respond(Respond { status: 200, body: number.to_string(), ..Default::default() })),
        ..Default::default()
    }
}

/// The next number, under one request id until somebody says that it is written.
async fn write(field: &Field, processes: &Processes, dice: &mut Dice) -> anyhow::Result<()> {
    let number = field.values.fresh();
    let request = format!("{CLIENT:08x}-0000-4000-8000-{number:012x}");
    let invoked_us = field.now_us();
    let (at, answer) = loop {
        let at = dice.roll(field.nodes.len() as u64) as usize;
        let before = processes.all();
        if let Some(answer) = once(&field.nodes[at], number, &request).await? {
            for receipt in answer.nodes.iter().filter(|it| it.applied_revision >= answer.revision) {
                if let Some(named) = field.nodes.iter().position(|node| *node.name == receipt.name) {
                    processes.serves(named, before[named].incarnation, number);
                }
            }
            break (at, answer);
        }
        tokio::time::sleep(TRY_AGAIN).await;
    };
    let operation = Operation {
        client: CLIENT,
        node: field.nodes[at].name.clone(),
        key: KEY,
        call: Call::Write(number),
        invoked_us,
        returned_us: field.now_us(),
        outcome: Outcome::Written { revision: answer.revision },
    };
    field.log.lock().expect("no panic while it is held").note(operation, request);
    Ok(())
}

/// None: not answered.
async fn once(node: &Node, number: u64, request: &str) -> anyhow::Result<Option<WriteResponse>> {
    let mut asked = tonic::Request::new(ApplyConfigRequest {
        config: Some(ConfigSet { routes: vec![route(number)], ..Default::default() }),
        request_id: request.to_owned(),
        message: request.to_owned(),
        ..Default::default()
    });
    asked.set_timeout(DEADLINE);
    let asking = async { anyhow::Ok(Admin::connect(&node.socket).await?.config().apply_config(asked).await?) };
    match tokio::time::timeout(DEADLINE * 2, asking).await {
        Ok(Ok(answer)) => Ok(Some(answer.into_inner())),
        Ok(Err(error)) => match error.downcast_ref::<tonic::Status>().map(tonic::Status::code) {
            Some(tonic::Code::InvalidArgument | tonic::Code::Aborted) => Err(error),
            _ => Ok(None),
        },
        Err(_) => Ok(None),
    }
}

async fn read(at: usize, node: Node, processes: Processes, reads: Arc<AtomicU64>, wrong: Arc<Mutex<Option<String>>>) {
    let mut connection = None;
    loop {
        tokio::time::sleep(READ_PAUSE).await;
        let before = processes.of(at);
        let asking = tokio::time::timeout(ANSWER_MAX, super::get_on(&mut connection, node.proxy, HOST));
        let answer = match asking.await {
            Ok(Ok(answer)) => answer,
            // Nobody listens, or it has just died.
            Ok(Err(_)) | Err(_) => {
                connection = None;
                continue;
            }
        };
        let said = match (answer.status, answer.body.parse::<u64>()) {
            (200, Ok(number)) if number >= before.serves => {
                processes.serves(at, before.incarnation, number);
                reads.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            (200, Ok(number)) => {
                format!("{} serves {number} and has served {} before, in one process", node.name, before.serves)
            }
            (503, _) => continue,
            (status, _) => format!("{} answers the counter's route with {status}: {}", node.name, answer.body),
        };
        // What an ended process said last may come after its end was noted.
        if processes.of(at).incarnation == before.incarnation {
            wrong.lock().expect("no panic while it is held").get_or_insert(said);
        }
    }
}
