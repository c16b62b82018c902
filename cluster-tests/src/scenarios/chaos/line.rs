//! One client's connection to the admin API of one node, over gRPC or as JSON over HTTP/1.1, and what the answers mean.

use std::{path::Path, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use quorumgate_proto::admin::v1::{self as admin, ApplyConfigRequest, ConfigSet, Consumer, Etag, GetObjectRequest};
use serde_json::{Value, json};
use tokio::{net::UnixStream, time::timeout};
use tonic::Status;
use tonic_types::StatusExt;

use crate::{Admin, history::Call};

/// A client waits this much longer than the deadline that it tells the node.
const PATIENCE: Duration = Duration::from_millis(700);
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Grpc,
    Json,
}

pub enum Line {
    Grpc(Admin),
    Json(http1::SendRequest<Full<Bytes>>),
}

#[derive(Debug, Clone)]
pub struct Words {
    pub name: String,
    pub call: Call,
    /// Of what a swap expects.
    pub etag: Option<String>,
    pub request: String,
    pub stale: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Found {
        value: Option<u64>,
        etag: String,
        revision: Option<u64>,
    },
    Written {
        revision: u64,
    },
    Conflict,
    /// Certainly nothing was written.
    Failed,
    Unknown,
    Strange(String),
}

impl Line {
    pub async fn open(socket: &Path, way: Way) -> anyhow::Result<Self> {
        let opening = async {
            Ok(match way {
                Way::Grpc => Self::Grpc(Admin::connect(socket).await?),
                Way::Json => {
                    let stream = UnixStream::connect(socket).await?;
                    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                    // Its end shows in the sender.
                    tokio::spawn(connection);
                    Self::Json(sender)
                }
            })
        };
        timeout(CONNECT_WITHIN, opening).await.context("connecting")?
    }

    /// The line is given back where it is of further use.
    pub async fn ask(self, words: &Words, deadline: Duration) -> (Said, Option<Self>) {
        match self {
            Self::Grpc(admin) => {
                let said = timeout(deadline + PATIENCE, by_grpc(&admin, words, deadline)).await;
                match said.unwrap_or(Said::Unknown) {
                    Said::Unknown => (Said::Unknown, None),
                    said => (said, Some(Self::Grpc(admin))),
                }
            }
            Self::Json(mut sender) => match timeout(deadline + PATIENCE, by_json(&mut sender, words, deadline)).await {
                Ok(Ok(said)) => (said, Some(Self::Json(sender))),
                Ok(Err(Unsent)) => (Said::Failed, None),
                Err(_) => (Said::Unknown, None),
            },
        }
    }
}

async fn by_grpc(client: &Admin, words: &Words, deadline: Duration) -> Said {
    if words.call == Call::Read {
        let mut asked = tonic::Request::new(GetObjectRequest { name: words.name.clone(), stale: words.stale });
        asked.set_timeout(deadline);
        return match client.config().get_consumer(asked).await.map(tonic::Response::into_inner) {
            Ok(found) => {
                let revision = found.header.map(|header| header.revision);
                match found.consumer.as_ref().map(|it| value_of(&it.plan)) {
                    Some(Some(value)) => Said::Found { value: Some(value), etag: found.etag, revision },
                    _ => Said::Strange(format!("{:?}", found.consumer)),
                }
            }
            Err(status) => read(said(&status)),
        };
    }
    let (value, revision) = written(words.call);
    let consumer = Consumer { name: words.name.clone(), plan: plan(value), ..Default::default() };
    let etag =
        |etag: &String| Etag { kind: admin::Kind::Consumer.into(), name: words.name.clone(), etag: etag.clone() };
    let mut asked = tonic::Request::new(ApplyConfigRequest {
        config: Some(ConfigSet { consumers: vec![consumer], ..Default::default() }),
        etags: words.etag.iter().map(etag).collect(),
        expected_revision: revision,
        request_id: words.request.clone(),
        message: words.request.clone(),
        ..Default::default()
    });
    asked.set_timeout(deadline);
    match client.config().apply_config(asked).await.map(tonic::Response::into_inner) {
        Ok(answer) if answer.noop => Said::Strange(format!("nothing differed: {answer:?}")),
        Ok(answer) => Said::Written { revision: answer.revision },
        Err(status) => said(&status),
    }
}

