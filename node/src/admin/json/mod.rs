//! The same calls as JSON under `/api/v1`, for browsers and for scripts without gRPC. Each is one RPC, goes through the same
//! gate and the same service, and answers in the shapes that the command line prints.

mod approvals;
mod credentials;
mod overview;
mod paths;
mod reply;
mod words;

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use quorumgate_model::{
    convert,
    resource::{Kind, Resource},
};
use quorumgate_proto::admin::v1::{
    self as admin, cluster_client::ClusterClient, config_client::ConfigClient, observe_client::ObserveClient,
};
use serde_json::{Value, json};
use tonic::{Code, Status, body::Body, service::Routes};
use tower_service::Service;

use self::{paths::NodeVerb, words::Words};
pub use self::{
    paths::{Asked, find},
    reply::{refused, respond as told},
};
use super::{MESSAGE_BYTES_MAX, failure, gate::Call};
use crate::cli::{
    config::canonical,
    shape,
    verbs::{doctor, exchanges, fetch, top},
};

pub const PREFIX: &str = "/api/v1/";

const WRITE: [&str; 4] = ["message", "dry_run", "if_revision", "request_id"];
const OBJECT: [&str; 5] = ["message", "dry_run", "if_revision", "request_id", "etag"];

/// The services of this node, called by somebody whom the gate has let in.
#[derive(Clone)]
pub struct Local {
    pub routes: Routes,
    pub call: Call,
}

impl Service<Request<Body>> for Local {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <Routes as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.extensions_mut().insert(self.call.clone());
        self.routes.call(request)
    }
}

pub async fn answer(asked: Asked, request: Request<Incoming>, local: Local) -> Result<Response<Body>, Status> {
    let json = match asked {
        Asked::Events => return events(&request, local).await,
        Asked::Stream => return overview::stream(&request, local).await,
        Asked::Tap => return overview::tap(&request, local).await,
        Asked::Apply | Asked::Put(..) | Asked::Delete(..) | Asked::Rollback | Asked::Confirm | Asked::Abort => {
            write(asked, request, local).await?
        }
        Asked::Config | Asked::Revisions | Asked::Objects(_) | Asked::Object(..) => {
            configured(asked, &request, local).await?
        }
        Asked::WhoAmI
        | Asked::Traffic
        | Asked::Health(_)
        | Asked::Apis(_)
        | Asked::Callers(_)
        | Asked::AiUsage
        | Asked::Verify
        | Asked::Diff => overview::answer(asked, &request, local).await?,
        Asked::Cluster | Asked::Nodes | Asked::Node(..) | Asked::TransferLeader => {
            members(asked, &request, local).await?
        }
        Asked::Doctor | Asked::Stats | Asked::Audit | Asked::Exchange(_) | Asked::Match => {
            observed(asked, &request, local).await?
        }
        Asked::Approvals | Asked::Approval(..) => approvals::answer(asked, &request, local).await?,
        Asked::Keys
        | Asked::CreateKey
        | Asked::RotateKey(_)
        | Asked::Key(..)
        | Asked::Revocations
        | Asked::Revoke
        | Asked::Bans
        | Asked::Anomalies
        | Asked::Usage(_) => credentials::answer(asked, &request, local).await?,
    };
    Ok(reply::respond(StatusCode::OK, &json))
}

fn config_of(local: Local) -> ConfigClient<Local> {
    ConfigClient::new(local).max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX)
}

async fn write(asked: Asked, request: Request<Incoming>, local: Local) -> Result<Value, Status> {
    let mut config = config_of(local);
    let answer = match asked {
        Asked::Apply => {
            let words = Words::of(&request, &[&WRITE[..], &["prune", "owner", "try"]].concat())?;
            let resources = words::resources(&words::body(request).await?)?;
            let (prune, owner, trial) = (words.is("prune")?, words.text("owner"), words.span("try")?);
            config.apply_config(admin::ApplyConfigRequest { prune, owner, trial, ..apply(&words, &resources)? }).await?
        }
        Asked::Put(kind, name) => {
            let words = Words::of(&request, &[&OBJECT[..], &["try"]].concat())?;
            let resource = words::resource(kind, &name, &words::body(request).await?)?;
            let (etags, trial) = (etags(&words, kind, name), words.span("try")?);
            config.apply_config(admin::ApplyConfigRequest { etags, trial, ..apply(&words, &[resource])? }).await?
        }
        Asked::Delete(kind, name) => {
            let words = Words::of(&request, &OBJECT)?;
            let etags = etags(&words, kind, name.clone());
            let delete = vec![admin::ResourceRef { kind: convert::kind_to(kind) as i32, name }];
            config.apply_config(admin::ApplyConfigRequest { delete, etags, ..apply(&words, &[])? }).await?
        }
        Asked::Rollback => {
            let words = Words::of(&request, &[&WRITE[..], &["revision", "previous"]].concat())?;
            config.rollback(rollback(&words)?).await?
        }
        Asked::Confirm => config.confirm_trial(admin::ConfirmTrialRequest { revision: trial(&request)? }).await?,
        _ => config.abort_trial(admin::AbortTrialRequest { revision: trial(&request)? }).await?,
    };
    Ok(shape::write(&answer.into_inner()))
}

