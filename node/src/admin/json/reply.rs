//! What is answered: JSON, a stream of events, or a refusal in the words of gRPC's details.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use quorumgate_proto::admin::v1 as admin;
use serde_json::{Value, json};
use tonic::{Code, Status, body::Body};
use tonic_types::StatusExt;

use crate::cli::verbs::watch;

pub fn respond(status: StatusCode, json: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(format!("{json}\n"))).map_err(|never: Infallible| match never {});
    let mut response = with_type(Body::new(body), "application/json");
    *response.status_mut() = status;
    response
}

fn with_type(body: Body, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    for (name, value) in
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")]
    {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Server-sent events, one a revision; its id is the revision, from which a reader goes on (`Last-Event-ID`).
pub fn revisions(events: tonic::Streaming<admin::WatchConfigResponse>) -> Response<Body> {
    stream(events.filter_map(|message| async move {
        match message {
            Ok(message) => message.event.as_ref().map(watch::json_of).map(Ok),
            Err(status) => Some(Err(status)),
        }
    }))
}

/// Server-sent events; the name of each is its `event`.
pub fn stream(events: impl Stream<Item = Result<Value, Status>> + Send + 'static) -> Response<Body> {
    let lines = events.map(|message| {
        let json = message.unwrap_or_else(|status| json!({ "event": "error", "error": told(&status) }));
        Ok::<_, Status>(Frame::data(Bytes::from(event(&json))))
    });
    with_type(Body::new(StreamBody::new(lines)), "text/event-stream")
}

fn event(json: &Value) -> String {
    let name = json["event"].as_str().unwrap_or_default();
    let id = match json["revision"]["revision"].as_u64() {
        Some(revision) => format!("id: {revision}\n"),
        None => String::new(),
    };
    format!("event: {name}\n{id}data: {json}\n\n")
}

fn told(status: &Status) -> Value {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|it| it.field_violations.as_slice()).unwrap_or_default();
    let fields: Vec<_> = violations.iter().map(|it| json!({ "field": it.field, "message": it.description })).collect();
    let info = details.error_info();
    let code = info.map(|it| it.reason.to_ascii_lowercase()).unwrap_or_default();
    let request_id = info.and_then(|it| it.metadata.get("request_id"));
    let mut json = json!({ "code": code, "message": status.message(), "fields": fields, "request_id": request_id });
    // Under which a change waits for an approval.
    if let Some(id) = info.and_then(|it| it.metadata.get("id")?.parse::<u64>().ok()) {
        json["id"] = id.into();
    }
    json
}

pub fn refused(status: &Status) -> Response<Body> {
    let code = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::FailedPrecondition => StatusCode::PRECONDITION_FAILED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded | Code::Cancelled => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut response = respond(code, &told(status));
    let headers = response.headers_mut();
    if code == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(after) = status.get_details_retry_info().and_then(|it| it.retry_delay) {
        headers.insert(header::RETRY_AFTER, after.as_secs().max(1).into());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_a_revision_can_be_resumed_from() {
        let changed = json!({ "event": "changed", "revision": { "revision": 7 }, "objects": [] });
        assert!(event(&changed).starts_with("event: changed\nid: 7\ndata: {"), "{}", event(&changed));
        let progress = json!({ "event": "progress", "revision": 7 });
        assert_eq!(event(&progress), "event: progress\ndata: {\"event\":\"progress\",\"revision\":7}\n\n");
    }
}
