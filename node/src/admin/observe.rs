//! The Observe service: what the gateway would do and did with a request, what the nodes hold, how they are, and who did
//! what.

mod audit;
mod doctor;
mod exchanges;
mod logs;

use std::{
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures_util::Stream;
use quorumgate_model::{command::Body, digest::Digest, state::State};
use quorumgate_proto::admin::v1::{self as admin, observe_server::Observe};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{Code, Request, Response, Status};

use super::{
    Serving,
    config::taken,
    desk::Desk,
    explain::{self, Counted},
    failure,
};
use crate::{
    access::{actor_hash, erased_at},
    consensus::Consensus,
    denials::Denials,
    tasks::Tasks,
    usage::{Question, Usage},
};

/// Streams of this service at once.
const STREAMS_MAX: usize = 128;
/// How often it is looked whether the caller's token still stands.
const TOKEN_EVERY: Duration = Duration::from_secs(5);
/// For how long one who takes nothing holds up the end of his stream.
const LAST_WORD_MAX: Duration = Duration::from_secs(1);

pub struct Service {
    desk: Desk,
    serving: Serving,
    denials: Arc<Denials>,
    tasks: Tasks,
    streams: Arc<Semaphore>,
}

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    pub fn new(consensus: Consensus, serving: Serving, denials: Arc<Denials>, tasks: Tasks) -> Self {
        Self { desk: Desk { consensus }, serving, denials, tasks, streams: Arc::new(Semaphore::new(STREAMS_MAX)) }
    }

    fn stream(&self) -> Result<OwnedSemaphorePermit, Status> {
        let full = format!("{STREAMS_MAX} streams are open on this node");
        let permit = self.streams.clone().try_acquire_owned();
        permit.map_err(|_| failure::status(Code::ResourceExhausted, "TOO_MANY_STREAMS", full))
    }

    /// How much is used of each limit that would count the request, and who holds what of it.
    async fn tell_usage(&self, explained: &mut admin::ExplainMatchResponse, counted: &[Counted], left: Duration) {
        if counted.is_empty() {
            return;
        }
        let question = |it: &Counted| Question { limit: it.limit.clone(), keys: Some(vec![it.key.clone()]), top: 1 };
        let usage = Usage::ask(&self.desk.consensus, counted.iter().map(question).collect(), left).await;
        for it in counted {
            let limit = usage.limits.iter().find(|limit| limit.limit.name == it.limit);
            let key = limit.and_then(|limit| limit.keys.iter().find(|key| key.key == it.key));
            if let (Some(key), Some(phase)) = (key, explained.phases.get_mut(it.phase)) {
                phase.decision += &format!("; {key}");
                if !usage.unanswered.is_empty() {
                    phase.decision += &format!("; no answer from {}", usage.unanswered.join(", "));
                }
            }
        }
    }
}

async fn last_word<T>(answers: &mpsc::Sender<Result<T, Status>>, status: Status) {
    // Whoever has hung up, or takes nothing, does not miss it.
    let _ = answers.send_timeout(Err(status), LAST_WORD_MAX).await;
}

#[tonic::async_trait]
impl Observe for Service {
    type WatchAuditStream = Answers<admin::AuditEntry>;
    type TapStream = Answers<admin::TapResponse>;
    type WatchLogsStream = Answers<admin::WatchLogsResponse>;

    /// By the rules that this node serves right now.
    async fn explain_match(&self, request: Request<admin::ExplainMatchRequest>) -> Answer<admin::ExplainMatchResponse> {
        let (call, request) = taken(request)?;
        let client_ip = match request.client_ip.as_str() {
            "" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            text => text
                .parse()
                .map_err(|_| failure::bad_field("client_ip", &format!("found {text:?}; allowed: an IP address")))?,
        };
        let asked = explain::Asked::parse(&request, client_ip)?;
        let rules = (self.serving)();
        let consensus = &self.desk.consensus;
        // Until the proxy runs nothing is known of places.
        let directory = consensus.proxy().map(|it| it.directory()).unwrap_or_default();
        let (mut explained, counted) = asked.explain(&rules, &consensus.state(), consensus.clock_us(), &directory.geo);
        self.tell_usage(&mut explained, &counted, call.left()).await;
        let explained = admin::ExplainMatchResponse { header: Some(self.desk.header()), ..explained };
        Ok(Response::new(explained))
    }

    async fn state_hash(&self, request: Request<admin::StateHashRequest>) -> Answer<admin::StateHashResponse> {
        let (call, request) = taken(request)?;
        let consensus = &self.desk.consensus;
        let state = match request.index {
            0 => consensus.state(),
            index => {
                let applied = consensus.wait_applied(index, call.left()).await;
                applied.map_err(|error| failure::unapplied(index, error))?
            }
        };
        let header = Some(self.desk.header_at(&state));
        let index = state.index;
        // Over a large state this takes longer than a heartbeat may wait.
        let hash = tokio::task::spawn_blocking(move || state.hash()).await;
        let hash = hash.map_err(|error| failure::status(Code::Internal, "INTERNAL", error.to_string()))?;
        Ok(Response::new(admin::StateHashResponse { header, index, hash: hash.to_string() }))
    }