fn apply(words: &Words, resources: &[Resource]) -> Result<admin::ApplyConfigRequest, Status> {
    Ok(admin::ApplyConfigRequest {
        config: Some(convert::config_to(resources.iter())),
        validate_only: words.is("dry_run")?,
        expected_revision: words.number("if_revision")?,
        request_id: words.text("request_id"),
        message: words.text("message"),
        ..Default::default()
    })
}

fn etags(words: &Words, kind: Kind, name: String) -> Vec<admin::Etag> {
    let etag = words.text("etag");
    let given = (!etag.is_empty()).then(|| admin::Etag { kind: convert::kind_to(kind) as i32, name, etag });
    given.into_iter().collect()
}

fn rollback(words: &Words) -> Result<admin::RollbackRequest, Status> {
    let target = match (words.number("revision")?, words.is("previous")?) {
        (Some(revision), false) => admin::rollback_request::Target::Revision(revision),
        (None, true) => admin::rollback_request::Target::Previous(true),
        _ => return Err(failure::bad_field("revision", "allowed: revision=N or previous=true, one of them")),
    };
    Ok(admin::RollbackRequest {
        target: Some(target),
        request_id: words.text("request_id"),
        message: words.text("message"),
        validate_only: words.is("dry_run")?,
        expected_revision: words.number("if_revision")?,
    })
}

fn trial<T>(request: &Request<T>) -> Result<u64, Status> {
    Ok(Words::of(request, &["revision"])?.number("revision")?.unwrap_or_default())
}

async fn configured<T>(asked: Asked, request: &Request<T>, local: Local) -> Result<Value, Status> {
    let mut config = config_of(local);
    match asked {
        Asked::Revisions => {
            let words = Words::of(request, &["limit", "stale"])?;
            let asked = admin::ListRevisionsRequest { stale: words.is("stale")?, limit: words.count("limit")? };
            let revisions = config.list_revisions(asked).await?.into_inner().revisions;
            Ok(json!({ "revisions": revisions.iter().map(shape::revision).collect::<Vec<_>>() }))
        }
        Asked::Objects(kind) => {
            let words = Words::of(request, &["owner", "stale"])?;
            let asked = admin::ListObjectsRequest { stale: words.is("stale")?, owner: words.text("owner") };
            let set = fetch::list(&mut config, kind, tonic::Request::new(asked)).await?;
            Ok(json!({ kind.list(): lists(set)?[kind.list()] }))
        }
        Asked::Object(kind, name) => {
            let words = Words::of(request, &["stale", "canonical"])?;
            let (stale, canonical) = (words.is("stale")?, words.is("canonical")?);
            let asked = tonic::Request::new(admin::GetObjectRequest { name, stale });
            let (message, etag) = fetch::one(&mut config, kind, asked).await?;
            let resource = convert::resource_from(message).map_err(internal)?;
            let shown = if canonical { canonical::words(&resource) } else { fetch::shown(&resource) };
            let mut json = shown.map_err(internal)?;
            json["etag"] = etag.into();
            Ok(json)
        }
        _ => {
            let words = Words::of(request, &["revision", "stale"])?;
            let asked = admin::GetConfigRequest { revision: words.number("revision")?, stale: words.is("stale")? };
            let answer = config.get_config(asked).await?.into_inner();
            let mut json = json!({ "revision": answer.revision });
            let lists = lists(answer.config.unwrap_or_default())?;
            Kind::ALL.iter().for_each(|kind| json[kind.list()] = lists[kind.list()].clone());
            Ok(json)
        }
    }
}

/// In the words of the file, every field of every object.
fn lists(set: admin::ConfigSet) -> Result<Value, Status> {
    let resources = convert::config_from(set).map_err(internal)?;
    let mut json = json!({});
    for kind in Kind::ALL {
        let ours = resources.iter().filter(|it| it.kind() == kind);
        let words: Result<Vec<_>, _> = ours.map(fetch::shown).collect();
        json[kind.list()] = words.map_err(internal)?.into();
    }
    Ok(json)
}

