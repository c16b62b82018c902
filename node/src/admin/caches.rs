//! The Caches service: what every node is to let go of.

use quorumgate_model::{
    command::{Body, PurgeCache},
    invalid::Invalid,
    purge::{PURGE_TARGETS_MAX, PurgeTarget},
    state::MESSAGE_BYTES_MAX,
};
use quorumgate_proto::admin::v1::{self as admin, caches_server::Caches};
use tonic::{Request, Response, Status};

use super::{
    config::taken,
    desk::{self, Desk},
    failure,
};
use crate::consensus::Consensus;

pub struct Service {
    desk: Desk,
}

impl Service {
    pub fn new(consensus: Consensus) -> Self {
        Self { desk: Desk { consensus } }
    }
}

#[tonic::async_trait]
impl Caches for Service {
    async fn purge(&self, request: Request<admin::PurgeRequest>) -> Result<Response<admin::WriteResponse>, Status> {
        let (call, request) = taken(request)?;
        let request_id = desk::request_id(&request.request_id)?;
        let reason = request.message.clone();
        if reason.len() > MESSAGE_BYTES_MAX {
            let why = format!("found {} bytes; allowed: at most {MESSAGE_BYTES_MAX}", reason.len());
            return Err(failure::bad_field("message", &why));
        }
        let targets = targets(&request)?;
        let body = Body::PurgeCache(PurgeCache { targets: targets.into(), reason });
        let applied = self.desk.propose(&call, request_id, body).await?;
        self.desk.respond_other(&call, &applied, Some(request_id)).await.map(Response::new)
    }
}

fn targets(request: &admin::PurgeRequest) -> Result<Vec<PurgeTarget>, Status> {
    type Read = fn(&str) -> Result<PurgeTarget, Invalid>;
    let lists: [(&str, &[String], Read); 3] = [
        ("keys", &request.keys, PurgeTarget::key),
        ("prefixes", &request.prefixes, PurgeTarget::prefix),
        ("tags", &request.tags, PurgeTarget::tag),
    ];
    let count = usize::from(request.everything) + lists.iter().map(|(_, list, _)| list.len()).sum::<usize>();
    if !(1..=PURGE_TARGETS_MAX).contains(&count) {
        let why = format!("found {count} of them all; allowed: 1 to {PURGE_TARGETS_MAX} keys, prefixes and tags");
        return Err(failure::bad_field("keys", &why));
    }
    let mut targets: Vec<_> = request.everything.then_some(PurgeTarget::Everything).into_iter().collect();
    for (field, list, read) in lists {
        for (at, text) in list.iter().enumerate() {
            let wrong = |it: Invalid| {
                failure::bad_field(&format!("{field}[{at}]"), &format!("found {}; allowed: {}", it.found, it.allowed))
            };
            targets.push(read(text).map_err(wrong)?);
        }
    }
    Ok(targets)
}
