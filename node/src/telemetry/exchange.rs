//! An exchange as the admin API shows it.

use std::time::Duration;

use quorumgate_proto::admin::v1::{Exchange, Timings};
use quorumgate_proxy::recent;

pub fn shown(it: &recent::Exchange, node: &str, region: &str) -> Exchange {
    let text = |it: &Option<std::sync::Arc<str>>| it.as_deref().unwrap_or_default().to_owned();
    let span = |it: Duration| prost_types::Duration { seconds: it.as_secs() as i64, nanos: it.subsec_nanos() as i32 };
    let (seconds, millis) = ((it.ended_ms / 1_000) as i64, (it.ended_ms % 1_000) as i32);
    Exchange {
        request_id: it.request_id.to_string(),
        trace_id: it.trace_id.clone(),
        time: Some(prost_types::Timestamp { seconds, nanos: millis * 1_000_000 }),
        node: node.to_owned(),
        region: region.to_owned(),
        revision: it.revision,
        route: text(&it.route),
        client_ip: it.client_ip.to_string(),
        method: it.method.to_string(),
        host: it.host.clone(),
        path: it.path.clone(),
        protocol: it.protocol.to_owned(),
        tls: it.tls,
        status: it.status.into(),
        code: it.code.to_owned(),
        detail: it.detail.to_owned(),
        consumer: text(&it.consumer),
        credential: text(&it.credential),
        auth_method: it.auth_method.unwrap_or_default().to_owned(),
        phase: it.phase.to_owned(),
        policy: text(&it.policy),
        rule: text(&it.rule),
        shadow: it.shadow.iter().map(ToString::to_string).collect(),
        numbers: it.numbers.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect(),
        received_bytes: it.received_bytes,
        sent_bytes: it.sent_bytes,
        timings: Some(Timings {
            gateway: Some(span(it.gateway)),
            connect: it.connect.map(span),
            ttfb: it.ttfb.map(span),
            total: Some(span(it.total)),
        }),
        upstream: text(&it.upstream),
        attempts: it.attempts,
    }
}