fn internal(error: impl ToString) -> Status {
    failure::status(Code::Internal, "INTERNAL", error.to_string())
}

async fn members<T>(asked: Asked, request: &Request<T>, local: Local) -> Result<Value, Status> {
    let mut cluster = ClusterClient::new(local).max_decoding_message_size(MESSAGE_BYTES_MAX);
    if asked == Asked::TransferLeader {
        let to = Words::of(request, &["to"])?.text("to");
        let answer = cluster.transfer_leader(admin::TransferLeaderRequest { to }).await?.into_inner();
        return Ok(json!({ "leader": answer.leader, "term": answer.term }));
    }
    Words::of(request, &[])?;
    let Asked::Node(node, verb) = asked else {
        if asked == Asked::Cluster {
            return Ok(shape::cluster(&cluster.get_status(admin::GetStatusRequest {}).await?.into_inner()));
        }
        let nodes = cluster.list_nodes(admin::ListNodesRequest {}).await?.into_inner().nodes;
        return Ok(json!({ "nodes": nodes.iter().map(shape::node).collect::<Vec<_>>() }));
    };
    let node = admin::NodeRequest { node, force: false };
    let answer = match verb {
        NodeVerb::Drain => cluster.drain_node(node).await?,
        NodeVerb::Undrain => cluster.undrain_node(node).await?,
        NodeVerb::Promote => cluster.promote_node(node).await?,
        NodeVerb::Demote => cluster.demote_node(node).await?,
    };
    Ok(shape::write(&answer.into_inner()))
}

async fn observed<T>(asked: Asked, request: &Request<T>, local: Local) -> Result<Value, Status> {
    let mut observe = ObserveClient::new(local).max_decoding_message_size(MESSAGE_BYTES_MAX);
    match asked {
        Asked::Doctor => {
            Words::of(request, &[])?;
            Ok(doctor::json(&observe.doctor(admin::DoctorRequest {}).await?.into_inner()))
        }
        Asked::Stats => {
            Words::of(request, &[])?;
            Ok(top::counted(&observe.get_stats(admin::GetStatsRequest {}).await?.into_inner()))
        }
        Asked::Audit => {
            let words =
                Words::of(request, &["limit", "actor", "rpc", "object", "since", "until", "denials", "access"])?;
            let asked = admin::ListAuditRequest {
                limit: words.count("limit")?,
                actor: words.text("actor"),
                rpc: words.text("rpc"),
                object: words.text("object"),
                since: words.time("since")?,
                until: words.time("until")?,
                denials: words.is("denials")?,
                changes: false,
                access: words.is("access")?,
            };
            let entries = observe.list_audit(asked).await?.into_inner().entries;
            Ok(json!({ "entries": entries.iter().map(shape::audit).collect::<Vec<_>>() }))
        }
        Asked::Exchange(request_id) => {
            Words::of(request, &[])?;
            let asked = admin::ExplainRequestRequest { request_id };
            Ok(exchanges::explained(&observe.explain_request(asked).await?.into_inner()))
        }
        _ => {
            let words = Words::of(
                request,
                &["method", "url", "header", "client_ip", "consumer", "scope", "claims", "listener"],
            )?;
            let header = |text: String| match text.split_once(':') {
                Some((name, value)) => {
                    Ok(admin::HeaderField { name: name.trim().to_ascii_lowercase(), value: value.trim().to_owned() })
                }
                None => Err(failure::bad_field("header", &format!("found {text:?}; allowed: name:value"))),
            };
            let method = Some(words.text("method")).filter(|it| !it.is_empty()).unwrap_or_else(|| "GET".into());
            let asked = admin::ExplainMatchRequest {
                method: method.to_ascii_uppercase(),
                url: words.text("url"),
                headers: words.all("header").into_iter().map(header).collect::<Result<_, _>>()?,
                client_ip: words.text("client_ip"),
                consumer: words.text("consumer"),
                scopes: words.all("scope"),
                claims: words.text("claims"),
                listener: words.text("listener"),
            };
            Ok(shape::explanation(&observe.explain_match(asked).await?.into_inner()))
        }
    }
}

/// A reader that was cut off says what it saw last.
async fn events<T>(request: &Request<T>, local: Local) -> Result<Response<Body>, Status> {
    let since = Words::of(request, &["since"])?.number("since")?;
    let seen = request.headers().get("last-event-id").and_then(|field| field.to_str().ok()?.parse().ok());
    let mut config = config_of(local);
    let events = config.watch_config(admin::WatchConfigRequest { since: seen.or(since) }).await?.into_inner();
    Ok(reply::revisions(events))
}
