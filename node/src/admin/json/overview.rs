//! What is there for the web page first of all: who asks, the cluster at a glance, what was counted lately, exchanges as they
//! end, and what differs between revisions.

use futures_util::{Stream, StreamExt};
use http::{Request, Response};
use quorumgate_proto::admin::v1::{
    self as admin, ai_client::AiClient, apis_client::ApisClient, observe_client::ObserveClient,
    overview_client::OverviewClient, upstreams_client::UpstreamsClient,
};
use serde_json::{Value, json};
use tonic::{Status, body::Body};

use super::{Asked, Local, MESSAGE_BYTES_MAX, config_of, internal, reply, words::Words};
use crate::cli::{
    diff, shape,
    verbs::{ai, apis, audit, exchanges, upstream_health},
};

pub async fn answer<T>(asked: Asked, request: &Request<T>, local: Local) -> Result<Value, Status> {
    match asked {
        Asked::WhoAmI => {
            Words::of(request, &[])?;
            let who = OverviewClient::new(local).who_am_i(admin::WhoAmIRequest {}).await?.into_inner();
            Ok(json!({
                "name": who.name,
                "role": who.role,
                "owner": shape::known(&who.owner),
                "node": who.header.map(|it| it.node),
                "version": who.version,
            }))
        }
        Asked::Traffic => {
            let words = Words::of(request, &["route", "since_ms", "routes"])?;
            let asked = admin::GetTrafficRequest {
                route: words.text("route"),
                since_ms: words.number("since_ms")?.unwrap_or_default(),
                routes: words.is("routes")?,
            };
            let mut overview = OverviewClient::new(local).max_decoding_message_size(MESSAGE_BYTES_MAX);
            Ok(traffic(&overview.get_traffic(asked).await?.into_inner()))
        }
        Asked::Health(name) => {
            Words::of(request, &[])?;
            let asked = admin::GetUpstreamHealthRequest { name };
            Ok(upstream_health::known(&UpstreamsClient::new(local).get_upstream_health(asked).await?.into_inner()))
        }
        Asked::Apis(api) => {
            Words::of(request, &[])?;
            let answer = ApisClient::new(local).list_apis(admin::ListApisRequest { api }).await?.into_inner();
            Ok(apis::known(&answer))
        }
        Asked::Callers(api) => {
            let words = Words::of(request, &["version", "consumer", "top"])?;
            let (version, consumer, top) = (words.text("version"), words.text("consumer"), words.count("top")?);
            let asked = admin::ListCallersRequest { api, version, consumer, top };
            let mut client = ApisClient::new(local).max_decoding_message_size(MESSAGE_BYTES_MAX);
            Ok(apis::known_callers(&client.list_callers(asked).await?.into_inner()))
        }
        Asked::AiUsage => {
            let words = Words::of(request, &["consumer", "model", "day", "top"])?;
            let asked = admin::ListAiUsageRequest {
                consumer: words.text("consumer"),
                model: words.text("model"),
                day: words.text("day"),
                top: words.count("top")?,
            };
            let mut client = AiClient::new(local).max_decoding_message_size(MESSAGE_BYTES_MAX);
            Ok(ai::known(&client.list_ai_usage(asked).await?.into_inner()))
        }
        Asked::Verify => {
            Words::of(request, &[])?;
            let verified = ObserveClient::new(local).verify_audit(admin::VerifyAuditRequest {}).await?.into_inner();
            Ok(audit::verified(&verified))
        }
        _ => {
            let words = Words::of(request, &["from", "to"])?;
            let from = words.number("from")?.unwrap_or_default();
            let asked = admin::DiffRevisionsRequest { from, to: words.number("to")? };
            let answer = config_of(local).diff_revisions(asked).await?.into_inner();
            let objects: Result<Vec<_>, _> = answer.changes.iter().map(diff::json).collect();
            Ok(json!({ "from": answer.from, "to": answer.to, "objects": objects.map_err(internal)? }))
        }
    }
}

