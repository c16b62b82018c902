//! Exchanges that have ended: one of the last explained, the next ones shown, all of them counted.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use quorumgate_proto::admin::v1 as admin;
use quorumgate_proxy::{Proxy, codes, recent::Filter};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use uuid::Uuid;

use super::{Answers, TOKEN_EVERY};
use crate::{
    admin::{config::messages, desk::Desk, failure, gate::Call},
    publish::wall_ms,
    tasks::Tasks,
    telemetry::exchange,
};

/// How long another node may take to say whether it remembers.
const ASK_MAX: Duration = Duration::from_secs(2);
/// Exchanges that wait for one who taps.
const ROOM: usize = 256;
pub async fn explain(
    desk: &Desk,
    call: &Call,
    request: &admin::ExplainRequestRequest,
) -> Result<admin::ExplainRequestResponse, Status> {
    let text = request.request_id.trim().trim_start_matches("urn:uuid:");
    let id = Uuid::parse_str(text).map_err(|_| {
        failure::bad_field(
            "request_id",
            &format!("found {text:?}; allowed: a UUID, as x-request-id of the answer has it"),
        )
    })?;
    let found = desk.consensus.exchange(id, ASK_MAX.min(call.left())).await;
    let exchange = found.ok_or_else(|| {
        let message = format!(
            "no node in reach remembers {id}: each worker keeps its last 4096 that went wrong and 1024 that went well; \
             the access log has them all"
        );
        failure::status(Code::NotFound, "NOT_FOUND", message)
    })?;
    let (when, help) = codes::find(&exchange.code).map_or(("", ""), |code| (code.when, code.help));
    let header = Some(desk.header());
    Ok(admin::ExplainRequestResponse { header, exchange: Some(exchange), when: when.into(), help: help.into() })
}

fn proxy(desk: &Desk) -> Result<&Proxy, Status> {
    let missing = || failure::status(Code::Unavailable, "NO_PROXY", "this node's proxy is not running yet");
    desk.consensus.proxy().map(|proxy| &**proxy).ok_or_else(missing)
}

pub fn tap(
    desk: &Desk,
    call: &Call,
    request: &admin::TapRequest,
    tasks: Tasks,
    permit: OwnedSemaphorePermit,
) -> Result<Answers<admin::TapResponse>, Status> {
    let known = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let filter = Filter {
        route: known(&request.route),
        status: status(&request.status)?,
        code: known(&request.code),
        consumer: known(&request.consumer),
        every: request.one_in.max(1),
        sampled_only: false,
    };
    let mut tap = proxy(desk)?.tap(filter, ROOM);
    let (answers, received) = mpsc::channel(ROOM);
    let (desk, held) = (desk.clone(), call.held.clone());
    let node = desk.consensus.view().name;
    let stop = tasks.stop();
    tasks.detach(async move {
        let _permit = permit;
        let mut look = tokio::time::interval(TOKEN_EVERY);
        loop {
            let exchange = tokio::select! {
                () = stop.cancelled() => return,
                () = answers.closed() => return,
                _ = look.tick() => match desk.ended(held.as_ref()) {
                    Some(gone) => return super::last_word(&answers, gone).await,
                    None => continue,
                },
                next = tap.exchanges.recv() => match next {
                    Some(exchange) => exchange,
                    None => return,
                },
            };
            let exchange = Some(exchange::shown(&exchange, &node, desk.consensus.region()));
            let (header, dropped) = (Some(desk.header()), tap.dropped.load(Relaxed));
            if answers.send(Ok(admin::TapResponse { header, exchange, dropped })).await.is_err() {
                return;
            }
        }
    });
    Ok(Box::pin(ReceiverStream::new(received)))
}

/// "", "404", "5xx", "400-499".
fn status(text: &str) -> Result<(u16, u16), Status> {
    let wrong = || failure::bad_field("status", &format!("found {text:?}; allowed: 404, 5xx or 400-499"));
    let number = |text: &str| text.parse::<u16>().ok().filter(|it| *it < 1_000).ok_or_else(wrong);
    match (text, text.strip_suffix("xx"), text.split_once('-')) {
        ("", ..) => Ok((0, 999)),
        (_, Some(class), _) => {
            let class = number(class).ok().filter(|class| *class < 10).ok_or_else(wrong)?;
            Ok((class * 100, class * 100 + 99))
        }
        (_, _, Some((from, to))) => Ok((number(from)?, number(to)?)),
        _ => number(text).map(|it| (it, it)),
    }
}

pub fn stats(desk: &Desk) -> Result<admin::GetStatsResponse, Status> {
    let stats = proxy(desk)?.stats();
    let route = |it: quorumgate_proxy::RouteStats| admin::RouteStats {
        route: it.route.to_string(),
        requests: it.requests,
        client_errors: it.client_errors,
        server_errors: it.server_errors,
        durations: it.durations,
    };
    Ok(admin::GetStatsResponse {
        header: Some(desk.header()),
        time: Some(messages::timestamp_ms(wall_ms())),
        routes: stats.routes.into_iter().map(route).collect(),
        in_flight: stats.in_flight,
        connections_open: stats.connections_open,
        received_bytes: stats.received_bytes,
        sent_bytes: stats.sent_bytes,
        rejects: stats.rejects.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect(),
        bounds_us: stats.bounds_us.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_one_a_class_or_a_range() {
        for (text, expected) in [("", (0, 999)), ("404", (404, 404)), ("5xx", (500, 599)), ("400-451", (400, 451))] {
            assert_eq!(status(text).unwrap(), expected, "{text}");
        }
        for wrong in ["x", "55xx", "4x", "1000", "400-", "-1"] {
            assert!(status(wrong).is_err(), "{wrong}");
        }
    }
}
