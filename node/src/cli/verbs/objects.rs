//! `route`, `upstream`, `consumer` and the others: one object at a time, by the same write path as files.

use quorumgate_model::{
    convert,
    resource::{Kind, Name, Resource},
};
use quorumgate_proto::admin::v1::{self as admin, ApplyConfigRequest, ResourceRef};
use serde_json::{Map, Value, json};

use super::{explain, fetch, files::of_write, upstream_health};
use crate::cli::{
    args::{
        ConsumerVerb, Global, ListObjects, ObjectVerb, RemoveObjects, RouteVerb, SetRoute, SetUpstream, UpstreamVerb,
        WriteNote,
    },
    client::Client,
    config::{self, canonical, source},
    failure::{Failure, Outcome, Problem},
    input,
    output::Answer,
    shape,
    write::{self, Wrote},
};

pub async fn route(global: &Global, verb: RouteVerb) -> Outcome {
    match verb {
        RouteVerb::Match(it) => explain::run(global, it).await,
        RouteVerb::Ls(it) => ls(global, Kind::Route, it).await,
        RouteVerb::Get { name } => get(global, Kind::Route, &name).await,
        RouteVerb::Set(it) => {
            let resource = match &it.file {
                Some(file) => from_file(Kind::Route, &it.name, file)?,
                None => from_flags(Kind::Route, route_words(&it))?,
            };
            set(global, &resource, it.note).await
        }
        RouteVerb::Rm(it) => rm(global, Kind::Route, it).await,
    }
}

pub async fn upstream(global: &Global, verb: UpstreamVerb) -> Outcome {
    match verb {
        UpstreamVerb::Ls(it) => ls(global, Kind::Upstream, it).await,
        UpstreamVerb::Get { name } => get(global, Kind::Upstream, &name).await,
        UpstreamVerb::Health { name } => upstream_health::run(global, &name).await,
        UpstreamVerb::Set(it) => {
            let resource = match &it.file {
                Some(file) => from_file(Kind::Upstream, &it.name, file)?,
                None => from_flags(Kind::Upstream, upstream_words(&it))?,
            };
            set(global, &resource, it.note).await
        }
        UpstreamVerb::Rm(it) => rm(global, Kind::Upstream, it).await,
    }
}

pub async fn consumer(global: &Global, verb: ConsumerVerb) -> Outcome {
    match verb {
        ConsumerVerb::Ls(it) => ls(global, Kind::Consumer, it).await,
        ConsumerVerb::Get { name } => get(global, Kind::Consumer, &name).await,
        ConsumerVerb::Set(it) => {
            let words = json!({ "name": it.name, "groups": it.groups, "plan": it.plan });
            let resource = match &it.file {
                Some(file) => from_file(Kind::Consumer, &it.name, file)?,
                None => from_flags(Kind::Consumer, words)?,
            };
            set(global, &resource, it.note).await
        }
        ConsumerVerb::Rm(it) => rm(global, Kind::Consumer, it).await,
    }
}

pub async fn of_kind(global: &Global, kind: Kind, verb: ObjectVerb) -> Outcome {
    match verb {
        ObjectVerb::Ls(it) => ls(global, kind, it).await,
        ObjectVerb::Get { name } => get(global, kind, &name).await,
        ObjectVerb::Set(it) => set(global, &from_file(kind, &it.name, &it.file)?, it.note).await,
        ObjectVerb::Rm(it) => rm(global, kind, it).await,
    }
}

fn from_file(kind: Kind, name: &Name, file: &std::path::Path) -> Outcome<Resource> {
    let mut sources = source::read(&[file.to_owned()])?;
    match (sources.pop(), sources.is_empty()) {
        (Some(source), true) => config::load_one(kind, name, source),
        _ => Err(Failure::usage(format!("{}: found a directory; allowed: one file", file.display()))),
    }
}

fn from_flags(kind: Kind, words: Value) -> Outcome<Resource> {
    config::resource(kind, words).map_err(|invalid| Failure::invalid(vec![Problem::invalid(invalid.under(kind))]))
}

fn route_words(it: &SetRoute) -> Value {
    let mut tests = Map::new();
    let mut lists = |name: &str, words: &[String]| {
        if !words.is_empty() {
            tests.insert(name.to_owned(), json!(words));
        }
    };
    lists("hosts", &it.hosts);
    lists("methods", &it.methods);
    let paths = [
        ("path_prefix", &it.path.path_prefix),
        ("path_exact", &it.path.path_exact),
        ("path_template", &it.path.path_template),
        ("path_regex", &it.path.path_regex),
    ];
    for (name, path) in paths {
        if let Some(path) = path {
            tests.insert(name.to_owned(), json!(path));
        }
    }
    json!({ "name": it.name, "match": tests, "upstream": it.upstream })
}

fn upstream_words(it: &SetUpstream) -> Value {
    let mut words = json!({ "name": it.name, "targets": it.targets });
    if let Some(protocol) = &it.protocol {
        words["protocol"] = json!(protocol);
    }
    if let Some(policy) = &it.balance {
        words["balance"] = json!({ "policy": policy });
    }
    if let Some(path) = &it.health_path {
        words["health"] = json!({ "path": path });
    }
    words
}

