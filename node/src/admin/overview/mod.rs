//! The Overview service: who is asking, the cluster at a glance, and what the nodes have counted lately. What the web page
//! shows before anybody has clicked.

mod glance;
mod traffic;

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::Stream;
use quorumgate_proto::admin::v1::{self as admin, overview_server::Overview};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        watch,
    },
    time::{Instant, interval},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};

use self::{
    glance::{Glance, Glances},
    traffic::Lines,
};
use super::{config::taken, desk::Desk, failure};
use crate::{VERSION, consensus::Consensus, tasks::Tasks};

/// Streams of this service at once.
const STREAMS_MAX: usize = 128;
/// Of those, of one caller: nobody takes all the room.
const STREAMS_PER_CALLER_MAX: usize = 32;
/// Glances that wait for one who watches; who is slower misses some.
const ROOM: usize = 2;
/// Who has taken none for so long is ended.
const SLOW_AFTER: Duration = Duration::from_secs(60);
/// How often it is looked whether the caller's token still stands.
const TOKEN_EVERY: Duration = Duration::from_secs(5);

pub struct Service {
    desk: Desk,
    glances: Arc<Glances>,
    lines: Lines,
    tasks: Tasks,
    seats: Seats,
}

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    pub fn new(consensus: Consensus, tasks: &Tasks) -> Self {
        let desk = Desk { consensus };
        let glances = Arc::new(Glances::new());
        tasks.start("glances", glances.clone().run(desk.clone(), tasks.stop()));
        Self { desk, glances, lines: Lines::default(), tasks: tasks.clone(), seats: Seats::default() }
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
        let caller = call.actor.name.clone();
        let full = || failure::status(Code::ResourceExhausted, "TOO_MANY_STREAMS", FULL);
        let seat = self.seats.take(&caller).ok_or_else(full)?;
        let (desk, held) = (self.desk.clone(), call.held.clone());
        let gone = move || desk.ended(held.as_ref());
        let (answers, received) = mpsc::channel(ROOM);
        let watcher = Watcher { gone: Box::new(gone), glances: self.glances.watch(), answers, _seat: seat };
        self.tasks.detach(watcher.run(self.tasks.stop()));
        Ok(Response::new(Box::pin(ReceiverStream::new(received))))
    }

    async fn get_traffic(&self, request: Request<admin::GetTrafficRequest>) -> Answer<admin::GetTrafficResponse> {
        let (call, request) = taken(request)?;
        if !request.routes {
            return Ok(Response::new(traffic::ask(&self.desk, &request, call.left()).await));
        }
        let lines = self.lines.of(&self.desk).await;
        Ok(Response::new(admin::GetTrafficResponse::clone(&lines)))
    }
}

const FULL: &str =
    "as many streams of this kind are open on this node, or by this caller, as there may be (128 and 32)";

/// The streams that are open, in all and of each caller.
#[derive(Clone, Default)]
struct Seats(Arc<Mutex<HashMap<String, usize>>>);

/// One stream of a caller, until it is dropped.
struct Seat {
    caller: String,
    of: Seats,
}

impl Seats {
    /// None where there is no room for it.
    fn take(&self, caller: &str) -> Option<Seat> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = counts.get(caller).copied().unwrap_or_default();
        if own >= STREAMS_PER_CALLER_MAX || counts.values().sum::<usize>() >= STREAMS_MAX {
            return None;
        }
        counts.insert(caller.to_owned(), own + 1);
        Some(Seat { caller: caller.to_owned(), of: self.clone() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = counts.get_mut(&self.caller) {
            *own -= 1;
            if *own == 0 {
                counts.remove(&self.caller);
            }
        }
    }
}

/// One who watches, until the stream is dropped, the token is gone, or nothing is taken any more.
struct Watcher {
    /// Why, once the caller's token is.
    gone: Box<dyn Fn() -> Option<Status> + Send + Sync>,
    glances: watch::Receiver<Option<Glance>>,
    answers: mpsc::Sender<Result<admin::WatchOverviewResponse, Status>>,
    _seat: Seat,
}

impl Watcher {
    /// Never waits for the reader.
    async fn run(mut self, stop: CancellationToken) {
        let mut look = interval(TOKEN_EVERY);
        let mut taken = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.answers.closed() => return,
                _ = look.tick() => {
                    let gone = (self.gone)();
                    if is_over(gone.is_none(), taken.elapsed()) {
                        // Where nobody reads, nobody misses it.
                        if let Some(gone) = gone {
                            let _ = self.answers.try_send(Err(gone));
                        }
                        return;
                    }
                }
                changed = self.glances.changed() => if changed.is_err() {
                    return;
                },
            }
            let latest = self.glances.borrow_and_update().clone();
            let Some(glance) = latest else { continue };
            match self.answers.try_send(Ok(admin::WatchOverviewResponse::clone(&glance))) {
                Ok(()) => taken = Instant::now(),
                Err(TrySendError::Full(_)) => {}
                Err(TrySendError::Closed(_)) => return,
            }
        }
    }
}

fn is_over(token_stands: bool, unread_for: Duration) -> bool {
    !token_stands || unread_for >= SLOW_AFTER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_does_not_take_the_streams_of_others() {
        let seats = Seats::default();
        let mut held: Vec<_> = (0..STREAMS_PER_CALLER_MAX).map(|_| seats.take("token/a").unwrap()).collect();
        assert!(seats.take("token/a").is_none(), "it has its share");
        assert!(seats.take("token/b").is_some(), "others have theirs");
        held.pop();
        assert!(seats.take("token/a").is_some());
        let of_others = |number: usize| seats.take(&format!("token/{number}"));
        held.extend((0..STREAMS_MAX - held.len()).map(|number| of_others(number).unwrap()));
        assert!(of_others(STREAMS_MAX).is_none(), "there is an end to all of them");
        drop(held);
        assert!(seats.0.lock().unwrap().is_empty(), "nothing is left of who has left");
    }

    #[test]
    fn a_reader_that_reads_nothing_is_ended_after_a_minute() {
        assert!(!is_over(true, SLOW_AFTER - Duration::from_millis(1)));
        assert!(is_over(true, SLOW_AFTER));
        assert!(is_over(false, Duration::ZERO));
    }

    /// One who is shown a glance, whose reader has taken nothing, with or without a token that stands.
    async fn watch(stands: bool, stop: CancellationToken) {
        let (_shown, mut glances) = watch::channel(Some(Glance::default()));
        glances.mark_changed();
        let (answers, _reader) = mpsc::channel(ROOM);
        (0..ROOM).for_each(|_| answers.try_send(Ok(Default::default())).unwrap());
        let seat = Seats::default().take("token/a").unwrap();
        let gone = move || (!stands).then(|| Status::unauthenticated("gone"));
        Watcher { gone: Box::new(gone), glances, answers, _seat: seat }.run(stop).await;
    }

    #[tokio::test]
    async fn a_full_buffer_holds_up_neither_the_end_of_a_token_nor_that_of_the_node() {
        watch(false, CancellationToken::new()).await;
        let stop = CancellationToken::new();
        stop.cancel();
        watch(true, stop).await;
    }
}
