//! This node's log: its newest lines, the next ones, and how much is written.

use std::{sync::Arc, time::Duration};

use quorumgate_proto::admin::v1 as admin;
use tokio::sync::{OwnedSemaphorePermit, broadcast::error::RecvError, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::{Answers, TOKEN_EVERY};
use crate::{
    admin::{
        desk::{self, Desk},
        failure,
        gate::Call,
    },
    tasks::Tasks,
    telemetry::logs::{self, Logs, PAST_MAX},
};

const LINES_DEFAULT: u32 = 100;
const ROOM: usize = 256;
/// How long a changed level may last before the one of before comes back.
const HOLD_MAX: Duration = Duration::from_secs(24 * 3_600);

fn of_process() -> Result<&'static Logs, Status> {
    logs::of_process().ok_or_else(|| failure::status(Code::Unavailable, "NO_LOGS", "this process keeps no log"))
}

pub fn watch(
    desk: &Desk,
    call: &Call,
    request: &admin::WatchLogsRequest,
    tasks: Tasks,
    permit: OwnedSemaphorePermit,
) -> Result<Answers<admin::WatchLogsResponse>, Status> {
    let lines = match request.lines {
        0 => LINES_DEFAULT,
        lines => lines,
    };
    let (past, mut live) = of_process()?.lines((lines as usize).min(PAST_MAX));
    let (answers, received) = mpsc::channel(ROOM);
    let (desk, held, follow) = (desk.clone(), call.held.clone(), request.follow);
    let stop = tasks.stop();
    tasks.detach(async move {
        let _permit = permit;
        let mut dropped = 0;
        let send = |line: Arc<str>, dropped| {
            let line = line.to_string();
            answers.send(Ok(admin::WatchLogsResponse { line, dropped, header: Some(desk.header()) }))
        };
        for line in past {
            if send(line, 0).await.is_err() {
                return;
            }
        }
        if !follow {
            return;
        }
        let mut look = tokio::time::interval(TOKEN_EVERY);
        loop {
            let next = tokio::select! {
                () = stop.cancelled() => return,
                () = answers.closed() => return,
                _ = look.tick() => None,
                next = live.recv() => Some(next),
            };
            if let Some(gone) = desk.ended(held.as_ref()) {
                return super::last_word(&answers, gone).await;
            }
            let Some(next) = next else { continue };
            match next {
                Ok(line) => {
                    if send(line, dropped).await.is_err() {
                        return;
                    }
                }
                Err(RecvError::Lagged(missed)) => dropped += missed,
                Err(RecvError::Closed) => return,
            }
        }
    });
    Ok(Box::pin(ReceiverStream::new(received)))
}

pub fn set_level(
    desk: &Desk,
    call: &Call,
    request: admin::SetLogLevelRequest,
    tasks: &Tasks,
) -> Result<admin::SetLogLevelResponse, Status> {
    let logs = of_process()?;
    let before = logs.filter();
    let header = Some(desk.header());
    if request.filter.is_empty() {
        return Ok(admin::SetLogLevelResponse { header, filter: before.clone(), before });
    }
    call.may_write()?;
    let hold = desk::duration("for", request.r#for)?;
    let filter = request.filter;
    let hold = hold.filter(|hold| !hold.is_zero());
    let change = match hold {
        Some(_) => logs.change_for_a_while(&filter).map(Some),
        None => logs.change(&filter).map(|_| None),
    };
    let change = change.map_err(|error| failure::bad_field("filter", &format!("{error:#}")))?;
    tracing::info!(
        actor = call.actor.name,
        source = call.actor.source,
        filter,
        before,
        ?hold,
        "the log's filter is changed"
    );
    if let Some((hold, change)) = hold.zip(change) {
        let stop = tasks.stop();
        tasks.detach(async move {
            let waited = stop.run_until_cancelled(tokio::time::sleep(hold.min(HOLD_MAX))).await;
            // Unless somebody has changed it meanwhile.
            if waited.is_some()
                && let Some(filter) = logs.put_back(change)
            {
                tracing::info!(filter, "the log's filter is what it was");
            }
        });
    }
    Ok(admin::SetLogLevelResponse { header, filter, before })
}