async fn set(global: &Global, resource: &Resource, note: WriteNote) -> Outcome {
    let config = Some(convert::config_to([resource].into_iter()));
    apply(global, ApplyConfigRequest { config, ..request(&note) }).await
}

async fn rm(global: &Global, kind: Kind, verb: RemoveObjects) -> Outcome {
    let names: Vec<String> = verb.names.iter().map(|name| format!("{kind}/{name}")).collect();
    input::confirm(global, &format!("deletes {}", names.join(", ")))?;
    let kind = convert::kind_to(kind) as i32;
    let delete = verb.names.iter().map(|name| ResourceRef { kind, name: name.to_string() }).collect();
    apply(global, ApplyConfigRequest { delete, ..request(&verb.note) }).await
}

fn request(note: &WriteNote) -> ApplyConfigRequest {
    ApplyConfigRequest {
        expected_revision: note.if_revision,
        request_id: note.request_id.unwrap_or_else(uuid::Uuid::new_v4).to_string(),
        message: note.message.clone(),
        ..ApplyConfigRequest::default()
    }
}

async fn apply(global: &Global, request: ApplyConfigRequest) -> Outcome {
    let client = Client::connect(global).await?;
    let id = request.request_id.clone();
    let sent = client.config().apply_config(client.ask(request)).await;
    let answer = sent.map_err(|status| of_write(Failure::from(status), &id))?.into_inner();
    write::print(global.output, Wrote::Resources, &answer)
}

async fn ls(global: &Global, kind: Kind, verb: ListObjects) -> Outcome {
    let client = Client::connect(global).await?;
    let request = client.ask(admin::ListObjectsRequest { stale: verb.stale, owner: verb.owner.unwrap_or_default() });
    let set = fetch::list(&mut client.config(), kind, request).await?;
    let resources = convert::config_from(set).map_err(Failure::internal)?;
    let words = resources.iter().map(fetch::shown).collect::<Outcome<Vec<Value>>>()?;
    let (header, row): (Vec<_>, fn(&Value) -> Vec<String>) = match kind {
        Kind::Route => (vec!["name", "hosts", "path", "methods", "to", "priority", "owner"], route_row),
        Kind::Upstream => (vec!["name", "targets", "protocol", "balance", "health", "owner"], upstream_row),
        Kind::Consumer => (vec!["name", "groups", "plan", "owner"], consumer_row),
        Kind::Auth => (vec!["name", "kind", "from", "owner"], auth_row),
        Kind::CertificateAuthority => (vec!["name", "certificates", "crl", "owner"], authority_row),
        Kind::Limit => (vec!["name", "kind", "per", "limit", "mode", "owner"], limit_row),
        Kind::Certificate => (vec!["name", "hosts", "not_after", "key", "owner"], certificate_row),
        Kind::Listener => (vec!["name", "address", "protocol", "certificates", "client_auth", "owner"], listener_row),
        Kind::Policy => (vec!["name", "kind", "mode", "allow", "deny", "owner"], policy_row),
        Kind::Tenant => (vec!["name", "owners", "hosts", "path_prefixes", "owner"], tenant_row),
        Kind::Guardrail => (vec!["name", "effect", "kinds", "message", "owner"], guardrail_row),
    };
    Answer {
        header,
        wide_columns: 1,
        rows: words.iter().map(row).collect(),
        names: resources.iter().map(|it| it.key().name.to_string()).collect(),
        yaml: Some(canonical::file(resources.iter())?),
        json: json!({ kind.list(): words }),
        list: Some(kind.list()),
        ..Answer::default()
    }
    .print(global.output)
}

fn joined(list: &Value, every: &str) -> String {
    match list.as_array().map(Vec::as_slice) {
        None | Some([]) => every.to_owned(),
        Some(items) => items.iter().map(shape::cell).collect::<Vec<_>>().join(","),
    }
}

fn route_row(it: &Value) -> Vec<String> {
    let tests = &it["match"];
    let path = [("path_prefix", "*"), ("path_exact", ""), ("path_template", ""), ("path_regex", " (regex)")]
        .into_iter()
        .find_map(|(field, mark)| tests[field].as_str().map(|path| format!("{path}{mark}")));
    let to = match (&it["upstream"], &it["redirect"], &it["respond"]) {
        (Value::String(upstream), _, _) => upstream.clone(),
        (_, Value::Object(redirect), _) => format!("redirect {}", redirect["status"]),
        (_, _, respond) => format!("respond {}", respond["status"]),
    };
    vec![
        shape::cell(&it["name"]),
        joined(&tests["hosts"], "*"),
        path.unwrap_or_else(|| "*".into()),
        joined(&tests["methods"], "*"),
        to,
        shape::cell(&it["priority"]),
        shape::cell(&it["owner"]),
    ]
}