/// One event a second, and one soon after each change.
pub async fn stream<T>(request: &Request<T>, local: Local) -> Result<Response<Body>, Status> {
    Words::of(request, &[])?;
    let mut overview = OverviewClient::new(local);
    let glances = overview.watch_overview(admin::WatchOverviewRequest {}).await?.into_inner();
    Ok(events(glances, |it| glance(&it)))
}

pub async fn tap<T>(request: &Request<T>, local: Local) -> Result<Response<Body>, Status> {
    let words = Words::of(request, &["route", "status", "code", "consumer", "one_in"])?;
    let asked = admin::TapRequest {
        route: words.text("route"),
        status: words.text("status"),
        code: words.text("code"),
        consumer: words.text("consumer"),
        one_in: words.count("one_in")?,
    };
    let ended = ObserveClient::new(local).tap(asked).await?.into_inner();
    Ok(events(ended, |it| {
        let exchange = exchanges::shape_of(&it.exchange.unwrap_or_default());
        json!({ "event": "exchange", "exchange": exchange, "dropped": it.dropped })
    }))
}

fn events<T: 'static>(
    messages: impl Stream<Item = Result<T, Status>> + Send + 'static,
    shown: fn(T) -> Value,
) -> Response<Body> {
    reply::stream(messages.map(move |message| message.map(shown)))
}

fn glance(it: &admin::WatchOverviewResponse) -> Value {
    let header = it.header.clone().unwrap_or_default();
    let trip = |it: &admin::LinkRoundTrip| json!({ "from": it.from, "to": it.to, "us": micros(it.took.as_ref()) });
    let trial = it.trial.as_ref().map(|it| {
        json!({
            "revision": it.revision,
            "ends_in_ms": micros(it.ends_in.as_ref()) / 1_000,
            "prior_revision": it.prior_revision,
        })
    });
    let propagation = it.propagation.clone().unwrap_or_default();
    json!({
        "event": "overview",
        "node": header.node,
        "time": shape::time(it.time.as_ref()),
        "cluster": shape::cluster(&it.cluster.clone().unwrap_or_default()),
        "nodes": it.nodes.iter().map(shape::node).collect::<Vec<_>>(),
        "answered": it.answered,
        "round_trips": it.round_trips.iter().map(trip).collect::<Vec<_>>(),
        "election_timeout_us": micros(it.election_timeout.as_ref()),
        "trial": trial,
        "written": it.written,
        "keys": it.keys,
        "revocations": it.revocations,
        "propagation": { "bounds_us": propagation.bounds_us, "counts": propagation.counts },
    })
}

fn micros(length: Option<&prost_types::Duration>) -> i64 {
    length.map_or(0, |it| it.seconds * 1_000_000 + i64::from(it.nanos) / 1_000)
}

fn traffic(it: &admin::GetTrafficResponse) -> Value {
    let frame = |it: &admin::Frame| {
        json!({
            "at_ms": it.at_ms,
            "span_ms": it.span_ms,
            "requests": it.requests,
            "client_errors": it.client_errors,
            "server_errors": it.server_errors,
            "durations": it.durations,
            "in_flight": it.in_flight,
        })
    };
    let node = |it: &admin::NodeTraffic| {
        let frames: Vec<Value> = it.frames.iter().map(frame).collect();
        json!({ "node": it.node, "region": it.region, "frames": frames })
    };
    let route = |it: &admin::RouteTraffic| {
        json!({
            "route": it.route,
            "requests": it.requests,
            "client_errors": it.client_errors,
            "server_errors": it.server_errors,
            "durations": it.durations,
            "last_hit_ms": match it.last_hit_ms { 0 => Value::Null, at => at.into() },
        })
    };
    json!({
        "nodes": it.nodes.iter().map(node).collect::<Vec<_>>(),
        "unanswered": it.unanswered,
        "routes": it.routes.iter().map(route).collect::<Vec<_>>(),
        "bounds_us": it.bounds_us,
    })
}