    async fn list_audit(&self, request: Request<admin::ListAuditRequest>) -> Answer<admin::ListAuditResponse> {
        let (call, request) = taken(request)?;
        self.audit_entries(&call, &request).await.map(Response::new)
    }

    async fn watch_audit(&self, request: Request<admin::WatchAuditRequest>) -> Answer<Self::WatchAuditStream> {
        let (call, request) = taken(request)?;
        let permit = self.stream()?;
        Ok(Response::new(self.follow_audit(&call, &request, permit)))
    }

    async fn erase_actor(&self, request: Request<admin::EraseActorRequest>) -> Answer<admin::WriteResponse> {
        let (call, request) = taken(request)?;
        if request.actor.is_empty() {
            return Err(failure::bad_field(
                "actor",
                "found nothing; allowed: a name as entries have it, such as token/alice",
            ));
        }
        let keys = self.desk.consensus.keys();
        let hash = actor_hash(&keys, &request.actor);
        let before = erased_at(&keys, &self.desk.consensus.state().erased, &request.actor);
        let written = self.desk.write_other(&call, Body::EraseActor(hash)).await?;
        if let Some(at_ms) = stands(before, &self.desk.consensus.state(), &hash, written.revision) {
            let why = format!(
                "the log's clock stands at {at_ms} ms since 1970, where {} was erased before: what it did since then is not \
                 erased. The leader's clock was set back, as doctor tells: repeat this once it is past that time",
                request.actor
            );
            return Err(failure::status(Code::FailedPrecondition, "CLOCK_STANDS", why));
        }
        Ok(Response::new(written))
    }

    async fn verify_audit(&self, request: Request<admin::VerifyAuditRequest>) -> Answer<admin::VerifyAuditResponse> {
        taken(request)?;
        self.check_audit().await.map(Response::new)
    }

    async fn doctor(&self, request: Request<admin::DoctorRequest>) -> Answer<admin::DoctorResponse> {
        let (call, _) = taken(request)?;
        Ok(Response::new(doctor::examine(&self.desk, call.left()).await))
    }

    async fn explain_request(
        &self,
        request: Request<admin::ExplainRequestRequest>,
    ) -> Answer<admin::ExplainRequestResponse> {
        let (call, request) = taken(request)?;
        exchanges::explain(&self.desk, &call, &request).await.map(Response::new)
    }

    async fn tap(&self, request: Request<admin::TapRequest>) -> Answer<Self::TapStream> {
        let (call, request) = taken(request)?;
        let permit = self.stream()?;
        Ok(Response::new(exchanges::tap(&self.desk, &call, &request, self.tasks.clone(), permit)?))
    }

    async fn get_stats(&self, request: Request<admin::GetStatsRequest>) -> Answer<admin::GetStatsResponse> {
        taken(request)?;
        exchanges::stats(&self.desk).map(Response::new)
    }

    async fn watch_logs(&self, request: Request<admin::WatchLogsRequest>) -> Answer<Self::WatchLogsStream> {
        let (call, request) = taken(request)?;
        let permit = self.stream()?;
        Ok(Response::new(logs::watch(&self.desk, &call, &request, self.tasks.clone(), permit)?))
    }

    async fn set_log_level(&self, request: Request<admin::SetLogLevelRequest>) -> Answer<admin::SetLogLevelResponse> {
        let (call, request) = taken(request)?;
        logs::set_level(&self.desk, &call, request, &self.tasks).map(Response::new)
    }
}

/// The stamp of the erasure before, where the one that was just written has the same: nodes cannot tell them apart, and go
/// on with the key that was made after the first.
fn stands(before: Option<u64>, state: &State, actor: &Digest, index: u64) -> Option<u64> {
    before.filter(|at_ms| state.index >= index && state.erased.get(actor).is_some_and(|now| now <= at_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_erasure_under_the_stamp_of_the_one_before_is_not_said_to_be_done() {
        let (ann, mut state) = (Digest::of(b"ann"), State { index: 5, ..State::default() });
        state.erased.insert(ann, 7);
        assert_eq!(stands(None, &state, &ann, 5), None, "the first one");
        assert_eq!(stands(Some(7), &state, &ann, 5), Some(7));
        // Under a key before, whose stamp is later than that of the new one.
        assert_eq!(stands(Some(8), &state, &ann, 5), Some(8));
        assert_eq!(stands(Some(7), &state, &ann, 6), None, "it is not applied here yet");
        state.erased.insert(ann, 8);
        assert_eq!(stands(Some(7), &state, &ann, 5), None);
    }
}