fn upstream_row(it: &Value) -> Vec<String> {
    let targets: Vec<String> =
        it["targets"].as_array().into_iter().flatten().map(|target| shape::cell(&target["address"])).collect();
    vec![
        shape::cell(&it["name"]),
        targets.join(","),
        shape::cell(&it["protocol"]),
        shape::cell(&it["balance"]["policy"]),
        shape::cell(&it["health"]["path"]),
        shape::cell(&it["owner"]),
    ]
}

fn consumer_row(it: &Value) -> Vec<String> {
    vec![shape::cell(&it["name"]), joined(&it["groups"], ""), shape::cell(&it["plan"]), shape::cell(&it["owner"])]
}

fn auth_row(it: &Value) -> Vec<String> {
    let mut kinds = it.as_object().into_iter().flatten().filter(|(word, _)| *word != "labels");
    let (kind, words) =
        kinds.find(|(_, words)| words.is_object()).map_or(("", &Value::Null), |(kind, words)| (kind.as_str(), words));
    let from =
        ["issuer", "endpoint", "token_endpoint", "ca", "header"].into_iter().find_map(|word| words[word].as_str());
    vec![shape::cell(&it["name"]), kind.into(), from.unwrap_or_default().into(), shape::cell(&it["owner"])]
}

fn authority_row(it: &Value) -> Vec<String> {
    let blocks = |word: &str, label: &str| it[word].as_str().map_or(0, |text| text.matches(label).count()).to_string();
    vec![
        shape::cell(&it["name"]),
        blocks("pem", "-----BEGIN CERTIFICATE-----"),
        blocks("crl", "-----BEGIN X509 CRL-----"),
        shape::cell(&it["owner"]),
    ]
}

fn limit_row(it: &Value) -> Vec<String> {
    let per = match &it["per"] {
        Value::Array(_) => joined(&it["per"], ""),
        one => shape::cell(one),
    };
    let text = |word: &str| shape::cell(&it[word]);
    let limit = match it["kind"].as_str() {
        Some("bucket") => format!("{} per {}, burst {}", text("rate"), text("window"), text("burst")),
        Some("calendar") => format!("{} per {} ({})", text("limit"), text("every"), text("zone")),
        Some("concurrency") => format!("{} at once", text("limit")),
        _ => format!("{} per {}", text("limit"), text("window")),
    };
    vec![text("name"), text("kind"), per, limit, text("mode"), text("owner")]
}

fn certificate_row(it: &Value) -> Vec<String> {
    let text = |word: &str| shape::cell(&it[word]);
    vec![text("name"), joined(&it["hosts"], "*"), text("not_after"), text("key"), text("owner")]
}

fn listener_row(it: &Value) -> Vec<String> {
    let text = |word: &str| shape::cell(&it[word]);
    let protocol = match it["http3"].as_bool() {
        Some(true) => format!("{}, http3", text("protocol")),
        _ => text("protocol"),
    };
    let certificates = joined(&it["certificates"], "");
    vec![text("name"), text("address"), protocol, certificates, text("client_auth"), text("owner")]
}

fn policy_row(it: &Value) -> Vec<String> {
    let count = |word: &str| match it["ip"][word].as_array().map_or(0, Vec::len) {
        0 => "-".to_owned(),
        1 => "1 network".to_owned(),
        count => format!("{count} networks"),
    };
    let is_kind = |(word, value): &(&String, &Value)| value.is_object() && *word != "labels";
    let (kind, words) = it.as_object().and_then(|it| it.iter().find(is_kind)).unzip();
    let mode = words.and_then(|words| words["mode"].as_str()).unwrap_or("enforce");
    let kind = kind.cloned().unwrap_or_default();
    vec![shape::cell(&it["name"]), kind, mode.into(), count("allow"), count("deny"), shape::cell(&it["owner"])]
}

fn tenant_row(it: &Value) -> Vec<String> {
    let own = shape::cell(&it["name"]);
    let owners = joined(&it["owners"], &own);
    let claims = it["hosts"].as_array().is_some_and(|it| !it.is_empty())
        || it["path_prefixes"].as_array().is_some_and(|it| !it.is_empty());
    let every = if claims { "*" } else { "-" };
    vec![own, owners, joined(&it["hosts"], every), joined(&it["path_prefixes"], every), shape::cell(&it["owner"])]
}

fn guardrail_row(it: &Value) -> Vec<String> {
    let text = |word: &str| shape::cell(&it[word]);
    vec![text("name"), text("effect"), joined(&it["kinds"], "*"), text("message"), text("owner")]
}

async fn get(global: &Global, kind: Kind, name: &Name) -> Outcome {
    let client = Client::connect(global).await?;
    let request = client.ask(admin::GetObjectRequest { name: name.to_string(), stale: false });
    let (message, etag) = fetch::one(&mut client.config(), kind, request).await?;
    let resource = convert::resource_from(message).map_err(Failure::internal)?;
    let mut json = fetch::shown(&resource)?;
    json["etag"] = json!(etag);
    let file = canonical::file([&resource].into_iter())?;
    let names = vec![name.to_string()];
    Answer { text: Some(file.clone()), yaml: Some(file), json, names, ..Answer::default() }.print(global.output)
}
