//! The Overview service: who is asking, the cluster at a glance, and what the nodes have counted lately. What the web page
//! shows before anybody has clicked.

mod glance;
mod traffic;

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::Stream;
use quorumgate_proto::admin::v1::{self as admin, overview_server::Overview};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::interval,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};

use self::{
    glance::{Glance, Glances},
    traffic::Lines,
};
use super::{config::taken, desk::Desk, failure, gate::Call, identity};
use crate::{VERSION, consensus::Consensus, tasks::Tasks};

/// Streams of this service at once.
const STREAMS_MAX: usize = 128;
/// Glances that wait for one who watches; who is slower gets the next ones later.
const ROOM: usize = 2;
/// How often it is looked whether the caller's token still stands.
const TOKEN_EVERY: Duration = Duration::from_secs(5);

pub struct Service {
    desk: Desk,
    glances: Arc<Glances>,
    lines: Lines,
    tasks: Tasks,
    streams: Arc<Semaphore>,
}

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    pub fn new(consensus: Consensus, tasks: &Tasks) -> Self {
        let desk = Desk { consensus };
        let glances = Arc::new(Glances::new());
        tasks.start("glances", glances.clone().run(desk.clone(), tasks.stop()));
        let streams = Arc::new(Semaphore::new(STREAMS_MAX));
        Self { desk, glances, lines: Lines::default(), tasks: tasks.clone(), streams }
    }
}

#[tonic::async_trait]
impl Overview for Service {
    type WatchOverviewStream = Answers<admin::WatchOverviewResponse>;

    async fn who_am_i(&self, request: Request<admin::WhoAmIRequest>) -> Answer<admin::WhoAmIResponse> {
        let (call, _) = taken(request)?;
        Ok(Response::new(admin::WhoAmIResponse {
            header: Some(self.desk.header()),
            name: call.actor.name.clone(),
            role: call.role.word().to_owned(),
            owner: call.actor.owner_scope.clone(),
            version: VERSION.into(),
        }))
    }

    async fn watch_overview(&self, request: Request<admin::WatchOverviewRequest>) -> Answer<Self::WatchOverviewStream> {
        let (call, _) = taken(request)?;
        let full = || failure::status(Code::ResourceExhausted, "TOO_MANY_STREAMS", FULL);
        let permit = self.streams.clone().try_acquire_owned().map_err(|_| full())?;
        let (answers, received) = mpsc::channel(ROOM);
        let watcher =
            Watcher { desk: self.desk.clone(), call, glances: self.glances.watch(), answers, _permit: permit };
        self.tasks.detach(watcher.run(self.tasks.stop()));
        Ok(Response::new(Box::pin(ReceiverStream::new(received))))
    }

    async fn get_traffic(&self, request: Request<admin::GetTrafficRequest>) -> Answer<admin::GetTrafficResponse> {
        let (call, request) = taken(request)?;
        if !request.routes {
            return Ok(Response::new(traffic::ask(&self.desk, &request, call.left()).await));
        }
        let lines = self.lines.of(&self.desk, call.left()).await?;
        Ok(Response::new(admin::GetTrafficResponse::clone(&lines)))
    }
}

const FULL: &str = "as many streams of this kind are open on this node as there may be (128); watch another node";

/// One who watches, until the stream is dropped or the token is gone.
struct Watcher {
    desk: Desk,
    call: Call,
    glances: watch::Receiver<Option<Glance>>,
    answers: mpsc::Sender<Result<admin::WatchOverviewResponse, Status>>,
    _permit: OwnedSemaphorePermit,
}

impl Watcher {
    async fn run(mut self, stop: CancellationToken) {
        let mut look = interval(TOKEN_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.answers.closed() => return,
                _ = look.tick() => if !self.token_stands() {
                    return;
                },
                changed = self.glances.changed() => if changed.is_err() {
                    return;
                },
            }
            let latest = self.glances.borrow_and_update().clone();
            let Some(glance) = latest else { continue };
            if self.answers.send(Ok(admin::WatchOverviewResponse::clone(&glance))).await.is_err() {
                return;
            }
        }
    }

    fn token_stands(&self) -> bool {
        let (state, now_us) = (self.desk.consensus.state(), self.desk.consensus.clock_us());
        self.call.token.is_none_or(|token| identity::token_stands(&state, token, now_us))
    }
}
