//! The Bans service: who is shut out for a while.

use std::time::Duration;

use quorumgate_model::{
    ban::BanSubject,
    command::{AddBans, Body, LiftBans, NewBan},
    digest::Digest,
    invalid::Invalid,
    units::Span,
};
use quorumgate_proto::admin::v1::{self as admin, WaitFor, bans_server::Bans};
use tonic::{Request, Response, Status};

use super::{
    config::{
        messages::{duration, timestamp_ms},
        taken,
    },
    credentials::{page, wait_for},
    desk::{self, Desk, Read},
    failure,
    gate::Call,
};
use crate::consensus::Consensus;

const EXPIRES_MAX: Duration = Duration::from_secs(3_660 * 86_400);

pub struct Service {
    desk: Desk,
}

impl Service {
    pub fn new(consensus: Consensus) -> Self {
        Self { desk: Desk { consensus } }
    }

    async fn write(
        &self,
        call: &Call,
        request_id: &str,
        asked: Digest,
        wait: i32,
        body: Body,
    ) -> Result<Response<admin::WriteResponse>, Status> {
        let (request_id, wait) = (desk::request_id(request_id)?, wait_for(wait)?);
        let applied = self.desk.propose_asked(call, request_id, Some(asked), body).await?;
        if wait != WaitFor::Committed {
            return self.desk.respond_other(call, &applied, Some(request_id)).await.map(Response::new);
        }
        let written = desk::written(&applied)?;
        Ok(Response::new(admin::WriteResponse {
            header: Some(self.desk.header()),
            revision: written.index,
            noop: written.outcome.noop,
            request_id: request_id.to_string(),
            ..Default::default()
        }))
    }
}

#[tonic::async_trait]
impl Bans for Service {
    async fn add_bans(
        &self,
        request: Request<admin::AddBansRequest>,
    ) -> Result<Response<admin::WriteResponse>, Status> {
        let (call, request) = taken(request)?;
        let ttl = desk::duration("expires_in", request.expires_in)?.unwrap_or_default();
        if ttl.as_micros() == 0 || ttl > EXPIRES_MAX {
            let why = format!("found {}; allowed: more than 0s, at most 3660d", Span(ttl));
            return Err(failure::bad_field("expires_in", &why));
        }
        let asked = asked(&call, &request.subjects, &format!("{} {}", ttl.as_micros(), request.reason));
        let bans = subjects(&request.subjects)?.into_iter().map(|subject| NewBan { subject, ttl }).collect();
        let body = Body::AddBans(AddBans { bans, reason: request.reason });
        self.write(&call, &request.request_id, asked, request.wait, body).await
    }

    async fn lift_bans(
        &self,
        request: Request<admin::LiftBansRequest>,
    ) -> Result<Response<admin::WriteResponse>, Status> {
        let (call, request) = taken(request)?;
        let asked = asked(&call, &request.subjects, &request.reason);
        let subjects = subjects(&request.subjects)?.into();
        let body = Body::LiftBans(LiftBans { subjects, reason: request.reason });
        self.write(&call, &request.request_id, asked, request.wait, body).await
    }

    async fn list_bans(
        &self,
        request: Request<admin::ListBansRequest>,
    ) -> Result<Response<admin::ListBansResponse>, Status> {
        let (call, request) = taken(request)?;
        let limit = page(request.limit)?;
        let state = self.desk.read(&call, Read::stale(request.stale)).await?;
        let now_us = self.desk.consensus.clock_us();
        let holding = state.bans.entries().values().filter(|ban| ban.expires_at_us > now_us);
        let shown = holding.take(limit).map(|ban| admin::StoredBan {
            subject: ban.subject.to_string(),
            reason: ban.reason.to_string(),
            actor: ban.actor.to_string(),
            revision: ban.index,
            time: Some(timestamp_ms(ban.wall_ms)),
            expires_in: Some(duration(Duration::from_micros(ban.expires_at_us.saturating_sub(now_us)))),
        });
        Ok(Response::new(admin::ListBansResponse {
            header: Some(self.desk.header_at(&state)),
            bans: shown.collect(),
            total: state.bans.len() as u64,
        }))
    }
}

fn subjects(texts: &[String]) -> Result<Vec<BanSubject>, Status> {
    let subject = |(at, text): (usize, &String)| {
        let wrong = |it: Invalid| {
            failure::bad_field(&format!("subjects[{at}]"), &format!("found {}; allowed: {}", it.found, it.allowed))
        };
        text.parse().map_err(wrong)
    };
    texts.iter().enumerate().map(subject).collect()
}

fn asked(call: &Call, subjects: &[String], rest: &str) -> Digest {
    let parts: Vec<&[u8]> = subjects.iter().map(String::as_bytes).chain([rest.as_bytes()]).collect();
    desk::asked(call, &parts)
}