struct Unsent;

async fn by_json(
    sender: &mut http1::SendRequest<Full<Bytes>>,
    words: &Words,
    deadline: Duration,
) -> Result<Said, Unsent> {
    let path = format!("/api/v1/consumers/{}", words.name);
    let timed = Request::builder().header("host", "admin").header("grpc-timeout", format!("{}m", deadline.as_millis()));
    let asked = match words.call {
        Call::Read => timed.uri(format!("{path}?stale={}", words.stale)).body(Full::default()),
        call => {
            let (value, revision) = written(call);
            let mut uri = format!("{path}?request_id={0}&message={0}", words.request);
            uri += &words.etag.as_ref().map_or(String::new(), |etag| format!("&etag={etag}"));
            uri += &revision.map_or(String::new(), |revision| format!("&if_revision={revision}"));
            let body = json!({ "name": words.name, "plan": plan(value) }).to_string();
            timed.method("PUT").uri(uri).header("content-type", "application/json").body(Full::from(body))
        }
    };
    let asked = asked.expect("its words are those of a request");
    if sender.ready().await.is_err() {
        return Err(Unsent);
    }
    let answer = match sender.try_send_request(asked).await {
        Ok(answer) => answer,
        Err(mut error) => return error.take_message().map_or(Ok(Said::Unknown), |_| Err(Unsent)),
    };
    let status = answer.status();
    let Ok(body) = answer.into_body().collect().await else { return Ok(Said::Unknown) };
    let json: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
    let said = match (status.is_success(), words.call) {
        (true, Call::Read) => match (json["plan"].as_str().and_then(value_of), json["etag"].as_str()) {
            (Some(value), Some(etag)) => Said::Found { value: Some(value), etag: etag.into(), revision: None },
            _ => Said::Strange(json.to_string()),
        },
        (true, _) => match json["revision"].as_u64().filter(|_| json["noop"] != true) {
            Some(revision) => Said::Written { revision },
            None => Said::Strange(json.to_string()),
        },
        (false, call) => {
            let reason = json["code"].as_str().unwrap_or_default().to_ascii_uppercase();
            let said = because(&reason, || format!("{status} {json}"));
            if call == Call::Read { read(said) } else { said }
        }
    };
    Ok(said)
}

fn said(status: &Status) -> Said {
    let reason = status.get_error_details().error_info().map(|it| it.reason.clone()).unwrap_or_default();
    because(&reason, || format!("{status:?}"))
}

/// What a refusal says of a write. Without a reason it comes from the way there, which says nothing.
fn because(reason: &str, told: impl FnOnce() -> String) -> Said {
    match reason {
        "CONFLICT" | "ALREADY_EXISTS" | "NOT_FOUND" => Said::Conflict,
        "NO_QUORUM" | "CONSENSUS_STOPPED" | "NOT_BOOTSTRAPPED" => Said::Failed,
        "OUTCOME_UNKNOWN" | "DEADLINE" | "" => Said::Unknown,
        _ => Said::Strange(told()),
    }
}

/// The same of a read, which is refused as not found where there is no such register.
fn read(said: Said) -> Said {
    match said {
        Said::Conflict => Said::Found { value: None, etag: String::new(), revision: None },
        said => said,
    }
}

fn written(call: Call) -> (u64, Option<u64>) {
    match call {
        Call::Read => unreachable!("a read writes nothing"),
        Call::Write(value) | Call::Swap { value, .. } => (value, None),
        Call::WriteAt { revision, value } => (value, Some(revision)),
    }
}

fn plan(value: u64) -> String {
    format!("v{value}")
}

fn value_of(plan: &str) -> Option<u64> {
    plan.strip_prefix('v')?.parse().ok()
}
